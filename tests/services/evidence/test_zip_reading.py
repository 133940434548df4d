"""ZIP files that a stranger made: what grows, hides, overlaps or reaches outside is refused."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.evidence import zip_reading
from services.evidence.opening import PackError, open_pack
from services.evidence.zip_reading import MAX_FILE, ZipPack


def made(*files: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", method) as archive:
        for name, data in files:
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, method)
    return held.getvalue()


def opened(data: bytes) -> ZipPack:
    return ZipPack(io.BytesIO(data))


def replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    """Replace bytes everywhere: in the header before a file and in the directory."""
    assert old in data
    return data.replace(old, new)


def test_stored_and_deflated_files_are_read() -> None:
    """False if a pack of another program could not be opened."""
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        archive = opened(made(("a/one", b"one" * 100), ("a/empty", b""), method=method))
        assert archive.faults == []
        assert archive.read("a/one") == b"one" * 100
        assert archive.read("a/empty") == b""


def test_a_file_that_grows_beyond_what_it_states_is_not_unpacked() -> None:
    """False if a few bytes could fill the memory of whoever checks a pack."""
    data = made(("bomb", bytes(10_000_000)))
    smaller = replaced(data, struct.pack("<I", 10_000_000), struct.pack("<I", 100))
    archive = opened(smaller)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"do not end|not those"):
            archive.read("bomb")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    larger = replaced(data, struct.pack("<I", 10_000_000), struct.pack("<I", MAX_FILE + 1))
    with pytest.raises(ValueError, match="more than"):
        opened(larger).read("bomb")


def test_files_that_are_too_large_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """False if a ZIP file could announce more than any disk holds."""
    monkeypatch.setattr(zip_reading, "MAX_TOTAL", 1_000)
    with pytest.raises(ValueError, match="larger than any pack"):
        opened(made(("a", bytes(600)), ("b", bytes(600))))


def test_two_files_over_the_same_bytes_are_a_fault() -> None:
    """False if one file's bytes could be read under two names."""
    data = bytearray(made(("a", b"same"), ("b", b"same"), method=zipfile.ZIP_STORED))
    second = data.rindex(b"PK\x01\x02")
    struct.pack_into("<I", data, second + 42, 0)
    archive = opened(bytes(data))
    assert ("b", "its header in the ZIP file differs from the ZIP file's directory") in archive.faults


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"before" + data,
        lambda data: data + b"after",
        lambda data: data[:-2] + b"\x05\x00" + b"notes",
        lambda data: data[:40] + b"between" + data[40:],
        lambda data: data[:-22],
        lambda data: b"",
        lambda data: data[:-22] + data[-22:-12] + b"\x09\x00" + data[-10:],
    ],
)
def test_bytes_beside_the_files_are_refused(spoil: Callable[[bytes], bytes]) -> None:
    """False if something could hide in a ZIP file outside its files."""
    data = spoil(made(("a", b"one"), ("b", b"two")))
    try:
        faults = opened(data).faults
    except ValueError:
        return
    assert faults


def test_names_that_reach_outside_are_faults_and_not_files(tmp_path: Path) -> None:
    """False if a pack could name, or overwrite, a file of whoever checks it."""
    names = ["../evil", "/etc/passwd", "a/../../evil", "a\\evil", "C:evil", ".hidden", "a//b", "né", "a\nb"]
    (tmp_path / "a.zip").write_bytes(made(("base/bagit.txt", b"x"), *((name, b"x") for name in names)))
    with open_pack(tmp_path / "a.zip") as pack:
        assert set(pack.names) <= {"bagit.txt", "base/bagit.txt"}
        assert len(pack.faults) >= len(names)


