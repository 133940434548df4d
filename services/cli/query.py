"""`daybook query`: all entries of a register that answer a question, with proof that there are no others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Final

import typer
from daybook.audit.v1 import audit_service_pb2_grpc as rpc

from ledger.entries import Entry
from ledger.errors import MalformedError, Reason, VerificationError
from ledger.receipt_file import Receipt
from ledger.timeline import Bounds
from ledger.tlog_proofs import TlogProof
from ledger.values import is_register, is_series, is_uuid
from ledger.witnessing import Policy
from services import criteria
from services.as_at import Cut, Moment, Witnesses, claimed_standing, moment
from services.cli.policy_files import read_policy
from services.cli.query_found import Found, entries
from services.cli.query_question import (
    Keeping,
    Question,
    conditions,
    decided_dates,
    index_spans,
    spelled,
)
from services.cli.query_report import Told
from services.cli.reporting import JsonOption, UsageError, expected_failures, progress_bar, report
from services.client.channels import open_channel
from services.client.receipt_folder import ReceiptFolder
from services.query_answer import Answer, Collector, Standing
from services.querying import TIMEOUT, Page, Register, latest, previewed, proved
from services.settings import client_tls

MOST_WINDOWS: Final = 100
"""Entries whose own bounds are asked for, of those that may have come in before or after a moment."""


def run(
    server: Annotated[str, typer.Option(metavar="HOST:PORT", help="The ledger's gRPC address.")],
    register: Annotated[str, typer.Option(help="The register: department/office, or governing.")],
    policy: Annotated[Path, typer.Option(help="Your witness policy file: the keys that you trust.")],
    kind: Annotated[
        list[str] | None,
        typer.Option("--type", help="A decision type (grant) or a record type (return.filed/1). Repeatable."),
    ] = None,
    channel: Annotated[list[str] | None, typer.Option(help="A channel, such as whatsapp. Repeatable.")] = None,
    decided: Annotated[
        str | None,
        typer.Option(metavar="DATE", help="Decided within: 2026, 2026-06, 2026-06-25, or 2026-01..2026-03."),
    ] = None,
    decided_from: Annotated[str | None, typer.Option(metavar="DATE", help="Decided then or later.")] = None,
    decided_to: Annotated[str | None, typer.Option(metavar="DATE", help="Decided then or earlier.")] = None,
    series: Annotated[
        str | None,
        typer.Option(help="References in this series, its returns and voids, and who submitted them when."),
    ] = None,
    record: Annotated[
        str | None, typer.Option(metavar="RECORD_ID", help="This record, in all its versions.")
    ] = None,
    index: Annotated[
        list[str] | None,
        typer.Option(metavar="N[..M]", help="These entries alone, by index. Repeatable."),
    ] = None,
    at_size: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="As the register stood with its first N entries.")
    ] = None,
    at_time: Annotated[
        str | None, typer.Option(metavar="TIME", help="As it stood at a moment: 2026-06-25T09:30Z, or a day.")
    ] = None,
    since_request: Annotated[
        str | None,
        typer.Option(metavar="DATE", help="Mark what came in after a request received then: a day, or a TIME."),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Print each record in full, as text. --json always has it.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Let the ledger choose the matches. Completeness is not proved.")
    ] = False,
    receipts: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep a receipt of every match here.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds for a call, and without anything new, retries included.")
    ] = TIMEOUT,
    as_json: JsonOption = False,
) -> None:
    """List all entries of a register that answer a question, and prove that there are no others.

    Reads every entry up to the latest checkpoint, verifies each under your policy, and filters here: the
    ledger is not told what you look for, and cannot leave anything out. A decision matches where its
    `decided_at` may lie within the time that is asked for. --quick reads the ledger's own choice instead,
    --index the named entries alone: --index 4 --index 7..9 --full shows what the entries of a finding say.

    As at a moment the witnesses' times decide, and entries whose bounds straddle it are shown with their
    window; a day is a civil day in Europe/London. Status 1: something does not hold, and it is named.

    Examples:  daybook query --server 127.0.0.1:7070 --register department-of-health/secretary-of-state
    --policy policy --channel whatsapp --decided 2026-01/2026-03

    daybook query --server 127.0.0.1:7070 --register department-of-health/secretary-of-state
    --policy policy --since-request 2026-06-25

    daybook query --server 127.0.0.1:7070 --register department-of-health/secretary-of-state
    --policy policy --index 4 --full
    """
    with expected_failures(as_json=as_json):
        if not is_register(register):
            raise UsageError(f"--register {register!r} is not department/office", "REGISTER_MALFORMED")
        if sum(each is not None for each in (at_size, at_time, since_request)) > 1:
            raise UsageError("Give one of --at-size, --at-time and --since-request")
        if quick and (at_time or since_request):
            raise UsageError("What stood at a moment is proved, never previewed: leave --quick out")
        if decided and (decided_from or decided_to):
            raise UsageError("Give --decided, or --decided-from and --decided-to")
        when = _moment("--at-time", at_time) or _moment("--since-request", since_request)
        if quick and index:
            raise UsageError("What stands at an index is proved at once, never previewed: leave --quick out")
        begins, ends = decided_dates(decided, decided_from, decided_to)
        query, filter_ = conditions(
            kind or (),
            channels=[criteria.channel("--channel", each) for each in channel or ()],
            record_id=spelled("--record", record, is_uuid, "a uuid, lowercase with hyphens"),
            series=spelled("--series", series, is_series, "letters and digits, joined by / . _ or -"),
            decided_from=begins,
            decided_to=ends,
        )
        keeping = Keeping(entries=as_json or full or receipts is not None, paths=receipts is not None)
        spans = index_spans(index or ())
        question = Question(register, filter_, query, spans, at_size, when, quick, keeping)
        trusted = read_policy(policy)
        found = asyncio.run(_ask(server, trusted, question, timeout, as_json=as_json))
        told = Told(found, trusted, marking=since_request is not None, full=full, of_series=series is not None)
        kept = () if receipts is None else _keep(receipts, found)
        report(told.value(kept) if as_json else {}, told.lines(kept), as_json=as_json)


def _moment(option: str, text: str | None) -> Moment | None:
    try:
        return moment(text) if text is not None else None
    except MalformedError as error:
        raise UsageError(f"{option} {text!r}: {error}", "INVALID_FIELD") from error


async def _ask(server: str, policy: Policy, question: Question, timeout: float, *, as_json: bool) -> Found:  # noqa: ASYNC109
    async with open_channel(server, client_tls()) as channel:
        stub = rpc.AuditServiceStub(channel)
        register = await latest(stub, policy, question.register, timeout)
        _check_reached(question, register)
        witnesses = Witnesses(stub, policy, register, timeout)
        cut = await _cut(question, policy, witnesses)
        keeping = question.keeping
        collector = Collector(
            question.query,
            register.origin,
            _standing(question.when, cut),
            entries=keeping.entries,
            paths=keeping.paths,
        )
        end = cut.known if question.quick and cut is not None else register.size
        spans = question.spans or ((0, end),)
        with progress_bar("Entries", sum(after - begin for begin, after in spans), as_json=as_json) as advance:
            for begin, after in spans:
                position = begin
                pages = (
                    previewed(stub, register, question.filter, after, timeout)
                    if question.quick
                    else proved(stub, register, after, timeout, begin=begin)
                )
                async for page in pages:
                    _take(collector, page, chosen=question.quick)
                    advance(page.end - position)
                    position = page.end
        answer = collector.answer
        windows = {}
        if question.when is not None and cut is not None:
            windows = await _windows(answer, witnesses)
    return Found(
        register, end, question.spans, question.at_size, question.when, cut, question.quick, answer, windows
    )


def _check_reached(question: Question, register: Register) -> None:
    """Raise UsageError where the register has not so many entries as the question is about."""
    asked = [("--index", after - 1, after) for _, after in question.spans[-1:]]
    if question.at_size is not None:
        asked.append(("--at-size", question.at_size, question.at_size))
    for option, typed, size in asked:
        if size > register.size:
            raise UsageError(
                f"{option} {typed} is not reached: {register.name} has {entries(register.size)} "
                "under the latest checkpoint that your policy accepts"
                + (", counted from 0" if option == "--index" else ""),
                Reason.SIZE_NOT_REACHED.value,
                {"latest_size": register.size},
            )


async def _cut(question: Question, policy: Policy, witnesses: Witnesses) -> Cut | None:
    """Return where the moment or size that is asked for falls; None for none, or where only the ledger says."""
    if question.at_size is not None:
        return Cut(question.at_size, question.at_size)
    if question.when is None or policy.quorum.root is None:
        return None
    return await witnesses.cut(question.when)


def _standing(when: Moment | None, cut: Cut | None) -> Callable[[int, Entry], Standing] | None:
    if cut is not None:
        return cut.standing
    if when is None:
        return None
    return lambda _, entry: claimed_standing(when, entry)


def _take(collector: Collector, page: Page, *, chosen: bool) -> None:
    """Give a page's entries to the collector; what the ledger has `chosen` must answer the question."""
    for number, (index, entry) in enumerate(page.entries):
        matches = collector.take(index, entry, partial(page.path, number))
        if chosen and not matches:
            raise VerificationError(f"the ledger's preview shows entry {index}, which does not match")


async def _windows(answer: Answer, witnesses: Witnesses) -> dict[int, Bounds]:
    """Return the bounds of matches that may have come in before the moment or after it, of the first ones."""
    straddling = (each.index for each in answer.matches if each.standing is Standing.EITHER)
    return {index: await witnesses.bounds(index) for index in islice(straddling, MOST_WINDOWS)}


def _keep(root: Path, found: Found) -> Sequence[Path]:
    """Keep a receipt of every match at the checkpoint; return their paths."""
    folder = ReceiptFolder(root, found.register.name)
    receipts = []
    for each in sorted((*found.answer.matches, *found.answer.since), key=lambda match: match.index):
        assert each.entry is not None  # noqa: S101 - the collector was told to keep it
        proof = TlogProof(each.index, each.path, found.register.note)
        receipts.append((each.record_id, each.version, Receipt(each.entry, proof).data()))
    folder.keep(each for each in receipts if folder.read(each[0], each[1]) is None)
    return [folder.path(record_id, version) for record_id, version, _ in receipts]
