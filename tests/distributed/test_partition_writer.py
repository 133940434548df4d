"""The writer of one partition over the PostgreSQL store: every outcome, every batch boundary, every refusal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Final

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger import canonical
from ledger.admission import instant
from ledger.checkpoints import Checkpoint, open_checkpoint
from ledger.ed25519 import SecretKey
from ledger.entries import MAX_MESSAGE, Acceptance, accept
from ledger.errors import FencedError, SplitViewError
from ledger.event_log import EMPTY_CHAIN, SUBMISSIONS, Disposition, Kind, LogMessage, chained, message_hash
from ledger.export import MessageBlock
from ledger.governing import GOVERNING
from ledger.hashing import leaf_hash, node_hash
from ledger.stores.memory import MemoryStore
from ledger.stores.postgres import PostgresStore
from ledger.tiles import encode_bundle
from services.distributed import head_signing, partition_writer
from services.distributed.head_signing import Signer
from services.distributed.log_errors import GapError, LogError, OtherTopicError, TruncatedError
from services.distributed.partition_writer import Appendage, PartitionWriter
from services.distributed.partitions import partition_of
from services.distributed.signing import Marks, SignerAwayError, Signings, ToSign
from services.signing import HighWaterMarks
from tests.support.direct_signer import DirectSigner, sign
from tests.support.ledger_story import ACCESS, SECOND, SECOND_KEY, THIRD
from tests.support.ledgers import (
    DEPARTMENT_KEY,
    EPOCH,
    LOG_KEY,
    ORIGIN,
    REGISTER,
    decision,
    submission,
    vkey,
)
from tests.support.log_messages import by_partition, story
from tests.support.postgres_schemas import migrated_schema
from tests.support.records import correction

PARTITIONS: Final = 3
"""So many that `REGISTER` has another partition than `governing`."""
STRANGER: Final = SecretKey(b"\x77" * 32)

_KINDS: Final = {
    "key": (b"no register", b"x"),
    "key that is no text": (b"\xff\xfe", b"x"),
    "shape": (REGISTER.encode(), b"\x00\x01x"),
    "nothing": (REGISTER.encode(), b""),
    "key with NUL": (b"a\0b/c", b"x"),
    "long key": (b"".join(sha256(b"%d" % number).digest() for number in range(200)), b"x"),
}


@dataclass(slots=True)
class Writers:
    """The writers of a topic over one store, opened as they are needed."""

    store: PostgresStore
    partitions: int = PARTITIONS
    sent: dict[int, list[LogMessage]] = field(default_factory=dict[int, list[LogMessage]])
    open: dict[int, PartitionWriter] = field(default_factory=dict[int, PartitionWriter])

    def of(self, register: str) -> PartitionWriter:
        return self.at(partition_of(register, self.partitions))

    def at(self, partition: int) -> PartitionWriter:
        if partition not in self.open:
            self.open[partition] = PartitionWriter.open(
                self.store, SUBMISSIONS, partition, self.partitions, ORIGIN
            )
        return self.open[partition]

    def send(self, register: str, *values: bytes, key: bytes | None = None) -> list[LogMessage]:
        """Return messages as they come next in the partition of a register."""
        partition = partition_of(register, self.partitions)
        held = self.sent.setdefault(partition, [])
        made = [
            LogMessage(len(held) + number, register.encode() if key is None else key, value)
            for number, value in enumerate(values)
        ]
        held += made
        return made

    def append(self, register: str, *values: bytes) -> Appendage:
        """Send messages and append them."""
        return self.of(register).append(self.send(register, *values))

    def begin(self, blocks: Sequence[MessageBlock], registers: Sequence[str] = (GOVERNING,)) -> None:
        """Append all messages of these registers."""
        for register in registers:
            self.append(register, *[block.value for block in blocks if block.register == register])

    def dispositions(self, partition: int) -> list[Disposition]:
        return self.store.dispositions(SUBMISSIONS, partition, 0, 1 << 40)


@contextmanager
def opened(database: str) -> Iterator[Writers]:
    store = PostgresStore(migrated_schema(database))
    try:
        yield Writers(store)
    finally:
        store.close()


@pytest.fixture
def writers(fresh_database: str) -> Iterator[Writers]:
    with opened(fresh_database) as made:
        yield made


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[MemoryStore, list[MessageBlock]]:
    """A ledger in which everything has happened once, and its messages."""
    return story(tmp_path_factory.mktemp("story"))


@pytest.fixture
def blocks(told: tuple[MemoryStore, list[MessageBlock]]) -> list[MessageBlock]:
    """The messages of that ledger."""
    return told[1]


@pytest.fixture
def signer(tmp_path: Path) -> Iterator[DirectSigner]:
    marks = HighWaterMarks(tmp_path / "signer.marks")
    yield DirectSigner(LOG_KEY, marks, ORIGIN)
    marks.close()


def value(
    numbers: Sequence[int], view: int, key: SecretKey = DEPARTMENT_KEY, register: str = REGISTER
) -> bytes:
    """Return the message of decisions that were accepted with a view of the governing register."""
    one = submission(register, [decision(number, register) for number in numbers], [key])
    return accept(one, Acceptance(instant(EPOCH + 5_000), "anonymous", view)).value()


def kinds(appendage: Appendage) -> list[Kind]:
    return [each.kind for each in appendage.dispositions]


def test_every_outcome_is_recorded_with_its_place(writers: Writers, blocks: list[MessageBlock]) -> None:
    """A message is called something else than what became of it, or its entries stand elsewhere."""
    writers.begin(blocks)
    taken = canonical.format(correction(decision(0), reason="Another."))
    again = canonical.format(correction(decision(0), reason="Yet another."))
    view = Acceptance(instant(EPOCH + 6_000), "anonymous", 11)
    values = [
        value([0, 1, 2], 11),
        value([3], 11),
        value([0, 1, 2], 11),
        accept(submission(REGISTER, [taken], [DEPARTMENT_KEY]), view).value(),
        accept(submission(REGISTER, [again], [DEPARTMENT_KEY]), view).value(),
        value([9], 11, STRANGER),
        value([10], 11, SECOND_KEY),
        value([11], 11),
    ]
    done = writers.append(REGISTER, *values)
    assert done.done == len(values)
    assert done.waiting is None
    first = done.dispositions[0].offset
    assert [(each.kind, each.first, each.count) for each in done.dispositions] == [
        (Kind.APPENDED, 0, 3),
        (Kind.APPENDED, 3, 1),
        (Kind.KNOWN, 0, 3),
        (Kind.APPENDED, 4, 1),
        (Kind.REJECTED, 5, 1),
        (Kind.QUARANTINED, 0, 0),
        (Kind.QUARANTINED, 0, 0),
        (Kind.APPENDED, 6, 1),
    ]
    assert [each.offset for each in done.dispositions] == list(range(first, first + len(values)))
    partition = partition_of(REGISTER, PARTITIONS)
    assert writers.dispositions(partition)[first:] == list(done.dispositions)
    kept = list(writers.store.quarantined(SUBMISSIONS, partition))
    assert [(each.offset, each.value) for each in kept] == [(first + 5, values[5]), (first + 6, values[6])]
    assert all("key or register" in each.why for each in kept)
    assert writers.store.heads()[REGISTER].size == 7
    assert set(done.growths) == {REGISTER}


def test_the_position_holds_the_chain_over_every_message(writers: Writers, blocks: list[MessageBlock]) -> None:
    """The database says another history than the topic holds."""
    writers.begin(blocks)
    governing = partition_of(GOVERNING, PARTITIONS)
    held = writers.sent[governing]
    chain = EMPTY_CHAIN
    for message in held:
        chain = chained(chain, message_hash(message.key.decode(), message.value))
    position = writers.store.position(SUBMISSIONS, governing)
    assert position is not None
    assert (position.epoch, position.next_offset) == (1, len(held))
    assert (position.last, position.chain) == (held[-1].hash(), chain)


@pytest.mark.parametrize("where", [0, 1, 2])
@pytest.mark.parametrize("kind", list(_KINDS))
def test_a_message_that_registration_cannot_have_made_is_set_aside(
    writers: Writers, blocks: list[MessageBlock], where: int, kind: str
) -> None:
    """One bad message stops its partition, takes others with it, or is not kept as it came."""
    writers.begin(blocks)
    key, data = _KINDS[kind]
    writer = writers.of(REGISTER)
    before = writer.position.next_offset
    for place in range(3):
        writers.send(
            REGISTER, *([data] if place == where else [value([place], 11)]), key=key if place == where else None
        )
    with structlog.testing.capture_logs() as said:
        done = writer.append(writers.sent[writer.position.partition][before:])
    assert [each is Kind.QUARANTINED for each in kinds(done)] == [place == where for place in range(3)]
    (kept,) = writers.store.quarantined(SUBMISSIONS, writer.position.partition)
    assert (kept.offset, kept.key, kept.value) == (before + where, key, data)
    assert writers.store.heads()[REGISTER].size == 2
    assert [each["offset"] for each in said if "quarantined" in each["event"]] == [before + where]
    assert {row.topic for row in writers.store.outbox(10)} == {"daybook.rejections"}


def test_of_what_is_larger_than_any_message_the_beginning_is_kept(writers: Writers) -> None:
    """Whoever may write to the topic sends what the store cannot hold, and the partition ends there."""
    large = b"k" * MAX_MESSAGE + b"K", b"v" * MAX_MESSAGE + b"V"
    whole = b"k" * MAX_MESSAGE, b"v" * MAX_MESSAGE
    messages = [LogMessage(0, *whole), LogMessage(1, *large), LogMessage(2, b"?", b"")]
    done: list[Disposition] = []
    for message in messages:
        done += writers.at(0).append([message]).dispositions
    first, second, _ = writers.store.quarantined(SUBMISSIONS, 0)
    assert (first.key, first.value) == (second.key, second.value) == whole
    assert "kept" not in first.why
    for data in large:
        assert f"{len(data)} bytes" in second.why
        assert sha256(data).hexdigest() in second.why
    assert writers.dispositions(0) == done
    assert writers.at(0).position == replace(
        writers.at(0).position,
        last=messages[2].hash(),
        chain=chained(
            chained(chained(EMPTY_CHAIN, messages[0].hash()), messages[1].hash()), messages[2].hash()
        ),
    )
    taken_over = PartitionWriter.open(writers.store, SUBMISSIONS, 0, PARTITIONS, ORIGIN)
    taken_over.check(3, messages[2])


def test_a_batch_of_nothing_but_bad_messages_moves_the_position(writers: Writers) -> None:
    """Bad messages alone are read again for ever."""
    bad = [LogMessage(offset, b"?", b"") for offset in range(3)]
    done = writers.at(0).append(bad)
    assert kinds(done) == [Kind.QUARANTINED] * 3
    assert done.growths == {}
    assert writers.at(0).position.next_offset == 3


def test_a_register_of_another_partition_is_refused(writers: Writers, blocks: list[MessageBlock]) -> None:
    """A register is written by two writers."""
    writers.begin(blocks)
    elsewhere = (partition_of(REGISTER, PARTITIONS) + 1) % PARTITIONS
    position = writers.at(elsewhere).position.next_offset
    done = writers.at(elsewhere).append([LogMessage(position, REGISTER.encode(), value([0], 11))])
    assert kinds(done) == [Kind.QUARANTINED]
    assert REGISTER not in done.growths


def test_a_message_waits_for_the_governing_register_and_holds_up_what_follows(
    writers: Writers, blocks: list[MessageBlock]
) -> None:
    """A message is judged with a view that is not reached, or those behind it overtake it."""
    assert partition_of(GOVERNING, PARTITIONS) != partition_of(REGISTER, PARTITIONS)
    governing = [block.value for block in blocks if block.register == GOVERNING]
    writers.append(GOVERNING, *governing[:3])
    messages = writers.send(REGISTER, value([0], 3), value([1], 5), value([2], 5))
    writer = writers.of(REGISTER)
    done = writer.append(messages)
    assert kinds(done) == [Kind.APPENDED]
    assert done.waiting is not None
    with structlog.testing.capture_logs() as said:
        for _ in range(3):
            again = writer.append(messages[1:])
            assert (again.done, again.dispositions) == (0, ())
            assert again.waiting is not None
            assert again.waiting.governing_size == 5
    assert len([each for each in said if each["log_level"] == "warning"]) == 1
    writers.append(GOVERNING, *governing[3:])
    done = writer.append(messages[1:])
    assert kinds(done) == [Kind.APPENDED] * 2
    assert done.waiting is None
    assert writers.store.heads()[REGISTER].size == 3


def test_messages_that_were_done_are_skipped(writers: Writers, blocks: list[MessageBlock]) -> None:
    """A redelivered message is appended a second time, or stops the partition."""
    writers.begin(blocks)
    messages = writers.send(REGISTER, *[value([number], 11) for number in range(6)])
    writer = writers.of(REGISTER)
    assert writer.append(messages[:4]).done == 4
    done = writer.append(messages[1:])
    assert (done.done, done.repeated, len(done.dispositions)) == (5, 3, 2)
    assert writer.append(messages) == Appendage(6, 6)
    assert writers.store.heads()[REGISTER].size == 6


class _Forgetful(PostgresStore):
    """A store that has lost what became of one message."""

    def dispositions(self, topic: str, partition: int, begin: int, end: int) -> list[Disposition]:
        return [each for each in super().dispositions(topic, partition, begin, end) if each.offset != 2]


def test_a_done_message_without_an_outcome_is_an_alarm(fresh_database: str) -> None:
    """A message is taken as done of which nobody knows what became."""
    store = _Forgetful(migrated_schema(fresh_database))
    try:
        writer = PartitionWriter.open(store, SUBMISSIONS, 0, PARTITIONS, ORIGIN)
        bad = [LogMessage(offset, b"?", b"") for offset in range(4)]
        writer.append(bad)
        assert writer.append(bad[:2]).repeated == 2
        with pytest.raises(LogError, match="what became of message 2"):
            writer.append(bad)
    finally:
        store.close()


def test_a_last_message_without_an_outcome_is_an_alarm(fresh_database: str) -> None:
    """A store that has lost what became of its last message is gone on with."""
    store = _Forgetful(migrated_schema(fresh_database))
    try:
        bad = [LogMessage(offset, b"?", b"") for offset in range(4)]
        PartitionWriter.open(store, SUBMISSIONS, 0, PARTITIONS, ORIGIN).append(bad[:3])
        with pytest.raises(LogError, match="what became of message 2"):
            PartitionWriter.open(store, SUBMISSIONS, 0, PARTITIONS, ORIGIN).check(3, bad[2])
        PartitionWriter.open(store, SUBMISSIONS, 0, PARTITIONS, ORIGIN).append(bad[3:])
        PartitionWriter.open(store, SUBMISSIONS, 0, PARTITIONS, ORIGIN).check(4, bad[3])
    finally:
        store.close()


@pytest.mark.parametrize("offsets", [[1], [0, 2], [0, 1, 1], [1, 0]])
def test_a_gap_appends_nothing(writers: Writers, offsets: list[int]) -> None:
    """Messages are appended behind one that is missing."""
    with pytest.raises(GapError):
        writers.at(0).append([LogMessage(offset, b"?", b"") for offset in offsets])
    position = writers.store.position(SUBMISSIONS, 0)
    assert position is not None
    assert position.next_offset == 0


def test_a_topic_is_compared_with_what_was_done_of_it(writers: Writers) -> None:
    """A truncated topic, or another one, is appended to the registers of the first."""
    messages = [LogMessage(offset, b"?", b"%d" % offset) for offset in range(3)]
    fresh = writers.at(0)
    fresh.check(0, None)
    fresh.append(messages)
    taken_over = PartitionWriter.open(writers.store, SUBMISSIONS, 0, PARTITIONS, ORIGIN)
    taken_over.check(3, messages[2])
    taken_over.check(9, messages[2])
    with pytest.raises(TruncatedError, match="ends at offset 2"):
        taken_over.check(2, messages[2])
    with pytest.raises(OtherTopicError, match="is not there"):
        taken_over.check(3, None)
    with pytest.raises(OtherTopicError, match="is not there"):
        taken_over.check(5, LogMessage(4, b"?", b"2"))
    with pytest.raises(OtherTopicError, match="another one"):
        taken_over.check(3, replace(messages[2], value=b"3"))
    with pytest.raises(OtherTopicError, match="another one"):
        taken_over.check(3, replace(messages[2], key=b"!"))


def test_a_topic_of_another_number_of_partitions_is_refused(writers: Writers) -> None:
    """Registers move to other partitions, and are written by two."""
    writers.at(0)
    with pytest.raises(OtherTopicError, match="has 5 partitions; the database was made from 3"):
        PartitionWriter.open(writers.store, SUBMISSIONS, 0, 5, ORIGIN)
    assert writers.store.partitions(SUBMISSIONS) == PARTITIONS


def test_whoever_was_taken_over_writes_nothing(writers: Writers, blocks: list[MessageBlock]) -> None:
    """A zombie appends beside its successor."""
    writers.begin(blocks)
    zombie = writers.of(REGISTER)
    messages = writers.send(REGISTER, value([0], 11), value([1], 11))
    zombie.append(messages[:1])
    successor = PartitionWriter.open(writers.store, SUBMISSIONS, zombie.position.partition, PARTITIONS, ORIGIN)
    assert successor.position == replace(zombie.position, epoch=zombie.position.epoch + 1)
    with pytest.raises(FencedError):
        zombie.append(messages[1:])
    assert writers.store.heads()[REGISTER].size == 1
    assert kinds(successor.append(messages[1:])) == [Kind.APPENDED]
    with pytest.raises(FencedError):
        zombie.append([LogMessage(messages[-1].offset, b"?", b"")])


def test_a_commit_is_bounded(writers: Writers, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of any size is held in memory, or what was too much is called done."""
    monkeypatch.setattr(partition_writer, "MAX_MESSAGES", 3)
    messages = [LogMessage(offset, b"?", b"x" * 10) for offset in range(10)]
    assert writers.at(0).append(messages).done == 3
    monkeypatch.setattr(partition_writer, "MAX_BYTES", 15)
    assert writers.at(0).append(messages[3:]).done == 2
    assert writers.at(0).append(messages).done == 7
    keys = [LogMessage(offset, b"k" * 10, b"") for offset in range(7, 10)]
    assert writers.at(0).append(keys).done == 2


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_batches_give_what_the_embedded_ledger_has(
    fresh_database: str, told: tuple[MemoryStore, list[MessageBlock]], data: st.DataObject
) -> None:
    """Where batches end, which partition comes first, or who takes over decides an entry."""
    expected, blocks = told
    partitions = data.draw(st.integers(1, 5))
    log = by_partition(blocks, partitions)
    with opened(fresh_database) as writers:
        writers.partitions = partitions
        todo = {number for number, messages in log.items() if messages}
        while todo:
            partition = data.draw(st.sampled_from(sorted(todo)))
            if data.draw(st.integers(0, 9)) == 0:
                writers.open.pop(partition, None)
            writer = writers.at(partition)
            begin = max(0, writer.position.next_offset - data.draw(st.integers(0, 3)))
            writer.append(log[partition][begin : begin + data.draw(st.integers(1, 20))])
            if writer.position.next_offset == len(log[partition]):
                todo.remove(partition)
        assert writers.store.heads() == expected.heads()
        for register, head in expected.heads().items():
            assert writers.store.entries(register, 0, head.size) == expected.entries(register, 0, head.size)


