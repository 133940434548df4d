from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import MalformedError
from ledger.hashing import leaf_hash
from ledger.proofs import compute, plan_inclusion
from ledger.tiles import (
    MAX_BUNDLE_SIZE,
    MAX_ENTRY_SIZE,
    Bundle,
    Tile,
    decode_bundle,
    decode_entries,
    decode_one,
    encode_bundle,
    implied,
    implied_width,
    node_in,
    parse_path,
    tile_of,
)
from ledger.tree import EMPTY, MAX_SIZE, Node, extend, tree_root
from tests.support import reference_tree
from tests.support.vectors import hashes, load

VECTORS = load("tiles.json")
ENTRIES = reference_tree.entries(600)
GROWN = extend(EMPTY, [leaf_hash(entry) for entry in ENTRIES])

widths = st.integers(1, 256)
indices = st.integers(0, 2**63 - 1)
tiles = st.builds(Tile, st.integers(0, 63), indices, widths) | st.builds(Bundle, indices, widths)


def content(tile: Tile) -> bytes:
    """Return a tile's bytes out of the tree over `ENTRIES`."""
    places = range(tile.index * 256, tile.index * 256 + tile.width)
    return b"".join(GROWN.node(8 * tile.level, place) for place in places)


# Paths


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 0), "tile/0/000"),
        (Tile(0, 1000, 5), "tile/0/x001/000.p/5"),
        (Tile(1, 67, 255), "tile/1/067.p/255"),
        (Tile(63, 1234067), "tile/63/x001/x234/067"),
        (Bundle(123456789), "tile/entries/x123/x456/789"),
        (Bundle(0, 3), "tile/entries/000.p/3"),
        (Tile(7, 2**63 - 1, 1), "tile/7/x009/x223/x372/x036/x854/x775/807.p/1"),
    ],
)
def test_paths_are_those_of_the_specification(tile: Tile | Bundle, path: str) -> None:
    """If false, no C2SP client finds our tiles (tiles.md, section 2)."""
    assert tile.path() == path
    assert parse_path(path) == tile


@given(tiles)
def test_every_path_parses_to_what_it_names(tile: Tile | Bundle) -> None:
    """If false, a tile that we write cannot be read."""
    assert parse_path(tile.path()) == tile


@pytest.mark.parametrize(
    "path",
    [
        "",
        "checkpoint",
        "tile/0/0",
        "tile/0/00",
        "tile/0/0000",
        "tile/00/001",
        "tile/01/001",
        "tile/64/000",
        "tile/-1/000",
        "tile/0/x000/001",
        "tile/0/001/000",
        "tile/0/x1/000",
        "tile/0/X001/000",
        "tile/0/x001/x000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/257",
        "tile/0/000.p/01",
        "tile/0/000.p/",
        "tile/0/000.p",
        "tile/0/000.P/1",
        "tile/0/000/",
        "/tile/0/000",
        "tile/0/../0/000",
        "tile//0/000",
        "tile/0/000\n",
        "tile/0/\u0660\u0660\u0660",
        "tile/0/000.p/+1",
        "tile/data/000",
        "tile/8/0/000",
        "tile/Entries/000",
        "tile/entries/000.p/0",
        "tile/0/x009/x223/x372/x036/x854/x775/808",
        "tile/0/x999/x999/x999/x999/x999/x999/999",
        "tile/0/x001/x000/x000/x000/x000/x000/x000/000",
        "tile/0/" + "x001/" * 2000 + "000",
    ],
)
def test_any_other_spelling_is_refused(path: str) -> None:
    """If false, one tile has two addresses, or a path leads out of the tiles (tiles.md, section 2)."""
    with pytest.raises(MalformedError):
        parse_path(path)


@given(st.from_regex(r"tile/([0-9]{1,2}|entries)(/x?[0-9]{1,4}){1,3}(\.p/[0-9]{1,3})?"))
def test_what_parses_is_spelt_as_we_spell_it(path: str) -> None:
    """If false, two paths name one tile."""
    try:
        tile = parse_path(path)
    except MalformedError:
        return
    assert tile.path() == path


