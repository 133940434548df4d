"""`daybook audit`: what was added, altered or removed since the auditor's last visit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer

from ledger.witnessing import Policy
from services.auditing.audit_round import audit
from services.auditing.audit_state import AuditState, open_audit_state
from services.auditing.report.figures import Figures
from services.auditing.report.writing import write_report
from services.auditing.results import AuditResult
from services.auditing.terms_in_force import ChosenDays
from services.auditing.visit import Asked
from services.cli.audit_report import audit_json, audit_lines
from services.cli.opened_states import open_state, site_at
from services.cli.policy_files import read_policy
from services.cli.profile_files import read_overrides, read_profile
from services.cli.reporting import (
    JsonOption,
    Status,
    UsageError,
    expected_failures,
    printable,
    progress_bar,
    report,
)
from services.monitoring.fetching import TIMEOUT, Site
from services.monitoring.rounds import ANCHOR_WITHIN, PATIENCE, REREAD, Limits

_PUBLISHED: Final = "published"
_LONG: Final = 2_000
"""Entries from which on a progress bar is worth a person's look."""


def run(
    url: Annotated[str, typer.Argument(metavar="URL", help="The ledger's HTTP address, http://HOST:PORT.")],
    policy: Annotated[
        Path, typer.Option(help="Your witness policy file: the keys and the quorum that you trust.")
    ],
    state: Annotated[
        Path, typer.Option(help="Directory of what you have seen; made where there is none. Keep it.")
    ],
    register: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Read this register's entries only; may be given more than once."),
    ] = None,
    last_checkpoint: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="A checkpoint note that you kept elsewhere, to compare with; may be given more than once.",
        ),
    ] = None,
    acknowledgements: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A department's acknowledgements: each must have been kept."),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="The profile by which records are looked at, and not the one that the ledger has published.",
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|published",
            help="A file of working days that are otherwise; 'published' takes the ledger's, which do not hold "
            "by themselves with your --profile. May be given more than once.",
        ),
    ] = None,
    anchor_within: Annotated[
        int, typer.Option(min=0, help="Seconds for which a sealed checkpoint may be without an anchor.")
    ] = ANCHOR_WITHIN,
    patience: Annotated[
        float, typer.Option(min=0, help="Seconds for which what may pass by itself is asked for again.")
    ] = PATIENCE,
    reread: Annotated[
        int, typer.Option(min=0, help="Old entry bundles, 256 entries each, to read again.")
    ] = REREAD,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that one answer may take.")] = TIMEOUT,
    report_file: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="FILE",
            help="Write what it comes to as an HTML page for readers, with plots; and "
            "count how late decisions were registered, which is told here too.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Audit a ledger: everything since your last visit, from its public HTTP address.

    Believes your policy file and your own state, and nothing that the ledger says. Reads what is new, verifies
    every entry, derives every root twice, and holds it all against the checkpoints that you have seen, the
    witnesses' times and the governing register. Then says, for each register, what you can claim.

    Status 1: an integrity failure was found; the evidence is below STATE/evidence. Other findings, such as
    those of the detections, do not change the status. Status 3: something could not be read. It may be stopped
    at any point, and goes on from there.

    Examples:  daybook audit http://127.0.0.1:7071 --policy policy --state seen

    daybook audit http://127.0.0.1:7071 --policy policy --state seen --acknowledgements receipts

    daybook audit http://127.0.0.1:7071 --policy policy --state seen --report report.html
    """
    with expected_failures(as_json=as_json):
        trusted = read_policy(policy)
        limits = Limits(anchor_within, patience, reread)
        terms = None if profile is None else read_profile(profile)
        days = _days(overrides or ())
        kept = tuple(last_checkpoint or ())
        asked = Asked(tuple(register or ()), kept, acknowledgements, limits, terms, days=days)
        site = site_at(url, timeout)
        if report_file is not None and not report_file.absolute().parent.is_dir():
            raise UsageError(f"--report {report_file}: there is no such folder")
        with ExitStack() as stack:
            monitored = open_state(state, trusted, site, stack)
            opened = stack.enter_context(open_audit_state(monitored, trusted))
            result = asyncio.run(_visit(site, opened, trusted, asked, as_json=as_json))
            figures = None
            if report_file is not None:
                figures = _write(report_file, opened, result, asked, as_json=as_json)
        report(audit_json(result, figures), map(printable, audit_lines(result, figures)), as_json=as_json)
        if result.failed:
            raise typer.Exit(Status.INTEGRITY_FAILURE)
        if result.unread:
            raise typer.Exit(Status.UNREACHABLE)


def _days(named: Sequence[str]) -> ChosenDays:
    own = tuple(read_overrides(Path(each)) for each in named if each != _PUBLISHED)
    return ChosenDays(own, published=_PUBLISHED in named)


async def _visit(site: Site, state: AuditState, policy: Policy, asked: Asked, *, as_json: bool) -> AuditResult:
    async with site:
        return await audit(site, state, policy, asked, partial(_bar, as_json=as_json))


def _write(
    path: Path, state: AuditState, result: AuditResult, asked: Asked, *, as_json: bool
) -> Figures | None:
    try:
        return write_report(path, state, result, asked.profile, partial(_bar, as_json=as_json), asked.days)
    except OSError as error:
        if not result.failed:
            raise
        # Nothing may stand in the way of the verdict.
        typer.echo(printable(f"The report was not written: {error}"), err=True)
        return None


def _bar(label: str, total: int, *, as_json: bool) -> AbstractContextManager[Callable[[int], None]]:
    if total < _LONG:
        return nullcontext(lambda _done: None)
    return progress_bar(label, total, as_json=as_json)
