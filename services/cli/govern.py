"""`daybook govern`: what only governance keys may decide, here or over gRPC, by one holder or by several."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from ledger import base64, canonical
from ledger.entries import Signature
from ledger.errors import MalformedError, SignatureError
from ledger.own_records import uuid8
from ledger.records import violations
from ledger.witnessing import Log, Policy, Quorum
from services.auditing.declared import members
from services.cli.policy_files import HOW_TO_GET_ONE, read_policy
from services.cli.profile_files import read_overrides, read_profile
from services.cli.reporting import (
    JsonOption,
    UnreachableError,
    UsageError,
    expected_failures,
    report,
    violation_json,
)
from services.governing_requests import Request, read_signature, signature_file
from services.ledger_files import LedgerDirectory, public_path, read_public_key, read_secret_key

_GOVERNING: Final = "/governing"
_SECRET: Final = b"PRIVATE+KEY+"
_POLICY_KINDS: Final = ("witness", "profile", "calendar")


class _Actions(TyperGroup):
    """Lets the ledger's directory stand before the action: ``daybook govern DIR open-register NAME``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put what stands before the action behind it, then parse as usual."""
        args = _action_first(args, frozenset(self.commands))
        words = [each for each in args if not each.startswith("-")]
        if words and args[0] not in self.commands and "--help" not in args:
            ctx.fail(
                f"No action among {', '.join(map(repr, words))}; after the directory comes one of: "
                f"{', '.join(self.commands)}"
            )
        return super().parse_args(ctx, args)


def _action_first(args: Sequence[str], actions: frozenset[str]) -> list[str]:
    """Return the arguments with the action first; unchanged where there is none.

    A directory that is called as an action is, is written ``./sign``.
    """
    before: list[str] = []
    rest = iter(args)
    for token in rest:
        if token in actions:
            return [token, *before, *rest]
        if token == "--help":  # noqa: S105 - an option
            break
        if not token.startswith("--"):
            before += ["--directory", token]
        elif "=" in token or token == "--json":  # noqa: S105 - an option
            before.append(token)
        else:
            before += [token, next(rest, "")]
    return list(args)


app = typer.Typer(
    cls=_Actions,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    subcommand_metavar="[DIR] ACTION [ARGS]...",
)


@app.callback()
def govern() -> None:
    """Decide what only governance keys may: registers, keys, policies. Each decision is a signed entry.

    DIR is the ledger's directory: its governance key signs, unless others are named with --key. Give
    --server to send the decision to a running server. Where the keys are held in different places, write a
    request with --request-out, let each holder `sign` it, and `submit` it with the signatures.

    Example:  daybook govern ./ledger open-register department-of-health/secretary-of-state
    --title "Secretary of State for Health"
    """


_Directory = Annotated[Path | None, typer.Option("--directory", metavar="DIR", hidden=True)]
_Server = Annotated[
    str | None, typer.Option("--server", metavar="HOST:PORT", help="Send it to this server's gRPC address.")
]
_Policy = Annotated[
    Path | None,
    typer.Option("--policy", help="Witness policy file; needed with --server where DIR is not given."),
]
_Keys = Annotated[
    list[Path] | None,
    typer.Option("--key", help="A governance secret key; repeat for several. Default: DIR/keys/governance."),
]
_RequestOut = Annotated[
    Path | None,
    typer.Option(
        "--request-out", metavar="FILE", help="Write the request to be signed elsewhere; send nothing."
    ),
]


@dataclass(frozen=True, slots=True)
class _Way:
    """Where a decision goes, who signs it here, and how its end is told."""

    directory: Path | None
    server: str | None
    policy: Path | None
    keys: Sequence[Path]
    request_out: Path | None
    as_json: bool

    def ledger_origin(self) -> str:
        """Return the origin that is signed for: from the caller's own files, never from the server."""
        if self.directory is None and self.policy is None:
            raise UsageError(
                "Name the ledger: its directory before the action, or --server with --policy. "
                f"{HOW_TO_GET_ONE}.",
                "LEDGER_MISSING",
            )
        return _only_ledger(self.trusted())

    def trusted(self) -> Policy:
        """Return the policy file that was named, or one made from the directory's own key."""
        if self.policy is not None:
            return read_policy(self.policy)
        if self.directory is None:
            raise UsageError(f"--server needs --policy. {HOW_TO_GET_ONE}.", "POLICY_MISSING")
        key = read_public_key(public_path(LedgerDirectory(self.directory).log_key))
        return Policy((Log(key),), (), Quorum((), (), None))

    def signatures(self, request: Request) -> list[Signature]:
        """Return the signatures of the governance keys that are here; none where there are none."""
        paths = list(self.keys)
        if not paths and self.directory is not None:
            own = LedgerDirectory(self.directory).governance_key
            paths = [own] if own.exists() else []
        return [request.sign(read_secret_key(path).secret) for path in paths]


