"""fsck (promise P4): one flipped bit anywhere is found and named, and a sound store passes."""

import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from random import Random

import pytest

from ledger import canonical
from ledger.checkpoints import Checkpoint, sign_checkpoint
from ledger.ed25519 import SecretKey
from ledger.entries import form_ledger_entry, parse_entry
from ledger.errors import StoreError
from ledger.fsck import SPAN, Ground, Problem, Report, RunSpans, Span, SpanReport, check, check_span, stand_on
from ledger.governing import GOVERNING
from ledger.hashing import EMPTY_ROOT, leaf_hash
from ledger.notes import SignerKey, VerifierKey, cosignature_line, split_note
from ledger.own_records import checkpoint_anchored
from ledger.store import Batch, Head, NewCosignatures, Store
from ledger.stores.memory import MemoryStore
from ledger.stores.sqlite import SqliteStore
from ledger.tiles import encode_bundle
from ledger.tree import tree_root
from tests.support.ledger_story import SECOND, WITNESSES, keep_notes, tell
from tests.support.ledgers import LOG_KEY, ORIGIN, REGISTER, open_ledger, vkey
from tests.support.store_surgery import (
    delete_row,
    insert_row,
    opened,
    replace_row,
    rewrite_register,
    rows,
    tables,
)


def ground_of(store: Store) -> Ground:
    """Return what fsck stands on, as the command makes it."""
    return stand_on(store, ORIGIN, vkey(GOVERNING))


def check_store(store: Store, *marks: Checkpoint, run: RunSpans | None = None) -> Report:
    """Check a store in this process, or as `run` does."""
    ground = ground_of(store)

    def here(spans: Sequence[Span]) -> Iterable[SpanReport]:
        return (check_span(ground, span) for span in spans)

    return check(ground, run or here, {mark.origin: mark for mark in marks}, lambda _: None)


