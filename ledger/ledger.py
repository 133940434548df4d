"""The ledger: all registers of one origin, and the turns by which they grow.

A turn takes whatever waits, judges each submission in order against everything before it, and commits all of
it at once: one transaction however many submissions and registers. Signing comes after, and elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from ledger.admission import Candidate, judge_now, signers
from ledger.anchors import Anchored, Anchors, anchored_by
from ledger.entries import Acceptance, Message, Submission, accept, form_ledger_entry, parse_entry
from ledger.errors import MalformedError, Reason, RejectedError, StoreError, TakenError
from ledger.governing import (
    GOVERNING,
    Fold,
    judge_authority,
    judge_governance,
    judge_register,
)
from ledger.hashing import Hash
from ledger.own_records import rejection_id, submission_rejected
from ledger.reader import RegisterReader, TileCache
from ledger.records import Record, SubmissionRejected, check_place, ledger_may_write, parse_record
from ledger.register import Draft, Edge, open_edge, range_hashes
from ledger.rules import Header, Refusal, judge_records, read_header, read_headers
from ledger.store import Batch, Head, Run, Store, StoredNote
from ledger.tree import Extension

_REJECTED: Final = "submission.rejected/1"


@dataclass(frozen=True, slots=True)
class Appended:
    """The message's entries stand at `run`, from this turn's commit on."""

    message: Message
    run: Run


@dataclass(frozen=True, slots=True)
class Known:
    """This very submission, or this ledger-written record, stood at `run` already: nothing was appended."""

    run: Run


@dataclass(frozen=True, slots=True)
class Rejected:
    """The submission lost a race: one `submission.rejected/1` entry stands at `index` instead."""

    refusal: Refusal
    index: int


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Registration cannot have made this message: no entry, an alarm."""

    why: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """The message was judged against `governing_size`, which the governing register has not reached here."""

    governing_size: int


Outcome = Appended | Known | Rejected | Quarantined | Waiting


@dataclass(frozen=True, slots=True)
class Growth:
    """What a commit made of one register: the head to sign, and every node made on the way."""

    register: str
    head: Head
    extension: Extension

    def range_proof(self, run: Run) -> tuple[Hash, ...]:
        """Return the range proof, at the new size, of a run that this commit appended."""
        return range_hashes(self.extension, run.first, run.first + run.count)


class LedgerView:
    """One origin's registers as they are committed in a store, to be read. From any thread.

    What the governing register says is held folded; `follow` takes in what was appended since.
    """

    def __init__(self, store: Store, origin: str) -> None:
        self.origin = origin
        self._store = store
        self._fold = Fold()
        self._anchors = Anchors()
        self._cache = TileCache()

    @property
    def fold(self) -> Fold:
        """The state that the committed governing entries fold to."""
        return self._fold

    @property
    def anchors(self) -> Anchors:
        """Which committed governing entries anchor which registers."""
        return self._anchors

    @property
    def store(self) -> Store:
        """The store beneath, for reading."""
        return self._store

    def heads(self) -> dict[str, Head]:
        """Return every committed head, by register."""
        return dict(self._store.heads())

    def follow(self, size: int) -> None:
        """Fold the governing entries up to `size`, which are committed. One thread at a time.

        Raises StoreError where they are none that can have been registered, or of another origin.
        """
        begin = self._fold.size
        if size <= begin:
            return
        state, anchored = self._fold, []
        try:
            entries = RegisterReader(self._store, GOVERNING, self._cache).entries(begin, size)
            for index, data in enumerate(entries, begin):
                entry = parse_entry(data)
                state = state.extended(entry)
                if (anchor := anchored_by(index, entry, state.opened)) is not None:
                    anchored.append(anchor)
        except (MalformedError, RejectedError) as error:
            raise StoreError(
                f"{GOVERNING} holds what cannot have been registered; run fsck: {error}"
            ) from error
        if state.opened is not None and state.opened.origin != self.origin:
            raise StoreError(f"the store is of origin {state.opened.origin!r}, not {self.origin!r}")
        self._fold = state
        self._anchors.add(anchored)

    def last_accepted(self) -> str | None:
        """Return the latest `accepted_at` that ends any register; None where there is no entry."""
        held = {name: head for name, head in self.heads().items() if head.size and self._holds(name)}
        ends = [self.reader(name).entry(head.size - 1) for name, head in held.items()]
        return max((parse_entry(entry).acceptance.accepted_at for entry in ends), default=None)

    def register_origin(self, register: str) -> str:
        """Return ``<ledger origin>/<register>``."""
        return f"{self.origin}/{register}"

    def _holds(self, register: str) -> bool:
        return register == GOVERNING or register in self._fold.registers

    def run_of(self, submission: Submission) -> Run | None:
        """Return where a submission stands, if it is known: asked before anything about its key."""
        if not self._holds(submission.register):
            return None
        key = bytes.fromhex(submission.submission_id)
        return self._store.submissions(submission.register, [key]).get(key)

    def judge_authority(self, submission: Submission) -> None:
        """Judge the register and key of a department's submission now. Raises as `judge_authority` does."""
        if submission.register != GOVERNING:
            key = submission.signatures[0].key
            judge_authority(self._fold, self._fold.signed_size, submission.register, key)

    def reader(self, register: str) -> RegisterReader:
        """Return a reader of one register. Raises RejectedError REGISTER_UNKNOWN."""
        if not self._holds(register):
            raise RejectedError(
                Reason.REGISTER_UNKNOWN,
                f"this ledger has no register {register!r}",
                detail={"register": register},
            )
        return RegisterReader(self._store, register, self._cache)