# Signing.


def test_heads_are_signed_and_published_once_their_marks_are_confirmed(
    writers: Writers, blocks: list[MessageBlock], signer: DirectSigner
) -> None:
    """A head is signed that nobody has confirmed, stays unsigned, or its note is not sent."""
    writers.begin(blocks)
    writer = writers.of(GOVERNING)
    heads = writer.heads
    assert set(heads.unsigned) == {GOVERNING, REGISTER, SECOND, THIRD, ACCESS}
    notes = sign(writer, signer)
    assert {name: note.size for name, note in notes.items()} == dict.fromkeys(heads.unsigned | notes.keys(), 0)
    assert set(heads.unsigned) == {GOVERNING}
    assert sign(writer, signer) == {}
    signer.confirm_all()
    notes = sign(writer, signer)
    assert {name: note.size for name, note in notes.items()} == {GOVERNING: 11}
    assert not heads.waits
    opened_note = open_checkpoint(notes[GOVERNING].note, f"{ORIGIN}/{GOVERNING}", [vkey(GOVERNING)])
    assert opened_note.checkpoint.root == writers.store.heads()[GOVERNING].root
    assert (GOVERNING.encode(), notes[GOVERNING].note) in {
        (row.key, row.value) for row in writers.store.outbox(99)
    }
    writers.append(REGISTER, value([0, 1], 11))
    sign(writers.of(REGISTER), signer)
    writers.append(REGISTER, value([2], 11))
    assert {name: note.size for name, note in sign(writers.of(REGISTER), signer).items()} == {REGISTER: 3}


