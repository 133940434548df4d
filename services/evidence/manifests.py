"""Checking a bag: every file against both manifests, in the one spelling in which packs are written.

A manifest is only integrity: whoever changes a file can write the manifest anew. What proves a record is its
receipt, and what names who packed is the signature over the tag manifests.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Final

from ledger.errors import MalformedError
from services.evidence.bag import ALGORITHMS, DECLARATION, INFO, PAYLOAD, SIGNATURE
from services.evidence.opening import Pack, PackError

_LINE: Final = {
    "sha256": re.compile(r"([0-9a-f]{64})  ([!-~]+)"),
    "sha512": re.compile(r"([0-9a-f]{128})  ([!-~]+)"),
}
_INFO: Final = re.compile(r"([A-Za-z-]+): (.+)")


class Manifests:
    """What the manifests of a pack say, and what is wrong with them: `faults`."""

    def __init__(self, pack: Pack) -> None:
        self._pack = pack
        self.faults: list[PackError] = list(pack.faults)
        self._expected: dict[str, dict[str, str]] = {}
        self._bytes = 0
        for kind in ("manifest", "tagmanifest"):
            for algorithm in ALGORITHMS:
                self._take(f"{kind}-{algorithm}.txt", algorithm, payload=kind == "manifest")
        self._check_names()
        self.info = self._bag_info()

    def sha256(self, name: str) -> str:
        """Return what the manifest says of a file; empty for one that it does not list."""
        return self._expected.get(name, {}).get("sha256", "")

    def read(self, name: str) -> bytes:
        """Return the bytes of a file, checked against both manifests. Raises PackError; OSError."""
        data = self._pack.read(name)
        expected = self._expected.get(name, {})
        wrong = [each for each in ALGORITHMS if hashlib.new(each, data).hexdigest() != expected.get(each)]
        if len(wrong) == len(ALGORITHMS):
            raise PackError(name, "its digests are not those in the manifests: it was changed")
        if wrong:
            # One digest fits: then it is the other manifest that was changed, and not the file.
            raise PackError(_manifest_of(name, wrong[0]), f"its line of {name} is not the digest of that file")
        return data

    def listed(self) -> tuple[str, ...]:
        """Return every file that a manifest lists and that is there."""
        there = frozenset(self._pack.names)
        return tuple(name for name in self._expected if name in there)

    def _take(self, name: str, algorithm: str, *, payload: bool) -> None:
        try:
            data = self._pack.read(name)
            for path, digest in _parsed(name, data, algorithm):
                if path.startswith(PAYLOAD) != payload:
                    raise PackError(name, f"lists {path}, which is not for it")
                self._expected.setdefault(path, {})[algorithm] = digest
        except PackError as error:
            self.faults.append(error)

    def _check_names(self) -> None:
        tags = {f"tagmanifest-{algorithm}.txt" for algorithm in ALGORITHMS}
        there = frozenset(self._pack.names) - tags - {SIGNATURE}
        for name in sorted(there - self._expected.keys()):
            self.faults.append(PackError(name, "no manifest lists it: it was added"))
        for name, digests in sorted(self._expected.items()):
            if len(digests) == len(ALGORITHMS):
                if name not in there:
                    self.faults.append(PackError(name, "missing: the manifests list it"))
                continue
            for algorithm in ALGORITHMS:
                if (algorithm in digests) != (name in there):
                    said = "does not list" if name in there else "alone lists"
                    self.faults.append(PackError(_manifest_of(name, algorithm), f"{said} {name}"))
        for name in ("bagit.txt", INFO, *(f"manifest-{algorithm}.txt" for algorithm in ALGORITHMS)):
            if name not in self._expected:
                self.faults.append(PackError(name, "the tag manifests do not list it"))

    def _bag_info(self) -> Mapping[str, str]:
        try:
            if self.read("bagit.txt") != DECLARATION:
                raise PackError("bagit.txt", "not the declaration of a bag of version 1.0")
            return _info(self.read(INFO))
        except (PackError, MalformedError) as error:
            fault = error if isinstance(error, PackError) else PackError(INFO, str(error))
            if not any(each.file == fault.file for each in self.faults):
                self.faults.append(fault)
            return {}

    def check_oxum(self, sizes: Mapping[str, int]) -> Iterator[PackError]:
        """Hold the Payload-Oxum against the sizes of the payload files that are there."""
        payload = [size for name, size in sizes.items() if name.startswith(PAYLOAD)]
        stated = self.info.get("Payload-Oxum")
        if stated is not None and stated != f"{sum(payload)}.{len(payload)}":
            yield PackError(INFO, f"Payload-Oxum is {stated}, but there are {sum(payload)}.{len(payload)}")


def _manifest_of(name: str, algorithm: str) -> str:
    """Return the manifest in which a file has its line."""
    return f"{'manifest' if name.startswith(PAYLOAD) else 'tagmanifest'}-{algorithm}.txt"


def _parsed(name: str, data: bytes, algorithm: str) -> Iterator[tuple[str, str]]:
    before = ""
    *lines, rest = data.decode("utf-8", "replace").split("\n")
    if rest or not lines:
        raise PackError(name, "does not end with a line feed")
    for number, line in enumerate(lines, 1):
        found = _LINE[algorithm].fullmatch(line)
        if found is None:
            raise PackError(name, f"line {number} is not a digest, two spaces and a path")
        if found[2] <= before:
            raise PackError(name, f"line {number} is not in order, or a path stands twice")
        before = found[2]
        yield found[2], found[1]


def _info(data: bytes) -> Mapping[str, str]:
    *lines, rest = data.decode("utf-8", "replace").split("\n")
    info: dict[str, str] = {}
    for line in lines:
        found = _INFO.fullmatch(line)
        if found is None or found[1] in info or not found[2].isprintable() or "\ufffd" in found[2]:
            raise MalformedError(
                "a line is not a label, a colon and a value, cannot be printed, or stands twice"
            )
        info[found[1]] = found[2]
    if rest:
        raise MalformedError("the last line does not end with a line feed")
    return info
