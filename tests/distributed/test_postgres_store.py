"""The PostgreSQL store as the authority on a log: fencing, all or nothing, outbox, who may change what."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from ledger.errors import ConflictError, FencedError, StorageFullError, StoreError, TakenError
from ledger.event_log import (
    CHECKPOINTS,
    EMPTY_CHAIN,
    REJECTIONS,
    SUBMISSIONS,
    Advance,
    Disposition,
    Kind,
    LogStore,
    Position,
    QuarantinedMessage,
    chained,
    message_hash,
)
from ledger.notes import SignatureLine, format_note
from ledger.store import Batch, Head, NewCosignatures, StoredNote
from ledger.stores.memory import MemoryStore
from ledger.stores.postgres import APPLICATION_ROLE, READER_ROLE, PostgresStore, migrate
from ledger.stores.postgres import schema as postgres_schema
from ledger.stores.postgres import store as postgres_module
from ledger.stores.postgres.commits import copy_entries
from ledger.stores.postgres.store import _FEW
from services.local.postgres import Postgres
from tests.support.batches import batch, entry, head_at, name_of, note_of

REGISTER = "department/office"
OTHER = "department/other-office"
NEVER_CHANGED = (
    "entry",
    "tile",
    "note",
    "submission",
    "record",
    "rejection",
    "disposition",
    "quarantine",
    "log_topic",
)


@pytest.fixture
def database(fresh_database: str) -> str:
    """A database that was migrated."""
    migrate(fresh_database)
    return fresh_database


@pytest.fixture
def store(database: str) -> Iterator[PostgresStore]:
    """An empty store."""
    with closing(PostgresStore(database)) as made:
        yield made


def step(before: Position, register: str, count: int, first: int) -> Advance:
    """Return the advance over `count` messages of one entry each, appended from index `first` on."""
    offsets = range(before.next_offset, before.next_offset + count)
    return Advance(
        before,
        before.after([message_hash(register, b"%d" % offset) for offset in offsets]),
        [
            Disposition(offset, Kind.APPENDED, register, first + place, 1)
            for place, offset in enumerate(offsets)
        ],
        [],
    )


def quarantining(before: Position, *keys: bytes) -> Advance:
    """Return the advance over messages that are all quarantined."""
    offsets = range(before.next_offset, before.next_offset + len(keys))
    texts = [key.decode("utf-8", "replace") for key in keys]
    return Advance(
        before,
        before.after([message_hash(text, b"poison") for text in texts]),
        [
            Disposition(offset, Kind.QUARANTINED, text, 0, 0)
            for offset, text in zip(offsets, texts, strict=True)
        ],
        [
            QuarantinedMessage(offset, text, key, b"poison %d" % offset, f"it is message {offset}")
            for offset, text, key in zip(offsets, texts, keys, strict=True)
        ],
    )


def contents(database: str) -> dict[str, list[object]]:
    """Return every row of every table."""
    with psycopg.connect(database) as connection:
        tables = connection.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        ).fetchall()
        return {
            name: sorted(
                connection.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(name))).fetchall(),
                key=repr,
            )
            for (name,) in tables
        }


# The pure part.


def test_the_hash_of_a_message_and_the_chain_are_those_of_the_format() -> None:
    """False if another program that reads formats.md computed other positions. By hand, with sha256sum."""
    message = message_hash("a/b", b"value")
    assert message.hex() == "512968f4779d571660ca65cf8338892224518c360a296adac0bbfaadc203e397"
    assert (
        chained(EMPTY_CHAIN, message).hex()
        == "9d7ebcbd78d09d1acddaad8e34ad67107bb919e3411f7d22f7438a83515a92eb"
    )


def test_a_position_goes_on_message_by_message() -> None:
    """False if how messages were cut into commits could be read from the chain."""
    start = Position(SUBMISSIONS, 3, 7, 10, b"l" * 32, b"c" * 32)
    hashes = [bytes([number]) * 32 for number in range(5)]
    assert start.after([]) == start
    assert start.after(hashes[:2]).after(hashes[2:]) == start.after(hashes)
    assert start.after(hashes[:1]) == replace(
        start, next_offset=11, last=hashes[0], chain=chained(b"c" * 32, hashes[0])
    )


# Positions and fencing.


def test_it_is_a_log_store(store: PostgresStore) -> None:
    """False if the store lacked a part of the protocol: mypy reads this too."""
    as_log_store: LogStore = store
    assert as_log_store.position(SUBMISSIONS, 0) is None


def test_taking_over_raises_the_epoch_and_changes_nothing_else(store: PostgresStore) -> None:
    """False if two writers could hold one epoch, or a takeover moved the position."""
    first = store.take_over(SUBMISSIONS, 0)
    assert first == Position(SUBMISSIONS, 0, 1, 0, None, EMPTY_CHAIN)
    moved = step(first, REGISTER, 3, 0)
    store.commit_log([batch(REGISTER, None, 3)], moved)
    assert store.take_over(SUBMISSIONS, 0) == replace(moved.after, epoch=2)
    assert store.position(SUBMISSIONS, 0) == replace(moved.after, epoch=2)
    assert store.take_over(SUBMISSIONS, 1) == replace(first, partition=1)
    assert store.take_over("another topic", 0) == replace(first, topic="another topic")


@pytest.mark.parametrize("role", [None, APPLICATION_ROLE])
def test_whoever_stands_still_in_the_middle_of_a_commit_does_not_hold_the_partition(
    database: str, role: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """False if a paused process kept its successor out, or what it was to commit were there in the end.

    Services log in as one user and take the role of the application.
    """
    if role is not None:
        database = make_conninfo(database, options=f"-c role={role}")
    reached, go_on = threading.Event(), threading.Event()

    def paused(*asked: object) -> None:
        copy_entries(*asked)  # type: ignore[arg-type]
        reached.set()
        go_on.wait(60)

    with closing(PostgresStore(database)) as zombie, closing(PostgresStore(database)) as successor:
        before = zombie.take_over(SUBMISSIONS, 0)
        monkeypatch.setattr(postgres_module, "copy_entries", paused)
        with ThreadPoolExecutor(1) as pool:
            many = _FEW + 1
            late = pool.submit(
                zombie.commit_log, [batch(REGISTER, None, many)], step(before, REGISTER, many, 0)
            )
            assert reached.wait(60)
            assert successor.take_over(SUBMISSIONS, 0) == replace(before, epoch=2)
            # The others go on meanwhile.
            assert successor.take_over(SUBMISSIONS, 1).epoch == 1
            go_on.set()
            with pytest.raises(StoreError):
                late.result()
        assert successor.heads() == {}


def test_many_that_take_over_at_once_have_an_epoch_each(database: str) -> None:
    """False if a race for a partition left two writers that both believe, and are right, that they are it."""
    stores = [PostgresStore(database) for _ in range(4)]
    try:
        with ThreadPoolExecutor(4) as pool:
            taken = list(pool.map(lambda one: [one.take_over(SUBMISSIONS, 0).epoch for _ in range(10)], stores))
    finally:
        for each in stores:
            each.close()
    assert sorted(itertools.chain(*taken)) == list(range(1, 41))


def test_a_writer_that_was_fenced_writes_nothing(database: str, store: PostgresStore) -> None:
    """False if a zombie, paused while another took over, could still append, or raise anything but its end."""
    held = store.take_over(SUBMISSIONS, 0)
    first = step(held, REGISTER, 3, 0)
    store.commit_log([batch(REGISTER, None, 3)], first)
    with closing(PostgresStore(database)) as other:
        taken = other.take_over(SUBMISSIONS, 0)
        before = contents(database)
        with pytest.raises(FencedError):
            store.commit_log([batch(REGISTER, 3, 5)], step(first.after, REGISTER, 2, 3))
        with pytest.raises(FencedError):
            store.commit_log([], quarantining(first.after, b"x"))
        assert contents(database) == before
        second = step(taken, REGISTER, 2, 3)
        other.commit_log([batch(REGISTER, 3, 5)], second)
        # The zombie is fenced all the more where its own work was done by the other.
        with pytest.raises(FencedError):
            store.commit_log([batch(REGISTER, 3, 5)], step(first.after, REGISTER, 2, 3))
        assert other.position(SUBMISSIONS, 0) == second.after
        assert store.heads() == {REGISTER: head_at(5)}


def test_a_commit_that_waits_for_a_takeover_is_fenced_by_it(database: str, store: PostgresStore) -> None:
    """False if the epoch were looked at before the lock: between the two another could take over."""
    held = store.take_over(SUBMISSIONS, 0)
    with psycopg.connect(database) as taking, ThreadPoolExecutor(1) as pool:
        taking.execute("UPDATE log_position SET epoch = epoch + 1")
        late = pool.submit(store.commit_log, [batch(REGISTER, None, 3)], step(held, REGISTER, 3, 0))
        with pytest.raises(TimeoutError):
            late.result(0.3)
        taking.commit()
        with pytest.raises(FencedError):
            late.result(10)
    assert store.heads() == {}


def test_what_does_not_begin_where_the_partition_stands_is_refused(database: str, store: PostgresStore) -> None:
    """False if a gap, a redelivery or another history could be committed."""
    start = store.take_over(SUBMISSIONS, 0)
    done = step(start, REGISTER, 3, 0)
    store.commit_log([batch(REGISTER, None, 3)], done)
    before = contents(database)
    stands = done.after
    for wrong in (
        replace(stands, next_offset=4),
        replace(stands, next_offset=2),
        start,
        replace(stands, last=bytes(32)),
        replace(stands, last=None),
        replace(stands, chain=bytes(32)),
        replace(stands, partition=1),
    ):
        with pytest.raises(ConflictError) as refused:
            store.commit_log([batch(REGISTER, 3, 5)], step(wrong, REGISTER, 2, 3))
        assert not isinstance(refused.value, FencedError)
    assert contents(database) == before
    store.commit_log([batch(REGISTER, 3, 5)], step(stands, REGISTER, 2, 3))


def test_each_message_that_is_passed_has_its_outcome(database: str, store: PostgresStore) -> None:
    """False if a message could be passed over without saying what became of it, or twice."""
    start = store.take_over(SUBMISSIONS, 0)
    good = step(start, REGISTER, 3, 0)
    poison = quarantining(start, b"one", b"two")
    before = contents(database)
    for wrong in (
        replace(good, dispositions=good.dispositions[:2]),
        replace(good, dispositions=[*good.dispositions, good.dispositions[-1]]),
        replace(good, dispositions=good.dispositions[::-1]),
        replace(good, dispositions=[]),
        replace(good, after=replace(good.after, epoch=2)),
        replace(good, after=replace(good.after, partition=1)),
        replace(poison, quarantined=poison.quarantined[:1]),
        replace(poison, quarantined=[]),
        replace(good, quarantined=poison.quarantined[:1]),
    ):
        with pytest.raises(StoreError):
            store.commit_log([batch(REGISTER, None, 3)], wrong)
    assert contents(database) == before


def test_partitions_do_not_mix(store: PostgresStore) -> None:
    """False if one partition's outcomes answered for another."""
    zero, one = store.take_over(SUBMISSIONS, 0), store.take_over(SUBMISSIONS, 1)
    first, second = step(zero, REGISTER, 3, 0), step(one, OTHER, 2, 0)
    store.commit_log([batch(REGISTER, None, 3)], first)
    store.commit_log([batch(OTHER, None, 2)], second)
    assert store.dispositions(SUBMISSIONS, 0, 0, 100) == first.dispositions
    assert store.dispositions(SUBMISSIONS, 1, 0, 100) == second.dispositions
    assert store.dispositions(SUBMISSIONS, 0, 1, 2) == first.dispositions[1:2]
    assert store.disposition(SUBMISSIONS, 1, 1) == second.dispositions[1]
    assert store.disposition(SUBMISSIONS, 1, 2) is None
    assert store.disposition(SUBMISSIONS, 2, 0) is None
    assert store.disposition("another topic", 0, 0) is None


