"""Reading a register: proofs, roots, tiles and bundles at every size, from tiles alone."""

from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ledger import proofs
from ledger.errors import Reason, RejectedError, StoreError
from ledger.hashing import HASH_SIZE, leaf_hash
from ledger.reader import RegisterReader, TileCache, check_size
from ledger.store import Batch, StoredTile
from ledger.stores.memory import MemoryStore
from ledger.tiles import Bundle, Tile, decode_bundle, implied
from tests.support import reference_tree
from tests.support.batches import batch, entry, head_at

REGISTER = "department/office"
SIZE = 600
SIZES = (1, 2, 3, 7, 64, 65, 255, 256, 257, 511, 512, 513, SIZE)


class CountingStore(MemoryStore):
    """Counts how often tiles are read, and how many."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.read: list[tuple[int, int]] = []

    def tiles(self, register: str, wanted: Sequence[tuple[int, int]]) -> list[bytes]:
        self.reads += 1
        self.read += wanted
        return super().tiles(register, wanted)


class ChangedStore(MemoryStore):
    """Holds tiles that are not those that were committed."""

    def tiles(self, register: str, wanted: Sequence[tuple[int, int]]) -> list[bytes]:
        return [bytes(len(tile)) for tile in super().tiles(register, wanted)]


@pytest.fixture(scope="module")
def store() -> CountingStore:
    """A register that grew in uneven steps."""
    store = CountingStore()
    store.commit([batch(REGISTER, None, 0)])
    for before, after in ((0, 5), (5, 256), (256, 300), (300, SIZE)):
        store.commit([batch(REGISTER, before, after)])
    return store


@pytest.fixture
def reader(store: CountingStore) -> RegisterReader:
    """A reader with nothing in its cache."""
    store.reads, store.read = 0, []
    return RegisterReader(store, REGISTER, TileCache())


def entries(size: int) -> reference_tree.Entries:
    return tuple(entry(index) for index in range(size))


@pytest.mark.parametrize("size", SIZES)
def test_proofs_and_roots_are_those_of_the_rfc(size: int, reader: RegisterReader) -> None:
    """False if a proof read from tiles differed from the RFC's own recursion at some size."""
    whole = entries(size)
    assert reader.root(size) == reference_tree.mth(whole)
    near = sorted(
        {n for border in (0, 1, size // 2, 256, 512, size - 1) for n in (border - 1, border, border + 1)}
    )
    inside = [index for index in near if 0 <= index < size]
    for index in inside:
        assert list(reader.inclusion(index, size)) == reference_tree.path(index, whole)
        assert list(reader.consistency(index + 1, size)) == reference_tree.proof(index + 1, whole)
        for end in inside:
            if end >= index:
                expected = reference_tree.range_proof(index, end + 1, whole)
                assert list(reader.range_proof(index, end + 1, size)) == expected


@settings(max_examples=60)
@given(st.data())
def test_whatever_is_proved_verifies(store: CountingStore, data: st.DataObject) -> None:
    """False if some proof did not verify under the root of its size."""
    reader = RegisterReader(store, REGISTER, TileCache(data.draw(st.integers(1, 4))))
    size = data.draw(st.integers(1, SIZE))
    index = data.draw(st.integers(0, size - 1))
    end = data.draw(st.integers(index + 1, size))
    root = head_at(size).root
    proofs.verify_inclusion(index, size, leaf_hash(entry(index)), reader.inclusion(index, size), root)
    first = data.draw(st.integers(1, size))
    proofs.verify_consistency(first, size, head_at(first).root, root, reader.consistency(first, size))
    leaves = [leaf_hash(entry(at)) for at in range(index, end)]
    proofs.verify_range(index, end, size, leaves, reader.range_proof(index, end, size), root)


def test_the_root_of_nothing_is_read_from_nothing(store: CountingStore, reader: RegisterReader) -> None:
    """False if an empty register had no root."""
    assert reader.root(0) == reference_tree.mth(())
    assert store.read == []


def test_roots_of_many_sizes_are_read_in_one_call(store: CountingStore, reader: RegisterReader) -> None:
    """False if one of them were another than by itself, or notes of a rebuild cost a read each."""
    sizes = [SIZE, *range(40), 300, 256, 300, 64]
    assert reader.roots(sizes) == {size: head_at(size).root for size in sizes}
    assert store.reads == 1


def test_roots_of_any_number_of_sizes_are_read_a_few_at_a_time(
    store: CountingStore, reader: RegisterReader
) -> None:
    """False if what is read at once had no bound."""
    assert len(reader.roots(range(SIZE))) == SIZE
    assert store.reads == 3
    assert reader.roots([]) == {}


def test_a_proof_is_read_in_one_call_and_then_not_again(store: CountingStore, reader: RegisterReader) -> None:
    """False if a proof cost a read for each hash, or tiles were not kept."""
    reader.inclusion(3, SIZE)
    assert store.reads == 1
    assert len(store.read) == len(set(store.read)) <= 4
    reader.inclusion(4, SIZE)
    reader.consistency(200, SIZE)
    assert store.reads == 1


def test_the_cache_keeps_what_was_used_last_and_no_more_than_it_may(store: CountingStore) -> None:
    """False if the cache grew without bound, or dropped what is in use."""
    cache = TileCache(2)
    cache.take(store, REGISTER, SIZE, [(0, 0), (0, 1)])
    cache.take(store, REGISTER, SIZE, [(0, 0)])
    cache.take(store, REGISTER, SIZE, [(0, 2)])  # instead of (0, 1)
    store.read = []
    cache.take(store, REGISTER, SIZE, [(0, 0), (0, 2)])
    assert store.read == []
    cache.take(store, REGISTER, SIZE, [(0, 1)])
    assert store.read == [(0, 1)]
    # More at once than the cache holds is still answered whole.
    assert len(cache.take(store, REGISTER, SIZE, [(0, 0), (0, 1), (0, 2), (1, 0)])) == 4


@given(st.lists(st.integers(1, SIZE), min_size=2, max_size=12))
@example([SIZE, 70, 300, 69, SIZE])
@example(list(range(1, 40)))
def test_a_tile_that_was_read_at_one_size_serves_every_other(store: CountingStore, sizes: list[int]) -> None:
    """False if a tile that grew in the cache had other nodes than one that was read whole."""
    reader = RegisterReader(store, REGISTER, TileCache())
    for size in sizes:
        assert reader.root(size) == head_at(size).root


def test_a_tile_that_has_changed_is_not_mixed_with_what_was_read(store: CountingStore) -> None:
    """False if nodes of two histories could stand in one proof."""
    cache = TileCache()
    RegisterReader(store, REGISTER, cache).root(70)
    other = ChangedStore()
    other.commit([batch(REGISTER, None, 0)])
    other.commit([batch(REGISTER, 0, 300)])
    with pytest.raises(StoreError, match="not as it was"):
        RegisterReader(other, REGISTER, cache).root(200)


def test_entries_tiles_and_bundles_are_the_stored_bytes(reader: RegisterReader) -> None:
    """False if something were served at another width or index than asked for."""
    assert reader.entry(300) == entry(300)
    assert list(reader.entries(250, 520)) == [entry(index) for index in range(250, 520)]
    assert list(reader.entries(5, 5)) == []
    for tile in implied(SIZE):
        data = reader.tile(tile)
        assert len(data) == tile.width * HASH_SIZE
        narrow = Tile(tile.level, tile.index, max(1, tile.width // 2))
        assert reader.tile(narrow) == data[: narrow.width * HASH_SIZE]
    for bundle in (Bundle(0), Bundle(1, 100), Bundle(2, SIZE - 512)):
        found = decode_bundle(reader.bundle(bundle), bundle.width)
        assert found == [entry(bundle.index * 256 + offset) for offset in range(bundle.width)]


def test_what_is_missing_is_a_store_error(reader: RegisterReader) -> None:
    """False if less than was asked for were served as if it were all."""
    for read in (
        lambda: reader.entry(SIZE),
        lambda: list(reader.entries(SIZE - 1, SIZE + 1)),
        lambda: reader.tile(Tile(0, 2, SIZE - 512 + 1)),
        lambda: reader.tile(Tile(1, 1, 1)),
        lambda: reader.bundle(Bundle(2)),
        lambda: reader.root(SIZE + 256),
    ):
        with pytest.raises(StoreError):
            read()


def test_a_damaged_tile_is_a_store_error_and_is_not_kept() -> None:
    """False if a tile that was cut off made another proof, or stayed in the cache after it was mended."""
    store = MemoryStore()
    whole = batch(REGISTER, None, 300)
    cut = [StoredTile(tile.level, tile.index, tile.data[:-1]) for tile in whole.tiles]
    store.commit([Batch(REGISTER, None, whole.head, whole.entries, cut)])
    reader = RegisterReader(store, REGISTER, TileCache())
    with pytest.raises(StoreError, match="lacks hashes"):
        reader.root(300)
    store.commit([Batch(REGISTER, whole.head, whole.head, tiles=whole.tiles)])
    assert reader.root(300) == whole.head.root


def test_a_size_of_nought_is_the_latest_and_one_beyond_is_refused() -> None:
    """False if somebody asking for what is not there yet were answered for something else."""
    assert check_size(0, 10) == 10
    assert check_size(10, 10) == 10
    assert check_size(3, 10) == 3
    assert check_size(0, 0) == 0
    with pytest.raises(RejectedError) as caught:
        check_size(11, 10)
    assert (caught.value.reason, caught.value.detail) == (Reason.SIZE_NOT_REACHED, {"latest_size": "10"})