def test_heads_without_a_note_are_found_on_opening(
    writers: Writers, blocks: list[MessageBlock], signer: DirectSigner
) -> None:
    """A crash between commit and signature leaves a head unsigned for ever."""
    writers.begin(blocks)
    writers.append(REGISTER, value([0, 1], 11))
    writers.open.clear()
    assert set(writers.of(REGISTER).heads.unsigned) == {
        name
        for name in (REGISTER, SECOND, THIRD, ACCESS)
        if partition_of(name, PARTITIONS) == partition_of(REGISTER, PARTITIONS)
    }
    assert set(writers.of(GOVERNING).heads.unsigned) == {GOVERNING, SECOND, THIRD, ACCESS}
    for _ in range(2):
        sign(writers.of(GOVERNING), signer)
        sign(writers.of(REGISTER), signer)
        signer.confirm_all()
    sign(writers.of(GOVERNING), signer)
    sign(writers.of(REGISTER), signer)
    assert writers.store.unsigned() == []


def test_a_signer_that_is_away_holds_nothing_up(
    writers: Writers, blocks: list[MessageBlock], signer: DirectSigner
) -> None:
    """Appending waits for the signer, or a head is forgotten whose signature failed."""
    signer.away = True
    writers.begin(blocks)
    with pytest.raises(SignerAwayError):
        sign(writers.of(GOVERNING), signer)
    writers.append(REGISTER, value([0], 11))
    assert GOVERNING in writers.of(GOVERNING).heads.unsigned
    signer.away = False
    assert GOVERNING in sign(writers.of(GOVERNING), signer)