def every_register(_register: str) -> bool:
    """Return true: what writes a whole ledger."""
    return True


class Ledger(LedgerView):
    """One origin's registers over one store, to be appended to: those that `mine` tells are this writer's.

    One writer a register; reads from any thread see committed state only.
    """

    def __init__(self, store: Store, origin: str, mine: Callable[[str], bool] = every_register) -> None:
        super().__init__(store, origin)
        self._mine = mine
        self._edges: dict[str, Edge] = {}

    @classmethod
    def open(cls, store: Store, origin: str, mine: Callable[[str], bool] = every_register) -> Self:
        """Open a store: verify the right edge of every register that is ours, fold the governing register.

        Raises StoreError where the store does not agree with itself, or is of another origin.
        """
        ledger = cls(store, origin, mine)
        heads = store.heads()
        for name, head in heads.items():
            if mine(name):
                ledger._edges[name] = open_edge(store, name, head)
        if GOVERNING in heads:
            # To what the edges were read at, and no further: another writer may have gone on.
            ledger.follow(heads[GOVERNING].size)
        return ledger

    def follow(self, size: int) -> None:
        """Fold what another writer has appended to `governing`, and take in the registers opened by it."""
        before = self._fold.registers
        super().follow(size)
        opened = [name for name in self._fold.registers if name not in before and self._mine(name)]
        if opened:
            heads = self._store.heads()
            self._edges |= {
                name: open_edge(self._store, name, heads[name]) for name in opened if name not in self._edges
            }

    def heads(self) -> dict[str, Head]:
        """Return the committed head of every register that is ours."""
        return {name: edge.head for name, edge in self._edges.items()}

    def _holds(self, register: str) -> bool:
        return register in self._edges or (not self._mine(register) and super()._holds(register))

    def turn(self) -> Turn:
        """Begin a turn. Only one may be under way."""
        return Turn(self, self._store, self._edges, self._fold)

    def _committed(
        self, batches: Sequence[Batch], edges: Mapping[str, Edge], state: Fold, anchored: Sequence[Anchored]
    ) -> None:
        for batch in batches:
            self._cache.put(batch.register, batch.tiles)
        # A register that was opened here may be another writer's from now on.
        self._edges |= {name: edge for name, edge in edges.items() if self._mine(name)}
        self._fold = state
        self._anchors.add(anchored)


