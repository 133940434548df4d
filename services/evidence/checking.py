"""Checking a pack, offline: the bag, then every exhibit under the reader's own policy.

Nothing in a pack is believed: what its index, its report and its policy say is held against what its receipts
prove under the policy that the reader brings. A fault names the exhibit, where it is one's, and the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ledger.checkpoints import peek_origin
from ledger.errors import LedgerError, MalformedError, VerificationError
from ledger.notes import VerifierKey
from ledger.receipts import VerifiedReceipt, verify_receipt
from ledger.withholding import open_disclosure, parse_disclosure
from ledger.witnessing import Policy, check_clocks, judge
from services.evidence.bag import ALGORITHMS, SIGNATURE
from services.evidence.custody import check_custody_log
from services.evidence.exhibits import Exhibit
from services.evidence.hashes import hash_schedule
from services.evidence.histories import parse_consistency_file
from services.evidence.index import check_index
from services.evidence.layout import (
    CHECKPOINTS,
    CONSISTENCY,
    CUSTODY,
    EXHIBITS,
    FINDINGS,
    HASHES,
    INDEX,
    KEYS,
    PAGE,
    POLICY,
    REPORT,
    disclosure_path,
    opened_path,
    parse_json_file,
)
from services.evidence.manifests import Manifests
from services.evidence.opening import Pack, PackError, open_pack
from services.evidence.page import verifier_page
from services.evidence.remembering import RememberingPolicy
from services.evidence.rendering import render, render_opened
from services.evidence.roots import Roots
from services.evidence.signature import verify_signature

PACKED_BY: Final = "Packed-By-Key"
"""The line of bag-info with the packer's vkey, where the pack is signed."""

_ALWAYS: Final = (INDEX, POLICY, REPORT, HASHES, CUSTODY, PAGE)


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

    label: str
    verified: VerifiedReceipt
    opened: Mapping[str, Any]


