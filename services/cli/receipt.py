"""`daybook receipt`: one receipt, fetched anew, with all that the ledger can prove of the entry by now."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from daybook.registration.v1 import registration_service_pb2_grpc as rpc
from daybook.submission.v1 import submission_pb2

from ledger.receipts import VerifiedReceipt
from ledger.values import is_register, is_uuid
from ledger.witnessing import Policy
from services.cli.policy_files import read_policy
from services.cli.reporting import JsonOption, UsageError, expected_failures, report
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
        data, verified = asyncio.run(_fetched(server, read_policy(policy), register, entry, timeout))
        if verified.record_id is None or verified.version is None:
            raise UsageError(f"Entry {verified.index} names no record: it has no file name", "NO_RECORD_ID")
        folder = ReceiptFolder(receipts, register)
        folder.keep([(verified.record_id, verified.version, data)])
        path = folder.path(verified.record_id, verified.version)
        report(
            {
                "receipt": str(path),
                "index": verified.index,
                "witnesses": list(verified.witnesses),
                "anchored": verified.anchored is not None,
            },
            [
                f"{path} verifies: {_state(verified)}.",
                f"All that it proves: daybook verify {path} --policy {policy}",
            ],
            as_json=as_json,
        )


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
