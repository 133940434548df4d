"""Evidence packs as `daybook verify` checks them: offline, under the reader's own policy file."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import typer

from ledger.errors import MalformedError
from ledger.notes import VerifierKey
from ledger.shapes import shown
from ledger.witnessing import Policy
from services.cli.reporting import Status, UsageError, print_json, printable, progress_bar, report
from services.evidence.authority import Authority
from services.evidence.checked import CheckedExhibit, CheckedPack, Fault
from services.evidence.checking import check_pack
from services.evidence.exhibits import exhibits_in_words
from services.evidence.finding_links import FindingLink, by_exhibit
from services.evidence.governing import Governing
from services.evidence.layout import INDEX
from services.evidence.moments import INCOMPARABLE, moment
from services.evidence.opening import PackError, open_pack
from services.evidence.page import verifier_page
from services.evidence.rendering import one_line
from services.evidence.report import LIMITS, cut

_LONG: Final = 500
"""Files from which on a progress bar is worth a person's look."""

_ZIP: Final = b"PK"

_MOST_FAULTS: Final = 50
"""Faults that are printed."""

_SAME: Final = 4
"""Files from which on one fault of them all is printed once."""

_MOST_NAMES: Final = 8
"""Files that are named of one such fault."""

_SIGNS: Final = ("bagit.txt", "manifest-sha256.txt", INDEX)
"""Files of every pack: a folder without any of them is none, and not one that was damaged."""


def is_pack(path: Path) -> bool:
    """Tell whether a path is a pack and not a receipt: a folder, or a file that begins as ZIP files do."""
    if path.is_dir() or path.suffix == ".zip":
        return True
    with path.open("rb") as file:
        return file.read(len(_ZIP)) == _ZIP


def verify_pack(path: Path, policy: Policy, signer: Path | None, *, as_json: bool) -> None:
    """Check a pack and report. Ends the command with status 1 where something does not hold.

    Raises UsageError for a folder that is no pack, before anything below it is read.
    """
    if path.is_dir() and not any((path / name).is_file() for name in _SIGNS):
        raise UsageError(f"{path} is no evidence pack: there is no bagit.txt in it", "NOT_A_PACK")
    wanted = None if signer is None else _key(signer)
    many = _files(path)
    with progress_bar("checked", many, as_json=as_json or many < _LONG) as done:
        checked = check_pack(path, policy, int(time.time()), wanted, done)
    if checked.faults:
        _fail(path, policy, checked, as_json=as_json)
    report(_as_json(policy, checked), _told(policy, checked), as_json=as_json)


def _files(path: Path) -> int:
    try:
        with open_pack(path) as pack:
            return len(pack.names)
    except PackError:  # checking tells of it
        return 0


def write_page(path: Path, *, tell: bool, as_json: bool) -> None:
    """Write the page that checks packs, as this program has it, into a new file. `tell` reports that."""
    page = verifier_page()
    try:
        with path.open("xb") as file:
            file.write(page)
    except FileExistsError as error:
        raise UsageError(f"{path} is there already: nothing is overwritten", "FILE_EXISTS") from error
    digest = hashlib.sha256(page).hexdigest()
    if tell:
        lines = [
            f"{path}: the page of this version of Daybook. It checks any pack, offline.",
            f"  SHA-256 {digest}",
        ]
        report({"page": str(path), "sha256": digest}, lines, as_json=as_json)


def _key(path: Path) -> VerifierKey:
    try:
        return VerifierKey.parse(path.read_text(encoding="utf-8").strip())
    except (MalformedError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} holds no public key: {error}", "KEY_MALFORMED") from error


def _fail(path: Path, policy: Policy, checked: CheckedPack, *, as_json: bool) -> None:
    labels = list(dict.fromkeys(fault.exhibit for fault in checked.faults if fault.exhibit))
    files = list(dict.fromkeys(fault.file for fault in checked.faults))
    if as_json:
        message = f"{path} does NOT verify: {checked.faults[0]}"
        error = {"reason": "PACK_DOES_NOT_VERIFY", "message": message, "exhibits": labels, "files": files}
        print_json({"error": error, **_as_json(policy, checked)})
    else:
        count = len(checked.faults)
        told = [f"{path} does NOT verify: {count} fault{'s' if count > 1 else ''}."]
        faults = _same_together(checked.faults)
        told += [f"  {_same(each)}" for each in faults[:_MOST_FAULTS]]
        if len(faults) > _MOST_FAULTS:
            left = sum(map(len, faults[_MOST_FAULTS:]))
            told.append(f"  and {left} more (--json lists all)")
        typer.echo(printable("\n".join(told)), err=True)
    raise typer.Exit(Status.INTEGRITY_FAILURE)


