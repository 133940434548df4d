"""`daybook register`: a department's records, from a file into its register, with every receipt kept."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ledger.ed25519 import SecretKey
from ledger.errors import MalformedError, Reason, RejectedError, VerificationError, Violation
from ledger.receipts import verify_receipt
from ledger.records import check_place, parse_record
from ledger.values import is_register
from ledger.witnessing import Policy
from services.cli.policy_files import HOW_TO_GET_ONE, policy_beside, read_policy
from services.cli.reporting import (
    INTERRUPTED,
    CommandError,
    IntegrityError,
    JsonOption,
    Status,
    UnreachableError,
    UsageError,
    expected_failures,
    print_json,
    progress_bar,
    reason_of,
    report,
    violation_json,
)
from services.client.answers import Promised, Registered, Rejected
from services.client.batches import (
    Batch,
    BatchError,
    BatchOutcome,
    Item,
    batches,
    is_receipt_of,
    register_batch,
)
from services.client.client import CONNECT_TIMEOUT, Client, connect, only_ledger
from services.client.errors import RefusedError
from services.client.in_flight import as_finished
from services.client.receipt_folder import ReceiptFolder
from services.client.tabular import read_records, reference_id
from services.ledger_files import read_secret_key
from services.settings import client_tls

IN_FLIGHT: Final = 4
"""Submissions under way at once."""

MOST_SHOWN: Final = 20
"""Faults that are printed; the JSON form has all of them."""

_FIELD = re.compile(r"records\[([0-9]+)\]\.?(.*)")


def run(
    records: Annotated[Path, typer.Argument(help="The records: a .csv, .json or .ndjson file.")],
    server: Annotated[str, typer.Option(metavar="HOST:PORT", help="The ledger's gRPC address.")],
    register: Annotated[str, typer.Option(help="The register to write to: department/office.")],
    key: Annotated[Path, typer.Option(help="Your department's secret key file.")],
    receipts: Annotated[
        Path, typer.Option(metavar="DIR", help="Where receipts are kept, a folder for each register.")
    ],
    policy: Annotated[
        Path | None,
        typer.Option(help="Your witness policy file. Default: the key's file name with .policy added."),
    ] = None,
    ids_from_reference: Annotated[
        bool,
        typer.Option(
            "--ids-from-reference",
            help="Derive a missing record_id from register, series and number: for ever the same.",
        ),
    ] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for each call, retries included.")] = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Sign the records of a file, register them, verify every answer, and keep a receipt of each.

    All records are checked first: if one breaks a rule, every fault is named with its row, and nothing is
    sent. After an interruption run the same command again: what has its receipt is passed over, and nothing
    is registered twice.

    Example:  daybook register --server 127.0.0.1:7070 --register department-of-health/secretary-of-state
    --key keys/department --receipts receipts decisions.csv
    """
    with expected_failures(as_json=as_json):
        if not is_register(register) or "/" not in register:
            raise UsageError(f"--register {register!r} is not department/office", "REGISTER_MALFORMED")
        secret = read_secret_key(key).secret
        trusted = _policy(policy, key)
        origin = f"{only_ledger(trusted)}/{register}"
        items = read_items(records, register, ids_from_reference=ids_from_reference)
        run_ = _Run(ReceiptFolder(receipts, register), trusted, origin, timeout)
        with progress_bar("records", len(items), as_json=as_json) as advance:
            waiting = run_.without_receipt(items, advance)
            try:
                asyncio.run(run_.register(server, register, secret, waiting, advance))
            except KeyboardInterrupt:
                run_.interrupted = True
        run_.raise_failure()
        if run_.interrupted:
            run_.tell_interrupted(as_json=as_json)
            raise typer.Exit(INTERRUPTED)
        report(run_.summary(), run_.told(), as_json=as_json)


def _policy(named: Path | None, key: Path) -> Policy:
    path = named or policy_beside(key)
    if named is None and not path.exists():
        raise UsageError(
            f"No witness policy: name one with --policy FILE, or keep it as {path}. {HOW_TO_GET_ONE}.",
            "POLICY_MISSING",
        )
    return read_policy(path)


# Reading and checking


def read_items(path: Path, register: str, *, ids_from_reference: bool) -> list[Item]:
    """Read and check every record of a file.

    Raises UsageError that names every fault with its row, line or record; OSError for an unreadable file.
    """
    items: list[Item] = []
    faults: list[_Fault] = []
    reader = read_records(path, register, reference_id if ids_from_reference else None)
    try:
        for position, data in reader:
            try:
                record = parse_record(data)
                check_place(record, register)
            except RejectedError as error:
                faults += [_Fault(str(position), violation) for violation in error.violations]
            except MalformedError as error:
                faults.append(_Fault(str(position), Violation(Reason.NOT_CANONICAL, str(error))))
            else:
                items.append(Item(data, record.record_id, record.version, record.type, str(position)))
    except (MalformedError, RejectedError) as error:
        # The reader cannot go on after this one.
        faults.append(_unreadable(error))
    if faults:
        raise _not_sent(path, faults)
    if not items:
        raise UsageError(f"{path} holds no record", "NO_RECORDS")
    return items