def problems_of(path: Path, *marks: Checkpoint) -> tuple[Problem, ...]:
    """Return what fsck finds in a store's file; that it cannot be opened at all is a finding too."""
    try:
        store = SqliteStore(path)
    except StoreError as error:
        return (Problem("", "file", str(error)),)
    try:
        return check_store(store, *marks).problems
    finally:
        store.close()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed store in which everything has happened once. Copy it before touching it."""
    folder = tmp_path_factory.mktemp("sound")
    store = SqliteStore(folder / "store")
    tell(store, folder / "marks")
    store.close()
    return folder / "store"


@pytest.fixture
def copy(sound: Path, tmp_path: Path) -> Path:
    """A copy of that store to be damaged."""
    return Path(shutil.copy(sound, tmp_path / "store"))


def entries_of(path: Path, register: str) -> list[bytes]:
    """Return all entries of a register."""
    store = SqliteStore(path)
    found = store.entries(register, 0, store.heads()[register].size)
    store.close()
    return found


def head_of(path: Path, register: str) -> Checkpoint:
    """Return the checkpoint of a register's head: what the signer's high-water mark is."""
    store = SqliteStore(path)
    head = store.heads()[register]
    store.close()
    return Checkpoint(f"{ORIGIN}/{register}", head.size, head.root)


def test_a_sound_store_passes_in_both_stores(sound: Path, tmp_path: Path) -> None:
    """False if corrections, withdrawals, rejections, anchors, closed registers or revoked keys raised alarm."""
    memory = MemoryStore()
    held = tell(memory, tmp_path / "marks")
    in_memory = check_store(memory)
    store = SqliteStore(sound)
    in_file = check_store(store)
    store.close()
    assert in_memory.problems == ()
    assert in_memory == in_file
    assert in_file.entries == sum(head.size for head in held.ledger.heads().values())
    assert in_file.submissions == 17
    assert (in_file.cosignatures, in_file.unchecked) == (18, 0)


@pytest.mark.parametrize("size", [1, 255, 256, 257, SPAN - 1, SPAN, SPAN + 1, SPAN + 257])
def test_a_sound_store_passes_at_every_border(size: int, tmp_path: Path) -> None:
    """False if a register that ends at, or next to, the border of a tile or a span raised alarm."""
    store = MemoryStore()
    held = open_ledger(store, tmp_path / "marks")
    # Submissions that stand across both borders, where these are passed.
    for first in range(0, size, 900):
        held.add(range(first, min(first + 900, size)))
    keep_notes(held)
    report = check_store(store)
    assert report.problems == ()
    assert report.entries == size + held.ledger.heads()[GOVERNING].size


def test_an_empty_store_does_not_pass() -> None:
    """False if a store from which everything was deleted were as good as a sound one."""
    (problem,) = check_store(MemoryStore()).problems
    assert (problem.register, problem.place) == (GOVERNING, "register")


# Flipped bits.

SPOKEN_OF = {
    "register": "head|register|stretch",
    "stretch": "entry|entries|stretch",
    "tile": "tile",
    "note": "note",
    "submission": "submission",
    "record": "record",
    "cosignature": "cosignature",
}
"""What at least one problem must speak of after damage to a table."""


def flipped(value: object) -> Iterator[int | bytes]:
    """Yield a value with one bit flipped, for several bits."""
    if isinstance(value, int):
        for bit in (0, 12, 40, 62, 63):
            changed = value ^ 1 << bit
            yield changed - (1 << 64) if changed >> 63 == 1 else changed
        return
    data = value.encode() if isinstance(value, str) else value
    assert isinstance(data, bytes)
    for position in sorted({0, len(data) // 2, len(data) - 1} - {-1}):
        for bit in (0, 7):
            yield data[:position] + bytes([data[position] ^ 1 << bit]) + data[position + 1 :]


def spread(path: Path, table: str) -> list[tuple[object, ...]]:
    """Return several rows of a table: the first, the last, one between."""
    with opened(path) as connection:
        found = rows(connection, table)
    assert found, f"the story leaves table {table} empty"
    return list(dict.fromkeys((found[0], found[len(found) // 2], found[-1])))


def test_a_flipped_bit_in_any_column_of_any_table_is_found_and_named(sound: Path, tmp_path: Path) -> None:
    """False if some bit of some column could change and fsck passed, or did not say where to look.

    Tables and columns come from the file itself, so that a new one cannot be forgotten.
    """
    for table, columns in tables(sound).items():
        for row in spread(sound, table):
            for place, column in enumerate(columns):
                for changed in flipped(row[place]):
                    path = Path(shutil.copy(sound, tmp_path / "store"))
                    with opened(path) as connection:
                        replace_row(connection, table, row, [*row[:place], changed, *row[place + 1 :]])
                    found = problems_of(path)
                    text = f"{table}.{column}: {row[place]!r} -> {changed!r}: {found}"
                    assert found, text
                    spoken = " ".join(f"{problem.place} {problem.what}" for problem in found)
                    assert re.search(SPOKEN_OF[table], spoken), text


@pytest.mark.parametrize("pragma", ["application_id", "user_version"])
def test_a_flipped_bit_in_what_the_file_says_it_is_is_found(pragma: str, copy: Path) -> None:
    """False if a file that calls itself something else were read as a store."""
    with opened(copy) as connection:
        ((value,),) = connection.execute(f"PRAGMA {pragma}")
        connection.execute(f"PRAGMA {pragma} = {value ^ 4}")
    (problem,) = problems_of(copy)
    assert "not a Daybook store" in problem.what


def contents(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Return everything that a file says, unless SQLite itself will not read it."""
    with opened(path) as connection:
        names = tables(path)
        return {table: rows(connection, table) for table in [*names, "sqlite_schema"]}


def test_a_flipped_bit_anywhere_in_the_file_is_found_or_changes_nothing_it_says(
    sound: Path, tmp_path: Path
) -> None:
    """False if the file's own structure hid a change from fsck. Bits of unused space mean nothing."""
    data = sound.read_bytes()
    said = contents(sound)
    random = Random(20260703)
    silent = 0
    for _ in range(150):
        bit = random.randrange(len(data) * 8)
        path = tmp_path / "store"
        path.write_bytes(data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :])
        if not problems_of(path):
            silent += 1
            assert contents(path) == said, f"bit {bit} changed what the file says, unnoticed"
        for left in tmp_path.glob("store*"):
            left.unlink()
    assert silent < 75, "most of the file is in use"


