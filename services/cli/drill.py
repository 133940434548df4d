"""`daybook drill`: lies about a real ledger, each served to the auditor's tools, and what caught it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from services.cli.policy_files import read_policy
from services.cli.reporting import (
    JsonOption,
    Status,
    UsageError,
    expected_failures,
    printable,
    progress_bar,
    report,
)
from services.drill.drilling import Drill, Drilled, DrillResult
from services.drill.lies import LIES, CannotLieError
from services.drill.originals import copy_directory, ledger_policy, open_original
from services.drill.tools import Caught


def run(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="The ledger's directory, with its keys. It is only read.")
    ],
    receipts: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A department's receipts: what their checkpoints catch is shown too."),
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The auditor's policy; by default the one that the ledger states."),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep the auditors' states and evidence in this new directory."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Try whether lies about this ledger would be caught.

    Makes copies of a ledger that nobody serves, and lies in each as somebody could who holds all of its keys:
    checkpoints are signed anew, so that every copy agrees with itself. Each is served to the auditor's tools,
    and a table says what caught it, and by which evidence. A clean copy must raise nothing.

    Status 1: a lie went uncaught, or the clean copy raised an alarm. The copies hold the ledger's entries: they
    are made where temporary files are (TMPDIR), and removed. It takes as long as some forty audits.

    Example:  daybook drill ./ledger --receipts receipts
    """
    with expected_failures(as_json=as_json):
        if keep is not None and keep.exists():
            raise UsageError(f"{keep} is there already: name a new directory with --keep")
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="daybook-drill-")))
            original = stack.enter_context(open_original(copy_directory(directory, folder / "original")))
            trusted = ledger_policy(original.ledger, original.log) if policy is None else read_policy(policy)
            found = sorted(receipts.rglob("*.receipt")) if receipts is not None else []
            total = len(LIES) + 3
            advance = stack.enter_context(progress_bar("Lying", total, as_json=as_json))
            try:
                states = keep or folder / "states"
                drill = Drill(original, trusted, found, folder, states, lambda _name: advance(1))
                result = asyncio.run(drill.run())
            except CannotLieError as error:
                raise UsageError(f"{directory}: {error}", "NOTHING_TO_DRILL") from error
        report(_as_json(result), map(printable, _lines(result)), as_json=as_json)
        if not result.ok:
            raise typer.Exit(Status.INTEGRITY_FAILURE)


def _as_json(result: DrillResult) -> dict[str, Any]:
    return {"ok": result.ok, "uncaught": list(result.uncaught), **asdict(result)}


def _lines(result: DrillResult) -> Iterator[str]:
    yield f"Ledger {result.ledger}; lied about: {result.register}."
    if not result.witnessed:
        yield "The policy asks for no witness: the tools have nothing but their memory, and each other."
    yield ""
    if result.control:
        yield "A clean copy raised an alarm, so nothing below can be relied on; audit the ledger first:"
        yield from (f"  {_told(each)}" for each in result.control)
    else:
        yield "A clean copy raised nothing."
    if result.known:
        codes = ", ".join(sorted({each.code for each in result.known}))
        yield f"Findings that this ledger has anyway, and that catch no lie: {codes}."
    for each in result.copies:
        yield ""
        yield from _copy(each)
    yield ""
    told = [each for each in result.copies if not each.why_not]
    if result.uncaught:
        yield f"UNCAUGHT: {', '.join(result.uncaught)}."
    yield f"{len(told) - len(result.uncaught)} of {len(told)} lies were caught."


def _copy(drilled: Drilled) -> Iterator[str]:
    verdict = "not tried" if drilled.why_not else "caught" if drilled.caught else "UNCAUGHT"
    yield f"{drilled.name:<24}{verdict}: {drilled.what}"
    if drilled.why_not:
        yield f"  {drilled.why_not}"
    first: dict[tuple[str, str, str], Caught] = {}
    for each in drilled.caught:
        first.setdefault((each.tool, each.code, each.register), each)
    for each in first.values():
        yield f"  {_told(each)}"
        if each.evidence and Path(each.evidence).exists():
            yield f"    Evidence: {each.evidence}"


def _told(caught: Caught) -> str:
    where = f" {caught.register}" if caught.register else ""
    kind = "" if caught.is_failure else " (a finding)"
    return f"{caught.tool:<36}{caught.code}{where}{kind}: {caught.what}"
