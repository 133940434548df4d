"""Catching up: an older copy and the event log give the ledger again; anything else is left alone."""

import io
import itertools
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.catch_up import Missing, catch_up, in_order, keep_notes, missing
from ledger.checkpoints import Checkpoint, sign_checkpoint
from ledger.entries import open_message
from ledger.errors import ProofError, SplitViewError, StoreError
from ledger.export import Block, Export, MessageBlock, NoteBlock, export, read_export
from ledger.fsck import check, check_span, stand_on
from ledger.governing import GOVERNING
from ledger.hashing import Hash
from ledger.ledger import Ledger, Waiting
from ledger.notes import SignerKey, cosignature_line, split_note
from ledger.rebuild import rebuild
from ledger.store import Cosigned, Store, StoredNote
from ledger.stores.memory import MemoryStore
from ledger.stores.sqlite import SqliteStore
from tests.support.faulty_store import AppliedUnreported, FaultyStore, Lost
from tests.support.ledger_story import SECOND, THIRD, WITNESSES, cosign, tell
from tests.support.ledger_story import keep_notes as save_notes
from tests.support.ledgers import EPOCH, LOG_KEY, ORIGIN, REGISTER, LedgerUnderTest, open_ledger, vkey


def everything(store: Store) -> dict[str, tuple[object, ...]]:
    """Return all that a store holds."""
    return {
        register: (
            head,
            store.entries(register, 0, head.size + 1),
            list(store.all_tiles(register)),
            sorted(store.all_submissions(register)),
            sorted(store.all_records(register), key=lambda at: at.index),
            list(store.notes(register, 0, 1 << 40)),
            list(store.cosigned(register, 0, 1 << 40)),
        )
        for register, head in store.heads().items()
    }


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> MemoryStore:
    """A store in which everything has happened once."""
    store = MemoryStore()
    tell(store, tmp_path_factory.mktemp("told") / "marks")
    return store


@pytest.fixture(scope="module")
def log(told: MemoryStore) -> list[Block]:
    """Its event log."""
    return list(read_export(io.BytesIO(b"".join(export(told, ORIGIN)))).blocks)


def rebuilt_from(blocks: list[Block]) -> Ledger:
    """Return the ledger that an event log makes, as an import makes it."""
    return rebuild(MemoryStore(), Export(ORIGIN, iter(blocks))).ledger


def older(store: Store, blocks: list[Block], counts: Mapping[str, int]) -> Ledger:
    """Return a ledger of the first messages of each register, with the notes of their sizes.

    A message that was judged against a later governing entry than there are is where its register ends.
    """
    ledger = Ledger.open(store, ORIGIN)
    left = dict(counts)
    for block in blocks:
        if isinstance(block, MessageBlock) and left.get(block.register, 0) > 0:
            left[block.register] -= 1
            turn = ledger.turn()
            if isinstance(turn.replay(open_message(block.register, block.value, ORIGIN)), Waiting):
                left[block.register] = 0
            else:
                turn.commit({})
    for block in blocks:
        head = ledger.heads().get(block.register)
        if (
            isinstance(block, NoteBlock)
            and head is not None
            and block.size <= head.size
            and block.size % 2 == 0
        ):
            text, (signed, *_) = split_note(block.note)
            note = StoredNote(block.size, text + b"\n" + signed.line)
            ledger.turn().commit({block.register: [note]})
    return ledger


def caught_up(held: Ledger, rebuilt: Ledger) -> tuple[Missing, ...]:
    """Catch up as an import does; return what was missing."""
    lacking = missing(held, rebuilt)
    catch_up(held, rebuilt, lacking)
    keep_notes(held, rebuilt.store)
    return lacking


@settings(max_examples=60)
@given(st.data())
def test_any_older_copy_catches_up_to_the_very_store(
    told: MemoryStore, log: list[Block], data: st.DataObject
) -> None:
    """False if an entry, a row, a root or a cosignature depended on where the restored copy stood."""
    counts = {register: data.draw(st.integers(0, 12)) for register in told.heads()} | {GOVERNING: 1}
    counts[GOVERNING] += data.draw(st.integers(0, 12))
    store = MemoryStore()
    held = older(store, log, counts)
    before = {register: head.size for register, head in held.heads().items()}
    lacking = caught_up(held, rebuilt_from(log))
    assert everything(store) == everything(told)
    after = {register: head.size for register, head in told.heads().items()}
    assert {one.register: (one.stored_size, one.recovered_size) for one in lacking} == {
        register: (before.get(register, 0), size)
        for register, size in after.items()
        if before.get(register, 0) < size
    }
    names = [one.register for one in lacking]
    assert names == [name for name in in_order(held) if name in names]
    assert caught_up(held, rebuilt_from(log)) == ()
    assert everything(store) == everything(told)


def test_a_store_in_a_file_catches_up_and_fsck_finds_nothing(log: list[Block], tmp_path: Path) -> None:
    """False if what was caught up with did not hold to the last row."""
    store = SqliteStore(tmp_path / "store")
    held = older(store, log, {GOVERNING: 6, REGISTER: 2})
    assert held.heads()[REGISTER].size == 71
    caught_up(held, rebuilt_from(log))
    ground = stand_on(store, ORIGIN, vkey(GOVERNING))
    report = check(ground, lambda spans: [check_span(ground, span) for span in spans], {}, lambda _: None)
    store.close()
    assert report.problems == ()
    assert report.cosignatures == 18


