"""`daybook rebuild`: a store made from the topics, or compared with them, whatever was done to either."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from ledger.checkpoints import Checkpoint, sign_checkpoint
from ledger.event_log import CHECKPOINTS, SUBMISSIONS, Kind
from ledger.export import Block, MessageBlock, NoteBlock, export_blocks
from ledger.governing import GOVERNING
from ledger.hashing import Hash
from ledger.notes import SignerKey, format_note, split_note
from ledger.store import NewCosignatures, StoredNote
from ledger.stores.memory import MemoryStore
from services.distributed import rebuilding
from services.distributed.log_reader import log_reader
from services.distributed.partitions import partition_of
from services.distributed.rebuilding import LogEnds, read_ends, rebuild_store
from services.distributed.signer_marks import held_alone
from services.signing import HighWaterMarks
from tests.support.brokers import SharedKafka
from tests.support.command import run, run_json
from tests.support.distributed_ledger import PARTITIONS, Distributed, empty_ledger, entries, roots, stated
from tests.support.ledger_story import ACCESS, SECOND, THIRD, tell
from tests.support.ledgers import GOVERNANCE_KEY, LOG_KEY, ORIGIN, REGISTER

Change = Callable[[Sequence[Block]], list[Block]]

GARBAGE = b"\x00\x04nope"


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> MemoryStore:
    """An embedded ledger in which everything has happened once."""
    store = MemoryStore()
    tell(store, tmp_path_factory.mktemp("told") / "marks")
    return store


@pytest.fixture(scope="module")
def blocks(told: MemoryStore) -> list[Block]:
    """Its event log."""
    return list(export_blocks(told, told.heads()))


@pytest.fixture
def distributed(
    monkeypatch: pytest.MonkeyPatch, kafka: SharedKafka, prefix: str, fresh_database: str, tmp_path: Path
) -> Distributed:
    """Empty topics and an empty database."""
    return empty_ledger(monkeypatch, kafka, prefix, fresh_database, tmp_path)


@pytest.fixture
def rebuilt(distributed: Distributed, blocks: Sequence[Block]) -> Distributed:
    """Topics with the event log, and a database that was rebuilt from them."""
    distributed.send_blocks(blocks)
    run("rebuild", "--from", "kafka")
    return distributed


def messages_of(blocks: Sequence[Block], register: str) -> list[int]:
    """Return where the messages of a register stand among the blocks."""
    return [
        at for at, block in enumerate(blocks) if isinstance(block, MessageBlock) and block.register == register
    ]


def ends_of(distributed: Distributed) -> LogEnds:
    """Return where the topics end."""

    async def read() -> LogEnds:
        async with log_reader(distributed.settings) as reader:
            return await read_ends(reader, distributed.settings)

    return asyncio.run(read())


def operate(distributed: Distributed, table: str, statement: str) -> None:
    """Change a row as the owner of the database can, who turns the guards off first and on again after."""
    with psycopg.connect(distributed.database) as connection:
        connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
        assert connection.execute(statement).rowcount == 1
        connection.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER never_changed")


# From Kafka.


def test_every_message_has_its_outcome_and_every_partition_its_position(
    rebuilt: Distributed, told: MemoryStore, blocks: Sequence[Block]
) -> None:
    """False if a live writer that starts after a rebuild did a message again, or knew not what became of it."""
    ends = ends_of(rebuilt)
    with closing(rebuilt.store()) as store:
        assert store.partitions(SUBMISSIONS) == PARTITIONS
        done = []
        for partition, end in ends.messages.items():
            position = store.position(SUBMISSIONS, partition)
            assert position is not None
            assert (position.epoch, position.next_offset) == (1, end)
            done += store.dispositions(SUBMISSIONS, partition, 0, end)
        assert len(done) == sum(isinstance(block, MessageBlock) for block in blocks)
        assert {one.kind for one in done} == {Kind.APPENDED}
        assert sum(one.count for one in done) == sum(head.size for head in told.heads().values())
        assert roots(store) == roots(told)
        assert stated(store) == stated(told)
        assert not [row for row in store.outbox(10) if row.topic == CHECKPOINTS], "old news would be sent again"


def test_several_processes_make_the_same(
    distributed: Distributed, told: MemoryStore, blocks: Sequence[Block], monkeypatch: pytest.MonkeyPatch
) -> None:
    """False if what other processes rebuilt differed, or got lost."""
    monkeypatch.setattr(rebuilding, "_MANY", 1)
    distributed.send_blocks(blocks)
    made = run_json("rebuild", "--from", "kafka", "--processes", "2")
    assert made["registers"] == {name: head.size for name, head in told.heads().items()}
    with closing(distributed.store()) as store:
        assert roots(store) == roots(told)
        assert stated(store) == stated(told)


@pytest.mark.parametrize("register", [GOVERNING, REGISTER])
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_a_message_that_registration_cannot_have_made_is_quarantined_and_told(
    distributed: Distributed, told: MemoryStore, blocks: Sequence[Block], register: str, place: str
) -> None:
    """False if garbage in the topic stopped a rebuild, changed a root, or went unnoticed."""
    found = messages_of(blocks, register)
    at = {"first": found[0], "middle": found[len(found) // 2], "last": found[-1] + 1}[place]
    distributed.send_blocks([*blocks[:at], MessageBlock(register, GARBAGE), *blocks[at:]])
    made = run_json("rebuild", "--from", "kafka")
    (named,) = made["quarantined"]
    assert f"{distributed.topic(SUBMISSIONS)}/{partition_of(register, PARTITIONS)}, message " in named
    assert register in named
    with closing(distributed.store()) as store:
        assert roots(store) == roots(told)
        (kept,) = store.quarantined(SUBMISSIONS, partition_of(register, PARTITIONS))
        assert (kept.key, kept.value) == (register.encode(), GARBAGE)
    assert run_json("rebuild", "--from", "kafka", "--check")["quarantined"] == 1


def test_a_message_in_another_partition_than_its_registers_is_quarantined(
    distributed: Distributed, told: MemoryStore, blocks: Sequence[Block]
) -> None:
    """False if a register could be written through two partitions, in no one order."""
    distributed.send_blocks(blocks)
    last = blocks[messages_of(blocks, REGISTER)[-1]]
    assert isinstance(last, MessageBlock)
    elsewhere = (partition_of(REGISTER, PARTITIONS) + 1) % PARTITIONS
    distributed.send([(SUBMISSIONS, elsewhere, REGISTER.encode(), last.value), (SUBMISSIONS, 0, b"\xff", b"")])
    assert len(run_json("rebuild", "--from", "kafka")["quarantined"]) == 2
    with closing(distributed.store()) as store:
        assert store.heads() == told.heads()


def altered(blocks: Sequence[Block]) -> list[Block]:
    at = messages_of(blocks, REGISTER)[1]
    block = blocks[at]
    assert isinstance(block, MessageBlock)
    changed = block.value.replace(b"Decision 70", b"Decision 71", 1)
    assert changed != block.value
    return [*blocks[:at], MessageBlock(REGISTER, changed), *blocks[at + 1 :]]


def missing(blocks: Sequence[Block]) -> list[Block]:
    at = messages_of(blocks, REGISTER)[1]
    return [*blocks[:at], *blocks[at + 1 :]]


def reordered(blocks: Sequence[Block]) -> list[Block]:
    first, second = messages_of(blocks, REGISTER)[:2]
    return [*blocks[:first], blocks[second], blocks[first], *blocks[second + 1 :]]


@pytest.mark.parametrize("change", [altered, missing, reordered])
def test_another_history_than_was_signed_is_named_with_both_roots(
    distributed: Distributed, told: MemoryStore, blocks: Sequence[Block], change: Change
) -> None:
    """False if a topic that was changed could become a ledger again."""
    distributed.send_blocks(change(blocks))
    said = run_json("rebuild", "--from", "kafka", status=1)["error"]
    assert REGISTER in said["message"]
    sizes = [note.size for note in told.notes(REGISTER, 1, 1 << 40)]
    stated_there = [root for (name, _), root in stated(told).items() if name == REGISTER]
    assert any(f"size {size} states another root" in said["message"] for size in sizes)
    assert any(base64.b64encode(root).decode() in said["message"] for root in stated_there)
    if change is altered:
        assert "is quarantined: signature" in said["message"]


def test_a_topic_that_ends_before_what_was_signed_is_named(
    distributed: Distributed, blocks: Sequence[Block]
) -> None:
    """False if the loss of the last messages passed for an older state."""
    at = messages_of(blocks, THIRD)[-1]
    distributed.send_blocks([*blocks[:at], *blocks[at + 1 :]])
    said = run_json("rebuild", "--from", "kafka", status=1)["error"]["message"]
    assert f"{THIRD}: a note states size 260, which the messages do not reach" in said


def test_the_topics_of_another_ledger_fill_nothing(
    distributed: Distributed, blocks: Sequence[Block], monkeypatch: pytest.MonkeyPatch
) -> None:
    """False if a wrong origin filled a database with quarantined messages, which can never be taken out."""
    distributed.send_blocks(blocks)
    monkeypatch.setenv("DAYBOOK_ORIGIN", "other.test")
    assert "does not open a ledger other.test" in run("rebuild", "--from", "kafka", status=2).output
    monkeypatch.setenv("DAYBOOK_ORIGIN", ORIGIN)
    assert run_json("rebuild", "--from", "kafka")["rebuilt"]


def test_a_note_that_the_log_has_not_signed_is_told_and_not_kept(
    distributed: Distributed, told: MemoryStore, blocks: Sequence[Block]
) -> None:
    """False if anybody who writes to the topic could stop a rebuild, or plant a note."""
    planted = sign_checkpoint(
        Checkpoint(f"{ORIGIN}/{REGISTER}", 1_000_000, Hash(bytes(32))),
        SignerKey(f"{ORIGIN}/{REGISTER}", GOVERNANCE_KEY),
    )
    distributed.send_blocks([NoteBlock(REGISTER, 1, b"nothing"), *blocks, NoteBlock(REGISTER, 1, planted)])
    distributed.send([(CHECKPOINTS, partition_of(REGISTER, PARTITIONS), b"\xff", b"")])
    assert len(run_json("rebuild", "--from", "kafka")["unverified"]) == 3
    with closing(distributed.store()) as store:
        assert stated(store) == stated(told)


def test_a_note_that_the_log_has_signed_of_another_root_is_evidence(
    distributed: Distributed, blocks: Sequence[Block]
) -> None:
    """False if a log that signed two histories got away with it."""
    other = sign_checkpoint(
        Checkpoint(f"{ORIGIN}/{REGISTER}", 70, Hash(bytes(32))), SignerKey(f"{ORIGIN}/{REGISTER}", LOG_KEY)
    )
    distributed.send_blocks([*blocks, NoteBlock(REGISTER, 70, other)])
    said = run_json("rebuild", "--from", "kafka", status=1)["error"]["message"]
    assert f"{REGISTER}: the note of size 70 states another root" in said


# Interrupted.


def test_an_interrupted_rebuild_goes_on(
    distributed: Distributed, told: MemoryStore, blocks: Sequence[Block], monkeypatch: pytest.MonkeyPatch
) -> None:
    """False if a rebuild of hours had to begin again, or if half a ledger passed for a whole one."""
    distributed.send_blocks(blocks)
    monkeypatch.setattr(rebuilding, "MESSAGES_TOGETHER", 3)
    done = 0

    def stop(some: int) -> None:
        nonlocal done
        done += some
        if done >= 13:
            raise KeyboardInterrupt

    with closing(distributed.store()) as store, pytest.raises(KeyboardInterrupt):
        asyncio.run(rebuild_store(distributed.settings, store, ends_of(distributed), 1, stop))
    assert "--resume" in run("rebuild", "--from", "kafka", status=1).output
    assert run_json("rebuild", "--from", "kafka", "--resume")["rebuilt"]
    with closing(distributed.store()) as store:
        assert roots(store) == roots(told)
        assert stated(store) == stated(told)
    assert run_json("rebuild", "--from", "kafka", "--check")["behind"] == 0


def test_what_the_topic_never_had_is_still_sent_after_a_rebuild_that_goes_on(
    distributed: Distributed, blocks: Sequence[Block]
) -> None:
    """False if --resume threw signed notes away that wait for the relay, or sent the topic what it has."""
    last = max(
        (block for block in blocks if isinstance(block, NoteBlock) and block.register == REGISTER),
        key=lambda block: block.size,
    )
    distributed.send_blocks([block for block in blocks if block.register != THIRD and block is not last])
    run("rebuild", "--from", "kafka")
    text, lines = split_note(last.note)
    signed = StoredNote(
        last.size, format_note(text, [line for line in lines if line.name == f"{ORIGIN}/{REGISTER}"])
    )
    witnessed = [line for line in lines if line.name != f"{ORIGIN}/{REGISTER}"]
    assert witnessed
    with closing(distributed.store()) as store:
        store.publish_notes({REGISTER: signed})
        store.keep_cosignatures([NewCosignatures(REGISTER, signed, witnessed)])
        waiting = [row for row in store.outbox(1_000) if row.topic == CHECKPOINTS]
        assert len(waiting) == 2
        end = store.outbox_end()
    distributed.send_blocks([block for block in blocks if block.register == THIRD])
    run("rebuild", "--from", "kafka", "--resume")
    with closing(distributed.store()) as store:
        assert store.heads()[THIRD].size
        left = [row for row in store.outbox(1_000) if row.topic == CHECKPOINTS]
    assert [row for row in left if row.key != THIRD.encode()] == waiting
    assert max(row.id for row in left) <= end, "what the rebuild itself has made of the topic is not sent there"


# Compared.


def test_a_store_that_is_not_empty_is_compared_and_not_changed(rebuilt: Distributed, told: MemoryStore) -> None:
    """False if a rebuild wrote over a ledger."""
    before = entries(rebuilt)
    said = run_json("rebuild", "--from", "kafka")
    assert (said["rebuilt"], said["behind"]) == (False, 0)
    assert said["registers"] == {name: head.size for name, head in told.heads().items()}
    assert entries(rebuilt) == before
    assert ACCESS in before


@pytest.mark.parametrize(
    ("table", "statement", "named"),
    [
        (
            "entry",
            "UPDATE entry SET entry = set_byte(entry, 400, get_byte(entry, 400) # 1) WHERE index = 41 AND "
            f"register = (SELECT number FROM register WHERE name = '{REGISTER}')",
            f"{REGISTER}: entry 41 (SHA-256) is",
        ),
        (
            "tile",
            "UPDATE tile SET hashes = set_byte(hashes, 40, get_byte(hashes, 40) # 1) "
            "WHERE level = 0 AND first = 0 AND register = "
            f"(SELECT number FROM register WHERE name = '{REGISTER}')",
            f"{REGISTER}: the root of size ",
        ),
        (
            "disposition",
            "UPDATE disposition SET count = 2 WHERE log_offset = 1 AND count = 1 AND register = "
            f"(SELECT number FROM register WHERE name = '{GOVERNING}')",
            "of message 1 the store says appended, governing from 1 on, 2 entries",
        ),
        (
            "note",
            "DELETE FROM note WHERE size = 5 AND register = "
            f"(SELECT number FROM register WHERE name = '{SECOND}')",
            f"{SECOND}: the store lacks the note of size 5",
        ),
    ],
    ids=["entry", "tile", "disposition", "note"],
)
def test_a_row_that_the_owner_of_the_database_changed_is_named(
    rebuilt: Distributed, table: str, statement: str, named: str
) -> None:
    """False if whoever runs the database could change it, and the topics did not give that away."""
    operate(rebuilt, table, statement)
    assert named in run_json("rebuild", "--from", "kafka", "--check", status=1)["error"]["message"]


def accepted_later(blocks: Sequence[Block]) -> list[Block]:
    """Another acceptance of one submission, which no signature covers: the outcomes are the same."""
    at = messages_of(blocks, REGISTER)[0]
    block = blocks[at]
    assert isinstance(block, MessageBlock)
    return [
        *blocks[:at],
        MessageBlock(REGISTER, block.value.replace(b".000Z", b".001Z")),
        *(each for each in blocks[at + 1 :] if isinstance(each, MessageBlock)),
    ]


def last_altered(blocks: Sequence[Block]) -> list[Block]:
    """Another last message of a partition."""
    at = max(at for at, block in enumerate(blocks) if isinstance(block, MessageBlock))
    return [*blocks[:at], MessageBlock(blocks[at].register, GARBAGE), *blocks[at + 1 :]]


def nothing(_blocks: Sequence[Block]) -> list[Block]:
    """Topics that were created anew."""
    return []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (nothing, "it ends at 0, and the store has"),
        (reordered, "of message 0 the store says appended"),
        (accepted_later, "are not those that the store was made from: their chain is"),
        (last_altered, "is not the one that the store was made from"),
    ],
    ids=["empty", "reordered", "accepted-later", "last"],
)
def test_a_store_of_other_topics_is_named(
    rebuilt: Distributed, blocks: Sequence[Block], monkeypatch: pytest.MonkeyPatch, change: Change, named: str
) -> None:
    """False if services could be pointed at topics that were truncated, or are of another history."""
    other = f"{rebuilt.settings.topic_prefix}other."
    monkeypatch.setenv("DAYBOOK_TOPIC_PREFIX", other)
    run("topics")
    settings = rebuilt.settings.model_copy(update={"topic_prefix": other})
    Distributed(settings, rebuilt.database).send_blocks(change(blocks))
    assert named in run("rebuild", "--from", "kafka", "--check", status=1).output


# fsck.


def test_fsck_finds_a_rebuilt_store_whole_and_names_a_flipped_byte(rebuilt: Distributed) -> None:
    """False if a byte that somebody with every right changed in the database went unnoticed."""
    found = run_json("fsck", "--database", "--processes", "2")
    assert found["ok"], found
    operate(
        rebuilt,
        "entry",
        "UPDATE entry SET entry = set_byte(entry, 400, get_byte(entry, 400) # 1) WHERE index = 41 AND "
        f"register = (SELECT number FROM register WHERE name = '{REGISTER}')",
    )
    found = run_json("fsck", "--database", "--processes", "1", status=1)
    assert {(one["register"], one["place"]) for one in found["problems"]} >= {(REGISTER, "entry 41")}


# The signer's marks.


def test_the_signers_marks_are_the_latest_notes_and_never_lowered(
    rebuilt: Distributed, told: MemoryStore, tmp_path: Path
) -> None:
    """False if a signer could not go on after a rebuild, or could be made to forget what it has signed."""
    path = tmp_path / "signer.marks"
    run("rebuild", "--from", "kafka", "--signer-marks", path)
    with closing(HighWaterMarks(path)) as marks:
        for register, head in told.heads().items():
            stored = told.note(register, head.size)
            assert stored is not None
            assert marks.latest(f"{ORIGIN}/{register}") == Checkpoint.parse(split_note(stored.note)[0])
        higher = Checkpoint(f"{ORIGIN}/{REGISTER}", 1_000, Hash(b"\x07" * 32))
        marks.raise_to([higher])
    assert run_json("rebuild", "--from", "kafka", "--signer-marks", path)["signed_beyond"] == {REGISTER: 1_000}
    with closing(HighWaterMarks(path)) as marks:
        assert marks.latest(higher.origin) == higher
    assert len(rebuilt.settings.origin)


def test_marks_of_another_history_are_refused(rebuilt: Distributed, tmp_path: Path) -> None:
    """False if a signer that signed another history were given marks of this one."""
    path = tmp_path / "signer.marks"
    other = Checkpoint(f"{ORIGIN}/{REGISTER}", 70, Hash(b"\x07" * 32))
    with closing(HighWaterMarks(path)) as marks:
        marks.raise_to([other])
    said = run_json("rebuild", "--from", "kafka", "--signer-marks", path, status=1)["error"]
    assert said["reason"] == "SPLIT_VIEW"
    with closing(HighWaterMarks(path)) as marks:
        assert marks.latest(other.origin) == other
        assert marks.latest(f"{ORIGIN}/{GOVERNING}") is None
    assert len(rebuilt.settings.origin)


def test_marks_that_a_signer_holds_are_left_alone(rebuilt: Distributed, tmp_path: Path) -> None:
    """False if marks were raised under a running signer, whose next one would write over them."""
    path = tmp_path / "signer.marks"
    with held_alone(path):
        said = run("rebuild", "--from", "kafka", "--signer-marks", path, status=3)
    assert str(path) in said.output
    assert "another signer" in said.output
    assert not path.exists()
    run("rebuild", "--from", "kafka", "--signer-marks", path)
    assert len(rebuilt.settings.origin)
