"""`daybook govern`: what only governance keys may decide, here or over gRPC, by one holder or by several."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from ledger import base64
from ledger.own_records import uuid8
from services.auditing.declared import members
from services.cli.govern_requests import (
    GOVERNING,
    decide,
    described,
    made_request,
    proved_by,
    read_request,
    required,
    submit_request,
    write_new,
    write_request,
)
from services.cli.govern_ways import Way, check_witnesses
from services.cli.policy_files import read_policy
from services.cli.profile_files import read_overrides, read_profile
from services.cli.reporting import (
    JsonOption,
    UsageError,
    expected_failures,
    report,
)
from services.governing_requests import signature_file
from services.ledger_files import read_public_key, read_secret_key

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
    decide(fields, Way(directory, server, policy, key or (), request_out, as_json))


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
    decide(fields, Way(directory, server, policy, key or (), request_out, as_json))


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
    way = Way(directory, server, policy, key or (), request_out, as_json)
    with expected_failures(as_json=as_json):
        new = base64.encode(read_public_key(public_key).public)
        fields = {"type": "key.authorised/1", "department": department, "key": new, "label": label}
        if reason is not None:
            fields["reason"] = reason
        # Not random: the same options make the same request, which a proof from elsewhere is over. A key is
        # authorised once for ever, so the id is used once.
        stated = f"key.authorised/1\n{way.ledger_origin()}\n{department}\n{new}\n"
        request = made_request({**fields, "record_id": uuid8(stated.encode())}, way)
        if way.request_out is not None:
            write_request(request, way)
            return
        if proof is None:
            raise UsageError(
                "--proof is missing: the new key's secret file, or a signature made from it elsewhere "
                "(write the request with --request-out FILE, then there: daybook govern sign FILE)",
                "PROOF_MISSING",
            )
        proved = proved_by(proof, request)
        if base64.encode(proved.key) != new:
            raise UsageError(f"{proof} is of another key than {public_key}", "PROOF_OF_ANOTHER_KEY")
        submit_request(request, [*required(way.signatures(request)), proved], way)


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
        decide(fields, Way(directory, server, policy, key or (), request_out, as_json))


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
        way = Way(directory, server, policy, key or (), request_out, as_json)
        if kind == "witness":
            if name is None:
                raise UsageError("--name is missing: a witness policy states none itself", "NAME_MISSING")
            stated = read_policy(file)
            check_witnesses(stated, way, without_asking=without_asking)
            fields |= {"name": name, "text": stated.text().decode()}
        else:
            declared = read_profile(str(file)) if kind == "profile" else read_overrides(file)
            if name not in (None, declared.name):
                raise UsageError(
                    f"{file} states the name {declared.name!r}: --name may be left out", "NAME_DIFFERS"
                )
            fields |= {"name": declared.name, kind: members(declared)}
        decide(fields, way)


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
        decide(fields, Way(directory, server, policy, key or (), request_out, as_json))


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
        asked = read_request(request)
        signature = asked.sign(read_secret_key(key).secret)
        write_new(out, signature_file(asked, signature))
        value = {**described(asked), "key": base64.encode(signature.key), "signature_file": str(out)}
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
        way = Way(before[0] if before else directory, server, policy, key or (), None, as_json)
        request = read_request(path)
        if request.register_origin != f"{way.ledger_origin()}{GOVERNING}":
            raise UsageError(
                f"{path} is for {request.register_origin}, not for {way.ledger_origin()}",
                "REQUEST_OF_ANOTHER_LEDGER",
            )
        made = [proved_by(each, request) for each in signature or ()]
        own = [each for each in way.signatures(request) if each.key not in {one.key for one in made}]
        if not made and not own:
            raise UsageError(
                "No signature is here: give the holders' signature files with --signature FILE, or a secret "
                "key with --key FILE",
                "KEY_MISSING",
            )
        submit_request(request, [*made, *own], way)
