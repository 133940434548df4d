"""Importing an export: a new copy of a ledger, or the rest of one that was restored from an older copy.

Everything is checked before anything is changed: the export is first replayed whole into a scratch store
beside the ledger's own, which takes as much disk as the ledger does and little memory. An export that is cut
off, altered or of another history thus leaves the directory as it was. What is missing is then replayed from
the scratch store. Nothing is signed here, and nothing appended that the event log does not hold.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ledger.catch_up import KeptNotes, Missing, catch_up, covering_note, in_order, keep_notes, missing
from ledger.checkpoints import Checkpoint
from ledger.errors import SignatureError, SplitViewError, StoreError, VerificationError
from ledger.export import Export
from ledger.ledger import Ledger
from ledger.notes import VerifierKey, split_note
from ledger.rebuild import Rebuilt, rebuild
from ledger.stores.sqlite import SqliteStore
from ledger.witnessing import Policy
from services.ledger_files import (
    DirectoryError,
    LedgerDirectory,
    WriterLock,
    move_durably,
    public_path,
    read_public_key,
    read_secret_key,
    write_durably,
)
from services.restoring import read_pending, write_pending
from services.signing import HighWaterMarks


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import came to.

    `is_copy` is True where the directory has no secret log key: it is for reading. `recovered` says what was
    missing; `sizes` are the registers' sizes now, `exported` those of the export. `uncovered` has the number
    of entries that no note of the export covers, `signed_beyond` the size that the signer has signed of a
    register that is still smaller. `dropped` counts signature lines of nobody whom the ledger's policies name.
    """

    origin: str
    is_copy: bool
    recovered: tuple[Missing, ...]
    notes: int
    cosignatures: int
    dropped: int
    sizes: Mapping[str, int]
    exported: Mapping[str, int]
    uncovered: Mapping[str, int]
    signed_beyond: Mapping[str, int]

    @property
    def changed(self) -> bool:
        """Whether the directory now holds anything that it lacked."""
        return bool(self.recovered or self.notes or self.cosignatures)


def import_export(directory: LedgerDirectory, source: Export, policy: Policy | None) -> Imported:
    """Bring a directory to where an export ends. `policy` names the log key that the reader trusts, if given.

    Raises MalformedError for an export that is none; VerificationError where it does not hold, or differs
    from what the directory holds or its signer has signed; DirectoryError where it is of another ledger or
    the directory cannot take it; StoreError. Nothing is changed then, except by a StoreError or a crash while
    entries are brought in: the same import, run again, goes on.
    """
    if directory.waits():
        raise DirectoryError(directory.not_open_yet())
    with _made(directory), WriterLock(directory), _scratch(directory) as scratch:
        with closing(SqliteStore(scratch)) as store:
            rebuilt = rebuild(store, source, policies=[policy] if policy else [])
            key = _check_export(directory, rebuilt, policy)
            if directory.store.exists():
                with closing(SqliteStore(directory.store)) as own:
                    return _catch_up(directory, Ledger.open(own, source.origin), rebuilt)
            _check_marks(directory, rebuilt.ledger)
            exported = _sizes(rebuilt.ledger)
        # Nothing of a ledger is here: the scratch store, closed, is the one to be.
        lacking = [Missing(name, 0, size) for name, size in exported.items() if size]
        _begin(directory, lacking)
        _place(directory, scratch, key)
        with closing(SqliteStore(directory.store)) as own:
            held = Ledger.open(own, source.origin)
            brought = KeptNotes(rebuilt.notes, rebuilt.cosignatures)
            return _end(directory, held, rebuilt, exported, lacking, brought)


def _sizes(ledger: Ledger) -> dict[str, int]:
    heads = ledger.heads()
    return {register: heads[register].size for register in in_order(ledger)}


def _catch_up(directory: LedgerDirectory, held: Ledger, rebuilt: Rebuilt) -> Imported:
    lacking = missing(held, rebuilt.ledger)
    _check_marks(directory, rebuilt.ledger)
    _begin(directory, lacking)
    # A crash above leaves the older copy. A crash below leaves it further on: what it held first is written.
    catch_up(held, rebuilt.ledger, lacking)
    brought = keep_notes(held, rebuilt.ledger.store)
    return _end(directory, held, rebuilt, _sizes(rebuilt.ledger), lacking, brought)


