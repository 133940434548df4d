"""The contract of ledger/store.py, over every store: what is true of one is true of all."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from threading import Event
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.errors import ConflictError, StoreError, TakenError
from ledger.hashing import HASH_SIZE, leaf_hash
from ledger.notes import SignatureLine
from ledger.store import (
    EMPTY_HEAD,
    Batch,
    Cosigned,
    Head,
    LookedUp,
    NewCosignatures,
    RecordAt,
    Run,
    Store,
    StoredNote,
    StoredTile,
)
from ledger.stores.memory import MemoryStore
from ledger.stores.postgres import PostgresStore
from ledger.stores.sqlite import SqliteStore
from ledger.tiles import TILE_WIDTH, implied, implied_width
from tests.support.batches import batch, entry, head_at, name_of, note_of
from tests.support.brokers import fresh_database, postgres
from tests.support.postgres_schemas import migrated_schema

__all__ = ["fresh_database", "postgres"]

NewStore = Callable[[], Store]
REGISTER = "department/office"
OTHER = "department/other-office"
BORDERS = (1, 63, 64, 65, 128, 255, 256, 257)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewStore]:
    """Make empty stores of one kind, and close them in the end."""
    made: list[Store] = []
    make: Mapping[str, NewStore] = {
        "memory": MemoryStore,
        "sqlite": lambda: SqliteStore(tmp_path / uuid4().hex),
        "postgres": lambda: PostgresStore(migrated_schema(database)),
    }
    database = request.getfixturevalue("fresh_database") if request.param == "postgres" else ""

    def new() -> Store:
        made.append(make[request.param]())
        return made[-1]

    yield new
    for store in made:
        store.close()


@pytest.fixture
def store(new_store: NewStore) -> Store:
    """One empty store."""
    return new_store()


def grow(store: Store, register: str, *sizes: int) -> None:
    """Bring a new register to each size in turn, a commit each."""
    store.commit([batch(register, None, sizes[0])])
    for before, after in pairwise(sizes):
        store.commit([batch(register, before, after)])


def everything(store: Store, register: str) -> tuple[object, ...]:
    """Return all that a store holds of a register."""
    size = store.heads()[register].size
    return (
        store.heads()[register],
        store.entries(register, 0, size + 1),
        list(store.all_tiles(register)),
        sorted(store.all_submissions(register)),
        sorted(store.all_records(register), key=lambda at: (at.record_id, at.version)),
        list(store.notes(register, 0, 1 << 40)),
        list(store.cosigned(register, 0, 1 << 40)),
    )


def test_an_empty_store_has_no_register(store: Store) -> None:
    """False if a store began with anything."""
    assert store.heads() == {}
    assert store.damage() == []


def test_a_register_that_is_not_there_is_a_store_error(store: Store) -> None:
    """False if some read of an unknown register answered, or failed in a way of its own."""
    reads: list[Callable[[], object]] = [
        lambda: store.entries(REGISTER, 0, 1),
        lambda: store.tiles(REGISTER, [(0, 0)]),
        lambda: store.submissions(REGISTER, [bytes(32)]),
        lambda: store.versions(REGISTER, [(bytes(16), 1)]),
        lambda: store.latest_versions(REGISTER, [bytes(16)]),
        lambda: store.look_up(REGISTER, [bytes(32)], [bytes(16)]),
        lambda: store.entries_at(REGISTER, [0]),
        lambda: store.note(REGISTER, 0),
        lambda: list(store.notes(REGISTER, 0, 1)),
        lambda: list(store.all_tiles(REGISTER)),
        lambda: list(store.all_submissions(REGISTER)),
        lambda: list(store.all_records(REGISTER)),
    ]
    for read in reads:
        with pytest.raises(StoreError):
            read()


def test_a_register_may_be_new_and_empty(store: Store) -> None:
    """False if a register could not be opened before its first entry."""
    store.commit([Batch(REGISTER, None, EMPTY_HEAD)])
    assert store.heads() == {REGISTER: EMPTY_HEAD}
    assert store.entries(REGISTER, 0, 10) == []
    assert store.tiles(REGISTER, [(0, 0)]) == [b""]
    assert store.note(REGISTER, 1 << 30) is None
    store.commit([batch(REGISTER, 0, 3)])
    assert store.heads() == {REGISTER: head_at(3)}


@pytest.mark.parametrize("size", BORDERS)
def test_entries_come_back_whatever_range_is_asked_for(size: int, store: Store) -> None:
    """False if a range that begins or ends at, or next to, the border of a stretch came back otherwise."""
    grow(store, REGISTER, size)
    expected = [entry(index) for index in range(size)]
    near = sorted({max(0, border + by) for border in (0, *BORDERS) for by in (-1, 0, 1)})
    for begin in near:
        for end in near:
            if begin <= end:
                assert store.entries(REGISTER, begin, end) == expected[begin:end], (begin, end)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 130), min_size=1, max_size=6), st.data())
def test_how_commits_were_cut_cannot_be_read(new_store: NewStore, cuts: list[int], data: st.DataObject) -> None:
    """False if entries, tiles or rows depended on which of them were committed together."""
    sizes = [sum(cuts[: number + 1]) for number in range(len(cuts))]
    cut, whole = new_store(), new_store()
    grow(cut, REGISTER, *sizes)
    grow(whole, REGISTER, sizes[-1])
    assert everything(cut, REGISTER) == everything(whole, REGISTER)
    begin = data.draw(st.integers(0, sizes[-1]))
    end = data.draw(st.integers(begin, sizes[-1] + 70))
    assert cut.entries(REGISTER, begin, end) == [entry(index) for index in range(begin, min(end, sizes[-1]))]
    cut.close()
    whole.close()


def test_tiles_are_replaced_by_wider_ones_that_begin_alike(store: Store) -> None:
    """False if a tile did not grow in place, or a narrower one were no longer its prefix."""
    sizes = (1, 2, 100, 255, 256, 257, 511, 513)
    store.commit([batch(REGISTER, None, 0)])
    seen: dict[tuple[int, int], bytes] = {}
    for before, after in pairwise((0, *sizes)):
        store.commit([batch(REGISTER, before, after)])
        tiles = list(store.all_tiles(REGISTER))
        assert [(tile.level, tile.index) for tile in tiles] == [(t.level, t.index) for t in implied(after)]
        for tile in tiles:
            place = (tile.level, tile.index)
            assert len(tile.data) == HASH_SIZE * implied_width(tile.level, tile.index, after)
            assert tile.data.startswith(seen.get(place, b""))
            seen[place] = tile.data
    leaves = b"".join(leaf_hash(entry(index)) for index in range(513))
    assert b"".join(store.tiles(REGISTER, [(0, 0), (0, 1), (0, 2)])) == leaves


def test_tiles_come_in_the_order_asked_for(store: Store) -> None:
    """False if a missing tile, or one asked for twice, moved the others."""
    grow(store, REGISTER, 600)
    zero, one, two = store.tiles(REGISTER, [(0, 0), (0, 1), (0, 2)])
    assert store.tiles(REGISTER, [(0, 2), (3, 0), (0, 0), (0, 9), (0, 2)]) == [two, b"", zero, b"", two]
    assert store.tiles(REGISTER, []) == []
    assert len({zero, one, two}) == 3


def test_many_submissions_and_versions_are_found_at_once(store: Store) -> None:
    """False if a question longer than a statement may be lost or doubled an answer."""
    grow(store, REGISTER, 1_300)
    strangers = [name_of(index) for index in range(5_000, 5_600)]
    asked = [name_of(index) for index in range(1_300)]
    mixed = [*asked[:600], *strangers, *asked, asked[0]]
    assert store.submissions(REGISTER, mixed) == {name_of(index): Run(index, 1) for index in range(1_300)}
    there = {RecordAt(name_of(index)[:16], 1, index) for index in range(1_300)}
    for versions in (
        store.versions(REGISTER, [(name[:16], version) for name in mixed for version in (1, 2)]),
        store.latest_versions(REGISTER, [name[:16] for name in mixed]),
    ):
        assert len(versions) == 1_300
        assert set(versions) == there
    entries = store.entries_at(REGISTER, [1_299, 0, 0, 700, 1_300])
    assert entries == {index: entry(index) for index in (0, 700, 1_299)}
    for count in (0, 1, 2, 8, 9, 64, 65, 512, 513, 1_024, 1_025):
        found = store.submissions(REGISTER, asked[:count])
        assert found.keys() == set(asked[:count]), count


def test_versions_of_a_record_are_found_by_themselves(store: Store) -> None:
    """False if a version that was not asked for were returned, or another left out."""
    many = [RecordAt(bytes(16), version, version % 3) for version in range(1, 60)]
    store.commit([replace(batch(REGISTER, None, 3), records=many)])
    found = store.versions(REGISTER, [(bytes(16), version) for version in (7, 59, 60, 1, 7)])
    assert sorted(found, key=lambda at: at.version) == [many[0], many[6], many[58]]
    assert store.latest_versions(REGISTER, [bytes(16), bytes(16)]) == [many[58]]
    assert sorted(store.all_records(REGISTER), key=lambda at: at.version) == many


def test_one_question_tells_what_several_would(store: Store) -> None:
    """False if what is looked up before a submission is judged were not what the store holds."""
    grow(store, REGISTER, 70)
    grow(store, OTHER, 5)
    ids = [name_of(index) for index in (3, 69, 3, 70, 4_000)]
    record_ids = [name[:16] for name in ids]
    found = store.look_up(REGISTER, ids, record_ids)
    assert found.runs == store.submissions(REGISTER, ids)
    assert found.runs.keys() == {name_of(3), name_of(69)}
    assert sorted(found.latest, key=lambda at: at.index) == [
        RecordAt(name_of(index)[:16], 1, index) for index in (3, 69)
    ]
    assert found.rejections == {}
    assert store.look_up(OTHER, ids, record_ids).runs.keys() == {name_of(3)}
    assert store.look_up(REGISTER, [], []) == LookedUp([], {}, {})


def test_registers_do_not_mix(store: Store) -> None:
    """False if one register's rows answered for another: they have the same indices, and here the same ids."""
    grow(store, REGISTER, 70)
    grow(store, OTHER, 5)
    store.commit([replace(batch(OTHER, 5, 6), notes=[note_of(5)])])
    assert store.entries(OTHER, 0, 100) == [entry(index) for index in range(6)]
    assert store.submissions(OTHER, [name_of(69)]) == {}
    assert (
        store.versions(OTHER, [(name_of(69)[:16], 1)]) == store.latest_versions(OTHER, [name_of(69)[:16]]) == []
    )
    assert store.entries_at(OTHER, [69]) == {}
    assert store.note(REGISTER, 1 << 30) is None
    assert [tile.data for tile in store.all_tiles(OTHER)] == store.tiles(OTHER, [(0, 0)])
    assert len(list(store.all_submissions(OTHER))) == len(list(store.all_records(OTHER))) == 6
    assert store.heads() == {REGISTER: head_at(70), OTHER: head_at(6)}
    assert store.damage() == []


