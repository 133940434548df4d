"""The PostgreSQL store: many readers through a pool, one connection that writes, one transaction a commit.

Rows are only ever added, but for heads, positions, cosignatures and the outbox. What a commit brings goes there
in as few round trips as can be: a pipeline that locks and moves the heads, COPYs of entries and records unless
they are few, a pipeline of all the rest. A tile is kept as the pieces that commits added to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import psycopg

from ledger.errors import StoreError
from ledger.event_log import EMPTY_CHAIN, Advance, Kind, Position
from ledger.store import Batch, NewCosignatures, StoredNote
from ledger.stores.postgres.commits import (
    HOLD,
    add_cosignatures,
    add_entries,
    add_news,
    add_rows,
    advance_position,
    check,
    committed,
    copy_entries,
    keep_notes,
    lock,
    move_heads,
    moved,
    send_notes,
    standing_at,
    taken,
)
from ledger.stores.postgres.connections import CHANNEL, Connections
from ledger.stores.postgres.reading import Reads

_FEW: Final = 64
"""Entries up to which the round trips of a COPY would cost more than it saves."""

_BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"

_PATIENTLY: Final = "SET LOCAL lock_timeout = '2s'"

_END_HOLDER: Final = """
SELECT pg_terminate_backend(pid) FROM pg_locks
WHERE locktype = 'advisory' AND objsubid = 2 AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND classid = (hashtext(%s)::bigint & 4294967295)::oid AND objid = (%s)::oid
"""

_TRIES: Final = 5

_TAKE_OVER: Final = """
INSERT INTO log_position AS held (topic, partition, epoch, next_offset, last, chain)
VALUES (%s, %s, 1, 0, NULL, %s)
ON CONFLICT (topic, partition) DO UPDATE SET epoch = held.epoch + 1
RETURNING epoch, next_offset, last, chain
"""

_OF_REGISTERS: Final = ("entry", "tile", "note", "submission", "record", "rejection", "cosignature")
_GUARDS: Final = 15


class PostgresStore(Reads):
    """A ledger's registers in one PostgreSQL database, which `migrate` has prepared.

    Safe in any threads. Any number of processes may open it; two that write one register meet as
    ConflictError. With `read_only` nothing can be written through it, whatever the user may. Connections
    that break are replaced: a server that was started again needs no new store. A server that says nothing for
    `silence` seconds in the middle of a statement is away; without them it may take for ever. Raises ValueError
    for a connection string that is none, StoreError where the database cannot be reached or is not of this
    version.
    """

    def __init__(self, conninfo: str, *, read_only: bool = False, silence: float | None = None) -> None:
        super().__init__(Connections(conninfo, read_only=read_only, silence=silence))

    def commit(self, batches: Sequence[Batch]) -> None:
        """Replace every batch's expected head and add what it brings, together or not at all."""
        self._commit(batches, None)

    def commit_log(self, batches: Sequence[Batch], advance: Advance) -> None:
        """Commit the batches and the partition's new position, together or not at all."""
        check(advance)
        self._commit(batches, advance)

    def _commit(self, batches: Sequence[Batch], advance: Advance | None) -> None:
        with self._connections.transaction() as writer, taken():
            with writer.pipeline():
                writer.execute(_BEGIN)
                held = lock(writer, advance.before) if advance else None
                done = move_heads(writer, batches)
            position = 0
            if advance and held:
                position = standing_at(advance.before, held.fetchone())
            numbers = moved(batches, done)
            copies = sum(len(batch.entries) for batch in batches) > _FEW
            if copies:
                copy_entries(writer, batches, numbers)
            # Only here to be found: what became of a message may be told of a register that has not changed.
            known = {**self._told(advance, numbers), **numbers}
            with writer.pipeline():
                if not copies:
                    add_entries(writer, batches, numbers)
                add_rows(writer, batches, numbers)
                if advance:
                    advance_position(writer, position, advance, known)
                    add_news(writer, batches, advance)
                noted = keep_notes(
                    writer, [(numbers[batch.register], batch.register, batch.notes) for batch in batches]
                )
                if noted or (advance and advance.quarantined):
                    writer.execute(f"NOTIFY {CHANNEL}")
                ended = writer.execute("COMMIT")
            committed(ended)
        self._numbers.update(numbers)

    def _told(self, advance: Advance | None, numbers: Mapping[str, int]) -> dict[str, int]:
        told = (
            {each.register for each in advance.dispositions if each.kind != Kind.QUARANTINED}
            if advance
            else set()
        )
        return {register: self._number(register) for register in told - numbers.keys()}

    def take_over(self, topic: str, partition: int) -> Position:
        """Raise the epoch of a partition, or begin it at epoch 1 and offset 0; return where it stands.

        A writer that stands still in the middle of its commit would hold the partition for as long as it lives:
        its connection is ended, and with it a commit that did not happen.
        """
        for left in reversed(range(_TRIES)):
            try:
                return self._take_over(topic, partition)
            except StoreError as error:
                if not isinstance(error.__cause__, psycopg.errors.LockNotAvailable) or not left:
                    raise
            self._end_holder(topic, partition)
        raise AssertionError("the last try returns or raises")

    def _end_holder(self, topic: str, partition: int) -> None:
        with self._connections.transaction() as writer, writer.transaction():
            # A connection belongs to whoever logged in, and only he may end it, whatever role is set for it.
            writer.execute("SET LOCAL ROLE NONE")
            writer.execute(_END_HOLDER, (topic, partition))

    def _take_over(self, topic: str, partition: int) -> Position:
        with (
            self._connections.transaction() as writer,
            writer.transaction(),
            writer.cursor(binary=True) as cursor,
        ):
            cursor.execute(_PATIENTLY)
            cursor.execute(HOLD, (topic, partition))
            ((*held,),) = cursor.execute(_TAKE_OVER, (topic, partition, EMPTY_CHAIN)).fetchall()
            return Position(topic, partition, *held)

    def publish_notes(self, notes: Mapping[str, StoredNote]) -> None:
        """Keep newly signed notes, by register, and let their outbox rows be sent. Durable on return.

        Were they lost after they were sent, and the head had moved, nobody would sign them again.
        """
        if not notes:
            return
        numbers = [self._number(register) for register in notes]
        with self._connections.transaction() as writer:
            with writer.pipeline():
                writer.execute(_BEGIN)
                send_notes(writer, numbers, notes)
                writer.execute(f"NOTIFY {CHANNEL}")
                done = writer.execute("COMMIT")
            committed(done)

    def keep_cosignatures(self, cosigned: Sequence[NewCosignatures]) -> None:
        """Keep cosignatures, and the note that they are of where its size has none yet.

        The cosigned notes of which anything was new go to the outbox.
        """
        if not cosigned:
            return
        numbers = {new.register: self._number(new.register) for new in cosigned}
        sizes = dict(
            self._rows(
                "SELECT name, size FROM register WHERE number = ANY(%b::integer[])", (list(numbers.values()),)
            )
        )
        for new in cosigned:
            if new.note.size > sizes[new.register]:
                raise StoreError(f"{new.register}: cosignatures of size {new.note.size}, beyond the head")
        with self._connections.transaction() as writer:
            with writer.pipeline():
                writer.execute(_BEGIN)
                add_cosignatures(writer, numbers, cosigned)
                writer.execute(f"NOTIFY {CHANNEL}")
                done = writer.execute("COMMIT")
            committed(done)

    def sent(self, ids: Sequence[int]) -> None:
        """Drop outbox rows that the log has acknowledged; what a crash takes back is sent again."""
        with self._connections.transaction() as writer:
            with writer.pipeline():
                writer.execute(_BEGIN)
                # Nobody waits for the disk for what may happen twice.
                writer.execute("SET LOCAL synchronous_commit = off")
                writer.execute("DELETE FROM outbox WHERE id = ANY(%b::bigint[])", (list(ids),))
                done = writer.execute("COMMIT")
            committed(done)

    def fix_partitions(self, topic: str, count: int) -> None:
        """Fix the number of a topic's partitions for ever. Raises StoreError where another number is there."""
        with self._connections.transaction() as writer:
            writer.execute("INSERT INTO log_topic VALUES (%s, %s) ON CONFLICT DO NOTHING", (topic, count))
        fixed = self.partitions(topic)
        if fixed != count:
            raise StoreError(f"{topic} has {fixed} partitions for ever, not {count}")

    def wait_for_outbox(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for news in the outbox; tell whether there may be some."""
        return self._connections.listen(timeout)

    def damage(self) -> list[str]:
        """Return rows that belong to no register, or lie beyond the end of theirs, and guards that are off."""
        found: list[str] = []
        for table in _OF_REGISTERS:
            # From one register's rows to the next one's, through the index: it need not read them all.
            strays = self._rows(
                f"WITH RECURSIVE there AS (SELECT min(register) AS number FROM {table} UNION ALL "  # noqa: S608
                f"SELECT (SELECT min(register) FROM {table} WHERE register > number) FROM there "
                "WHERE number IS NOT NULL) SELECT number FROM there "
                "WHERE number IS NOT NULL AND number NOT IN (SELECT number FROM register) ORDER BY number"
            )
            found += (
                f"table {table} has rows of register number {number}, which is none" for (number,) in strays
            )
        for table, column, beyond in (
            ("entry", "index", ">="),
            ("note", "size", ">"),
            ("cosignature", "size", ">"),
        ):
            rows = self._rows(
                f"SELECT name FROM register WHERE EXISTS (SELECT FROM {table} AS there "  # noqa: S608
                f"WHERE there.register = number AND there.{column} {beyond} register.size) ORDER BY name"
            )
            found += (f"{name}: table {table} has rows beyond the end of the register" for (name,) in rows)
        ((guards,),) = self._rows(
            "SELECT count(*) FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid "
            "WHERE tgrelid IN (SELECT oid FROM pg_class WHERE relnamespace = current_schema()::regnamespace) "
            "AND proname = 'refuse_change' AND tgenabled = 'A'"
        )
        if guards != _GUARDS:
            found.append(f"{_GUARDS - guards} of the triggers that refuse changes are off or missing")
        return found

    def hurry(self) -> None:
        """Bear hardly any silence any more, whatever is under way: who uses the store is to end."""
        self._connections.hurry()

    def close(self) -> None:
        """Close every connection. Statements of other threads fail, soon, where the server is silent."""
        self._connections.close()
