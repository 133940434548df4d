"""`daybook export`: the event log of a ledger, in one file."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
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
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The ledger's directory.")],
    file: Annotated[
        Path, typer.Argument(metavar="[FILE]", help="Where to write; - or nothing is stdout.")
    ] = STDOUT,
    as_json: JsonOption = False,
) -> None:
    """Write the event log of a ledger: every message, checkpoint note and cosignature, in one file.

    From it the same entries and the same roots can be made again anywhere, with `daybook import`. The ledger
    may be served meanwhile: what it holds at this moment is exported. FILE is replaced when all is written.
    Examples:

        daybook export ./ledger ledger.export

        daybook export ./ledger | ssh archive.example daybook import ./copy -
    """
    with expected_failures(as_json=as_json):
        if file == STDOUT and as_json:
            raise UsageError("--json needs a FILE to write to: the export itself goes to stdout")
        if file.exists() and not file.is_file():
            raise UsageError(f"{file} is no file")
        files = LedgerDirectory(directory)
        files.require_ledger()
        with closing(SqliteStore(files.store)) as store:
            heads = store.heads()
            exporting = _Exporting(opening_of(store).origin)
            total = sum(head.size for head in heads.values())
            with progress_bar("Exporting entries", total, as_json=as_json) as advance:
                pieces = exporting.pieces(store, heads, advance)
                if file == STDOUT:
                    _write(pieces, sys.stdout.buffer)
                else:
                    _replace(file, pieces)
        if file == STDOUT:
            typer.echo("\n".join(_lines(exporting, heads, "stdout")), err=True)
        else:
            report(_value(exporting, heads, file), _lines(exporting, heads, str(file)), as_json=as_json)


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
