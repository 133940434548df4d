"""The export file and the rebuild (promise P5): the same event log, the same entries and roots."""

import base64
import io
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import notes
from ledger.admission import admit
from ledger.ed25519 import SecretKey
from ledger.entries import open_message
from ledger.errors import (
    LedgerError,
    MalformedError,
    ProofError,
    SignatureError,
    StoreError,
    VerificationError,
)
from ledger.export import (
    Block,
    Export,
    MessageBlock,
    NoteBlock,
    export,
    export_blocks,
    noted_sizes,
    read_export,
)
from ledger.fsck import check, check_span, stand_on
from ledger.governing import GOVERNING
from ledger.ledger import Appended, Known, Ledger
from ledger.notes import SignerKey
from ledger.rebuild import rebuild
from ledger.store import Store, StoredNote
from ledger.stores.memory import MemoryStore
from ledger.stores.sqlite import SqliteStore
from ledger.tiles import encode_bundle
from ledger.witnessing import Policy
from tests.support.ledger_story import THIRD, WITNESSES, cosign, keep_notes, tell
from tests.support.ledgers import (
    DEPARTMENT,
    DEPARTMENT_KEY,
    EPOCH,
    LOG_KEY,
    ORIGIN,
    REGISTER,
    decision,
    open_ledger,
    submission,
    vkey,
)
from tests.support.store_surgery import flip_in_entry, opened
from tests.support.story import LEDGER_ORIGIN
from tests.support.vectors import VECTORS, hashes, load

VECTOR = base64.b64decode((VECTORS / "ledger.export.base64").read_bytes())


def exported(store: Store, origin: str = ORIGIN) -> bytes:
    return b"".join(export(store, origin))


def blocks_of(data: bytes) -> list[Block]:
    return list(read_export(io.BytesIO(data)).blocks)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> MemoryStore:
    """A store in which everything has happened once."""
    store = MemoryStore()
    tell(store, tmp_path_factory.mktemp("told") / "marks")
    return store


@pytest.fixture(scope="module")
def file(told: MemoryStore) -> bytes:
    """Its export."""
    return exported(told)


def everything(store: Store) -> dict[str, tuple[object, ...]]:
    """Return all that a store holds."""
    return {
        register: (
            head,
            store.entries(register, 0, head.size + 1),
            list(store.all_tiles(register)),
            sorted(store.all_submissions(register)),
            sorted(store.all_records(register), key=lambda at: at.index),
            list(store.notes(register, 0, 1 << 40)),
            list(store.cosigned(register, 0, 1 << 40)),
        )
        for register, head in store.heads().items()
    }


# The vector, made by another implementation.


@pytest.mark.parametrize("together", [1, 3, 1_000])
def test_importing_the_vector_gives_the_roots_of_the_other_implementation(together: int) -> None:
    """False if another implementation's event log led to another entry or root here."""
    store = MemoryStore()
    rebuilt = rebuild(store, read_export(io.BytesIO(VECTOR)), together=together)
    assert (rebuilt.messages, rebuilt.notes, rebuilt.quarantined) == (16, 5, ())
    for register, expected in load("registers.json").items():
        reader = rebuilt.ledger.reader(register)
        size = len(expected["entries"])
        assert [entry.decode() for entry in reader.entries(0, size)] == expected["entries"]
        assert [reader.root(n) for n in range(size + 1)] == hashes(expected["roots"])
        assert rebuilt.ledger.heads()[register].size == size


def test_exporting_what_was_imported_gives_the_same_blocks_but_for_the_lost_race() -> None:
    """False if messages, notes with their cosignatures, or their order were lost on the way.

    The vector carries the submission that lost a race as it was sent; a store holds only the rejection, which
    an export carries as a ledger-written message.
    """
    store = MemoryStore()
    rebuild(store, read_export(io.BytesIO(VECTOR)))
    again = exported(store, LEDGER_ORIGIN)
    (lost,) = set(blocks_of(VECTOR)) - set(blocks_of(again))
    (rejection,) = set(blocks_of(again)) - set(blocks_of(VECTOR))
    assert blocks_of(VECTOR).index(lost) == blocks_of(again).index(rejection)
    (race,) = (case for case in load("append-rules.json")["story"] if case["name"] == "lost race")
    entry = load("registers.json")[lost.register]["entries"][race["index"]]
    assert rejection == MessageBlock(lost.register, encode_bundle([entry.encode()]))
    second = MemoryStore()
    rebuild(second, read_export(io.BytesIO(again)))
    assert second.heads() == store.heads()
    assert exported(second, LEDGER_ORIGIN) == again


