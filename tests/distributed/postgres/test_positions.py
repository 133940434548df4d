"""The positions of a log: what each message came to, and who may write it."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from ledger.errors import ConflictError, FencedError, StoreError
from ledger.event_log import (
    CHECKPOINTS,
    EMPTY_CHAIN,
    SUBMISSIONS,
    Advance,
    Disposition,
    Kind,
    LogStore,
    Position,
    chained,
    message_hash,
)
from ledger.stores.postgres import APPLICATION_ROLE, PostgresStore
from ledger.stores.postgres import store as postgres_module
from ledger.stores.postgres.commits import copy_entries
from ledger.stores.postgres.store import _FEW
from tests.support.batches import batch, head_at, name_of
from tests.support.log_steps import OTHER, REGISTER, contents, quarantining, step


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
        stands, stands.after([bytes([each.offset]) * 32 for each in told]), told, [poison.quarantined[0], odd]
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
