"""A commit is all or nothing, whatever breaks in the middle of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from random import Random

import psycopg
import pytest
from psycopg import sql

from ledger.errors import ConflictError, StorageFullError, StoreError, TakenError
from ledger.event_log import SUBMISSIONS, Position
from ledger.store import Batch, Head
from ledger.stores.postgres import PostgresStore, migrate
from ledger.stores.postgres import store as postgres_module
from services.local.postgres import Postgres
from tests.support.batches import batch, entry, head_at, name_of, note_of
from tests.support.log_steps import OTHER, REGISTER, contents, step

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
                    # One by itself: where a commit takes long, the kill may come before any other is done.
                    advance = step(held, REGISTER, 10, size)
                    store.commit_log([batch(REGISTER, size or None, size + 10)], advance)
                    held, size = advance.after, size + 10
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