# Rebuild.


@pytest.mark.parametrize("new", [lambda _: MemoryStore(), SqliteStore], ids=["memory", "sqlite"])
def test_a_rebuilt_store_is_the_store(
    new: Callable[[Path], Store], told: MemoryStore, file: bytes, tmp_path: Path
) -> None:
    """False if a store that was thrown away could not be made again, to the last row and note."""
    store = new(tmp_path / "store")
    rebuilt = rebuild(store, read_export(io.BytesIO(file)))
    assert rebuilt.quarantined == ()
    assert everything(store) == everything(told)
    assert rebuilt.ledger.fold == Ledger.open(told, ORIGIN).fold
    ground = stand_on(store, ORIGIN, vkey(GOVERNING))
    report = check(ground, lambda spans: [check_span(ground, span) for span in spans], {}, lambda _: None)
    assert report.problems == ()
    assert report.notes == rebuilt.notes
    assert exported(store) == file
    store.close()


@settings(max_examples=30)
@given(st.data())
def test_any_batching_gives_the_same_roots_at_every_signed_size(
    told: MemoryStore, file: bytes, data: st.DataObject
) -> None:
    """False if a root depended on which messages were committed together."""
    messages = [
        open_message(block.register, block.value, ORIGIN)
        for block in blocks_of(file)
        if isinstance(block, MessageBlock)
    ]
    store = MemoryStore()
    ledger = Ledger.open(store, ORIGIN)
    while messages:
        count = data.draw(st.integers(1, len(messages)))
        turn = ledger.turn()
        for message in messages[:count]:
            assert isinstance(turn.replay(message), Appended)
        turn.commit({})
        messages = messages[count:]
    assert store.heads() == told.heads()
    for register in told.heads():
        for stored in told.notes(register, 0, 1 << 40):
            text, _ = notes.split_note(stored.note)
            root = ledger.reader(register).root(stored.size)
            assert text.decode().split("\n")[2] == base64.b64encode(root).decode()


def test_a_message_that_comes_again_makes_nothing(file: bytes) -> None:
    """False if redelivery of the whole log appended anything twice."""
    store = MemoryStore()
    ledger = rebuild(store, read_export(io.BytesIO(file))).ledger
    before = everything(store)
    turn = ledger.turn()
    for block in blocks_of(file):
        if isinstance(block, MessageBlock):
            assert isinstance(turn.replay(open_message(block.register, block.value, ORIGIN)), Known)
    turn.commit({})
    assert everything(store) == before


def test_a_ledger_goes_on_after_a_rebuild(file: bytes, tmp_path: Path) -> None:
    """False if what was rebuilt could not be appended to."""
    ledger = rebuild(MemoryStore(), read_export(io.BytesIO(file))).ledger
    candidate = admit(submission(REGISTER, [decision(500)], [DEPARTMENT_KEY]))
    turn = ledger.turn()
    turn.look_up([candidate])
    outcome = turn.accept(candidate, "2026-07-01T00:00:00.000Z", "anonymous")
    assert outcome.run.first == 77
    turn.commit({})
    assert Ledger.open(ledger.store, ORIGIN).heads() == ledger.heads()


def test_notes_of_one_size_become_one_with_all_their_lines() -> None:
    """False if of two collections of cosignatures over one checkpoint either were lost."""
    blocks = blocks_of(VECTOR)
    sealed = blocks[-1]
    assert isinstance(sealed, NoteBlock)
    text, (log, second, third) = notes.split_note(sealed.note)
    parts = sorted(notes.format_note(text, lines) for lines in ([log, second], [log, third]))
    split = [*blocks[:-1], *(NoteBlock(sealed.register, sealed.size, part) for part in parts)]
    store = MemoryStore()
    rebuilt = rebuild(store, Export(LEDGER_ORIGIN, iter(split)))
    assert (rebuilt.notes, rebuilt.cosignatures, rebuilt.dropped) == (5, 11, 0)
    (noted,) = noted_sizes(store, sealed.register, sealed.size, sealed.size + 1)
    assert noted.note == StoredNote(sealed.size, notes.format_note(text, [log]))
    assert {(row.first, row.last) for row in noted.cosigned} == {(second, second), (third, third)}
    assert noted.exported(sealed.register) == [sealed.note]


# Cosignatures.


