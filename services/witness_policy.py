"""The witness policy in force: the latest that governance has published and whose time has come.

A `policy.published/1` of kind witness sets the ledger's own quorum from the next checkpoint on; it changes no
verifier's file (formats.md, section 11).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from ledger.admission import moment
from ledger.entries import parse_entry
from ledger.errors import MalformedError
from ledger.governing import GOVERNING, Published
from ledger.governing_types import MAX_ANCHORED_NOTE
from ledger.ledger import LedgerView
from ledger.notes import MAX_SIGNATURE_LINES, SignatureLine, VerifierKey
from ledger.records import PolicyPublished, parse_record
from ledger.witnessing import Log, Policy, Witness

_WITNESS: Final = "witness"

_CHECKPOINT: Final = 1_024
"""Bytes that a checkpoint and the log's own line have at the most: both name an origin of up to 282."""

_COSIGNATURE: Final = 72
"""Bytes of a cosignature behind the key ID."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Asked:
    """A witness policy that governance has published at `index`, and whose time has come.

    Its quorum may be none: then it ends what the one before it asked for.
    """

    index: int
    policy: Policy


@dataclass(frozen=True, slots=True)
class _History:
    """What has come of the policies that are `published`, and comes of them before `until`, POSIX seconds."""

    published: tuple[Published, ...]
    until: float
    asked: tuple[Asked, ...]


class PolicyInForce:
    """Tells the witness policy of one ledger. `clock` gives POSIX seconds. For any thread."""

    def __init__(self, ledger: LedgerView, clock: Callable[[], float]) -> None:
        self._ledger = ledger
        self._clock = clock
        self._parsed: dict[int, Policy | None] = {}
        # A clock that was put back must not put back the time of a policy: nobody would be asked any more.
        last = ledger.last_accepted()
        self._latest = moment(last) if last is not None else 0.0
        # Asked for several times at every call.
        self._history = _History((), float("inf"), ())

    def __call__(self) -> Policy | None:
        """Return the policy in force: the last of `history`; None where that asks for no witness."""
        history = self.history()
        return history[-1].policy if history and history[-1].policy.quorum.root is not None else None

    def history(self) -> tuple[Asked, ...]:
        """Return every policy whose time has come, in the order of the governing register.

        One that cannot be used (no policy file, one in which the ledger is its own witness, or one of more
        witnesses than a note can hold) is left out, and is logged: the one before it stays in force, so that
        it never makes the ledger ask fewer.
        """
        self._latest = now = max(self._latest, self._clock())
        known, published = self._history, self._ledger.fold.published
        if known.published is not published or now >= known.until:
            known = self._history = self._history_at(published, now)
        return known.asked

    def _history_at(self, published: tuple[Published, ...], now: float) -> _History:
        until = float("inf")
        found = []
        for one in published:
            if one.kind != _WITNESS:
                continue
            begins = moment(one.effective_from)
            if begins > now:
                until = min(until, begins)
            elif (policy := self._policy(one)) is not None:
                found.append(Asked(one.index, policy))
        return _History(published, until, tuple(found))

    def _policy(self, published: Published) -> Policy | None:
        if published.index not in self._parsed:
            # Where two threads read it at once the first one's value stays: a policy is known by its identity.
            self._parsed.setdefault(published.index, self._read(published.index))
        return self._parsed[published.index]

    def _read(self, index: int) -> Policy | None:
        record = parse_record(parse_entry(self._ledger.reader(GOVERNING).entry(index)).record)
        opened = self._ledger.fold.opened
        assert isinstance(record, PolicyPublished)  # noqa: S101 - the fold says so
        assert opened is not None  # noqa: S101 - nothing is published before the ledger is open
        key = VerifierKey.parse(opened.ledger_key)
        try:
            stated = Policy.parse((record.text or "").encode())
        except MalformedError as error:
            _log.error("published witness policy cannot be used", index=index, why=str(error))
            return None
        if any(witness.key.public == key.public for witness in stated.witnesses):
            _log.error("published witness policy makes the ledger its own witness", index=index)
            return None
        if not _fits(stated.witnesses):
            _log.error("published witness policy asks more witnesses than a note can hold", index=index)
            return None
        return Policy((Log(key),), stated.witnesses, stated.quorum)


def _fits(witnesses: Sequence[Witness]) -> bool:
    """Tell whether a checkpoint note that all of them have cosigned can be opened, and can be anchored."""
    lines = [SignatureLine(each.key.name, each.key.key_id, bytes(_COSIGNATURE)).line for each in witnesses]
    return len(lines) < MAX_SIGNATURE_LINES and sum(map(len, lines)) + _CHECKPOINT <= MAX_ANCHORED_NOTE
