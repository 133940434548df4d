"""`daybook monitor`: follow a ledger from outside, and keep the evidence of whatever is wrong with it."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ledger.errors import StoreError
from ledger.witnessing import Policy
from services.cli.monitor_check import check_evidence
from services.cli.opened_states import open_state, site_at
from services.cli.policy_files import HOW_TO_GET_ONE, read_policy
from services.cli.reporting import (
    JsonOption,
    Status,
    UsageError,
    expected_failures,
    json_text,
    printable,
    progress_bar,
    report,
)
from services.monitoring.comparing import Comparison, compare_states
from services.monitoring.fetching import TIMEOUT, Site
from services.monitoring.findings import Finding, how_to_check, instant, keep
from services.monitoring.rounds import ANCHOR_WITHIN, PATIENCE, REREAD, Limits, Monitor, Round
from services.monitoring.state import State

_LONG: Final = 2_000
"""Entries from which on a progress bar is worth a person's look."""


def run(
    url: Annotated[
        str | None, typer.Argument(metavar="[URL]", help="The ledger's HTTP address, http://HOST:PORT.")
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(help="Your witness policy file: the keys and the quorum that you trust. Required."),
    ] = None,
    state: Annotated[
        Path | None, typer.Option(help="Directory of what you have seen; made where there is none.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Make one round and end, instead of following.")] = False,
    interval: Annotated[float, typer.Option(min=0, help="Seconds between two rounds.")] = 60.0,
    anchor_within: Annotated[
        int, typer.Option(min=0, help="Seconds for which a sealed checkpoint may be without an anchor.")
    ] = ANCHOR_WITHIN,
    patience: Annotated[
        float,
        typer.Option(min=0, help="Seconds for which what may pass by itself is asked for again in a round."),
    ] = PATIENCE,
    reread: Annotated[
        int, typer.Option(min=0, help="Old entry bundles, 256 entries each, to read again in a round.")
    ] = REREAD,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that one answer may take.")] = TIMEOUT,
    compare: Annotated[
        Path | None,
        typer.Option(metavar="OTHER_STATE", help="Another party's state: compare what both have seen."),
    ] = None,
    check_file: Annotated[
        Path | None,
        typer.Option("--check", metavar="FILE", help="Check the proof in a file of evidence, offline."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Follow all registers of a ledger: read every entry, derive every root, and compare.

    Believes the policy file and its own state, and nothing that the ledger says. Follows until it is stopped,
    a round every minute; --once makes one round. A fork, a rollback, an alteration, a register that is hidden
    or not anchored ends it with exit status 1, and the evidence is kept below STATE/evidence. Status 3: the
    ledger could not be read (while following it is tried again).

    Examples:  daybook monitor http://127.0.0.1:7071 --policy policy --state seen

    daybook monitor --policy policy --state seen --compare seen-by-others

    daybook monitor --policy policy --check seen/evidence/fork-….json
    """
    with expected_failures(as_json=as_json):
        if policy is None:
            raise UsageError(
                f"Name your witness policy with --policy FILE. {HOW_TO_GET_ONE}.", "POLICY_MISSING"
            )
        trusted = read_policy(policy)
        if check_file is not None:
            check_evidence(check_file, trusted, policy, state, as_json=as_json)
            return
        if state is None:
            raise UsageError("Name a directory for what you see with --state DIR", "STATE_MISSING")
        if url is None and compare is None:
            raise UsageError("Name the ledger's HTTP address, or another party's state with --compare")
        limits = Limits(anchor_within, patience, reread)
        told = _Told(
            trusted, policy, url or "URL", state, compare, as_json=as_json, follows=url is not None and not once
        )
        with ExitStack() as stack:
            site = None if url is None else site_at(url, timeout)
            opened = open_state(state, trusted, site, stack)
            if site is None:
                made, compared = None, _compared(opened, trusted, compare)
                status = told.tell(opened, made, compared)
            elif once:
                status = asyncio.run(_once(site, opened, trusted, limits, told))
            else:
                status = asyncio.run(_follow(site, opened, trusted, limits, interval, told))
        if status != Status.FINE:
            raise typer.Exit(status)


# Running


def _compared(opened: State, policy: Policy, other: Path | None) -> Comparison | None:
    if other is None:
        return None
    try:
        return compare_states(opened, other, policy)
    except StoreError as error:
        # Copied while it was written, perhaps: then the next round compares.
        return Comparison(undecided=[f"the other state cannot be read: {error}"])


async def _once(site: Site, opened: State, policy: Policy, limits: Limits, told: _Told) -> Status:
    async with site:
        made = await Monitor(site, opened, policy, limits, told.bar).round()
    return told.tell(opened, made, _compared(opened, policy, told.compare))


async def _follow(
    site: Site, opened: State, policy: Policy, limits: Limits, interval: float, told: _Told
) -> Status:
    """Make rounds until something is found, or a signal comes."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - this is a coroutine
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        # Whatever is committed is whole, so it can end at any place where it waits.
        loop.add_signal_handler(number, task.cancel)
    try:
        async with site:
            monitor = Monitor(site, opened, policy, limits, told.bar)
            while True:
                made = await monitor.round()
                status = told.tell(opened, made, _compared(opened, policy, told.compare))
                if status == Status.INTEGRITY_FAILURE:
                    return status
                await asyncio.sleep(interval)
    except asyncio.CancelledError:
        told.say("Stopped; what was read is kept.")
        return Status.FINE


# Telling


@dataclass(slots=True)
class _Told:
    """Says what rounds come to: in lines, or as one JSON object a round."""

    policy: Policy
    policy_file: Path
    url: str
    root: Path
    compare: Path | None
    as_json: bool = field(kw_only=True)
    follows: bool = field(kw_only=True)
    _begun: bool = field(default=False, init=False)

    def bar(self, label: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Show progress where there is much to read."""
        if total < _LONG:
            return nullcontext(lambda _: None)
        return progress_bar(label, total, as_json=self.as_json)

    def say(self, line: str) -> None:
        """Say something that is not a result, to a person."""
        if not self.as_json:
            typer.echo(line)

    def tell(self, opened: State, made: Round | None, compared: Comparison | None) -> Status:
        """Tell a round, keep its evidence, and return the exit status that it calls for."""
        now = time.time()
        earlier = len(list(opened.directory.evidence.glob("*.json")))
        findings = [*(made.findings if made else ()), *(compared.findings if compared else ())]
        kept = [(each, keep(opened.directory.evidence, opened.mirror.origin, each, now)) for each in findings]
        unread = bool(made and made.troubles) or bool(compared and compared.undecided)
        if self.as_json:
            self._print(_as_json(opened, self.policy, made, compared, kept, now))
        else:
            preface = () if self._begun else _preface(opened, self.policy, made, earlier)
            lines = self._lines(made, compared, kept, now)
            report({}, map(printable, chain(preface, lines)), as_json=False)
        self._begun = True
        if findings:
            return Status.INTEGRITY_FAILURE
        return Status.UNREACHABLE if unread else Status.FINE

    def _print(self, value: dict[str, Any]) -> None:
        if not self.follows:
            report(value, (), as_json=True)
            return
        sys.stdout.write(json_text(value, indent=None) + "\n")
        sys.stdout.flush()

    def _lines(
        self,
        made: Round | None,
        compared: Comparison | None,
        kept: Sequence[tuple[Finding, Path]],
        now: float,
    ) -> Iterator[str]:
        if made is not None:
            yield f"{instant(now)}  {_summary(made)}"
            for each in made.followed:
                if each.size != each.before:
                    yield f"  {each.register}: {each.before:,} -> {_count(each.size, 'entry', 'entries')}"
            yield from (f"  {remark}" for remark in made.remarks)
            for trouble in made.troubles:
                yield f"  {trouble.register or 'ledger'} cannot be read: {trouble.why}"
            if made.troubles and self.follows:
                yield "  What cannot be read is tried again in the next round."
        if compared is not None:
            yield from _comparison(compared)
        for finding, path in kept:
            again = how_to_check(str(path), finding.proof, str(self.policy_file), self.url)
            yield from _finding(finding, path, again)


def _preface(opened: State, policy: Policy, made: Round | None, earlier: int) -> Iterator[str]:
    yield f"Ledger {opened.mirror.origin}, judged by the policy with fingerprint {policy.fingerprint}."
    if made is not None and made.is_first:
        begun = instant(opened.seen.begun() or 0)
        yield f"This state is new: nothing can be said about the time before {begun}."
    if policy.quorum.root is None:
        yield (
            "Your policy asks for no witness: no times and no anchors are asked for, and others may be shown "
            "another history. Compare with what they have seen (--compare)."
        )
    if earlier:
        yield f"Evidence from earlier rounds is in {opened.directory.evidence}: {_count(earlier, 'file')}."


def _summary(made: Round) -> str:
    entries = sum(each.size for each in made.followed)
    new = sum(each.size - each.before for each in made.followed)
    verdict = "nothing wrong in what was read" if made.troubles else "nothing wrong"
    if not made.followed and not entries:
        verdict = "NOTHING COULD BE READ"
    if made.findings:
        verdict = f"{len(made.findings)} WRONG"
    unread = f", {len(made.troubles)} not read" if made.troubles else ""
    return (
        f"{_count(len(made.followed), 'register')}, {_count(entries, 'entry', 'entries')}, {new:,} of them "
        f"new; "
        f"{_count(made.anchors, 'anchor')} compared, {_count(made.reread, 'old bundle')} read again{unread}; "
        f"{verdict}"
    )


def _count(number: int, one: str, more: str = "") -> str:
    return f"{number:,} {one if number == 1 else more or f'{one}s'}"


def _comparison(compared: Comparison) -> Iterator[str]:
    yield (
        f"Compared {_count(compared.checkpoints, 'checkpoint')} of "
        f"{_count(len(compared.registers), 'register')} in the other "
        f"state: {f'{len(compared.findings)} WRONG' if compared.findings else 'nothing contradicts'}."
    )
    if compared.ignored == 1:
        yield "  1 more is not signed by the ledger, and was ignored."
    elif compared.ignored:
        yield f"  {compared.ignored:,} more are not signed by the ledger, and were ignored."
    yield from (f"  Not decided: {each}." for each in compared.undecided)


def _finding(finding: Finding, path: Path, again: str) -> Iterator[str]:
    yield ""
    yield f"{finding.kind.value.upper()} {finding.register or 'ledger'}: {finding.what}"
    yield f"  Expected: {finding.expected}"
    yield f"  Evidence: {path}"
    yield f"  {'Anybody can check it' if finding.proof is not None else 'To see it again'}: {again}"
    for note in finding.notes:
        yield ""
        yield from (f"  {line}".rstrip() for line in note.decode("utf-8", "backslashreplace").splitlines())


def _as_json(
    opened: State,
    policy: Policy,
    made: Round | None,
    compared: Comparison | None,
    kept: Sequence[tuple[Finding, Path]],
    now: float,
) -> dict[str, Any]:
    told: dict[str, Any] = {
        "ok": not kept and not (made is not None and made.troubles),
        "at": instant(now),
        "ledger_origin": opened.mirror.origin,
        "policy_fingerprint": policy.fingerprint,
        "witnessed": policy.quorum.root is not None,
        "since": instant(opened.seen.begun() or 0),
        "findings": [
            {
                "kind": finding.kind.value,
                "register": finding.register,
                "what": finding.what,
                "expected": finding.expected,
                "notes": [note.decode("utf-8", "backslashreplace") for note in finding.notes],
                "evidence": str(path),
                "proof": finding.proof is not None,
            }
            for finding, path in kept
        ],
    }
    if made is not None:
        told |= {
            "first": made.is_first,
            "registers": [asdict(each) for each in made.followed],
            "not_read": [asdict(each) for each in made.troubles],
            "remarks": made.remarks,
            "anchors_compared": made.anchors,
            "bundles_read_again": made.reread,
        }
    if compared is not None:
        told["compared"] = {
            "checkpoints": compared.checkpoints,
            "registers": sorted(compared.registers),
            "ignored": compared.ignored,
            "undecided": compared.undecided,
        }
    return told