@pytest.mark.parametrize(
    ("level", "index", "width"), [(-1, 0, 1), (64, 0, 1), (0, -1, 1), (0, 2**63, 1), (0, 0, 0), (0, 0, 257)]
)
def test_a_tile_that_cannot_be_is_refused(level: int, index: int, width: int) -> None:
    """If false, an impossible tile gets a path."""
    with pytest.raises(MalformedError):
        Tile(level, index, width)
    if level == 0:
        with pytest.raises(MalformedError):
            Bundle(index, width)


# Which tiles a size implies


@pytest.mark.parametrize("case", VECTORS["implied"], ids=lambda case: case["size"])
def test_a_size_implies_the_tiles_of_the_vectors(case: dict[str, Any]) -> None:
    """If false, a client asks for tiles that we did not write (tiles.md, sections 3 and 7, V4)."""
    expected = [
        Tile(int(level), index).path() for level, count in case["full"].items() for index in range(count)
    ]
    assert sorted(tile.path() for tile in implied(case["size"])) == sorted(expected + case["partial"])


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 511, 512, 600, 65535, 65536, 65537, 70000])
def test_implied_widths_agree_with_the_implied_tiles(size: int) -> None:
    """If false, two parts of the program disagree about which tiles exist."""
    found = {(tile.level, tile.index): tile.width for tile in implied(size)}
    assert all(1 <= width <= 256 for width in found.values())
    for level in range(5):
        for index in range(280):
            assert implied_width(level, index, size) == found.get((level, index), 0)


def test_every_perfect_node_at_a_tile_level_is_in_one_implied_tile() -> None:
    """If false, a hash is in no tile, or in two."""
    for size in (1, 255, 256, 257, 600, 66000):
        for level in range(4):
            assert sum(tile.width for tile in implied(size) if tile.level == level) == size >> 8 * level


def test_huge_sizes_have_eight_tile_levels() -> None:
    """If false, arithmetic near 2^63 goes wrong."""
    assert implied_width(7, 127, MAX_SIZE) == 0
    assert implied_width(7, 0, MAX_SIZE) == 127
    assert implied_width(0, MAX_SIZE >> 8, MAX_SIZE) == 255
    assert implied_width(63, 0, MAX_SIZE) == 0


# Where nodes live


def test_every_node_is_found_in_its_tile() -> None:
    """If false, a proof is made of wrong hashes (tiles.md, section 3)."""
    size = len(ENTRIES)
    stored = {(tile.level, tile.index): content(tile) for tile in implied(size)}
    for level in range(10):
        for index in range(size >> level):
            tile_level, tile_index, first, width = tile_of((level, index))
            assert node_in(stored[tile_level, tile_index], first, width) == GROWN.node(level, index)


def test_a_node_of_level_eight_lives_one_tile_level_up() -> None:
    """If false, tile heights are not 8."""
    assert tile_of((7, 3)) == (0, 1, 128, 128)
    assert tile_of((8, 257)) == (1, 1, 1, 1)
    assert tile_of((62, 1)) == (7, 0, 64, 64)


@pytest.mark.parametrize("length", [0, 32, 63, 65, 95, 97])
def test_a_tile_too_short_for_the_node_is_refused(length: int) -> None:
    """If false, a partial tile yields the hash of fewer leaves than asked for."""
    with pytest.raises(MalformedError):
        node_in(bytes(length), 2, 2)


def test_the_log_of_300_entries_is_that_of_the_vectors() -> None:
    """If false, our files are not those of tiles.md, section 7, V2."""
    vectors = VECTORS["size_300"]
    expected = {tile.path() for tile in implied(300)} | {
        Bundle(tile.index, tile.width).path() for tile in implied(300) if tile.level == 0
    }
    assert {resource["path"] for resource in vectors["resources"]} == expected
    for resource in vectors["resources"]:
        match parse_path(resource["path"]):
            case Tile() as tile:
                data = content(tile)
            case Bundle(index, width):
                data = encode_bundle(ENTRIES[index * 256 : index * 256 + width])
        assert len(data) == resource["bytes"]
        if "content" in resource:
            assert data.hex() == resource["content"]
        else:
            assert sha256(data).hexdigest() == resource["sha256"]
    assert tree_root([leaf_hash(entry) for entry in ENTRIES[:300]]).hex() == vectors["root"]


