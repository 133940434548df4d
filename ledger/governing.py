"""The governing register: the fold of what the ledger decides about itself (formats.md, section 7).

Which registers are open, which key may write where and who may change that is never configuration: it is
folded, in order, from the signed entries of the register `governing`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from ledger import base64
from ledger.entries import Entry
from ledger.errors import Reason, RejectedError
from ledger.notes import VerifierKey
from ledger.records import (
    GovernanceChanged,
    KeyAuthorised,
    KeyRevoked,
    LedgerOpened,
    PolicyPublished,
    Record,
    RegisterClosed,
    RegisterOpened,
    parse_record,
)

GOVERNING: Final = "governing"


@dataclass(frozen=True, slots=True)
class Governance:
    """Who governs, from the entry after `since`: at least `threshold` of `keys` (32 bytes each)."""

    since: int
    keys: frozenset[bytes]
    threshold: int


@dataclass(frozen=True, slots=True)
class RegisterState:
    """A register as the fold holds it. `opened` and `closed` are indices of governing entries."""

    name: str
    title: str
    opened: int
    series: tuple[str, ...] = ()
    closed: int | None = None
    final_size: int | None = None
    successor: str | None = None

    @property
    def department(self) -> str | None:
        """The slug before the slash; None for `access`, which no department writes."""
        department, slash, _ = self.name.partition("/")
        return department if slash else None


@dataclass(frozen=True, slots=True)
class KeyState:
    """A department's key as the fold holds it. `authorised` and `revoked` are governing indices."""

    key: bytes
    department: str
    label: str
    authorised: int
    revoked: int | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """A policy, profile or calendar, by the index of its entry; the latest of one kind and name holds."""

    index: int
    kind: str
    name: str
    effective_from: str


@dataclass(frozen=True, slots=True)
class Fold:
    """The state after the governing entries [0, size). Never changed: each entry makes a new one.

    `signed_size` is the number of entries up to and including the last signed one: the `governing_size`
    that acceptance writes, which anchors do not move.
    """

    size: int = 0
    signed_size: int = 0
    opened: LedgerOpened | None = None
    governance: tuple[Governance, ...] = ()
    registers: Mapping[str, RegisterState] = field(default_factory=lambda: MappingProxyType({}))
    keys: Mapping[bytes, KeyState] = field(default_factory=lambda: MappingProxyType({}))
    published: tuple[Published, ...] = ()

    def governance_at(self, size: int) -> Governance | None:
        """Return who governs after the entries [0, size); None before the ledger is opened."""
        return next((held for held in reversed(self.governance) if held.since < size), None)

    def extended(self, entry: Entry) -> Fold:
        """Return the fold with one more entry. Entries without a submission change nothing but the size."""
        if entry.membership is None:
            return replace(self, size=self.size + 1)
        return self.extended_by(parse_record(entry.record))

    def extended_by(self, record: Record) -> Fold:
        """Return the fold with one more signed record."""
        index = self.size
        after = replace(self, size=index + 1, signed_size=index + 1)
        match record:
            case LedgerOpened():
                held = _governance(index, record)
                return replace(after, opened=record, governance=(*self.governance, held))
            case GovernanceChanged():
                return replace(after, governance=(*self.governance, _governance(index, record)))
            case RegisterOpened() if record.name not in self.registers:
                series = tuple(record.series) if record.series else ()
                return after._with_register(RegisterState(record.name, record.title, index, series))
            case RegisterClosed() if (
                state := self.registers.get(record.name)
            ) is not None and state.closed is None:
                successor = record.successor or None
                return after._with_register(
                    replace(state, closed=index, final_size=record.size, successor=successor)
                )
            case KeyAuthorised():
                key = base64.decode(record.key, 32)
                if key in self.keys or self.is_own_key(key):
                    return after  # a finding, without effect
                return after._with_key(KeyState(key, record.department, record.label, index))
            case KeyRevoked():
                bound = self.keys.get(base64.decode(record.key, 32))
                if bound is None or bound.revoked is not None:
                    return after
                return after._with_key(replace(bound, revoked=index))
            case PolicyPublished():
                published = Published(index, record.kind, record.name, record.effective_from)
                return replace(after, published=(*self.published, published))
            case _:
                return after

    def is_own_key(self, key: bytes) -> bool:
        """Tell whether `key` is the ledger's, its acknowledgements' or a governance key."""
        if any(key in held.keys for held in self.governance):
            return True
        if self.opened is None:
            return False
        vkeys = (self.opened.ledger_key, self.opened.acknowledgement_key)
        return any(VerifierKey.parse(vkey).public == key for vkey in vkeys)

    def _with_register(self, state: RegisterState) -> Fold:
        return replace(self, registers=MappingProxyType({**self.registers, state.name: state}))

    def _with_key(self, state: KeyState) -> Fold:
        return replace(self, keys=MappingProxyType({**self.keys, state.key: state}))


def _governance(since: int, record: LedgerOpened | GovernanceChanged) -> Governance:
    keys = frozenset(base64.decode(key, 32) for key in record.governance.keys)
    return Governance(since, keys, record.governance.threshold)