def _begin(directory: LedgerDirectory, lacking: Sequence[Missing]) -> None:
    """Write what is about to be recovered, before anything is. A copy for reading declares nothing."""
    if lacking and not directory.is_copy:
        write_pending(directory, read_pending(directory).merged(lacking))


def _end(
    directory: LedgerDirectory,
    held: Ledger,
    rebuilt: Rebuilt,
    exported: Mapping[str, int],
    lacking: Sequence[Missing],
    brought: KeptNotes,
) -> Imported:
    """Let the signer know of what it signed before the restore, and the next start of what to declare."""
    beyond = {} if directory.is_copy else _raise_marks(directory, held)
    pending = read_pending(directory)
    if pending.restored and pending.governing_size is None:
        write_pending(directory, pending.completed({name: head.size for name, head in held.heads().items()}))
    return Imported(
        origin=held.origin,
        is_copy=directory.is_copy,
        recovered=tuple(lacking),
        notes=brought.notes,
        cosignatures=brought.cosignatures,
        dropped=rebuilt.dropped,
        sizes=_sizes(held),
        exported=exported,
        uncovered=_uncovered(held),
        signed_beyond=beyond,
    )


def _uncovered(held: Ledger) -> dict[str, int]:
    found = {}
    for register, head in held.heads().items():
        stored = held.store.note(register, head.size)
        covered = stored.size if stored else 0
        if head.size > covered:
            found[register] = head.size - covered
    return found


# What the export is checked against.


def _check_export(directory: LedgerDirectory, rebuilt: Rebuilt, policy: Policy | None) -> VerifierKey:
    """Return the log key that the export's ledger was opened with, where it is the one that is expected."""
    key = _unaltered(rebuilt)
    own = _own_key(directory)
    if own is not None and own.name != key.name:
        raise DirectoryError(f"the export is of {key.name}, and {directory.root} of {own.name}")
    if own is not None and own.public != key.public:
        raise SignatureError(
            f"the export's ledger was opened with the key {key}, that of {directory.root} with {own}"
        )
    if policy is not None:
        _check_policy(key, rebuilt, policy)
    return key


def _unaltered(rebuilt: Rebuilt) -> VerifierKey:
    """Return the log key of a replayed export. Raises VerificationError where any of it was altered."""
    if rebuilt.quarantined:
        raise VerificationError(
            f"the export has {len(rebuilt.quarantined)} messages that registration cannot have made, so it was "
            f"altered: {rebuilt.quarantined[0]}"
        )
    opened = rebuilt.ledger.fold.opened
    assert opened is not None  # noqa: S101 - rebuild refuses anything else
    return VerifierKey.parse(opened.ledger_key)


def _check_policy(key: VerifierKey, rebuilt: Rebuilt, policy: Policy) -> None:
    trusted = policy.log_keys(key.name)
    if not trusted:
        raise DirectoryError(f"the policy does not name the ledger {rebuilt.ledger.origin}")
    if key.public not in {each.public for each in trusted}:
        raise SignatureError(
            f"the export's ledger was opened with the key {key}, which the policy does not trust"
        )


def check_export(source: Export, policy: Policy | None) -> None:
    """Replay an export whole, in a scratch store that is gone at the end, and check it as an import does.

    Raises as `import_export` does.
    """
    with (
        TemporaryDirectory(prefix="daybook-") as folder,
        closing(SqliteStore(Path(folder) / "scratch")) as store,
    ):
        rebuilt = rebuild(store, source, policies=[policy] if policy else [])
        key = _unaltered(rebuilt)
        if policy is not None:
            _check_policy(key, rebuilt, policy)


def _own_key(directory: LedgerDirectory) -> VerifierKey | None:
    if not directory.is_copy:
        return read_secret_key(directory.log_key).verifier
    public = public_path(directory.log_key)
    return read_public_key(public) if public.exists() else None