def test_outcomes_of_every_kind_come_back(store: PostgresStore) -> None:
    """False if an outcome were another after it was kept, also where nothing is appended with it."""
    start = store.take_over(SUBMISSIONS, 0)
    store.commit_log([batch(REGISTER, None, 3)], step(start, REGISTER, 3, 0))
    stands = store.position(SUBMISSIONS, 0)
    assert stands is not None
    poison = quarantining(replace(stands, next_offset=5), b"department/office", b"\xff\0\xfe")
    told = [
        Disposition(3, Kind.KNOWN, REGISTER, 1, 2),
        Disposition(4, Kind.REJECTED, OTHER, 0, 1),
        *poison.dispositions,
    ]
    odd = replace(poison.quarantined[1], why="a NUL \0 and half a character \ud800")
    advance = Advance(
        stands,
        stands.after([bytes([each.offset]) * 32 for each in told]),
        told,
        [poison.quarantined[0], odd],
    )
    store.commit_log([batch(OTHER, None, 1)], advance)
    assert store.dispositions(SUBMISSIONS, 0, 3, 9) == told
    kept = list(store.quarantined(SUBMISSIONS, 0))
    assert kept == [poison.quarantined[0], replace(odd, why="a NUL \ufffd and half a character ?")]
    assert kept[1].key == b"\xff\0\xfe"
    assert list(store.quarantined(SUBMISSIONS, 1)) == []
    assert store.position(SUBMISSIONS, 0) == advance.after


