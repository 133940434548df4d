"""Evidence packs as `daybook verify` checks them: offline, under the reader's own policy file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import typer

from ledger.errors import MalformedError
from ledger.notes import VerifierKey
from ledger.shapes import shown
from ledger.witnessing import Policy
from services.cli.reporting import Status, UsageError, print_json, printable, progress_bar, report
from services.evidence.checking import CheckedExhibit, CheckedPack, check_pack
from services.evidence.rendering import one_line
from services.evidence.moments import moment
from services.evidence.report import LIMITS, cut, whole_register

_LONG: Final = 500
"""Files from which on a progress bar is worth a person's look."""

_ZIP: Final = b"PK"

_MOST_FAULTS: Final = 50
"""Faults that are printed one by one."""


def is_pack(path: Path) -> bool:
    """Tell whether a path is a pack and not a receipt: a folder, or a file that begins as ZIP files do."""
    if path.is_dir() or path.suffix == ".zip":
        return True
    with path.open("rb") as file:
        return file.read(len(_ZIP)) == _ZIP


def verify_pack(path: Path, policy: Policy, signer: Path | None, *, as_json: bool) -> None:
    """Check a pack and report. Ends the command with status 1 where something does not hold."""
    wanted = None if signer is None else _key(signer)
    many = sum(1 for _ in path.rglob("*")) if path.is_dir() else 0
    with progress_bar("checked", many, as_json=as_json or many < _LONG) as done:
        checked = check_pack(path, policy, int(time.time()), wanted, done)
    if checked.faults:
        _fail(path, policy, checked, as_json=as_json)
    report(_as_json(policy, checked), _told(policy, checked), as_json=as_json)


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
        told += [f"  {fault}" for fault in checked.faults[:_MOST_FAULTS]]
        if count > _MOST_FAULTS:
            told.append(f"  and {count - _MOST_FAULTS} more (--json lists all)")
        typer.echo(printable("\n".join(told)), err=True)
    raise typer.Exit(Status.INTEGRITY_FAILURE)


def _as_json(policy: Policy, checked: CheckedPack) -> dict[str, Any]:
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
        "signer": None if checked.signer is None else str(checked.signer),
        "faults": [
            {"exhibit": fault.exhibit, "file": fault.file, "description": fault.description}
            for fault in checked.faults
        ],
        "exhibits": [_exhibit_json(each) for each in checked.exhibits],
        "keys": [
            {"index": each.index, "record_type": each.record_type, "record_id": each.record_id}
            for each in checked.keys
        ],
        "not_proved": list(LIMITS),
    }


def _exhibit_json(each: CheckedExhibit) -> dict[str, Any]:
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
        "disclosed": dict(each.opened),
    }


def _told(policy: Policy, checked: CheckedPack) -> Iterator[str]:
    yield f"The pack verifies: {len(checked.exhibits)} exhibits, {checked.files} files."
    yield ""
    yield f"  Pack       {printable(checked.identifier)}, {checked.variant} variant"
    yield f"  Judged by  your policy, fingerprint {policy.fingerprint}"
    if checked.pack_fingerprint != policy.fingerprint:
        yield f"             the pack was made under another one, fingerprint {checked.pack_fingerprint}"
    yield f"  Signed     {_signed(checked)}"
    yield f"  History    {'all checkpoints are' if checked.one_history else 'not'} proved to be of one history"
    yield f"  Page       {_page(checked)}"
    if checked.findings is not None:
        yield "  Findings   data/findings.json: what the packer states, not a proof"
    yield ""
    for each in checked.exhibits:
        yield from _exhibit(each)
    yield ""
    yield "Not proved"
    for sentence in LIMITS:
        yield f"  - {sentence}"


def _page(checked: CheckedPack) -> str:
    if checked.own_page:
        return "verify.html is the page that this version of Daybook writes"
    return "verify.html is NOT the page of this version of Daybook: of another, or forged. Do not rely on it"


def _signed(checked: CheckedPack) -> str:
    if checked.signer is None:
        return "not signed: who packed it is not shown"
    return f"by {checked.signer}: compare this key with the packer's (--signer checks it)"


def _exhibit(each: CheckedExhibit) -> Iterator[str]:
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
    if verified.signers and verified.department is not None and verified.authorised is None:
        yield f"    signed by a key that is claimed, not proved, to be one of {verified.department}"
    for finding in verified.findings:
        yield f"    Finding, {finding.kind.value}: {one_line(finding.description)}"
    for name in each.opened:
        yield f"    Disclosed  {name}"