def _only_ledger(policy: Policy) -> str:
    if len(policy.ledger_origins) != 1:
        raise UsageError(
            "The policy must name exactly one ledger (a log <origin>/governing)", "POLICY_MALFORMED"
        )
    return policy.ledger_origins[0]


# The actions


@app.command("open-register")
def open_register(
    name: Annotated[str, typer.Argument(help="department/office, as on GOV.UK; or access.")],
    title: Annotated[str, typer.Option(help="What people call it.")],
    series: Annotated[
        list[str] | None, typer.Option(help="A reference series that it numbers; repeat for several.")
    ] = None,
    directory: _Directory = None,
    server: _Server = None,
    policy: _Policy = None,
    key: _Keys = None,
    request_out: _RequestOut = None,
    as_json: JsonOption = False,
) -> None:
    """Open a register: from then on the department's keys may write to it.

    Example:  daybook govern ./ledger open-register department-of-health/secretary-of-state
    --title "Secretary of State for Health" --series MD/2026
    """
    fields: dict[str, Any] = {"type": "register.opened/1", "name": name, "title": title}
    if series:
        fields["series"] = series
    _decide(fields, _Way(directory, server, policy, key or (), request_out, as_json))


@app.command("close-register")
def close_register(
    name: Annotated[str, typer.Argument(help="The register.")],
    size: Annotated[int, typer.Option(min=0, help="Its final number of entries.")],
    reason: Annotated[str, typer.Option(help="Why, in a line.")],
    successor: Annotated[str | None, typer.Option(help="The register that goes on in its place.")] = None,
    directory: _Directory = None,
    server: _Server = None,
    policy: _Policy = None,
    key: _Keys = None,
    request_out: _RequestOut = None,
    as_json: JsonOption = False,
) -> None:
    """Close a register for ever: nothing can be added to it, and it stays readable and provable.

    Example:  daybook govern ./ledger close-register department-x/secretary-of-state --size 1042
    --reason "The department was abolished" --successor department-y/secretary-of-state
    """
    fields: dict[str, Any] = {"type": "register.closed/1", "name": name, "size": size, "reason": reason}
    if successor is not None:
        fields["successor"] = successor
    _decide(fields, _Way(directory, server, policy, key or (), request_out, as_json))