def test_many_quarantined_messages_are_read_in_order(store: PostgresStore) -> None:
    """False if a long list lost some between the pages it is read in."""
    poison = quarantining(store.take_over(SUBMISSIONS, 0), *(b"%d" % number for number in range(100)))
    store.commit_log([], poison)
    assert list(store.quarantined(SUBMISSIONS, 0)) == poison.quarantined


def test_the_latest_rejection_is_found(store: PostgresStore) -> None:
    """False if a submission's rejection were lost, or an older one shown."""
    one, two, three = name_of(1001), name_of(1002), name_of(1003)
    store.commit([replace(batch(REGISTER, None, 5), rejections={one: 1, two: 2}), batch(OTHER, None, 1)])
    store.commit([replace(batch(REGISTER, 5, 9), rejections={one: 7})])
    assert store.rejection(REGISTER, [one, two, three, one]) == {one: 7, two: 2}
    assert store.rejection(OTHER, [one]) == {}


def test_the_number_of_partitions_is_fixed_once(store: PostgresStore) -> None:
    """False if a topic could get another number of partitions: a register's messages would change places."""
    assert store.partitions(SUBMISSIONS) is None
    store.fix_partitions(SUBMISSIONS, 12)
    store.fix_partitions(SUBMISSIONS, 12)
    with pytest.raises(StoreError, match="12 partitions for ever, not 13"):
        store.fix_partitions(SUBMISSIONS, 13)
    assert store.partitions(SUBMISSIONS) == 12
    assert store.partitions(CHECKPOINTS) is None


# All or nothing.


MOVED: dict[str, Callable[[], Batch]] = {
    "a head that has moved": lambda: batch(OTHER, 4, 6),
    "another size of the same root": lambda: replace(batch(OTHER, 4, 6), expected=Head(4, head_at(5).root)),
    "another root of the same size": lambda: replace(batch(OTHER, 5, 6), expected=Head(5, head_at(4).root)),
    "a register that is there": lambda: batch(OTHER, None, 2),
    "a register that is not": lambda: batch("department/nobody", 1, 2),
}
TAKEN: dict[str, Callable[[], Batch]] = {
    "a submission that is there": lambda: replace(
        batch(OTHER, 5, 6), submissions=dict(batch(OTHER, None, 1).submissions)
    ),
    "a version that is there": lambda: replace(batch(OTHER, 5, 6), records=batch(OTHER, None, 1).records),
}
REPEATED: dict[str, Callable[[], Batch]] = {
    "a tile that is there": lambda: replace(batch(OTHER, 5, 6), tiles=[*batch(OTHER, 5, 6).tiles] * 2),
    "a rejection that is there": lambda: replace(batch(OTHER, 5, 6), rejections={name_of(7): 4}),
}


@pytest.mark.parametrize(
    ("spoilt", "error"),
    [(each, ConflictError) for each in MOVED.values()]
    + [(each, TakenError) for each in TAKEN.values()]
    + [(each, StoreError) for each in REPEATED.values()],
    ids=[*MOVED, *TAKEN, *REPEATED],
)
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_one_bad_batch_leaves_nothing_of_the_others_or_of_the_log(
    first: bool, spoilt: Callable[[], Batch], error: type[Exception], database: str, store: PostgresStore
) -> None:
    """False if entries, outcomes, position or outbox could be there without each other."""
    start = store.take_over(SUBMISSIONS, 0)
    store.commit([replace(batch(OTHER, None, 5), rejections={name_of(7): 4}), batch(REGISTER, None, 3)])
    before = contents(database)
    good = batch(REGISTER, 3, 40, [note_of(3)])
    bad = spoilt()
    advance = step(start, REGISTER, 37, 3)
    with pytest.raises(error):
        store.commit_log([bad, good] if first else [good, bad], advance)
    assert contents(database) == before
    store.commit_log([good, batch(OTHER, 5, 6)], advance)
    assert store.heads() == {REGISTER: head_at(40), OTHER: head_at(6)}


