"""`daybook verify`: what a receipt proves, offline, under the reader's own policy file.

Loads pure ledger modules only: no gRPC, protobuf, Kafka or database.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from ledger import base64
from ledger.errors import MalformedError, RejectedError, VerificationError
from ledger.own_records import record_digest
from ledger.receipt_file import FIRST_LINE
from ledger.receipts import VerifiedReceipt, verify_receipt
from ledger.shapes import shown
from ledger.withholding import open_disclosure, parse_disclosure
from ledger.witnessing import Policy, check_clocks
from services.cli.packs import is_pack, verify_pack, write_page
from services.cli.policy_files import HOW_TO_GET_ONE, read_policy
from services.cli.reporting import (
    IntegrityError,
    JsonOption,
    UsageError,
    expected_failures,
    json_text,
    reason_of,
    report,
)

_CHUNK = 1 << 20

_ACKNOWLEDGEMENT = b"daybook.acknowledgement/1\n"

_PROOF = b"\nproof "
"""What every receipt has in it: a file with it is one, though its first line may have been damaged."""

_LONGEST_RECEIPT = 16 * 1024 * 1024
"""Bytes of the longest file that is looked into: no receipt comes near."""


def run(
    receipt: Annotated[
        Path | None,
        typer.Argument(
            metavar="RECEIPT|PACK", help="The receipt file; or an evidence pack, a folder or a ZIP."
        ),
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(help="Required, but for --page alone: your witness policy file, the keys that you trust."),
    ] = None,
    document: Annotated[
        Path | None,
        typer.Option(help="A document that the record should list as evidence: its SHA-256 is compared."),
    ] = None,
    disclosure: Annotated[
        Path | None, typer.Option(help="A disclosure file: opens fields that the record withholds.")
    ] = None,
    signer: Annotated[
        Path | None,
        typer.Option(metavar="FILE.pub", help="Of a pack: the public key of whoever must have signed it."),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write this program's own verify.html, which checks any pack in a browser: never trust the "
            "page of a pack. Alone, or with a pack.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Verify a receipt or an evidence pack, and say in plain English what it proves and what it does not.

    Needs no network and trusts nothing but the policy file. Exit status 0: everything in the receipt holds,
    whatever findings are printed. 1: something does not hold. 2: the policy is no policy, or what was named
    is neither a receipt nor a pack. 3: a file cannot be read.

    Examples:  daybook verify 1168b4da-721e-452a-abad-d256e13d742c.1.receipt --policy policy

    daybook verify pack.zip --policy policy

    daybook verify --page verify.html
    """
    with expected_failures(as_json=as_json):
        if page is not None:
            write_page(page, tell=receipt is None, as_json=as_json)
            if receipt is None:
                return
        if receipt is None:
            raise UsageError("Name a receipt or an evidence pack, or --page FILE")
        if policy is None:
            raise UsageError(
                f"Name your witness policy with --policy FILE. {HOW_TO_GET_ONE}.", "POLICY_MISSING"
            )
        trusted = read_policy(policy)
        if is_pack(receipt):
            if document is not None or disclosure is not None:
                raise UsageError("--document and --disclosure are for one receipt: name one of the pack's")
            verify_pack(receipt, trusted, signer, as_json=as_json)
            return
        if signer is not None:
            raise UsageError("--signer is for an evidence pack: a receipt is signed by keys that it names")
        verified = _verified(receipt, trusted)
        opened = {} if disclosure is None else _opened(disclosure, verified)
        evidence = None if document is None else _evidence(document, verified, opened)
        told = verified, trusted, evidence, opened
        report(_as_json(*told), _told(*told), as_json=as_json)


