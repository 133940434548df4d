"""Opening what a command that follows a ledger from outside works on: its address, and the state of it."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from ledger.checkpoints import peek_origin
from ledger.errors import MalformedError, SignatureError
from ledger.governing import GOVERNING
from ledger.witnessing import Policy
from services.cli.reporting import UnreachableError, UsageError
from services.monitoring.fetching import FetchError, Site
from services.monitoring.state import SeenCheckpoints, State, StateDirectory, open_mirror, open_seen
from services.settings import client_tls


def site_at(url: str, timeout: float) -> Site:
    """Return a ledger's address, to be opened. `timeout` is in seconds. Raises UsageError where it is none."""
    context = _trusted_issuers() if url.startswith("https:") else None
    try:
        return Site(url, context, timeout)
    except ValueError as error:
        raise UsageError(str(error), "URL_MALFORMED") from error


def _trusted_issuers() -> ssl.SSLContext:
    """Return how an https address is trusted: by the system's issuers, or by those of the environment."""
    tls = client_tls()
    if tls is None or tls.issuers is None:
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cadata=tls.issuers.decode("ascii", "replace"))
    except ssl.SSLError as error:
        raise UsageError(f"DAYBOOK_CLIENT_TLS_CA holds no PEM certificates: {error.reason}") from error


def open_state(root: Path, policy: Policy, site: Site | None, stack: ExitStack) -> State:
    """Open the state of the one ledger that the policy, the state and the address are of, until `stack` ends.

    Raises UsageError where they are of several, StateError, StoreError, OSError.
    """
    origins = policy.ledger_origins
    if not origins:
        raise UsageError(
            "The policy names no ledger by its governing key, so it cannot be followed as a whole: "
            "make one without --register",
            "POLICY_NAMES_NO_LEDGER",
        )
    seen = stack.enter_context(open_seen(root))
    origin = seen.origin()
    if origin is None:
        if site is None:
            raise UsageError(f"{root} is new: nothing was seen yet that could be compared", "STATE_EMPTY")
        origin = origins[0] if len(origins) == 1 else asyncio.run(_origin_at(site, origins))
        seen.begin(origin, int(time.time()))
    if origin not in origins:
        raise UsageError(
            f"{root} is the state of the ledger {origin}, which the policy does not name",
            "STATE_OF_OTHER_LEDGER",
        )
    _check_key(root, seen, policy, origin)
    mirror = stack.enter_context(open_mirror(root, origin))
    return State(StateDirectory(root), mirror, seen)


def _check_key(root: Path, seen: SeenCheckpoints, policy: Policy, origin: str) -> None:
    latest = seen.latest(GOVERNING)
    if latest is None:
        return
    try:
        policy.open(latest.last, f"{origin}/{GOVERNING}")
    except SignatureError as error:
        raise UsageError(
            f"What {root} has seen of {origin} was signed with another key than the policy names: {error}",
            "STATE_OF_OTHER_KEY",
        ) from error


async def _origin_at(site: Site, origins: Sequence[str]) -> str:
    """Return which of several ledgers is served: a hint, to be verified with the first checkpoint."""
    async with site:
        try:
            stated = peek_origin(await site.checkpoint(GOVERNING))
        except (FetchError, MalformedError) as error:
            raise UnreachableError(f"No ledger's checkpoint can be read: {error}") from error
    origin = stated.removesuffix(f"/{GOVERNING}")
    if origin not in origins:
        raise UsageError(f"{site.url} serves {stated!a}, which the policy does not name", "OTHER_LEDGER")
    return origin