def test_no_room_is_told_apart_and_leaves_nothing(database: str, store: PostgresStore) -> None:
    """False if a full disk were an unknown outcome, or spoilt the commits after it."""
    start = store.take_over(SUBMISSIONS, 0)
    store.commit([batch(REGISTER, None, 3)])
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$"
        )
        for table in ("entry", "disposition", "outbox"):
            owner.execute(f"CREATE TRIGGER full_disk BEFORE INSERT ON {table} EXECUTE FUNCTION full_disk()")
            before = contents(database)
            with pytest.raises(StorageFullError):
                store.commit_log([batch(REGISTER, 3, 5)], step(start, REGISTER, 2, 3))
            owner.execute(f"DROP TRIGGER full_disk ON {table}")
            assert contents(database) == before
    store.commit_log([batch(REGISTER, 3, 5)], step(start, REGISTER, 2, 3))


@pytest.mark.parametrize(("few", "entries"), [(0, "copy_entries"), (64, "add_entries")])
def test_an_exception_in_the_middle_leaves_nothing(
    few: int, entries: str, database: str, store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """False if a fault of the program, or an interrupt, left a half-made commit to the next one."""
    start = store.take_over(SUBMISSIONS, 0)
    before = contents(database)
    monkeypatch.setattr(postgres_module, "_FEW", few)
    for name in ("moved", entries, "add_rows", "keep_notes"):
        with monkeypatch.context() as patched:

            def interrupted(*_: object) -> None:
                raise KeyboardInterrupt

            patched.setattr(postgres_module, name, interrupted)
            with pytest.raises(KeyboardInterrupt):
                store.commit_log([batch(REGISTER, None, 3)], step(start, REGISTER, 3, 0))
        assert contents(database) == before
    store.commit_log([batch(REGISTER, None, 3)], step(start, REGISTER, 3, 0))


def test_a_submission_is_not_held_against_itself(store: PostgresStore, fresh_database: str) -> None:
    """False if what is sent twice at once could be refused as registered already, by itself."""
    store.commit([batch(REGISTER, None, 0)])
    asked = ([name_of(0)], [name_of(0)[:16]])
    with psycopg.connect(fresh_database) as between, ThreadPoolExecutor(1) as thread:
        # Whoever looks has asked for the records, and now waits to ask for the rest.
        between.execute("LOCK TABLE rejection IN ACCESS EXCLUSIVE MODE")
        looking = thread.submit(store.look_up, REGISTER, *asked)
        until_locked(fresh_database)
        store.commit([batch(REGISTER, 0, 1)])
        between.rollback()
        found = looking.result()
    assert found.latest == []
    assert found.runs.keys() == {name_of(0)}


def until_locked(database: str) -> None:
    """Wait until somebody waits for a lock."""
    with psycopg.connect(database, autocommit=True) as looker:
        while not looker.execute("SELECT FROM pg_locks WHERE NOT granted").fetchall():
            pass


def test_a_commit_is_durable_whatever_the_server_does_for_others(database: str) -> None:
    """False if a database that was set to lose its last commits lost ours."""
    with psycopg.connect(database, autocommit=True) as owner:
        name = owner.info.dbname
        owner.execute(sql.SQL("ALTER DATABASE {} SET synchronous_commit = off").format(sql.Identifier(name)))
    with closing(PostgresStore(database)) as store, store._connections.transaction() as writer:
        assert writer.execute("SHOW synchronous_commit").fetchall() == [("on",)]


def commit_until_it_fails(store: PostgresStore, held: Position, size: int) -> tuple[Position, int]:
    """Commit ten entries at a time; return what the last commit that returned has reached."""
    while True:
        advance = step(held, REGISTER, 10, size)
        try:
            store.commit_log([batch(REGISTER, size or None, size + 10)], advance)
        except StoreError:
            return held, size
        held, size = advance.after, size + 10


def test_a_killed_server_leaves_all_of_a_commit_or_nothing(
    fresh_postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """False if a crash could part entries from position, or lose a commit; or a store did not recover."""
    fresh_postgres.create_database("daybook")
    database = fresh_postgres.dsn()
    migrate(database)
    random = Random(5)
    with closing(PostgresStore(database)) as store:
        held = store.take_over(SUBMISSIONS, 0)
        size = 0
        for moment in ("copy_entries", "add_entries", "add_rows", None, None, None, None):
            # Some commits copy, others do not.
            monkeypatch.setattr(postgres_module, "_FEW", 0 if moment == "copy_entries" else 64)
            wall = threading.Timer(random.uniform(0.005, 0.06), fresh_postgres.kill)
            with monkeypatch.context() as patched:
                if moment:

                    def killed(*_: object) -> None:
                        fresh_postgres.kill()

                    patched.setattr(postgres_module, moment, killed)
                else:
                    wall.start()
                held, size = commit_until_it_fails(store, held, size)
            if not moment:
                wall.join()
            fresh_postgres.start()
            found = store.heads().get(REGISTER, Head(0, head_at(0).root))
            assert found.size in ((size,) if moment else (size, size + 10))
            held, size = store.take_over(SUBMISSIONS, 0), found.size
            assert held.next_offset == size
            assert [each.first for each in store.dispositions(SUBMISSIONS, 0, 0, size + 99)] == list(
                range(size)
            )
            if size:
                assert found == head_at(size)
                assert store.entries(REGISTER, 0, size + 99) == [entry(index) for index in range(size)]
            assert store.damage() == []
        assert size > 0


# The outbox.


def test_the_outbox_has_what_was_committed_in_the_order_of_the_commits(store: PostgresStore) -> None:
    """False if news were lost, sent before their note was signed, or out of order."""
    start = store.take_over(SUBMISSIONS, 0)
    first = step(start, REGISTER, 3, 0)
    store.commit_log([batch(REGISTER, None, 3), Batch(OTHER, None, head_at(0))], first)
    store.commit_log([], quarantining(first.after, b"\xff", b"two"))
    poison = [(REJECTIONS, b"\xff", b"poison 3"), (REJECTIONS, b"two", b"poison 4")]
    assert [(row.topic, row.key, row.value) for row in store.outbox(9)] == poison
    assert store.unsigned() == [(REGISTER, 3), (OTHER, 0)]
    store.publish_notes({OTHER: note_of(0), REGISTER: note_of(3)})
    heads = [
        (CHECKPOINTS, REGISTER.encode(), note_of(3).note),
        (CHECKPOINTS, OTHER.encode(), note_of(0).note),
    ]
    rows = store.outbox(9)
    assert [(row.topic, row.key, row.value) for row in rows] == [*heads, *poison]
    assert store.outbox(2) == rows[:2]
    assert store.unsigned() == []
    assert store.note(REGISTER, 9) == note_of(3)
    store.sent([row.id for row in rows[:3]])
    assert store.outbox(9) == rows[3:]
    store.sent([rows[3].id, rows[0].id])
    assert store.outbox(9) == []


def test_a_head_that_did_not_move_is_no_news(store: PostgresStore) -> None:
    """False if keeping a note told everybody of a head that they know."""
    start = store.take_over(SUBMISSIONS, 0)
    first = step(start, REGISTER, 3, 0)
    store.commit_log([batch(REGISTER, None, 3)], first)
    store.commit_log([Batch(REGISTER, head_at(3), head_at(3), notes=[note_of(3)])], step(first.after, "", 0, 0))
    assert [row.value for row in store.outbox(9)] == [note_of(3).note]


def test_publishing_a_note_again_sends_it_again_and_keeps_the_first(store: PostgresStore) -> None:
    """False if a note could be replaced, or a repair could not send what was lost with a broker."""
    store.commit([batch(REGISTER, None, 3)])
    store.publish_notes({REGISTER: note_of(3)})
    store.publish_notes({REGISTER: note_of(3)})
    (row,) = store.outbox(9)
    assert (row.topic, row.key, row.value) == (CHECKPOINTS, REGISTER.encode(), note_of(3).note)
    store.sent([row.id])
    store.publish_notes({REGISTER: StoredNote(3, b"another spelling")})
    assert [each.value for each in store.outbox(9)] == [note_of(3).note]
    assert store.note(REGISTER, 3) == note_of(3)


def test_heads_that_nobody_signed_in_time_are_dropped(database: str, store: PostgresStore) -> None:
    """False if rows that nothing will ever fill were left, or those of another register went."""
    held = store.take_over(SUBMISSIONS, 0)
    for before, after in ((None, 2), (2, 5), (5, 9)):
        advance = step(held, REGISTER, 1, 0)
        store.commit_log([batch(REGISTER, before, after), batch(OTHER, before, after)], advance)
        held = advance.after
    store.publish_notes({REGISTER: note_of(5)})
    with psycopg.connect(database) as connection:
        left = connection.execute("SELECT key, size, value IS NULL FROM outbox ORDER BY id").fetchall()
    register, other = REGISTER.encode(), OTHER.encode()
    assert left == [
        (other, 2, True),
        (register, 5, False),
        (other, 5, True),
        (register, 9, True),
        (other, 9, True),
    ]
    assert store.unsigned() == [(REGISTER, 9), (OTHER, 9)]


def test_notes_that_come_with_a_later_commit_are_sent_too(store: PostgresStore) -> None:
    """False if a note that was kept with the next commit left its news waiting for ever."""
    first = step(store.take_over(SUBMISSIONS, 0), REGISTER, 3, 0)
    store.commit_log([batch(REGISTER, None, 3)], first)
    store.commit_log([batch(REGISTER, 3, 5, [note_of(3)])], step(first.after, REGISTER, 2, 3))
    assert [row.value for row in store.outbox(9)] == [note_of(3).note]


def line_of(witness: str, time: int) -> SignatureLine:
    """Return a cosignature line; a store does not look into it."""
    return SignatureLine(witness, len(witness), time.to_bytes(8, "big") + bytes(64))


def test_new_cosignatures_are_news_and_known_ones_are_not(store: PostgresStore) -> None:
    """False if a cosigned checkpoint were not sent, as the note that verifiers read, or each one for ever."""
    store.commit([batch(REGISTER, None, 3), batch(OTHER, None, 3)])
    text = b"origin\n3\nroot\n"
    log = SignatureLine("log", 7, bytes(64))
    note = StoredNote(3, format_note(text, [log]))
    one, two = line_of("one", 10), line_of("two", 11)

    def values() -> list[tuple[bytes, bytes]]:
        rows = store.outbox(99)
        store.sent([row.id for row in rows])
        assert {row.topic for row in rows} <= {CHECKPOINTS}
        return [(row.key, row.value) for row in rows]

    key = REGISTER.encode()
    store.keep_cosignatures([NewCosignatures(REGISTER, note, [one, two])])
    assert values() == [(key, format_note(text, [log, one, two]))]
    store.keep_cosignatures([NewCosignatures(REGISTER, note, [two, one])])
    assert values() == []
    between = [line_of("one", 20), line_of("two", 20)]
    store.keep_cosignatures([NewCosignatures(REGISTER, note, between)])
    assert values() == [(key, format_note(text, [log, *between]))]
    # Neither earlier than the first, nor later than the last.
    store.keep_cosignatures([NewCosignatures(REGISTER, note, [line_of("one", 15)])])
    assert values() == []
    store.keep_cosignatures([NewCosignatures(REGISTER, note, [line_of("one", 5)])])
    assert values() == [(key, format_note(text, [log, line_of("one", 5)]))]
    # In one call: of two registers one is news, and two parts of one checkpoint are one message.
    three, four = line_of("three", 1), line_of("four", 1)
    store.keep_cosignatures(
        [
            NewCosignatures(REGISTER, note, [one]),
            NewCosignatures(OTHER, note, [three]),
            NewCosignatures(OTHER, note, [four]),
        ]
    )
    assert values() == [(OTHER.encode(), format_note(text, [log, three, four]))]
    store.keep_cosignatures([])
    with pytest.raises(StoreError, match="beyond the head"):
        store.keep_cosignatures([NewCosignatures(REGISTER, note_of(4), [one])])
    assert values() == []


def test_whoever_waits_for_the_outbox_is_woken(database: str, store: PostgresStore) -> None:
    """False if news lay in the outbox until a time had run out; or every wait ended at once."""
    held = store.take_over(SUBMISSIONS, 0)
    with closing(PostgresStore(database, read_only=True)) as relay, ThreadPoolExecutor(1) as pool:
        assert relay.wait_for_outbox(0)
        assert not relay.wait_for_outbox(0.05)
        first = step(held, REGISTER, 3, 0)
        store.commit_log([batch(REGISTER, None, 3)], first)
        assert not relay.wait_for_outbox(0.05), "there is nothing to send before it is signed"
        writes: list[Callable[[], None]] = [
            lambda: store.publish_notes({REGISTER: note_of(3)}),
            lambda: store.keep_cosignatures([NewCosignatures(REGISTER, note_of(3), [line_of("one", 1)])]),
            lambda: store.commit_log([], quarantining(first.after, b"key")),
        ]
        for write in writes:
            write()
            assert relay.wait_for_outbox(20), "what came before the wait is not missed"
            while relay.wait_for_outbox(0.05):
                pass
        waiting = pool.submit(relay.wait_for_outbox, 20)
        with pytest.raises(TimeoutError):
            waiting.result(0.1)
        store.publish_notes({REGISTER: note_of(3)})
        assert waiting.result(10)


# Tiles.


@pytest.mark.parametrize("seed", range(4))
def test_tiles_of_every_width_are_those_of_another_store(seed: int, store: PostgresStore) -> None:
    """False if a tile in pieces were other than the same tile kept whole, however commits were cut."""
    random = Random(seed)
    memory = MemoryStore()
    size = 0
    most = (1, 3, 40, 300)[seed]
    for each in (store, memory):
        each.commit([Batch(REGISTER, None, head_at(0))])
    while size < 600:
        after = min(600, size + random.randint(1, most))
        made = batch(REGISTER, size, after)
        for each in (store, memory):
            each.commit([made])
        size = after
        if seed or size % 50 in (0, 5, 6) or size in (255, 257, 511, 512, 513):
            assert list(store.all_tiles(REGISTER)) == list(memory.all_tiles(REGISTER))
            wanted = [(0, size // 256), (1, 0), (0, 0), (0, 1), (2, 0)]
            assert store.tiles(REGISTER, wanted) == memory.tiles(REGISTER, wanted)


def test_a_tile_or_an_entry_that_lacks_a_part_is_not_read(database: str, store: PostgresStore) -> None:
    """False if what follows a missing row moved into its place."""
    store.commit([batch(REGISTER, None, 3)])
    store.commit([batch(REGISTER, 3, 8)])
    store.commit([batch(REGISTER, 8, 10)])
    with psycopg.connect(database) as owner:
        owner.execute("ALTER TABLE tile DISABLE TRIGGER ALL; ALTER TABLE entry DISABLE TRIGGER ALL")
        owner.execute("DELETE FROM tile WHERE first = 3; DELETE FROM entry WHERE index = 5")
    with pytest.raises(StoreError, match="piece of tile 0/0"):
        store.tiles(REGISTER, [(0, 0)])
    with pytest.raises(StoreError, match="is missing"):
        store.entries(REGISTER, 0, 10)
    with pytest.raises(StoreError, match="is missing"):
        store.entries(REGISTER, 5, 10)
    assert store.entries(REGISTER, 6, 10) == [entry(index) for index in range(6, 10)]


# Readers.


def test_readers_elsewhere_see_whole_commits_only(database: str, store: PostgresStore) -> None:
    """False if a reading service saw a head or an outcome before what it stands for."""
    held = store.take_over(SUBMISSIONS, 0)
    advance = step(held, REGISTER, 1, 0)
    store.commit_log([batch(REGISTER, None, 1)], advance)
    done = threading.Event()
    with closing(PostgresStore(database, read_only=True)) as elsewhere, ThreadPoolExecutor(4) as pool:

        def read() -> int:
            seen = 0
            while not done.is_set():
                position = elsewhere.position(SUBMISSIONS, 0)
                assert position is not None
                size = elsewhere.heads()[REGISTER].size
                assert size >= position.next_offset >= seen
                seen = position.next_offset
                assert elsewhere.entries(REGISTER, 0, size) == [entry(index) for index in range(size)]
                assert len(elsewhere.dispositions(SUBMISSIONS, 0, 0, size)) == size
                assert b"".join(elsewhere.tiles(REGISTER, [(0, 0)]))[: 32 * size] != b""
            return seen

        readers = [pool.submit(read) for _ in range(4)]
        try:
            for size in range(1, 80):
                advance = step(advance.after, REGISTER, 1, size)
                store.commit_log([batch(REGISTER, size, size + 1)], advance)
        finally:
            done.set()
        assert all(reader.result() >= 1 for reader in readers)


def test_a_store_for_reading_writes_nothing(database: str, store: PostgresStore) -> None:
    """False if a reading service could change anything, by a slip or on purpose."""
    store.commit([batch(REGISTER, None, 3)])
    held = store.take_over(SUBMISSIONS, 0)
    before = contents(database)
    with closing(PostgresStore(database, read_only=True)) as reader:
        for write in (
            lambda: reader.commit([batch(REGISTER, 3, 4)]),
            lambda: reader.commit_log([batch(REGISTER, 3, 4)], step(held, REGISTER, 1, 3)),
            lambda: reader.take_over(SUBMISSIONS, 0),
            lambda: reader.publish_notes({REGISTER: note_of(3)}),
            lambda: reader.keep_cosignatures([NewCosignatures(REGISTER, note_of(3), [line_of("one", 1)])]),
            lambda: reader.sent([1]),
            lambda: reader.fix_partitions(SUBMISSIONS, 3),
        ):
            with pytest.raises(StoreError, match="reading only"):
                write()
        for one in (reader, store):
            with pytest.raises(StoreError, match="read-only transaction"):
                one._rows("DELETE FROM outbox RETURNING 1")
    assert contents(database) == before


def test_a_closed_store_cannot_be_used(database: str) -> None:
    """False if a store opened connections again after it was closed."""
    store = PostgresStore(database)
    store.close()
    for use in (store.heads, lambda: store.commit([]), lambda: store.wait_for_outbox(0)):
        with pytest.raises(StoreError, match="was closed"):
            use()
    store.close()


def test_a_store_goes_on_after_its_server_was_started_again(fresh_postgres: Postgres) -> None:
    """False if a restart of the database, or a connection that it ended, needed a restart of the services."""
    fresh_postgres.create_database("daybook")
    migrate(fresh_postgres.dsn())
    with closing(PostgresStore(fresh_postgres.dsn())) as store:
        store.commit([batch(REGISTER, None, 3)])
        assert store.wait_for_outbox(0)
        assert store.heads() == {REGISTER: head_at(3)}
        fresh_postgres.stop()
        fresh_postgres.start()
        assert store.heads() == {REGISTER: head_at(3)}
        with pytest.raises(StoreError):
            store.commit([batch(REGISTER, 3, 4)])
        store.commit([batch(REGISTER, 3, 4)])
        with pytest.raises(StoreError):
            store.wait_for_outbox(1)
        assert store.wait_for_outbox(1)


# Privileges and triggers.


def statements(table: str) -> list[str]:
    """Return what must not be done to a table whose rows never change."""
    return [
        f"UPDATE {table} SET {column_of(table)} = DEFAULT",
        f"DELETE FROM {table}",
        f"TRUNCATE {table} CASCADE",
    ]


def column_of(table: str) -> str:
    """Return some column of a table."""
    return {"disposition": "kind", "quarantine": "why", "log_topic": "partitions"}.get(table, "register")


def fill(store: PostgresStore) -> None:
    """Write something into every table."""
    start = store.take_over(SUBMISSIONS, 0)
    first = step(start, REGISTER, 3, 0)
    store.commit_log([replace(batch(REGISTER, None, 3), rejections={name_of(9): 1})], first)
    store.commit_log([], quarantining(first.after, b"key"))
    store.publish_notes({REGISTER: note_of(3)})
    store.keep_cosignatures([NewCosignatures(REGISTER, note_of(3), [line_of("one", 1)])])
    store.fix_partitions(SUBMISSIONS, 12)


@pytest.mark.parametrize("table", NEVER_CHANGED)
def test_not_even_the_owner_changes_what_was_written(table: str, database: str, store: PostgresStore) -> None:
    """False if a slip of the owner, who has every privilege, could alter the ledger: the triggers."""
    fill(store)
    before = contents(database)
    with psycopg.connect(database, autocommit=True) as owner:
        for statement in statements(table):
            for setting in ("origin", "replica"):
                owner.execute(f"SET session_replication_role = {setting}")
                with pytest.raises(psycopg.errors.RaiseException, match="never changed"):
                    owner.execute(statement)
    assert contents(database) == before


@pytest.mark.parametrize("role", [APPLICATION_ROLE, READER_ROLE])
@pytest.mark.parametrize("table", NEVER_CHANGED)
def test_no_role_has_the_privilege_to_change_what_was_written(
    table: str, role: str, database: str, store: PostgresStore
) -> None:
    """False if only the triggers held a program back: here they are off."""
    fill(store)
    before = contents(database)
    with psycopg.connect(database, autocommit=True) as owner:
        for name in (*NEVER_CHANGED, "register", "log_position", "cosignature"):
            owner.execute(f"ALTER TABLE {name} DISABLE TRIGGER USER")
        owner.execute(f"SET ROLE {role}")
        for statement in statements(table):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                owner.execute(statement)
    assert contents(database) == before


GROWING = (
    "UPDATE register SET size = size - 1",
    "UPDATE register SET root = sha256('other')",
    "UPDATE register SET name = name || 'x'",
    "DELETE FROM register",
    "TRUNCATE register CASCADE",
    "UPDATE log_position SET epoch = epoch - 1",
    "UPDATE log_position SET next_offset = next_offset - 1",
    "UPDATE log_position SET partition = partition + 1",
    "DELETE FROM log_position",
    "DELETE FROM cosignature",
    "TRUNCATE cosignature",
    "UPDATE cosignature SET first = last",
    "UPDATE cosignature SET last = first",
    "UPDATE cosignature SET size = size + 1",
    "UPDATE cosignature SET name = name || 'x'",
    "UPDATE cosignature SET key_id = key_id + 1",
)


@pytest.mark.parametrize("statement", GROWING)
def test_heads_and_positions_only_grow(statement: str, database: str, store: PostgresStore) -> None:
    """False if a head, a position or what a witness has signed could be set back, by anybody."""
    fill(store)
    store.keep_cosignatures([NewCosignatures(REGISTER, note_of(3), [line_of("one", 2)])])
    before = contents(database)
    with psycopg.connect(database, autocommit=True) as owner:
        for setting in ("origin", "replica"):
            owner.execute(f"SET session_replication_role = {setting}")
            with pytest.raises(psycopg.errors.RaiseException, match="never changed"):
                owner.execute(statement)
    assert contents(database) == before


def as_role(database: str, role: str) -> str:
    """Return a connection string to the database in a role."""
    return psycopg.conninfo.make_conninfo(database, options=f"-c role={role}")


def test_the_application_role_may_do_all_that_a_store_does(database: str) -> None:
    """False if a service that runs as it should could not work."""
    with closing(PostgresStore(as_role(database, APPLICATION_ROLE))) as store:
        fill(store)
        rows = store.outbox(9)
        assert len(rows) == 3
        store.sent([row.id for row in rows])
        assert store.damage() == []
        assert store.wait_for_outbox(0)
    with (
        psycopg.connect(as_role(database, APPLICATION_ROLE)) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute("CREATE TABLE mine (x integer)")


def test_the_reading_role_reads_and_nothing_else(database: str, store: PostgresStore) -> None:
    """False if whoever only looks could write, or could not look."""
    fill(store)
    tables = set(contents(database))
    with psycopg.connect(as_role(database, READER_ROLE), autocommit=True) as connection:
        for table in tables:
            connection.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(table)))
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(sql.SQL("INSERT INTO {} DEFAULT VALUES").format(sql.Identifier(table)))
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))
    with closing(PostgresStore(as_role(database, READER_ROLE), read_only=True)) as reader:
        assert reader.entries(REGISTER, 0, 9) == store.entries(REGISTER, 0, 9)
    with closing(PostgresStore(as_role(database, READER_ROLE))) as reader, pytest.raises(StoreError):
        reader.commit([batch(REGISTER, 3, 4)])


# Damage.


def test_rows_that_nothing_reads_are_damage(database: str, store: PostgresStore) -> None:
    """False if rows could stand in the database that belong to nothing."""
    fill(store)
    assert store.damage() == []
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute(
            "INSERT INTO record (register, record_id, version, entry) VALUES (7, '', 1, 1), (9, '', 1, 1)"
        )
        owner.execute("INSERT INTO entry (register, index, entry) VALUES (1, 3, 'x')")
        owner.execute("INSERT INTO note (register, size, note) VALUES (1, 4, 'x')")
    assert store.damage() == [
        "table record has rows of register number 7, which is none",
        "table record has rows of register number 9, which is none",
        f"{REGISTER}: table entry has rows beyond the end of the register",
        f"{REGISTER}: table note has rows beyond the end of the register",
    ]


@pytest.mark.parametrize("change", ["DISABLE TRIGGER never_changed", "ENABLE TRIGGER never_changed"])
def test_a_guard_that_is_off_is_damage(change: str, database: str, store: PostgresStore) -> None:
    """False if somebody could switch the triggers off and leave them so unseen."""
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute(f"ALTER TABLE note {change}")
    assert store.damage() == ["1 of the triggers that refuse changes are off or missing"]


# Migrations.


def test_migrating_again_changes_nothing(fresh_database: str) -> None:
    """False if a second run failed, or made anything anew."""
    with pytest.raises(StoreError, match="daybook migrate"):
        PostgresStore(fresh_database)
    assert migrate(fresh_database) == ["0001_ledger.sql"]
    with closing(PostgresStore(fresh_database)) as store:
        fill(store)
        before = contents(fresh_database)
        assert migrate(fresh_database) == []
        assert contents(fresh_database) == before


def test_two_that_migrate_at_once_take_turns(fresh_database: str) -> None:
    """False if two services that are deployed together could both make the tables."""
    with ThreadPoolExecutor(4) as pool:
        applied = list(pool.map(lambda _: migrate(fresh_database), range(4)))
    assert sorted(applied) == [[], [], [], ["0001_ledger.sql"]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE schema_migration SET sha256 = 'x'", "made by another 0001_ledger.sql"),
        ("UPDATE schema_migration SET version = 2", "made by another"),
        (
            "INSERT INTO schema_migration (version, name, sha256) VALUES (1000000, '1000000_later.sql', 'x')",
            "1000000_later.sql: it belongs to a later version",
        ),
    ],
)
def test_a_database_of_another_program_is_refused(change: str, said: str, database: str) -> None:
    """False if a store were opened, or migrated, that other files have made."""
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute(change)
    before = contents(database)
    with pytest.raises(StoreError, match=said):
        PostgresStore(database)
    with pytest.raises(StoreError, match=said):
        migrate(database)
    assert contents(database) == before


