"""What `daybook query` prints: the matches, what came after, and what of all this is proved.

Record text is hostile: every cell is made printable, and one line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from ledger import base64
from ledger.timeline import Bounds
from ledger.witnessing import Policy
from services.as_at import Cut, Moment
from services.cli.reporting import printable
from services.query_answer import Answer, Match, Standing
from services.querying import Register, sealed_by

_HEAD: Final = ("entry", "record", "version", "decided", "type", "channel", "title")

_DONE: Final = {
    "decision.registered/1": "registered",
    "decision.corrected/1": "corrected",
    "decision.withdrawn/1": "withdrawn",
}


@dataclass(frozen=True, slots=True)
class Found:
    """What was found: the entries up to `end` were read, or looked through by the ledger where `quick`.

    `at_size` or `when` is the moment asked for, None for none. `cut` is where it falls: None where only
    `accepted_at` says. `windows` has the bounds of entries that straddle it, by index.
    """

    register: Register
    end: int
    at_size: int | None
    when: Moment | None
    cut: Cut | None
    quick: bool
    answer: Answer
    windows: Mapping[int, Bounds]


@dataclass(frozen=True, slots=True)
class Told:
    """What is told of it. `marking`: all matches in one table, those after the moment marked."""

    found: Found
    policy: Policy
    marking: bool

    @property
    def _sealed_at(self) -> int | None:
        return sealed_by(self.found.register.judged, self.policy)

    # JSON

    def value(self, kept: Sequence[Path]) -> dict[str, Any]:
        """Return the JSON object. `kept` are the receipts that were kept."""
        found, register, answer = self.found, self.found.register, self.found.answer
        told: dict[str, Any] = {
            "ledger_origin": register.ledger_origin,
            "register": register.name,
            "policy_fingerprint": self.policy.fingerprint,
            "checkpoint": {
                "size": register.size,
                "root": base64.encode(register.root),
                "witnessed": register.judged.sealed,
                "witnesses": sorted({each.witness for each in register.judged.cosignatures}),
                "sealed_by": _instant(self._sealed_at),
            },
            "completeness_proved": not found.quick,
            "matches": [self._match_value(each) for each in answer.matches],
            "not_read": [{"index": each.index, "why": each.why} for each in answer.unread],
            "not_read_count": answer.unread_count,
            "receipts": [str(path) for path in kept],
            "statements": list(self._statements()),
        }
        if found.at_size is not None or found.when is not None:
            told["as_at"] = self._as_at_value()
            told["since"] = [self._match_value(each) for each in answer.since]
        return told

    def _as_at_value(self) -> dict[str, Any]:
        found = self.found
        value: dict[str, Any] = {"proved": found.cut is not None}
        if found.when is not None:
            value |= {
                "asked": found.when.text,
                "earliest": _instant(found.when.earliest),
                "latest": _instant(found.when.latest),
            }
        if found.cut is not None:
            value |= {
                "known_size": found.cut.known,
                "known_by": _instant(found.cut.known_by),
                "later_from": found.cut.later,
                "later_than": _instant(found.cut.later_than),
                "comparable": found.cut.comparable,
            }
        return value

    def _match_value(self, match: Match) -> dict[str, Any]:
        newest = self.found.answer.newest(match)
        window = self.found.windows.get(match.index)
        value: dict[str, Any] = {
            "index": match.index,
            "type": match.type,
            "record_id": match.record_id,
            "version": match.version,
            "record_sha256": match.sha256,
            "decided_at": match.decided_at,
            "decision_type": match.decision_type,
            "channel": match.channel,
            "title": match.title,
            "title_withheld": match.title_withheld,
            "accepted_at": match.accepted_at,
            "decided_perhaps": match.perhaps,
            "standing": match.standing.value,
            "newest_version": None
            if newest is None
            else {"index": newest.index, "type": newest.type, "standing": newest.standing.value},
        }
        if window is not None:
            value["not_before"] = _instant(window.not_before)
            value["not_after"] = _instant(window.not_after)
        return value

    # Text

    def lines(self, kept: Sequence[Path]) -> Iterator[str]:
        """Yield the lines of text. `kept` are the receipts that were kept."""
        register, answer = self.found.register, self.found.answer
        yield f"{register.name} of {register.ledger_origin}, judged by the policy {self.policy.fingerprint}"
        yield f"Checkpoint of {register.size} entries, {self._sealing()}"
        yield f"Root {base64.encode(register.root)}"
        yield from self._moment()
        if self.marking:
            yield from self._table(sorted((*answer.matches, *answer.since), key=lambda each: each.index))
        else:
            yield from self._table(answer.matches)
            if answer.since:
                yield ""
                yield "Since then"
                yield from self._table(answer.since)
        yield ""
        for each in answer.unread:
            yield f"Entry {each.index} cannot be read as a record, and may match: {printable(each.why)}"
        if answer.unread_count > len(answer.unread):
            yield f"So many entries in all cannot be read as records: {answer.unread_count}"
        if kept:
            yield f"Receipts kept: {len(kept)}, in {kept[0].parent}"
        yield from self._statements()

    def _sealing(self) -> str:
        judged = self.found.register.judged
        if not judged.sealed:
            return "not witnessed: the ledger's own signature alone, and others may be shown another history"
        names = ", ".join(sorted({each.witness for each in judged.cosignatures}))
        at = "" if self._sealed_at is None else f" by {_instant(self._sealed_at)}"
        return f"sealed by {printable(names)}{at}"

    def _moment(self) -> Iterator[str]:
        found, cut = self.found, self.found.cut
        if found.at_size is not None:
            yield f"As it stood with its first {found.at_size} entries"
        if found.when is None:
            return
        begins, ends = _instant(found.when.earliest), _instant(found.when.latest)
        within = begins if begins == ends else f"some moment from {begins} to {ends}"
        asked = "After a request received at" if self.marking else "As it stood at"
        if cut is None:
            yield (
                f"{asked} {within}, by `accepted_at`: the operator's word, and no proof. Without witnesses "
                "nothing proves a time"
            )
            return
        yield f"{asked} {within}, by the witnesses' times"
        if cut.known:
            yield f"  Entries 0 to {cut.known - 1} were there: witnessed by {_instant(cut.known_by)}"
        if cut.later > cut.known:
            yield f"  Entries {cut.known} to {cut.later - 1} may have come in before it or after it"
        if cut.later < found.register.size:
            last = found.register.size - 1
            since = _instant(cut.later_than)
            yield f"  Entries {cut.later} to {last} were not: none of them was there at {since}"
        if not cut.comparable:
            yield "  Two quorums of your policy may share no witness: these times may be of different clocks"

    def _table(self, matches: Sequence[Match]) -> Iterator[str]:
        if not matches:
            return
        yield ""
        rows = [_HEAD, *(_row(each) for each in matches)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD) - 1)]
        notes: list[Sequence[str]] = [(), *(tuple(self._notes(each)) for each in matches)]
        for row, noted in zip(rows, notes, strict=True):
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=False))
            yield "  ".join((*cells, row[-1])).rstrip()
            for note in noted:
                yield f"{'':{widths[0]}}  {note}"

    def _notes(self, match: Match) -> Iterator[str]:
        if self.marking and match.standing is Standing.AFTER:
            yield f"AFTER the request: {_done(match)}"
        if match.standing is Standing.EITHER:
            window = self.found.windows.get(match.index)
            yield f"before or after: came in {_window(match, window)}"
        if match.perhaps:
            yield "perhaps: the date is too coarse to tell"
        newest = self.found.answer.newest(match)
        if newest is not None:
            perhaps = "perhaps " if newest.standing is Standing.EITHER else ""
            yield f"{perhaps}no longer the last version: {_done(newest)} by entry {newest.index}"

    def _statements(self) -> Iterator[str]:
        """Yield what was found and what is proved, a sentence each."""
        found, answer = self.found, self.found.answer
        as_at = found.at_size is not None or found.when is not None
        entries = "entry matches" if len(answer.matches) == 1 else "entries match"
        yield f"{len(answer.matches)} {entries}{', as it stood then' if as_at else ''}."
        if as_at and not found.quick:
            added = sum(each.version == 1 for each in answer.since)
            changed = len(answer.since) - added
            yield f"Since then: {added} added that match, {changed} that correct, withdraw or replace one."
        if found.quick:
            yield (
                "Completeness is NOT proved: the ledger chose these, and may have left out others, later "
                "versions too. Leave --quick out to have it proved."
            )
        elif answer.unread_count:
            yield (
                f"Proved: all {found.end} entries up to the checkpoint were read, and these are all that "
                f"match, but for {answer.unread_count} that cannot be read as records."
            )
        else:
            yield (
                f"Proved: these are all of them up to checkpoint {found.end}. Every one of its entries was "
                "read, and none can be left out."
            )
        yield (
            "Not proved: that the ledger has signed nothing newer. Whoever remembers its checkpoints would "
            "notice (daybook monitor)."
        )
        yield (
            "Proved of each: its author's signature. Not judged here: whose key it is, and whether it was "
            "authorised then."
        )


def _row(match: Match) -> tuple[str, ...]:
    title = "withheld" if match.title_withheld else match.title or "-"
    cells = (
        str(match.index),
        match.record_id,
        str(match.version),
        match.decided_at or "-",
        match.decision_type or match.type,
        match.channel or "-",
        title if match.title_withheld or match.title is None else f'"{title}"',
    )
    return tuple(printable(cell).replace("\n", " ") for cell in cells)


def _done(match: Match) -> str:
    """Return in a word what an entry did to its record."""
    return _DONE.get(match.type, "replaced" if match.version > 1 else "registered")


def _window(match: Match, window: Bounds | None) -> str:
    if window is None:
        return f"at {match.accepted_at}, as the ledger says"
    after = "at some time" if window.not_before is None else f"after {_instant(window.not_before)}"
    return after + ("" if window.not_after is None else f", and by {_instant(window.not_after)}")


def _instant(seconds: int | None) -> str | None:
    """Return POSIX seconds as an instant; a witness may have signed a time that no calendar has."""
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s"
