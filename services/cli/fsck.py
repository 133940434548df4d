"""`daybook fsck`: check a whole store, on every core."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Final

import typer

from ledger.checkpoints import Checkpoint
from ledger.fsck import Ground, Report, RunSpans, Span, SpanReport, check, check_span, stand_on
from ledger.notes import VerifierKey
from ledger.stores.sqlite import SqliteStore
from services.cli.reporting import JsonOption, Status, expected_failures, progress_bar, report
from services.ledger_files import LedgerDirectory, WriterLock, public_path, read_public_key
from services.signing import HighWaterMarks

_GOVERNING: Final = "/governing"
_FEW_SPANS: Final = 4

_ground: Ground | None = None


def run(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The ledger's directory.")],
    processes: Annotated[int, typer.Option(min=1, help="Processes to use.")] = os.cpu_count() or 1,
    as_json: JsonOption = False,
) -> None:
    """Check a store that nobody serves: derive everything again from the entries, and compare.

    Every entry, signature, tile, root, checkpoint note, cosignature and index row. Nothing is changed. Exit
    status 0 when all holds, 1 with every problem named when something does not, 3 when the store cannot be
    read. Example:

        daybook fsck ./ledger
    """
    with expected_failures(as_json=as_json):
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
    _stand_on(directory.store, log)
    ground = _stood_on()
    try:
        heads = ground.store.heads()
        total = sum(head.size for head in heads.values())
        with (
            _runner(directory.store, log, processes) as run_spans,
            progress_bar("Checking entries", total, as_json=as_json) as advance,
        ):
            return check(ground, run_spans, _marks(directory, ground.origin, heads), advance)
    finally:
        ground.store.close()


def _marks(directory: LedgerDirectory, origin: str, registers: Iterable[str]) -> dict[str, Checkpoint]:
    """Return the signer's marks by register origin; none in a copy, which is not given any."""
    if not directory.marks.exists():
        return {}
    with closing(HighWaterMarks(directory.marks)) as marks:
        latest = (marks.latest(f"{origin}/{register}") for register in registers)
        return {mark.origin: mark for mark in latest if mark is not None}


@contextmanager
def _runner(path: Path, log: VerifierKey, processes: int) -> Iterator[RunSpans]:
    if processes == 1:
        yield _here
        return
    with ProcessPoolExecutor(
        processes, mp_context=get_context("spawn"), initializer=_stand_on, initargs=(path, log)
    ) as pool:

        def run_spans(spans: Sequence[Span]) -> Iterable[SpanReport]:
            return _here(spans) if len(spans) <= _FEW_SPANS else pool.map(_check, spans)

        yield run_spans


def _here(spans: Sequence[Span]) -> Iterable[SpanReport]:
    return map(_check, spans)


def _stand_on(path: Path, log: VerifierKey) -> None:
    """Open the store in this process, once."""
    global _ground
    store = SqliteStore(path)
    _ground = stand_on(store, log.name.removesuffix(_GOVERNING), log)


def _stood_on() -> Ground:
    assert _ground is not None  # noqa: S101 - _stand_on has run
    return _ground


def _check(span: Span) -> SpanReport:
    return check_span(_stood_on(), span)