@dataclass(frozen=True, slots=True)
class _Fault:
    """One rule that one record breaks; `place` is empty where the text says it already."""

    place: str
    violation: Violation

    def told(self) -> str:
        violation = self.violation
        text = f"{violation.field} {violation.description}" if violation.field else violation.description
        if violation.allowed:
            text += f"; one of: {', '.join(violation.allowed)}"
        return f"{self.place}: {text}" if self.place else text

    def as_json(self) -> dict[str, Any]:
        return {"place": self.place, **violation_json(self.violation)}


def _unreadable(error: MalformedError | RejectedError) -> _Fault:
    if isinstance(error, RejectedError) and error.violations:
        text = str(error)
        if error.violations[0].field == "record_id" and "missing" in text:
            text += " (or give --ids-from-reference)"
        return _Fault("", Violation(error.reason, text))
    return _Fault("", Violation(Reason.NOT_CANONICAL, str(error)))


def _not_sent(path: Path, faults: Sequence[_Fault]) -> UsageError:
    lines = [fault.told() for fault in faults[:MOST_SHOWN]]
    if len(faults) > MOST_SHOWN:
        lines.append(f"… and {len(faults) - MOST_SHOWN} more (all of them with --json)")
    lines.append(f"{path}: nothing was sent. Correct the file and run the command again.")
    return UsageError(
        "\n".join(lines),
        faults[0].violation.reason.value,
        {"violations": [fault.as_json() for fault in faults], "registered": 0},
    )


# Registering


@dataclass(slots=True)
class _Run:
    """One run of the command: what it has come to."""

    folder: ReceiptFolder
    policy: Policy
    origin: str
    timeout: float
    registered: int = 0
    before: int = 0
    skipped: int = 0
    pending: int = 0
    indices: list[int] = field(default_factory=list)
    size: int = 0
    witnesses: set[str] = field(default_factory=set)
    failure: CommandError | None = None
    interrupted: bool = False

    def without_receipt(self, items: Sequence[Item], advance: Callable[[int], None]) -> list[Item]:
        """Return the items whose receipts are still to be had, and `advance` over the others.

        A receipt that does not verify is never overwritten: it may be evidence. Raises IntegrityError.
        """
        waiting = []
        for item in items:
            data = self.folder.read(item.record_id, item.version)
            if data is None:
                waiting.append(item)
                continue
            path = self.folder.path(item.record_id, item.version)
            try:
                verified = verify_receipt(data, self.policy)
            except (MalformedError, VerificationError) as error:
                raise IntegrityError(
                    f"{path} does NOT verify: {error}. If the policy is the right one, keep the receipt aside "
                    "as evidence, then run the command again to fetch it anew",
                    reason_of(error),
                    {"receipt": str(path)},
                ) from error
            if not is_receipt_of(verified, item, self.origin):
                raise UsageError(
                    f"{item.place}: {path} is the receipt of other bytes under this record_id and version: "
                    "what was registered cannot be changed. To correct it, register a new version "
                    "(decision.corrected/1)",
                    "RECORD_CONFLICT",
                    {"receipt": str(path), "place": item.place},
                )
            self.skipped += 1
            advance(1)
        return waiting

    async def register(
        self,
        server: str,
        register: str,
        key: SecretKey,
        items: Sequence[Item],
        advance: Callable[[int], None],
    ) -> None:
        """Register items; what fails is kept in `failure`, and nothing more is sent after it."""
        if not items:
            return
        within = min(self.timeout, CONNECT_TIMEOUT)
        async with connect(
            server, policy=self.policy, register=register, key=key, tls=client_tls(), timeout=within
        ) as client:
            for together in _together(batches(items)):
                async for outcome in as_finished(self._jobs(client, together), IN_FLIGHT):
                    if isinstance(outcome, BatchError):
                        self.failure = self.failure or _refused(outcome)
                    else:
                        await self._keep(outcome)
                        advance(len(outcome.receipts))

    def _jobs(self, client: Client, together: Sequence[Batch]) -> Iterator[Any]:
        for batch in together:
            if self.failure is not None:
                return
            yield partial(self._try, client, batch)

    async def _try(self, client: Client, batch: Batch) -> BatchOutcome | BatchError:
        try:
            return await register_batch(client, batch, self.timeout)
        except BatchError as error:
            return error

    async def _keep(self, outcome: BatchOutcome) -> None:
        receipts = [(each.item.record_id, each.item.version, each.receipt) for each in outcome.receipts]
        match outcome.answer:
            case Registered() as answer:
                self.size = max(self.size, answer.checkpoint.size)
                self.witnesses.update(answer.witnesses if answer.sealed else ())
            case Promised() as answer:
                self.pending += len(outcome.items)
                name = answer.submission.submission_id
                await asyncio.to_thread(self.folder.keep_acknowledgement, name, answer.note)
            case Rejected() as answer:
                name = answer.submission.submission_id
                path = await asyncio.to_thread(self.folder.keep_acknowledgement, name, answer.note)
                self.failure = self.failure or UsageError(
                    f"{_span(outcome.items[0].place, outcome.items[-1].place)}: acknowledged, then refused "
                    f"in favour of what came first ({answer.reason}, entry {answer.index}). The "
                    f"acknowledgement is kept as {path}",
                    answer.reason,
                    {"index": answer.index, "acknowledgement": str(path)},
                )
            case None:
                pass
        # Durable before they are counted: a count that is printed must be true after a power cut.
        await asyncio.to_thread(self.folder.keep, receipts)
        before = sum(each.before for each in outcome.receipts)
        self.before += before
        self.registered += len(outcome.receipts) - before
        self.indices += [each.index for each in outcome.receipts]

    def raise_failure(self) -> None:
        """Raise what the run failed with, with the counts of what succeeded beside it."""
        failure = self.failure
        if failure is None and self.pending:
            failure = UnreachableError(
                f"{counted(self.pending)} acknowledged, but not yet under a checkpoint that satisfies the "
                "policy (which witness is missing, the ledger tells: daybook sealing URL). Run the same "
                "command again later for the receipts",
                "PENDING",
            )
        if failure is None:
            return
        done = f"{counted(self.registered + self.before)} registered, with receipts kept"
        again = "Run the same command again to go on"
        if failure.status == Status.BAD_INPUT:
            again = "Once that is put right, run the same command again to go on"
        raise CommandError(
            Status(failure.status),
            failure.reason,
            f"{failure.message}\n{done}. {again}.",
            {**failure.details, **self.summary()},
        ) from failure

    def tell_interrupted(self, *, as_json: bool) -> None:
        """Say what an interrupted run has come to, and how to go on."""
        message = (
            f"Interrupted: {counted(self.registered + self.before)} registered, with receipts kept. Run the "
            "same command again to go on; nothing is registered twice."
        )
        if as_json:
            print_json({"error": {"reason": "INTERRUPTED", "message": message, **self.summary()}})
        else:
            typer.echo(message, err=True)

    def summary(self) -> dict[str, Any]:
        """Return the counts, for JSON."""
        return {
            "register_origin": self.origin,
            "registered": self.registered,
            "registered_before": self.before,
            "skipped": self.skipped,
            "pending": self.pending,
            "first_index": min(self.indices, default=None),
            "last_index": max(self.indices, default=None),
            "size": self.size or None,
            "witnessed": self.policy.quorum.root is not None,
            "witnesses": sorted(self.witnesses),
            "receipts": str(self.folder.folder),
        }

    def told(self) -> Iterator[str]:
        """Return the counts, for people."""
        yield f"{counted(self.registered)} registered in {self.origin}, every answer verified."
        if self.before:
            yield f"{counted(self.before)} had been registered before: receipts fetched and verified."
        if self.skipped:
            yield f"{counted(self.skipped)} passed over: the receipts are here, and verify."
        if self.policy.quorum.root is None:
            yield "Not witnessed: the policy asks for no witness."
        elif self.witnesses:
            yield f"Sealed: the quorum of witnesses is met, by {', '.join(sorted(self.witnesses))}."
        yield f"Receipts: {self.folder.folder}"