def fold(entries: Iterable[Entry], start: Fold | None = None) -> Fold:
    """Return the fold of governing entries, in order, from `start` (default: nothing)."""
    state = start or Fold()
    for entry in entries:
        state = state.extended(entry)
    return state


def judge_authority(state: Fold, governing_size: int, register: str, key: bytes) -> None:
    """Judge a department's submission against the fold of [0, governing_size) (formats.md, section 7).

    `governing_size` is at most `state.size`. Raises RejectedError: REGISTER_UNKNOWN, REGISTER_CLOSED,
    KEY_UNKNOWN, KEY_REVOKED or KEY_OF_OTHER_DEPARTMENT.
    """
    held = judge_register(state, governing_size, register)
    text = base64.encode(key)
    bound = state.keys.get(key)
    if bound is None or bound.authorised >= governing_size:
        raise RejectedError(Reason.KEY_UNKNOWN, f"key {text} was never authorised", detail={"key": text})
    if bound.revoked is not None and bound.revoked < governing_size:
        raise RejectedError(Reason.KEY_REVOKED, f"key {text} has been revoked", detail={"key": text})
    if bound.department != held.department:
        raise RejectedError(
            Reason.KEY_OF_OTHER_DEPARTMENT,
            f"key {text} is bound to {bound.department!r} and cannot write to {register!r}",
            detail={"key": text, "department": bound.department, "register": register},
        )


def judge_register(state: Fold, governing_size: int, register: str) -> RegisterState:
    """Return a register that the fold of [0, governing_size) holds open.

    Raises RejectedError REGISTER_UNKNOWN or REGISTER_CLOSED.
    """
    held = state.registers.get(register)
    if held is None or held.opened >= governing_size:
        raise RejectedError(
            Reason.REGISTER_UNKNOWN,
            f"this ledger has no register {register!r}",
            detail={"register": register},
        )
    if held.closed is not None and held.closed < governing_size:
        detail = {"register": register}
        if held.successor:
            detail["successor"] = held.successor
        raise RejectedError(
            Reason.REGISTER_CLOSED, f"register {register!r} is closed: nothing can be added", detail=detail
        )
    return held


def judge_governance(state: Fold, record: Record, signers: Collection[bytes]) -> None:
    """Judge a governance submission against the fold of [0, own index) (formats.md, section 7).

    `signers` are keys whose signatures verify. Raises RejectedError GOVERNANCE_REFUSED.
    """
    current = state.governance_at(state.size)
    required = _required_signers(record, current.keys if current else frozenset())
    missing = [base64.encode(key) for key in required if key not in signers]
    if missing:
        raise RejectedError(
            Reason.GOVERNANCE_REFUSED,
            f"not signed by {', '.join(sorted(missing))}, which this request names",
            detail={"missing": ",".join(sorted(missing))},
        )
    if current is None:
        if isinstance(record, LedgerOpened):
            return
        raise RejectedError(Reason.GOVERNANCE_REFUSED, "the first governing entry opens the ledger")
    if isinstance(record, LedgerOpened):
        raise RejectedError(Reason.GOVERNANCE_REFUSED, "the ledger is open: only entry 0 opens it")
    valid = len(current.keys.intersection(signers))
    if valid < current.threshold:
        raise RejectedError(
            Reason.GOVERNANCE_REFUSED,
            f"signed by {valid} of the governance keys; {current.threshold} of {len(current.keys)} must sign",
            detail={"threshold": str(current.threshold), "valid": str(valid)},
        )


def _required_signers(record: Record, governing: frozenset[bytes]) -> tuple[bytes, ...]:
    """Return the keys that must sign besides the threshold: those that the record brings in.

    Governance keys that stay need not: `governing` has those of now.
    """
    match record:
        case KeyAuthorised():
            return (base64.decode(record.key, 32),)
        case LedgerOpened() | GovernanceChanged():
            keys = (base64.decode(key, 32) for key in record.governance.keys)
            return tuple(key for key in keys if key not in governing)
        case _:
            return ()


def judge_novelty(state: Fold, record: Record) -> None:
    """Refuse what is there already (formats.md, section 8).

    Raises RejectedError KEY_ALREADY_BOUND or REGISTER_ALREADY_OPEN.
    """
    if isinstance(record, KeyAuthorised):
        bound = state.keys.get(base64.decode(record.key, 32))
        if bound is not None:
            raise RejectedError(
                Reason.KEY_ALREADY_BOUND,
                f"key {record.key} was bound to {bound.department!r} for ever at index {bound.authorised}",
                detail={"key": record.key, "department": bound.department, "index": str(bound.authorised)},
            )
    if isinstance(record, RegisterOpened):
        held = state.registers.get(record.name)
        if held is not None:
            raise RejectedError(
                Reason.REGISTER_ALREADY_OPEN,
                f"register {record.name!r} was opened at index {held.opened}",
                detail={"register": record.name, "index": str(held.opened)},
            )