def test_notes_are_found_by_size(store: Store) -> None:
    """False if the note of another size than the largest allowed were returned, or a note changed."""
    grow(store, REGISTER, 10)
    kept = [note_of(size) for size in (0, 3, 7)]
    store.commit([Batch(REGISTER, head_at(10), head_at(10), notes=kept)])
    store.commit([Batch(REGISTER, head_at(10), head_at(10), notes=[kept[1], note_of(10)])])
    assert [store.note(REGISTER, size) for size in (0, 2, 3, 6, 7)] == [
        kept[0],
        kept[0],
        kept[1],
        kept[1],
        kept[2],
    ]
    assert store.note(REGISTER, 1 << 39) == note_of(10)
    assert list(store.notes(REGISTER, 0, 11)) == [*kept, note_of(10)]
    assert list(store.notes(REGISTER, 1, 7)) == [kept[1]]
    assert list(store.notes(REGISTER, 8, 10)) == []


def test_many_notes_are_read_in_order(store: Store) -> None:
    """False if a long list of notes lost some between the pages it is read in."""
    grow(store, REGISTER, 1_100)
    notes = [note_of(size) for size in range(1, 1_101)]
    store.commit([Batch(REGISTER, head_at(1_100), head_at(1_100), notes=notes)])
    assert list(store.notes(REGISTER, 0, 2_000)) == notes


