"""The SQLite store as a file: what makes it durable, what it refuses, how it fares when the disk is full."""

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from threading import Thread

import pytest

from ledger.errors import ConflictError, StorageFullError, StoreError
from ledger.hashing import Hash
from ledger.store import Batch, Head
from ledger.stores.sqlite import APPLICATION_ID, STRETCH, SqliteStore
from tests.support.batches import batch, entry, head_at, note_of
from tests.support.small_disk import small_disk
from tests.support.unsynced import unsynced

REGISTER = "department/office"
OTHER = "department/other-office"


def pragma(store: SqliteStore, name: str) -> object:
    """Return a setting of the connection that writes."""
    ((value,),) = store._writer.execute(f"PRAGMA {name}")
    return value


def test_what_is_committed_is_on_the_disk(tmp_path: Path) -> None:
    """False if a commit could return before it is durable: WAL with synchronous FULL syncs at each commit."""
    store = SqliteStore(tmp_path / "store")
    store.commit([batch(REGISTER, None, 3)])
    assert pragma(store, "journal_mode") == "wal"
    assert pragma(store, "synchronous") == 2  # FULL
    assert pragma(store, "page_size") == 4096
    assert pragma(store, "application_id") == APPLICATION_ID
    store.close()


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    """False if a slip in a reading method could change the store while another thread writes."""
    store = SqliteStore(tmp_path / "store")
    with store._writing, pytest.raises(StoreError, match="readonly"):
        store._rows("DELETE FROM register")
    store.close()


def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    """False if something were kept only in the process."""
    store = SqliteStore(tmp_path / "store")
    store.commit([batch(REGISTER, None, 70), batch(OTHER, None, 300)])
    store.commit([batch(REGISTER, 70, 71, [note_of(70)])])
    store.close()
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    store = SqliteStore(tmp_path / "store")
    assert store.heads() == {REGISTER: head_at(71), OTHER: head_at(300)}
    assert store.entries(REGISTER, 0, 100) == [entry(index) for index in range(71)]
    assert store.note(REGISTER, 71) == note_of(70)
    store.commit([batch(REGISTER, 71, 72)])
    assert store.damage() == []
    store.close()


def test_everything_is_there_after_a_kill(tmp_path: Path) -> None:
    """False if a commit were only in the memory of a process: its files are copied as they are."""
    store = SqliteStore(tmp_path / "store")
    store.commit([batch(REGISTER, None, 70)])
    for name in ("store", "store-wal"):
        (tmp_path / f"copied-{name}").write_bytes((tmp_path / name).read_bytes())
    store.close()
    copied = SqliteStore(tmp_path / "copied-store")
    assert copied.heads() == {REGISTER: head_at(70)}
    assert copied.entries(REGISTER, 0, 100) == [entry(index) for index in range(70)]
    copied.close()


def test_of_two_writers_one_is_refused(tmp_path: Path) -> None:
    """False if a second process that took the file for its own could move a head unseen."""
    first, second = SqliteStore(tmp_path / "store"), SqliteStore(tmp_path / "store")
    first.commit([batch(REGISTER, None, 3)])
    with pytest.raises(ConflictError):
        second.commit([batch(REGISTER, None, 4)])
    third = SqliteStore(tmp_path / "store")
    first.commit([batch(REGISTER, 3, 4)])
    with pytest.raises(ConflictError):
        third.commit([batch(REGISTER, 3, 5)])
    assert third.entries(REGISTER, 0, 9) == first.entries(REGISTER, 0, 9) == [entry(i) for i in range(4)]
    for store in (first, second, third):
        store.close()


def test_a_register_that_another_process_opens_is_read(tmp_path: Path) -> None:
    """False if an export of a served ledger failed where a register was opened after it began."""
    writer, reader = SqliteStore(tmp_path / "store"), SqliteStore(tmp_path / "store")
    writer.commit([batch("a/b", None, 2)])
    assert reader.heads()["a/b"].size == 2
    assert reader.entries("a/b", 0, 9) == writer.entries("a/b", 0, 9)
    with pytest.raises(StoreError, match="has no register"):
        reader.entries("a/c", 0, 9)
    writer.close()
    reader.close()