def _verified(path: Path, policy: Policy) -> VerifiedReceipt:
    with path.open("rb") as file:
        data = file.read(_LONGEST_RECEIPT + 1)
    try:
        if data.startswith(_ACKNOWLEDGEMENT):
            raise UsageError(
                f"{path} is an acknowledgement, the ledger's promise, and not a receipt yet: register the same "
                "records again to get their receipts",
                "NOT_A_RECEIPT",
            )
        if not (data.startswith(FIRST_LINE) or path.suffix == ".receipt" or _PROOF in data):
            raise UsageError(
                f"{path} is neither a receipt nor an evidence pack: it begins with another line",
                "NOT_A_RECEIPT",
            )
        if len(data) > _LONGEST_RECEIPT:
            raise MalformedError(f"receipt: more than {_LONGEST_RECEIPT} bytes")
        verified = verify_receipt(data, policy)
        check_clocks(verified.every_cosignature, int(time.time()))
    except (MalformedError, VerificationError) as error:
        raise IntegrityError(
            f"{path} does NOT verify: {error}", reason_of(error), {"receipt": str(path)}
        ) from error
    return verified


# Disclosures and documents


def _opened(path: Path, verified: VerifiedReceipt) -> Mapping[str, Any]:
    data = path.read_bytes()
    try:
        disclosure = parse_disclosure(data)
    except MalformedError as error:
        raise UsageError(f"{path} is not a disclosure file: {error}", "MALFORMED") from error
    try:
        return open_disclosure(disclosure, verified.record, verified.ledger_origin)
    except (VerificationError, RejectedError, MalformedError) as error:
        raise IntegrityError(
            f"The receipt verifies, but {path} does NOT open it: {error}",
            "DISCLOSURE_DOES_NOT_OPEN",
            {"disclosure": str(path)},
        ) from error


@dataclass(frozen=True, slots=True)
class _Evidence:
    """A document whose digest the record lists, as item `item` of its evidence, from 0."""

    path: Path
    sha256: str
    item: int
    kind: str


def _evidence(path: Path, verified: VerifiedReceipt, opened: Mapping[str, Any]) -> _Evidence:
    digest = _digest(path)
    listed = dict(_digests(verified.record, opened))
    if digest not in listed:
        known = ", ".join(listed) or "none"
        raise IntegrityError(
            f"The receipt verifies, but {path} is NOT a document of this record: its SHA-256 is {digest}; "
            f"those listed as evidence are: {known}",
            "DOCUMENT_DOES_NOT_MATCH",
            {"document": str(path), "sha256": digest, "listed": list(listed)},
        )
    item, kind = listed[digest]
    return _Evidence(path, digest, item, kind)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _digests(record: bytes, opened: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, str]]]:
    """Yield each digest that the record lists as evidence, with its item and kind."""
    try:
        members = json.loads(record)
    except ValueError:
        return
    evidence = members.get("evidence") if isinstance(members, dict) else None
    for item, each in enumerate(evidence if isinstance(evidence, list) else ()):
        if isinstance(each, dict):
            sha256 = each.get("sha256", opened.get(f"evidence/{item}.sha256"))
            if isinstance(sha256, str):
                yield sha256, (item, str(each.get("kind", "")))


# What is told


def _as_json(
    verified: VerifiedReceipt, policy: Policy, evidence: _Evidence | None, opened: Mapping[str, Any]
) -> dict[str, Any]:
    authorised, anchored = verified.authorised, verified.anchored
    told: dict[str, Any] = {
        "verified": True,
        "policy_fingerprint": policy.fingerprint,
        "ledger_origin": verified.ledger_origin,
        "register": verified.register,
        "index": verified.index,
        "size": verified.size,
        "root": base64.encode(verified.root),
        "record_type": verified.record_type,
        "record_id": verified.record_id,
        "version": verified.version,
        "record_sha256": record_digest(verified.record),
        "submission_id": verified.submission_id,
        "signers": [base64.encode(key) for key in verified.signers],
        "department": verified.department,
        "department_proved": authorised is not None,
        "key_authorised_index": None if authorised is None else authorised.index,
        "witnessed": verified.sealed,
        "witnesses": list(verified.witnesses),
        "not_before": _instant(verified.bounds.not_before),
        "not_after": _instant(verified.bounds.not_after),
        "bounds_comparable": verified.bounds.comparable,
        "anchored": None
        if anchored is None
        else {
            "size": anchored.size,
            "governing_index": anchored.by.index,
            "governing_size": anchored.by.size,
        },
        "claimed": {"accepted_at": verified.accepted_at, "submitter": verified.submitter},
        "findings": [{"kind": each.kind.value, "description": each.description} for each in verified.findings],
        "not_proved": list(verified.not_proved),
    }
    if evidence is not None:
        told["document"] = {"path": str(evidence.path), "sha256": evidence.sha256, "evidence": evidence.item}
    if opened:
        told["disclosed"] = dict(opened)
    return told