@app.command("authorise-key")
def authorise_key(
    department: Annotated[str, typer.Argument(help="The department's slug, as on GOV.UK.")],
    public_key: Annotated[Path, typer.Option(metavar="FILE.pub", help="The new key's public file.")],
    label: Annotated[str, typer.Option(help="What the key is: who holds it, in which system.")],
    proof: Annotated[
        Path | None,
        typer.Option(help="The new key's secret file; or a signature made from it with `govern sign`."),
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why, in a line.")] = None,
    directory: _Directory = None,
    server: _Server = None,
    policy: _Policy = None,
    key: _Keys = None,
    request_out: _RequestOut = None,
    as_json: JsonOption = False,
) -> None:
    """Let a department's key write to its registers. The key is bound to the department for ever.

    The new key signs too, to show that the department has it. Where its secret is elsewhere: write the
    request with --request-out, let the department run `daybook govern sign`, and give its signature as
    --proof, with the same options as before.

    Example:  daybook govern ./ledger authorise-key department-of-health --public-key dh.pub --proof dh
    --label "Private office, records system"
    """
    way = _Way(directory, server, policy, key or (), request_out, as_json)
    with expected_failures(as_json=as_json):
        new = base64.encode(read_public_key(public_key).public)
        fields = {"type": "key.authorised/1", "department": department, "key": new, "label": label}
        if reason is not None:
            fields["reason"] = reason
        # Not random: the same options make the same request, which a proof from elsewhere is over. A key is
        # authorised once for ever, so the id is used once.
        stated = f"key.authorised/1\n{way.ledger_origin()}\n{department}\n{new}\n"
        request = _request({**fields, "record_id": uuid8(stated.encode())}, way)
        if way.request_out is not None:
            _write_request(request, way)
            return
        if proof is None:
            raise UsageError(
                "--proof is missing: the new key's secret file, or a signature made from it elsewhere "
                "(write the request with --request-out FILE, then there: daybook govern sign FILE)",
                "PROOF_MISSING",
            )
        proved = _proof(proof, request)
        if base64.encode(proved.key) != new:
            raise UsageError(f"{proof} is of another key than {public_key}", "PROOF_OF_ANOTHER_KEY")
        _submit(request, [*_required(way.signatures(request)), proved], way)


@app.command("revoke-key")
def revoke_key(
    department: Annotated[str, typer.Argument(help="The department's slug.")],
    public_key: Annotated[Path, typer.Option(metavar="FILE.pub", help="The key's public file.")],
    reason: Annotated[str, typer.Option(help="compromised, rotated, retired, lost or error.")],
    explanation: Annotated[str | None, typer.Option(help="More, in words.")] = None,
    suspected_from: Annotated[
        str | None, typer.Option(help="Where compromised: the date or instant from which it is suspected.")
    ] = None,
    directory: _Directory = None,
    server: _Server = None,
    policy: _Policy = None,
    key: _Keys = None,
    request_out: _RequestOut = None,
    as_json: JsonOption = False,
) -> None:
    """Stop a key from writing. What it has signed before stays, and is judged by when it was registered.

    Example:  daybook govern ./ledger revoke-key department-of-health --public-key dh.pub
    --reason compromised --suspected-from 2026-11-20
    """
    with expected_failures(as_json=as_json):
        fields = {
            "type": "key.revoked/1",
            "department": department,
            "key": base64.encode(read_public_key(public_key).public),
            "reason": reason,
        }
        if explanation is not None:
            fields["explanation"] = explanation
        if suspected_from is not None:
            fields["suspected_from"] = suspected_from
        _decide(fields, _Way(directory, server, policy, key or (), request_out, as_json))


@app.command("publish-policy")
def publish_policy(
    file: Annotated[
        Path,
        typer.Argument(
            help="A witness policy, a profile (or its name, if Daybook has it), or a calendar's days."
        ),
    ],
    kind: Annotated[str, typer.Option(help="witness, profile or calendar.")],
    name: Annotated[
        str | None,
        typer.Option(
            help="Its name; the latest of one kind and name holds. A profile and a calendar state theirs."
        ),
    ] = None,
    effective_from: Annotated[
        str | None, typer.Option(metavar="YYYY-MM-DDTHH:MMZ", help="From when. Default: now.")
    ] = None,
    without_asking: Annotated[
        bool,
        typer.Option(
            "--without-asking", help="Do not try from here whether the witnesses of the policy answer."
        ),
    ] = False,
    directory: _Directory = None,
    server: _Server = None,
    policy: _Policy = None,
    key: _Keys = None,
    request_out: _RequestOut = None,
    as_json: JsonOption = False,
) -> None:
    """Publish a witness policy, a profile of deadlines, or a calendar. It changes no verifier's own file.

    A witness policy is published only if a quorum of its witnesses answers from here, or where it is not
    asked for. A profile, and the days that a calendar has otherwise, are checked first.

    Examples:  daybook govern ./ledger publish-policy witnesses --kind witness --name ledger

    daybook govern ./ledger publish-policy daybook-strict --kind profile
    """
    with expected_failures(as_json=as_json):
        fields: dict[str, Any] = {
            "type": "policy.published/1",
            "kind": kind,
            "effective_from": effective_from or datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ"),
        }
        if kind not in _POLICY_KINDS:
            raise UsageError(f"--kind {kind!r} is none of {', '.join(_POLICY_KINDS)}", "INVALID_FIELD")
        way = _Way(directory, server, policy, key or (), request_out, as_json)
        if kind == "witness":
            if name is None:
                raise UsageError("--name is missing: a witness policy states none itself", "NAME_MISSING")
            stated = read_policy(file)
            _check_witnesses(stated, way, without_asking=without_asking)
            fields |= {"name": name, "text": stated.text().decode()}
        else:
            declared = read_profile(str(file)) if kind == "profile" else read_overrides(file)
            if name not in (None, declared.name):
                raise UsageError(
                    f"{file} states the name {declared.name!r}: --name may be left out", "NAME_DIFFERS"
                )
            fields |= {"name": declared.name, kind: members(declared)}
        _decide(fields, way)


def _check_witnesses(stated: Policy, way: _Way, *, without_asking: bool) -> None:
    """Refuse a witness policy under which nothing of this ledger would be sealed; say where it ends sealing."""
    origin = way.ledger_origin()
    if origin not in stated.ledger_origins:
        named = ", ".join(stated.ledger_origins) or "no ledger"
        raise UsageError(f"This is a witness policy of {named}, and not of {origin}", "POLICY_OF_OTHER_LEDGER")
    if stated.quorum.root is None:
        typer.echo("daybook: this policy asks no witness: nothing will be sealed under it", err=True)
    elif not without_asking and way.request_out is None:
        from services.compose import require_answers

        require_answers(stated, _governing_note(way))


def _governing_note(way: _Way) -> bytes:
    """Return the latest note of the governing register, for witnesses to be asked about."""
    if way.server is not None:
        from services.client.governance import governing_note as shown
        from services.settings import client_tls

        return asyncio.run(shown(way.server, client_tls()))
    from services.compose import governing_note as kept

    assert way.directory is not None  # noqa: S101 - the ledger's origin came from there
    return kept(way.directory)


@app.command("change-governance")
def change_governance(
    governance: Annotated[
        list[Path], typer.Option(metavar="FILE.pub", help="A governance key from now on; name all of them.")
    ],
    threshold: Annotated[int, typer.Option(min=1, max=8, help="How many of them must sign.")],
    reason: Annotated[str, typer.Option(help="Why, in a line.")],
    directory: _Directory = None,
    server: _Server = None,
    policy: _Policy = None,
    key: _Keys = None,
    request_out: _RequestOut = None,
    as_json: JsonOption = False,
) -> None:
    """Replace the governance keys and their threshold, in full. Every new key must sign as well.

    Written in DIR, while nobody serves it: there is no call for it.

    Example:  daybook govern ./ledger change-governance --governance ico.pub --governance tna.pub
    --threshold 2 --reason "Handed over" --key ledger/keys/governance --key ico --key tna
    """
    with expected_failures(as_json=as_json):
        keys = sorted(base64.encode(read_public_key(path).public) for path in governance)
        fields = {
            "type": "governance.changed/1",
            "governance": {"keys": keys, "threshold": threshold},
            "reason": reason,
        }
        _decide(fields, _Way(directory, server, policy, key or (), request_out, as_json))


@app.command("sign")
def sign(
    request: Annotated[Path, typer.Argument(help="The request file, made with --request-out.")],
    key: Annotated[Path, typer.Option(help="Your secret key file.")],
    out: Annotated[Path, typer.Option(help="Where the signature goes.")],
    as_json: JsonOption = False,
) -> None:
    """Sign a governance request with one key, offline. Shows what is signed: read it.

    Example:  daybook govern sign open.request --key ico --out ico.signature
    """
    with expected_failures(as_json=as_json):
        asked = _read_request(request)
        signature = asked.sign(read_secret_key(key).secret)
        _write_new(out, signature_file(asked, signature))
        value = {**_described(asked), "key": base64.encode(signature.key), "signature_file": str(out)}
        lines = [
            f"Signed, for {asked.register_origin}:",
            f"  {asked.record.decode()}",
            f"submission_id {asked.submission_id}",
            f"Signature: {out}",
        ]
        report(value, lines, as_json=as_json)


@app.command("submit")
def submit(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="[DIR] REQUEST", help="The request file, after the directory if any."),
    ],
    signature: Annotated[list[Path] | None, typer.Option(help="A signature file; repeat for several.")] = None,
    directory: _Directory = None,
    server: _Server = None,
    policy: _Policy = None,
    key: _Keys = None,
    as_json: JsonOption = False,
) -> None:
    """Submit a request with the signatures that were made over it, here and elsewhere.

    Example:  daybook govern submit ./ledger open.request --signature ico.signature --signature tna.signature
    """
    with expected_failures(as_json=as_json):
        *before, path = files
        if len(before) > (directory is None):
            raise UsageError("Give one directory and one request file")
        way = _Way(before[0] if before else directory, server, policy, key or (), None, as_json)
        request = _read_request(path)
        if request.register_origin != f"{way.ledger_origin()}{_GOVERNING}":
            raise UsageError(
                f"{path} is for {request.register_origin}, not for {way.ledger_origin()}",
                "REQUEST_OF_ANOTHER_LEDGER",
            )
        made = [_proof(each, request) for each in signature or ()]
        own = [each for each in way.signatures(request) if each.key not in {one.key for one in made}]
        if not made and not own:
            raise UsageError(
                "No signature is here: give the holders' signature files with --signature FILE, or a secret "
                "key with --key FILE",
                "KEY_MISSING",
            )
        _submit(request, [*made, *own], way)


