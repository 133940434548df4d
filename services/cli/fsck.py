"""`daybook fsck`: check a whole store, on every core."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ledger.checkpoints import Checkpoint
from ledger.export import opening_of
from ledger.fsck import Ground, Report, RunSpans, Span, SpanReport, check, check_span, stand_on
from ledger.notes import VerifierKey
from ledger.store import Store
from ledger.stores.sqlite import SqliteStore
from services.cli.policy_files import read_policy
from services.cli.reporting import JsonOption, Status, UsageError, expected_failures, progress_bar, report
from services.ledger_files import LedgerDirectory, WriterLock, public_path, read_public_key
from services.signing import HighWaterMarks

if TYPE_CHECKING:
    from services.distributed.settings import DistributedSettings

_GOVERNING: Final = "/governing"
_FEW_SPANS: Final = 4

_ground: Ground | None = None


def run(
    directory: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DIR]", show_default=False, help="The ledger's directory; none with --database."
        ),
    ] = None,
    database: Annotated[
        bool, typer.Option("--database", help="Check a distributed ledger, in its PostgreSQL.")
    ] = False,
    policy: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --database: a policy file with the log key that you hold."),
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Processes to use.")] = os.cpu_count() or 1,
    as_json: JsonOption = False,
) -> None:
    """Check a store that nobody serves: derive everything again from the entries, and compare.

    Every entry, signature, tile, root, checkpoint note, cosignature and index row. Nothing is changed. Exit
    status 0 when all holds, 1 with every problem named when something does not, 3 when the store cannot be
    read.

    A distributed ledger is in the database that DAYBOOK_DATABASE names; its services must be stopped. Whether
    it is what its topics make, daybook rebuild --check tells. Examples:

        daybook fsck ./ledger

        daybook fsck --database --policy policy
    """
    with expected_failures(as_json=as_json):
        if database:
            if directory is not None:
                raise UsageError("with --database there is no DIR")
            result = _check_database(policy, processes, as_json=as_json)
        elif directory is None:
            raise UsageError("DIR is missing: daybook fsck DIR")
        elif policy is not None:
            raise UsageError("--policy goes with --database: a directory has the log key itself")
        else:
            files = LedgerDirectory(directory)
            files.require_ledger()
            with WriterLock(files):
                result = check_directory(files, processes, as_json=as_json)
        _tell(result, as_json=as_json)
        if result.problems:
            raise typer.Exit(Status.INTEGRITY_FAILURE)


def _tell(result: Report, *, as_json: bool) -> None:
    lines = [f"{problem.register or 'store'}: {problem.place}: {problem.what}" for problem in result.problems]
    verdict = f"{len(result.problems)} problems found" if result.problems else "Everything holds"
    if result.unchecked:
        lines.append(
            f"{result.unchecked} cosignatures are not checked: no witness policy that this ledger published "
            "names their keys."
        )
    cosignatures = f", {result.cosignatures} cosignatures" if result.cosignatures else ""
    lines.append(
        f"{verdict}: {result.registers} registers, {result.entries} entries, "
        f"{result.submissions} submissions, {result.notes} checkpoint notes{cosignatures}."
    )
    report({"ok": not result.problems, **asdict(result)}, lines, as_json=as_json)


def check_directory(directory: LedgerDirectory, processes: int, *, as_json: bool) -> Report:
    """Check the store of a directory. Raises what opening it raises."""
    log = read_public_key(public_path(directory.log_key))

    def marks(origin: str, registers: Iterable[str]) -> dict[str, Checkpoint]:
        return _marks(directory, origin, registers)

    return _check_store(directory.store, log, marks, processes, as_json=as_json)


_Marks = Callable[[str, Iterable[str]], Mapping[str, Checkpoint]]


def _check_store(
    place: Path | str, log: VerifierKey, marks: _Marks, processes: int, *, as_json: bool
) -> Report:
    _stand_on(place, log)
    ground = _stood_on()
    try:
        heads = ground.store.heads()
        total = sum(head.size for head in heads.values())
        with (
            _runner(place, log, processes) as run_spans,
            progress_bar("Checking entries", total, as_json=as_json) as advance,
        ):
            return check(ground, run_spans, marks(ground.origin, heads), advance)
    finally:
        ground.store.close()


def _check_database(policy: Path | None, processes: int, *, as_json: bool) -> Report:
    # Loaded here: only who has a distributed ledger needs them.
    from services.distributed.settings import distributed_settings

    settings = distributed_settings()
    log = _trusted(policy, settings) if policy else _stated(settings)
    return _check_store(settings.conninfo(), log, _no_marks, processes, as_json=as_json)


def _trusted(policy: Path, settings: DistributedSettings) -> VerifierKey:
    keys = read_policy(policy).log_keys(f"{settings.origin}{_GOVERNING}")
    if len(keys) != 1:
        raise UsageError(f"{policy} names {len(keys)} log keys of {settings.origin}, and must name one")
    return keys[0]


def _stated(settings: DistributedSettings) -> VerifierKey:
    """Return the log key that the ledger was opened with, and say that it was taken on trust."""
    with closing(_open(settings.conninfo())) as store:
        opening = opening_of(store)
    if opening.origin != settings.origin:
        raise UsageError(f"the database holds {opening.origin}, and the settings are of {settings.origin}")
    stated = opening.ledger_key
    typer.echo(f"The log key is the one that entry 0 states; compare it, or give --policy: {stated}", err=True)
    return VerifierKey.parse(stated)


def _no_marks(_origin: str, _registers: Iterable[str]) -> Mapping[str, Checkpoint]:
    """Return nothing: the signer has its marks, elsewhere."""
    return {}


def _marks(directory: LedgerDirectory, origin: str, registers: Iterable[str]) -> dict[str, Checkpoint]:
    """Return the signer's marks by register origin; none in a copy, which is not given any."""
    if not directory.marks.exists():
        return {}
    with closing(HighWaterMarks(directory.marks)) as marks:
        latest = (marks.latest(f"{origin}/{register}") for register in registers)
        return {mark.origin: mark for mark in latest if mark is not None}


@contextmanager
def _runner(place: Path | str, log: VerifierKey, processes: int) -> Iterator[RunSpans]:
    if processes == 1:
        yield _here
        return
    with ProcessPoolExecutor(
        processes, mp_context=get_context("spawn"), initializer=_stand_on, initargs=(place, log)
    ) as pool:

        def run_spans(spans: Sequence[Span]) -> Iterable[SpanReport]:
            return _here(spans) if len(spans) <= _FEW_SPANS else pool.map(_check, spans)

        yield run_spans


def _here(spans: Sequence[Span]) -> Iterable[SpanReport]:
    return map(_check, spans)


def _stand_on(place: Path | str, log: VerifierKey) -> None:
    """Open the store in this process, once: an SQLite file, or a PostgreSQL connection string."""
    global _ground
    _ground = stand_on(_open(place), log.name.removesuffix(_GOVERNING), log)


def _open(place: Path | str) -> Store:
    if isinstance(place, Path):
        return SqliteStore(place)
    from ledger.stores.postgres import PostgresStore

    return PostgresStore(place, read_only=True)


def _stood_on() -> Ground:
    assert _ground is not None  # noqa: S101 - _stand_on has run
    return _ground


def _check(span: Span) -> SpanReport:
    return check_span(_stood_on(), span)