def _told(
    verified: VerifiedReceipt, policy: Policy, evidence: _Evidence | None, opened: Mapping[str, Any]
) -> Iterator[str]:
    yield "The receipt verifies."
    yield ""
    yield "Proved"
    # Only a record that keeps the rules has them all; what else it says must not pass for lines of ours.
    yield f"  Record     {verified.record_id}, version {verified.version}, {shown(verified.record_type)}"
    yield f"  Digest     SHA-256 {record_digest(verified.record)}"
    yield f"  Register   {verified.register}"
    yield f"  Ledger     {verified.ledger_origin}"
    yield f"  Place      entry {verified.index}, counted from 0, of {verified.size}"
    yield f"  Root       {base64.encode(verified.root)} at size {verified.size}"
    yield from _signed(verified)
    yield from _times(verified)
    if verified.anchored is not None:
        by = verified.anchored.by
        yield (
            f"  Anchored   entry {by.index} of the governing register carries a checkpoint of "
            f"{verified.anchored.size} entries that covers it"
        )
    if evidence is not None:
        kind = f", {shown(evidence.kind)}" if evidence.kind else ""
        yield f"  Document   {evidence.path} is evidence {evidence.item} of the record{kind}"
    for path, value in opened.items():
        yield f"  Disclosed  {path} = {json_text(value, indent=None)}"
    yield ""
    yield "Claimed by the ledger, not proved"
    yield f"  Accepted   {verified.accepted_at}"
    yield f"  Submitter  {verified.submitter}"
    yield ""
    yield "Not proved"
    for sentence in verified.not_proved:
        yield f"  - {sentence}"
    if verified.findings:
        yield ""
        yield "Findings"
        for finding in verified.findings:
            yield f"  - {finding.kind.value}: {finding.description}"
    yield ""
    yield f"Judged by the policy with fingerprint {policy.fingerprint}"


def _signed(verified: VerifiedReceipt) -> Iterator[str]:
    if not verified.signers:
        yield "  Written    by the ledger itself, unsigned by any department"
        return
    keys = ", ".join(base64.encode(key) for key in verified.signers)
    if verified.department is None:
        yield f"  Signed     by {keys}"
    elif verified.authorised is None:
        yield f"  Signed     by the key {keys}, claimed to be one of {verified.department}"
    else:
        yield f"  Signed     by {verified.department}, with the key {keys},"
        yield f"             authorised at entry {verified.authorised.index} of the governing register"


def _times(verified: VerifiedReceipt) -> Iterator[str]:
    if not verified.sealed:
        yield "  Witnessed  not witnessed: the ledger's own signature alone"
        return
    yield f"  Witnessed  by {', '.join(verified.witnesses)}"
    bounds = verified.bounds
    if bounds.not_after is not None:
        yield f"  By when    in the witnessed history by {_instant(bounds.not_after)}"
    if bounds.not_before is not None:
        yield f"             and not before {_instant(bounds.not_before)}"


def _instant(seconds: int | None) -> str | None:
    """Return POSIX seconds as an instant; a witness may have signed a time that no calendar has."""
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s"