def test_a_closed_store_cannot_be_used_in_any_thread(tmp_path: Path) -> None:
    """False if a thread that had not read yet opened the file again after it was closed."""
    store = SqliteStore(tmp_path / "store")
    store.commit([batch(REGISTER, None, 3)])
    store.heads()
    store.close()
    failed: list[StoreError] = []

    def read() -> None:
        try:
            store.heads()
        except StoreError as error:
            failed.append(error)

    read()
    with store._writing:  # so that the thread wants a connection of its own
        thread = Thread(target=read)
        thread.start()
        thread.join()
    assert len(failed) == 2
    assert "was closed" in str(failed[1])
    with pytest.raises(StoreError):
        store.commit([])


def test_a_store_of_version_1_is_taken_over(tmp_path: Path) -> None:
    """False if a ledger from before there were witnesses could not be opened, or lost anything by it."""
    path = tmp_path / "store"
    store = SqliteStore(path)
    store.commit([batch("department/office", None, 3, [])])
    store.close()
    connection = sqlite3.connect(path)
    connection.executescript("DROP TABLE cosignature; PRAGMA user_version = 1")
    connection.close()
    store = SqliteStore(path)
    try:
        assert store.heads() == {"department/office": head_at(3)}
        assert list(store.cosigned("department/office", 0, 9)) == []
        assert store.damage() == []
    finally:
        store.close()


# Files that are not ours.


def other_application(path: Path) -> None:
    """Make a database of another program."""
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE letter (text TEXT)")
    connection.commit()
    connection.close()


