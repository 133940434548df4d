"""What checking a pack has shown: what holds, and every fault with the exhibit and the file that it is in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ledger.notes import VerifierKey
from ledger.receipts import VerifiedReceipt
from services.evidence.authority import Authority
from services.evidence.exhibits import Exhibit
from services.evidence.finding_links import FindingLink
from services.evidence.governing import Governing
from services.evidence.layout import EXHIBITS


@dataclass(frozen=True, slots=True)
class Fault:
    """Something in a pack that does not hold: in which exhibit, None for none; in which file of the bag."""

    exhibit: str | None
    file: str
    description: str

    def __str__(self) -> str:
        """Return it as one line."""
        where = self.file or "the pack"
        return f"{f'Exhibit {self.exhibit}, ' if self.exhibit else ''}{where}: {self.description}"


@dataclass(frozen=True, slots=True)
class CheckedExhibit:
    """An exhibit that holds, with the withheld values that its disclosure opens."""

    exhibit: Exhibit
    opened: Mapping[str, Any]

    @property
    def label(self) -> str:
        """Its label."""
        return self.exhibit.label

    @property
    def verified(self) -> VerifiedReceipt:
        """What its receipt proves."""
        return self.exhibit.verified


@dataclass(slots=True)
class CheckedPack:
    """What checking a pack has shown. It holds where `faults` is empty.

    `keys` are the governing entries in it; `files` how many files were compared with the manifests;
    `pack_fingerprint` that of the policy inside the pack; `signer` the vkey of a packer's signature that
    holds, which is that of whom the pack names; `one_history` whether every checkpoint is proved to
    be a beginning of the largest one of its register; `own_page` whether verify.html is this program's.
    `own_report` tells whether report.txt says just what this program has found here, under the reader's policy.
    `governing` is the governing register, folded here, None where the pack has it not; `authorities` what is
    shown of the key of each exhibit, by label; `links` which of the packer's findings are about which exhibits.
    """

    identifier: str = ""
    variant: str = ""
    files: int = 0
    pack_fingerprint: str = ""
    signer: VerifierKey | None = None
    exhibits: list[CheckedExhibit] = field(default_factory=list)
    keys: list[VerifiedReceipt] = field(default_factory=list)
    checkpoints: int = 0
    one_history: bool = False
    governing: Governing | None = None
    authorities: dict[str, Authority] = field(default_factory=dict)
    findings: Mapping[str, Any] | None = None
    links: tuple[FindingLink, ...] = ()
    own_page: bool = False
    own_report: bool = False
    faults: list[Fault] = field(default_factory=list)


def exhibit_of(name: str) -> str | None:
    """Return the label of the exhibit to which a file of the bag belongs."""
    folder, slash, _ = name.removeprefix(EXHIBITS).partition("/")
    return folder.replace("-", "/") if name.startswith(EXHIBITS) and slash else None
