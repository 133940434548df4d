"""One span of a register, checked on its own: the part of fsck that may run anywhere, in any order.

A span is 4,096 entries. Whatever can be judged from them, their tiles, their notes and the fold of the
governing register is judged here; `fsck` puts the spans together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ledger.checkpoints import open_checkpoint
from ledger.entries import (
    Entry,
    Signature,
    Submission,
    form_entries,
    parse_entry,
    rebuild_submission,
)
from ledger.errors import LedgerError, MalformedError, RejectedError, SignatureError, StoreError
from ledger.governing import GOVERNING, Fold, judge_authority, judge_register
from ledger.hashing import HASH_SIZE, Hash, leaf_hashes
from ledger.notes import SignatureLine, VerifierKey, is_cosignature
from ledger.published_policies import WitnessKeys
from ledger.records import ledger_may_write
from ledger.rules import read_header, record_key
from ledger.store import Run, Store
from ledger.tiles import TILE_HEIGHT, TILE_WIDTH
from ledger.tree import EMPTY, Frontier, extend

SPAN: Final = 4_096
"""Entries of a span: sixteen full tiles, and more than the longest submission."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that does not hold: where, in words that lead there, and what."""

    register: str
    place: str
    what: str


@dataclass(frozen=True, slots=True)
class Ground:
    """What a span is judged against. Each process makes its own, from the store that it reads.

    `witnesses` are those that the ledger's published policies have ever named.
    """

    store: Store
    origin: str
    fold: Fold
    log: VerifierKey
    witnesses: WitnessKeys


@dataclass(frozen=True, slots=True)
class Span:
    """The entries [begin, end) of a register, `begin` being a multiple of `SPAN`."""

    register: str
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Noted:
    """A note of a span: its text, the root it states, the compact range from the span's begin to its size."""

    size: int
    text: bytes
    root: Hash
    peaks: tuple[Hash, ...]


@dataclass(frozen=True, slots=True)
class SpanReport:
    """What one span came to.

    `carried` entries at its begin are left to the span before, whose last submission they end; `overhang` is
    how many of the next one were checked here for the same reason. `tiles` are its nodes at level 8;
    `records` and `runs` say for how many entries and submissions the index tables have the very row; `taken`
    rejections need none: an earlier entry has their record_id.
    `views` the first and last governing_size. Of `cosignatures`, `unchecked` are of witnesses whom no published
    policy names.
    """

    begin: int
    entries: int
    carried: int
    overhang: int
    submissions: int
    tiles: tuple[Hash, ...]
    peaks: tuple[Hash, ...]
    notes: tuple[Noted, ...]
    cosignatures: int
    unchecked: int
    records: int
    taken: int
    runs: int
    views: tuple[int, int] | None
    problems: tuple[Problem, ...]


Wrong = Callable[[str, str], None]


def is_rejection(data: bytes) -> bool:
    """Tell whether an entry is one that rejects a submission, written by the ledger."""
    try:
        entry = parse_entry(data)
        return entry.membership is None and read_header(entry.record).type == "submission.rejected/1"
    except MalformedError:
        return False


def check_span(ground: Ground, span: Span) -> SpanReport:
    """Check one span on its own. Raises nothing for what it finds."""
    problems: list[Problem] = []

    def wrong(place: str, what: str) -> None:
        problems.append(Problem(span.register, place, what))

    try:
        entries = ground.store.entries(span.register, span.begin, span.end)
        if len(entries) != span.end - span.begin:
            raise StoreError(f"only {len(entries)} are there")
        leaves = leaf_hashes(entries)
        _check_leaves(ground.store, span, leaves, wrong)
        grown = extend(EMPTY, leaves)
        walk = _Walk(ground, span, entries, wrong)
        walk.run()
        notes = tuple(_notes(ground, span, grown.frontier, wrong))
        cosigned = _Cosigned(ground, span, {noted.size: noted.text for noted in notes}, wrong)
        cosigned.run()
    except StoreError as error:
        wrong(f"entries {span.begin} to {span.end - 1}", str(error))
        return SpanReport(span.begin, 0, 0, 0, 0, (), (), (), 0, 0, 0, 0, 0, None, tuple(problems))
    return SpanReport(
        span.begin,
        len(entries),
        walk.carried,
        walk.overhang,
        walk.submissions,
        tuple(grown.levels[TILE_HEIGHT][1]) if len(grown.levels) > TILE_HEIGHT else (),
        grown.after.hashes,
        notes,
        cosigned.count,
        cosigned.unchecked,
        walk.records,
        walk.taken,
        walk.runs,
        walk.views,
        tuple(problems),
    )


