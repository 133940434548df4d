"""`daybook evidence`: records and their proofs, packed for a tribunal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from ledger.errors import MalformedError
from ledger.notes import SignerKey
from ledger.values import is_instant, is_register, partial
from ledger.witnessing import Policy
from services.cli.policy_files import HOW_TO_GET_ONE, read_policy
from services.cli.reporting import (
    JsonOption,
    UsageError,
    expected_failures,
    printable,
    progress_bar,
    report,
)
from services.evidence.bag import ExistsError
from services.evidence.custody import Keeper
from services.evidence.exhibits import exhibits_in_words
from services.evidence.gathered import Gathered
from services.evidence.layout import parse_json_file
from services.evidence.packing import Packed, closed_name, write_pack
from services.evidence.preparing import Contents, DisclosureFile, NothingToPackError, prepare
from services.evidence.selection import Selection, parse_selection

_LONG: Final = 500
"""Exhibits from which on a progress bar is worth a person's look."""

_LONGEST_LINE: Final = 200


def run(
    register: Annotated[str, typer.Option(help="The register: department/office, or governing.")],
    out: Annotated[
        Path,
        typer.Option(metavar="DIR|ZIP", help="The pack: a new folder, or a ZIP file where it ends in .zip."),
    ],
    policy: Annotated[
        Path | None, typer.Option(help="Required: your witness policy file, the keys that you trust.")
    ] = None,
    select: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHAT",
            help="all, record=UUID, index=3..9, type=TYPE, channel=CHANNEL or decided=2026-01..2026-03. May be "
            "given again: of one kind any may hold, of several kinds all must. Default: all.",
        ),
    ] = None,
    server: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Take the records from a ledger's gRPC address.")
    ] = None,
    receipts: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Or take them from a folder of receipts, offline.")
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Or from the state of your own daybook monitor or audit, offline."),
    ] = None,
    closed: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DISCLOSURES",
            help="Disclosure files, or folders of them: a second, closed variant is made beside the first, and "
            "they go into it alone. May be given again.",
        ),
    ] = None,
    exhibit_prefix: Annotated[
        str, typer.Option(metavar="INITIALS", help="Exhibits are labelled INITIALS/1, INITIALS/2, and so on.")
    ] = "DB",
    findings: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Findings to go with it: a JSON file, such as an audit's (--json). Those about packed entries "
            "are linked to their exhibits.",
        ),
    ] = None,
    who: Annotated[str, typer.Option("--by", help="Who makes the pack, for the custody log.")] = "not stated",
    role: Annotated[str, typer.Option(help="In which role, for the custody log.")] = "not stated",
    reason: Annotated[str, typer.Option(help="Why, for the custody log.")] = "not stated",
    sign: Annotated[
        Path | None,
        typer.Option(metavar="KEY", help="Sign the pack with this secret key (daybook keygen): who packed it."),
    ] = None,
    date: Annotated[
        str | None,
        typer.Option(metavar="INSTANT", help="When it is made, YYYY-MM-DDTHH:MM:SSZ; by default now."),
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for each call, retries included.")] = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Pack records with all that proves them, so that they verify years later without the ledger.

    The pack is a BagIt bag: each record as text and as its exact bytes, its receipt, the checkpoints, the
    history of the keys, the policy, an exhibit index, a hash schedule, a custody log, a report in plain
    English, and verify.html, which verifies the pack by itself in any browser, offline. Everything is verified
    under your policy before it is packed. With one --date the same input makes the same bytes.

    Examples:  daybook evidence --register department-of-health/secretary-of-state --select channel=whatsapp
    --server 127.0.0.1:7070 --policy policy --exhibit-prefix JS --by "J. Smith" --out pack.zip

    daybook evidence --register department-of-health/secretary-of-state --receipts receipts --policy policy
    --closed disclosures --out pack
    """
    with expected_failures(as_json=as_json):
        if policy is None:
            raise UsageError(
                f"Name your witness policy with --policy FILE. {HOW_TO_GET_ONE}.", "POLICY_MISSING"
            )
        if not is_register(register):
            raise UsageError(f"--register {register!r} is not department/office", "REGISTER_MALFORMED")
        _check_sources(server, receipts, state)
        _check_place(out)
        trusted = read_policy(policy)
        selection = parse_selection(select or [])
        signer = None if sign is None else _signer(sign)
        found = None if findings is None else _findings(findings)
        disclosures = list(_disclosures(closed or []))
        keeper = Keeper(_line(who), _line(role), _line(reason), _moment(date))
        gathered = _gathered(server, receipts, state, register, selection, trusted, timeout)
        contents = _prepared(
            gathered,
            trusted,
            keeper,
            exhibit_prefix,
            found,
            disclosures,
        )
        places = [(out, False), *([(closed_name(out), True)] if closed else [])]
        packed = [
            (path, _written(contents, path, closed=is_closed, signer=signer, as_json=as_json))
            for path, is_closed in places
        ]
        _tell(packed, contents, signed=signer is not None, policy=policy, as_json=as_json)


def _check_sources(*sources: object) -> None:
    given = sum(source is not None for source in sources)
    if not given:
        raise UsageError("Say where the records come from: --server HOST:PORT, --receipts DIR or --state DIR")
    if given > 1:
        raise UsageError("A pack is from one source: give only one of --server, --receipts and --state")


def _check_place(out: Path) -> None:
    if not out.absolute().parent.is_dir():
        raise UsageError(f"--out {out}: the folder {out.parent} does not exist: make it first")


def _findings(path: Path) -> bytes:
    data = path.read_bytes()
    try:
        parse_json_file(data)
    except MalformedError as error:
        raise UsageError(f"--findings {path} is not a file of findings: {error}", "MALFORMED") from error
    return data


def _line(text: str) -> str:
    if not text or not text.isprintable() or len(text) > _LONGEST_LINE:
        raise UsageError(f"--by, --role, --reason: each is one line of at most {_LONGEST_LINE} characters")
    return text


def _moment(date: str | None) -> datetime:
    if date is None:
        return datetime.now(UTC).replace(microsecond=0)
    if not is_instant(date):
        raise UsageError(f"--date {date!r} is not an instant such as 2026-11-26T21:30:00Z")
    return datetime.fromtimestamp(partial(date).earliest, UTC)


def _signer(path: Path) -> SignerKey:
    # Loaded here: only this option needs it.
    from services.ledger_files import read_secret_key

    key = read_secret_key(path)
    if not key.name.isprintable():
        raise UsageError(f"{path}: the name of this key cannot be printed: make another one", "KEY_MALFORMED")
    return key


def _gathered(
    server: str | None,
    folder: Path | None,
    state: Path | None,
    register: str,
    selection: Selection,
    policy: Policy,
    timeout: float,
) -> Gathered:
    # Each source is loaded only where it is used: gRPC and SQLite are of no use to the others.
    if folder is not None:
        from services.evidence import from_receipts

        if not folder.is_dir():
            raise UsageError(f"--receipts {folder} is not a folder")
        return from_receipts.gather(folder, register, selection)
    if state is not None:
        from services.evidence import from_state

        return from_state.gather(state, register, selection, policy)
    from services.evidence import from_server
    from services.settings import client_tls

    return asyncio.run(from_server.gather(server or "", register, selection, policy, timeout, tls=client_tls()))


def _disclosures(paths: list[Path]) -> Iterator[DisclosureFile]:
    for path in paths:
        if path.is_dir():
            # A folder has all disclosures of a register, and a pack some of its records.
            files = sorted(each for each in path.rglob("*") if each.is_file())
            yield from (DisclosureFile(str(each), each.read_bytes(), may_be_of_others=True) for each in files)
        else:
            yield DisclosureFile(str(path), path.read_bytes())


def _prepared(
    gathered: Gathered,
    policy: Policy,
    keeper: Keeper,
    prefix: str,
    findings: bytes | None,
    disclosures: list[DisclosureFile],
) -> Contents:
    try:
        return prepare(
            gathered,
            policy,
            keeper,
            now=int(time.time()),
            prefix=prefix,
            findings=findings,
            disclosures=disclosures,
        )
    except NothingToPackError as error:
        raise UsageError(str(error), "NOTHING_TO_PACK") from error


def _written(contents: Contents, out: Path, *, closed: bool, signer: SignerKey | None, as_json: bool) -> Packed:
    quiet = as_json or len(contents.exhibits) < _LONG
    with progress_bar("packed", len(contents.exhibits), as_json=quiet) as done:
        try:
            return write_pack(contents, out, closed=closed, signer=signer, done=done)
        except ExistsError as error:
            raise UsageError(str(error), "FILE_EXISTS") from error


def _keys_said(contents: Contents) -> str:
    if contents.register_of_keys is None:
        return "Keys: the governing register is not in it, so that no key was revoked is not proved."
    size = contents.register_of_keys.size
    entries = "the one governing entry is" if size == 1 else f"all {size} governing entries are"
    return f"Keys: {entries} in it, and so every revocation."


def _passed_over_said(contents: Contents) -> Iterator[str]:
    if count := contents.passed_over:
        were = "1 disclosure was" if count == 1 else f"{count} disclosures were"
        disclosed = exhibits_in_words(len(contents.disclosures))
        yield f"Disclosed: values of {disclosed}; {were} of no exhibit, and passed over."


def _tell(
    packed: list[tuple[Path, Packed]], contents: Contents, *, signed: bool, policy: Path, as_json: bool
) -> None:
    first, last = contents.exhibits[0].label, contents.exhibits[-1].label
    labels = first if first == last else f"{first} to {last}"
    lines = []
    for path, each in packed:
        exhibits = exhibits_in_words(each.exhibits)
        lines += [
            f"{path}: {each.variant} variant, {exhibits}, {labels}, {each.files} files.",
            f"  SHA-256 of its tagmanifest-sha256.txt: {each.tagmanifest_sha256}",
        ]
    lines += [
        f"Selection: {printable(contents.gathered.selection)}",
        *_passed_over_said(contents),
        _keys_said(contents),
        "Signed by you: signature.note."
        if signed
        else "Not signed: nothing shows who packed it (--sign KEY). A manifest is integrity, not authenticity.",
        f"Check it: daybook verify {packed[0][0]} --policy {policy}, or open its verify.html, offline.",
    ]
    report(
        {
            "packs": [
                {
                    "path": str(path),
                    "variant": each.variant,
                    "identifier": each.identifier,
                    "exhibits": each.exhibits,
                    "files": each.files,
                    "tagmanifest_sha256": each.tagmanifest_sha256,
                }
                for path, each in packed
            ],
            "register": contents.register,
            "selection": contents.gathered.selection,
            "read_whole": contents.gathered.whole is not None,
            "signed": signed,
            "governing_size": None if contents.register_of_keys is None else contents.register_of_keys.size,
            "findings": len(contents.links),
            "disclosures": len(contents.disclosures),
            "disclosures_passed_over": contents.passed_over,
            "policy_fingerprint": contents.policy.fingerprint,
        },
        lines,
        as_json=as_json,
    )
