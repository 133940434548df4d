"""The matches of `daybook query` as text: a table of a line each, or each record in full.

What a record says is hostile: a cell is one printable line, and every line of a record in full is indented
and begins with the name of a member, or with a bar.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ledger import base64
from ledger.entries import parse_entry
from ledger.timeline import Bounds
from services.cli.query_found import Found, instant
from services.cli.reporting import printable
from services.evidence.rendering import NOT_CANONICAL, render
from services.query_answer import Match, Standing, Unread

_HEAD: Final = ("entry", "record", "version", "reference", "decided", "type", "channel", "title")

_HEAD_OF_SERIES: Final = (
    "entry",
    "record",
    "version",
    "reference",
    "accepted",
    "submitter",
    "decided",
    "type",
    "channel",
    "title",
)

_LONGEST: Final = 300
"""Characters of a reason that a table shows."""

_DONE: Final = {
    "decision.registered/1": "registered",
    "decision.corrected/1": "corrected",
    "decision.withdrawn/1": "withdrawn",
}


@dataclass(frozen=True, slots=True)
class Listing:
    """How matches are listed. `marking`: those after the moment are marked; `full`: with their whole record.

    `of_series`: with who submitted them and when, by the ledger's word.
    """

    found: Found
    marking: bool
    full: bool
    of_series: bool

    def lines(self, matches: Sequence[Match]) -> Iterator[str]:
        """Yield the lines of a list, an empty one first; none for no matches."""
        if not matches:
            return
        if self.full:
            for each in matches:
                yield from self._in_full(each)
        else:
            yield ""
            yield from self._table(matches)

    def unread(self, unread: Unread) -> Iterator[str]:
        """Yield the lines of an entry that cannot be read as a record, in full where that is asked for."""
        yield f"Entry {unread.index} cannot be read as a record, and may match: {one_line(unread.why)}"
        if self.full and unread.entry is not None:
            yield from _record(unread.entry)

    def _table(self, matches: Sequence[Match]) -> Iterator[str]:
        head = _HEAD_OF_SERIES if self.of_series else _HEAD
        rows = [head, *(_row(each, of_series=self.of_series) for each in matches)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head) - 1)]
        notes: list[Sequence[str]] = [(), *((*_says(each), *self._notes(each)) for each in matches)]
        for row, noted in zip(rows, notes, strict=True):
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=False))
            yield "  ".join((*cells, row[-1])).rstrip()
            for note in noted:
                yield f"{'':{widths[0]}}  {note}"

    def _in_full(self, match: Match) -> Iterator[str]:
        yield ""
        yield f"Entry {match.index}: {match.type}, record {match.record_id}, version {match.version}"
        for note in self._notes(match):
            yield f"  {note}"
        yield f"  Accepted at {match.accepted_at} from {one_line(match.submitter)}, as the ledger says"
        if match.entry is not None:
            yield from _record(match.entry)

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


def one_line(text: str) -> str:
    """Return text of a record as one line that steers no terminal."""
    return printable(text).replace("\n", " ")


def _record(data: bytes) -> Iterator[str]:
    """Yield the record of an entry as readable text, as evidence packs have it, or its bytes."""
    record = parse_entry(data).record
    text = render(record)
    if text == NOT_CANONICAL:
        yield f"    not canonical JSON; its bytes in base64: {base64.encode(record)}"
        return
    for line in text.decode().splitlines():
        yield f"    {printable(line)}"


def _row(match: Match, *, of_series: bool) -> tuple[str, ...]:
    title = "withheld" if match.title_withheld else match.title or "-"
    cells = (
        str(match.index),
        match.record_id,
        str(match.version),
        _reference(match),
        *((match.accepted_at, match.submitter) if of_series else ()),
        match.decided_at or "-",
        match.decision_type or match.type,
        match.channel or "-",
        title if match.title_withheld or match.title is None else f'"{title}"',
    )
    return tuple(one_line(cell) for cell in cells)


def _says(match: Match) -> Iterator[str]:
    """Yield what a void or a return states, as far as a line goes."""
    if match.says is not None:
        text = one_line(match.says)
        yield text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… (--full shows all of it)"


def _reference(match: Match) -> str:
    if match.series is None:
        return "-"
    if match.numbers is None:
        return match.series
    first, last = match.numbers
    return f"{match.series} {first}" if first == last else f"{match.series} {first} to {last}"


def _done(match: Match) -> str:
    """Return in a word what an entry did to its record."""
    return _DONE.get(match.type, "replaced" if match.version > 1 else "registered")


def _window(match: Match, window: Bounds | None) -> str:
    if window is None:
        return f"at {match.accepted_at}, as the ledger says"
    after = "at some time" if window.not_before is None else f"after {instant(window.not_before)}"
    return after + ("" if window.not_after is None else f", and by {instant(window.not_after)}")
