"""What is odd about entries, as spans of neighbours rather than one by one.

A year's records may all be odd in one way. They are then one finding, about some spans.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from services.auditing.notebook import Notebook
from services.auditing.results import MAX_SPANS, Span


@dataclass(slots=True)
class Odd:
    """Entries `first` to `last` of a register that are odd in the way of `code`; `text` says it of the first.

    Where `submission_id` (32 bytes) is given, they are of that submission and of no other.
    """

    code: str
    first: int
    last: int
    text: str
    submission_id: bytes | None = None


class OddSpans:
    """What was found in one stretch of a register, in order."""

    def __init__(self) -> None:
        self._latest: dict[str, Odd] = {}
        self._found: list[Odd] = []

    def add(self, code: str, index: int, text: str, submission_id: bytes | None = None) -> None:
        """Add an entry, to the span before it where that goes on."""
        latest = self._latest.get(code)
        if latest is not None and latest.last == index - 1 and latest.submission_id == submission_id:
            latest.last = index
            return
        self._latest[code] = Odd(code, index, index, text, submission_id)
        self._found.append(self._latest[code])

    def write(self, notebook: Notebook, register: str) -> None:
        """Write it all into the notebook, a span that goes on from the stretch before joined with that."""
        for each in self._found:
            before = notebook.one(
                "SELECT first FROM odd WHERE code = ? AND register = ? AND last = ? AND submission_id IS ? "
                "AND first = (SELECT max(first) FROM odd WHERE code = ?1 AND register = ?2)",
                (each.code, register, each.first - 1, each.submission_id),
            )
            if before is None:
                notebook.write(
                    "INSERT OR REPLACE INTO odd VALUES (?, ?, ?, ?, ?, ?)",
                    (each.code, register, each.first, each.last, each.submission_id, each.text),
                )
            else:
                notebook.write(
                    "UPDATE odd SET last = ? WHERE code = ? AND register = ? AND first = ?",
                    (each.last, each.code, register, before[0]),
                )


@dataclass(slots=True)
class Spans:
    """Entries counted, with the first spans of them."""

    listed: list[Span]
    count: int = 0

    @classmethod
    def of(cls, spans: Iterable[Span]) -> Spans:
        """Return spans, neighbours joined."""
        made = cls([])
        for first, last in spans:
            made.add(first, last)
        return made

    def add(self, first: int, last: int) -> None:
        """Add a span; those of one register come in order."""
        self.count += last - first + 1
        if self.listed and self.listed[-1][1] == first - 1:
            self.listed[-1] = (self.listed[-1][0], last)
        elif len(self.listed) < MAX_SPANS:
            self.listed.append((first, last))


def forget_from(notebook: Notebook, codes: Collection[str], register: str, index: int) -> None:
    """Forget which entries of a register from `index` on are odd in some ways."""
    for code in codes:
        notebook.write(
            "DELETE FROM odd WHERE code = ? AND register = ? AND first >= ?", (code, register, index)
        )
        notebook.write(
            "UPDATE odd SET last = ? WHERE code = ? AND register = ? AND last >= ?",
            (index - 1, code, register, index),
        )


def odd_codes(notebook: Notebook, register: str) -> list[str]:
    """Return the ways in which entries of a register are odd."""
    rows = notebook.rows("SELECT DISTINCT code FROM odd WHERE register = ? ORDER BY code", (register,))
    return [row[0] for row in rows]


def odd_spans(notebook: Notebook, code: str, register: str) -> tuple[str, Spans]:
    """Return what is said of the first entry that is odd in one way, and all of them."""
    text, spans = "", Spans([])
    for first, last, said in _rows(notebook, code, register):
        text = text or said
        spans.add(first, last)
    return text, spans


def _rows(notebook: Notebook, code: str, register: str) -> Iterator[tuple[int, int, str]]:
    yield from notebook.rows(
        "SELECT first, last, text FROM odd WHERE code = ? AND register = ? ORDER BY first", (code, register)
    )
