"""What each runner of the append path makes of one event log, in one form, to be compared."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from ledger.entries import open_message, parse_entry
from ledger.errors import LedgerError
from ledger.event_log import EMPTY_CHAIN, SUBMISSIONS, Kind, LogMessage, LogStore
from ledger.ledger import Appended, Known, Ledger, Outcome, Quarantined, Rejected, Turn, Waiting
from ledger.reader import RegisterReader, TileCache
from ledger.records import SubmissionRejected, parse_record
from ledger.rules import read_header
from ledger.store import Run, Store
from ledger.values import is_register
from services.distributed.partition_writer import PartitionWriter
from services.distributed.partitions import partition_of
from tests.support.ledgers import ORIGIN

Log = Mapping[int, Sequence[LogMessage]]
"""The messages of each partition."""

Place = tuple[int, int]
"""A partition and an offset."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of one message.

    `size` and `root` are the register's after it, None where there is no such register. `why` is the reason
    of a rejection or of a quarantine.
    """

    kind: Kind
    register: str
    first: int
    count: int
    why: str
    entries: tuple[bytes, ...]
    size: int | None
    root: bytes | None


@dataclass(frozen=True, slots=True)
class Held:
    """All that a store holds of one register, and what it answers about the submissions of the log."""

    entries: tuple[bytes, ...]
    root: bytes
    submissions: Mapping[bytes, Run]
    rejections: Mapping[bytes, int]


@dataclass(frozen=True, slots=True)
class Made:
    """What a runner made of a log.

    An embedded ledger has no positions and keeps no quarantined messages: its are what they should be.
    """

    messages: Mapping[Place, Judged]
    registers: Mapping[str, Held]
    positions: Mapping[int, tuple[int, bytes | None, bytes]]
    quarantined: Mapping[Place, tuple[bytes, bytes, str]]


@dataclass(frozen=True, slots=True)
class _Outcome:
    kind: Kind
    register: str
    first: int = 0
    count: int = 0
    why: str = ""


# An embedded ledger, which knows nothing of positions and dispositions.


def embedded(log: Log, store: Store, together: int) -> Made:
    """Replay a log into an empty store, up to `together` messages of a partition in a turn.

    With one message in a turn, the roots are those of the heads that each commit made.
    """
    ledger = Ledger.open(store, ORIGIN)
    done = dict.fromkeys(log, 0)
    outcomes: dict[Place, _Outcome] = {}
    heads: dict[Place, bytes] = {}
    while left := [each for each in log if done[each] < len(log[each])]:
        before = dict(done)
        for partition in left:
            turn = ledger.turn()
            for message in log[partition][done[partition] : done[partition] + together]:
                outcome = _replayed(turn, partition, len(log), message)
                if isinstance(outcome, Waiting):
                    break
                place = (partition, message.offset)
                outcomes[place] = _outcome(message.key.decode("utf-8", "replace"), outcome)
                done[partition] += 1
            turn.commit({})
            if together == 1 and done[partition] > before[partition]:
                head = ledger.heads().get(outcomes[partition, before[partition]].register)
                if head is not None:
                    heads[partition, before[partition]] = head.root
        assert done != before, f"all wait: {done}"
    made = _made(store, log, outcomes)
    assert {place: made.messages[place].root for place in heads} == heads
    rejections = _rejections(made)
    positions = {number: _position(messages) for number, messages in log.items()}
    quarantined = {
        (number, each.offset): (each.key, each.value, outcomes[number, each.offset].why)
        for number, messages in log.items()
        for each in messages
        if outcomes[number, each.offset].kind is Kind.QUARANTINED
    }
    registers = {name: replace(held, rejections=rejections[name]) for name, held in made.registers.items()}
    return Made(made.messages, registers, positions, quarantined)


def _replayed(turn: Turn, partition: int, partitions: int, message: LogMessage) -> Outcome:
    try:
        register = message.key.decode()
    except UnicodeDecodeError:
        return Quarantined("key or register: the key is not UTF-8")
    if not is_register(register):
        return Quarantined("key or register: the key is not the name of a register")
    if partition_of(register, partitions) != partition:
        return Quarantined("key or register: the register is of another partition")
    try:
        opened = open_message(register, message.value, ORIGIN)
    except LedgerError as error:
        return Quarantined(f"signature or shape: {error}")
    return turn.replay(opened)


def _outcome(register: str, outcome: Outcome) -> _Outcome:
    match outcome:
        case Appended(run=run):
            return _Outcome(Kind.APPENDED, register, run.first, run.count)
        case Known(run):
            return _Outcome(Kind.KNOWN, register, run.first, run.count)
        case Rejected(refusal, index):
            return _Outcome(Kind.REJECTED, register, index, 1, str(refusal.reason))
        case Quarantined(why):
            return _Outcome(Kind.QUARANTINED, register, why=why)
        case Waiting():
            raise AssertionError("a message that waits has no outcome")


def _position(messages: Sequence[LogMessage]) -> tuple[int, bytes | None, bytes]:
    last, chain = None, EMPTY_CHAIN
    for message in messages:
        last = sha256(message.key + b"\n" + message.value).digest()
        chain = sha256(chain + last).digest()
    return len(messages), last, chain


def _rejections(made: Made) -> dict[str, dict[bytes, int]]:
    """Return the latest rejection of each submission, from the entries themselves."""
    found: dict[str, dict[bytes, int]] = {}
    for name, held in made.registers.items():
        found[name] = {}
        for index, entry in enumerate(held.entries):
            record = entry.partition(b"\n")[2]
            if read_header(record).type == "submission.rejected/1":
                rejected = parse_record(record)
                assert isinstance(rejected, SubmissionRejected)
                found[name][bytes.fromhex(rejected.submission_id)] = index
    return found


# The runners that keep what became of each message.


def written(log: Log, store: LogStore, seed: int, *, taken_over: float, sizes: Sequence[int]) -> Made:
    """Append a log with a writer for each partition: in batches of any of the sizes, some of it again.

    `taken_over` is how probable it is that a partition has a new writer for its next batch.
    """
    draw = random.Random(seed)
    writers: dict[int, PartitionWriter] = {}
    left = sorted(log)
    for _ in range(1_000):
        if not left:
            return kept(log, store)
        partition = draw.choice(left)
        if partition not in writers or draw.random() < taken_over:
            writers[partition] = PartitionWriter.open(store, SUBMISSIONS, partition, len(log), ORIGIN)
        writer = writers[partition]
        done = writer.position.next_offset
        begin = max(0, done - draw.choice([0, 0, 1, 3]))
        writer.append(log[partition][begin : done + draw.choice(sizes)])
        if writer.position.next_offset == len(log[partition]):
            left.remove(partition)
    raise AssertionError(f"partitions {left} do not come to their ends")


def kept(log: Log, store: LogStore) -> Made:
    """Return what a store says that became of a log."""
    outcomes: dict[Place, _Outcome] = {}
    quarantined: dict[Place, tuple[bytes, bytes, str]] = {}
    positions: dict[int, tuple[int, bytes | None, bytes]] = {}
    for number in log:
        for bad in store.quarantined(SUBMISSIONS, number):
            quarantined[number, bad.offset] = (bad.key, bad.value, bad.why)
        for each in store.dispositions(SUBMISSIONS, number, 0, 1 << 40):
            why = quarantined[number, each.offset][2] if each.kind is Kind.QUARANTINED else ""
            if each.kind is Kind.REJECTED:
                (entry,) = store.entries(each.register, each.first, each.first + 1)
                rejected = parse_record(parse_entry(entry).record)
                assert isinstance(rejected, SubmissionRejected)
                why = rejected.reason
            outcomes[number, each.offset] = _Outcome(each.kind, each.register, each.first, each.count, why)
        position = store.position(SUBMISSIONS, number)
        assert position is not None
        positions[number] = (position.next_offset, position.last, position.chain)
    made = _made(store, log, outcomes)
    ids = list(_ids(log))
    registers = {
        name: replace(held, rejections=store.rejection(name, ids)) for name, held in made.registers.items()
    }
    return Made(made.messages, registers, positions, quarantined)


# What both have.


def _made(store: Store, log: Log, outcomes: Mapping[Place, _Outcome]) -> Made:
    ids = list(_ids(log))
    held = {
        name: Held(tuple(store.entries(name, 0, head.size)), head.root, store.submissions(name, ids), {})
        for name, head in store.heads().items()
    }
    readers = {name: RegisterReader(store, name, TileCache()) for name in held}
    sizes = Counter[str]()
    messages: dict[Place, Judged] = {}
    for place, one in sorted(outcomes.items()):
        register, end = one.register, one.first + one.count
        if one.kind in (Kind.APPENDED, Kind.REJECTED):
            assert one.first == sizes[register], f"{place}: a gap, or an entry twice"
            sizes[register] = end
        size = sizes[register] if register in held else None
        messages[place] = Judged(
            one.kind,
            register,
            one.first,
            one.count,
            one.why,
            held[register].entries[one.first : end] if register in held else (),
            size,
            readers[register].root(size) if size is not None else None,
        )
    return Made(messages, held, {}, {})


def _ids(log: Log) -> Iterator[bytes]:
    """Yield the submission_id of every message that has one."""
    for messages in log.values():
        for message in messages:
            try:
                opened = open_message(message.key.decode(), message.value, ORIGIN)
            except (LedgerError, UnicodeDecodeError):
                continue
            if opened.submission is not None:
                yield bytes.fromhex(opened.submission.submission_id)