def sign_all(writers: Writers, signer: DirectSigner) -> None:
    """Sign every head of the writers that are open."""
    for _ in range(2):
        for writer in writers.open.values():
            sign(writer, signer)
        signer.confirm_all()
    for writer in writers.open.values():
        sign(writer, signer)


def test_a_store_behind_the_marks_catches_up_and_then_signs(
    fresh_database: str, blocks: list[MessageBlock], signer: DirectSigner
) -> None:
    """A restored older store signs another history, or is never signed again though it has caught up."""
    values = [value([number], 11) for number in range(4)]
    with opened(fresh_database) as whole:
        whole.begin(blocks)
        whole.append(REGISTER, *values[:3])
        sign_all(whole, signer)
    with opened(fresh_database) as older:
        older.begin(blocks)
        older.append(REGISTER, values[0])
        writer = older.of(REGISTER)
        asked = signer.asked
        assert sign(writer, signer) == {}
        assert signer.asked > asked
        assert {name: mark.size for name, mark in writer.heads.behind.items()} == {REGISTER: 3}
        older.append(REGISTER, *values[1:])
        assert sign(writer, signer)[REGISTER].size == 4
        assert (writer.heads.behind, writer.heads.unsigned) == ({}, {})


def test_a_mark_beyond_the_store_is_asked_for_again(
    writers: Writers, blocks: list[MessageBlock], signer: DirectSigner, tmp_path: Path
) -> None:
    """A writer holds on to the mark of a signer whose marks have been put right."""
    writers.begin(blocks)
    writers.append(REGISTER, value([0], 11))
    sign_all(writers, signer)
    signer.inner.sign([_further(signer, writers)])
    writers.open.clear()
    writer = writers.of(REGISTER)
    sign(writer, signer)
    assert set(writer.heads.behind) == {REGISTER}
    right = HighWaterMarks(tmp_path / "right.marks")
    sign(writer, DirectSigner(LOG_KEY, right, ORIGIN))
    assert writer.heads.behind == {}
    right.close()


