"""`daybook findings`: what a ledger's own detections have noticed in a register, by its operator's word."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from daybook.audit.v1 import audit_service_pb2 as pb
from daybook.audit.v1 import audit_service_pb2_grpc as rpc

from ledger.values import is_register
from services.cli.reporting import (
    JsonOption,
    UnreachableError,
    UsageError,
    expected_failures,
    printable,
    report,
)
from services.client.channels import open_channel
from services.client.retrying import call
from services.querying import TIMEOUT
from services.settings import client_tls

MOST = 10_000
"""Findings after which no more are asked for."""

_MOST_BYTES = 64 * 1024 * 1024

WORD = (
    "This is the operator's word: nothing of it is proved, and something may be left out. `daybook audit` runs "
    "the same detections over what it has verified itself."
)


def run(
    server: Annotated[str, typer.Option(metavar="HOST:PORT", help="The ledger's gRPC address.")],
    register: Annotated[str, typer.Option(help="The register: department/office, or governing.")],
    size: Annotated[
        int, typer.Option(min=0, metavar="N", help="Ask for an answer over the first N entries at least.")
    ] = 0,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for a call, retries included.")] = TIMEOUT,
    as_json: JsonOption = False,
) -> None:
    """List what a ledger's own detections have noticed in a register.

    A finding is something for somebody to look at: no accusation, and no proof. All of this is what the
    operator says. An auditor runs `daybook audit` instead, which believes only what it has verified.

    Status 0 whatever was noticed; 2 where the ledger refuses, or runs no detections; 3 where it is away.

    Example:  daybook findings --server 127.0.0.1:7070 --register department-of-health/secretary-of-state
    """
    with expected_failures(as_json=as_json):
        if not is_register(register):
            raise UsageError(f"--register {register!r} is not department/office", "REGISTER_MALFORMED")
        pages = asyncio.run(_ask(server, register, size, timeout))
        # The first page is of no more entries than the others.
        seen, found = pages[0].size, [each for page in pages for each in page.findings]
        more = bool(pages[-1].next_page_token)
        value = {
            "register": register,
            "size": seen,
            "proved": False,
            "findings": [*map(_members, found)],
            "more": more,
        }
        report({} if not as_json else value, _lines(register, seen, found, more=more), as_json=as_json)


async def _ask(server: str, register: str, size: int, timeout: float) -> list[pb.ListFindingsResponse]:  # noqa: ASYNC109
    """Return every page, one at least, and no more than are bearable. Raises CallError, UnreachableError."""
    request = pb.ListFindingsRequest(register=register, size=size)
    pages: list[pb.ListFindingsResponse] = []
    async with open_channel(server, client_tls()) as channel:
        stub = rpc.AuditServiceStub(channel)
        count = taken = 0
        while not pages or (request.page_token and count < MOST and taken < _MOST_BYTES):
            page = await call(lambda left: stub.ListFindings(request, timeout=left), timeout)
            if page.next_page_token and not page.findings:
                raise UnreachableError("The ledger sent a page without findings, and says that more follow")
            pages.append(page)
            request.page_token = page.next_page_token
            count, taken = count + len(page.findings), taken + page.ByteSize()
    return pages


def _members(found: pb.Finding) -> dict[str, Any]:
    return {
        "detection": found.detection,
        "version": found.version,
        "severity": found.severity,
        "indices": list(found.indices),
        "explanation": found.explanation,
        "inputs": dict(found.inputs),
        "innocent": list(found.innocent),
        "recheck": found.recheck,
    }


def _lines(register: str, size: int, findings: list[pb.Finding], *, more: bool) -> Iterator[str]:
    number = "1 finding" if len(findings) == 1 else f"{len(findings):,} findings"
    first = "first entry" if size == 1 else f"first {size:,} entries"
    yield f"{register}: {number} over the {first}."
    yield WORD
    for found in findings:
        yield ""
        yield _one_line(f"{found.severity.upper()} {found.detection}: {found.explanation}")
        if found.indices:
            entries = "entry" if len(found.indices) == 1 else "entries"
            yield f"  {entries}: {_indices(list(found.indices))}"
        for cause in found.innocent:
            yield _one_line(f"  may be innocent: {cause}")
        yield _one_line(f"  check it again: {found.recheck}")
    if more:
        yield ""
        yield f"THERE ARE MORE: the ledger was asked for no more than these {len(findings):,}."
    if any(found.indices for found in findings):
        yield ""
        yield "What an entry says, proved under your own policy: daybook query … --index N --full"


def _indices(indices: list[int]) -> str:
    shown = ", ".join(map(str, indices[:10]))
    return shown if len(indices) <= 10 else f"{shown} and {len(indices) - 10:,} more"


def _one_line(text: str) -> str:
    """Return text that a server sent, as one line that steers no terminal."""
    return printable(text).replace("\n", "\\n")
