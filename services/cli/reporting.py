"""How a command ends: its exit status, one clear sentence on stderr, or one JSON object on stdout."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from typing import Annotated, Any, Final, NoReturn

import typer

from ledger.errors import (
    ConflictError,
    LedgerError,
    MalformedError,
    ProofError,
    QuorumError,
    RejectedError,
    SignatureError,
    SplitViewError,
    StoreError,
    VerificationError,
    Violation,
)


class Status(IntEnum):
    """Exit statuses of every command."""

    FINE = 0
    INTEGRITY_FAILURE = 1
    BAD_INPUT = 2
    UNREACHABLE = 3


_NOT_ASCII: Final = re.compile(r"[^\n -~]")

INTERRUPTED = 130
"""Exit status after Ctrl-C: that of a shell for SIGINT."""

BROKEN_PIPE = 141
"""Exit status where whoever reads the output has gone away: that of a shell for SIGPIPE."""


class CommandError(Exception):
    """An expected end of a command, in one sentence that says what to do.

    `reason` is a stable name; `details` go into the JSON form beside it, snake_case keys.
    """

    def __init__(
        self, status: Status, reason: str, message: str, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.details: Mapping[str, Any] = dict(details or {})


class UsageError(CommandError):
    """Bad input or usage: status 2."""

    def __init__(
        self, message: str, reason: str = "BAD_USAGE", details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(Status.BAD_INPUT, reason, message, details)


class IntegrityError(CommandError):
    """An integrity failure was found, and the message and details are its evidence: status 1."""

    def __init__(self, message: str, reason: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(Status.INTEGRITY_FAILURE, reason, message, details)


class UnreachableError(CommandError):
    """Something could not be reached or read: status 3."""

    def __init__(
        self, message: str, reason: str = "UNREACHABLE", details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(Status.UNREACHABLE, reason, message, details)


JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
"""The option `--json`, the same on every command that reports."""


@contextmanager
def expected_failures(*, as_json: bool) -> Iterator[None]:
    """Run a command's body; an error that commands expect ends it as `fail` does, any other rises."""
    try:
        yield
    except Exception as error:
        fail(error, as_json=as_json)


def fail(error: Exception, *, as_json: bool) -> NoReturn:
    """End the command with the status of an expected error, told once; anything else is raised again."""
    if isinstance(error, typer.Exit):
        raise error
    if isinstance(error, BrokenPipeError):
        # Whoever read has enough. Status 1 would say that the ledger is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(BROKEN_PIPE) from None
    failure = _failure(error)
    if failure is None:
        raise error
    if as_json:
        print_json({"error": {"reason": failure.reason, "message": failure.message, **failure.details}})
    else:
        typer.echo(printable(failure.message), err=True)
    raise typer.Exit(failure.status) from None


def printable(text: str) -> str:
    """Return `text` without what could steer a terminal: some of it may come from a server, or a record."""
    return "".join(each if each.isprintable() or each == "\n" else ascii(each)[1:-1] for each in text)


def report(value: Mapping[str, Any], lines: Iterable[str], *, as_json: bool) -> None:
    """Print the result of a command: `value` as one JSON object, or `lines` of text."""
    if as_json:
        print_json(value)
    else:
        for line in lines:
            typer.echo(line)
    sys.stdout.flush()


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object on stdout."""
    sys.stdout.write(json_text(value) + "\n")


def json_text(value: Any, *, indent: int | None = 2) -> str:
    """Return a value as JSON of which nothing steers a terminal: what is not printable is escaped."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, sort_keys=True)
    return _NOT_ASCII.sub(
        lambda found: found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1], text
    )


@contextmanager
def progress_bar(label: str, total: int, *, as_json: bool) -> Iterator[Callable[[int], None]]:
    """Show how far a long command has come, on stderr and only where a person watches it.

    Yields what is called with the number of items done since the last call.
    """
    if as_json or not sys.stderr.isatty():
        yield _ignore
        return
    # Loaded here: most commands show no progress, and rich takes a while to load.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=total)
        yield lambda done: progress.advance(task, done)


def _ignore(_done: int) -> None:
    """Nobody watches."""


def violation_json(violation: Violation) -> dict[str, Any]:
    """Return a violation as it stands in JSON reports."""
    shown: dict[str, Any] = {
        "field": violation.field,
        "reason": violation.reason.value,
        "message": violation.description,
    }
    if violation.allowed:
        shown["allowed"] = list(violation.allowed)
    if violation.offset is not None:
        shown["offset"] = violation.offset
    return shown


def reason_of(error: LedgerError) -> str:
    """Return the stable name of what failed to parse or verify."""
    match error:
        case SignatureError():
            return "SIGNATURE_INVALID"
        case ProofError():
            return "PROOF_INVALID"
        case MalformedError():
            return "MALFORMED"
        case _:
            return "VERIFICATION_FAILED"


def _failure(error: Exception) -> CommandError | None:
    match error:
        case CommandError():
            return error
        case OSError():
            where = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
            return UnreachableError(where, "UNREADABLE")
        case RejectedError():
            details = {"violations": [violation_json(each) for each in error.violations], **error.detail}
            return UsageError(str(error), error.reason.value, details)
        case MalformedError():
            return UsageError(str(error), reason_of(error))
        case SplitViewError():
            notes = {
                "first": error.first.decode(errors="replace"),
                "second": error.second.decode(errors="replace"),
            }
            return IntegrityError(f"{error}\n{notes['first']}\n{notes['second']}", "SPLIT_VIEW", notes)
        case QuorumError():
            return UnreachableError(
                f"Not sealed, as far as your policy goes: {error}. Are witnesses away (see: daybook sealing), "
                "or was the witness policy replaced (see: daybook policy)? Ask again later",
                "NOT_SEALED",
            )
        case VerificationError():
            return IntegrityError(str(error), reason_of(error))
        case StoreError():
            return UnreachableError(str(error), "STORE_FAILED")
        case ConflictError():
            return UnreachableError(f"{error}. Start again", "ANOTHER_WRITER")
        case LedgerError():
            return UsageError(str(error), "NOT_USABLE")
        case _:
            return _call_failure(error)


def _call_failure(error: Exception) -> CommandError | None:
    # A command that never called a server has not loaded gRPC, and is not made to here.
    errors = sys.modules.get("services.client.errors")
    if errors is None or not isinstance(error, errors.CallError):
        return None
    details: dict[str, Any] = {"code": error.code.name, **error.metadata}
    if error.violations:
        details["violations"] = [
            {"field": each.field, "reason": each.reason, "message": each.description}
            for each in error.violations
        ]
    if isinstance(error, errors.RefusedError):
        return UsageError(f"The ledger refused: {error.message}", error.reason or error.code.name, details)
    said = "cannot do it now" if error.reason else "did not answer"
    again = "try again: to ask the same again is always safe"
    return UnreachableError(
        f"The ledger {said} ({error.message}): {again}", error.reason or error.code.name, details
    )