def _same_together(faults: Sequence[Fault]) -> list[list[Fault]]:
    """Group the faults of several files that are told in one sentence; any other is a group by itself."""
    by_text: dict[str, list[Fault]] = {}
    for fault in faults:
        by_text.setdefault(fault.description, []).append(fault)
    groups = by_text.values()
    return [part for each in groups for part in ([each] if len(each) >= _SAME else [[one] for one in each])]


def _same(faults: Sequence[Fault]) -> str:
    if len(faults) == 1:
        return str(faults[0])
    named = [f"Exhibit {each.exhibit}" if each.exhibit else each.file or "the pack" for each in faults]
    names = list(dict.fromkeys(named))
    more = "" if len(names) <= _MOST_NAMES else f" and {len(names) - _MOST_NAMES} more (--json lists all)"
    return f"{len(faults)} files: {faults[0].description}\n    {', '.join(names[:_MOST_NAMES])}{more}"


def _as_json(policy: Policy, checked: CheckedPack) -> dict[str, Any]:
    found = by_exhibit(checked.links)
    return {
        "verified": not checked.faults,
        "policy_fingerprint": policy.fingerprint,
        "pack_policy_fingerprint": checked.pack_fingerprint or None,
        "identifier": checked.identifier or None,
        "variant": checked.variant or None,
        "files": checked.files,
        "checkpoints": checked.checkpoints,
        "one_history": checked.one_history,
        "own_page": checked.own_page,
        "own_report": checked.own_report,
        "signer": None if checked.signer is None else str(checked.signer),
        "faults": [
            {"exhibit": fault.exhibit, "file": fault.file, "description": fault.description}
            for fault in checked.faults
        ],
        "exhibits": [
            _exhibit_json(each, checked.authorities.get(each.label), found.get(each.label, ()))
            for each in checked.exhibits
        ],
        "keys": [
            {"index": each.index, "record_type": each.record_type, "record_id": each.record_id}
            for each in checked.keys
        ],
        "governing": None if checked.governing is None else _governing_json(checked.governing),
        "findings": [{**link.listed(), "says": link.says} for link in checked.links],
        "not_proved": list(_not_proved(checked)),
    }


def _governing_json(governing: Governing) -> dict[str, Any]:
    return {"size": governing.size, "until": governing.until, "keys": len(governing.fold.keys)}


def _exhibit_json(
    each: CheckedExhibit, authority: Authority | None, links: Sequence[FindingLink]
) -> dict[str, Any]:
    verified = each.verified
    return {
        "label": each.label,
        "register": verified.register,
        "index": verified.index,
        "record_id": verified.record_id,
        "version": verified.version,
        "record_type": verified.record_type,
        "witnessed": verified.sealed,
        "not_before": verified.bounds.not_before,
        "not_after": verified.bounds.not_after,
        "bounds_comparable": verified.bounds.comparable,
        "department_proved": verified.authorised is not None,
        "anchored": verified.anchored is not None,
        "findings": [
            {"kind": finding.kind.value, "description": finding.description} for finding in verified.findings
        ],
        "key": None
        if authority is None
        else {
            "says": authority.text,
            "is_proved": authority.is_proved,
            "governing_size": authority.size,
            "revocation": None if authority.verdict is None else authority.verdict.value,
            "remarks": list(authority.remarks),
        },
        "stated_findings": [link.label for link in links],
        "disclosed": dict(each.opened),
    }


