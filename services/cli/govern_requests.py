"""A decision of governance on its way: made, written to be signed elsewhere, signed, and submitted."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import typer

from ledger import canonical
from ledger.entries import Signature
from ledger.errors import MalformedError, SignatureError
from ledger.records import violations
from services.cli.govern_ways import Way
from services.cli.reporting import (
    UnreachableError,
    UsageError,
    expected_failures,
    report,
    violation_json,
)
from services.governing_requests import Request, read_signature
from services.ledger_files import read_secret_key

GOVERNING: Final = "/governing"
"""Behind a ledger's origin, the origin of its governing register."""

_SECRET: Final = b"PRIVATE+KEY+"


def decide(fields: Mapping[str, Any], way: Way) -> None:
    """Make the record, sign it and submit it; or write the request where that is asked for."""
    with expected_failures(as_json=way.as_json):
        request = made_request({"record_id": str(uuid.uuid4()), **fields}, way)
        if way.request_out is not None:
            write_request(request, way)
        else:
            submit_request(request, required(way.signatures(request)), way)


def made_request(fields: Mapping[str, Any], way: Way) -> Request:
    """Return the request for a record of these fields. Raises UsageError where it breaks a rule."""
    record = {**fields, "register": "governing", "version": 1}
    found = violations(record)
    if found:
        lines = [f"{each.field} {each.description}{_one_of(each.allowed)}" for each in found]
        details = {"violations": [violation_json(each) for each in found]}
        raise UsageError("\n".join(lines), found[0].reason.value, details)
    request = Request(f"{way.ledger_origin()}{GOVERNING}", canonical.format(record))
    request.parsed()
    return request


def _one_of(allowed: Sequence[str]) -> str:
    return f"; one of: {', '.join(allowed)}" if allowed else ""


def read_request(path: Path) -> Request:
    """Return the request in a file. Raises UsageError, OSError."""
    data = path.read_bytes()
    try:
        return Request.parse(data)
    except MalformedError as error:
        raise UsageError(f"{path}: {error}", "MALFORMED") from error


def required(signatures: list[Signature]) -> list[Signature]:
    """Return the signatures. Raises UsageError where there is none."""
    if not signatures:
        raise UsageError(
            "No governance key is here: name one with --key FILE, or write the request for holders elsewhere "
            "with --request-out FILE",
            "KEY_MISSING",
        )
    return signatures


def proved_by(path: Path, request: Request) -> Signature:
    """Return the signature that a file gives: a secret key file signs here, a signature file has signed."""
    data = path.read_bytes()
    if data.startswith(_SECRET):
        return request.sign(read_secret_key(path).secret)
    try:
        return read_signature(data, request)
    except SignatureError as error:
        raise UsageError(f"{path}: {error}", "SIGNATURE_INVALID") from error
    except MalformedError as error:
        raise UsageError(
            f"{path}: {error}. A signature is over one exact request: use the same options as when it was "
            "written",
            "SIGNATURE_OF_ANOTHER_REQUEST",
        ) from error


def described(request: Request) -> dict[str, Any]:
    """Return what `--json` says of a request."""
    return {
        "register_origin": request.register_origin,
        "record": json.loads(request.record),
        "submission_id": request.submission_id,
    }


def write_request(request: Request, way: Way) -> None:
    """Write a request for holders elsewhere, and tell what they do."""
    out = way.request_out
    if out is None:
        raise UsageError("--request-out is missing")
    write_new(out, request.data())
    lines = [
        f"Request: {out}",
        f"submission_id {request.submission_id}",
        f"Each holder now runs: daybook govern sign {out} --key FILE --out SIGNATURE",
    ]
    report({**described(request), "request_file": str(out)}, lines, as_json=way.as_json)


def write_new(path: Path, data: bytes) -> None:
    """Write a file that was not there. Raises UsageError, OSError."""
    try:
        with path.open("xb") as file:
            file.write(data)
    except FileExistsError as error:
        raise UsageError(f"{path} exists and is not overwritten: choose another name", "FILE_EXISTS") from error


def submit_request(request: Request, signatures: Sequence[Signature], way: Way) -> None:
    """Submit a request the way that was asked for, and tell what came of it."""
    if way.server is not None:
        index, known, sealed = _submit_to(way.server, request, signatures, way)
    else:
        index, known, sealed = _submit_in(way.directory, request, signatures)
    value = {**described(request), "index": index, "already_registered": known, "sealed": sealed}
    if way.as_json:
        report(value, (), as_json=True)
        return
    already = ", which was there already" if known else ""
    typer.echo(f"{_sentence(request)}: entry {index} of the governing register{already}.")
    if sealed is False:
        typer.echo(
            "daybook: NOT sealed: no quorum of the witnesses has cosigned every register yet. That is tried "
            "again while the ledger is served; see: daybook sealing",
            err=True,
        )


def _submit_to(
    server: str, request: Request, signatures: Sequence[Signature], way: Way
) -> tuple[int, bool, bool | None]:
    from services.client.answers import Registered
    from services.client.governance import SERVED_TYPES, govern
    from services.settings import client_tls

    record_type = json.loads(request.record)["type"]
    if record_type not in SERVED_TYPES:
        raise UsageError(
            f"{record_type} is not taken over gRPC: stop the server, and give the ledger's directory instead",
            "NOT_SERVED",
        )
    answer = asyncio.run(govern(server, way.trusted(), record_type, request.record, signatures, client_tls()))
    if not isinstance(answer, Registered):
        raise UnreachableError(
            "Registered, but not sealed yet as your policy asks: the decision stands, and is sealed as soon as "
            "the witnesses answer (see: daybook sealing). Do not send it again",
            "PENDING",
        )
    return answer.first_index, answer.known, answer.sealed if way.trusted().quorum.root is not None else None


def _submit_in(
    directory: Path | None, request: Request, signatures: Sequence[Signature]
) -> tuple[int, bool, bool | None]:
    if directory is None:
        raise UsageError("Name the ledger's directory before the action, or a server with --server")
    from services.cli.logs import configure_logs
    from services.compose import register_locally

    configure_logs()
    done = register_locally(directory, request.body, [request.record], signatures)
    return done.accepted.run.first, done.accepted.known, None if done.unsealed is None else not done.unsealed


def _sentence(request: Request) -> str:
    """Say what was decided."""
    record = json.loads(request.record)
    match record["type"]:
        case "register.opened/1":
            return f"Register {record['name']} is open"
        case "register.closed/1":
            return f"Register {record['name']} is closed at size {record['size']}"
        case "key.authorised/1":
            return f"Key {record['key']} may write for {record['department']}"
        case "key.revoked/1":
            return f"Key {record['key']} of {record['department']} is revoked"
        case "governance.changed/1":
            return f"{record['governance']['threshold']} of {len(record['governance']['keys'])} keys govern"
        case _:
            return f"Policy {record['name']} is published"
