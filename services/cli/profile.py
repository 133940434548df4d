"""`daybook profile`: the limits and thresholds by which an auditor looks at records, and what they rest on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from services.auditing.calendars import Overrides, overrides_identity, packaged, with_overrides
from services.auditing.declared import members
from services.auditing.profile_types import Limit, Profile
from services.auditing.profiles import DETECTIONS, SHIPPED, identity, shipped
from services.cli.profile_files import read_declared, read_profile
from services.cli.reporting import JsonOption, expected_failures, printable, report

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich"
)


@app.callback()
def profile() -> None:
    """Show and check policy profiles. A profile is chosen, versioned and published; it is never law.

    Example:  daybook profile show daybook-strict
    """


@app.command("list")
def list_shipped(as_json: JsonOption = False) -> None:
    """List the profiles that come with Daybook.

    Example:  daybook profile list
    """
    with expected_failures(as_json=as_json):
        found = [shipped(name) for name in SHIPPED]
        value = {"profiles": [{"identity": identity(each), "title": each.title} for each in found]}
        lines = [f"{each.name}  version {each.version}  {each.title}" for each in found]
        report(value, lines, as_json=as_json)


@app.command("show")
def show(
    named: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A shipped profile's name, or a file.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it to a new file, to be changed.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a profile is, what it rests on, and what it asks for.

    Examples:  daybook profile show nccc-2023

    daybook profile show daybook-strict --out ours.json
    """
    with expected_failures(as_json=as_json):
        found = read_profile(named)
        if out is not None:
            with out.open("x", encoding="utf-8") as file:
                file.write(json.dumps(members(found), ensure_ascii=False, indent=2) + "\n")
        calendar = packaged(found.calendar).version
        value = {"identity": identity(found), "profile": members(found), "calendar": calendar}
        report(value, map(printable, _described(found, calendar)), as_json=as_json)


@app.command("check")
def check(
    file: Annotated[Path, typer.Argument(help="A profile, or overrides of a calendar.")],
    as_json: JsonOption = False,
) -> None:
    """Check a file before it is published: a profile, or days that are otherwise than a calendar has them.

    Example:  daybook profile check ours.json
    """
    with expected_failures(as_json=as_json):
        found = read_declared(file)
        if isinstance(found, Profile):
            value = {"kind": "profile", "name": found.name, "identity": identity(found)}
            report(value, [f"A profile: {identity(found)}"], as_json=as_json)
        else:
            report(*_checked(found), as_json=as_json)


def _checked(overrides: Overrides) -> tuple[dict[str, str], list[str]]:
    version = with_overrides(packaged(overrides.calendar), overrides).version
    name = overrides_identity(overrides)
    value = {"kind": "calendar", "name": overrides.name, "identity": name, "calendar": version}
    return value, [f"Days of the calendar {overrides.calendar}: {name}", f"Results will name it: {version}"]


def _described(found: Profile, calendar: str) -> Iterator[str]:
    yield f"{found.name}, version {found.version}: {found.title}"
    yield f"Identity:  {identity(found)}"
    yield f"Rests on:  {found.basis}"
    yield f"Calendar:  {calendar}"
    yield "Registration, after the decision:"
    late = found.detections.late_registration
    if late is None:
        yield "  no limit: nothing is late"
    else:
        yield from _limits(late.limits)
        if late.contract_approval_before_award:
            yield "  contract approvals by the end of the award date as well"
        if late.exempt_late_reasons is not None:
            yield f"  listed, and not held late: {', '.join(late.exempt_late_reasons)}"
    yield "Capture, after the decision:"
    captured = found.detections.late_capture
    yield from _limits(captured.limits) if captured is not None else ("  no limit",)
    yield "Detections:"
    stated = members(found)["detections"]
    for name, detection in DETECTIONS.items():
        if name in stated and "limits" not in stated[name]:
            yield f"  {detection} {name}: {_parameters(stated[name])}"
    for scheme in found.stage_schemes or ():
        yield f"Stages of {scheme.scheme}, version {scheme.scheme_version}: {scheme.title}"
        yield f"  {', '.join(stage.code for stage in scheme.stages)}"
        yield f"  {scheme.basis}"


def _limits(limits: tuple[Limit, ...]) -> Iterator[str]:
    for limit in limits:
        of = [*(limit.decision_types or ()), *(limit.channels or ())]
        unless = ", unless the record says that it is not significant" if limit.unless_insignificant else ""
        days = f"{limit.working_days} working {'day' if limit.working_days == 1 else 'days'}"
        yield f"  {days}: {', '.join(of) or 'every other decision'}{unless}"


def _parameters(stated: dict[str, object]) -> str:
    return "; ".join(f"{name} {_value(value)}" for name, value in stated.items())


def _value(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "yes" if value is True else str(value)