def counted(number: int) -> str:
    """Return a number of records in words."""
    return "1 record" if number == 1 else f"{number} records"


def _span(first: str, last: str) -> str:
    return first if first == last else f"{first} to {last}"


def _together(cut: Iterator[Batch]) -> Iterator[list[Batch]]:
    """Group batches that may be under way at once; one that does not stand alone is a group by itself."""
    group: list[Batch] = []
    for batch in cut:
        if not batch.stands_alone:
            yield from ([group] if group else [])
            yield [batch]
            group = []
        else:
            group.append(batch)
    if group:
        yield group


def _refused(failed: BatchError) -> CommandError:
    """Return a failed call in the words of the caller's file."""
    error = failed.error
    details: dict[str, Any] = {"code": error.code.name, **error.metadata}
    shown = []
    for violation in error.violations:
        found = _FIELD.fullmatch(violation.field)
        item = failed.items[int(found[1])] if found and int(found[1]) < len(failed.items) else None
        place = item.place if item else ""
        named = found[2] if found else violation.field
        shown.append(
            {"place": place, "field": named, "reason": violation.reason, "message": violation.description}
        )
    if shown:
        details["violations"] = shown
    reason = error.reason or error.code.name
    if not isinstance(error, RefusedError):
        said = "cannot take it now" if error.reason else "did not answer"
        return UnreachableError(f"The ledger {said}: {error.message}", reason, details)
    lines = [
        ": ".join(part for part in (each["place"], f"{each['field']} {each['message']}".strip()) if part)
        for each in shown[:MOST_SHOWN]
    ]
    lines = lines or [_span(failed.items[0].place, failed.items[-1].place)]
    return UsageError("\n".join([*lines, f"The ledger refused: {error.message}"]), reason, details)