# Rows.


@pytest.mark.parametrize("table", ["register", "stretch", "tile", "submission", "record"])
def test_a_deleted_row_is_found_and_named(table: str, sound: Path, tmp_path: Path) -> None:
    """False if a row could be taken away. (A note can: see the limit in ledger/fsck.py.)"""
    for row in spread(sound, table):
        path = Path(shutil.copy(sound, tmp_path / "store"))
        with opened(path) as connection:
            delete_row(connection, table, row)
        spoken = " ".join(f"{problem.place} {problem.what}" for problem in problems_of(path))
        assert re.search(SPOKEN_OF[table], spoken), (row, spoken)


def test_a_register_without_any_note_is_found(copy: Path) -> None:
    """False if all notes of a register could be taken away."""
    with opened(copy) as connection:
        connection.execute("DELETE FROM note")
        connection.execute("DELETE FROM cosignature")
    found = problems_of(copy)
    assert [(problem.register, problem.what) for problem in found] == [
        (register, "no checkpoint is kept") for register in (GOVERNING, REGISTER)
    ]


def test_a_cosigned_note_cannot_be_taken_away(copy: Path) -> None:
    """False if a note that witnesses have cosigned could be lost, and their cosignatures prove nothing."""
    with opened(copy) as connection:
        connection.execute("DELETE FROM note WHERE id = ?", ((2 << 40) + 70,))
    assert {(problem.register, problem.place) for problem in problems_of(copy)} == {
        (REGISTER, f"cosignature of {witness.name} over size 70") for witness in WITNESSES
    }


def test_cosignatures_of_a_witness_that_no_policy_names_are_counted_and_not_checked(copy: Path) -> None:
    """False if a line that nobody can check were called sound, or a stranger's line an alteration."""
    stranger = SignerKey("stranger.test/w", SecretKey(b"\x21" * 32))
    store = SqliteStore(copy)
    stored = store.note(REGISTER, 77)
    assert stored is not None
    line = cosignature_line(split_note(stored.note)[0], stranger, 1_780_000_000)
    store.keep_cosignatures([NewCosignatures(REGISTER, stored, [line])])
    report = check_store(store)
    store.close()
    assert (report.problems, report.cosignatures, report.unchecked) == ((), 19, 1)


def test_an_added_row_is_found_and_named(sound: Path, tmp_path: Path) -> None:
    """False if a row could be added beside the others, in any table."""
    number = 2 << 40
    with opened(sound) as connection:
        ((note,),) = connection.execute("SELECT note FROM note WHERE id >> 40 = 2 LIMIT 1")
        ((entries,),) = connection.execute("SELECT entries FROM stretch WHERE id = ?", (number,))
        ((name, key_id, first, last),) = connection.execute(
            "SELECT name, key_id, first, last FROM cosignature WHERE register = 2 AND size = 77 LIMIT 1"
        )
        ((*whose, early, late),) = connection.execute("SELECT * FROM cosignature WHERE first != last LIMIT 1")
    twice_the_other_way_round = (*whose, late, early)
    added: dict[str, list[tuple[object, ...]]] = {
        "register": [(9, "department-for-testing/nobody", 0, EMPTY_ROOT), (9, "access", 0, EMPTY_ROOT)],
        "stretch": [(number + 77, entries), (number + 77, b""), (number + 10, b""), (number + 4096, entries)],
        "tile": [(number + 1, bytes(32)), (number + (1 << 33), bytes(32)), (number + (127 << 33), b"")],
        "note": [(number + 5, note), (number + 78, note), (9 << 40, note)],
        "submission": [(2, bytes(32), 0, 1), (2, b"", 0, 70), (3, bytes(32), 0, 5), (9, bytes(32), 0, 1)],
        "record": [(2, bytes(16), 1, 0), (2, b"", -5, 0), (3, bytes(16), 1, 0), (9, bytes(16), 1, 0)],
        "cosignature": [
            *((at, size, name, key_id, first, last) for at, size in ((2, 5), (2, 78), (2, 70), (5, 0), (9, 0))),
            (2, -1, name, key_id, first, last),
            (2, 70, "stranger", 1, b"", b""),
            twice_the_other_way_round,
            (2, 70, "stranger", 1, bytes(72), bytes(72)),
        ],
    }
    assert set(added) == set(tables(sound))
    for table, found_rows in added.items():
        for row in found_rows:
            path = Path(shutil.copy(sound, tmp_path / "store"))
            with opened(path) as connection:
                insert_row(connection, table, row)
            spoken = " ".join(f"{problem.place} {problem.what}" for problem in problems_of(path))
            assert re.search(SPOKEN_OF[table], spoken), (table, row, spoken)