# What they share


def _decide(fields: Mapping[str, Any], way: _Way) -> None:
    """Make the record, sign it and submit it; or write the request where that is asked for."""
    with expected_failures(as_json=way.as_json):
        request = _request({"record_id": str(uuid.uuid4()), **fields}, way)
        if way.request_out is not None:
            _write_request(request, way)
        else:
            _submit(request, _required(way.signatures(request)), way)


def _request(fields: Mapping[str, Any], way: _Way) -> Request:
    record = {**fields, "register": "governing", "version": 1}
    found = violations(record)
    if found:
        lines = [f"{each.field} {each.description}{_one_of(each.allowed)}" for each in found]
        details = {"violations": [violation_json(each) for each in found]}
        raise UsageError("\n".join(lines), found[0].reason.value, details)
    request = Request(f"{way.ledger_origin()}{_GOVERNING}", canonical.format(record))
    request.parsed()
    return request


def _one_of(allowed: Sequence[str]) -> str:
    return f"; one of: {', '.join(allowed)}" if allowed else ""


def _read_request(path: Path) -> Request:
    data = path.read_bytes()
    try:
        return Request.parse(data)
    except MalformedError as error:
        raise UsageError(f"{path}: {error}", "MALFORMED") from error


def _required(signatures: list[Signature]) -> list[Signature]:
    if not signatures:
        raise UsageError(
            "No governance key is here: name one with --key FILE, or write the request for holders elsewhere "
            "with --request-out FILE",
            "KEY_MISSING",
        )
    return signatures


