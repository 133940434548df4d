"""`daybook import`: a copy of a ledger from its export, the rest of a restored one, or the topics of one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ledger.export import Block, Export, MessageBlock, read_export
from ledger.witnessing import Policy
from services.cli.policy_files import read_policy
from services.cli.reporting import JsonOption, UsageError, expected_failures, progress_bar, report
from services.importing import Imported, import_export
from services.ledger_files import LedgerDirectory

STDIN: Final = Path("-")


def run(
    directory: Annotated[
        Path,
        typer.Argument(
            metavar="[DIR]",
            show_default=False,
            help="A ledger's directory; or a new one, for a copy to read. None with --kafka.",
        ),
    ],
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", show_default=False, help="The export; - is stdin, but not for --kafka."),
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Policy file with the log key that you hold: the export must be its."
        ),
    ] = None,
    kafka: Annotated[
        bool, typer.Option("--kafka", help="Fill the empty topics of a distributed ledger: no DIR is given.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Catch up after a restore, make a copy of a ledger to read, or move a ledger to Kafka; from an export.

    The whole export is checked first: every signature, every root, every note. A ledger that was restored
    from an older copy must be a beginning of it, and then gets what is missing; a difference ends with exit
    status 1 and the two notes, and nothing is changed. A new directory gets the store without the ledger's
    keys: it can be checked (`daybook fsck`) and exported, not served.

    With --kafka the messages and notes go to the topics that DAYBOOK_KAFKA and DAYBOOK_TOPIC_PREFIX name
    (see daybook topics). These are empty, or hold a beginning of the export, as an interrupted import leaves
    it: then the rest is sent. Fill the database from them with daybook rebuild. Examples:

        daybook import ./ledger ledger.export

        daybook import ./copy ledger.export --policy policy

        daybook import ledger.export --kafka
    """
    with expected_failures(as_json=as_json), ExitStack() as stack:
        trusted = read_policy(policy) if policy else None
        if kafka:
            if file is not None:
                raise UsageError("with --kafka there is no DIR: daybook import FILE --kafka")
            _fill_topics(directory, trusted, as_json=as_json)
            return
        if file is None:
            raise UsageError("FILE is missing: daybook import DIR FILE")
        if file == STDIN:
            stream, size = stack.enter_context(nullcontext(sys.stdin.buffer)), 0
        else:
            stream, size = stack.enter_context(file.open("rb")), file.stat().st_size
        with progress_bar("Checking bytes", size, as_json=as_json or not size) as advance:
            read = read_export(stream)
            source = Export(read.origin, _watched(read.blocks, advance))
            imported = import_export(LedgerDirectory(directory), source, trusted)
        report(_value(imported), _lines(imported, directory, file), as_json=as_json)


def _fill_topics(file: Path, trusted: Policy | None, *, as_json: bool) -> None:
    # Loaded here: only who has a distributed ledger needs them.
    import asyncio

    from services.cli.brokers import reaching_kafka
    from services.distributed.log_filling import fill_topics
    from services.distributed.settings import distributed_settings
    from services.importing import check_export

    settings = distributed_settings()
    if not file.is_file():
        raise UsageError(f"{file} is no file: with --kafka an export is read more than once")
    size = file.stat().st_size
    with file.open("rb") as stream, progress_bar("Checking bytes", size, as_json=as_json) as advance:
        read = read_export(stream)
        if read.origin != settings.origin:
            raise UsageError(f"{file} is of {read.origin}, and the settings are of {settings.origin}")
        check_export(Export(read.origin, _watched(read.blocks, advance)), trusted)
    with file.open("rb") as stream, progress_bar("Sending bytes", size, as_json=as_json) as advance:

        def blocks() -> Iterator[Block]:
            stream.seek(0)
            return read_export(stream).blocks

        with reaching_kafka(settings):
            filled = asyncio.run(fill_topics(settings, blocks, advance))
    sent = f"{filled.messages} messages and {filled.notes} checkpoint notes"
    lines = [f"Sent {sent} of {read.origin} to Kafka."]
    if filled.messages_there:
        lines.append(
            f"{filled.messages_there} messages and {filled.notes_there} checkpoint notes were there already."
        )
    lines.append("Next: daybook rebuild --from kafka")
    report({"origin": read.origin, **asdict(filled)}, lines, as_json=as_json)


def _watched(blocks: Iterator[Block], advance: Callable[[int], None]) -> Iterator[Block]:
    for block in blocks:
        yield block
        advance(len(block.value if isinstance(block, MessageBlock) else block.note))


def _value(imported: Imported) -> dict[str, Any]:
    return {**asdict(imported), "changed": imported.changed}


def _lines(imported: Imported, directory: Path, file: Path) -> Iterator[str]:
    for one in imported.recovered:
        yield f"{one.register}: {one.recovered_size} entries, of which {one.stored_size} were here."
    if imported.notes or imported.cosignatures:
        yield f"{imported.notes} checkpoint notes and {imported.cosignatures} cosignatures were not here."
    if imported.dropped:
        yield (
            f"{imported.dropped} signature lines were left out: no witness policy of this ledger names whose "
            "they are, so nobody can check them."
        )
    for register, count in imported.uncovered.items():
        yield f"{register}: no checkpoint note covers the last {count} entries; their authors' signatures do."
    for register, size in imported.signed_beyond.items():
        yield (
            f"WARNING: {register}: this ledger has signed size {size}, and has {imported.sizes[register]}. "
            "Find a later export: until then it cannot be served."
        )
    if not imported.changed:
        yield f"{file} holds nothing that {directory} lacks: nothing was changed."
    if imported.is_copy:
        yield (
            f"{directory} is a copy of {imported.origin} for reading, without its keys: it cannot be served. "
            f"Check it with: daybook fsck {directory}"
        )
    elif imported.recovered:
        yield (
            f"Next: daybook serve {directory}. It asks the witnesses first whether they know of more, and then "
            "declares the restore in the governing register."
        )
