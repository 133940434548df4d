"""fsck: derive everything that a store holds again from its entries, compare, and name what differs.

Nothing is taken on trust but the log's public key: every entry is re-formed from its records and signatures,
both trees are hashed again, every tile, root, note, cosignature, index row and authority is compared (promise
P4).

The work is cut into spans of 4,096 entries, which may be checked in any order and in other processes (see
`fsck_spans`); what spans the spans (the upper tree, the order of views, the index tables) is put together at
the end.

One limit: a note that was deleted whole is missed only where a register that grew more than once has none.
Nothing else in a store says at which sizes the log has signed, and the note of the last head is kept only
with the next commit. Of cosignatures nothing says how many there were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

from ledger.checkpoints import Checkpoint
from ledger.entries import parse_entry, submission_body_of, submission_id
from ledger.errors import LedgerError, MalformedError, StoreError
from ledger.fsck_spans import SPAN, Ground, Problem, Span, SpanReport, check_span, is_rejection
from ledger.governing import GOVERNING, Fold, judge_governance
from ledger.hashing import HASH_SIZE, Hash
from ledger.notes import VerifierKey
from ledger.published_policies import witness_keys, witness_policies
from ledger.reader import RegisterReader, TileCache
from ledger.records import parse_record
from ledger.rules import read_header, record_key
from ledger.store import Head, RecordAt, Run, Store
from ledger.tiles import TILE_HEIGHT, TILE_WIDTH, implied, implied_width
from ledger.tree import EMPTY, extend, root_of

__all__ = [
    "SPAN",
    "Ground",
    "Problem",
    "Report",
    "RunSpans",
    "Span",
    "SpanReport",
    "check",
    "check_span",
    "read_fold",
    "stand_on",
]

_MAX_PROBLEMS: Final = 1_000
_LOOKED_UP: Final = 512


@dataclass(frozen=True, slots=True)
class Report:
    """What fsck saw: counts, and every problem, of which at most 1,000 are kept.

    Of `cosignatures`, `unchecked` are of witnesses whom no published policy names: their keys are unknown.
    """

    registers: int
    entries: int
    submissions: int
    notes: int
    cosignatures: int
    unchecked: int
    problems: tuple[Problem, ...]


RunSpans = Callable[[Sequence[Span]], Iterable[SpanReport]]
"""Checks spans, here or elsewhere, and yields a report for each in order."""


def stand_on(store: Store, origin: str, log: VerifierKey) -> Ground:
    """Return what spans of a store are judged against; damage on the way is found by `check`."""
    published = (policy for _, _, policy in witness_policies(_governing(store)) if policy is not None)
    return Ground(store, origin, read_fold(store)[0], log, witness_keys(published))


def _governing(store: Store) -> Iterator[bytes]:
    """Yield the governing entries, as far as they can be read."""
    head = store.heads().get(GOVERNING)
    for begin in range(0, _extent(store, GOVERNING, head.size) if head else 0, SPAN):
        try:
            yield from store.entries(GOVERNING, begin, begin + SPAN)
        except StoreError:
            return


def read_fold(store: Store) -> tuple[Fold, list[Problem]]:
    """Fold the governing register, judging each governance submission on the way."""
    state = Fold()
    problems: list[Problem] = []
    head = store.heads().get(GOVERNING)
    size = _extent(store, GOVERNING, head.size) if head else 0
    for begin in range(0, size, SPAN):
        try:
            entries = store.entries(GOVERNING, begin, min(begin + SPAN, size))
        except StoreError as error:
            problems.append(Problem(GOVERNING, f"entries from {begin} on", str(error)))
            break
        for index, data in enumerate(entries, begin):
            try:
                entry = parse_entry(data)
                if entry.membership is not None:
                    signers = {signature.key for signature in entry.membership.signatures}
                    judge_governance(state, parse_record(entry.record), signers)
                state = state.extended(entry)
            except LedgerError as error:
                problems.append(Problem(GOVERNING, f"entry {index}", f"governance does not hold: {error}"))
                # It counts, or everything after it would seem to have been judged too early.
                state = replace(state, size=index + 1)
    return state, problems


def check(
    ground: Ground, run: RunSpans, checkpoints: Mapping[str, Checkpoint], progress: Callable[[int], None]
) -> Report:
    """Check a whole store. `checkpoints` are the signer's marks, by register origin; `run` checks the spans.

    `progress` is told how many more entries were checked. Raises nothing for what it finds, StoreError only
    where the heads cannot be read.
    """
    problems: list[Problem] = []

    def keep(found: Iterable[Problem]) -> None:
        problems.extend(islice(found, _MAX_PROBLEMS - len(problems)))

    keep(_damage(ground.store))
    keep(read_fold(ground.store)[1])
    entries = submissions = notes = cosignatures = unchecked = 0
    heads = ground.store.heads()
    keep(_check_registers(ground.fold, ground.log, heads))
    for register, head in heads.items():
        reports: list[SpanReport] = []
        try:
            size = _extent(ground.store, register, head.size)
            for report in run(_spans(register, size)):
                reports.append(report)
                progress(report.entries)
                keep(report.problems)
            keep(_check_end(ground.store, register, head, size))
            keep(_check_whole(ground, register, Head(size, head.root), reports))
            mark = checkpoints.get(f"{ground.origin}/{register}")
            if mark is not None:
                keep(_check_mark(ground.store, register, size, mark))
        except StoreError as error:
            keep([Problem(register, "store", str(error))])
        entries += sum(report.entries for report in reports)
        submissions += sum(report.submissions for report in reports)
        notes += sum(len(report.notes) for report in reports)
        cosignatures += sum(report.cosignatures for report in reports)
        unchecked += sum(report.unchecked for report in reports)
    return Report(len(heads), entries, submissions, notes, cosignatures, unchecked, tuple(problems))


def _damage(store: Store) -> Iterator[Problem]:
    try:
        for text in store.damage():
            yield Problem("", "store", text)
    except StoreError as error:
        yield Problem("", "store", str(error))


def _check_registers(state: Fold, log: VerifierKey, heads: Mapping[str, Head]) -> Iterator[Problem]:
    expected = {GOVERNING, *state.registers}
    if state.opened is not None and state.opened.ledger_key != str(log):
        yield Problem(GOVERNING, "entry 0", f"opens the ledger with another key than {log}")
    for name in sorted(expected - heads.keys()):
        yield Problem(name, "register", "opened by the governing register, but not in the store")
    for name in sorted(heads.keys() - expected):
        yield Problem(name, "register", "in the store, but never opened by the governing register")


def _extent(store: Store, register: str, size: int) -> int:
    """Return how many entries there are to check, up to `size`: a damaged head may state any number."""
    reached = 0
    while reached < size:
        stop = min(reached + SPAN, size)
        try:
            if not store.entries(register, stop - 1, stop):
                return reached + len(store.entries(register, reached, stop))
        except StoreError:
            pass  # the span that cannot be read will say so
        reached = stop
    return reached


def _spans(register: str, size: int) -> list[Span]:
    """Return the spans of a register; an empty one has one, which holds its note of size 0."""
    return [Span(register, begin, min(begin + SPAN, size)) for begin in range(0, max(1, size), SPAN)]


def _check_end(store: Store, register: str, head: Head, size: int) -> Iterator[Problem]:
    if head.size != size:
        yield Problem(register, "head", f"states {head.size} entries, of which {size} are there")
    if store.entries(register, size, size + 1):
        yield Problem(register, f"entry {size}", f"stands beyond the head, which states {head.size} entries")


def _check_mark(store: Store, register: str, size: int, mark: Checkpoint) -> Iterator[Problem]:
    if mark.size > size:
        yield Problem(register, "head", f"the signer has signed size {mark.size}; the store ends at {size}")
    # Tiles will do: they have been compared with the entries.
    elif RegisterReader(store, register, TileCache()).root(mark.size) != mark.root:
        yield Problem(register, f"entries 0 to {mark.size - 1}", "the signer has signed another root of them")


def _check_whole(ground: Ground, register: str, head: Head, reports: Sequence[SpanReport]) -> Iterator[Problem]:
    """Put the spans together: submissions, upper tree, every root, the order of views, the index tables."""
    ends = [report.begin for report in reports[1:]] + [head.size]
    if [report.begin + report.entries for report in reports] != ends:
        return  # entries are missing, and said so: nothing above them can be compared
    yield from _check_joints(register, reports)
    upper = extend(EMPTY, [root_of(report.peaks) for report in reports if report.entries == SPAN])
    for report in reports:
        below = upper.frontier(report.begin // SPAN).hashes
        for noted in report.notes:
            if root_of((*below, *noted.peaks)) != noted.root:
                place = f"note of size {noted.size}"
                yield Problem(register, place, "states another root than the entries make")
    if root_of((*upper.frontier(reports[-1].begin // SPAN).hashes, *reports[-1].peaks)) != head.root:
        yield Problem(register, "head", "its root is not the one that the entries make")
    yield from _check_tiles(ground.store, register, head, [node for report in reports for node in report.tiles])
    yield from _check_rows(ground, register, head.size, reports)
    if ground.store.note(register, head.size) is None and _grew_twice(ground.store, register, head.size):
        yield Problem(register, "notes", "no checkpoint is kept")
    for stray in ground.store.notes(register, head.size + 1, 1 << 40):
        yield Problem(register, f"note of size {stray.size}", f"the register ends at {head.size}")


def _grew_twice(store: Store, register: str, size: int) -> bool:
    """Tell whether a register grew in more than one turn: what is accepted in one has one `accepted_at`."""
    ends = [*store.entries(register, 0, 1), *store.entries(register, size - 1, size)] if size else []
    try:
        return len({parse_entry(entry).acceptance.accepted_at for entry in ends}) > 1
    except MalformedError:
        return False  # named already


def _check_joints(register: str, reports: Sequence[SpanReport]) -> Iterator[Problem]:
    """Check that no entry fell between two spans, and that views go on from one to the next."""
    overhang = view = 0
    for report in reports:
        if report.carried != overhang:
            what = f"go on with {report.carried} of an earlier submission, which has {overhang} left"
            yield Problem(register, f"entries from {report.begin} on", what)
        overhang = report.overhang
        if report.views is not None and register != GOVERNING:
            if report.views[0] < view:
                yield Problem(register, f"entries from {report.begin} on", "governing_size decreases")
            view = report.views[1]


def _check_tiles(store: Store, register: str, head: Head, hashes: Sequence[Hash]) -> Iterator[Problem]:
    """Compare the tiles above level 0 with `hashes`, the nodes at level 8, and count all of them."""
    levels = [b"", *(b"".join(made) for _, made in extend(EMPTY, hashes).levels[::TILE_HEIGHT])]
    seen = 0
    for tile in store.all_tiles(register):
        place = f"tile {tile.level}/{tile.index}"
        width = implied_width(tile.level, tile.index, head.size)
        if len(tile.data) != width * HASH_SIZE or not width:
            yield Problem(register, place, f"has {len(tile.data)} bytes where the size implies {width} hashes")
            continue
        seen += 1
        start = tile.index * TILE_WIDTH * HASH_SIZE
        if tile.level and levels[tile.level][start : start + len(tile.data)] != tile.data:
            yield Problem(register, place, "is not made of the tiles below it")
    wanted = sum(1 for _ in implied(head.size))
    if seen != wanted:
        yield Problem(register, "tiles", f"{seen} of the {wanted} that the size implies are there")


def _check_rows(ground: Ground, register: str, size: int, reports: Sequence[SpanReport]) -> Iterator[Problem]:
    """Compare the index tables with the entries: the spans looked up every row, so only strays are left."""
    store = ground.store
    submissions, records = store.row_counts(register)
    taken = sum(report.taken for report in reports)
    if not sum(report.records for report in reports) == records == size - taken:
        yield from _wrong_records(store, register, size)
    if (
        not sum(report.runs for report in reports)
        == submissions
        == sum(report.submissions for report in reports)
    ):
        yield from _wrong_runs(store, register, size, ground.origin)


def _wrong_records(store: Store, register: str, size: int) -> Iterator[Problem]:
    for at in store.all_records(register):
        held = _records(store, register, at.index, at.index + 1) if 0 <= at.index < size else []
        if at not in held:
            place = f"record row {at.record_id.hex()}, version {at.version}"
            yield Problem(register, place, f"entry {at.index} is not that version of that record")
    for begin in range(0, size, _LOOKED_UP):
        wanted = _records(store, register, begin, min(begin + _LOOKED_UP, size))
        rows = store.versions(register, [(at.record_id, at.version) for at in wanted])
        there = {(at.record_id, at.version): at.index for at in rows}
        for at in wanted:
            index = there.get((at.record_id, at.version), size)
            if index != at.index and not (index < at.index and _rejects(store, register, at.index)):
                yield Problem(register, f"entry {at.index}", "has no record row")


def _rejects(store: Store, register: str, index: int) -> bool:
    return any(map(is_rejection, store.entries(register, index, index + 1)))


def _records(store: Store, register: str, begin: int, end: int) -> list[RecordAt]:
    """Return the record rows that the entries [begin, end) call for, as far as they can be read."""
    found = []
    for index, entry in enumerate(store.entries(register, begin, end), begin):
        try:
            header = read_header(entry.partition(b"\n")[2])
        except LedgerError:
            continue
        found.append(RecordAt(record_key(header), header.version, index))
    return found


def _wrong_runs(store: Store, register: str, size: int, origin: str) -> Iterator[Problem]:
    for key, run in store.all_submissions(register):
        held = _runs(store, register, run.first, run.first + 1, origin) if 0 <= run.first < size else {}
        if held.get(key) != run:
            place = f"submission row {key.hex()}"
            yield Problem(register, place, f"entry {run.first} does not begin that submission of {run.count}")
    for begin in range(0, size, _LOOKED_UP):
        wanted = _runs(store, register, begin, min(begin + _LOOKED_UP, size), origin)
        there = store.submissions(register, list(wanted))
        for key, run in wanted.items():
            if there.get(key) != run:
                yield Problem(register, f"entry {run.first}", "the submission that begins there has no row")


def _runs(store: Store, register: str, begin: int, end: int, origin: str) -> dict[bytes, Run]:
    """Return the submission rows that the entries [begin, end) call for, as far as they can be read."""
    found = {}
    for index, data in enumerate(store.entries(register, begin, end), begin):
        try:
            entry = parse_entry(data)
            if entry.membership is None or entry.membership.position:
                continue
            body = submission_body_of(entry, f"{origin}/{register}")
        except LedgerError:
            continue
        found[bytes.fromhex(submission_id(body))] = Run(index, entry.membership.count)
    return found