def test_what_is_listed_is_complete(store: Store) -> None:
    """False if a long list of rows lost some between the pages it is read in."""
    grow(store, REGISTER, 20 * TILE_WIDTH + 3)
    size = 20 * TILE_WIDTH + 3
    assert dict(store.all_submissions(REGISTER)) == {name_of(i): Run(i, 1) for i in range(size)}
    assert {at.index for at in store.all_records(REGISTER)} == set(range(size))
    assert len(list(store.all_tiles(REGISTER))) == 22
    assert [tile.level for tile in store.all_tiles(REGISTER)] == [0] * 21 + [1]


CONFLICTS = {
    "a register that is there": batch(OTHER, None, 1),
    "a register that is not": batch("department/nobody", 5, 6),
    "another size": batch(OTHER, 4, 6),
    "another root": replace(batch(OTHER, 5, 6), expected=Head(5, head_at(4).root)),
}


@pytest.mark.parametrize("conflict", CONFLICTS.values(), ids=CONFLICTS.keys())
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_a_conflict_in_one_batch_writes_nothing_of_any(first: bool, conflict: Batch, store: Store) -> None:
    """False if of two batches the one that met its head were written although the other did not."""
    grow(store, REGISTER, 60)
    grow(store, OTHER, 5)
    before = everything(store, REGISTER), everything(store, OTHER)
    good = batch(REGISTER, 60, 70, [note_of(60)])
    with pytest.raises(ConflictError):
        store.commit([conflict, good] if first else [good, conflict])
    assert (everything(store, REGISTER), everything(store, OTHER)) == before
    assert store.heads().keys() == {REGISTER, OTHER}
    store.commit([good, batch(OTHER, 5, 6), batch("department/third-office", None, 2)])
    assert store.heads()[REGISTER] == head_at(70)
    assert store.heads()["department/third-office"] == head_at(2)


