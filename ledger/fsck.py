"""fsck: derive everything that a store holds again from its entries, compare, and name what differs.

Nothing is taken on trust but the log's public key: every entry is re-formed from its records and signatures,
both trees are hashed again, every tile, root, note, index row and authority is compared (promise P4).

The work is cut into spans of 4,096 entries, which may be checked in any order and in other processes; what
spans the spans (the upper tree, the order of views, the index tables) is put together at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ledger.checkpoints import Checkpoint, open_checkpoint
from ledger.entries import (
    Entry,
    Membership,
    Signature,
    Submission,
    form_entries,
    open_submission,
    parse_entry,
    submission_body,
)
from ledger.errors import LedgerError, MalformedError, RejectedError, StoreError
from ledger.governing import GOVERNING, Fold, judge_authority, judge_governance
from ledger.hashing import HASH_SIZE, Hash, leaf_hash
from ledger.notes import VerifierKey
from ledger.records import ledger_may_write, parse_record
from ledger.rules import read_header, record_key
from ledger.store import Head, RecordAt, Run, Store
from ledger.tiles import TILE_HEIGHT, TILE_WIDTH, implied, implied_width
from ledger.tree import EMPTY, Frontier, extend, root_of, tree_root

SPAN: Final = 4_096
"""Entries of a span: sixteen full tiles."""

_MAX_PROBLEMS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that does not hold: where, in words that lead there, and what."""

    register: str
    place: str
    what: str


@dataclass(frozen=True, slots=True)
class Noted:
    """A note of a span: the root that it states, and the compact range from the span's begin to its size."""

    size: int
    root: Hash
    peaks: tuple[Hash, ...]


