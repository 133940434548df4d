"""Evidence packs of the vectors' story, made by the command, and what spoils one."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.evidence.bag import ALGORITHMS
from tests.support.command import run
from tests.support.story import REGISTER
from tests.support.vectors import VECTORS

POLICY: Final = VECTORS / "policy"
DISCLOSURE: Final = VECTORS / "disclosure.json"
MADE_AT: Final = "2026-11-26T21:30:00Z"

FINDINGS: Final = {
    "ledger": "ledger.daybook.example",
    "findings": [{"code": "silence", "register": "", "what": "Nothing was filed for a month.", "spans": []}],
    "registers": [
        {
            "register": REGISTER,
            "findings": [
                {"code": "DET-01", "register": REGISTER, "what": "Registered late.", "spans": [[0, 2]]},
                {"code": "DET-09", "register": REGISTER, "what": "About others.", "spans": [[1, 2]]},
                {"code": "DET-12", "register": REGISTER, "what": "A <b>burst</b>.", "spans": [[3, 4], [6, 9]]},
            ],
        },
        {"register": "other/office", "findings": [{"code": "DET-02", "spans": [[0, 9]]}]},
    ],
}
"""Findings as an audit prints them: F/1 is about JS/1, F/2 about JS/2 and JS/4."""

_CHOSEN: Final = (
    "anchored-at-a-smaller-size",
    "anchored-at-the-same-size",
    "one-record-submission",
    "rejection",
)


@dataclass(frozen=True, slots=True)
class Packs:
    """The packs below one folder. Exhibits are JS/1 to JS/4; JS/1 has the disclosure, in the closed ones."""

    root: Path

    @property
    def folder(self) -> Path:
        """The open variant, a folder."""
        return self.root / "pack"

    @property
    def closed(self) -> Path:
        """The closed variant, a folder."""
        return self.root / "pack-closed"

    @property
    def zip(self) -> Path:
        """The open variant, a ZIP file."""
        return self.root / "pack.zip"

    @property
    def closed_zip(self) -> Path:
        """The closed variant, a ZIP file."""
        return self.root / "pack-closed.zip"


def chosen_receipts(folder: Path) -> Path:
    """Make a folder of the receipts that go into the packs."""
    folder.mkdir()
    for name in _CHOSEN:
        shutil.copy(VECTORS / "receipts" / f"{name}.receipt", folder)
    return folder


def make_packs(root: Path, receipts: Path, *options: str | Path) -> Packs:
    """Make all four packs by the command."""
    packs = Packs(root)
    findings = root / "findings.json"
    findings.write_text(json.dumps(FINDINGS))
    for out in (packs.folder, packs.zip):
        run(
            "evidence", "--register", REGISTER, "--receipts", receipts, "--policy", POLICY, "--out", out,
            "--exhibit-prefix", "JS", "--date", MADE_AT, "--closed", DISCLOSURE, "--findings", findings,
            *options,
        )  # fmt: skip
    return packs


def files_of(folder: Path) -> Mapping[str, bytes]:
    """Return the bytes of every file below a folder, by path with slashes."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def flip(path: Path, position: int, bit: int = 0) -> None:
    """Flip one bit of a file."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)


def write_manifests(bag: Path, *, oxum: bool = True) -> None:
    """Write all manifests of a bag anew, as whoever changes a file can; and the Payload-Oxum."""
    if oxum:
        sizes = [len(data) for name, data in files_of(bag).items() if name.startswith("data/")]
        info = re.sub(
            r"^Payload-Oxum: .*$",
            f"Payload-Oxum: {sum(sizes)}.{len(sizes)}",
            (bag / "bag-info.txt").read_text(),
            flags=re.MULTILINE,
        )
        (bag / "bag-info.txt").write_text(info)
    for kind in ("manifest", "tagmanifest"):
        for algorithm in ALGORITHMS:
            lines = [
                f"{hashlib.new(algorithm, data).hexdigest()}  {name}\n"
                for name, data in sorted(files_of(bag).items())
                if name.startswith("data/") == (kind == "manifest")
                and not name.startswith("tagmanifest-")
                and name != "signature.note"
            ]
            (bag / f"{kind}-{algorithm}.txt").write_text("".join(lines))
