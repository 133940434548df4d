"""The signer's marks, made from the notes of a store: what the log has signed that somebody kept."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from ledger.checkpoints import Checkpoint
from ledger.errors import SplitViewError
from ledger.governing import GOVERNING
from ledger.ledger import LedgerView
from ledger.notes import split_note
from ledger.store import Store
from services.ledger_files import PRIVATE
from services.signing import HighWaterMarks


@contextmanager
def held_alone(marks: Path) -> Iterator[None]:
    """Hold the lock beside a file of marks: only who has it raises them. Raises OSError where another has it.

    A file of its own: the marks may be replaced by a copy while a signer still runs.
    """
    lock = os.open(marks.with_name(f"{marks.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise OSError(
            f"another signer has {marks}, or a rebuild that raises them: a ledger has one signer, and it must "
            "not run meanwhile"
        ) from error
    finally:
        os.close(lock)


def raise_marks(path: Path, store: Store, origin: str) -> dict[str, int]:
    """Raise the marks in a file to the latest note of every register; return those that lie beyond the store.

    A mark that is higher stays. Raises OSError where a signer runs, which would write over what it does not
    know; SplitViewError, with nothing written, where a mark is of another history than the store; StoreError.
    """
    view = LedgerView(store, origin)
    heads = view.heads()
    if GOVERNING in heads:
        view.follow(heads[GOVERNING].size)
    beyond: dict[str, int] = {}
    signed: list[Checkpoint] = []
    with held_alone(path), closing(HighWaterMarks(path)) as marks:
        for register, head in heads.items():
            stored = store.note(register, head.size)
            mark = marks.latest(view.register_origin(register))
            if mark is not None and mark.size > head.size:
                beyond[register] = mark.size
                continue
            if mark is not None:
                root = view.reader(register).root(mark.size)
                if root != mark.root:
                    held = Checkpoint(mark.origin, mark.size, root)
                    raise SplitViewError(
                        f"{mark.origin}: the signer has signed another root of size {mark.size} than is here",
                        mark.text(),
                        held.text(),
                    )
            if stored is not None and (mark is None or mark.size < stored.size):
                signed.append(Checkpoint.parse(split_note(stored.note)[0]))
        marks.raise_to(signed)
        marks.sync()
    return beyond
