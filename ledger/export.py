"""The export file, and the rebuild of a ledger from it (formats.md, section 10; promise P5).

An export holds the event log: every message and every note, in one order. It is written and read as a
stream. Replaying its messages gives the same entries, so the same roots, in whatever batches; every note in
it is compared with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import BinaryIO, Final, TypeAlias

from ledger.checkpoints import Checkpoint, open_checkpoint, parse_decimal
from ledger.entries import MAX_ENTRY, MAX_RECORDS, open_message, parse_entry
from ledger.errors import LedgerError, MalformedError, ProofError, StoreError, VerificationError
from ledger.governing import GOVERNING
from ledger.ledger import Ledger, Quarantined, Waiting
from ledger.notes import MAX_NOTE_SIZE, VerifierKey, format_note, split_note
from ledger.reader import RegisterReader, TileCache
from ledger.store import Store, StoredNote
from ledger.tiles import encode_bundle
from ledger.values import is_register

FIRST_LINE: Final = b"daybook.export/1\n"
MAX_LINE: Final = 512
"""Bytes of the longest line that begins a block; a longer one is not read on."""

MAX_MESSAGE: Final = MAX_RECORDS * (2 + MAX_ENTRY)
"""Bytes of a message beyond which none is read."""

MESSAGES_TOGETHER: Final = 1_000
"""Messages of one commit in a rebuild."""

BYTES_TOGETHER: Final = 16 * 1024 * 1024
"""Bytes after which a commit takes no further message."""

_NOTES_TOGETHER: Final = 1_000


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


def export(store: Store, origin: str) -> Iterator[bytes]:
    """Yield the export file of a store, piece by piece.

    Messages are made again from the entries. A rejection is carried as a ledger-written message. Raises
    StoreError where the store does not hold what it states.
    """
    yield FIRST_LINE
    yield f"{origin}\n".encode()
    count = 0
    for block in _blocks(store):
        yield block.data()
        count += 1
    yield b"end %d\n" % count


def _blocks(store: Store) -> Iterator[Block]:
    heads = store.heads()
    registers = sorted(heads, key=lambda name: (name != GOVERNING, name.encode()))
    for register in registers:
        for value in _messages(store, register, heads[register].size):
            yield MessageBlock(register, value)
    for register in registers:
        for stored in store.notes(register, 0, heads[register].size + 1):
            yield NoteBlock(register, stored.size, stored.note)


def _messages(store: Store, register: str, size: int) -> Iterator[bytes]:
    """Yield the values of a register's messages: the entries of each submission, or one ledger-written one."""
    waiting: list[bytes] = []
    for index, data in enumerate(RegisterReader(store, register, TileCache()).entries(0, size)):
        try:
            membership = parse_entry(data).membership
        except MalformedError as error:
            raise StoreError(f"{register}: entry {index} is damaged: {error}") from error
        count, position = (membership.count, membership.position) if membership else (1, 0)
        if position != len(waiting):
            raise StoreError(f"{register}: entry {index} does not go on with the submission before it")
        waiting.append(data)
        if position == count - 1:
            yield encode_bundle(waiting)
            waiting = []
    if waiting:
        raise StoreError(f"{register}: the last submission is not all there")


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


# Rebuilding.


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A ledger made again from its event log.

    `quarantined` names the messages that registration cannot have made, by their place in the file, from 0:
    they made no entry, and each is an alarm.
    """

    ledger: Ledger
    messages: int
    notes: int
    quarantined: tuple[str, ...]


def rebuild(store: Store, source: Export, together: int = MESSAGES_TOGETHER) -> Rebuilt:
    """Replay an export into an empty store, at most `together` messages a commit, and check its notes.

    Notes are checked under the log key that the ledger's first entry names: who needs more compares that key
    with the one that he holds. Raises MalformedError for a file that is not in order, VerificationError for a
    note that the log has not signed or whose root is not that of the replayed entries, and StoreError. The
    store is then to be thrown away.
    """
    if store.heads():
        raise StoreError("a ledger is rebuilt only in an empty store")
    ledger = Ledger.open(store, source.origin)
    messages = notes = 0
    quarantined: list[str] = []
    for is_note, blocks in groupby(source.blocks, lambda block: isinstance(block, NoteBlock)):
        if is_note:
            notes += _keep_notes(ledger, (block for block in blocks if isinstance(block, NoteBlock)))
            continue
        for batch in _batches((block for block in blocks if isinstance(block, MessageBlock)), together):
            quarantined += _replay(ledger, batch, messages)
            messages += len(batch)
    return Rebuilt(ledger, messages, notes, tuple(quarantined))


def _batches(blocks: Iterable[MessageBlock], together: int) -> Iterator[list[MessageBlock]]:
    batch: list[MessageBlock] = []
    size = 0
    for block in blocks:
        batch.append(block)
        size += len(block.value)
        if len(batch) >= together or size >= BYTES_TOGETHER:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _replay(ledger: Ledger, batch: Iterable[MessageBlock], first: int) -> list[str]:
    """Replay messages as one turn, the first being number `first`; return those that were quarantined."""
    quarantined: list[str] = []
    turn = ledger.turn()
    for number, block in enumerate(batch, first):
        try:
            message = open_message(block.register, block.value, ledger.origin)
        except LedgerError as error:
            quarantined.append(f"message {number} of {block.register}: signature or shape: {error}")
            continue
        outcome = turn.replay(message)
        if isinstance(outcome, Quarantined):
            quarantined.append(f"message {number} of {block.register}: {outcome.why}")
        if isinstance(outcome, Waiting):
            raise MalformedError(
                f"export: message {number} of {block.register} was judged at governing size "
                f"{outcome.governing_size}, which the export does not reach"
            )
    turn.commit({})
    return quarantined


def _keep_notes(ledger: Ledger, blocks: Iterator[NoteBlock]) -> int:
    """Check notes and commit them; return how many. Those of one size become one, with the lines of all."""
    count = 0
    waiting: dict[str, list[StoredNote]] = {}
    for (register, size), alike in groupby(blocks, lambda block: (block.register, block.size)):
        notes = [block.note for block in alike]
        _check_notes(ledger, register, size, notes)
        waiting.setdefault(register, []).append(StoredNote(size, _joined(notes)))
        count += len(notes)
        if sum(map(len, waiting.values())) >= _NOTES_TOGETHER:
            ledger.turn().commit(waiting)
            waiting = {}
    ledger.turn().commit(waiting)
    return count


def _check_notes(ledger: Ledger, register: str, size: int, notes: Iterable[bytes]) -> None:
    opened = ledger.fold.opened
    head = ledger.heads().get(register)
    if opened is None or head is None or size > head.size:
        raise ProofError(f"{register}: a note states size {size}, which the messages do not reach")
    root = ledger.reader(register).root(size)
    origin = ledger.register_origin(register)
    log = VerifierKey.parse(opened.ledger_key).renamed(origin)
    for note in notes:
        try:
            stated = open_checkpoint(note, origin, [log]).checkpoint
        except MalformedError as error:
            raise VerificationError(f"{register}: the note of size {size}: {error}") from error
        if stated.root != root:
            raise ProofError(f"{register}: the note of size {size} states another root than the messages make")


def _joined(notes: list[bytes]) -> bytes:
    """Return one note with the signature lines of all, each once: the store keeps one for each size."""
    if len(notes) == 1:
        return notes[0]
    parts = [split_note(note) for note in notes]
    return format_note(parts[0][0], dict.fromkeys(line for _, lines in parts for line in lines))
