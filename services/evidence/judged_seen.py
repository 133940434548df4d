"""The checkpoints that an auditor has seen, as far as they satisfy a policy and the mirror holds their entries.

Each is judged about once, however many entries are asked about, if these are asked about in order or again.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile

from ledger.errors import MalformedError, VerificationError
from ledger.ledger import Ledger
from ledger.witnessing import Policy, judge
from services.evidence.judged_notes import JudgedNote
from services.monitoring.state import Seen, SeenCheckpoints


class JudgedSeen:
    """Answers which checkpoint bounds an entry, for entries of all registers of a mirror."""

    def __init__(self, mirror: Ledger, seen: SeenCheckpoints, policy: Policy) -> None:
        self._mirror = mirror
        self._seen = seen
        self._policy = policy
        # What was answered last, by register: it holds for all entries between. And by register and entry:
        # governing entries are asked about again for each exhibit.
        self._covering: dict[str, tuple[int, JudgedNote | None]] = {}
        self._answered: dict[tuple[str, int], JudgedNote | None] = {}
        self._up_to: dict[str, tuple[int, JudgedNote | None]] = {}

    def latest(self, register: str) -> JudgedNote | None:
        """Return the largest checkpoint of a register; None where none satisfies the policy."""
        return self._largest(register, self._size(register), -1)

    def covering(self, register: str, index: int) -> JudgedNote | None:
        """Return the smallest checkpoint that covers the entry at `index`; None where none does."""
        if (register, index) not in self._answered:
            self._answered[register, index] = self._first_covering(register, index)
        return self._answered[register, index]

    def _first_covering(self, register: str, index: int) -> JudgedNote | None:
        begin, found = self._covering.get(register, (index + 1, None))
        if not (begin <= index and (found is None or index < found.size)):
            notes = (self._judged(seen, (seen.first, seen.last)) for seen in self._above(register, index))
            found = next((note for note in notes if note is not None), None)
            self._covering[register] = index, found
        return found

    def up_to(self, register: str, index: int) -> JudgedNote | None:
        """Return the largest checkpoint that does not cover the entry at `index`; None where there is none."""
        end, before = self._up_to.get(register, (-1, None))
        if end > index:
            end, before = -1, None
        found = self._largest(register, index, end) or before
        self._up_to[register] = index, found
        return found

    def _size(self, register: str) -> int:
        head = self._mirror.heads().get(register)
        return head.size if head else 0

    def _above(self, register: str, size: int) -> Iterator[Seen]:
        held = self._size(register)
        while (seen := self._seen.next_above(register, size)) is not None and seen.size <= held:
            yield seen
            size = seen.size

    def _largest(self, register: str, size: int, beyond: int) -> JudgedNote | None:
        """Return the largest checkpoint of at most `size` entries, and more than `beyond`."""
        for seen in takewhile(lambda each: each.size > beyond, self._down(register, size)):
            if (note := self._judged(seen, (seen.last, seen.first))) is not None:
                return note
        return None

    def _down(self, register: str, size: int) -> Iterator[Seen]:
        while size >= 0 and (seen := self._seen.latest(register, size)) is not None:
            yield seen
            size = seen.size - 1

    def _judged(self, seen: Seen, notes: tuple[bytes, bytes]) -> JudgedNote | None:
        """Return the first of the notes of a size that satisfies the policy."""
        for note in dict.fromkeys(notes):
            try:
                judged = judge(note, self._policy, self._mirror.register_origin(seen.register))
            except (MalformedError, VerificationError):
                continue
            # One of another history says nothing about the entries here: the monitor has told of it.
            held = self._mirror.reader(seen.register).root(seen.size)
            if (judged.checkpoint.size, judged.checkpoint.root) == (seen.size, held):
                return JudgedNote.of(note, judged, self._policy)
        return None