class Turn:
    """One group commit under way. Used once; dropping it changes nothing."""

    def __init__(self, ledger: Ledger, store: Store, edges: Mapping[str, Edge], state: Fold) -> None:
        self._ledger = ledger
        self._store = store
        self._edges = edges
        self._fold = state
        self._drafts: dict[str, Draft] = {}
        self._anchored: list[Anchored] = []

    def look_up(self, candidates: Sequence[Candidate]) -> None:
        """Read at once what the store knows of these submissions, before they are accepted one by one."""
        by_register: dict[str, list[Candidate]] = {}
        for candidate in candidates:
            by_register.setdefault(candidate.submission.register, []).append(candidate)
        for register, waiting in by_register.items():
            self._draft(register).look_up(
                [bytes.fromhex(candidate.submission.submission_id) for candidate in waiting],
                [header for candidate in waiting for header in candidate.headers],
            )

    def accept(self, candidate: Candidate, accepted_at: str, submitter: str) -> Appended | Known:
        """Judge a submission with the view of this very moment and add it (formats.md, sections 8 and 9).

        It must have been looked up. Raises RejectedError with nothing added: acceptance never loses a race
        here, so nothing that is acknowledged is ever rejected.
        """
        submission = candidate.submission
        draft = self._draft(submission.register)
        known = draft.run_of(bytes.fromhex(submission.submission_id))
        if known is not None:
            return Known(known)
        judge_now(candidate, self._fold, self._ledger.origin, accepted_at)
        message = accept(submission, Acceptance(accepted_at, submitter, self._fold.signed_size))
        refusal = judge_records(message, candidate.headers, draft.registered(candidate.headers))
        if refusal is not None:
            raise refusal.error()
        return self._append(draft, message, candidate.headers)

    def replay(self, message: Message) -> Outcome:
        """Apply the append rules to a message of the event log (formats.md, section 9, rules 2 to 5).

        Never refuses: what lost a race becomes one rejection entry, what registration cannot have made is
        quarantined.
        """
        return next(self.replay_all([message]))

    def replay_all(self, messages: Sequence[Message], *, new: bool = False) -> Iterator[Outcome]:
        """Replay messages in order, as each outcome is asked for; what the store knows of all is read first.

        With `new` it is not asked about submissions to departments' registers and their first versions of
        records: they are taken to be new to it, as nearly all are. Where they are not, or may not be appended,
        this raises TakenError, or the commit does: the messages are then to be replayed in another turn,
        without `new`. No outcome is to be used before the commit.
        """
        headers = [_headers(message) for message in messages]
        by_register: dict[str, tuple[list[bytes], list[Header]]] = {}
        for message, read in zip(messages, headers, strict=True):
            ids, wanted = by_register.setdefault(message.register, ([], []))
            # What the ledger itself writes, and all that stands beside it in `governing`, may have a record_id
            # there already without a version 1, and the commit would not find that out.
            asked = not new or message.submission is None or message.register == GOVERNING
            if message.submission is not None and asked:
                ids.append(bytes.fromhex(message.submission.submission_id))
            if not isinstance(read, Quarantined):
                # A version 1 is refused only where the record is there already; another is judged by those
                # before it.
                wanted += read if asked else [header for header in read if header.version > 1]
        for register, (ids, wanted) in by_register.items():
            self._draft(register).look_up(ids, wanted)
        for message, read in zip(messages, headers, strict=True):
            if isinstance(read, Quarantined):
                yield read
                continue
            outcome = self._replay(message, read)
            # Whether it is known comes before whatever else may be said of it. And what waits ends a batch that
            # may never come to its commit.
            if new and (
                isinstance(outcome, Waiting)
                or (message.submission is not None and not isinstance(outcome, Appended))
            ):
                raise TakenError(f"{message.register}: a message is not simply new")
            yield outcome

    def _replay(self, message: Message, headers: Sequence[Header]) -> Outcome:
        draft = self._draft(message.register)
        submission = message.submission
        if submission is None:
            return self._replay_ledger_written(draft, message, headers[0])
        known = draft.run_of(bytes.fromhex(submission.submission_id))
        if known is not None:
            return Known(known)
        if message.acceptance.governing_size > self._fold.size:
            return Waiting(message.acceptance.governing_size)
        if message.register != GOVERNING:
            key = submission.signatures[0].key
            try:
                judge_authority(self._fold, message.acceptance.governing_size, message.register, key)
            except RejectedError as error:
                return Quarantined(f"key or register: {error}")
        try:
            refusal = self._refusal(draft, message, submission, headers)
        except MalformedError as error:
            return Quarantined(f"shape: {error}")
        if refusal is None:
            return self._append(draft, message, headers)
        return self._reject(draft, message, submission, refusal)

    def _refusal(
        self, draft: Draft, message: Message, submission: Submission, headers: Sequence[Header]
    ) -> Refusal | None:
        if message.register == GOVERNING:
            record = _governing_record(submission)
            try:
                judge_governance(self._fold, record, signers(submission))
            except RejectedError as error:
                return Refusal(error.reason)
        elif message.acceptance.governing_size < draft.governing_size:
            return Refusal(Reason.STALE_VIEW)
        return judge_records(message, headers, draft.registered(headers))

    def _replay_ledger_written(self, draft: Draft, message: Message, header: Header) -> Outcome:
        if not ledger_may_write(header.type, message.register):
            return Quarantined(f"{header.type} cannot stand unsigned in {message.register}")
        for held in draft.registered([header]).get(header.record_id, {}).values():
            assert held.index is not None  # noqa: S101 - only judge_records makes versions without index
            # A rejection stands, also where a department has taken its record_id before (docs/readings.md).
            if header.type != _REJECTED or draft.is_ledger_written(held.index):
                return Known(Run(held.index, 1))
        view = message.acceptance.governing_size
        if message.register != GOVERNING:
            if view > self._fold.size:
                return Waiting(view)
            try:
                judge_register(self._fold, view, message.register)
            except RejectedError as error:
                return Quarantined(f"key or register: {error}")
        if header.type == _REJECTED:
            return self._replay_rejection(draft, message, header)
        return self._append(draft, message, [header])

    def _replay_rejection(self, draft: Draft, message: Message, header: Header) -> Outcome:
        """Append a rejection that an import brings. It names its own index: elsewhere it is none of ours."""
        try:
            record = parse_record(message.records()[0])
        except (MalformedError, RejectedError) as error:
            return Quarantined(f"shape: {error}")
        assert isinstance(record, SubmissionRejected)  # noqa: S101 - its type says so
        origin = self._ledger.register_origin(message.register)
        stated = rejection_id(origin, record.submission_id, draft.size)
        if (record.register, record.record_id) != (message.register, stated):
            return Quarantined(f"{header.type} of another place than index {draft.size} of {message.register}")
        draft.note_rejection(record.submission_id, draft.size)
        return self._append(draft, message, [header])

    def _reject(self, draft: Draft, message: Message, submission: Submission, refusal: Refusal) -> Rejected:
        index = draft.size
        record = submission_rejected(
            register=message.register,
            register_origin=self._ledger.register_origin(message.register),
            submission_id=submission.submission_id,
            count=len(submission.records),
            reason=refusal.reason,
            index=index,
            rejected=(refusal.position, refusal.header.record_id, refusal.header.version)
            if refusal.header is not None and refusal.position is not None
            else None,
            existing=(refusal.earlier.index, refusal.earlier.sha256())
            if refusal.earlier is not None and refusal.earlier.index is not None
            else None,
        )
        acceptance = message.acceptance
        entry = form_ledger_entry(record, acceptance.accepted_at, acceptance.governing_size)
        header = read_header(record)
        draft.look_up((), [header])
        self._append(draft, Message(message.register, acceptance, (entry,), None), [header])
        draft.note_rejection(submission.submission_id, index)
        return Rejected(refusal, index)

    def append_ledger_written(self, register: str, record: bytes, accepted_at: str) -> Outcome:
        """Add a record that the ledger writes itself, unless it is there already."""
        acceptance = Acceptance(accepted_at, "ledger", self._fold.signed_size)
        entry = form_ledger_entry(record, accepted_at, acceptance.governing_size)
        return self.replay(Message(register, acceptance, (entry,), None))

    def _append(self, draft: Draft, message: Message, headers: Sequence[Header]) -> Appended:
        run = draft.add(message, headers)
        if message.register == GOVERNING:
            self._govern(message)
        return Appended(message, run)

    def _govern(self, message: Message) -> None:
        before = self._fold
        for data in message.entries:
            entry = parse_entry(data)
            if (anchor := anchored_by(before.size, entry, self._fold.opened)) is not None:
                self._anchored.append(anchor)
            self._fold = self._fold.extended(entry)
        for name in self._fold.registers.keys() - before.registers.keys():
            self._draft(name)

    def _draft(self, register: str) -> Draft:
        draft = self._drafts.get(register)
        if draft is None:
            draft = self._drafts[register] = Draft(self._store, register, self._edges.get(register))
        return draft

    def opened(self) -> list[str]:
        """Return the registers that this turn's commit will be the first of."""
        return [
            register
            for register, draft in self._drafts.items()
            if register not in self._edges and draft.grows(opened=register in self._fold.registers)
        ]

    def finish(self, notes: Mapping[str, Sequence[StoredNote]]) -> FinishedTurn:
        """Hash what was added, to be committed with notes signed since the last turn. Pure computing."""
        growths: dict[str, Growth] = {}
        edges: dict[str, Edge] = {}
        batches = []
        for register in dict.fromkeys((*self._drafts, *notes)):
            draft = self._draft(register)
            waiting = notes.get(register, ())
            if draft.grows(opened=register in self._fold.registers) or waiting:
                batch, edges[register], extension = draft.finish(waiting)
                batches.append(batch)
                if batch.head != batch.expected:
                    growths[register] = Growth(register, batch.head, extension)
        return FinishedTurn(
            self._ledger, self._store, tuple(batches), edges, growths, self._fold, self._anchored
        )

    def commit(self, notes: Mapping[str, Sequence[StoredNote]]) -> Mapping[str, Growth]:
        """Finish the turn and commit it at once."""
        return self.finish(notes).commit()