def of_a_later_version(path: Path) -> None:
    """Make a store of a version that is not known here."""
    SqliteStore(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 3")
    connection.commit()
    connection.close()


def empty_of_another_application(path: Path) -> None:
    """Make a database without tables that another program has claimed."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA application_id = 7")
    connection.commit()
    connection.close()


def no_database(path: Path) -> None:
    """Make a file that is no database."""
    path.write_bytes(b"Dear Minister,\n" * 400)


@pytest.mark.parametrize(
    "make", [other_application, of_a_later_version, empty_of_another_application, no_database]
)
def test_a_file_that_is_not_ours_is_refused_and_left_as_it_is(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    """False if opening the wrong file were taken for opening a ledger, or changed the file."""
    path = tmp_path / "file"
    make(path)
    before = path.read_bytes()
    with pytest.raises(StoreError):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_a_folder_that_is_not_there_is_a_store_error(tmp_path: Path) -> None:
    """False if a wrong path rose as an error of SQLite's."""
    with pytest.raises(StoreError, match="unable to open"):
        SqliteStore(tmp_path / "nowhere" / "store")


# Damage.


def test_a_stretch_that_was_moved_is_not_read_as_if_it_stood_right(tmp_path: Path) -> None:
    """False if entries were returned for indices that they do not stand at."""
    store = SqliteStore(tmp_path / "store")
    store.commit([batch(REGISTER, None, 300)])
    store._writer.execute("UPDATE stretch SET id = id + 1 WHERE id & 0xff = 64")
    for begin, end in ((64, 65), (0, 65)):
        assert store.entries(REGISTER, begin, end) == [entry(index) for index in range(begin, 64)]
    for begin, end in ((0, 300), (64, 66), (70, 200)):
        with pytest.raises(StoreError, match="does not follow"):
            store.entries(REGISTER, begin, end)
    assert store.entries(REGISTER, 0, 64) == [entry(index) for index in range(64)]
    assert store.entries(REGISTER, 130, 131) == [entry(130)]
    store.close()


def test_a_damaged_stretch_is_named(tmp_path: Path) -> None:
    """False if bytes that are no entries came back as some."""
    store = SqliteStore(tmp_path / "store")
    store.commit([batch(REGISTER, None, 100)])
    store._writer.execute("UPDATE stretch SET entries = x'ffff00' WHERE id & 0xff = 64")
    with pytest.raises(StoreError, match="stretch at 64 is damaged"):
        store.entries(REGISTER, 0, 100)
    store.close()


def test_rows_of_no_register_are_damage(tmp_path: Path) -> None:
    """False if rows could stand in the file that nothing reads."""
    store = SqliteStore(tmp_path / "store")
    store.commit([batch(REGISTER, None, 3)])
    store._writer.execute("INSERT INTO note VALUES (5 << 40, x'00')")
    store._writer.execute("INSERT INTO record VALUES (5, x'00', 1, 1)")
    assert store.damage() == [
        "1 rows of table note belong to no register",
        "1 rows of table record belong to no register",
    ]
    store.close()


# A full disk.


@dataclass(frozen=True, slots=True)
class Room:
    """Where the store lies, how to fill the disk and how to make room."""

    path: Path
    fill_up: Callable[[SqliteStore], None]
    make_room: Callable[[SqliteStore], None]


def limit_pages(store: SqliteStore) -> None:
    """Let the file grow no further: SQLite reports this as it reports a full disk."""
    pages = pragma(store, "page_count")
    store._writer.execute(f"PRAGMA max_page_count = {pages}")


def lift_limit(store: SqliteStore) -> None:
    """Let the file grow again."""
    store._writer.execute("PRAGMA max_page_count = 1000000")


@pytest.fixture(params=["limited file", "full disk"])
def room(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Room]:
    """A limited file, which every machine has, and a disk that is really full, where mounting is allowed."""
    if request.param == "limited file":
        yield Room(tmp_path / "store", limit_pages, lift_limit)
        return
    with small_disk(tmp_path / "disk", 4) as disk:
        yield Room(disk.seen / "store", lambda store: disk.fill(), lambda store: disk.free())


def grow_until_full(store: SqliteStore, size: int) -> int:
    """Commit batches of 50 entries until there is no room; return the size reached."""
    while True:
        try:
            store.commit([batch(REGISTER, size, size + 50)])
        except StorageFullError:
            return size
        size += 50
        assert size < 20_000, "the disk is larger than it should be"


def test_a_full_disk_is_told_apart_loses_nothing_and_is_left_behind(room: Room) -> None:
    """False if a commit without room left something, hid what is there, or spoilt the commits after it."""
    store = SqliteStore(room.path)
    store.commit([batch(REGISTER, None, 200)])
    room.fill_up(store)
    size = grow_until_full(store, 200)
    whole = [entry(index) for index in range(size)]
    for _ in range(3):
        with pytest.raises(StorageFullError):
            store.commit([batch(REGISTER, size, size + 50), batch(OTHER, None, 400)])
        assert store.heads() == {REGISTER: head_at(size)}
        assert store.entries(REGISTER, 0, size + 50) == whole
    assert store.damage() == []
    in_another_thread: list[list[bytes]] = []
    thread = Thread(target=lambda: in_another_thread.append(store.entries(REGISTER, 0, size)))
    thread.start()
    thread.join()
    assert in_another_thread == [whole]

    room.make_room(store)
    store.commit([batch(REGISTER, size, size + 50), batch(OTHER, None, 40)])
    store.close()
    store = SqliteStore(room.path)
    assert store.heads() == {REGISTER: head_at(size + 50), OTHER: head_at(40)}
    assert store.entries(REGISTER, 0, size + 50) == [entry(index) for index in range(size + 50)]
    assert store.damage() == []
    store.close()


# Size.


@pytest.mark.parametrize(("together", "most"), [(STRETCH, 1.06), (1, 1.35)])
def test_little_of_the_file_is_not_entries(
    together: int, most: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """False if keeping entries wasted the pages that they lie in, as a row each does."""
    unsynced(monkeypatch)
    random = Random(1)
    entries = [random.randbytes(random.randrange(700, 2_500)) for _ in range(1_920)]
    store = SqliteStore(tmp_path / "store")
    before: Head | None = None
    for first in range(0, len(entries), together):
        after = Head(first + together, Hash(bytes(32)))
        store.commit([Batch(REGISTER, before, after, entries[first : first + together])])
        before = after
    store.close()
    ratio = (tmp_path / "store").stat().st_size / sum(map(len, entries))
    assert ratio < most, ratio


def test_a_lost_race_inside_one_process_is_a_conflict(tmp_path: Path) -> None:
    """False if a batch that was made before another commit were written after it."""
    store = SqliteStore(tmp_path / "store")
    store.commit([batch(REGISTER, None, 3)])
    late = batch(REGISTER, 3, 4)
    store.commit([batch(REGISTER, 3, 5)])
    with pytest.raises(ConflictError):
        store.commit([late])
    with pytest.raises(ConflictError):
        store.commit([replace(late, expected=None)])
    store.close()