@dataclass(slots=True)
class CheckedPack:
    """What checking a pack has shown. It holds where `faults` is empty.

    `keys` are the governing entries in it; `files` how many files were compared with the manifests;
    `pack_fingerprint` that of the policy inside the pack; `signer` the vkey of a packer's signature that
    holds, which is that of whom the pack names; `one_history` whether every checkpoint is proved to
    be a beginning of the largest one of its register; `own_page` whether verify.html is this program's.
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
    findings: Mapping[str, Any] | None = None
    own_page: bool = False
    faults: list[Fault] = field(default_factory=list)


def check_pack(
    path: Path, policy: Policy, now: int, signer: VerifierKey | None = None, done: Callable[[int], object] = int
) -> CheckedPack:
    """Check the pack at `path`, a folder or a ZIP file, under the reader's policy. `now` is POSIX seconds.

    With `signer`, the pack must be signed by just that key. `done` is told of files as they are checked.
    Raises OSError; whatever does not hold is a fault in the result.
    """
    try:
        with open_pack(path) as pack:
            return _Check(pack, policy, now, done).run(signer)
    except PackError as error:
        return CheckedPack(faults=[Fault(None, error.file, error.description)])


def exhibit_of(name: str) -> str | None:
    """Return the label of the exhibit to which a file of the bag belongs."""
    folder, slash, _ = name.removeprefix(EXHIBITS).partition("/")
    return folder.replace("-", "/") if name.startswith(EXHIBITS) and slash else None


class _Check:
    def __init__(self, pack: Pack, policy: Policy, now: int, done: Callable[[int], object]) -> None:
        self._pack = pack
        self._names = frozenset(pack.names)
        self._policy = RememberingPolicy.of(policy)
        self._now = now
        self._done = done
        self._checked = CheckedPack()
        self._manifests = Manifests(pack)
        self._sizes: dict[str, int] = {}
        self._roots = Roots(self._policy)

    def run(self, signer: VerifierKey | None) -> CheckedPack:
        for error in self._manifests.faults:
            self._fault(error.file, error.description)
        index = self._index()
        if index is not None:
            self._exhibits(index)
            self._keys(index)
            self._checkpoints()
            self._others(index)
        self._checked.own_page = self._read(PAGE) == verifier_page() if PAGE in self._names else False
        for name in self._manifests.listed():
            if name not in self._sizes:
                self._read(name)
        for error in self._manifests.check_oxum(self._sizes) if not self._checked.faults else ():
            self._fault(error.file, error.description)
        self._signature(signer)
        self._checked.files = len(self._sizes)
        return self._checked

    def _fault(self, name: str, description: str) -> None:
        fault = Fault(exhibit_of(name), name, description)
        if fault not in self._checked.faults:
            self._checked.faults.append(fault)

    def _read(self, name: str) -> bytes | None:
        """Return a file's bytes, once they are those of the manifests; None where there is a fault already."""
        try:
            data = self._manifests.read(name)
        except PackError as error:
            self._sizes.setdefault(name, 0)
            if name in self._names:  # one that is missing is told once
                self._fault(error.file, error.description)
            return None
        self._sizes[name] = len(data)
        self._done(1)
        return data

    # The index

    def _index(self) -> Mapping[str, Any] | None:
        for name in _ALWAYS:
            if name not in self._names:
                self._fault(name, "missing: every pack has it")
        data = self._read(INDEX)
        if data is None:
            return None
        try:
            index = parse_json_file(data)
            check_index(index)
        except MalformedError as error:
            self._fault(INDEX, str(error))
            return None
        self._checked.identifier, self._checked.variant = index["identifier"], index["variant"]
        stated = self._manifests.info.get("External-Identifier")
        if self._manifests.info and stated != index["identifier"]:
            self._fault(INDEX, "its identifier is not the External-Identifier of the bag")
        return index

    # Exhibits

    def _exhibits(self, index: Mapping[str, Any]) -> None:
        expected: set[str] = set()
        for listed in index["exhibits"]:
            label = listed["label"]
            paths = [listed["receipt"], listed["record"], listed["text"]]
            if listed["disclosed"]:
                paths += [disclosure_path(label), opened_path(label)]
            expected.update(paths)
            files = {path: self._read(path) for path in paths}
            for path in paths:
                if path not in self._names:
                    self._fault(path, "missing: the index lists it")
            data = files[listed["receipt"]]
            if data is not None and (verified := self._receipt(listed["receipt"], data)) is not None:
                self._exhibit(listed, Exhibit(label, data, verified), files, index)
        for name in self._pack.names:
            if name.startswith(EXHIBITS) and name not in expected:
                self._fault(name, "the index does not list it")

    def _receipt(self, path: str, data: bytes) -> VerifiedReceipt | None:
        try:
            verified = verify_receipt(data, self._policy)
            check_clocks(verified.every_cosignature, self._now)
            self._roots.add(data)
        except LedgerError as error:
            self._fault(path, str(error))
            return None
        return verified

    def _exhibit(
        self,
        listed: Mapping[str, Any],
        exhibit: Exhibit,
        files: Mapping[str, bytes | None],
        index: Mapping[str, Any],
    ) -> None:
        verified = exhibit.verified
        if {**exhibit.listed(), "disclosed": listed["disclosed"]} != listed:
            self._fault(listed["receipt"], "it proves something else than the index says")
            return
        if (verified.ledger_origin, verified.register) != (index["ledger_origin"], index["register"]):
            self._fault(listed["receipt"], f"it is of {verified.ledger_origin}/{verified.register}")
            return
        opened: Mapping[str, Any] = {}
        for path, wanted in ((listed["record"], verified.record), (listed["text"], render(verified.record))):
            data = files[path]
            if data is not None and data != wanted:
                self._fault(path, "not what the record in the receipt says")
        if listed["disclosed"]:
            opened = self._disclosure(exhibit, files)
        self._checked.exhibits.append(CheckedExhibit(exhibit.label, verified, opened))

    def _disclosure(self, exhibit: Exhibit, files: Mapping[str, bytes | None]) -> Mapping[str, Any]:
        path, text_path = disclosure_path(exhibit.label), opened_path(exhibit.label)
        data, text = files[path], files[text_path]
        if data is None:
            return {}
        try:
            verified = exhibit.verified
            opened = open_disclosure(parse_disclosure(data), verified.record, verified.ledger_origin)
        except LedgerError as error:
            self._fault(path, f"it does not open the record: {error}")
            return {}
        if text is not None and text != render_opened(opened):
            self._fault(text_path, "not what the disclosure opens")
        return opened

    # The governing register, checkpoints, and the rest

    def _keys(self, index: Mapping[str, Any]) -> None:
        for listed in index["keys"]:
            data = self._read(listed["path"])
            if data is None:
                continue
            verified = self._receipt(listed["path"], data)
            if verified is None:
                continue
            origin = (verified.ledger_origin, verified.register, verified.index, verified.record_type)
            if origin != (index["ledger_origin"], "governing", listed["index"], listed["record_type"]):
                self._fault(listed["path"], "it proves something else than the index says")
            else:
                self._checked.keys.append(verified)
        expected = {listed["path"] for listed in index["keys"]}
        for name in self._pack.names:
            if name.startswith(KEYS) and name not in expected:
                self._fault(name, "the index does not list it")

    def _checkpoints(self) -> None:
        """Check the notes that lie by themselves: just those of the receipts, each under the policy."""
        there = {name for name in self._pack.names if name.startswith(CHECKPOINTS)}
        for name in sorted(there):
            data = self._read(name)
            if data is None:
                continue
            try:
                judge(data, self._policy, peek_origin(data))
                if self._roots.notes.get(name) != data:
                    raise MalformedError("no receipt of this pack has this note")
            except LedgerError as error:
                self._fault(name, str(error))
            else:
                self._checked.checkpoints += 1
        if not self._checked.faults:
            for name in sorted(self._roots.notes.keys() - there):
                self._fault(name, "missing: a receipt has this note")

    def _others(self, index: Mapping[str, Any]) -> None:
        for name, check in (
            (POLICY, self._policy_file),
            (CUSTODY, lambda data: check_custody_log(parse_json_file(data))),
            (HASHES, lambda data: self._hashes(data, index)),
            (FINDINGS, self._findings),
            (CONSISTENCY, lambda data: self._consistency(data, index)),
        ):
            data = self._read(name) if name in self._names else None
            try:
                if data is not None:
                    check(data)
            except (MalformedError, VerificationError) as error:
                self._fault(name, str(error))
        self._checked.one_history = self._roots.one_history

    def _policy_file(self, data: bytes) -> None:
        self._checked.pack_fingerprint = Policy.parse(data).fingerprint

    def _hashes(self, data: bytes, index: Mapping[str, Any]) -> None:
        if data != hash_schedule(index, self._manifests.sha256):
            raise MalformedError("it does not list what the manifest and the index do")

    def _consistency(self, data: bytes, index: Mapping[str, Any]) -> None:
        for proof in parse_consistency_file(parse_json_file(data)):
            self._roots.prove(index["ledger_origin"], proof)

    def _findings(self, data: bytes) -> None:
        self._checked.findings = parse_json_file(data)

    def _signature(self, wanted: VerifierKey | None) -> None:
        stated = self._manifests.info.get(PACKED_BY)
        there = SIGNATURE in self._names
        if stated is None and wanted is None and not there:
            return
        try:
            if not there:
                raise MalformedError("missing: the pack is not signed, or its signature was taken away")
            if stated is None:
                raise MalformedError(f"bag-info names no {PACKED_BY}")
            key = VerifierKey.parse(stated)
            if wanted is not None and key != wanted:
                raise VerificationError(f"signed by {key}, not by {wanted}")
            tags = {name: self._pack.read(name) for name in (f"tagmanifest-{each}.txt" for each in ALGORITHMS)}
            verify_signature(
                self._pack.read(SIGNATURE), self._checked.identifier, self._checked.variant, tags, key
            )
        except PackError as error:
            self._fault(error.file, error.description)
        except LedgerError as error:
            self._fault(SIGNATURE, str(error))
        else:
            self._checked.signer = key
