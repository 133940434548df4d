"""Receipts as the server builds them verify offline, at the size that is published."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ledger.ed25519 import SecretKey
from ledger.errors import Reason, RejectedError
from ledger.governing import GOVERNING
from ledger.ledger import LedgerView
from ledger.receipts import Receipt, verify_receipt
from ledger.store import Store
from ledger.stores.memory import MemoryStore
from ledger.stores.sqlite import SqliteStore
from services.published import Published
from services.receipts import KEPT, ReceiptBuilder, _Recent
from tests.support.ledgers import (
    DEPARTMENT,
    DEPARTMENT_KEY,
    ORIGIN,
    POLICY,
    REGISTER,
    LedgerUnderTest,
    decision,
    open_ledger,
    record_id,
    submission,
)


@pytest.fixture(params=["memory", "sqlite"])
def held(request: pytest.FixtureRequest, tmp_path: Path) -> LedgerUnderTest:
    store: Store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "store")
    return open_ledger(store, tmp_path / "marks")


def builder(held: LedgerUnderTest) -> ReceiptBuilder:
    return ReceiptBuilder(held.ledger, held.published)


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 700])
def test_every_receipt_proves_its_entry_and_its_key(held: LedgerUnderTest, size: int) -> None:
    """If false, a department could hold a receipt that its own verifier refuses."""
    held.fill(size)
    build = builder(held)
    for index in {0, 1, size // 2, size - 1} & set(range(size)):
        verified = verify_receipt(build.receipt(REGISTER, index).data, POLICY)
        assert (verified.register, verified.index, verified.size) == (REGISTER, index, size)
        assert verified.record == decision(index)
        assert verified.record_id == record_id(index)
        assert verified.signers == (DEPARTMENT_KEY.public,)
        assert verified.department == DEPARTMENT
        assert verified.authorised is not None
        assert (verified.authorised.index, verified.authorised.size) == (2, 3)
        assert verified.findings == ()


def test_a_receipt_of_a_governing_entry_has_no_key_sections(held: LedgerUnderTest) -> None:
    """If false, a verifier would refuse the receipts of the governing register."""
    build = builder(held)
    for index in range(3):
        data = build.receipt(GOVERNING, index).data
        assert Receipt.parse(data).key is None
        assert verify_receipt(data, POLICY).index == index


def test_key_sections_follow_the_governing_register(held: LedgerUnderTest) -> None:
    """If false, a kept key section could be shown at an older size, or for another key."""
    other = SecretKey(b"\x09" * 32)
    held.fill(2)
    build = builder(held)
    assert verify_receipt(build.receipt(REGISTER, 0).data, POLICY).authorised is not None
    held.authorise(other)
    held.add([2], key=other)
    first, last = (verify_receipt(build.receipt(REGISTER, index).data, POLICY) for index in (0, 2))
    assert first.authorised is not None
    assert last.authorised is not None
    assert (first.authorised.index, first.authorised.size) == (2, 4)
    assert (last.authorised.index, last.authorised.size) == (3, 4)


def test_an_entry_that_is_shown_before_the_key_of_its_signer_has_a_receipt_without_key_sections(
    held: LedgerUnderTest,
) -> None:
    """If false, a replica would fail over an entry that is news to it sooner than the governing register."""
    view, published = LedgerView(held.ledger.store, ORIGIN), Published(held.ledger.store)
    view.follow(held.published.latest(GOVERNING).size)
    published.add({GOVERNING: held.published.latest(GOVERNING)})
    other = SecretKey(b"\x09" * 32)
    held.authorise(other)
    held.add([0], key=other)
    published.add({REGISTER: held.published.latest(REGISTER)})
    build = ReceiptBuilder(view, published)
    early = verify_receipt(build.receipt(REGISTER, 0).data, POLICY)
    assert (early.size, early.signers, early.authorised) == (1, (other.public,), None)
    assert f"That the signing key is one of {DEPARTMENT} is claimed and not proved." in early.not_proved
    view.follow(held.published.latest(GOVERNING).size)
    published.add({GOVERNING: held.published.latest(GOVERNING)})
    authorised = verify_receipt(build.receipt(REGISTER, 0).data, POLICY).authorised
    assert authorised is not None
    assert (authorised.index, authorised.size) == (3, 4)


class Interrupted:
    """A key during whose search another thread has its turn, `meanwhile`: when `hashed` has come down to 0."""

    def __init__(self) -> None:
        self.hashed = 0
        self.meanwhile: Callable[[], None] = lambda: None

    def __hash__(self) -> int:
        self.hashed -= 1
        if self.hashed == 0:
            self.meanwhile()
        return 1


@pytest.mark.parametrize("at", [1, 2])
def test_a_section_that_another_thread_drops_meanwhile_is_made_again(at: int) -> None:
    """If false, a receipt would fail where many of other keys are asked for at the same time."""
    recent: _Recent[object, str] = _Recent()
    key = Interrupted()

    def ask_for_others() -> None:
        for number in range(KEPT):
            recent.get(f"another {number}", lambda: "another")

    recent.get(key, lambda: "made")
    key.hashed, key.meanwhile = at, ask_for_others
    assert recent.get(key, lambda: "made") == "made"


@pytest.mark.parametrize("index", [-1, 5, 2**63])
def test_there_is_no_receipt_beyond_the_published_size(held: LedgerUnderTest, index: int) -> None:
    """If false, a receipt would be made of an entry that is not there."""
    held.fill(5)
    with pytest.raises(RejectedError) as caught:
        builder(held).receipt(REGISTER, index)
    assert caught.value.reason is Reason.SIZE_NOT_REACHED


def test_what_is_committed_and_not_signed_has_no_receipt(held: LedgerUnderTest) -> None:
    """If false, a receipt could be given under a size that was never signed."""
    held.fill(5)
    held.commit_unsigned([submission(REGISTER, [decision(5)], [DEPARTMENT_KEY])])
    assert held.ledger.heads()[REGISTER].size == 6
    with pytest.raises(RejectedError) as caught:
        builder(held).receipt(REGISTER, 5)
    assert caught.value.reason is Reason.SIZE_NOT_REACHED
    assert verify_receipt(builder(held).receipt(REGISTER, 4).data, POLICY).size == 5


def test_an_unknown_register_has_no_receipt(held: LedgerUnderTest) -> None:
    """If false, a caller could not tell a wrong name from an empty register."""
    with pytest.raises(RejectedError) as caught:
        builder(held).receipt("no/such", 0)
    assert caught.value.reason is Reason.REGISTER_UNKNOWN
