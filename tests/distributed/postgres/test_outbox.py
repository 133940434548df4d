"""The outbox: what is to be sent, in the order of the commits, and once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg
import pytest

from ledger.errors import StoreError
from ledger.event_log import CHECKPOINTS, REJECTIONS, SUBMISSIONS
from ledger.notes import SignatureLine, format_note
from ledger.store import Batch, NewCosignatures, StoredNote
from ledger.stores.postgres import PostgresStore
from tests.support.batches import batch, head_at, note_of
from tests.support.log_steps import OTHER, REGISTER, line_of, quarantining, step


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
    heads = [(CHECKPOINTS, REGISTER.encode(), note_of(3).note), (CHECKPOINTS, OTHER.encode(), note_of(0).note)]
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