def test_a_signed_store_behind_the_marks_is_noticed_on_opening(
    writers: Writers, blocks: list[MessageBlock], signer: DirectSigner
) -> None:
    """An older store whose heads all have their notes is taken for the newest."""
    writers.begin(blocks)
    writers.append(REGISTER, value([0], 11))
    sign_all(writers, signer)
    writer = PartitionWriter.open(
        writers.store, SUBMISSIONS, partition_of(REGISTER, PARTITIONS), PARTITIONS, ORIGIN
    )
    sign(writer, signer)
    assert writer.heads.behind == {}
    with_more = _further(signer, writers)
    signer.inner.sign([with_more])
    signer.restart()
    writer = PartitionWriter.open(
        writers.store, SUBMISSIONS, partition_of(REGISTER, PARTITIONS), PARTITIONS, ORIGIN
    )
    assert writer.heads.waits
    sign(writer, signer)
    assert set(writer.heads.behind) == {REGISTER}


def test_marks_are_asked_for_in_calls_of_a_bounded_size(
    writers: Writers, blocks: list[MessageBlock], signer: DirectSigner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With tens of thousands of registers no mark is ever compared: the answer is larger than gRPC takes."""
    writers.partitions = 1
    writers.begin(blocks)
    writers.append(REGISTER, value([0], 11))
    sign_all(writers, signer)
    signer.inner.sign([_further(signer, writers)])
    monkeypatch.setattr(head_signing, "TOGETHER", 1)
    writer = PartitionWriter.open(writers.store, SUBMISSIONS, 0, 1, ORIGIN)
    asking = _Asking(signer)
    sign(writer, asking)
    assert len(asking.sizes) >= len(writers.store.heads()) > 3
    assert set(asking.sizes) == {1}
    assert set(writer.heads.behind) == {REGISTER}


def test_marks_of_two_signers_are_not_taken_for_those_of_one(
    writers: Writers, blocks: list[MessageBlock], signer: DirectSigner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signer that was started anew in the middle leaves a store that is behind it unnoticed."""
    writers.partitions = 1
    writers.begin(blocks)
    for register in (REGISTER, THIRD):
        writers.append(register, value([0], 11, register=register))
    sign_all(writers, signer)
    signer.inner.sign([_further(signer, writers, register) for register in (REGISTER, THIRD)])
    monkeypatch.setattr(head_signing, "TOGETHER", 1)
    writer = PartitionWriter.open(writers.store, SUBMISSIONS, 0, 1, ORIGIN)
    asking = _Asking(signer, restart_after=(f"{ORIGIN}/{REGISTER}", f"{ORIGIN}/{THIRD}"))
    sign(writer, asking)
    assert writer.heads.waits, "it was compared with neither"
    sign(writer, asking)
    assert set(writer.heads.behind) == {REGISTER, THIRD}


class _Asking(Signer):
    """Counts the origins of each call for marks. After the first call for one of some, another answers."""

    def __init__(self, signer: DirectSigner, restart_after: Sequence[str] = ()) -> None:
        self._signer = signer
        self._restart_after = frozenset(restart_after)
        self.sizes: list[int] = []

    async def marks(self, origins: Sequence[str]) -> Marks:
        self.sizes.append(len(origins))
        told = await self._signer.marks(origins)
        if self._restart_after.intersection(origins):
            self._signer.restart()
            self._restart_after = frozenset()
        return told

    async def sign(self, wanted: Sequence[ToSign]) -> Signings:
        return await self._signer.sign(wanted)


def _further(signer: DirectSigner, writers: Writers, register: str = REGISTER) -> ToSign:
    """Return a checkpoint beyond the store that the signer takes: what a newer store had it sign."""
    (entry,) = writers.store.entries(register, 0, 1)
    other = leaf_hash(b"another entry")
    return ToSign(Checkpoint(f"{ORIGIN}/{register}", 2, node_hash(leaf_hash(entry), other)), [other])


@pytest.mark.parametrize("size", [2, 4])
def test_another_history_than_was_signed_is_never_signed(
    fresh_database: str, blocks: list[MessageBlock], signer: DirectSigner, size: int
) -> None:
    """A register forks: two roots of one size are signed."""
    with opened(fresh_database) as first:
        first.begin(blocks)
        first.append(REGISTER, value([0], 11), value([1], 11))
        sign_all(first, signer)
    signed = signer.inner.marks([f"{ORIGIN}/{REGISTER}"])[0].checkpoint
    with opened(fresh_database) as second:
        second.begin(blocks)
        second.append(REGISTER, *[value([9 - number], 11) for number in range(size)])
        with pytest.raises(SplitViewError) as caught:
            sign(second.of(REGISTER), signer)
        assert caught.value.first == signed.text()
        assert caught.value.second.startswith(f"{ORIGIN}/{REGISTER}\n2\n".encode())
        assert second.store.note(REGISTER, size) is None


def test_a_signer_that_was_started_anew_is_asked_for_everything_again(
    writers: Writers, blocks: list[MessageBlock], signer: DirectSigner
) -> None:
    """What one signer had confirmed counts for the next."""
    writers.begin(blocks)
    sign_all(writers, signer)
    signer.restart()
    writers.append(REGISTER, value([0], 11))
    assert sign(writers.of(REGISTER), signer) == {}
    assert set(writers.of(REGISTER).heads.unsigned) == {REGISTER}
    signer.confirm_all()
    assert sign(writers.of(REGISTER), signer)[REGISTER].size == 1


def test_ledger_written_messages_are_appended_as_they_are(writers: Writers, blocks: list[MessageBlock]) -> None:
    """An anchor or a rejection from an import is set aside, or formed anew."""
    writers.begin(blocks)
    written = [block for block in blocks if block.register == REGISTER]
    done = writers.append(REGISTER, *[block.value for block in written])
    assert set(kinds(done)) == {Kind.APPENDED}
    again = writers.append(REGISTER, written[-1].value, encode_bundle([b"{}\n{}"]))
    assert kinds(again) == [Kind.KNOWN, Kind.QUARANTINED]
