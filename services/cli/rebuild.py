"""`daybook rebuild`: a distributed ledger's store, derived again from its event log, or compared with it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from ledger.event_log import SUBMISSIONS
from ledger.export import Block, Export, MessageBlock, export_blocks
from ledger.stores.postgres import PostgresStore
from ledger.tiles import decode_entries
from services.cli.brokers import reaching_kafka
from services.cli.reporting import JsonOption, UsageError, expected_failures, progress_bar, report
from services.distributed.comparing import compare
from services.distributed.log_reader import log_reader
from services.distributed.rebuilding import LogEnds, read_ends, rebuild_store
from services.distributed.settings import DistributedSettings, distributed_settings
from services.distributed.signer_marks import raise_marks
from services.importing import check_export, import_export
from services.ledger_files import LedgerDirectory


class Source(StrEnum):
    """What a ledger is derived from."""

    KAFKA = "kafka"
    STORE = "store"


def run(
    source: Annotated[
        Source,
        typer.Option(
            "--from", show_default=False, help="The topics, or the entries that the database holds itself."
        ),
    ],
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing: compare the database with the topics.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a rebuild that was interrupted; no service may run.")
    ] = False,
    into: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="With --from store: keep what was derived, as a copy to read."),
    ] = None,
    signer_marks: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Raise the signer's marks in FILE to the latest notes: without a mark it signs nothing.",
        ),
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Processes to use.")] = os.cpu_count() or 1,
    as_json: JsonOption = False,
) -> None:
    """Derive a distributed ledger's store again from its event log, and compare every root that was signed.

    From Kafka, the empty database that DAYBOOK_DATABASE names (see daybook migrate) is filled: entries, trees,
    positions, outcomes, notes and cosignatures. One that is not empty is compared with the topics instead, and
    so it is with --check: nothing is changed then, and services may be running.

    From the store, its own entries are replayed, into a new DIR or one that is thrown away, and compared with
    every note that it keeps.

    The signer signs nothing for a register that it has no mark of, but size 0. Give the signer of a ledger that
    was moved the marks of the embedded one (DIR/signer.marks); or, where they are lost, make them from the
    latest notes with --signer-marks while the signer is stopped. No mark is ever lowered.

    Exit status 1 where anything differs, and the first difference is named; 2 for bad usage; 3 where Kafka or
    the database cannot be reached. Examples:

        daybook rebuild --from kafka --signer-marks /var/lib/daybook/signer.marks

        daybook rebuild --from kafka --check

        daybook rebuild --from store --into ./copy
    """
    with expected_failures(as_json=as_json):
        settings = distributed_settings()
        if source is Source.KAFKA and into is not None:
            raise UsageError("--into goes with --from store")
        if source is Source.STORE and (check or resume or signer_marks):
            raise UsageError("--check, --resume and --signer-marks go with --from kafka")
        if check and (resume or signer_marks):
            raise UsageError("--check changes nothing: leave --resume and --signer-marks out")
        read_only = check or source is Source.STORE
        with (
            reaching_kafka(settings),
            closing(PostgresStore(settings.conninfo(), read_only=read_only)) as store,
        ):
            if source is Source.STORE:
                told, lines = _from_store(settings, store, into, as_json=as_json)
            elif check or not (resume or _is_empty(store, settings)):
                told, lines = _compare(settings, store, as_json=as_json)
            else:
                told, lines = _rebuild(settings, store, processes, as_json=as_json)
            if signer_marks:
                marked, marks_lines = _mark(signer_marks, settings, store)
                told, lines = {**told, **marked}, [*lines, *marks_lines]
        report(told, lines, as_json=as_json)


_Told = tuple[dict[str, Any], list[str]]


def _is_empty(store: PostgresStore, settings: DistributedSettings) -> bool:
    positions = (store.position(SUBMISSIONS, each) for each in range(settings.partitions))
    return not store.heads() and not any(each.next_offset for each in positions if each is not None)


def _rebuild(settings: DistributedSettings, store: PostgresStore, processes: int, *, as_json: bool) -> _Told:
    ends = asyncio.run(_ends(settings))
    with progress_bar("Replaying messages", sum(ends.messages.values()), as_json=as_json) as advance:
        began = time.perf_counter()
        rebuilt = asyncio.run(rebuild_store(settings, store, ends, processes, advance))
        seconds = time.perf_counter() - began
    entries = sum(rebuilt.registers.values())
    lines = [
        f"Rebuilt {rebuilt.origin}: {len(rebuilt.registers)} registers, {entries} entries, from "
        f"{rebuilt.messages} messages. Every root that was signed is the same ({rebuilt.notes.messages} notes)."
    ]
    if rebuilt.notes.dropped:
        lines.append(
            f"{rebuilt.notes.dropped} signature lines were left out: no witness policy of this ledger names "
            "whose they are, so nobody can check them."
        )
    lines += [f"ALARM: quarantined: {each}" for each in rebuilt.quarantined]
    lines += [f"ALARM: not kept: {each}" for each in rebuilt.notes.named]
    told = {
        "dropped": rebuilt.notes.dropped,
        "entries": entries,
        "messages": rebuilt.messages,
        "notes": rebuilt.notes.messages,
        "origin": rebuilt.origin,
        "quarantined": list(rebuilt.quarantined),
        "rebuilt": True,
        "registers": dict(rebuilt.registers),
        "seconds": round(seconds, 3),
        "unverified": list(rebuilt.notes.named),
    }
    return told, lines


async def _ends(settings: DistributedSettings) -> LogEnds:
    async with log_reader(settings) as reader:
        return await read_ends(reader, settings)


def _compare(settings: DistributedSettings, store: PostgresStore, *, as_json: bool) -> _Told:
    positions = (store.position(SUBMISSIONS, each) for each in range(settings.partitions))
    total = sum(each.next_offset for each in positions if each is not None)
    with (
        TemporaryDirectory(prefix="daybook-") as folder,
        progress_bar("Comparing messages", total, as_json=as_json) as advance,
    ):
        compared = asyncio.run(compare(settings, store, Path(folder), advance))
    entries = sum(compared.registers.values())
    lines = [
        f"The database is what the topics make: {len(compared.registers)} registers, {entries} entries, from "
        f"{compared.messages} messages. Every root that was signed is the same. Nothing was changed."
    ]
    if compared.behind:
        lines.append(f"{compared.behind} messages more are in the topics, and were not done yet.")
    if compared.quarantined:
        lines.append(f"ALARM: {compared.quarantined} messages are quarantined.")
    lines += [f"ALARM: in the topic: {each}" for each in compared.notes.named]
    told = {
        "behind": compared.behind,
        "entries": entries,
        "messages": compared.messages,
        "notes": compared.notes.messages,
        "origin": compared.origin,
        "quarantined": compared.quarantined,
        "rebuilt": False,
        "registers": dict(compared.registers),
        "unverified": list(compared.notes.named),
    }
    return told, lines


def _from_store(
    settings: DistributedSettings, store: PostgresStore, into: Path | None, *, as_json: bool
) -> _Told:
    heads = store.heads()
    total = sum(head.size for head in heads.values())
    with progress_bar("Replaying entries", total, as_json=as_json) as advance:
        source = Export(settings.origin, _watched(export_blocks(store, heads), advance))
        if into is None:
            check_export(source, None)
        else:
            if into.exists() and (not into.is_dir() or any(into.iterdir())):
                raise UsageError(f"{into} is there already: name a new directory")
            import_export(LedgerDirectory(into), source, None)
    lines = [f"The entries make every root that was signed: {len(heads)} registers, {total} entries."]
    if into is not None:
        lines.append(f"{into} is a copy of {settings.origin} for reading. Check it with: daybook fsck {into}")
    told = {
        "entries": total,
        "origin": settings.origin,
        "rebuilt": into is not None,
        "registers": {name: head.size for name, head in heads.items()},
    }
    return told, lines


def _watched(blocks: Iterator[Block], advance: Callable[[int], None]) -> Iterator[Block]:
    for block in blocks:
        yield block
        if isinstance(block, MessageBlock):
            advance(len(decode_entries(block.value)))


def _mark(path: Path, settings: DistributedSettings, store: PostgresStore) -> _Told:
    marked = raise_marks(path, store, settings.origin)
    lines = [f"{path} has a mark of every register that was signed."]
    lines += [
        f"WARNING: {register}: the signer has signed size {size}, which the database has not reached."
        for register, size in marked.items()
    ]
    return {"signed_beyond": dict(marked)}, lines