def _check_marks(directory: LedgerDirectory, rebuilt: Ledger) -> None:
    """Refuse an export of another history than the signer has signed. Raises SplitViewError."""
    if directory.is_copy or not directory.marks.exists():
        return
    with closing(HighWaterMarks(directory.marks)) as marks:
        for register, head in rebuilt.heads().items():
            mark = marks.latest(rebuilt.register_origin(register))
            if mark is None or mark.size > head.size:
                continue
            root = rebuilt.reader(register).root(mark.size)
            if root != mark.root:
                covering = covering_note(rebuilt.store, register, mark.size - 1)
                raise SplitViewError(
                    f"{mark.origin}: the signer has signed another root of size {mark.size} than the export's",
                    mark.text(),
                    covering or Checkpoint(mark.origin, mark.size, root).text(),
                )


def _raise_marks(directory: LedgerDirectory, held: Ledger) -> dict[str, int]:
    """Raise the signer's marks to the notes that it once signed; return the sizes that it signed beyond them.

    Without them a register that is missing from restored marks would be one that was never signed. Marks that
    are missing altogether stay missing: `serve` refuses then, as it must.
    """
    beyond: dict[str, int] = {}
    if not directory.marks.exists():
        return beyond
    with closing(HighWaterMarks(directory.marks)) as marks:
        signed = []
        for register, head in held.heads().items():
            stored = held.store.note(register, head.size)
            checkpoint = Checkpoint.parse(split_note(stored.note)[0]) if stored else None
            mark = marks.latest(held.register_origin(register))
            if checkpoint is not None and (mark is None or mark.size < checkpoint.size):
                signed.append(checkpoint)
            if mark is not None and mark.size > head.size:
                beyond[register] = mark.size
        marks.raise_to(signed)
    return beyond


# Files.


@contextmanager
def _made(directory: LedgerDirectory) -> Iterator[None]:
    """Make the directory where there is none, and leave none where the import fails."""
    root = directory.root
    if not directory.store.exists() and root.exists():
        strange = sorted(path.name for path in set(root.iterdir()) - _remains(directory))
        if strange:
            raise DirectoryError(
                f"{root} holds no ledger, but {strange[0]}: name a new directory, or an empty one"
            )
    fresh = not root.exists()
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        yield
    except BaseException:
        if fresh:
            shutil.rmtree(root, ignore_errors=True)
        raise


def _remains(directory: LedgerDirectory) -> set[Path]:
    """Return what may lie in a directory without a store: what is left of a ledger, and of an import."""
    left = (directory.marks, directory.lock, directory.declared_witnesses, directory.pending_restore)
    unfinished = Path(f"{directory.pending_restore}.new")
    stores = (*_beside(directory.store), directory.scratch, *_beside(directory.scratch))
    return {directory.log_key.parent, *left, unfinished, *stores}


@contextmanager
def _scratch(directory: LedgerDirectory) -> Iterator[Path]:
    """Name the scratch store, of which nothing is there before or after."""
    path = directory.scratch
    _clear(path)
    try:
        yield path
    finally:
        _clear(path)


def _clear(store: Path) -> None:
    for path in (store, *_beside(store)):
        path.unlink(missing_ok=True)


def _beside(store: Path) -> tuple[Path, Path]:
    """Return the files that SQLite keeps beside a store while it is open."""
    return Path(f"{store}-wal"), Path(f"{store}-shm")


def _place(directory: LedgerDirectory, scratch: Path, key: VerifierKey) -> None:
    """Make the scratch store, which is closed, the directory's own: the moment at which there is a ledger."""
    if any(path.exists() for path in _beside(scratch)):
        raise StoreError(f"{scratch}: SQLite could not finish writing it")
    public = public_path(directory.log_key)
    if not public.exists():
        public.parent.mkdir(mode=0o700, exist_ok=True)
        write_durably(public, f"{key}\n".encode())
    # What is left beside a store that is gone would be read into the new one.
    for path in _beside(directory.store):
        path.unlink(missing_ok=True)
    move_durably(scratch, directory.store)
