"""`daybook export`: the event log of a ledger, in one file."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory
from typing import IO, Annotated, Any, Final

import typer

from ledger.export import Block, MessageBlock, export_blocks, export_file, opening_of
from ledger.store import Head, Store
from ledger.stores.sqlite import SqliteStore
from ledger.tiles import decode_entries
from services.cli.reporting import JsonOption, UsageError, expected_failures, progress_bar, report
from services.ledger_files import LedgerDirectory, move_durably

STDOUT: Final = Path("-")


def run(
    directory: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DIR]", show_default=False, help="The ledger's directory; none for a distributed ledger."
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", show_default=False, help="Where to write; - or nothing is stdout."),
    ] = None,
    from_database: Annotated[
        bool, typer.Option("--from-database", help="Export a distributed ledger, from its PostgreSQL.")
    ] = False,
    kafka: Annotated[
        bool, typer.Option("--kafka", help="Export a distributed ledger, derived anew from its topics.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write the event log of a ledger: every message, checkpoint note and cosignature, in one file.

    From it the same entries and the same roots can be made again anywhere, with `daybook import`. The ledger
    may be served meanwhile: what it holds at this moment is exported. FILE is replaced when all is written.

    A distributed ledger is named by the environment (DAYBOOK_…): its database, or with --kafka its topics,
    which are replayed into a scratch store first. Both, and an embedded ledger with the same event log, give
    the same file. Examples:

        daybook export ./ledger ledger.export

        daybook export ./ledger | ssh archive.example daybook import ./copy -

        daybook export --from-database ledger.export
    """
    with expected_failures(as_json=as_json), ExitStack() as stack:
        if from_database and kafka:
            raise UsageError("either --from-database or --kafka")
        if from_database or kafka:
            if file is not None:
                raise UsageError("a distributed ledger has no DIR: daybook export --from-database FILE")
            directory, file = None, directory
        elif directory is None:
            raise UsageError("DIR is missing: daybook export DIR FILE")
        target = file or STDOUT
        if target == STDOUT and as_json:
            raise UsageError("--json needs a FILE to write to: the export itself goes to stdout")
        if target.exists() and not target.is_file():
            raise UsageError(f"{target} is no file")
        if directory is not None:
            store = _embedded(directory)
        else:
            store = _from_topics(stack, as_json=as_json) if kafka else _database()
        stack.enter_context(closing(store))
        heads = store.heads()
        exporting = _Exporting(opening_of(store).origin)
        if from_database:
            _require_origin(exporting.origin)
        total = sum(head.size for head in heads.values())
        with progress_bar("Exporting entries", total, as_json=as_json) as advance:
            pieces = exporting.pieces(store, heads, advance)
            if target == STDOUT:
                _write(pieces, sys.stdout.buffer)
            else:
                _replace(target, pieces)
        if target == STDOUT:
            typer.echo("\n".join(_lines(exporting, heads, "stdout")), err=True)
        else:
            report(_value(exporting, heads, target), _lines(exporting, heads, str(target)), as_json=as_json)


def _embedded(directory: Path) -> Store:
    files = LedgerDirectory(directory)
    files.require_ledger()
    return SqliteStore(files.store)


def _database() -> Store:
    # Loaded here, and below: only who has a distributed ledger needs them.
    from ledger.stores.postgres import PostgresStore
    from services.distributed.settings import distributed_settings

    return PostgresStore(distributed_settings().conninfo(), read_only=True)


def _require_origin(origin: str) -> None:
    from services.distributed.settings import distributed_settings

    wanted = distributed_settings().origin
    if origin != wanted:
        raise UsageError(f"the database holds {origin}, and the settings are of {wanted}")


def _from_topics(stack: ExitStack, *, as_json: bool) -> Store:
    """Derive a ledger from its topics into a scratch store, which is gone when `stack` ends."""
    import asyncio

    from services.cli.brokers import reaching_kafka
    from services.distributed.log_reader import log_reader
    from services.distributed.rebuilding import Derived, derive, read_ends
    from services.distributed.settings import distributed_settings

    settings = distributed_settings()
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="daybook-")))
    store = SqliteStore(folder / "scratch.sqlite3")

    async def derived() -> Derived:
        async with log_reader(settings) as reader:
            ends = await read_ends(reader, settings)
        with progress_bar("Replaying messages", sum(ends.messages.values()), as_json=as_json) as advance:
            return await derive(settings, store, ends, advance)

    with reaching_kafka(settings):
        made = asyncio.run(derived())
    for each in (*made.quarantined, *made.notes.named):
        typer.echo(f"ALARM: left out: {each}", err=True)
    return store


@dataclass(slots=True)
class _Exporting:
    """An export under way, and what has gone out so far."""

    origin: str
    messages: int = 0
    notes: int = 0
    size: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    def pieces(
        self, store: Store, heads: Mapping[str, Head], advance: Callable[[int], None]
    ) -> Iterator[bytes]:
        """Yield the file, counting."""
        for piece in export_file(self.origin, self._counted(export_blocks(store, heads), advance)):
            self.size += len(piece)
            self.digest.update(piece)
            yield piece

    def _counted(self, blocks: Iterable[Block], advance: Callable[[int], None]) -> Iterator[Block]:
        for block in blocks:
            yield block
            if isinstance(block, MessageBlock):
                self.messages += 1
                advance(len(decode_entries(block.value)))
            else:
                self.notes += 1


def _write(pieces: Iterable[bytes], out: IO[bytes]) -> None:
    for piece in pieces:
        out.write(piece)
    out.flush()


def _replace(file: Path, pieces: Iterable[bytes]) -> None:
    """Write a file of mode 0600 beside, and put it in place whole."""
    with NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}.", delete=False) as beside:
        try:
            _write(pieces, beside)
            os.fsync(beside.fileno())
            move_durably(Path(beside.name), file)
        except BaseException:
            Path(beside.name).unlink(missing_ok=True)
            raise


def _value(exporting: _Exporting, heads: Mapping[str, Head], file: Path) -> dict[str, Any]:
    return {
        "bytes": exporting.size,
        "file": str(file),
        "messages": exporting.messages,
        "notes": exporting.notes,
        "origin": exporting.origin,
        "registers": {name: head.size for name, head in heads.items()},
        "sha256": exporting.digest.hexdigest(),
    }


def _lines(exporting: _Exporting, heads: Mapping[str, Head], where: str) -> list[str]:
    entries = sum(head.size for head in heads.values())
    return [
        f"Exported {exporting.origin} to {where}: {len(heads)} registers, {entries} entries, "
        f"{exporting.messages} messages, {exporting.notes} checkpoint notes, {exporting.size} bytes.",
        f"SHA-256 {exporting.digest.hexdigest()}",
    ]