def _proof(path: Path, request: Request) -> Signature:
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


def _described(request: Request) -> dict[str, Any]:
    return {
        "register_origin": request.register_origin,
        "record": json.loads(request.record),
        "submission_id": request.submission_id,
    }


def _write_request(request: Request, way: _Way) -> None:
    out = way.request_out
    if out is None:
        raise UsageError("--request-out is missing")
    _write_new(out, request.data())
    lines = [
        f"Request: {out}",
        f"submission_id {request.submission_id}",
        f"Each holder now runs: daybook govern sign {out} --key FILE --out SIGNATURE",
    ]
    report({**_described(request), "request_file": str(out)}, lines, as_json=way.as_json)


def _write_new(path: Path, data: bytes) -> None:
    try:
        with path.open("xb") as file:
            file.write(data)
    except FileExistsError as error:
        raise UsageError(f"{path} exists and is not overwritten: choose another name", "FILE_EXISTS") from error


def _submit(request: Request, signatures: Sequence[Signature], way: _Way) -> None:
    if way.server is not None:
        index, known, sealed = _submit_to(way.server, request, signatures, way)
    else:
        index, known, sealed = _submit_in(way.directory, request, signatures)
    value = {**_described(request), "index": index, "already_registered": known, "sealed": sealed}
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
    server: str, request: Request, signatures: Sequence[Signature], way: _Way
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