def notes_of(blocks: Iterable[Block], register: str, size: int) -> list[bytes]:
    """Return the notes of one size."""
    found = (block for block in blocks if isinstance(block, NoteBlock))
    return [block.note for block in found if (block.register, block.size) == (register, size)]


def with_lines(blocks: list[Block], lines: Callable[[bytes], list[notes.SignatureLine]]) -> Export:
    """Return the export in which the last note has these lines, of its text, besides the log's."""
    last = blocks[-1]
    assert isinstance(last, NoteBlock)
    text, (log, *_) = notes.split_note(last.note)
    changed = NoteBlock(last.register, last.size, notes.format_note(text, [log, *lines(text)]))
    return Export(ORIGIN, iter([*blocks[:-1], changed]))


def test_the_first_and_the_last_cosignatures_of_a_size_are_each_in_one_note(
    told: MemoryStore, file: bytes
) -> None:
    """False if a reader of the export could not take a sealed note of either time out of it as it is."""
    (noted,) = noted_sizes(told, THIRD, 260, 261)
    text, (log,) = notes.split_note(noted.note.note)
    early, late = (
        [notes.cosignature_line(text, witness, EPOCH + later) for witness in WITNESSES]
        for later in (1_000, 2_000)
    )
    wanted = {notes.format_note(text, [log, *lines]) for lines in (early, late)}
    assert set(notes_of(blocks_of(file), THIRD, 260)) == wanted
    assert len(notes_of(blocks_of(file), REGISTER, 77)) == 1


def test_cosignatures_come_back_whatever_note_they_are_in(told: MemoryStore, file: bytes) -> None:
    """False if what was first and last depended on how notes are cut: it is their times that decide."""
    blocks = blocks_of(file)
    text, (log, *_) = notes.split_note(notes_of(blocks, THIRD, 260)[0])
    lines = [line for note in notes_of(blocks, THIRD, 260) for line in notes.split_note(note)[1][1:]]
    singly = sorted(notes.format_note(text, [log, line]) for line in lines)
    others = [block for block in blocks if not (isinstance(block, NoteBlock) and block.size == 260)]
    again = [*others, *(NoteBlock(THIRD, 260, note) for note in singly)]
    store = MemoryStore()
    rebuilt = rebuild(store, Export(ORIGIN, iter(sorted(again, key=lambda block: block.order()))))
    assert everything(store) == everything(told)
    assert (rebuilt.cosignatures, rebuilt.dropped) == (18, 0)


def test_lines_of_a_stranger_are_left_out_and_counted(file: bytes) -> None:
    """False if a line that nobody can check were kept, and could spoil the note later."""
    stranger = SignerKey("stranger.test/w", SecretKey(b"\x21" * 32))
    blocks = blocks_of(file)

    def by_stranger(text: bytes) -> list[notes.SignatureLine]:
        return [notes.cosignature_line(text, stranger, EPOCH), notes.SignatureLine("else", 7, b"x")]

    store = MemoryStore()
    rebuilt = rebuild(store, with_lines(blocks, by_stranger))
    assert rebuilt.dropped == 2
    assert stranger.name not in {row.first.name for row in store.cosigned(REGISTER, 77, 78)}
    policy = Policy.parse(f"log {vkey(GOVERNING)}\nwitness s {stranger.cosigner}\nquorum s\n".encode())
    store = MemoryStore()
    rebuilt = rebuild(store, with_lines(blocks, by_stranger), policies=[policy])
    assert rebuilt.dropped == 1
    assert stranger.name in {row.first.name for row in store.cosigned(REGISTER, 77, 78)}


def test_a_wrong_cosignature_of_a_known_witness_is_an_integrity_failure(file: bytes) -> None:
    """False if an altered cosignature could come back as a witness's word."""

    def altered(text: bytes) -> list[notes.SignatureLine]:
        line = notes.cosignature_line(text, WITNESSES[0], EPOCH)
        return [
            replace(line, signature=bytes([*line.signature[:7], line.signature[7] ^ 1, *line.signature[8:]]))
        ]

    with pytest.raises(SignatureError, match="witness-one"):
        rebuild(MemoryStore(), with_lines(blocks_of(file), altered))


def test_a_note_with_further_lines_of_text_is_refused(file: bytes) -> None:
    """False if a text that the ledger never writes could take the place of the one that witnesses saw."""
    blocks = blocks_of(file)
    last = blocks[-1]
    assert isinstance(last, NoteBlock)
    text, _ = notes.split_note(last.note)
    key = SignerKey(f"{ORIGIN}/{last.register}", LOG_KEY)
    longer = NoteBlock(last.register, last.size, notes.sign_note(text + b"more\n", [key]))
    with pytest.raises(ProofError):
        rebuild(MemoryStore(), Export(ORIGIN, iter([*blocks[:-1], longer])))


