from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ledger.entries import MAX_SUBMISSION
from services.client.batches import MAX_BATCH, Item, batches

SINGLE = "decision.registered/1"
AFTER = "decision.corrected/1"


def item(number: int, size: int = 500, record_type: str = SINGLE) -> Item:
    version = 1 if record_type == SINGLE else 2
    return Item(b"%d" % number + b" " * size, str(number), version, record_type, f"row {number}")


@given(st.lists(st.tuples(st.integers(1, 61_000), st.sampled_from([SINGLE, AFTER])), max_size=80))
def test_batches_keep_order_limits_and_their_own_kind(shapes: list[tuple[int, str]]) -> None:
    """False if a record was lost, moved, or put into a submission that the ledger refuses for its size."""
    items = [item(number, size, record_type) for number, (size, record_type) in enumerate(shapes)]
    cut = list(batches(items))
    assert [each for batch in cut for each in batch.items] == items
    for batch in cut:
        assert 1 <= len(batch.items) <= MAX_BATCH
        assert sum(len(each.data) for each in batch.items) <= MAX_SUBMISSION
        assert len({each.stands_alone for each in batch.items}) == 1


def test_many_small_records_fill_submissions_of_500() -> None:
    """False if a department with 1,200 records made more calls than it needs."""
    cut = list(batches(item(number) for number in range(1_200)))
    assert [len(batch.items) for batch in cut] == [500, 500, 200]


def test_corrections_and_returns_wait_for_what_stands_before_them() -> None:
    """False if a correction could reach the ledger before the decision that it corrects."""
    assert item(0).stands_alone
    assert not item(0, record_type=AFTER).stands_alone
    assert not Item(b"x", "id", 1, "return.filed/1", "row 1").stands_alone
