"""The export file: the event log of a ledger, written and read as a stream (formats.md, section 10).

It holds every message, then every note with the cosignatures that are kept of it, in one order: the same
event log is the same file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby, islice
from typing import BinaryIO, Final, TypeAlias

from ledger.checkpoints import Checkpoint, parse_decimal
from ledger.entries import MAX_ENTRY, MAX_RECORDS, messages_of, parse_entry
from ledger.errors import MalformedError, RejectedError, StoreError
from ledger.governing import GOVERNING
from ledger.hashing import leaf_hashes
from ledger.notes import MAX_NOTE_SIZE, SignatureLine, format_note, split_note
from ledger.reader import RegisterReader, TileCache
from ledger.records import LedgerOpened, parse_record
from ledger.store import Cosigned, Head, Store, StoredNote
from ledger.tiles import encode_bundle
from ledger.tree import EMPTY, extend
from ledger.values import is_register

FIRST_LINE: Final = b"daybook.export/1\n"
MAX_LINE: Final = 512
"""Bytes of the longest line that begins a block; a longer one is not read on."""

MAX_MESSAGE: Final = MAX_RECORDS * (2 + MAX_ENTRY)
"""Bytes of a message beyond which none is read."""

NOTES_TOGETHER: Final = 512
"""Notes that are read from a store, or written into one, at once."""


@dataclass(frozen=True, slots=True)
class MessageBlock:
    """One message of the event log: its register (the key) and its value."""

    register: str
    value: bytes

    def order(self) -> tuple[int, bool, bytes]:
        """Return what sorts blocks: messages first, `governing` first. Messages then stand in log order."""
        return 0, self.register != GOVERNING, self.register.encode()

    def data(self) -> bytes:
        """Return the block's bytes."""
        return _block(b"message", self.register, self.value)


@dataclass(frozen=True, slots=True)
class NoteBlock:
    """One checkpoint note, verbatim, as the log signed it or witnesses sealed it; `size` is what it states."""

    register: str
    size: int
    note: bytes

    def order(self) -> tuple[int, bool, bytes, int, bytes]:
        """Return what sorts blocks: after the messages, by register, size and bytes."""
        return 1, self.register != GOVERNING, self.register.encode(), self.size, self.note

    def data(self) -> bytes:
        """Return the block's bytes."""
        return _block(b"note", self.register, self.note)


Block: TypeAlias = MessageBlock | NoteBlock


def _block(kind: bytes, register: str, value: bytes) -> bytes:
    return b"%b %b %d\n%b\n" % (kind, register.encode(), len(value), value)


# Writing.


def opening_of(store: Store) -> LedgerOpened:
    """Return the record that opened the ledger: entry 0. Raises StoreError where the store has none."""
    try:
        (opening,) = store.entries(GOVERNING, 0, 1)
        record = parse_record(parse_entry(opening).record)
    except (ValueError, MalformedError, RejectedError) as error:
        raise StoreError(f"{GOVERNING}: entry 0 is damaged; run fsck: {error}") from error
    if not isinstance(record, LedgerOpened):
        raise StoreError(f"{GOVERNING}: entry 0 opens no ledger; run fsck")
    return record


def export(store: Store, origin: str) -> Iterator[bytes]:
    """Yield the export file of a store, piece by piece. Raises as `export_blocks` does."""
    return export_file(origin, export_blocks(store, store.heads()))


def export_file(origin: str, blocks: Iterable[Block]) -> Iterator[bytes]:
    """Yield the bytes of the export file that holds these blocks, which are in order."""
    yield FIRST_LINE
    yield f"{origin}\n".encode()
    count = 0
    for block in blocks:
        yield block.data()
        count += 1
    yield b"end %d\n" % count


def export_blocks(store: Store, heads: Mapping[str, Head]) -> Iterator[Block]:
    """Yield the event log of a store up to `heads`, which were read at one moment, in the file's order.

    The store may grow meanwhile: whatever an entry below these heads was judged against is below them too.
    Messages are made again from the entries; a rejection is carried as a ledger-written message. Raises
    StoreError where the store does not hold what it states: entries that do not make a head's root are not
    exported as that register.
    """
    registers = sorted(heads, key=lambda name: (name != GOVERNING, name.encode()))
    for register in registers:
        head, frontier = heads[register], EMPTY
        for entries in submissions(store, register, 0, head.size):
            frontier = extend(frontier, leaf_hashes(entries)).after
            yield MessageBlock(register, encode_bundle(entries))
        if frontier.root() != head.root:
            raise StoreError(f"{register}: the entries do not make the root of the head; run fsck")
    for register in registers:
        for noted in noted_sizes(store, register, 0, heads[register].size + 1):
            yield from (NoteBlock(register, noted.size, note) for note in noted.exported(register))