def _check_leaves(store: Store, span: Span, leaves: Sequence[Hash], wrong: Wrong) -> None:
    first = span.begin // TILE_WIDTH
    count = (len(leaves) + TILE_WIDTH - 1) // TILE_WIDTH
    stored = store.tiles(span.register, [(0, first + offset) for offset in range(count)])
    for offset, data in enumerate(stored):
        tile = first + offset
        expected = leaves[offset * TILE_WIDTH : (offset + 1) * TILE_WIDTH]
        if len(data) != len(expected) * HASH_SIZE:
            wrong(f"tile 0/{tile}", f"has {len(data)} bytes, not {len(expected) * HASH_SIZE}")
        for place, leaf in enumerate(expected):
            if data[place * HASH_SIZE : (place + 1) * HASH_SIZE] != leaf:
                index = tile * TILE_WIDTH + place
                what = f"is not the leaf hash of entry {index}: one of the two was altered"
                wrong(f"tile 0/{tile}, hash {place}", what)
                break


class _Walk:
    """Goes through a span, submission by submission."""

    def __init__(self, ground: Ground, span: Span, entries: Sequence[bytes], wrong: Wrong) -> None:
        self._ground = ground
        self._span = span
        self._entries = entries
        self._wrong = wrong
        self.carried = 0
        self.overhang = 0
        self.submissions = 0
        self.records = 0
        self.taken = 0
        self.runs = 0
        self._runs: dict[bytes, Run] = {}
        self.views: tuple[int, int] | None = None

    def run(self) -> None:
        """Check every entry of the span, and every submission that begins in it."""
        index = self._span.begin
        self._look_up_records()
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
            elif membership.position and index == self._span.begin:
                self.carried = membership.count - membership.position
                index += self.carried
            elif membership.position:
                # After damage the beginning may be what was damaged, and is named already.
                if not lost:
                    self._wrong(f"entry {index}", "its submission has no beginning")
                index, lost = index + 1, True
            else:
                lost = False
                self._see_view(index, entry)
                index += self._check_submission(index, entry, membership.count)
        if self.carried < self._span.end - self._span.begin:
            self.overhang = index - self._span.end
        self._look_up_runs()

    def _look_up_records(self) -> None:
        wanted: list[tuple[bytes, int, int]] = []
        for offset, entry in enumerate(self._entries):
            index = self._span.begin + offset
            try:
                header = read_header(entry.partition(b"\n")[2])
            except MalformedError as error:
                self._wrong(f"entry {index}", str(error))
                continue
            if header.register != self._span.register:
                self._wrong(f"entry {index}", f"its record is of register {header.register!r}")
            wanted.append((record_key(header), header.version, index))
        rows = self._ground.store.versions(self._span.register, [row[:2] for row in wanted])
        held = {(at.record_id, at.version): at.index for at in rows}
        self.records = sum(held.get(row[:2]) == row[2] for row in wanted)
        self.taken = sum(
            held.get((key, version), index) < index and is_rejection(self._entries[index - self._span.begin])
            for key, version, index in wanted
        )

    def _look_up_runs(self) -> None:
        held = self._ground.store.submissions(self._span.register, list(self._runs))
        self.runs = sum(held.get(key) == run for key, run in self._runs.items())

    def _see_view(self, index: int, entry: Entry) -> None:
        view = entry.acceptance.governing_size
        if self.views is not None and view < self.views[1] and self._span.register != GOVERNING:
            self._wrong(f"entry {index}", f"governing_size {view} after {self.views[1]}: it never decreases")
        self.views = (view if self.views is None else self.views[0], view)

    def _check_unsigned(self, index: int, entry: Entry) -> None:
        try:
            kind = read_header(entry.record).type
        except MalformedError:
            return  # named already
        if not ledger_may_write(kind, self._span.register):
            self._wrong(f"entry {index}", f"{kind} stands here without a submission")
        view = entry.acceptance.governing_size
        self._judge(index, view, lambda: judge_register(self._ground.fold, view, self._span.register))

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
        self._runs[bytes.fromhex(submission.submission_id)] = Run(index, count)
        for position, formed in enumerate(form_entries(submission, first.acceptance)):
            if formed != data[position]:
                self._wrong(f"entry {index + position}", "its envelope is not that of its submission")
                return count
        self._check_authority(index, first, submission)
        return count

    def _check_authority(self, index: int, first: Entry, submission: Submission) -> None:
        view, key = first.acceptance.governing_size, submission.signatures[0].key
        self._judge(index, view, lambda: judge_authority(self._ground.fold, view, submission.register, key))

    def _judge(self, index: int, view: int, judge: Callable[[], object]) -> None:
        if self._span.register == GOVERNING:
            return  # judged entry by entry, in fsck.read_fold
        if view > self._ground.fold.size:
            self._wrong(f"entry {index}", f"governing_size {view} was never reached")
            return
        try:
            judge()
        except RejectedError as error:
            self._wrong(f"entry {index}", f"not authorised at governing size {view}: {error}")