def test_a_link_in_a_zip_file_is_a_fault() -> None:
    """False if a ZIP file could point at a file outside it."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    assert ("link", "a symbolic link, or no ordinary file") in opened(held.getvalue()).faults


def test_two_files_of_one_name_are_refused() -> None:
    """False if two readers of a ZIP file could see two different packs."""
    data = made(("one", b"1"), ("two", b"2"))
    with pytest.raises(ValueError, match="two files have one name"):
        opened(replaced(data, b"two", b"one"))


class _Unseekable(io.RawIOBase):
    """What a program writes into that cannot go back: sizes then stand behind the files."""

    def __init__(self) -> None:
        self.held = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.held += data
        return len(data)


def streamed(*files: tuple[str, bytes]) -> bytes:
    out = _Unseekable()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return bytes(out.held)


def test_nothing_hides_behind_the_sizes_that_stand_behind_a_file() -> None:
    """False if a program that unpacks while it reads could find files that no directory lists."""
    data = streamed(("one", b"1" * 40), ("two", b"2" * 40))
    archive = opened(data)
    assert archive.faults == []
    assert archive.read("two") == b"2" * 40
    hidden = made(("hidden", b"another"))
    for at in (0, data.rindex(b"PK\x03\x04"), data.index(b"PK\x01\x02")):
        spoilt = opened(hide(data, hidden, at))
        assert "hidden" not in spoilt.members
        assert spoilt.faults, at


def hide(data: bytes, other: bytes, at: int = 0) -> bytes:
    """Put the files of another ZIP file between two of `data`, where its directory does not list them."""
    hidden = other[: other.index(b"PK\x01\x02")]
    spoilt = bytearray(data[:at] + hidden + data[at:])
    central = spoilt.index(b"PK\x01\x02")
    struct.pack_into("<I", spoilt, len(spoilt) - 6, central)
    while central >= 0:
        (start,) = struct.unpack_from("<I", spoilt, central + 42)
        struct.pack_into("<I", spoilt, central + 42, start + (len(hidden) if start >= at else 0))
        central = spoilt.find(b"PK\x01\x02", central + 4)
    return bytes(spoilt)


def test_sizes_behind_a_file_that_are_not_its_own_are_a_fault() -> None:
    """False if two programs could read two lengths of one file."""
    data = bytearray(streamed(("one", b"1" * 40)))
    data[data.index(b"PK\x07\x08") + 12] ^= 1
    assert opened(bytes(data)).faults == [
        ("one", "does not end where the directory of the ZIP file begins"),
    ]


def test_a_second_name_of_a_file_is_a_fault() -> None:
    """False if another program could unpack a file under a name that was not checked."""
    for extra, wrong in ((b"up\x0c\0\1\0\0\0\0another", True), (b"UT\x05\0\1\0\0\0\0", False)):
        held = io.BytesIO()
        with zipfile.ZipFile(held, "w") as archive:
            member = zipfile.ZipInfo("one")
            member.extra = extra
            archive.writestr(member, b"1")
        assert bool(opened(held.getvalue()).faults) == wrong


@pytest.mark.parametrize("folder", ["../out/", "base/../../out/", "out/", "base/.hidden/", "base/bagit.txt/"])
def test_a_folder_that_reaches_outside_or_covers_a_file_is_a_fault(tmp_path: Path, folder: str) -> None:
    """False if unpacking a pack that verifies could make folders elsewhere, or fail."""
    files = [("base/", b""), ("base/data/", b""), ("base/bagit.txt", b"x"), ("base/data/report.txt", b"x")]
    (tmp_path / "a.zip").write_bytes(made(*files))
    with open_pack(tmp_path / "a.zip") as pack:
        assert pack.faults == ()
    (tmp_path / "b.zip").write_bytes(made(*files, (folder, b"")))
    with open_pack(tmp_path / "b.zip") as pack:
        assert [fault.file for fault in pack.faults] == [folder]


def test_a_wrong_checksum_and_an_encrypted_file_are_refused(tmp_path: Path) -> None:
    """False if damage inside a ZIP file were told as anything else."""
    data = made(("one", b"payload"), method=zipfile.ZIP_STORED)
    with pytest.raises(ValueError, match="not those"):
        opened(replaced(data, struct.pack("<I", zlib.crc32(b"payload")), b"\x01\x02\x03\x04")).read("one")
    flags = bytearray(data)
    flags[6] |= 1
    flags[flags.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(ValueError, match="encrypted"):
        opened(bytes(flags)).read("one")
    (tmp_path / "none.zip").write_bytes(b"PK nothing")
    with pytest.raises(PackError), open_pack(tmp_path / "none.zip"):
        pass