def test_a_new_register_of_a_failed_commit_is_not_there(store: Store) -> None:
    """False if a register remained half made, or its name could not be used again."""
    grow(store, OTHER, 5)
    with pytest.raises(ConflictError):
        store.commit([batch(REGISTER, None, 3), batch(OTHER, 4, 5)])
    assert store.heads() == {OTHER: head_at(5)}
    with pytest.raises(StoreError):
        store.entries(REGISTER, 0, 1)
    grow(store, REGISTER, 3)
    assert store.entries(REGISTER, 0, 3) == [entry(0), entry(1), entry(2)]


SPOILT = {
    "a submission that is there": {"submissions": {name_of(2): Run(10, 1)}},
    "a version that is there": {"records": [RecordAt(name_of(2)[:16], 1, 10)]},
}


@pytest.mark.parametrize("spoilt", SPOILT.values(), ids=SPOILT.keys())
def test_rows_are_never_replaced(spoilt: dict[str, object], store: Store) -> None:
    """False if a submission or a version could be written over: the store is the last to refuse it."""
    grow(store, REGISTER, 10)
    before = everything(store, REGISTER)
    with pytest.raises(TakenError):
        store.commit([replace(batch(REGISTER, 10, 11), **spoilt)])  # type: ignore[arg-type]
    assert everything(store, REGISTER) == before
    store.commit([batch(REGISTER, 10, 11)])