def _reopened(
    ground: Ground, register: str, data: Sequence[bytes], signatures: Sequence[Signature]
) -> Submission:
    records = [entry.partition(b"\n")[2] for entry in data]
    return rebuild_submission(register, records, signatures, ground.origin)


def _first_size(span: Span) -> int:
    """Return the first size that belongs to a span: after it begins; that of size 0 is of the first span."""
    return span.begin + 1 if span.begin else 0


def _notes(ground: Ground, span: Span, frontier: Callable[[int], Frontier], wrong: Wrong) -> Iterator[Noted]:
    """Yield the notes of the sizes of a span."""
    origin = f"{ground.origin}/{span.register}"
    for stored in ground.store.notes(span.register, _first_size(span), span.end + 1):
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
        yield Noted(stored.size, opened.note.text, opened.checkpoint.root, peaks)


class _Cosigned:
    """Goes through the cosignatures of the sizes of a span, against the texts of its notes."""

    def __init__(self, ground: Ground, span: Span, texts: Mapping[int, bytes], wrong: Wrong) -> None:
        self._ground = ground
        self._span = span
        self._texts = texts
        self._wrong = wrong
        self.count = 0
        self.unchecked = 0

    def run(self) -> None:
        """Check every row: first and last, each under the key of its witness."""
        begin, end = _first_size(self._span), self._span.end + 1
        for row in self._ground.store.cosigned(self._span.register, begin, end):
            place = f"cosignature of {row.first.name} over size {row.size}"
            text = self._texts.get(row.size)
            if text is None:
                self._wrong(place, "there is no sound note of that size")
                continue
            if row.last.signature < row.first.signature:
                self._wrong(place, "the last one is earlier than the first")
            for line in dict.fromkeys((row.first, row.last)):
                self.count += 1
                self._check(place, text, line)

    def _check(self, place: str, text: bytes, line: SignatureLine) -> None:
        key = self._ground.witnesses.get(line.by)
        if not is_cosignature(line.signature):
            self._wrong(place, "is not a time and a signature")
        elif key is not None:
            try:
                key.verify(text, line.signature)
            except SignatureError as error:
                self._wrong(place, str(error))
        elif owner := self._owner(text, line):
            # No stranger: its row has lost the name.
            self._wrong(place, f"is of {owner.name}, key ID {owner.key_id:08x}, and stands under another key")
        else:
            self.unchecked += 1

    def _owner(self, text: bytes, line: SignatureLine) -> VerifierKey | None:
        for key in self._ground.witnesses.values():
            try:
                key.verify(text, line.signature)
            except SignatureError:
                continue
            return key
        return None
