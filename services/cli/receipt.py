"""`daybook receipt`: one receipt, fetched anew, with all that the ledger can prove of the entry by now."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Annotated

import typer
from daybook.registration.v1 import registration_service_pb2_grpc as rpc
from daybook.submission.v1 import submission_pb2

from ledger.errors import MalformedError, VerificationError
from ledger.receipts import VerifiedReceipt, verify_receipt
from ledger.values import is_register, is_uuid
from ledger.witnessing import Policy
from services.cli.policy_files import read_policy
from services.cli.reporting import (
    IntegrityError,
    JsonOption,
    UsageError,
    expected_failures,
    reason_of,
    report,
)
from services.client.channels import open_channel
from services.client.client import fetch_receipt, only_ledger
from services.client.receipt_folder import ReceiptFolder
from services.settings import client_tls


def run(
    server: Annotated[str, typer.Option(metavar="HOST:PORT", help="The ledger's gRPC address.")],
    register: Annotated[str, typer.Option(help="The register: department/office, or governing.")],
    policy: Annotated[Path, typer.Option(help="Your witness policy file: the keys that you trust.")],
    receipts: Annotated[
        Path, typer.Option(metavar="DIR", help="Where receipts are kept, a folder for each register.")
    ],
    record: Annotated[str | None, typer.Option(metavar="RECORD_ID", help="Which record.")] = None,
    version: Annotated[int, typer.Option(min=1, help="Which version of it.")] = 1,
    index: Annotated[int | None, typer.Option(min=0, help="Or which entry, counted from 0.")] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for the call, retries included.")] = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Fetch a receipt, verify it under your policy, and keep it in the place of an older one.

    A receipt that was taken when its record was registered cannot show yet that the register was anchored.
    Fetched some seconds later it does.

    Example:  daybook receipt --server 127.0.0.1:7070 --register department-of-health/secretary-of-state
    --policy policy --receipts receipts --record 1168b4da-721e-452a-abad-d256e13d742c
    """
    with expected_failures(as_json=as_json):
        if not is_register(register):
            raise UsageError(f"--register {register!r} is not department/office", "REGISTER_MALFORMED")
        if (record is None) == (index is None):
            raise UsageError("Name the record with --record, or the entry with --index")
        if record is not None and not is_uuid(record):
            raise UsageError(f"--record {record!r} is not a uuid, lowercase with hyphens", "INVALID_FIELD")
        entry: int | submission_pb2.RecordVersion = (
            index
            if index is not None
            else submission_pb2.RecordVersion(record_id=record or "", version=version)
        )
        trusted = read_policy(policy)
        data, verified = asyncio.run(_fetched(server, trusted, register, entry, timeout))
        if verified.record_id is None or verified.version is None:
            raise UsageError(f"Entry {verified.index} names no record: it has no file name", "NO_RECORD_ID")
        folder = ReceiptFolder(receipts, register)
        kept = _kept(folder, verified, trusted)
        if kept is None:
            folder.keep([(verified.record_id, verified.version, data)])
        path = folder.path(verified.record_id, verified.version)
        shown = kept or verified
        report(
            {
                "receipt": str(path),
                "index": shown.index,
                "witnesses": list(shown.witnesses),
                "anchored": shown.anchored is not None,
                "replaced": kept is None,
                "findings": [
                    {"kind": each.kind.value, "description": each.description} for each in shown.findings
                ],
            },
            [
                f"{path} verifies: {_state(shown)}.",
                *(["The one that was there proves more, and stays."] if kept else []),
                *(f"Finding, {each.kind.value}: {each.description}" for each in shown.findings),
                f"All that it proves: daybook verify {path} --policy {policy}",
            ],
            as_json=as_json,
        )


def _kept(folder: ReceiptFolder, fetched: VerifiedReceipt, policy: Policy) -> VerifiedReceipt | None:
    """Return the receipt that is there already, where the fetched one would prove less than it.

    One that is there and does not verify is never overwritten: it may be evidence. Raises IntegrityError.
    """
    assert fetched.record_id is not None  # noqa: S101 - the caller has looked
    assert fetched.version is not None  # noqa: S101
    data = folder.read(fetched.record_id, fetched.version)
    if data is None:
        return None
    path = folder.path(fetched.record_id, fetched.version)
    try:
        held = verify_receipt(data, policy)
    except (MalformedError, VerificationError) as error:
        raise IntegrityError(
            f"{path} does NOT verify: {error}. If the policy is the right one, keep it aside as evidence, then "
            "run the command again; it may also have been taken under an earlier policy",
            reason_of(error),
            {"receipt": str(path)},
        ) from error
    return held if _proves_more(held, fetched) else None


def _proves_more(one: VerifiedReceipt, other: VerifiedReceipt) -> bool:
    """Tell whether `one` proves anything that `other` does not: an anchor, or a tighter time."""
    if one.anchored is not None and other.anchored is None:
        return True
    earlier = _before(one.bounds.not_after, other.bounds.not_after)
    return earlier or _before(other.bounds.not_before, one.bounds.not_before, absent_first=True)


def _before(one: int | None, other: int | None, *, absent_first: bool = False) -> bool:
    """Tell whether the time `one` is before `other`; one that is absent is after all, or before all."""
    absent = -math.inf if absent_first else math.inf
    return (absent if one is None else one) < (absent if other is None else other)


async def _fetched(
    server: str, policy: Policy, register: str, entry: int | submission_pb2.RecordVersion, seconds: float
) -> tuple[bytes, VerifiedReceipt]:
    async with open_channel(server, client_tls()) as channel:
        stub = rpc.RegistrationServiceStub(channel)
        return await fetch_receipt(stub, policy, only_ledger(policy), register, entry, seconds)


def _state(verified: VerifiedReceipt) -> str:
    if not verified.sealed:
        return "not witnessed"
    sealed = f"sealed by {', '.join(verified.witnesses)}"
    return f"{sealed}, and anchored" if verified.anchored is not None else f"{sealed}, not anchored yet"