def test_a_commit_of_nothing_is_fine(store: Store) -> None:
    """False if a turn in which everything was refused could not end."""
    store.commit([])
    assert store.heads() == {}


def test_entries_of_every_length_come_back(store: Store) -> None:
    """False if the largest entry, or an odd one, were changed on its way."""
    entries = [b"", b"\n", bytes(65_535), b"\xff" * 256, *(bytes([value]) for value in range(256))]
    after = Head(len(entries), head_at(1).root)
    store.commit([Batch(REGISTER, None, after, entries)])
    assert store.entries(REGISTER, 0, len(entries)) == entries


def test_readers_in_threads_see_whole_commits_only(store: Store) -> None:
    """False if a reader in another thread saw a head whose entries, tiles or rows were not there yet."""
    grow(store, REGISTER, 1)
    done = Event()

    def read() -> int:
        seen = 0
        while True:
            size = store.heads()[REGISTER].size
            assert size >= seen
            seen = size
            assert len(store.entries(REGISTER, 0, size)) == size
            (tile,) = store.tiles(REGISTER, [(0, (size - 1) // TILE_WIDTH)])
            assert len(tile) >= HASH_SIZE * ((size - 1) % TILE_WIDTH + 1)
            assert store.submissions(REGISTER, [name_of(size - 1)]) == {name_of(size - 1): Run(size - 1, 1)}
            # Not before: this thread may come to run for the first time when all is committed.
            if done.is_set():
                return seen

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        try:
            for size in range(1, 60):
                store.commit([batch(REGISTER, size, size + 1)])
        finally:
            done.set()
        assert all(reader.result() >= 1 for reader in readers)
    assert store.entries(REGISTER, 0, 100) == [entry(index) for index in range(60)]


def test_a_note_alone_may_be_committed(store: Store) -> None:
    """False if a note could be kept only beside entries."""
    grow(store, REGISTER, 2)
    store.commit([Batch(REGISTER, head_at(2), head_at(2), notes=[StoredNote(2, b"note")])])
    assert store.note(REGISTER, 2) == StoredNote(2, b"note")
    assert store.heads()[REGISTER] == head_at(2)


def test_a_tile_alone_is_not_in_the_way(store: Store) -> None:
    """False if a tile of a high level or index were taken for one of another place."""
    tiles = [
        StoredTile(level, index, bytes([level, index % 256] * 16))
        for level in range(8)
        for index in (0, 1 << 32)
    ]
    store.commit([Batch(REGISTER, None, EMPTY_HEAD, tiles=tiles)])
    assert list(store.all_tiles(REGISTER)) == sorted(tiles, key=lambda tile: (tile.level, tile.index))


def line_of(witness: str, time: int) -> SignatureLine:
    """Return a cosignature line; a store does not look into it."""
    return SignatureLine(witness, len(witness), time.to_bytes(8, "big") + bytes(64))


def test_of_each_size_and_witness_the_first_and_the_last_cosignature_are_kept(store: Store) -> None:
    """False if a refreshed cosignature took the first one away, or were not kept itself."""
    grow(store, REGISTER, 2, 5)
    store.keep_cosignatures([NewCosignatures(REGISTER, note_of(5), [line_of("one", 10), line_of("other", 11)])])
    for time in (20, 30, 25):
        store.keep_cosignatures([NewCosignatures(REGISTER, note_of(5), [line_of("one", time)])])
    assert list(store.cosigned(REGISTER, 0, 6)) == [
        Cosigned(5, line_of("one", 10), line_of("one", 30)),
        Cosigned(5, line_of("other", 11), line_of("other", 11)),
    ]


def test_an_earlier_cosignature_that_comes_later_is_the_first(store: Store) -> None:
    """False if what is kept depended on the order in which an import or a slow witness brings it."""
    grow(store, REGISTER, 2, 5)
    for time in (20, 300, 10):
        store.keep_cosignatures([NewCosignatures(REGISTER, note_of(5), [line_of("one", time)])])
    assert list(store.cosigned(REGISTER, 0, 6)) == [Cosigned(5, line_of("one", 10), line_of("one", 300))]


def test_a_cosigned_checkpoint_keeps_its_note(store: Store) -> None:
    """False if cosignatures could be kept of a note that is lost, or replaced the note that is there."""
    store.commit([batch(REGISTER, None, 2)])
    store.commit([batch(REGISTER, 2, 5, [note_of(2)])])
    store.keep_cosignatures([NewCosignatures(REGISTER, note_of(5), [line_of("one", 10)])])
    store.keep_cosignatures(
        [NewCosignatures(REGISTER, StoredNote(2, b"another spelling"), [line_of("one", 11)])]
    )
    assert list(store.notes(REGISTER, 0, 9)) == [note_of(2), note_of(5)]
    store.commit([batch(REGISTER, 5, 6, [note_of(5)])])
    assert list(store.notes(REGISTER, 0, 9)) == [note_of(2), note_of(5)]


def test_cosignatures_are_found_forwards_and_backwards_by_size(store: Store) -> None:
    """False if a page ended in the wrong place, or one register showed another's."""
    grow(store, OTHER, 50)
    grow(store, REGISTER, 50)
    wanted = []
    for size in range(50):
        lines = [line_of(witness, size + 1) for witness in ("a", "b", "c")]
        store.keep_cosignatures([NewCosignatures(REGISTER, note_of(size), lines)])
        wanted += [Cosigned(size, line, line) for line in lines]
    store.keep_cosignatures([NewCosignatures(OTHER, note_of(50), [line_of("z", 1)])])
    assert list(store.cosigned(REGISTER, 0, 51)) == wanted
    assert list(store.cosigned(REGISTER, 7, 9)) == wanted[21:27]
    assert list(store.cosigned(REGISTER, 9, 9)) == []
    assert list(store.cosigned_back(REGISTER, 40)) == wanted[:123][::-1]
    assert list(store.cosigned_back(OTHER, 49)) == []


def test_what_one_witness_has_cosigned_is_found_by_size(store: Store) -> None:
    """False if a witness were taken to have cosigned what another has, or not to have what it has."""
    grow(store, OTHER, 50)
    grow(store, REGISTER, 50)
    for size in range(0, 50, 3):
        lines = [line_of("a", size + 1), *([line_of("b", size + 1)] if size % 2 else [])]
        store.keep_cosignatures([NewCosignatures(REGISTER, note_of(size), lines)])
    store.keep_cosignatures([NewCosignatures(REGISTER, note_of(9), [line_of("b", 5)])])
    store.keep_cosignatures([NewCosignatures(OTHER, note_of(49), [line_of("b", 1)])])
    b = line_of("b", 0).by
    for size in range(51):
        kept = [one for one in store.cosigned(REGISTER, 0, 51) if one.first.by == b]
        after = [one for one in kept if one.size >= size]
        before = [one for one in kept if one.size <= size]
        assert store.next_cosigned(REGISTER, b, size) == (after[0] if after else None)
        assert store.last_cosigned(REGISTER, b, size) == (before[-1] if before else None)
    assert store.next_cosigned(REGISTER, b, 9) == Cosigned(9, line_of("b", 5), line_of("b", 10))
    assert store.next_cosigned(REGISTER, ("b", 9), 0) is None
    assert store.last_cosigned(REGISTER, ("bb", 1), 50) is None