def test_cosignatures_without_a_note_are_not_passed_over(tmp_path: Path, file: bytes) -> None:
    """False if an export of a damaged store left out what it cannot show."""
    store = SqliteStore(tmp_path / "store")
    rebuild(store, read_export(io.BytesIO(file)))
    store._writer.execute("DELETE FROM note")
    with pytest.raises(StoreError, match="no note"):
        exported(store)
    store.close()


def test_an_export_ends_where_the_ledger_was_when_it_began(tmp_path: Path) -> None:
    """False if a ledger that is written meanwhile came out in pieces that do not fit together."""
    held = open_ledger(MemoryStore(), tmp_path / "marks")
    held.add(range(40))
    heads = held.ledger.heads()
    blocks = []
    for block in export_blocks(held.ledger.store, heads):
        blocks.append(block)
        held.open_register(f"{DEPARTMENT}/office-{len(blocks)}")
        held.add([100 + len(blocks)])
        keep_notes(held)
        cosign(held, REGISTER, held.ledger.heads()[REGISTER].size, EPOCH)
    rebuilt = rebuild(MemoryStore(), Export(ORIGIN, iter(blocks)))
    assert rebuilt.ledger.heads() == heads
    assert len(blocks) > 5


# What does not hold.


@settings(max_examples=150)
@given(st.data())
def test_any_flipped_bit_of_an_export_is_told(file: bytes, data: st.DataObject) -> None:
    """False if an export could be altered in a bit, and be rebuilt without a word."""
    bit = data.draw(st.integers(0, len(file) * 8 - 1))
    changed = bytearray(file)
    changed[bit // 8] ^= 1 << bit % 8
    try:
        rebuilt = rebuild(MemoryStore(), read_export(io.BytesIO(changed)))
    except LedgerError:
        return
    # A cosignature under another name is a stranger's: left out, and said to be.
    assert rebuilt.quarantined or rebuilt.dropped


@settings(max_examples=40)
@given(st.data())
def test_an_export_that_was_cut_off_or_goes_on_is_refused(file: bytes, data: st.DataObject) -> None:
    """False if part of an export were taken for all of it."""
    length = data.draw(st.integers(0, len(file) - 1))
    for wrong in (file[:length], file + file[:1]):
        with pytest.raises(MalformedError):
            blocks_of(wrong)


def whole(blocks: list[Block], end: int | None = None) -> bytes:
    """Return the file of these blocks."""
    head = f"daybook.export/1\n{ORIGIN}\n".encode()
    count = len(blocks) if end is None else end
    return head + b"".join(block.data() for block in blocks) + b"end %d\n" % count


def test_blocks_have_one_order(file: bytes) -> None:
    """False if one event log could be written as two files."""
    blocks = blocks_of(file)
    assert whole(blocks) == file
    first_note = next(index for index, block in enumerate(blocks) if isinstance(block, NoteBlock))
    last_governing = next(index for index, block in enumerate(blocks) if block.register != GOVERNING) - 1
    for left in (last_governing, first_note - 1, first_note, len(blocks) - 2):
        swapped = [*blocks]
        swapped[left : left + 2] = swapped[left + 1], swapped[left]
        with pytest.raises(MalformedError, match="out of order"):
            blocks_of(whole(swapped))
    with pytest.raises(MalformedError, match="out of order"):
        blocks_of(whole([*blocks, blocks[-1]]))
    for end in (len(blocks) - 1, len(blocks) + 1):
        with pytest.raises(MalformedError, match="the end says"):
            blocks_of(whole(blocks, end))


BAD_LINES = [
    b"message governing 01\nx\n",
    b"message governing 0\n\n",
    b"message governing +1\nx\n",
    b"message governing 99999999999\nx\n",
    b"message governing  1\nx\n",
    b"message Governing 1\nx\n",
    b"message  1\nx\n",
    b"message governing 1\nxx\n",
    b"letter governing 1\nx\n",
    b"note governing 1\nx\n",
    b"message " + b"x" * 600 + b" 1\nx\n",
    b"message governing\xc2\xa0 1\nx\n",
    b"end 00\n",
    b"end\n",
    b"\n",
]


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_block_has_one_spelling(line: bytes) -> None:
    """False if a length or name could be written in two ways, or a reader be made to take anything."""
    with pytest.raises(MalformedError):
        blocks_of(f"daybook.export/1\n{ORIGIN}\n".encode() + line + b"end 1\n")


@pytest.mark.parametrize("first", [b"", b"daybook.export/2\n", b"daybook.export/1", b"daybook.export/1\r\n"])
def test_another_file_is_refused_at_its_first_line(first: bytes) -> None:
    """False if another format were read as this one."""
    with pytest.raises(MalformedError):
        read_export(io.BytesIO(first + b"ledger.test\nend 0\n"))


def test_a_note_that_the_messages_do_not_lead_to_is_an_integrity_failure(file: bytes) -> None:
    """False if a rebuild that lost or changed entries could pass for the ledger that was signed."""
    blocks = blocks_of(file)
    last = max(
        index
        for index, block in enumerate(blocks)
        if isinstance(block, MessageBlock) and block.register == REGISTER
    )
    without = [*blocks[:last], *blocks[last + 1 :]]
    with pytest.raises(ProofError, match="do not reach"):
        rebuild(MemoryStore(), read_export(io.BytesIO(whole(without))))
    other = MemoryStore()
    again = [block for block in blocks if isinstance(block, MessageBlock)]
    swapped = [*again]
    swapped[last - 1 : last + 1] = swapped[last], swapped[last - 1]
    notes_only = [block for block in blocks if isinstance(block, NoteBlock)]
    with pytest.raises(ProofError, match="another root"):
        rebuild(other, read_export(io.BytesIO(whole([*swapped, *notes_only]))))


def test_a_note_of_a_stranger_is_an_integrity_failure(file: bytes) -> None:
    """False if a note that the log has not signed were kept as its own."""
    blocks = blocks_of(file)
    last = blocks[-1]
    assert isinstance(last, NoteBlock)
    text, (line, *cosigned) = notes.split_note(last.note)
    forged = notes.SignatureLine(line.name, line.key_id, bytes([line.signature[0] ^ 1]) + line.signature[1:])
    wrong = NoteBlock(last.register, last.size, notes.format_note(text, [forged, *cosigned]))
    with pytest.raises(VerificationError):
        rebuild(MemoryStore(), Export(ORIGIN, iter([*blocks[:-1], wrong])))


def test_a_message_whose_view_is_not_in_the_export_stops_the_rebuild(file: bytes) -> None:
    """False if entries were judged against less of the governing register than they state."""
    blocks = blocks_of(file)
    others = [block for block in blocks if block.register != GOVERNING]
    with pytest.raises(MalformedError, match="does not reach"):
        rebuild(MemoryStore(), Export(ORIGIN, iter([*blocks[:2], *others])))


def test_what_registration_cannot_have_made_is_named(file: bytes) -> None:
    """False if a message that was tampered with vanished without a word."""
    blocks = [block for block in blocks_of(file) if isinstance(block, MessageBlock)]
    last = blocks[-1]
    wrong = MessageBlock(last.register, last.value.replace(b"Decision", b"Derision"))
    rebuilt = rebuild(MemoryStore(), Export(ORIGIN, iter([*blocks[:-1], wrong])))
    (named,) = rebuilt.quarantined
    assert named.startswith(f"message {len(blocks) - 1} of {last.register}: signature or shape")


def test_only_an_empty_store_is_rebuilt(told: MemoryStore, file: bytes) -> None:
    """False if a rebuild could write into a ledger."""
    with pytest.raises(StoreError, match="empty"):
        rebuild(told, read_export(io.BytesIO(file)))


def test_entries_that_do_not_make_the_root_are_not_exported(told: MemoryStore, tmp_path: Path) -> None:
    """False if a backup could hold an altered entry, and the first to see it were whoever needs it."""
    store = SqliteStore(tmp_path / "store")
    rebuild(store, read_export(io.BytesIO(exported(told))))
    with opened(tmp_path / "store") as connection:
        flip_in_entry(connection, REGISTER, 76)
    with pytest.raises(StoreError, match="do not make the root"):
        exported(store)
    store.close()


def test_a_damaged_store_is_not_exported(told: MemoryStore, tmp_path: Path) -> None:
    """False if entries that are not one submission after the other were exported as messages."""
    store = SqliteStore(tmp_path / "store")
    rebuild(store, read_export(io.BytesIO(exported(told))))
    store._writer.execute("UPDATE register SET size = size - 1 WHERE name = ?", (REGISTER,))
    with pytest.raises(StoreError, match="not all there"):
        exported(store)
    store.close()