def test_swapped_rows_are_found_and_named(sound: Path, tmp_path: Path) -> None:
    """False if what two rows hold could change places, in any table and column."""
    for table, columns in tables(sound).items():
        first, *_, last = spread(sound, table)
        for place in range(len(columns)):
            if first[place] == last[place]:
                continue
            path = Path(shutil.copy(sound, tmp_path / "store"))
            with opened(path) as connection:
                delete_row(connection, table, first)
                delete_row(connection, table, last)
                insert_row(connection, table, [*first[:place], last[place], *first[place + 1 :]])
                insert_row(connection, table, [*last[:place], first[place], *last[place + 1 :]])
            spoken = " ".join(f"{problem.place} {problem.what}" for problem in problems_of(path))
            if len(columns) == 2:
                # Of two columns, swapping either swaps the rows whole where the other is the key.
                assert spoken, (table, columns[place])
            assert re.search(SPOKEN_OF[table], spoken), (table, columns[place], spoken)


def test_a_truncated_value_is_found_and_named(sound: Path, tmp_path: Path) -> None:
    """False if the end of any value, or all of it, could be cut off."""
    for table, columns in tables(sound).items():
        for row in spread(sound, table):
            for place, column in enumerate(columns):
                value = row[place]
                if isinstance(value, int):
                    continue
                assert isinstance(value, (bytes, str))
                for cut in {1, 32, len(value)} if value else ():
                    path = Path(shutil.copy(sound, tmp_path / "store"))
                    with opened(path) as connection:
                        replace_row(connection, table, row, [*row[:place], value[:-cut], *row[place + 1 :]])
                    spoken = " ".join(f"{problem.place} {problem.what}" for problem in problems_of(path))
                    assert re.search(SPOKEN_OF[table], spoken), (table, column, cut, spoken)


def test_an_entry_after_the_last_one_is_found(copy: Path) -> None:
    """False if an entry could wait at the end of a register for a head that counts it in."""
    with opened(copy) as connection:
        *_, (key, data) = connection.execute("SELECT id, entries FROM stretch WHERE id >> 40 = 2 ORDER BY id")
        (extra,) = entries_of(copy, SECOND)[:1]
        connection.execute("UPDATE stretch SET entries = ? WHERE id = ?", (data + encode_bundle([extra]), key))
    (problem,) = problems_of(copy)
    assert (problem.register, problem.place) == (REGISTER, "entry 77")


def test_a_changed_schema_is_found(copy: Path) -> None:
    """False if a trigger could wait in the store to undo what is written."""
    with opened(copy) as connection:
        connection.execute("CREATE TRIGGER undo AFTER INSERT ON note BEGIN DELETE FROM note; END")
    (problem,) = problems_of(copy)
    assert problem == Problem("", "store", "the schema differs: undo")


def test_the_place_leads_to_the_entry(copy: Path) -> None:
    """False if one altered entry were not named by its index, or others were named as well."""
    entries = entries_of(copy, REGISTER)
    with opened(copy) as connection:
        ((stretch,),) = connection.execute("SELECT entries FROM stretch WHERE id = ?", (2 << 40,))
        data = bytearray(stretch)
        data[data.index(b"Decision 20")] ^= 1
        connection.execute("UPDATE stretch SET entries = ? WHERE id = ?", (bytes(data), 2 << 40))
    assert b"Decision 20" in entries[20]
    places = [(problem.register, problem.place) for problem in problems_of(copy)]
    assert (REGISTER, "tile 0/0, hash 20") in places
    assert (REGISTER, "entries 0 to 69") in places  # its submission
    assert {register for register, _ in places} == {REGISTER}


