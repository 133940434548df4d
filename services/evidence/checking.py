"""Checking a pack, offline: the bag, then every exhibit under the reader's own policy.

Nothing in a pack is believed: what its index, its report and its policy say is held against what its receipts
prove under the policy that the reader brings. A fault names the exhibit, where it is one's, and the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from ledger.checkpoints import peek_origin
from ledger.errors import LedgerError, MalformedError, VerificationError
from ledger.governing import GOVERNING
from ledger.notes import VerifierKey
from ledger.receipts import VerifiedReceipt, verify_receipt
from ledger.withholding import open_disclosure, parse_disclosure
from ledger.witnessing import Policy, check_clocks, judge
from services.evidence.authority import authority_of
from services.evidence.bag import ALGORITHMS, INFO, PACKED_BY, SIGNATURE
from services.evidence.checked import CheckedExhibit, CheckedPack, Fault, exhibit_of
from services.evidence.custody import check_custody_log, check_custody_of
from services.evidence.exhibits import Exhibit, identifier
from services.evidence.finding_links import by_exhibit, link_findings
from services.evidence.governing import WholeRegister, fold_whole, parse_governing_file
from services.evidence.hashes import hash_schedule
from services.evidence.histories import parse_consistency_file
from services.evidence.index import check_index
from services.evidence.layout import (
    CHECKPOINTS,
    CONSISTENCY,
    CUSTODY,
    EXHIBITS,
    FINDINGS,
    GOVERNING_ENTRIES,
    HASHES,
    INDEX,
    KEYS,
    PAGE,
    POLICY,
    REPORT,
    disclosure_path,
    key_path,
    opened_path,
    parse_json_file,
    parse_own_file,
)
from services.evidence.manifests import Manifests
from services.evidence.opening import Pack, PackError, open_pack
from services.evidence.own_report import own_report
from services.evidence.page import verifier_page
from services.evidence.remembering import RememberingPolicy
from services.evidence.rendering import render, render_opened, visible
from services.evidence.roots import Roots
from services.evidence.signature import check_signature

_ALWAYS: Final = (INDEX, POLICY, REPORT, HASHES, CUSTODY, PAGE)

_MANIFESTS: Final = tuple(f"{kind}-{each}.txt" for kind in ("manifest", "tagmanifest") for each in ALGORITHMS)

_KNOWN: Final = frozenset(
    (*_ALWAYS, *_MANIFESTS, "bagit.txt", INFO, SIGNATURE, CONSISTENCY, FINDINGS, GOVERNING_ENTRIES)
)
"""All files of a pack but those of exhibits, keys and checkpoints, which have folders of their own."""


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
        self._told: set[Fault] = set()
        self._receipts: list[bytes] = []
        self._handlings: list[Mapping[str, Any]] = []
        self._pack_policy: Policy | None = None

    def run(self, signer: VerifierKey | None) -> CheckedPack:
        for error in self._manifests.faults:
            self._fault(error.file, error.description)
        index = self._index()
        if index is not None:
            self._exhibits(index)
            self._keys(index)
            self._governing(index)
            self._checkpoints()
            self._others(index)
        for name in self._pack.names:
            if name not in _KNOWN and not name.startswith((EXHIBITS, KEYS, CHECKPOINTS)):
                self._fault(name, "no pack has this file")
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
        if fault not in self._told:
            self._told.add(fault)
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
            index = parse_own_file(data)
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
            self._receipts.append(data or b"")
            if data is not None and (verified := self._receipt(listed["receipt"], data)) is not None:
                self._exhibit(listed, Exhibit(label, data, verified), files, index)
        for name in self._pack.names:
            if name.startswith(EXHIBITS) and name not in expected:
                self._fault(name, "the index does not list it")
        named = identifier(index["ledger_origin"], index["register"], self._receipts)
        if not self._checked.faults and named != index["identifier"]:
            self._fault(INDEX, f"its identifier is not that of these receipts, {named}")

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
        # Which findings are about it is reckoned once all exhibits are known.
        if {**listed, **exhibit.listed()} != listed:
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
        self._checked.exhibits.append(CheckedExhibit(exhibit, opened))

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
            expected_path = listed["path"] == key_path(verified.index)
            if not expected_path or origin != (
                index["ledger_origin"], GOVERNING, listed["index"], listed["record_type"]
            ):  # fmt: skip
                self._fault(listed["path"], "it proves something else than the index says")
            else:
                self._checked.keys.append(verified)
        expected = {listed["path"] for listed in index["keys"]}
        for name in self._pack.names:
            if name.startswith(KEYS) and name not in expected:
                self._fault(name, "the index does not list it")

    def _governing(self, index: Mapping[str, Any]) -> None:
        """Fold the governing register, where the pack has it, and judge the keys of all exhibits by it."""
        stated, there = index.get("governing"), GOVERNING_ENTRIES in self._names
        if (stated is not None) != there:
            self._fault(
                GOVERNING_ENTRIES, "missing: the index states it" if stated else "the index does not state it"
            )
        elif stated is not None:
            data, note = self._read(GOVERNING_ENTRIES), self._read(stated["checkpoint"])
            if data is None or note is None:
                self._fault(GOVERNING_ENTRIES, "it cannot be read, or not its checkpoint")
                return
            try:
                whole = WholeRegister(note, parse_governing_file(data))
                self._checked.governing = fold_whole(
                    whole, index["ledger_origin"], self._policy, self._roots, self._now
                )
                if len(whole.entries) != stated["size"]:
                    raise MalformedError(f"{len(whole.entries)} entries, and the index states {stated['size']}")
            except LedgerError as error:
                self._fault(GOVERNING_ENTRIES, str(error))
                return
        for each in self._checked.exhibits:
            try:
                authority = authority_of(each.verified, self._checked.governing)
            except VerificationError as error:
                self._fault(each.exhibit.receipt_path, str(error))
            else:
                if authority is not None:
                    self._checked.authorities[each.label] = authority

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
            (CUSTODY, self._custody),
            (REPORT, self._report),
            (HASHES, lambda data: self._hashes(data, index)),
            (CONSISTENCY, lambda data: self._consistency(data, index)),
        ):
            data = self._read(name) if name in self._names else None
            try:
                if data is not None:
                    check(data)
            except (MalformedError, VerificationError) as error:
                self._fault(name, str(error))
        self._checked.one_history = self._roots.one_history
        if not self._checked.faults:  # else exhibits may be missing of which nothing was said yet
            self._findings(index)
        if not self._checked.faults and self._pack_policy is not None:
            self._checked.own_report = self._is_own_report(index, self._pack_policy)

    def _is_own_report(self, index: Mapping[str, Any], policy: Policy) -> bool:
        signed_by = self._manifests.info.get(PACKED_BY)
        try:
            made = own_report(self._checked, index, self._handlings, policy, signed_by)
        except (MalformedError, ValueError):
            return False
        return self._read(REPORT) == made

    def _policy_file(self, data: bytes) -> None:
        policy = Policy.parse(data)
        if policy.text() != data:
            raise MalformedError("not spelled as packs are")
        self._pack_policy = policy
        self._checked.pack_fingerprint = policy.fingerprint

    def _custody(self, data: bytes) -> None:
        receipts = hashlib.sha256(b"".join(self._receipts)).hexdigest()
        self._handlings = [*check_custody_log(parse_own_file(data))]
        check_custody_of(self._handlings, receipts, self._manifests.sha256(HASHES))

    def _report(self, data: bytes) -> None:
        """See that it is readable text. What it says are the packer's words: nothing here rests on them."""
        text = data.decode("utf-8", "replace")
        if visible(text) != text or "\ufffd" in text:
            raise MalformedError("it holds characters that hide, steer or reorder text")

    def _hashes(self, data: bytes, index: Mapping[str, Any]) -> None:
        if data != hash_schedule(index, self._manifests.sha256):
            raise MalformedError("it does not list what the manifest and the index do")

    def _consistency(self, data: bytes, index: Mapping[str, Any]) -> None:
        for proof in parse_consistency_file(parse_own_file(data)):
            self._roots.prove(index["ledger_origin"], proof)

    def _findings(self, index: Mapping[str, Any]) -> None:
        """Reckon anew which findings are about which exhibits: the index must say just that."""
        data = self._read(FINDINGS) if FINDINGS in self._names else None
        exhibits = [each.exhibit for each in self._checked.exhibits]
        try:
            if data is not None:
                self._checked.findings = parse_json_file(data)
                self._checked.links = link_findings(self._checked.findings, index["ledger_origin"], exhibits)
        except MalformedError as error:
            self._fault(FINDINGS, str(error))
            return
        if index["findings"] != [link.listed() for link in self._checked.links]:
            self._fault(INDEX, f"its findings are not those of {FINDINGS} that are about these exhibits")
        found = by_exhibit(self._checked.links)
        for listed in index["exhibits"]:
            if listed["findings"] != [link.label for link in found.get(listed["label"], ())]:
                self._fault(INDEX, f"exhibit {listed['label']}: its findings are not those that are about it")

    def _signature(self, wanted: VerifierKey | None) -> None:
        stated = self._manifests.info.get(PACKED_BY)
        there = SIGNATURE in self._names
        if stated is None and wanted is None and not there:
            return
        try:
            self._checked.signer = check_signature(
                self._pack.read if there else None,
                stated,
                self._checked.identifier,
                self._checked.variant,
                wanted,
            )
        except PackError as error:
            self._fault(error.file, error.description)
        except LedgerError as error:
            self._fault(SIGNATURE, str(error))
