"""Tessera's fsck, and a monitor over torchwood, read our tiles from a real server: sound, grown, and damaged.

Both are told nothing but the address and the key that `daybook policy --register` prints.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ledger import base64
from ledger.checkpoints import Checkpoint
from ledger.governing import GOVERNING
from ledger.notes import split_note
from ledger.stores.sqlite import SqliteStore
from services.ledger_files import LedgerDirectory
from tests.interop.programs import fetch
from tests.support.offices import SIZES, Offices, Served, office
from tests.support.store_surgery import flip_in_entry, flip_in_tile, opened

# The first test of a session may have to build every program from nothing.
pytestmark = [pytest.mark.journey, pytest.mark.timeout(1_200)]


@dataclass(frozen=True, slots=True)
class Readers:
    """The foreign programs that read a whole log."""

    programs: Path
    folder: Path

    def fsck(self, served: Served, register: str) -> str:
        """Run Tessera's fsck over a register and return what it says, which is all: it always exits 0."""
        key = self.folder / "key"
        key.write_text(served.vkey(register), encoding="utf-8")
        done = subprocess.run(
            [
                *(self.programs / "fsck", "-ui=false", "-storage_url", served.url(register)),
                # Workers: each that finds a fault ends, and with none left fsck would wait for ever.
                *("-public_key", key, "-N", "8"),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return done.stderr

    def read(self, served: Served, register: str, *options: str | Path) -> subprocess.CompletedProcess[str]:
        """Read a register's every entry with torchwood and Go's tlog."""
        return subprocess.run(
            [self.programs / "readlog", *options, served.url(register), served.vkey(register)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def assert_sound(self, served: Served, register: str, size: int, *options: str | Path) -> Any:
        """Assert that both find `size` entries and nothing wrong; return what the second one read."""
        said = self.fsck(served, register)
        found = re.search(r"Successfully fsck'd log with size (\d+) and root (\S+) ", said)
        assert found is not None, said
        assert "fsck failed" not in said
        read = self.read(served, register, *options)
        assert read.returncode == 0, read.stderr
        what = json.loads(read.stdout)
        assert (int(found[1]), found[2]) == (size, what["root"])
        assert what["size"] == size
        return what


@pytest.fixture
def readers(foreign: Path, tmp_path: Path) -> Readers:
    return Readers(foreign, tmp_path)


def entries_joined(directory: Path, register: str, size: int) -> str:
    """Return the SHA-256 of a register's entries, joined, as our own store has them."""
    store = SqliteStore(LedgerDirectory(directory).store)
    try:
        return hashlib.sha256(b"".join(store.entries(register, 0, size))).hexdigest()
    finally:
        store.close()


@pytest.mark.parametrize("size", SIZES)
def test_foreign_readers_find_every_entry_and_nothing_wrong(
    readers: Readers, served: Served, size: int
) -> None:
    """If false, our bundles, tiles, widths or root at this size are not what C2SP says, as others read it."""
    what = readers.assert_sound(served, office(size), size)
    assert what["entries"] == entries_joined(served.directory, office(size), size)
    checkpoint = Checkpoint.parse(split_note(fetch(f"{served.url(office(size))}checkpoint"))[0])
    assert (checkpoint.size, base64.encode(checkpoint.root)) == (size, what["root"])


def test_foreign_readers_find_the_governing_register_sound(readers: Readers, served: Served) -> None:
    """If false, the governing register is not a register like any other."""
    readers.assert_sound(served, GOVERNING, 2 + len(SIZES))


GROWTH = {0: 1, 1: 1, 255: 1, 256: 44, 257: 255, 70_000: 2_300}
"""How many records each register gets: across the first full tile, and whole tiles at once."""


def test_a_log_that_grew_is_sound_and_has_grown_from_what_it_was(
    readers: Readers, offices: Offices, tmp_path: Path
) -> None:
    """If false, growth leaves tiles that are wrong, or a checkpoint that is not consistent with the last."""
    with offices.served(tmp_path / "ledger") as served:
        before = {}
        for size in SIZES[1:]:
            before[size] = tmp_path / f"{size}.note"
            before[size].write_bytes(fetch(f"{served.url(office(size))}checkpoint"))
        served.grow({office(size): (size, more) for size, more in GROWTH.items()})
        for size, more in GROWTH.items():
            since = ("-since", before[size]) if size in before else ()
            readers.assert_sound(served, office(size), size + more, *since)


@dataclass(frozen=True, slots=True)
class Damage:
    """One flipped bit, and what each reader must say of it."""

    size: int
    flip: Callable[[sqlite3.Connection], None]
    fsck: str
    reader: str


# None stands at a right edge: there the server itself would refuse to start.
DAMAGES = {
    "in an entry": Damage(
        257,
        lambda connection: flip_in_entry(connection, office(257), 100),
        # Its leaf hash and the tile's own are both other than they should be; whichever is found first.
        r"tile/(0/000|1/000\.p/1): log has",
        r"hash mismatch for entry 100\b",
    ),
    "in a leaf hash": Damage(
        70_000,
        lambda connection: flip_in_tile(connection, office(70_000), 0, 137, 5),
        r"tile/0/137: log has",
        r"downloaded inconsistent tile",
    ),
    "in a hash of the second level": Damage(
        70_000,
        lambda connection: flip_in_tile(connection, office(70_000), 1, 0, 200),
        r"tile/1/000: log has",
        r"downloaded inconsistent tile",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_foreign_readers_find_one_flipped_bit(
    readers: Readers, offices: Offices, tmp_path: Path, damage: Damage
) -> None:
    """If false, the tests above would pass over entries or tiles that are not those that were signed for."""
    with offices.copied(tmp_path / "ledger") as directory:
        with opened(LedgerDirectory(directory).store) as connection:
            damage.flip(connection)
        with offices.serving(directory) as served:
            said = readers.fsck(served, office(damage.size))
            assert re.search(f"fsck failed: .*{damage.fsck}", said), said[-2_000:]
            assert "Successfully" not in said
            read = readers.read(served, office(damage.size))
            assert read.returncode == 1
            assert re.search(damage.reader, read.stderr), read.stderr
            readers.assert_sound(served, office(255), 255)