def test_a_head_that_states_far_too_much_is_found_at_once(copy: Path) -> None:
    """False if a damaged size made fsck count to it."""
    with opened(copy) as connection:
        connection.execute("UPDATE register SET size = ? WHERE name = ?", (1 << 62, REGISTER))
    found = problems_of(copy)
    assert Problem(REGISTER, "head", f"states {1 << 62} entries, of which 77 are there") in found


# Attacks.


def test_a_dba_who_alters_a_record_and_derives_everything_again_cannot_sign(copy: Path) -> None:
    """False if editing a row, its tiles and the root went unnoticed: the author's signature is missing."""
    entries = entries_of(copy, REGISTER)
    entries[20] = entries[20].replace(b"Decision 20", b"Decision 21")
    with opened(copy) as connection:
        rewrite_register(connection, REGISTER, entries)
        connection.execute("DELETE FROM note WHERE id >> 40 = 2 AND id != ?", (2 << 40,))
        connection.execute("DELETE FROM cosignature WHERE register = 2 AND size > 0")
    (problem,) = problems_of(copy)
    assert (problem.register, problem.place) == (REGISTER, "entries 0 to 69")
    assert "signature" in problem.what


def test_a_dba_who_alters_what_the_ledger_wrote_meets_the_notes_and_the_signer(copy: Path) -> None:
    """False if an anchor, which nobody but the log has signed, could be altered."""
    mark = head_of(copy, GOVERNING)
    entries = entries_of(copy, GOVERNING)
    (index,) = [index for index, entry in enumerate(entries) if b"checkpoint.anchored/1" in entry]
    (note,) = [parse_entry(entry).record for entry in entries_of(copy, GOVERNING)[index : index + 1]]
    text = canonical.parse(note)["checkpoint"].replace("\n77\n", "\n76\n")
    envelope = parse_entry(entries[index]).acceptance
    entries[index] = form_ledger_entry(
        checkpoint_anchored(text.encode() + b"\n"), envelope.accepted_at, envelope.governing_size
    )
    with opened(copy) as connection:
        rewrite_register(connection, GOVERNING, entries)
    places = {problem.place for problem in problems_of(copy)}
    assert f"note of size {len(entries)}" in places
    with opened(copy) as connection:
        connection.execute("DELETE FROM note WHERE id >> 40 = 1 AND id > ?", ((1 << 40) + index,))
        connection.execute("DELETE FROM record WHERE register = 1 AND entry = ?", (index,))
        header = parse_entry(entries[index]).record
        key = bytes.fromhex(canonical.parse(header)["record_id"].replace("-", ""))
        insert_row(connection, "record", (1, key, 1, index))
    assert problems_of(copy) == ()  # nothing in the store tells any more
    assert problems_of(copy, mark) == (
        Problem(GOVERNING, f"entries 0 to {mark.size - 1}", "the signer has signed another root of them"),
    )


def test_a_dba_who_cuts_off_the_end_meets_the_signer(copy: Path) -> None:
    """False if the last submissions could be dropped without a trace outside the store being asked."""
    mark = head_of(copy, REGISTER)
    with opened(copy) as connection:
        rewrite_register(connection, REGISTER, entries_of(copy, REGISTER)[:70])
        connection.execute("DELETE FROM note WHERE id >> 40 = 2 AND id > ?", ((2 << 40) + 70,))
        connection.execute("DELETE FROM cosignature WHERE register = 2 AND size > 70")
        connection.execute("DELETE FROM record WHERE register = 2 AND entry >= 70")
        connection.execute("DELETE FROM submission WHERE register = 2 AND first >= 70")
    assert problems_of(copy) == ()
    (problem,) = problems_of(copy, mark)
    assert (problem.register, problem.place) == (REGISTER, "head")
    assert "77" in problem.what