@dataclass(frozen=True, slots=True)
class SpanReport:
    """What one span came to.

    `tiles` are its nodes at level 8; `records` and `runs` are sums over the rows that the index tables must
    hold, to be compared without keeping them; `views` the first and last governing_size.
    """

    begin: int
    entries: int
    submissions: int
    tiles: tuple[Hash, ...]
    peaks: tuple[Hash, ...]
    notes: tuple[Noted, ...]
    records: int
    runs: int
    views: tuple[int, int] | None
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What fsck saw: counts, and every problem, of which at most 1,000 are kept."""

    registers: int
    entries: int
    submissions: int
    notes: int
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Span:
    """The entries [begin, end) of a register whose head has `size` entries."""

    register: str
    begin: int
    end: int
    size: int


@dataclass(frozen=True, slots=True)
class Ground:
    """What a span is judged against. Each process makes its own, from the store that it reads."""

    store: Store
    origin: str
    fold: Fold
    log: VerifierKey


RunSpans = Callable[[Sequence[Span]], Iterable[SpanReport]]
"""Checks spans, here or elsewhere, and yields a report for each in order."""


def read_fold(store: Store) -> tuple[Fold, list[Problem]]:
    """Fold the governing register, judging each governance submission on the way."""
    state = Fold()
    problems: list[Problem] = []
    head = store.heads().get(GOVERNING)
    for begin in range(0, head.size if head else 0, SPAN):
        for offset, data in enumerate(store.entries(GOVERNING, begin, begin + SPAN)):
            place = f"entry {begin + offset}"
            try:
                entry = parse_entry(data)
                if entry.membership is not None:
                    signers = {signature.key for signature in entry.membership.signatures}
                    judge_governance(state, parse_record(entry.record), signers)
                state = state.extended(entry)
            except LedgerError as error:
                problems.append(Problem(GOVERNING, place, f"governance does not hold: {error}"))
    return state, problems


def check_span(ground: Ground, span: Span) -> SpanReport:
    """Check one span on its own."""
    problems: list[Problem] = []

    def wrong(place: str, what: str) -> None:
        problems.append(Problem(span.register, place, what))

    try:
        entries = ground.store.entries(span.register, span.begin, span.end)
    except StoreError as error:
        wrong(f"entries {span.begin} to {span.end - 1}", str(error))
        entries = []
    if len(entries) != span.end - span.begin:
        wrong(f"entries {span.begin} to {span.end - 1}", f"only {len(entries)} are there")
        return SpanReport(span.begin, len(entries), 0, (), (), (), 0, 0, None, tuple(problems))
    leaves = [leaf_hash(entry) for entry in entries]
    _check_leaves(ground.store, span, leaves, wrong)
    grown = extend(EMPTY, leaves)
    walk = _Walk(ground, span, entries, wrong)
    walk.run()
    notes = tuple(_notes(ground, span, grown.frontier, wrong))
    tiles = tuple(grown.levels[TILE_HEIGHT][1]) if len(grown.levels) > TILE_HEIGHT else ()
    return SpanReport(
        span.begin,
        len(entries),
        walk.submissions,
        tiles,
        grown.after.hashes,
        notes,
        walk.records,
        walk.runs,
        walk.views,
        tuple(problems),
    )


Wrong = Callable[[str, str], None]


def _check_leaves(store: Store, span: Span, leaves: Sequence[Hash], wrong: Wrong) -> None:
    first = span.begin // TILE_WIDTH
    count = (len(leaves) + TILE_WIDTH - 1) // TILE_WIDTH
    stored = store.tiles(span.register, [(0, first + offset) for offset in range(count)])
    for offset, data in enumerate(stored):
        expected = b"".join(leaves[offset * TILE_WIDTH : (offset + 1) * TILE_WIDTH])
        if data == expected:
            continue
        place = next(
            (
                index
                for index in range(len(expected) // HASH_SIZE)
                if data[index * HASH_SIZE : (index + 1) * HASH_SIZE]
                != expected[index * HASH_SIZE : (index + 1) * HASH_SIZE]
            ),
            None,
        )
        where = f"tile 0/{first + offset}"
        if place is None:
            wrong(where, f"has {len(data)} bytes, not {len(expected)}")
        else:
            index = (first + offset) * TILE_WIDTH + place
            wrong(
                f"{where}, hash {place}", f"is not the leaf hash of entry {index}: one of the two was altered"
            )


class _Walk:
    """Goes through a span, submission by submission."""

    def __init__(self, ground: Ground, span: Span, entries: Sequence[bytes], wrong: Wrong) -> None:
        self._ground = ground
        self._span = span
        self._entries = entries
        self._wrong = wrong
        self.submissions = 0
        self.records = 0
        self.runs = 0
        self.views: tuple[int, int] | None = None

    def run(self) -> None:
        """Check every entry of the span, and every submission that begins in it."""
        index = self._span.begin
        self._count_records()
        lost = False
        while index < self._span.end:
            try:
                entry = parse_entry(self._entries[index - self._span.begin])
            except MalformedError as error:
                self._wrong(f"entry {index}", str(error))
                index, lost = index + 1, True
                continue
            membership = entry.membership
            if membership is None:
                self._check_unsigned(index, entry)
                index, lost = index + 1, False
            elif membership.position:
                if index == self._span.begin and self._begun_before(index, membership):
                    index += membership.count - membership.position
                    continue
                if not lost:
                    self._wrong(f"entry {index}", "its submission has no beginning")
                index, lost = index + 1, True
            else:
                lost = False
                self._see_view(index, entry)
                index += self._check_submission(index, entry, membership.count)

    def _begun_before(self, index: int, membership: Membership) -> bool:
        """Tell whether the span before checks the submission of this entry: it does from its first entry on."""
        begin = index - membership.position
        found = self._ground.store.entries(self._span.register, begin, begin + 1) if begin >= 0 else []
        try:
            first = parse_entry(found[0]).membership
        except (MalformedError, IndexError):
            return False
        return first is not None and (first.position, first.count) == (0, membership.count)

    def _count_records(self) -> None:
        for offset, entry in enumerate(self._entries):
            index = self._span.begin + offset
            try:
                header = read_header(entry.partition(b"\n")[2])
            except MalformedError as error:
                self._wrong(f"entry {index}", str(error))
                continue
            self.records += _row_sum(record_key(header), header.version, index)

    def _see_view(self, index: int, entry: Entry) -> None:
        view = entry.acceptance.governing_size
        if self.views is not None and view < self.views[1] and self._span.register != GOVERNING:
            self._wrong(f"entry {index}", f"governing_size {view} after {self.views[1]}: it never decreases")
        self.views = (view if self.views is None else self.views[0], view)

    def _check_unsigned(self, index: int, entry: Entry) -> None:
        try:
            kind = read_header(entry.record).type
        except MalformedError:
            return  # counted already
        if not ledger_may_write(kind, self._span.register):
            self._wrong(f"entry {index}", f"{kind} stands here without a submission")

    def _check_submission(self, index: int, first: Entry, count: int) -> int:
        """Check the submission that begins at `index`; return how many entries to go on by."""
        assert first.membership is not None  # noqa: S101 - the caller has looked
        offset = index - self._span.begin
        data = list(self._entries[offset : offset + count])
        if len(data) < count:
            data += self._ground.store.entries(self._span.register, self._span.end, index + count)
        if len(data) < count:
            self._wrong(f"entry {index}", f"its submission of {count} ends after {len(data)}")
            return len(data)
        try:
            submission = _reopened(self._ground, self._span.register, data, first.membership.signatures)
        except LedgerError as error:
            self._wrong(f"entries {index} to {index + count - 1}", f"the submission does not hold: {error}")
            return count
        self.submissions += 1
        self.runs += _row_sum(bytes.fromhex(submission.submission_id), index, count)
        for position, formed in enumerate(form_entries(submission, first.acceptance)):
            if formed != data[position]:
                self._wrong(f"entry {index + position}", "its envelope is not that of its submission")
                return count
        self._check_authority(index, first, submission)
        return count

    def _check_authority(self, index: int, first: Entry, submission: Submission) -> None:
        if submission.register == GOVERNING:
            return  # judged entry by entry, in read_fold
        view = first.acceptance.governing_size
        if view > self._ground.fold.size:
            self._wrong(f"entry {index}", f"governing_size {view} was never reached")
            return
        try:
            judge_authority(self._ground.fold, view, submission.register, submission.signatures[0].key)
        except RejectedError as error:
            self._wrong(f"entry {index}", f"not authorised at governing size {view}: {error}")


def _reopened(
    ground: Ground, register: str, data: Sequence[bytes], signatures: Sequence[Signature]
) -> Submission:
    records = [entry.partition(b"\n")[2] for entry in data]
    root = tree_root([leaf_hash(record) for record in records])
    body = submission_body(f"{ground.origin}/{register}", len(records), root)
    return open_submission(body, records, signatures, ground.origin)


def _notes(ground: Ground, span: Span, frontier: Callable[[int], Frontier], wrong: Wrong) -> Iterator[Noted]:
    """Yield the notes of sizes begin + 1 to end; that of size 0 belongs to the first span."""
    begin = span.begin + 1 if span.begin else 0
    origin = f"{ground.origin}/{span.register}"
    for stored in ground.store.notes(span.register, begin, span.end + 1):
        place = f"note of size {stored.size}"
        try:
            opened = open_checkpoint(stored.note, origin, [ground.log.renamed(origin)])
        except LedgerError as error:
            wrong(place, str(error))
            continue
        if opened.checkpoint.size != stored.size:
            wrong(place, f"states size {opened.checkpoint.size}")
            continue
        peaks = frontier(stored.size - span.begin).hashes
        yield Noted(stored.size, opened.checkpoint.root, peaks)


def check(
    ground: Ground, run: RunSpans, checkpoints: Mapping[str, Checkpoint], progress: Callable[[int], None]
) -> Report:
    """Check a whole store. `checkpoints` are the signer's marks, by register origin; `run` checks the spans.

    `progress` is told how many more entries were checked. Raises nothing for what it finds.
    """
    store = ground.store
    problems = [Problem("", "store", text) for text in store.damage()]
    problems += read_fold(store)[1]
    entries = submissions = notes = 0
    heads = store.heads()
    problems += _check_registers(ground.fold, heads)
    for register, head in heads.items():
        spans = [
            Span(register, begin, min(begin + SPAN, head.size), head.size)
            for begin in range(0, max(1, head.size), SPAN)
        ]
        reports = []
        for report in run(spans):
            reports.append(report)
            progress(report.entries)
        entries += sum(report.entries for report in reports)
        submissions += sum(report.submissions for report in reports)
        notes += sum(len(report.notes) for report in reports)
        problems += (problem for report in reports for problem in report.problems)
        problems += _check_whole(store, register, head, reports)
        mark = checkpoints.get(f"{ground.origin}/{register}")
        if mark is not None and (mark.size > head.size or (mark.size == head.size and mark.root != head.root)):
            text = f"the signer has signed size {mark.size}; the store ends at {head.size} or differs"
            problems.append(Problem(register, "head", text))
    return Report(len(heads), entries, submissions, notes, tuple(problems[:_MAX_PROBLEMS]))


def _check_registers(state: Fold, heads: Mapping[str, Head]) -> Iterator[Problem]:
    expected = {GOVERNING, *state.registers}
    for name in sorted(expected - heads.keys()):
        yield Problem(name, "register", "opened by the governing register, but not in the store")
    for name in sorted(heads.keys() - expected):
        yield Problem(name, "register", "in the store, but never opened by the governing register")


def _check_whole(store: Store, register: str, head: Head, reports: Sequence[SpanReport]) -> Iterator[Problem]:
    """Put the spans together: the upper tree, every root, the order of views, the index tables."""
    spans = [root_of(report.peaks) for report in reports if report.entries == SPAN]
    if any(report.entries < SPAN for report in reports[:-1]):
        return  # entries are missing, and said so: nothing above them can be compared
    upper = extend(EMPTY, spans)
    for report in reports:
        below = upper.frontier(report.begin // SPAN).hashes
        for noted in report.notes:
            if root_of((*below, *noted.peaks)) != noted.root:
                yield Problem(
                    register, f"note of size {noted.size}", "states another root than the entries make"
                )
    if reports[-1].entries == head.size - reports[-1].begin:
        root = root_of((*upper.frontier(reports[-1].begin // SPAN).hashes, *reports[-1].peaks))
        if root != head.root:
            yield Problem(register, "head", "its root is not the one that the entries make")
    yield from _check_upper_tiles(store, register, head, [h for report in reports for h in report.tiles])
    view = 0
    for report in reports:
        if report.views is not None and register != GOVERNING:
            if report.views[0] < view:
                yield Problem(register, f"entries from {report.begin} on", "governing_size decreases")
            view = report.views[1]
    yield from _check_rows(store, register, reports)
    if store.note(register, head.size) is None:
        yield Problem(register, "notes", "no checkpoint is kept")
    for stray in store.notes(register, head.size + 1, 1 << 40):
        yield Problem(register, f"note of size {stray.size}", f"the register ends at {head.size}")


def _check_upper_tiles(store: Store, register: str, head: Head, hashes: Sequence[Hash]) -> Iterator[Problem]:
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


def _check_rows(store: Store, register: str, reports: Sequence[SpanReport]) -> Iterator[Problem]:
    """Compare the index tables with the entries: by sums first, row by row only where these differ."""
    found = sum(_row_sum(at.record_id, at.version, at.index) for at in store.all_records(register))
    if found != sum(report.records for report in reports):
        yield from _wrong_records(store, register)
    found = sum(_row_sum(key, run.first, run.count) for key, run in store.all_submissions(register))
    if found != sum(report.runs for report in reports):
        yield from _wrong_runs(store, register)


def _wrong_records(store: Store, register: str) -> Iterator[Problem]:
    named = False
    for at in store.all_records(register):
        if not _is_record_at(store, register, at):
            named = True
            place = f"record row {at.record_id.hex()}, version {at.version}"
            yield Problem(register, place, f"entry {at.index} is not that version of that record")
    if not named:
        yield Problem(register, "record rows", "an entry has no row, or an entry was altered")


def _row_sum(key: bytes, first: int, second: int) -> int:
    """Return a number for a row of an index table, the same in every process: so of integers only."""
    return hash((int.from_bytes(key, "big"), first, second))


def _is_record_at(store: Store, register: str, at: RecordAt) -> bool:
    try:
        entries = store.entries(register, at.index, at.index + 1)
        header = read_header(entries[0].partition(b"\n")[2])
    except (LedgerError, IndexError):
        return False
    return (record_key(header), header.version) == (at.record_id, at.version)


def _wrong_runs(store: Store, register: str) -> Iterator[Problem]:
    named = False
    for key, run in store.all_submissions(register):
        if not _is_run(store, register, run):
            named = True
            yield Problem(register, f"submission row {key.hex()}", "no submission of that length begins there")
    if not named:
        yield Problem(register, "submission rows", "a submission has no row, or its row another submission_id")


def _is_run(store: Store, register: str, run: Run) -> bool:
    try:
        entry = parse_entry(store.entries(register, run.first, run.first + 1)[0])
    except (LedgerError, IndexError):
        return False
    return entry.membership is not None and (entry.membership.position, entry.membership.count) == (
        0,
        run.count,
    )
