"""What readers see: whole tiles and whole commits, and nothing that they could write."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from random import Random

import psycopg
import pytest

from ledger.errors import StoreError
from ledger.event_log import SUBMISSIONS
from ledger.store import Batch, NewCosignatures
from ledger.stores.memory import MemoryStore
from ledger.stores.postgres import PostgresStore, migrate
from services.local.postgres import Postgres
from tests.support.batches import batch, entry, head_at, note_of
from tests.support.log_steps import REGISTER, contents, line_of, step


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


def test_no_message_shows_the_password() -> None:
    """False if a mistake in the connection string, or a server that is away, put its password into a log."""
    with pytest.raises(StoreError) as away:
        PostgresStore("postgresql://somebody:secret@127.0.0.1:1/daybook")
    with pytest.raises(ValueError, match="neither") as unreadable:
        PostgresStore("postgresql://somebody:secret@[::1/daybook")
    assert "secret" not in f"{away.value}{unreadable.value}"