@pytest.mark.parametrize("fault", [Lost, AppliedUnreported], ids=["lost", "applied-unreported"])
def test_a_catch_up_that_fails_at_any_store_call_goes_on_when_it_is_run_again(
    fault: Callable[[int], Lost | AppliedUnreported], told: MemoryStore, log: list[Block]
) -> None:
    """False if an interruption could leave a ledger that cannot be caught up with any more."""
    rebuilt = rebuilt_from(log)
    for call in itertools.count(1):
        inner = MemoryStore()
        older(inner, log, {GOVERNING: 6, REGISTER: 1})
        store = FaultyStore(inner, fault(call))
        with suppress(StoreError):
            caught_up(Ledger.open(store, ORIGIN), rebuilt)
        if not store.fired:
            break
        caught_up(Ledger.open(inner, ORIGIN), rebuilt)
        assert everything(inner) == everything(told)
    assert call > 20


def test_an_export_that_ends_earlier_lacks_nothing_and_brings_nothing(
    told: MemoryStore, log: list[Block]
) -> None:
    """False if an old export could take anything away, or be called another history."""
    before = everything(told)
    rebuilt = older(MemoryStore(), log, {GOVERNING: 6, REGISTER: 2})
    held = Ledger.open(told, ORIGIN)
    assert caught_up(held, rebuilt) == ()
    assert everything(told) == before


def forked(tmp_path: Path) -> tuple[LedgerUnderTest, LedgerUnderTest]:
    """Return two ledgers of one origin and key that agree up to size 10 of `REGISTER`, and no further."""
    made = []
    for name, different in (("one", range(10, 20)), ("other", range(110, 125))):
        held = open_ledger(MemoryStore(), tmp_path / name)
        held.add(range(10))
        held.add(different)
        save_notes(held)
        made.append(held)
    return made[0], made[1]


def test_a_ledger_that_went_another_way_is_refused_with_both_notes(tmp_path: Path) -> None:
    """False if an import could put one history on top of another, or hide that there are two."""
    one, other = forked(tmp_path)
    before = everything(one.ledger.store)
    for held, rebuilt in ((one, other), (other, one)):
        with pytest.raises(SplitViewError, match="Entry 10 ") as refused:
            missing(held.ledger, rebuilt.ledger)
        stated = [Checkpoint.parse(split_note(note)[0]) for note in (refused.value.first, refused.value.second)]
        assert [each.root for each in stated] == [
            each.ledger.heads()[REGISTER].root for each in (held, rebuilt)
        ]
    assert everything(one.ledger.store) == before


def test_a_difference_under_no_note_is_refused_and_told(tmp_path: Path, told: MemoryStore) -> None:
    """False if only signed differences were differences."""
    made = []
    for name, number in (("one", 10), ("other", 11)):
        held = open_ledger(MemoryStore(), tmp_path / name)
        held.add(range(10))
        held.add([number])  # its note is saved with the next turn, which never comes
        made.append(held)
    with pytest.raises(ProofError, match="Entry 10 ") as refused:
        missing(made[0].ledger, made[1].ledger)
    assert "no checkpoints of both cover it" in str(refused.value)


def test_a_note_in_the_ledger_that_the_event_log_contradicts_is_refused(
    log: list[Block], tmp_path: Path
) -> None:
    """False if a second history that was only signed, and whose entries are gone, were overlooked."""
    store = MemoryStore()
    held = older(store, log, {GOVERNING: 6, REGISTER: 2})
    origin = f"{ORIGIN}/{REGISTER}"
    other = sign_checkpoint(Checkpoint(origin, 71, Hash(bytes(32))), SignerKey(origin, LOG_KEY))
    held.turn().commit({REGISTER: [StoredNote(71, other)]})
    with pytest.raises(SplitViewError) as refused:
        missing(held, rebuilt_from(log))
    assert refused.value.first == other
    assert Checkpoint.parse(split_note(refused.value.second)[0]).size == 71


def test_cosignatures_of_both_sides_are_kept_first_and_last(tmp_path: Path, told: MemoryStore) -> None:
    """False if what a witness said to the restored copy drove out what it had said before, or the reverse."""
    held = open_ledger(MemoryStore(), tmp_path / "marks")
    held.add(range(3))
    save_notes(held)
    again = rebuild(MemoryStore(), Export(ORIGIN, read_export(_exported(held)).blocks)).ledger
    after = LedgerUnderTest(again, held.published, held.signer)
    for ledger, time in ((held, 100), (held, 200), (after, 150), (after, 300), (after, 50)):
        cosign(ledger, REGISTER, 3, EPOCH + time, WITNESSES[:1])
    cosign(held, REGISTER, 3, EPOCH + 175, WITNESSES[1:])
    brought = keep_notes(again, held.ledger.store)
    assert (brought.notes, brought.cosignatures) == (0, 1)
    stored = again.store.note(REGISTER, 3)
    assert stored is not None
    first, last, other = (
        cosignature_line(split_note(stored.note)[0], witness, EPOCH + time)
        for witness, time in ((WITNESSES[0], 50), (WITNESSES[0], 300), (WITNESSES[1], 175))
    )
    assert list(again.store.cosigned(REGISTER, 0, 9)) == [Cosigned(3, first, last), Cosigned(3, other, other)]
    assert keep_notes(again, held.ledger.store) == type(brought)(0, 0)
    assert keep_notes(held.ledger, again.store) == type(brought)(0, 2)
    assert list(held.ledger.store.cosigned(REGISTER, 0, 9)) == list(again.store.cosigned(REGISTER, 0, 9))


def _exported(held: LedgerUnderTest) -> io.BytesIO:
    return io.BytesIO(b"".join(export(held.ledger.store, ORIGIN)))


def test_the_story_has_registers_of_every_kind(told: MemoryStore) -> None:
    """False if the older copies above never lacked a whole register."""
    assert {SECOND, THIRD} <= told.heads().keys()
