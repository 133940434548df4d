"""Which decisions were added or changed after a return, as the detections remember them.

Written when a return is judged anew, which is whenever something has come after it. What is kept of a decision
depends on the order of its register alone, and not on when, or how often, returns were judged.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from ledger.errors import StoreError
from services.auditing.after_returns import AfterReturn, AfterReturnCounts, AfterReturnKind
from services.auditing.detections.returns import Moved
from services.auditing.fact_store import APPLICATION_ID, INDEX, LAYOUT, PLACE_BITS, FactStore
from services.auditing.returns import ReturnFindingKind

_FIRST: Final = (
    "(SELECT min(f.place) FROM statements f INDEXED BY statements_by_record WHERE f.record = s.record "
    "AND f.place >= :begin AND f.place < :end)"
)
_IN: Final = "{0}.series = :series AND {0}.latest BETWEEN :earliest AND :latest"

_AFTER_ADDED: Final = f"""
SELECT s.place AS place FROM statements s INDEXED BY statements_by_date
WHERE {_IN.format("s")} AND s.place > :return AND s.version = 1
"""  # noqa: S608

_AFTER_CHANGED: Final = f"""
SELECT s.place AS place FROM statements s INDEXED BY statements_by_date
LEFT JOIN statements b ON b.place = s.before
WHERE {_IN.format("s")} AND s.place > :return AND s.version > 1 AND (b.place IS NULL OR NOT ({_IN.format("b")}))
UNION ALL
SELECT n.place FROM statements s INDEXED BY statements_by_date JOIN statements n ON n.place = s.next
WHERE {_IN.format("s")} AND s.next > :return AND NOT ({_IN.format("n")})
"""  # noqa: S608

_AFTER: Final = {ReturnFindingKind.ADDED: _AFTER_ADDED, ReturnFindingKind.CHANGED: _AFTER_CHANGED}
_HOW_MANY: Final = {kind: f"SELECT count(*), max(place) FROM ({rows})" for kind, rows in _AFTER.items()}  # noqa: S608
_FIRST_ONES: Final = {
    kind: f"SELECT place FROM ({rows}) ORDER BY place LIMIT :most"  # noqa: S608
    for kind, rows in _AFTER.items()
}

# The first of the returns that a decision was added after is kept; without any, the first that it was changed
# after. So it does not matter in which order returns are judged.
_KEEP: Final = """
ON CONFLICT (place) DO UPDATE SET
    returned = CASE WHEN excluded.added = after_returns.added
        THEN min(excluded.returned, after_returns.returned)
        WHEN excluded.added THEN excluded.returned ELSE after_returns.returned END,
    added = max(excluded.added, after_returns.added)
"""

_ADDED: Final = f"""
INSERT INTO after_returns
SELECT s.place, 1, :return FROM statements s INDEXED BY statements_by_date
WHERE {_IN.format("s")} AND s.place > :return AND s.version = 1
{_KEEP}
"""  # noqa: S608

_MOVED_IN: Final = f"""
INSERT INTO after_returns
SELECT DISTINCT {_FIRST}, 0, :return FROM statements s INDEXED BY statements_by_date
JOIN statements b ON b.place = s.before
WHERE {_IN.format("s")} AND s.place > :return AND NOT ({_IN.format("b")})
{_KEEP}
"""  # noqa: S608

_MOVED_OUT: Final = f"""
INSERT INTO after_returns
SELECT DISTINCT {_FIRST}, 0, :return FROM statements s INDEXED BY statements_by_date
JOIN statements n ON n.place = s.next
WHERE {_IN.format("s")} AND s.next > :return AND NOT ({_IN.format("n")})
{_KEEP}
"""  # noqa: S608


def keep_after_return(store: FactStore, place: int, period: tuple[int, int, int]) -> None:
    """Keep what was added or changed after the return at `place`.

    Its `period` is a series with the earliest and the latest second.
    """
    begin = place >> PLACE_BITS << PLACE_BITS
    series, earliest, latest = period
    first = store.one(
        "SELECT 1 FROM returns WHERE series = ? AND earliest = ? AND latest = ? AND place < ? LIMIT 1",
        (*period, place),
    )
    if first is not None:
        # What came after this one came after that one as well, and that is what is kept.
        return
    values = {
        "series": series,
        "earliest": earliest,
        "latest": latest,
        "return": place,
        "begin": begin,
        "end": begin + (1 << PLACE_BITS),
    }
    for statement in (_ADDED, _MOVED_IN, _MOVED_OUT):
        store.write_named(statement, values)


def moved_after(store: FactStore, place: int, period: tuple[int, int, int], most: int) -> Iterator[Moved]:
    """Yield what came after the return at `place`: added to what it counts, and moved into or out of that.

    Of each, `most` entries at most are listed: the first, and the last.
    """
    series, earliest, latest = period
    values = {"series": series, "earliest": earliest, "latest": latest, "return": place}
    for kind, how_many in _HOW_MANY.items():
        count, last = store.rows(how_many, values).fetchone()
        if count:
            listed = store.rows(_FIRST_ONES[kind], {**values, "most": most - 1})
            indices = {*(each & INDEX for (each,) in listed), last & INDEX}
            yield Moved(kind, count, tuple(sorted(indices)))


class KeptAfterReturns:
    """What the detections have kept, for reading, as of when they were last settled."""

    def __init__(self, connection: sqlite3.Connection | None, path: Path) -> None:
        self._connection = connection
        self._path = path

    def counts(self, register: str) -> AfterReturnCounts:
        """Return how many decisions of a register came after a return. Raises StoreError."""
        rows = self._rows(register, "added, count(*)", "GROUP BY added", 0, INDEX)
        counted = dict(rows)
        return AfterReturnCounts(counted.get(1, 0), counted.get(0, 0))

    def among(self, register: str, begin: int, end: int) -> dict[int, AfterReturn]:
        """Return those among the entries [begin, end) of a register, by the index of their first version.

        Raises StoreError.
        """
        kinds = (AfterReturnKind.CHANGED, AfterReturnKind.ADDED)
        return {
            place & INDEX: AfterReturn(kinds[added], returned & INDEX)
            for place, added, returned in self._rows(register, "place, added, returned", "", begin, end - 1)
        }

    def _rows(self, register: str, columns: str, rest: str, first: int, last: int) -> list[Any]:
        if self._connection is None:
            return []
        with _translated(self._path):
            row = self._connection.execute("SELECT id FROM registers WHERE name = ?", (register,)).fetchone()
            if row is None:
                return []
            begin = row[0] << PLACE_BITS
            return self._connection.execute(
                f"SELECT {columns} FROM after_returns WHERE place BETWEEN ? AND ? {rest}",  # noqa: S608
                (begin + first, begin + last),
            ).fetchall()


@contextmanager
def kept_after_returns(path: Path) -> Iterator[KeptAfterReturns]:
    """Open what the detections have kept in the file at `path`; nothing where no detections were run.

    Raises StoreError.
    """
    if not path.exists():
        yield KeptAfterReturns(None, path)
        return
    with _translated(path):
        connection = sqlite3.connect(path, isolation_level=None)
    with closing(connection):
        with _translated(path):
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (layout,) = connection.execute("PRAGMA user_version").fetchone()
        is_ours = (application, layout) == (APPLICATION_ID, LAYOUT)
        yield KeptAfterReturns(connection if is_ours else None, path)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}") from error