@dataclass(frozen=True, slots=True)
class FinishedTurn:
    """A turn that wants only to be written: `commit` is nothing but the store's work."""

    _ledger: Ledger
    _store: Store
    _batches: tuple[Batch, ...]
    _edges: Mapping[str, Edge]
    growths: Mapping[str, Growth]
    _fold: Fold
    _anchored: Sequence[Anchored]

    @property
    def fold(self) -> Fold:
        """The state that the governing entries fold to when this is committed."""
        return self._fold

    def commit(self, write: Callable[[Sequence[Batch]], None] | None = None) -> Mapping[str, Growth]:
        """Commit the turn; return what grew, to be signed.

        `write` commits the batches with more beside them in one transaction, as Store.commit by itself does.
        Raises what that raises; the turn is then spent and nothing is shown.
        """
        (write or self._store.commit)(self._batches)
        # A crash above leaves nothing: whoever waits is not answered, and asks again. A crash below loses
        # nothing: the same submission is then known.
        self._ledger._committed(self._batches, self._edges, self._fold, self._anchored)
        return self.growths


def _headers(message: Message) -> list[Header] | Quarantined:
    try:
        return read_headers(message.records())
    except MalformedError as error:
        return Quarantined(f"shape: {error}")


def _governing_record(submission: Submission) -> Record:
    """Return the one record of a governance submission. Raises MalformedError where that is not what it is."""
    try:
        (data,) = submission.records
        record = parse_record(data)
        check_place(record, GOVERNING)
    except (ValueError, RejectedError) as error:
        raise MalformedError(f"not one governing record: {error}") from error
    return record