def submissions(store: Store, register: str, begin: int, end: int) -> Iterator[list[bytes]]:
    """Yield the entries [begin, end) as they came in: those of each submission, or one ledger-written one.

    Neither bound divides a submission. Raises StoreError where they do not follow each other as they should.
    """
    reached = begin
    try:
        for entries in messages_of(RegisterReader(store, register, TileCache()).entries(begin, end), begin):
            yield entries
            reached += len(entries)
    except MalformedError as error:
        raise StoreError(f"{register}: {error}") from error
    if reached != end:
        raise StoreError(f"{register}: the last submission is not all there")


@dataclass(frozen=True, slots=True)
class NotedSize:
    """What a store keeps of one signed size: the note, and who has cosigned it, first and last."""

    note: StoredNote
    cosigned: tuple[Cosigned, ...]

    @property
    def size(self) -> int:
        """The size that the note states."""
        return self.note.size

    def exported(self, register: str) -> list[bytes]:
        """Return the notes that carry all of it, by their bytes: with every first line, then every last.

        They are one note where nobody has cosigned twice. Raises StoreError for a damaged note.
        """
        try:
            text, signed = split_note(self.note.note)
        except MalformedError as error:
            raise StoreError(f"{register}: the note of size {self.size} is damaged: {error}") from error
        firsts = [one.first for one in self.cosigned]
        lasts = [one.last for one in self.cosigned]
        return sorted({format_note(text, [*signed, *sorted(lines, key=_came)]) for lines in (firsts, lasts)})


def _came(line: SignatureLine) -> tuple[bytes, str, int]:
    """Return what puts cosignatures in the order of their times, which their bytes begin with."""
    return line.signature[:8], line.name, line.key_id


def noted_sizes(store: Store, register: str, begin: int, end: int) -> Iterator[NotedSize]:
    """Yield what is kept of the sizes begin to end - 1, by size; a few are read at once.

    Raises StoreError for cosignatures of a size that has no note.
    """
    notes = store.notes(register, begin, end)
    while True:
        batch = list(islice(notes, NOTES_TOGETHER))
        stop = batch[-1].size + 1 if len(batch) == NOTES_TOGETHER else end
        kept = {
            size: tuple(rows)
            for size, rows in groupby(store.cosigned(register, begin, stop), lambda row: row.size)
        }
        for note in batch:
            yield NotedSize(note, kept.pop(note.size, ()))
        for size in kept:
            # In a store that is written meanwhile both may have come after the notes were read.
            late = store.note(register, size)
            if late is None or late.size != size:
                raise StoreError(f"{register}: cosignatures of size {size}, but no note; run fsck")
        if stop == end:
            return
        begin = stop


# Reading.


@dataclass(frozen=True, slots=True)
class Export:
    """An export file being read. `blocks` can be gone through once, and raises MalformedError on the way.

    That it ended as it should is known only at its end: what was made of it before is to be thrown away when
    it raises.
    """

    origin: str
    blocks: Iterator[Block]


def read_export(stream: BinaryIO) -> Export:
    """Begin to read an export file. Raises MalformedError where it is none."""
    if stream.readline(MAX_LINE) != FIRST_LINE:
        raise MalformedError("export: the first line is not daybook.export/1")
    origin = _text(stream.readline(MAX_LINE))
    return Export(origin, _read_blocks(stream))


def _read_blocks(stream: BinaryIO) -> Iterator[Block]:
    count = 0
    before: Block | None = None
    while True:
        line = _text(stream.readline(MAX_LINE))
        kind, _, rest = line.partition(" ")
        if kind == "end":
            break
        register, _, length = rest.rpartition(" ")
        if not is_register(register):
            raise MalformedError(f"export: block {count}: no register {register!r}")
        block = _read_block(stream, kind, register, parse_decimal(length))
        if before is not None and not _may_follow(before, block):
            raise MalformedError(f"export: block {count}: {kind} of {register!r} is out of order")
        yield block
        before = block
        count += 1
    if parse_decimal(rest) != count:
        raise MalformedError(f"export: {count} blocks, but the end says {rest}")
    if stream.read(1):
        raise MalformedError("export: bytes after the end")


def _text(line: bytes) -> str:
    if not line.endswith(b"\n"):
        raise MalformedError("export: cut off, or a line is too long")
    try:
        return line[:-1].decode("ascii")
    except UnicodeDecodeError as error:
        raise MalformedError("export: a line is not ASCII") from error


def _read_block(stream: BinaryIO, kind: str, register: str, length: int) -> Block:
    limits = {"message": MAX_MESSAGE, "note": MAX_NOTE_SIZE}
    if kind not in limits or not 0 < length <= limits[kind]:
        raise MalformedError(f"export: no block {kind!r} of {length} bytes")
    value = stream.read(length)
    if len(value) != length or stream.read(1) != b"\n":
        raise MalformedError(f"export: a {kind} of {register!r} is not {length} bytes long")
    if kind == "message":
        return MessageBlock(register, value)
    text, _ = split_note(value)
    return NoteBlock(register, Checkpoint.parse(text).size, value)


def _may_follow(before: Block, block: Block) -> bool:
    if isinstance(before, MessageBlock) and isinstance(block, MessageBlock):
        return before.order() <= block.order()
    return before.order() < block.order()