def test_an_inclusion_proof_needs_only_the_tiles_of_the_vector() -> None:
    """If false, clients fetch more than they must, or get another proof (tiles.md, section 7, V3)."""
    vectors = VECTORS["inclusion_of_270_at_300"]
    opened: set[str] = set()

    def fetch(node: Node) -> Any:
        tile_level, tile_index, first, width = tile_of(node)
        tile = Tile(tile_level, tile_index, implied_width(tile_level, tile_index, 300))
        opened.add(tile.path())
        return node_in(content(tile), first, width)

    assert list(compute(plan_inclusion(270, 300), fetch)) == hashes(vectors["proof"])
    assert sorted(opened) == vectors["tiles"]


# Entry bundles


def test_a_bundle_is_that_of_the_vectors() -> None:
    """If false, no C2SP client reads our entries (tiles.md, section 7, V1)."""
    data = bytes.fromhex(VECTORS["bundle_of_3"]["hex"])
    assert encode_bundle(ENTRIES[:3]) == data
    assert decode_bundle(data, 3) == list(ENTRIES[:3])


@given(st.lists(st.binary(max_size=400), max_size=300))
def test_a_bundle_holds_what_was_put_in(entries: list[bytes]) -> None:
    """If false, an entry comes back altered, and its leaf with it."""
    data = encode_bundle(entries)
    assert decode_entries(data) == entries
    assert decode_bundle(data, len(entries)) == entries
    for width in (len(entries) - 1, len(entries) + 1):
        with pytest.raises(MalformedError, match=f"not {width}"):
            decode_bundle(data, width)


@given(st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=8), st.data())
def test_a_truncated_bundle_is_refused_or_lacks_entries(entries: list[bytes], data: st.DataObject) -> None:
    """If false, a cut-off reply passes for the whole bundle."""
    whole = encode_bundle(entries)
    with pytest.raises(MalformedError):
        decode_bundle(whole[: data.draw(st.integers(0, len(whole) - 1))], len(entries))


@given(st.binary(max_size=200))
def test_whatever_decodes_is_spelt_in_one_way(data: bytes) -> None:
    """If false, two bundles mean the same entries."""
    try:
        entries = decode_entries(data)
    except MalformedError:
        return
    assert encode_bundle(entries) == data


@pytest.mark.parametrize("data", [b"\x00", b"\x00\x01", b"\x00\x01a\x00", b"\xff\xffabc", b"\x00\x00\x00"])
def test_a_length_that_does_not_fit_is_refused_where_it_stands(data: bytes) -> None:
    """If false, a damaged bundle loses its tail without a word (tiles.md, section 4)."""
    with pytest.raises(MalformedError, match="does not fit") as caught:
        decode_entries(data)
    assert caught.value.offset == {1: 0, 2: 0, 4: 3, 5: 0, 3: 2}[len(data)]


def test_the_largest_entry_fits_and_a_larger_one_is_refused() -> None:
    """If false, a length wraps around and every later entry is read wrongly."""
    largest = bytes(MAX_ENTRY_SIZE)
    assert decode_bundle(encode_bundle([largest, b"next"]), 2) == [largest, b"next"]
    with pytest.raises(MalformedError, match="65536 bytes"):
        encode_bundle([bytes(MAX_ENTRY_SIZE + 1)])
    assert MAX_BUNDLE_SIZE == 16_777_472
    assert len(encode_bundle([largest] * 256)) == MAX_BUNDLE_SIZE


@given(st.lists(st.binary(max_size=300), max_size=12), st.integers(0, 14))
def test_one_entry_is_the_same_as_that_of_the_whole_bundle(entries: list[bytes], position: int) -> None:
    """False if reading one entry by its lengths gave another than decoding all."""
    expected = entries[position] if position < len(entries) else None
    assert decode_one(encode_bundle(entries), position) == expected


@given(st.lists(st.binary(max_size=30), min_size=1, max_size=5), st.integers(1, 10))
def test_one_entry_of_a_cut_bundle_is_never_another(entries: list[bytes], cut: int) -> None:
    """False if a bundle that lost its end gave bytes that it does not hold."""
    data = encode_bundle(entries)[:-cut]
    for position, entry in enumerate(entries):
        try:
            found = decode_one(data, position)
        except MalformedError:
            continue
        assert found in (None, entry)
