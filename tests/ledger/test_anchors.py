"""Which governing entries anchor which registers, found by index, and after every start the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import canonical
from ledger.anchors import Anchored, Anchors, anchored_by
from ledger.checkpoints import Checkpoint
from ledger.ed25519 import SecretKey
from ledger.entries import form_ledger_entry, parse_entry
from ledger.governing import GOVERNING
from ledger.governing_types import LedgerOpened
from ledger.ledger import Ledger
from ledger.notes import SignerKey, sign_note
from ledger.own_records import checkpoint_anchored, uuid8
from ledger.stores.memory import MemoryStore
from tests.support.growing_log import GrowingLog
from tests.support.ledger_story import SECOND, anchor
from tests.support.ledgers import LOG_KEY, ORIGIN, REGISTER, LedgerUnderTest, open_ledger

LOG = GrowingLog(f"{ORIGIN}/{REGISTER}", LOG_KEY)
STRANGER = SecretKey(b"\x77" * 32)
AT = "2026-07-01T00:00:00.000Z"


def anchoring(note: bytes) -> bytes:
    """Return a governing entry that anchors a note."""
    return form_ledger_entry(checkpoint_anchored(note), AT, 3)


@pytest.fixture
def opened(tmp_path: Path) -> LedgerOpened:
    """What opens the ledger, with its key."""
    found = open_ledger(MemoryStore(), tmp_path / "opened.marks").ledger.fold.opened
    assert found is not None
    return found


def test_an_anchor_says_which_register_up_to_what_size(opened: LedgerOpened) -> None:
    """If false, a receipt would show another register's anchor, or one that does not cover its entry."""
    assert anchored_by(9, parse_entry(anchoring(LOG.note(5))), opened) == Anchored(REGISTER, 5, 9)
    assert anchored_by(9, parse_entry(anchoring(LOG.note(0))), opened) == Anchored(REGISTER, 0, 9)


def test_what_only_looks_like_an_anchor_anchors_nothing(opened: LedgerOpened) -> None:
    """If false, receipts could be built around what is no anchor, or the ledger not start for it."""
    stated = canonical.parse(checkpoint_anchored(LOG.note(5)))
    for text in (
        "no note at all\n",
        "no checkpoint\n\n— name AAAAAAAA\n",
        LOG.note(5).decode().replace("\n5\n", "\n05\n"),
        LOG.note(5).decode()[:-1] + "x\n",
    ):
        record = canonical.format({**stated, "checkpoint": text, "record_id": uuid8(text.encode())})
        assert anchored_by(9, parse_entry(form_ledger_entry(record, AT, 3)), opened) is None
    broken = canonical.format({**stated, "version": 2})
    assert anchored_by(9, parse_entry(form_ledger_entry(broken, AT, 3)), opened) is None


def _signed(origin: str, secret: SecretKey, by: str | None = None) -> bytes:
    """Return a note of size 5 of any origin."""
    return sign_note(Checkpoint(origin, 5, LOG.root(5)).text(), [SignerKey(by or origin, secret)])


@pytest.mark.parametrize(
    "note",
    [
        _signed(f"{ORIGIN}/{REGISTER}", STRANGER),
        _signed(f"{ORIGIN}/{REGISTER}", LOG_KEY, f"{ORIGIN}/{SECOND}"),
        _signed(f"{ORIGIN}/{REGISTER}", LOG_KEY, f"{ORIGIN}/{GOVERNING}"),
        _signed(f"{ORIGIN}/{GOVERNING}", LOG_KEY),
        _signed(f"{ORIGIN}/no", LOG_KEY),
        _signed(f"other.test/{REGISTER}", LOG_KEY),
        LOG.note(5).replace(b"\n5\n", b"\n6\n", 1),
    ],
    ids=["stranger", "other-register", "governing-key", "governing", "no-register", "other-ledger", "altered"],
)
def test_what_the_ledger_has_not_signed_anchors_nothing(opened: LedgerOpened, note: bytes) -> None:
    """If false, whoever can write to the event log could say how far a register is anchored."""
    assert anchored_by(9, parse_entry(anchoring(note)), opened) is None


def test_nothing_is_anchored_before_a_ledger_is_opened() -> None:
    """If false, an anchor would count by nobody's key."""
    assert anchored_by(0, parse_entry(anchoring(LOG.note(5))), None) is None


def test_a_signed_entry_anchors_nothing(tmp_path: Path) -> None:
    """If false, governance keys could anchor what no witness has sealed."""
    held = open_ledger(MemoryStore(), tmp_path / "marks")
    held.open_register(SECOND, title='"type":"checkpoint.anchored/1"')
    reader = held.ledger.reader(GOVERNING)
    for index in range(held.ledger.heads()[GOVERNING].size):
        assert anchored_by(index, parse_entry(reader.entry(index)), held.ledger.fold.opened) is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), max_size=15))
def test_the_first_anchor_that_covers_an_entry_is_found(made: list[tuple[str, int]]) -> None:
    """If false, a receipt would be bounded later than it might, or have no anchor though there is one."""
    all_made = [Anchored(register, size, index) for index, (register, size) in enumerate(made)]
    together, one_by_one = Anchors(), Anchors()
    together.add(all_made)
    for each in all_made:
        one_by_one.add([each])
    for register in "abc":
        of_it = [each for each in all_made if each.register == register]
        for anchors in (together, one_by_one):
            latest = anchors.latest(register)
            largest = max((each.size for each in of_it), default=None)
            # Of several of one size the last: it may be by the word of other witnesses.
            assert latest == next((each for each in reversed(of_it) if each.size == largest), None)
            for index in range(11):
                found = anchors.covering(register, index)
                covering = [each for each in of_it if each.size > index]
                assert (found is None) == (not covering)
                if found is not None:
                    assert found in covering
                    # The earliest in the governing register, so that it was witnessed the earliest.
                    assert found.index == min(each.index for each in covering)


def grown(tmp_path: Path) -> LedgerUnderTest:
    """Return a ledger with anchors of two registers."""
    held = open_ledger(MemoryStore(), tmp_path / "marks")
    held.open_register(SECOND)
    anchor(held, SECOND)
    for first in range(0, 9, 3):
        held.add(range(first, first + 3))
        anchor(held, REGISTER)
    return held


def test_a_ledger_knows_its_anchors_as_they_come_and_after_a_start(tmp_path: Path) -> None:
    """If false, receipts would lose their anchors at every restart, or show some that are not committed."""
    held = grown(tmp_path)
    again = Ledger.open(held.ledger.store, ORIGIN)
    for anchors in (held.ledger.anchors, again.anchors):
        assert anchors.latest(REGISTER) == Anchored(REGISTER, 9, 7)
        assert [anchors.covering(REGISTER, index) for index in (0, 2, 3, 8, 9)] == [
            Anchored(REGISTER, 3, 5),
            Anchored(REGISTER, 3, 5),
            Anchored(REGISTER, 6, 6),
            Anchored(REGISTER, 9, 7),
            None,
        ]
        assert anchors.latest(SECOND) == Anchored(SECOND, 0, 4)
        assert anchors.latest(GOVERNING) is None


def test_an_anchor_of_a_turn_that_is_dropped_is_none(tmp_path: Path) -> None:
    """If false, a failed commit would leave receipts that point at entries which are not there."""
    held = grown(tmp_path)
    before = held.ledger.anchors.latest(REGISTER)
    turn = held.ledger.turn()
    turn.append_ledger_written(GOVERNING, checkpoint_anchored(LOG.note(77)), AT)
    turn.finish({})
    assert held.ledger.anchors.latest(REGISTER) == before
