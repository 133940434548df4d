"""Gossip: what two parties have seen of one ledger, compared, and a split view turned into a proof.

The other party's state is read from a copy, and believed in nothing: a note counts when the ledger has signed
it, and hashes count as far as they lead to a root that the ledger has signed.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ledger.checkpoints import OpenedCheckpoint
from ledger.errors import MalformedError, ProofError, SignatureError, StoreError
from ledger.reader import RegisterReader, TileCache
from ledger.split_views import SplitView, compare
from ledger.store import Store
from ledger.stores.sqlite import SqliteStore
from ledger.values import is_register
from ledger.witnessing import Policy
from services.monitoring.diagnosis import forked
from services.monitoring.findings import Finding
from services.monitoring.state import Seen, SeenCheckpoints, State, StateDirectory, StateError

MAX_FINDINGS: Final = 20
"""Proofs from one comparison: the first says it all."""

_COPY: Final = "compare-"


@dataclass(slots=True)
class Comparison:
    """What two states show together.

    `checkpoints` of the other's were compared, in `registers`; `ignored` are not signed by the ledger;
    `undecided` are sentences about those that neither side has the entries for.
    """

    registers: set[str] = field(default_factory=set[str])
    checkpoints: int = 0
    ignored: int = 0
    findings: list[Finding] = field(default_factory=list[Finding])
    undecided: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, slots=True)
class _Other:
    seen: SeenCheckpoints
    mirror: Store | None


def compare_states(own: State, other: Path, policy: Policy) -> Comparison:
    """Compare every checkpoint that another party has seen with all that was seen here.

    Raises StateError where `other` is no monitor's state, OSError, StoreError where it cannot be read.
    """
    made = Comparison()
    with _opened_copy(other, own.directory, own.mirror.origin) as held:
        for seen in held.seen.all():
            opened = _signed(own, policy, seen)
            if opened is None:
                made.ignored += 1
                continue
            made.checkpoints += 1
            made.registers.add(seen.register)
            try:
                view = _contradiction(own, policy, held, seen, opened)
            except _UndecidedError as error:
                made.undecided.append(f"{seen.register}: {error}")
                continue
            if view is not None:
                made.findings.append(forked(seen.register, view))
                if len(made.findings) == MAX_FINDINGS:
                    break
    return made


class _UndecidedError(Exception):
    """Two checkpoints cannot be compared, because nobody has what lies between them."""


def _signed(own: State, policy: Policy, seen: Seen) -> OpenedCheckpoint | None:
    """Return a checkpoint that the other has kept, where the ledger has signed it."""
    if not is_register(seen.register):
        return None
    try:
        opened = policy.open(seen.last, own.mirror.register_origin(seen.register))
    except (MalformedError, SignatureError):
        return None
    return opened if opened.checkpoint.size == seen.size else None


def _contradiction(
    own: State, policy: Policy, other: _Other, seen: Seen, theirs: OpenedCheckpoint
) -> SplitView | None:
    register, size = seen.register, theirs.checkpoint.size
    same = own.seen.at(register, size)
    if same is not None:
        return compare(_opened(own, policy, same), theirs, lambda _: {})
    # The smallest of ours above it, where we have read so far: then our mirror is the judge.
    above = own.seen.next_above(register, size)
    if above is not None and above.size <= own.size(register):
        return _by(own.mirror.store, register, theirs, _opened(own, policy, above))
    below = own.seen.latest(register, size)
    if below is None or below.size == 0 or size == 0:
        if above is not None and size:
            raise _UndecidedError(f"the entries up to size {above.size} were not read yet")
        return None
    if other.mirror is None:
        raise _UndecidedError(f"nobody has the entries between size {below.size} and size {size}")
    try:
        found = _by(other.mirror, register, _opened(own, policy, below), theirs)
    except (ProofError, StoreError, MalformedError) as error:
        raise _UndecidedError(
            f"the other's entries do not lead to its own checkpoint of size {size}"
        ) from error
    if found is None and above is not None:
        # What came before agrees; whether what we have seen signed beyond it does, only its entries could tell.
        raise _UndecidedError(f"the entries up to size {above.size} were not read yet")
    return found


def _by(store: Store, register: str, one: OpenedCheckpoint, other: OpenedCheckpoint) -> SplitView | None:
    """Compare two checkpoints by what a store holds of the tree under the larger one."""
    larger = max(one.checkpoint.size, other.checkpoint.size)
    reader = RegisterReader(store, register, TileCache())
    return compare(one, other, lambda nodes: reader.nodes(nodes, larger))


def _opened(own: State, policy: Policy, seen: Seen) -> OpenedCheckpoint:
    return policy.open(seen.last, own.mirror.register_origin(seen.register))


@contextmanager
def _opened_copy(root: Path, own: StateDirectory, origin: str) -> Iterator[_Other]:
    """Open a copy of another party's state: nothing in it is written to, and nothing in it runs.

    A file whose tables are not just those of our own files is refused, since what else a database may hold
    is code.
    """
    theirs = StateDirectory(root)
    if not theirs.seen.is_file():
        raise StateError(f"{root} is not a monitor's state")
    # Beside our own mirror, which is about as large. What a killed comparison left behind goes first.
    for left in own.root.glob(f"{_COPY}*"):
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=_COPY, dir=own.root) as folder, ExitStack() as stack:
        copy = StateDirectory(Path(folder))
        _copy(theirs.seen, copy.seen)
        if _schema(copy.seen) != _schema(own.seen):
            raise StateError(f"{theirs.seen} is not a file of a monitor's state of this version")
        seen = SeenCheckpoints(copy.seen)
        stack.callback(seen.close)
        if seen.origin() != origin:
            raise StateError(f"{root} is the state of the ledger {seen.origin()!r}, not of {origin!r}")
        yield _Other(seen, _mirror(theirs, copy, own, stack))


def _mirror(
    theirs: StateDirectory, copy: StateDirectory, own: StateDirectory, stack: ExitStack
) -> Store | None:
    """Return the other's mirror, None where there is none that can be used: its notes count without it."""
    if not theirs.mirror.is_file():
        return None
    _copy(theirs.mirror, copy.mirror)
    try:
        if _schema(copy.mirror) != _schema(own.mirror):
            return None
        store = SqliteStore(copy.mirror)
    except StoreError:
        return None
    stack.callback(store.close)
    return store


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    for suffix in ("-wal", "-journal"):
        beside = source.with_name(source.name + suffix)
        if beside.is_file():
            shutil.copyfile(beside, target.with_name(target.name + suffix))


def _schema(path: Path) -> set[tuple[object, ...]]:
    try:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA trusted_schema = OFF")
            return set(connection.execute("SELECT name, type, tbl_name, sql FROM sqlite_schema"))
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise StoreError(f"{path.name} of the other state cannot be read: {error}") from error
