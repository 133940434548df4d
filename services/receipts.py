"""Building receipts: what proves one entry to a stranger, from what is stored and published (formats.md, 13).

A receipt is made when it is asked for. With witnesses it is at the first sealed size that covers the entry,
which bounds best when the entry came in, and so it hardly ever changes again; without, at the latest signed
size. Nothing of it is kept but what many receipts share: the sections of a key, and those of an anchor.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from ledger.anchors import Anchored, satisfies
from ledger.entries import first_signer
from ledger.errors import Reason, RejectedError
from ledger.governing import GOVERNING
from ledger.hashing import Hash
from ledger.ledger import LedgerView
from ledger.receipt_file import Anchor, KeyEvidence, NotBefore, Receipt
from ledger.tlog_proofs import TlogProof
from services.published import Published

KEPT: Final = 1_024
"""Keys, and anchors, whose sections are kept, of about 2 KiB each."""

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Built:
    """A receipt file, and what it proves of the entry's state."""

    data: bytes
    sealed: bool
    anchored: bool


class ReceiptBuilder:
    """Builds the receipts of one ledger. For any thread, the event loop's too: one takes 0.1 to 0.3 ms."""

    def __init__(self, ledger: LedgerView, published: Published) -> None:
        self._ledger = ledger
        self._published = published
        self._keys: _Recent[tuple[bytes, object, int], KeyEvidence | None] = _Recent()
        self._anchors: _Recent[tuple[int, object, int], _AnchorEntry | None] = _Recent()

    def receipt(self, register: str, index: int) -> Built:
        """Return the receipt of entry `index`.

        It has the key sections where a department signed the entry, and with witnesses the not-before and
        anchor sections as soon as there is something to put there. Raises RejectedError REGISTER_UNKNOWN, or
        SIZE_NOT_REACHED where no published checkpoint covers such an entry.
        """
        latest = self._published.latest(register)
        if not 0 <= index < latest.size:
            raise RejectedError(
                Reason.SIZE_NOT_REACHED,
                f"{register} has no entry {index}; its latest size is {latest.size}",
                detail={"latest_size": str(latest.size)},
            )
        reader = self._published.sealed_reader
        sealed = reader.first_covering(register, index) if reader else None
        size, note = (sealed.size, sealed.note) if sealed else (latest.size, latest.note)
        entry = self._ledger.reader(register).entry(index)
        receipt = Receipt(
            entry,
            TlogProof(index, self._ledger.reader(register).inclusion(index, size), note),
            self.not_before(register, index, size) if sealed else None,
            self._key_evidence(register, entry),
            self._anchor(register, index, size) if sealed else None,
        )
        return Built(receipt.data(), sealed is not None, receipt.anchor is not None)

    def not_before(self, register: str, index: int, size: int) -> NotBefore | None:
        """Return the latest sealed note that does not cover entry `index`, proved to the tree of `size`."""
        reader = self._published.sealed_reader
        earlier = reader.last_up_to(register, index) if reader else None
        if earlier is None:
            return None
        return NotBefore(earlier.note, self._consistency(register, earlier.size, size))

    def is_anchored(self, register: str, index: int) -> bool:
        """Tell whether a receipt of entry `index` would have anchor sections."""
        return self._anchoring(register, index) is not None

    def _consistency(self, register: str, one: int, other: int) -> tuple[Hash, ...]:
        first, second = sorted((one, other))
        return self._ledger.reader(register).consistency(first, second) if 0 < first < second else ()

    def _governing_proof(self, index: int) -> TlogProof | None:
        """Return the proof of a governing entry under a checkpoint that satisfies the policy in force."""
        reader = self._published.sealed_reader
        if reader is not None:
            sealed = reader.first_covering(GOVERNING, index)
            if sealed is None:
                return None
            size, note = sealed.size, sealed.note
        else:
            latest = self._published.latest(GOVERNING)
            size, note = latest.size, latest.note
            if index >= size:
                return None  # written in this very turn, whose governing checkpoint is not shown yet
        return TlogProof(index, self._ledger.reader(GOVERNING).inclusion(index, size), note)

    def _key_evidence(self, register: str, entry: bytes) -> KeyEvidence | None:
        """Return the governing entry that authorised the signer."""
        if register == GOVERNING:
            return None
        key = first_signer(entry)
        if key is None:
            return None
        return self._keys.get(
            (key, self._published.policy, self._governing_size()), lambda: self._key_sections(key)
        )

    def _governing_size(self) -> int:
        """Return the size of the governing checkpoint beyond which nothing can be proved yet."""
        if self._published.policy is None:
            return self._published.latest(GOVERNING).size
        sealed = self._published.sealed(GOVERNING)
        return sealed.size if sealed else 0

    def _key_sections(self, key: bytes) -> KeyEvidence | None:
        known = self._ledger.fold.keys.get(key)
        if known is None:
            # A replica hears of each register by itself: of this entry already, and not yet of the governing
            # one. Less is proved until then, and the receipt says so: as where that one is not sealed yet.
            return None
        proof = self._governing_proof(known.authorised)
        if proof is None:
            return None
        return KeyEvidence(self._ledger.reader(GOVERNING).entry(known.authorised), proof)

    def _anchor(self, register: str, index: int, size: int) -> Anchor | None:
        """Return the first anchor that covers entry `index`, and its proof to the tree of `size`."""
        anchoring = self._anchoring(register, index)
        if anchoring is None:
            return None
        return Anchor(
            anchoring.entry, anchoring.proof, self._consistency(register, anchoring.anchored.size, size)
        )

    def _anchoring(self, register: str, index: int) -> _AnchorEntry | None:
        anchors = self._ledger.anchors
        # The first one bounds best when the entry came in. One that was sealed for other witnesses than
        # today's does not satisfy today's policy: the latest does, once there is one.
        for anchored in (anchors.covering(register, index), anchors.latest(register)):
            if anchored is not None and anchored.size > index:
                held = self._anchors.get(
                    (anchored.index, self._published.policy, self._governing_size()),
                    lambda found=anchored: self._anchor_entry(found),  # type: ignore[misc]
                )
                if held is not None:
                    return held
        return None

    def _anchor_entry(self, anchored: Anchored) -> _AnchorEntry | None:
        policy = self._published.policy
        if policy is None:
            return None
        entry = self._ledger.reader(GOVERNING).entry(anchored.index)
        proof = self._governing_proof(anchored.index)
        if proof is None or not satisfies(entry, policy, self._ledger.register_origin(anchored.register)):
            return None
        return _AnchorEntry(anchored, entry, proof)


@dataclass(frozen=True, slots=True)
class _AnchorEntry:
    """A governing entry that anchors, with its proof: the same for every entry that it covers."""

    anchored: Anchored
    entry: bytes
    proof: TlogProof


class _Recent(Generic[_Key, _Value]):
    """The values that were asked for last."""

    def __init__(self) -> None:
        self._held: OrderedDict[_Key, _Value] = OrderedDict()

    def get(self, key: _Key, make: Callable[[], _Value]) -> _Value:
        try:
            return self._held[key]
        except KeyError:
            pass  # not asked first whether it is there: another thread may drop it in between
        value = self._held[key] = make()
        while len(self._held) > KEPT:
            self._held.popitem(last=False)
        return value
