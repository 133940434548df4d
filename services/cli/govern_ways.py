"""Where a decision of governance goes, who signs it here, and whether a witness policy would seal anything."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from ledger.entries import Signature
from ledger.witnessing import Log, Policy, Quorum
from services.cli.policy_files import HOW_TO_GET_ONE, read_policy
from services.cli.reporting import UsageError
from services.governing_requests import Request
from services.ledger_files import LedgerDirectory, public_path, read_public_key, read_secret_key


@dataclass(frozen=True, slots=True)
class Way:
    """Where a decision goes, who signs it here, and how its end is told."""

    directory: Path | None
    server: str | None
    policy: Path | None
    keys: Sequence[Path]
    request_out: Path | None
    as_json: bool

    def ledger_origin(self) -> str:
        """Return the origin that is signed for: from the caller's own files, never from the server."""
        if self.directory is None and self.policy is None:
            raise UsageError(
                "Name the ledger: its directory before the action, or --server with --policy. "
                f"{HOW_TO_GET_ONE}.",
                "LEDGER_MISSING",
            )
        return _only_ledger(self.trusted())

    def trusted(self) -> Policy:
        """Return the policy file that was named, or one made from the directory's own key."""
        if self.policy is not None:
            return read_policy(self.policy)
        if self.directory is None:
            raise UsageError(f"--server needs --policy. {HOW_TO_GET_ONE}.", "POLICY_MISSING")
        key = read_public_key(public_path(LedgerDirectory(self.directory).log_key))
        return Policy((Log(key),), (), Quorum((), (), None))

    def signatures(self, request: Request) -> list[Signature]:
        """Return the signatures of the governance keys that are here; none where there are none."""
        paths = list(self.keys)
        if not paths and self.directory is not None:
            own = LedgerDirectory(self.directory).governance_key
            paths = [own] if own.exists() else []
        return [request.sign(read_secret_key(path).secret) for path in paths]


def _only_ledger(policy: Policy) -> str:
    if len(policy.ledger_origins) != 1:
        raise UsageError(
            "The policy must name exactly one ledger (a log <origin>/governing)", "POLICY_MALFORMED"
        )
    return policy.ledger_origins[0]


def check_witnesses(stated: Policy, way: Way, *, without_asking: bool) -> None:
    """Refuse a witness policy under which nothing of this ledger would be sealed; say where it ends sealing."""
    origin = way.ledger_origin()
    if origin not in stated.ledger_origins:
        named = ", ".join(stated.ledger_origins) or "no ledger"
        raise UsageError(f"This is a witness policy of {named}, and not of {origin}", "POLICY_OF_OTHER_LEDGER")
    if stated.quorum.root is None:
        typer.echo("daybook: this policy asks no witness: nothing will be sealed under it", err=True)
    elif not without_asking and way.request_out is None:
        from services.compose import require_answers

        require_answers(stated, _governing_note(way))


def _governing_note(way: Way) -> bytes:
    """Return the latest note of the governing register, for witnesses to be asked about."""
    if way.server is not None:
        from services.client.governance import governing_note as shown
        from services.settings import client_tls

        return asyncio.run(shown(way.server, client_tls()))
    from services.compose import governing_note as kept

    assert way.directory is not None  # noqa: S101 - the ledger's origin came from there
    return kept(way.directory)