def test_an_unsigned_entry_cannot_hide_where_two_spans_meet(tmp_path: Path) -> None:
    """False if an entry that claims to go on with an earlier submission were skipped at a span's begin.

    The one who tries has the log key, so that every root is signed.
    """
    store = SqliteStore(tmp_path / "store")
    held = open_ledger(store, tmp_path / "marks")
    held.add([0])
    for first in range(1, SPAN, 819):
        held.add(range(first, first + 819))
    held.add([SPAN, SPAN + 1])
    store.close()
    entries = entries_of(tmp_path / "store", REGISTER)
    entries[SPAN] = entries[SPAN - 818]  # position 1 of 819, by its own word
    with opened(tmp_path / "store") as connection:
        rewrite_register(connection, REGISTER, entries)
        connection.execute("DELETE FROM note WHERE id >> 40 = 2 AND id > ?", (2 << 40,))
        origin = f"{ORIGIN}/{REGISTER}"
        root = tree_root([leaf_hash(entry) for entry in entries])
        note = sign_checkpoint(Checkpoint(origin, len(entries), root), SignerKey(origin, LOG_KEY))
        insert_row(connection, "note", ((2 << 40) + len(entries), note))
    places = [problem.place for problem in problems_of(tmp_path / "store")]
    assert f"entries from {SPAN} on" in places


def test_a_reader_of_a_register_that_was_never_opened_is_told(copy: Path) -> None:
    """False if the governing register's word about which registers there are were not compared."""
    with opened(copy) as connection:
        connection.execute("UPDATE register SET name = 'department-for-testing/another' WHERE number = 3")
    found = {(problem.register, problem.place) for problem in problems_of(copy)}
    assert found >= {(SECOND, "register"), ("department-for-testing/another", "register")}


def test_a_ledger_that_was_opened_with_another_key_is_found(copy: Path) -> None:
    """False if fsck trusted a log key that the ledger itself never named."""
    store = SqliteStore(copy)
    other = replace(ground_of(store), log=VerifierKey(vkey(GOVERNING).name, 1, bytes(32)))
    found = check(other, lambda spans: [check_span(other, span) for span in spans], {}, lambda _done: None)
    store.close()
    assert (GOVERNING, "entry 0") in {(problem.register, problem.place) for problem in found.problems}


def test_a_record_of_another_register_is_found(copy: Path) -> None:
    """False if a record could be moved to a register that it does not name."""
    store = SqliteStore(copy)
    span = Span(SECOND, 0, store.heads()[SECOND].size)
    moved = MemoryStore()
    moved.commit([Batch(SECOND, None, Head(1, EMPTY_ROOT), store.entries(REGISTER, 0, 1))])
    problems = check_span(replace(ground_of(store), store=moved), replace(span, end=1)).problems
    store.close()
    assert ("entry 0", f"its record is of register {REGISTER!r}") in {(one.place, one.what) for one in problems}


# Other processes.

_ground: Ground | None = None


def _stand_on(path: Path) -> None:
    global _ground
    _ground = ground_of(SqliteStore(path))


def _check(span: Span) -> SpanReport:
    assert _ground is not None
    return check_span(_ground, span)


def test_spans_checked_in_other_processes_come_to_the_same(tmp_path: Path) -> None:
    """False if what spans add up to depended on the process that checks them."""
    store = SqliteStore(tmp_path / "store")
    held = tell(store, tmp_path / "marks")
    for first in range(2_000, 2_000 + SPAN, 999):
        held.add(range(first, first + 999))
    keep_notes(held)
    alone = check_store(store)
    with ProcessPoolExecutor(2, get_context("spawn"), _stand_on, (tmp_path / "store",)) as pool:
        together = check_store(store, run=lambda spans: pool.map(_check, spans))
        spans = [Span(REGISTER, 0, SPAN), Span(REGISTER, SPAN, store.heads()[REGISTER].size)]
        ground = ground_of(store)
        assert list(pool.map(_check, spans)) == [check_span(ground, span) for span in spans]
    store.close()
    assert alone == together
    assert alone.problems == ()