def test_a_migration_that_fails_leaves_nothing(
    fresh_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """False if a database could be left half made; or a file that comes later were not applied, and only it."""
    real = postgres_schema._files()
    broken = postgres_schema._File(2, "0002_broken.sql", "CREATE TABLE more (x integer); SELECT 1 / 0;")
    good = postgres_schema._File(2, "0002_good.sql", "CREATE TABLE more (x integer);")
    with monkeypatch.context() as patched:
        patched.setattr(postgres_schema, "_files", lambda: [*real, broken])
        with pytest.raises(StoreError, match="division by zero"):
            migrate(fresh_database)
        assert contents(fresh_database) == {}
        migrate_only(real, fresh_database, patched)
        patched.setattr(postgres_schema, "_files", lambda: [*real, good])
        with pytest.raises(StoreError, match=r"lacks 0002_good\.sql: run daybook migrate"):
            PostgresStore(fresh_database)
        assert migrate(fresh_database) == ["0002_good.sql"]
    with pytest.raises(StoreError, match="later version"):
        PostgresStore(fresh_database)


def migrate_only(files: Sequence[postgres_schema._File], database: str, patched: pytest.MonkeyPatch) -> None:
    """Migrate as a program with these files does."""
    patched.setattr(postgres_schema, "_files", lambda: list(files))
    migrate(database)


def test_no_message_shows_the_password() -> None:
    """False if a mistake in the connection string, or a server that is away, put its password into a log."""
    with pytest.raises(StoreError) as away:
        PostgresStore("postgresql://somebody:secret@127.0.0.1:1/daybook")
    with pytest.raises(ValueError, match="neither") as unreadable:
        PostgresStore("postgresql://somebody:secret@[::1/daybook")
    assert "secret" not in f"{away.value}{unreadable.value}"
