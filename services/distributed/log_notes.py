"""The notes of `daybook.checkpoints`, checked against a ledger that was replayed, and kept.

A note is news, not authority: what the log has not signed may be anybody's, is not kept, and is told. What the
log has signed and the messages do not make is evidence, and ends the rebuild.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ledger.checkpoints import Checkpoint
from ledger.errors import MalformedError, ProofError, VerificationError
from ledger.event_log import LogMessage
from ledger.notes import split_note
from ledger.rebuild import NoteChecker
from ledger.store import NewCosignatures, Store
from ledger.values import is_register
from services.distributed.log_reader import LogReader

_NAMED: Final = 100
"""Notes that nobody signed that are named, of each partition."""


@dataclass(frozen=True, slots=True)
class LoggedNotes:
    """How many notes were read, and those that the log has not signed: they are not kept.

    `dropped` counts signature lines of nobody whom the ledger's policies name; they are not kept either.
    """

    messages: int
    dropped: int
    unverified: int
    named: tuple[str, ...]

    @classmethod
    def summed(cls, parts: Iterable[LoggedNotes]) -> LoggedNotes:
        """Return what several partitions came to together."""
        each = list(parts)
        return cls(
            sum(one.messages for one in each),
            sum(one.dropped for one in each),
            sum(one.unverified for one in each),
            tuple(name for one in each for name in one.named),
        )


async def keep_logged_notes(
    reader: LogReader,
    where: tuple[str, int],
    end: int,
    checker: NoteChecker,
    store: Store,
    *,
    begin: int = 0,
    all_replayed: bool = True,
) -> LoggedNotes:
    """Check the notes of one partition from `begin` up to `end`, and keep them.

    `where` is the topic and the partition. Sizes beyond what was replayed are left out where not all messages
    of the partition were. Raises ProofError for the first note that the log has signed and the
    messages do not make; GapError, OSError, StoreError.
    """
    topic, partition = where
    unverified = 0
    named: list[str] = []
    async for messages in reader.read(topic, partition, begin, end):
        kept, strange = await asyncio.to_thread(_checked, checker, messages, all_replayed)
        await asyncio.to_thread(store.keep_cosignatures, kept)
        unverified += len(strange)
        named += (f"{topic}/{partition}, {text}" for text in strange[: _NAMED - len(named)])
    return LoggedNotes(end - begin, checker.dropped, unverified, tuple(named))


def _checked(
    checker: NoteChecker, messages: Sequence[LogMessage], all_replayed: bool
) -> tuple[list[NewCosignatures], list[str]]:
    """Return what is to be kept of these messages, and what is wrong with the others."""
    strange: dict[int, str] = {}
    alike: dict[tuple[str, int], list[LogMessage]] = {}
    for message in messages:
        try:
            text, _ = split_note(message.value)
            place = message.key.decode("utf-8"), Checkpoint.parse(text).size
        except (MalformedError, UnicodeDecodeError) as error:
            strange[message.offset] = f"message {message.offset}: no note: {error}"
            continue
        if is_register(place[0]):
            if not all_replayed and not checker.reaches(*place):
                continue
            alike.setdefault(place, []).append(message)
        else:
            strange[message.offset] = f"message {message.offset}: its key is not the name of a register"
    checker.look_up(alike)
    kept = []
    for (register, size), same in alike.items():
        try:
            kept.append(checker.checked(register, size, [message.value for message in same]))
        except ProofError:
            raise
        except VerificationError:
            for message in same:
                try:
                    kept.append(checker.checked(register, size, [message.value]))
                except ProofError:
                    raise
                except VerificationError as error:
                    strange[message.offset] = f"message {message.offset} of {register}: {error}"
    return kept, [text for _, text in sorted(strange.items())]