def _told(policy: Policy, checked: CheckedPack) -> Iterator[str]:
    yield f"The pack verifies: {exhibits_in_words(len(checked.exhibits))}, {checked.files} files."
    yield ""
    yield f"  Pack       {printable(checked.identifier)}, {checked.variant} variant"
    yield f"  Judged by  your policy, fingerprint {policy.fingerprint}"
    if checked.pack_fingerprint != policy.fingerprint:
        yield f"             the pack was made under another one, fingerprint {checked.pack_fingerprint}"
    yield f"  Signed     {_signed(checked)}"
    yield f"  History    {'all checkpoints are' if checked.one_history else 'not'} proved to be of one history"
    yield f"  Page       {_page(checked)}"
    yield f"  Keys       {_governing(checked)}"
    if checked.findings is not None:
        yield (
            f"  Findings   data/findings.json states {len(checked.links)} about these exhibits: its author's "
            "words, not a proof"
        )
    yield f"  Report     {_own_report(checked)}"
    yield "  Words      who packed, when, why, from where and by which selection: the packer's, not checked"
    yield ""
    found = by_exhibit(checked.links)
    for each in checked.exhibits:
        yield from _exhibit(each, checked.authorities.get(each.label), found.get(each.label, ()))
    yield ""
    yield "Not proved"
    for sentence in _not_proved(checked):
        yield f"  - {sentence}"


def _governing(checked: CheckedPack) -> str:
    governing = checked.governing
    if governing is None:
        return "the governing register is NOT here as a whole: that no key was revoked is not proved"
    until = "" if governing.until is None else f", all that witnesses knew of at {moment(governing.until)}"
    if governing.size == 1:
        return f"the one governing entry is here and was folded{until}"
    return f"all {governing.size} governing entries are here and were folded{until}"


def _not_proved(checked: CheckedPack) -> Iterator[str]:
    sizes = {each.size for each in checked.authorities.values() if each.size is not None}
    if any(not each.is_proved for each in checked.authorities.values()):
        yield "That the keys of all exhibits were not revoked: see each exhibit."
    for size in sorted(sizes):
        yield f"That a key was not revoked after governing size {size}."
    yield from LIMITS


def _page(checked: CheckedPack) -> str:
    if checked.own_page:
        return "verify.html is the page that this version of Daybook writes"
    return "verify.html is NOT the page of this version of Daybook: of another, or forged. Do not rely on it"


def _own_report(checked: CheckedPack) -> str:
    if checked.own_report:
        return "report.txt says just what was found here"
    return (
        "report.txt is NOT what this version of Daybook finds here under your policy. Do not rely on it: read "
        "what stands here"
    )


def _signed(checked: CheckedPack) -> str:
    if checked.signer is None:
        return "not signed: who packed it is not shown"
    return f"by {printable(str(checked.signer))}: compare this key with the packer's (--signer checks it)"


def _exhibit(each: CheckedExhibit, authority: Authority | None, links: Sequence[FindingLink]) -> Iterator[str]:
    verified = each.verified
    named = f"record {verified.record_id}, version {verified.version}, {shown(verified.record_type)}"
    yield f"{each.label}  {named if verified.record_id else 'a record without a name'}"
    yield f"    entry {verified.index} of {verified.register}"
    bounds = verified.bounds
    if not verified.sealed or bounds.not_after is None:
        yield "    not witnessed: no time is proved"
    else:
        yield f"    in the witnessed history by {moment(bounds.not_after)}"
        if bounds.not_before is not None:
            yield f"    and not before {moment(bounds.not_before)}"
            if not bounds.comparable:
                yield f"    {INCOMPARABLE}"
    is_proved = verified.authorised is not None or (authority is not None and authority.is_proved)
    if verified.signers and verified.department is not None and not is_proved:
        yield f"    signed by a key that is claimed, not proved, to be one of {verified.department}"
    if authority is not None:
        yield f"    key {authority.text}"
        yield from (f"    Remark: {remark}" for remark in authority.remarks)
    for link in links:
        said = ": ".join(cut(one_line(text)) for text in (link.code, link.says) if text)
        yield f"    Stated by {link.label}, not a proof: {said or 'a finding without words'}"
    for finding in verified.findings:
        yield f"    Finding, {finding.kind.value}: {one_line(finding.description)}"
    for name in each.opened:
        yield f"    Disclosed  {name}"
