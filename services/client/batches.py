"""Many records, cut into submissions and registered so that a second run does no harm.

The ledger knows a record again by its id and version. What an earlier, interrupted run had registered under
other submissions is told by the refusal RECORD_ALREADY_REGISTERED: those receipts are fetched and verified,
and the rest is signed again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from ledger.entries import MAX_SUBMISSION
from ledger.errors import VerificationError
from ledger.receipts import VerifiedReceipt
from services.client.answers import Promised, Registered, Rejected
from services.client.client import SUBMIT_TIMEOUT, Client
from services.client.errors import CallError, RefusedError
from services.client.in_flight import as_finished

MAX_BATCH: Final = 500
"""Records of one submission: more gain nothing, and a lost answer costs more."""

_FETCHES: Final = 16
_ALREADY_REGISTERED: Final = "RECORD_ALREADY_REGISTERED"
_PLACE: Final = re.compile(r"(0|[1-9][0-9]*):(0|[1-9][0-9]*)")
_FIRST_VERSION_TYPE: Final = "decision.registered/1"


@dataclass(frozen=True, slots=True)
class Item:
    """A record to be registered: canonical bytes, what it is, and where it stands in the caller's file."""

    data: bytes
    record_id: str
    version: int
    record_type: str
    place: str

    @property
    def stands_alone(self) -> bool:
        """Whether it may come before or after any other: a correction, a withdrawal or a return may not."""
        return self.version == 1 and self.record_type == _FIRST_VERSION_TYPE


@dataclass(frozen=True, slots=True)
class Batch:
    """Items of one submission, in order.

    A batch that does not stand alone waits for all before it, and all after it wait for it.
    """

    items: tuple[Item, ...]

    @property
    def stands_alone(self) -> bool:
        """Whether the batch may be under way together with others."""
        return all(item.stands_alone for item in self.items)


class BatchError(Exception):
    """A batch was not registered as a whole: `items` are those of the call that failed with `error`."""

    def __init__(self, items: tuple[Item, ...], error: CallError) -> None:
        super().__init__(str(error))
        self.items = items
        self.error = error


@dataclass(frozen=True, slots=True)
class Receipted:
    """An item with its receipt, which proves it. `before` tells that an earlier submission registered it."""

    item: Item
    receipt: bytes
    index: int
    before: bool


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """What became of a batch: receipts in any order, and the answer that ended it.

    `answer` is None where every item had been registered before.
    """

    receipts: tuple[Receipted, ...]
    answer: Registered | Promised | Rejected | None
    items: tuple[Item, ...]
    """The items that `answer` is about."""


def batches(items: Iterable[Item]) -> Iterator[Batch]:
    """Cut items into batches of at most 500 records and 1 MiB, order kept.

    Items that may come in any order do not share a batch with those that may not, so that only these wait.
    """
    taken: list[Item] = []
    size = 0
    for item in items:
        full = len(taken) == MAX_BATCH or size + len(item.data) > MAX_SUBMISSION
        if taken and (full or taken[-1].stands_alone != item.stands_alone):
            yield Batch(tuple(taken))
            taken, size = [], 0
        taken.append(item)
        size += len(item.data)
    if taken:
        yield Batch(tuple(taken))


async def register_batch(
    client: Client,
    batch: Batch,
    timeout: float = SUBMIT_TIMEOUT,  # noqa: ASYNC109 - of each call
) -> BatchOutcome:
    """Register a batch; where some of it was registered before, fetch that and sign the rest again.

    Raises BatchError where the ledger refuses it or does not answer, VerificationError where an answer does
    not hold.
    """
    items = batch.items
    receipts: list[Receipted] = []
    while items:
        try:
            answer = await client.submit(client.sign([item.data for item in items]), timeout=timeout)
        except CallError as error:
            there = _registered_before(error, len(items))
            if not there:
                raise BatchError(items, error) from error
            receipts += await _fetched(client, items, there, timeout)
            positions = {position for position, _ in there}
            items = tuple(item for position, item in enumerate(items) if position not in positions)
            continue
        if isinstance(answer, Registered):
            first = answer.first_index
            receipts += [
                Receipted(item, receipt, first + position, answer.known)
                for position, (item, receipt) in enumerate(zip(items, answer.receipts(), strict=True))
            ]
        return BatchOutcome(tuple(receipts), answer, items)
    return BatchOutcome(tuple(receipts), None, ())


def _registered_before(error: CallError, count: int) -> tuple[tuple[int, int], ...]:
    """Return the (position, index) pairs that a refusal names; none where it is another, or names none.

    A long list was cut to what a trailer holds: the next refusal names the rest.
    """
    if not isinstance(error, RefusedError) or error.reason != _ALREADY_REGISTERED:
        return ()
    named = (_PLACE.fullmatch(each) for each in error.metadata.get("registered", "").split(","))
    pairs = ((int(found[1]), int(found[2])) for found in named if found is not None)
    return tuple((position, index) for position, index in pairs if position < count)


async def _fetched(
    client: Client,
    items: Sequence[Item],
    there: Sequence[tuple[int, int]],
    timeout: float,  # noqa: ASYNC109 - of each call
) -> list[Receipted]:
    async def fetch(item: Item, index: int) -> Receipted:
        try:
            receipt, verified = await client.receipt(index, timeout=timeout)
        except CallError as error:
            raise BatchError((item,), error) from error
        if verified.record != item.data:
            raise VerificationError(
                f"the ledger says that {item.place} is registered at index {index}, where another record is"
            )
        return Receipted(item, receipt, index, before=True)

    jobs = (partial(fetch, items[position], index) for position, index in there)
    return [receipted async for receipted in as_finished(jobs, _FETCHES)]


def is_receipt_of(verified: VerifiedReceipt, item: Item, register_origin: str) -> bool:
    """Tell whether a verified receipt is for just these bytes in just this register."""
    return f"{verified.ledger_origin}/{verified.register}" == register_origin and verified.record == item.data
