"""Reading a ZIP file strictly: every field that stands twice must agree, and no byte lies outside its files.

Only what packs need: stored and deflated files, no encryption, no ZIP64, no comment. A ZIP file that this
program wrote is checked to the last bit; one that was packed again by another program is read as well.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, Final

from services.evidence.bag import ZIP_ATTRIBUTES, ZIP_MADE_BY

MAX_FILE: Final = 64 * 1024 * 1024
"""Bytes of the largest file in a pack."""

MAX_FILES: Final = 65_000

MAX_TOTAL: Final = 4 * 1024 * 1024 * 1024
"""Bytes that all files of a pack may have together."""

_END: Final = struct.Struct("<4sHHHHIIH")
_CENTRAL: Final = struct.Struct("<4sHHHHHHIIIHHHHHII")
_LOCAL: Final = struct.Struct("<4sHHHHHIIIHH")

_STORED: Final = 0
_DEFLATED: Final = 8
_DESCRIPTOR: Final = 1 << 3
_UTF8: Final = 1 << 11
_KIND: Final = 0o170000
_FILE: Final = 0o100000
_FOLDER: Final = 0o040000
_DESCRIPTOR_MAGIC: Final = b"PK\x07\x08"
_RENAMING: Final = frozenset((0x7075, 0x6375))
"""Extra fields that give a file another name or comment, which some programs take and others do not."""


@dataclass(frozen=True, slots=True)
class _Member:
    made_by: int
    needed: int
    flags: int
    method: int
    moment: int
    crc: int
    packed: int
    size: int
    attributes: tuple[int, int]
    extra: bytes
    start: int


class ZipPack:
    """A ZIP file that is open for reading. `faults` are (name, what is wrong) of single files.

    Raises ValueError where its directory cannot be read.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.faults: list[tuple[str, str]] = []
        self.members: Mapping[str, _Member] = self._directory()
        self._check_total()
        self._data = {name: self._local(name, member) for name, member in self.members.items()}
        self._check_gaps()
        self._check_makers()

    def _directory(self) -> dict[str, _Member]:
        length = self._file.seek(0, 2)
        if length < _END.size:
            raise ValueError("too short")
        at = length - _END.size
        magic, disk, start_disk, here, count, size, offset, comment = _END.unpack(self._take(at, _END.size))
        if magic != b"PK\x05\x06" or comment:
            raise ValueError(
                "does not end as a ZIP file without a comment does: unpack it, and give the folder"
            )
        if disk or start_disk or here != count or offset + size != at or count > MAX_FILES:
            raise ValueError("its end does not agree with its directory")
        self._central = offset
        data = self._take(offset, size)
        members: dict[str, _Member] = {}
        position = 0
        for _ in range(count):
            if len(data) - position < _CENTRAL.size:
                raise ValueError("its directory is too short")
            (
                magic, made_by, needed, flags, method, time, date, crc, packed, full, name_length, extra_length,
                comment, disk, internal, external, start,
            ) = _CENTRAL.unpack_from(data, position)  # fmt: skip
            position += _CENTRAL.size
            if magic != b"PK\x01\x02" or comment or disk or position + name_length + extra_length > len(data):
                raise ValueError("its directory is damaged")
            name = _name(data[position : position + name_length])
            position += name_length
            extra = data[position : position + extra_length]
            position += extra_length
            if name in members:
                raise ValueError("two files have one name")
            members[name] = _Member(
                made_by, needed, flags, method, date << 16 | time, crc, packed, full, (internal, external),
                extra, start,
            )  # fmt: skip
        if position != len(data):
            raise ValueError("its directory is too long")
        return members

    def _take(self, at: int, length: int) -> bytes:
        self._file.seek(at)
        data = self._file.read(length)
        if len(data) != length:
            raise ValueError("too short")
        return data

    def _check_total(self) -> None:
        if sum(member.size for member in self.members.values()) > MAX_TOTAL:
            raise ValueError("its files would be larger than any pack's")

    def _local(self, name: str, member: _Member) -> tuple[int, int]:
        """Check the header before a file against the directory; return where its bytes begin, and all of it."""
        try:
            head = self._take(member.start, _LOCAL.size)
            magic, needed, flags, method, time, date, crc, packed, full, name_length, extra_length = (
                _LOCAL.unpack(head)
            )
            stated = self._take(member.start + _LOCAL.size, name_length + extra_length)
        except ValueError:
            self.faults.append((name, "its header in the ZIP file is cut off"))
            return member.start, member.start
        sizes = (crc, packed, full)
        agreed = (member.crc, member.packed, member.size)
        later = flags & _DESCRIPTOR and sizes == (0, 0, 0)
        if (
            magic != b"PK\x03\x04"
            or (needed, flags, method, date << 16 | time)
            != (member.needed, member.flags, member.method, member.moment)
            or not (later or sizes == agreed)
            or stated[:name_length] != name.encode(errors="surrogateescape")
        ):
            self.faults.append((name, "its header in the ZIP file differs from the ZIP file's directory"))
        is_folder = name.endswith("/")
        if (member.attributes[1] >> 16) & _KIND not in (0, _FOLDER if is_folder else _FILE):
            self.faults.append((name, "a symbolic link, or no ordinary file"))
        if any(_RENAMING & _extra_ids(extra) for extra in (member.extra, stated[name_length:])):
            self.faults.append((name, "it has a second name in the ZIP file"))
        if is_folder and member.size:
            self.faults.append((name, "a folder with content"))
        begin = member.start + _LOCAL.size + name_length + extra_length
        return begin, begin + member.packed

    def _check_gaps(self) -> None:
        """See that files stand one behind the other: no bytes between them, and none used twice.

        Programs that unpack while they read take whatever stands there for files.
        """
        end, name = 0, ""
        before: _Member | None = None
        for name, member in sorted(self.members.items(), key=lambda item: item[1].start):
            if not self._follows(before, end, member.start):
                self.faults.append((name, "not where the file before it ends in the ZIP file"))
            before, end = member, self._data[name][1]
        if not self._follows(before, end, self._central):
            self.faults.append((name, "does not end where the directory of the ZIP file begins"))

    def _follows(self, before: _Member | None, end: int, start: int) -> bool:
        """Tell whether only the sizes of the file before stand in [end, start), where they stand behind it."""
        if before is None or not before.flags & _DESCRIPTOR:
            return start == end
        sizes = struct.pack("<III", before.crc, before.packed, before.size)
        if start - end not in (len(sizes), len(_DESCRIPTOR_MAGIC + sizes)):
            return False
        return self._take(end, start - end) in (sizes, _DESCRIPTOR_MAGIC + sizes)

    def _check_makers(self) -> None:
        """Where this program wrote the ZIP file, see that it says so of every file."""
        ours = (ZIP_MADE_BY, 0, ZIP_ATTRIBUTES)
        said = {
            name: (member.made_by, *member.attributes)
            for name, member in self.members.items()
            if not name.endswith("/")
        }
        others = [name for name, each in said.items() if each != ours]
        if len(others) < len(said):
            self.faults += [(name, "its attributes in the ZIP file are not those of a pack") for name in others]

    def read(self, name: str) -> bytes:
        """Return the bytes of a file. Raises ValueError where they are not what the directory says."""
        member = self.members[name]
        if member.size > MAX_FILE or member.packed > MAX_FILE:
            raise ValueError(f"more than {MAX_FILE} bytes")
        if member.flags & ~(_DESCRIPTOR | _UTF8 | 0b110):
            raise ValueError("encrypted, or of a kind that is not read")
        begin, end = self._data[name]
        packed = self._take(begin, end - begin)
        data = self._unpacked(member, packed)
        if len(data) != member.size or zlib.crc32(data) != member.crc:
            raise ValueError("its bytes are not those that the ZIP file's directory states")
        return data

    def _unpacked(self, member: _Member, packed: bytes) -> bytes:
        if member.method == _STORED:
            return packed
        if member.method != _DEFLATED:
            raise ValueError("packed by a method that is not read")
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            # One more than it states: a file that grows beyond that is not unpacked to its end.
            data = unpacker.decompress(packed, member.size + 1)
        except zlib.error as error:
            raise ValueError("its packed bytes are damaged") from error
        if not unpacker.eof or unpacker.unused_data:
            raise ValueError("its packed bytes do not end where they must")
        return data


def _extra_ids(extra: bytes) -> frozenset[int]:
    """Return which extra fields there are: each has an id and a length before it, of two bytes."""
    ids, at = set(), 0
    while at + 4 <= len(extra):
        identifier, length = struct.unpack_from("<HH", extra, at)
        ids.add(identifier)
        at += 4 + length
    return frozenset(ids)


def _name(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
