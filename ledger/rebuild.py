"""The rebuild of a ledger from its event log (promise P5), and of its notes and cosignatures.

Replaying the messages of an export gives the same entries, so the same roots, in whatever batches. Every note
in it is compared with them, and every cosignature verified whose witness the ledger has ever named.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Final

from ledger import base64
from ledger.checkpoints import Checkpoint, open_checkpoint
from ledger.entries import Message, open_message
from ledger.errors import LedgerError, MalformedError, ProofError, StoreError, VerificationError
from ledger.export import NOTES_TOGETHER, Export, MessageBlock, NoteBlock
from ledger.governing import GOVERNING
from ledger.hashing import Hash
from ledger.ledger import Ledger, LedgerView, Quarantined, Waiting
from ledger.notes import Note, SignatureLine, VerifierKey, format_note
from ledger.published_policies import WitnessKeys, witness_keys, witness_policies
from ledger.store import NewCosignatures, Store, StoredNote
from ledger.witnessing import Policy

MESSAGES_TOGETHER: Final = 1_000
"""Messages of one commit in a rebuild."""

BYTES_TOGETHER: Final = 16 * 1024 * 1024
"""Bytes after which a commit takes no further message."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A ledger made again from its event log.

    `notes` counts the sizes that have one, `cosignatures` the lines kept, `dropped` those of whom the ledger's
    policies do not name.
    `quarantined` names the messages that registration cannot have made, by their place in the file, from 0:
    they made no entry, and each is an alarm.
    """

    ledger: Ledger
    messages: int
    notes: int
    cosignatures: int
    dropped: int
    quarantined: tuple[str, ...]


def rebuild(
    store: Store, source: Export, *, policies: Sequence[Policy] = (), together: int = MESSAGES_TOGETHER
) -> Rebuilt:
    """Replay an export into an empty store, at most `together` messages a commit, and check its notes.

    Notes are checked under the log key that the ledger's first entry names: who needs more compares that key
    with the one that he holds. Cosignatures are kept of the witnesses that the ledger's own published
    policies name, or `policies`; of nobody else, since a line that cannot be checked may have been planted.

    Raises MalformedError for a file that is not in order, VerificationError for a note that the log has not
    signed, whose root is not that of the replayed entries, or with a wrong cosignature of a known witness,
    and StoreError. The store is then to be thrown away.
    """
    if store.heads():
        raise StoreError("a ledger is rebuilt only in an empty store")
    ledger = Ledger.open(store, source.origin)
    messages = 0
    quarantined: list[str] = []
    checker: NoteChecker | None = None
    for is_note, blocks in groupby(source.blocks, lambda block: isinstance(block, NoteBlock)):
        if is_note:
            notes = (block for block in blocks if isinstance(block, NoteBlock))
            # An export has its notes behind all messages.
            checker = NoteChecker(ledger, policies)
            try:
                _keep_notes(ledger, notes, checker)
            except ProofError as error:
                # The notes are not to blame where a message before them was altered.
                raise ProofError("\n".join([*quarantined[:1], str(error)])) from error
            continue
        for batch in _batches((block for block in blocks if isinstance(block, MessageBlock)), together):
            quarantined += _replay(ledger, batch, messages)
            messages += len(batch)
    opened = ledger.fold.opened
    if opened is None or opened.origin != source.origin:
        raise MalformedError(f"export: its first message does not open a ledger {source.origin}")
    counts = (checker.notes, checker.cosignatures, checker.dropped) if checker else (0, 0, 0)
    return Rebuilt(ledger, messages, *counts, tuple(quarantined))


def _batches(blocks: Iterable[MessageBlock], together: int) -> Iterator[list[MessageBlock]]:
    batch: list[MessageBlock] = []
    size = 0
    for block in blocks:
        batch.append(block)
        size += len(block.value)
        if len(batch) >= together or size >= BYTES_TOGETHER:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _replay(ledger: Ledger, batch: Iterable[MessageBlock], first: int) -> list[str]:
    """Replay messages as one turn, the first being number `first`; return those that were quarantined."""
    quarantined: dict[int, str] = {}
    opened: list[tuple[int, Message]] = []
    for number, block in enumerate(batch, first):
        try:
            opened.append((number, open_message(block.register, block.value, ledger.origin)))
        except LedgerError as error:
            quarantined[number] = f"message {number} of {block.register}: signature or shape: {error}"
    turn = ledger.turn()
    outcomes = turn.replay_all([message for _, message in opened])
    for (number, message), outcome in zip(opened, outcomes, strict=True):
        if isinstance(outcome, Quarantined):
            quarantined[number] = f"message {number} of {message.register}: {outcome.why}"
        if isinstance(outcome, Waiting):
            raise MalformedError(
                f"export: message {number} of {message.register} was judged at governing size "
                f"{outcome.governing_size}, which the export does not reach"
            )
    turn.commit({})
    return [text for _, text in sorted(quarantined.items())]


def _witnesses(ledger: LedgerView, policies: Sequence[Policy]) -> WitnessKeys:
    """Return the keys of the witnesses that `policies` name, and every policy that the ledger published."""
    # The governing register may be another writer's.
    head = ledger.store.heads().get(GOVERNING)
    entries = ledger.reader(GOVERNING).entries(0, head.size) if head else ()
    published = (policy for _, _, policy in witness_policies(entries) if policy is not None)
    return witness_keys([*policies, *published])


class NoteChecker:
    """Checks notes against a ledger that was replayed, and counts them."""

    def __init__(self, ledger: LedgerView, policies: Sequence[Policy] = ()) -> None:
        self._ledger = ledger
        self._heads = ledger.heads()
        self._witnesses = list(_witnesses(ledger, policies).values())
        self._roots: dict[tuple[str, int], Hash] = {}
        self.notes = 0
        """Sizes that had a note."""
        self.cosignatures = 0
        """Cosignature lines of known witnesses."""
        self.dropped = 0
        """Signature lines of nobody whom the policies name."""

    def reaches(self, register: str, size: int) -> bool:
        """Tell whether the messages that were replayed make this size of a register."""
        head = self._heads.get(register)
        return head is not None and size <= head.size

    def look_up(self, places: Iterable[tuple[str, int]]) -> None:
        """Read at once what makes the roots at these sizes of registers, before their notes are checked."""
        wanted: dict[str, set[int]] = {}
        for register, size in places:
            if self.reaches(register, size):
                wanted.setdefault(register, set()).add(size)
        self._roots = {
            (register, size): root
            for register, sizes in wanted.items()
            for size, root in self._ledger.reader(register).roots(sizes).items()
        }

    def root(self, register: str, size: int) -> Hash:
        """Return the root that the messages make at a size of a register, which they must reach."""
        return self._roots.get((register, size)) or self._ledger.reader(register).root(size)

    def checked(self, register: str, size: int, notes: Sequence[bytes]) -> NewCosignatures:
        """Return what is to be kept of the notes that state one size of a register.

        Raises ProofError where the messages make another root, or end before; VerificationError for a note
        that the log has not signed, or with a wrong cosignature of a known witness.
        """
        ledger = self._ledger
        opened = ledger.fold.opened
        if opened is None:
            raise ProofError(f"{register}: a note states size {size}, and the messages open no ledger")
        origin = ledger.register_origin(register)
        log = VerifierKey.parse(opened.ledger_key).renamed(origin)
        signed: SignatureLine | None = None
        lines: dict[SignatureLine, None] = {}
        found = [self._opened(register, size, note, log) for note in notes]
        head = self._heads.get(register)
        if head is None or size > head.size:
            raise ProofError(f"{register}: a note states size {size}, which the messages do not reach")
        expected = Checkpoint(origin, size, self.root(register, size))
        for note in found:
            if note.text != expected.text():
                raise ProofError(
                    f"{register}: the note of size {size} states another root than the messages make, which is "
                    f"{base64.encode(expected.root)}:\n{note.text.decode()}"
                )
            for line in note.verified:
                if line.by == (log.name, log.key_id):
                    signed = signed or line
                else:
                    lines[line] = None
            self.dropped += len(note.unverified)
        assert signed is not None  # noqa: S101 - open_checkpoint has found the log's signature
        self.notes += 1
        self.cosignatures += len(lines)
        return NewCosignatures(register, StoredNote(size, format_note(expected.text(), [signed])), list(lines))

    def _opened(self, register: str, size: int, note: bytes, log: VerifierKey) -> Note:
        try:
            return open_checkpoint(note, log.name, [log], self._witnesses).note
        except MalformedError as error:
            raise VerificationError(f"{register}: the note of size {size}: {error}") from error


def _keep_notes(ledger: Ledger, blocks: Iterator[NoteBlock], checker: NoteChecker) -> None:
    """Check notes and commit them. Those of one size become one, with the cosignatures of all."""
    alike = (
        (place, [block.note for block in group])
        for place, group in groupby(blocks, lambda block: (block.register, block.size))
    )
    while some := list(islice(alike, NOTES_TOGETHER)):
        checker.look_up(place for place, _ in some)
        ledger.store.keep_cosignatures([checker.checked(*place, notes) for place, notes in some])
