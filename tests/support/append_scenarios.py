"""Scenarios of the append rules (formats.md, section 9) as the messages of one event log, each in registers of
its own, with what the rules make of every message.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from typing import Any, Final

from ledger import base64, canonical
from ledger.admission import instant
from ledger.checkpoints import Checkpoint, sign_checkpoint
from ledger.ed25519 import SecretKey
from ledger.entries import LEDGER, Acceptance, Message, Submission, accept, form_ledger_entry
from ledger.errors import Reason
from ledger.event_log import Kind, LogMessage
from ledger.governing import GOVERNING
from ledger.hashing import leaf_hash
from ledger.notes import SignerKey
from ledger.own_records import checkpoint_anchored, submission_rejected
from ledger.tiles import encode_bundle
from services.distributed.partitions import partition_of
from tests.support.ledgers import (
    ACKNOWLEDGEMENT_KEY,
    DEPARTMENT,
    DEPARTMENT_KEY,
    EPOCH,
    GOVERNANCE_KEY,
    LOG_KEY,
    ORIGIN,
    decision,
    governing_record,
    record_id,
    submission,
    vkey,
)
from tests.support.records import correction, period_return, withdrawal

PARTITIONS: Final = 3

REVOKED_KEY: Final = SecretKey(b"\x05" * 32)
OTHER_DEPARTMENT_KEY: Final = SecretKey(b"\x06" * 32)
LATE_KEY: Final = SecretKey(b"\x07" * 32)
STRANGER: Final = SecretKey(b"\x77" * 32)

Says = Kind | Reason
"""What becomes of a message: its kind, or why it is rejected."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A message as it is sent. Kafka may bring one without a key or a value."""

    partition: int
    key: bytes | None
    value: bytes | None
    says: Says
    late: bool = False
    """Sent only when others wait for it."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Messages in their order. What they are about has registers that no other scenario writes to."""

    name: str
    messages: tuple[Sent, ...]

    def governs(self) -> bool:
        """Tell whether messages of it are of `governing`."""
        return any(each.key == GOVERNING.encode() for each in self.messages)

    def registers(self) -> set[str]:
        """Return the registers that may have entries of it, but for `governing`, which all share."""
        return {(each.key or b"").decode("utf-8", "replace") for each in self.messages} - {GOVERNING}


@dataclass(slots=True)
class EventLog:
    """All scenarios in one log: what opens the ledger, then their messages in turn, the late ones last.

    Those that govern come one after the other, since each message of `governing` counts on those before it.
    """

    opening: tuple[Sent, ...]
    scenarios: tuple[Scenario, ...]
    sent: list[Sent] = field(init=False)
    places: dict[str, list[tuple[int, int]]] = field(init=False)
    """The partition and offset of each message of a scenario, by the scenario's name."""
    partitions: dict[int, list[LogMessage]] = field(init=False)

    def __post_init__(self) -> None:
        self.places = {each.name: [] for each in self.scenarios}
        self.partitions = {number: [] for number in range(PARTITIONS)}
        named = [[(each.name, one) for one in each.messages] for each in self.scenarios]
        apart = [each for each, scenario in zip(named, self.scenarios, strict=True) if scenario.governs()]
        mixed = [one for turn in zip_longest(*(each for each in named if each not in apart)) for one in turn]
        following = [*(one for one in mixed if one is not None), *chain.from_iterable(apart)]
        # A stable sort: each scenario keeps its order.
        following.sort(key=lambda each: each[1].late)
        order = [*(("", one) for one in self.opening), *following]
        self.sent = [one for _, one in order]
        for name, one in order:
            held = self.partitions[one.partition]
            if name:
                self.places[name].append((one.partition, len(held)))
            held.append(LogMessage(len(held), one.key or b"", one.value or b""))

    def said(self) -> dict[tuple[int, int], Says]:
        """Return what becomes of each message, by its partition and offset."""
        found: dict[tuple[int, int], Says] = {}
        begun = dict.fromkeys(self.partitions, 0)
        for one in self.sent:
            found[one.partition, begun[one.partition]] = one.says
            begun[one.partition] += 1
        return found


def at(register: str) -> int:
    """Return the partition of a register."""
    return partition_of(register, PARTITIONS)


def named(slug: str, *, with_governing: bool | None = None) -> str:
    """Return a register's name; `with_governing` tells whether it shares the partition of `governing`."""
    names = (f"{DEPARTMENT}/{slug}{'-x' * times}" for times in range(20))
    return next(n for n in names if with_governing in (None, at(n) == at(GOVERNING)))


def message(
    one: Submission,
    says: Says,
    view: int,
    *,
    seconds: int = 0,
    submitter: str = "anonymous",
    late: bool = False,
) -> Sent:
    """Return a submission as it was accepted."""
    accepted = accept(one, Acceptance(instant(EPOCH + 5_000 + seconds), submitter, view))
    return Sent(at(one.register), one.register.encode(), accepted.value(), says, late)


def raw(register: str, value: bytes, says: Says = Kind.QUARANTINED) -> Sent:
    """Return any bytes as a message of a register."""
    return Sent(at(register), register.encode(), value, says)


def written(register: str, record: bytes, says: Says, view: int, seconds: int = 0) -> Sent:
    """Return a record as the ledger writes it itself."""
    accepted_at = instant(EPOCH + 6_000 + seconds)
    entry = form_ledger_entry(record, accepted_at, view)
    return raw(register, Message(register, Acceptance(accepted_at, LEDGER, view), (entry,), None).value(), says)


class Governing:
    """The messages of the register `governing`, each judged after all before it."""

    def __init__(self) -> None:
        self.size = 0
        self._made = 0

    def record(self, record_type: str, **members: Any) -> bytes:
        """Return a governing record, with a record_id of its own."""
        self._made += 1
        return governing_record(self._made, record_type, **members)

    def sent(self, record: bytes, signers: Sequence[SecretKey], says: Says, *, late: bool = False) -> Sent:
        """Return a submission of one record."""
        made = message(submission(GOVERNING, [record], signers), says, self.size, late=late)
        self.size += says not in (Kind.KNOWN, Kind.QUARANTINED)
        return made

    def decided(self, record_type: str, *also: SecretKey, late: bool = False, **members: Any) -> Sent:
        """Return a governing record that is appended."""
        record = self.record(record_type, **members)
        return self.sent(record, [GOVERNANCE_KEY, *also], Kind.APPENDED, late=late)

    def authorised(self, key: SecretKey, department: str = DEPARTMENT, *, late: bool = False) -> Sent:
        """Return the authorisation of a key."""
        text = base64.encode(key.public)
        return self.decided("key.authorised/1", key, department=department, key=text, label="EDRMS", late=late)

    def opened(self, register: str) -> Sent:
        """Return the opening of a register."""
        return self.decided("register.opened/1", name=register, title="The Secretary of State")

    def anchor(self, note: bytes, says: Says, seconds: int) -> Sent:
        """Return an anchor that the ledger writes."""
        return self.ledger_written(checkpoint_anchored(note), says, seconds)

    def ledger_written(self, record: bytes, says: Says, seconds: int) -> Sent:
        """Return any record as if the ledger had written it."""
        made = written(GOVERNING, record, says, self.size, seconds)
        self.size += says is Kind.APPENDED
        return made


def event_log() -> EventLog:
    """Return the log of all scenarios; each call makes the same."""
    governing = Governing()
    opening = list(_opening(governing))
    before = governing.size
    opening.append(
        governing.decided(
            "key.revoked/1",
            department=DEPARTMENT,
            key=base64.encode(REVOKED_KEY.public),
            reason="compromised",
        )
    )
    opening.append(governing.decided("register.closed/1", name=CLOSED, size=1, reason="Abolished."))
    now = governing.size
    return EventLog(
        tuple(opening),
        (
            Scenario("quarantined first, in the middle and last", tuple(_quarantined(now))),
            Scenario("keys and registers", tuple(_authority(before, now))),
            Scenario("records", tuple(_records(now))),
            Scenario("many records", tuple(_many(now))),
            Scenario("beside governing", tuple(_beside_governing(now))),
            Scenario("corrections and withdrawals", tuple(_chains(now))),
            Scenario("the same submission again", tuple(_again(before, now))),
            Scenario("one record in two registers", tuple(_two_registers(now))),
            *(
                Scenario(str(reason), tuple(lost))
                for reason, lost in (
                    (Reason.RECORD_ALREADY_REGISTERED, _already_registered(now)),
                    (Reason.RECORD_CONFLICT, _conflict(now)),
                    (Reason.PREVIOUS_UNKNOWN, _previous_unknown(now)),
                    (Reason.RECORD_WITHDRAWN, _withdrawn(now)),
                    (Reason.VERSION_CONFLICT, _version_conflict(now)),
                    (Reason.TYPE_CONFLICT, _type_conflict(now)),
                    (Reason.PREVIOUS_MISMATCH, _previous_mismatch(now)),
                    (Reason.STALE_VIEW, _stale_view(before, now)),
                    (Reason.GOVERNANCE_REFUSED, _governance_refused(governing)),
                )
            ),
            Scenario("written by the ledger", tuple(_ledger_written(governing, now))),
            Scenario("a register is opened", tuple(_opened_later(governing))),
            Scenario("a message waits", tuple(_waits(governing, now))),
            Scenario("quarantined at the end of a partition", tuple(_last())),
        ),
    )


RECORDS: Final = named("records")
MANY: Final = named("many-records")
BESIDE: Final = named("beside", with_governing=True)
CHAINS: Final = named("chains")
AGAIN: Final = named("again")
TWO: Final = (named("two", with_governing=True), named("two-else", with_governing=False))
QUARANTINED: Final = named("quarantined", with_governing=False)
AUTHORITY: Final = named("authority")
CLOSED: Final = named("closed")
LEDGER_WRITTEN: Final = named("written")
OPENED: Final = named("opened", with_governing=False)
WAITS: Final = named("waits", with_governing=False)
LOST: Final = {
    reason: named(reason.lower().replace("_", "-"))
    for reason in (
        Reason.RECORD_ALREADY_REGISTERED,
        Reason.RECORD_CONFLICT,
        Reason.PREVIOUS_UNKNOWN,
        Reason.RECORD_WITHDRAWN,
        Reason.VERSION_CONFLICT,
        Reason.TYPE_CONFLICT,
        Reason.PREVIOUS_MISMATCH,
        Reason.STALE_VIEW,
    )
}


def _opening(governing: Governing) -> Iterator[Sent]:
    yield raw(GOVERNING, b"no message")
    yield governing.decided(
        "ledger.opened/1",
        acknowledgement_key=str(SignerKey(f"{ORIGIN}/acknowledgements", ACKNOWLEDGEMENT_KEY).verifier),
        governance={"keys": [base64.encode(GOVERNANCE_KEY.public)], "threshold": 1},
        ledger_key=str(vkey(GOVERNING)),
        operator="The test operator",
        origin=ORIGIN,
    )
    yield governing.authorised(DEPARTMENT_KEY)
    yield governing.authorised(REVOKED_KEY)
    yield governing.authorised(OTHER_DEPARTMENT_KEY, "another-department")
    for register in (
        *(RECORDS, MANY, BESIDE, CHAINS, AGAIN, *TWO, QUARANTINED, AUTHORITY, CLOSED, LEDGER_WRITTEN, WAITS),
        *LOST.values(),
    ):
        yield governing.opened(register)


def _lot(register: str, numbers: Iterable[int], key: SecretKey = DEPARTMENT_KEY) -> Submission:
    return submission(register, [decision(number, register) for number in numbers], [key])


def _of(register: str, *records: bytes) -> Submission:
    return submission(register, records, [DEPARTMENT_KEY])


def _corrected(previous: bytes, **changes: Any) -> bytes:
    return canonical.format(correction(previous, **changes))


def _records(now: int) -> Iterator[Sent]:
    yield message(_lot(RECORDS, [0]), Kind.APPENDED, now)
    yield message(_lot(RECORDS, [1, 2]), Kind.APPENDED, now)
    yield message(_lot(RECORDS, [3, 4, 5]), Kind.APPENDED, now, submitter="uri:spiffe://test/edrms")
    filed = canonical.format(period_return(register=RECORDS, record_id=record_id(1_000)))
    yield message(_of(RECORDS, filed), Kind.APPENDED, now)


def _many(now: int) -> Iterator[Sent]:
    """Over the edge of a tile, which has 256."""
    yield message(_lot(MANY, range(200)), Kind.APPENDED, now)
    yield message(_lot(MANY, range(200, 255)), Kind.APPENDED, now)
    yield message(_lot(MANY, [255]), Kind.APPENDED, now)
    yield message(_lot(MANY, range(100, 300)), Reason.RECORD_ALREADY_REGISTERED, now)
    yield message(_lot(MANY, range(300, 500)), Kind.APPENDED, now)


def _beside_governing(now: int) -> Iterator[Sent]:
    yield message(_lot(BESIDE, [0, 1]), Kind.APPENDED, now)
    yield message(_of(BESIDE, _corrected(decision(0, BESIDE))), Kind.APPENDED, now)
    yield message(_of(BESIDE, _corrected(decision(0, BESIDE), reason="Other.")), Reason.RECORD_CONFLICT, now)


def _chains(now: int) -> Iterator[Sent]:
    first, other = decision(0, CHAINS), decision(1, CHAINS)
    second = _corrected(first)
    third = _corrected(second, reason="Once more.")
    gone = canonical.format(withdrawal(third))
    yield message(_of(CHAINS, first), Kind.APPENDED, now)
    yield message(_of(CHAINS, second, third), Kind.APPENDED, now)
    yield message(_of(CHAINS, other, _corrected(other), gone), Kind.APPENDED, now)
    yield message(_of(CHAINS, canonical.format(withdrawal(_corrected(other)))), Kind.APPENDED, now)


def _again(before: int, now: int) -> Iterator[Sent]:
    one = _lot(AGAIN, [0, 1])
    yield message(one, Kind.APPENDED, now)
    yield message(one, Kind.KNOWN, now)
    yield message(_lot(AGAIN, [2]), Kind.APPENDED, now)
    yield message(one, Kind.KNOWN, now, seconds=1, submitter="uri:spiffe://test/other")
    # It is known before anything else about it is judged.
    yield message(one, Kind.KNOWN, before)
    yield message(one, Kind.KNOWN, 1_000_000)
    yield message(_lot(AGAIN, [0, 1], STRANGER), Kind.KNOWN, now)
    yield message(_lot(AGAIN, [0]), Reason.RECORD_ALREADY_REGISTERED, now)
    yield message(one, Kind.KNOWN, now)


def _two_registers(now: int) -> Iterator[Sent]:
    for register in TWO:
        yield message(_lot(register, [0]), Kind.APPENDED, now)
        yield message(_of(register, _corrected(decision(0, register))), Kind.APPENDED, now)


def _already_registered(now: int) -> Iterator[Sent]:
    register = LOST[Reason.RECORD_ALREADY_REGISTERED]
    lost = _lot(register, [1, 0])
    yield message(_lot(register, [0]), Kind.APPENDED, now)
    yield message(lost, Reason.RECORD_ALREADY_REGISTERED, now)
    yield message(lost, Reason.RECORD_ALREADY_REGISTERED, now, seconds=1)
    yield message(_lot(register, [1]), Kind.APPENDED, now)


def _conflict(now: int) -> Iterator[Sent]:
    register = LOST[Reason.RECORD_CONFLICT]
    other = decision(0, register, title="Another")
    lost = _of(register, decision(1, register), other, decision(2, register))
    yield message(_lot(register, [0]), Kind.APPENDED, now)
    yield message(lost, Reason.RECORD_CONFLICT, now)
    yield message(lost, Reason.RECORD_CONFLICT, now)
    yield message(_lot(register, [1]), Kind.APPENDED, now)


def _previous_unknown(now: int) -> Iterator[Sent]:
    register = LOST[Reason.PREVIOUS_UNKNOWN]
    lost = _of(register, _corrected(decision(0, register)))
    yield message(lost, Reason.PREVIOUS_UNKNOWN, now)
    yield message(_lot(register, [0]), Kind.APPENDED, now)
    yield message(lost, Kind.APPENDED, now)
    yield message(lost, Kind.KNOWN, now)


def _withdrawn(now: int) -> Iterator[Sent]:
    register = LOST[Reason.RECORD_WITHDRAWN]
    gone = canonical.format(withdrawal(decision(0, register)))
    corrected = {**correction(decision(0, register)), "version": 3}
    lost = _of(register, canonical.format(corrected))
    yield message(_lot(register, [0]), Kind.APPENDED, now)
    yield message(lost, Reason.VERSION_CONFLICT, now)
    yield message(_of(register, gone), Kind.APPENDED, now)
    yield message(lost, Reason.RECORD_WITHDRAWN, now)
    yield message(lost, Reason.RECORD_WITHDRAWN, now)
    # Before its version is looked at.
    yield message(_of(register, canonical.format({**corrected, "version": 4})), Reason.RECORD_WITHDRAWN, now)


def _version_conflict(now: int) -> Iterator[Sent]:
    register = LOST[Reason.VERSION_CONFLICT]
    second = _corrected(decision(0, register))
    lost = _of(register, decision(1, register), _corrected(second, reason="Once more."))
    yield message(_lot(register, [0]), Kind.APPENDED, now)
    yield message(lost, Reason.VERSION_CONFLICT, now)
    yield message(_of(register, second), Kind.APPENDED, now)
    yield message(lost, Kind.APPENDED, now)
    yield message(lost, Kind.KNOWN, now)


def _type_conflict(now: int) -> Iterator[Sent]:
    register = LOST[Reason.TYPE_CONFLICT]
    first = decision(0, register)
    follows = {name: correction(first)[name] for name in ("previous", "version", "record_id")}
    lost = _of(register, canonical.format(period_return(register=register, **follows)))
    yield message(_lot(register, [0]), Kind.APPENDED, now)
    yield message(lost, Reason.TYPE_CONFLICT, now)
    # The version is looked at before the type, and that before what it follows.
    for version, says in ((3, Reason.VERSION_CONFLICT), (2, Reason.TYPE_CONFLICT)):
        other = {**follows, "version": version, "previous": {"sha256": "0" * 64, "version": 1}}
        filed = canonical.format(period_return(register=register, **other))
        yield message(_of(register, filed), says, now)
    yield message(_of(register, _corrected(first)), Kind.APPENDED, now)
    yield message(lost, Reason.RECORD_CONFLICT, now)


def _previous_mismatch(now: int) -> Iterator[Sent]:
    register = LOST[Reason.PREVIOUS_MISMATCH]
    lost = _of(register, _corrected(decision(0, register, title="Another")))
    yield message(_lot(register, [0]), Kind.APPENDED, now)
    yield message(lost, Reason.PREVIOUS_MISMATCH, now)
    yield message(lost, Reason.PREVIOUS_MISMATCH, now)


def _stale_view(before: int, now: int) -> Iterator[Sent]:
    register = LOST[Reason.STALE_VIEW]
    lost = _lot(register, [3])
    yield message(_lot(register, [0]), Kind.APPENDED, before)
    yield message(_of(register, decision(0, register, title="Another")), Reason.RECORD_CONFLICT, now)
    # A rejection's view holds nobody up.
    yield message(_lot(register, [1]), Kind.APPENDED, before)
    yield message(_lot(register, [2]), Kind.APPENDED, now)
    yield message(lost, Reason.STALE_VIEW, before)
    yield message(lost, Kind.APPENDED, now)
    yield message(lost, Kind.KNOWN, before)


def _governance_refused(governing: Governing) -> Iterator[Sent]:
    record = governing.record("register.opened/1", name="access", title="Refused at first")
    yield governing.sent(record, [DEPARTMENT_KEY], Reason.GOVERNANCE_REFUSED)
    yield governing.sent(record, [DEPARTMENT_KEY], Reason.GOVERNANCE_REFUSED)
    yield governing.sent(record, [GOVERNANCE_KEY], Kind.APPENDED)
    yield governing.sent(record, [GOVERNANCE_KEY], Kind.KNOWN)
    two = [governing.record("register.opened/1", name=f"{DEPARTMENT}/two-{n}", title="Two") for n in "ab"]
    yield message(submission(GOVERNING, two, [GOVERNANCE_KEY]), Kind.QUARANTINED, governing.size)


def _ledger_written(governing: Governing, now: int) -> Iterator[Sent]:
    register = LEDGER_WRITTEN
    origin = f"{ORIGIN}/{register}"
    checkpoint = Checkpoint(origin, 1, leaf_hash(b"whatever it was"))
    note = sign_checkpoint(checkpoint, SignerKey(origin, LOG_KEY))
    yield governing.anchor(note, Kind.APPENDED, 0)
    yield governing.anchor(note, Kind.KNOWN, 0)
    yield governing.anchor(note, Kind.KNOWN, 1)
    # Whoever may write to the topic can take a record_id of `governing` without a version 1.
    taken = governing.record("register.opened/1", name=f"{DEPARTMENT}/taken", title="Taken")
    its_id = canonical.parse(taken)["record_id"]
    seventh = {**canonical.parse(checkpoint_anchored(note)), "record_id": its_id, "version": 7}
    yield governing.ledger_written(canonical.format(seventh), Kind.APPENDED, 2)
    yield governing.sent(taken, [GOVERNANCE_KEY], Reason.VERSION_CONFLICT)
    yield written(register, checkpoint_anchored(note), Kind.QUARANTINED, now)
    yield written(register, decision(0, register), Kind.QUARANTINED, now)
    yield message(_lot(register, [0]), Kind.APPENDED, now)
    # As an import brings it: a rejection says itself where it stands.
    lost = _of(register, decision(0, register, title="Another"))
    for index, says, view in (
        (2, Kind.QUARANTINED, now),
        (1, Kind.APPENDED, now),
        (1, Kind.KNOWN, now),
        (1, Kind.KNOWN, 1_000_000),
    ):
        rejection = submission_rejected(
            register=register,
            register_origin=origin,
            submission_id=lost.submission_id,
            count=1,
            reason=Reason.RECORD_CONFLICT,
            index=index,
            rejected=None,
            existing=None,
        )
        yield written(register, rejection, says, view)
    yield message(lost, Reason.RECORD_CONFLICT, now)


def _quarantined(now: int) -> Iterator[Sent]:
    register, own = QUARANTINED, at(QUARANTINED)
    good, other = _lot(register, [0]), _lot(register, [1])
    forged = accept(good, Acceptance(instant(EPOCH), "anonymous", now)).value()
    signature, another = (base64.encode(each.signatures[0].signature).encode() for each in (good, other))
    yield raw(register, forged.replace(signature, another))
    yield Sent(own, None, b"no key", Kind.QUARANTINED)
    yield message(good, Kind.APPENDED, now)
    yield raw(register, b"\x00\x04nope")
    yield raw(register, encode_bundle([b"{}\n{}", b"{}\n{}"]))
    yield Sent(own, register.encode(), None, Kind.QUARANTINED)
    yield Sent(own, b"\xff\xfe", b"a key that is no text", Kind.QUARANTINED)
    yield Sent(own, b"No Register", forged, Kind.QUARANTINED)
    # Signed for this register and sent to another; of another partition's register.
    yield Sent(own, f"{DEPARTMENT}/nobody".encode(), forged, Kind.QUARANTINED)
    yield Sent(own, BESIDE.encode(), message(_lot(BESIDE, [9]), Kind.APPENDED, now).value, Kind.QUARANTINED)
    yield message(_of(register, b"no record"), Kind.QUARANTINED, now)
    yield message(other, Kind.APPENDED, now)
    yield raw(register, forged[:-1])


def _authority(before: int, now: int) -> Iterator[Sent]:
    yield message(_lot(AUTHORITY, [0], REVOKED_KEY), Kind.APPENDED, before)
    yield message(_lot(AUTHORITY, [1], REVOKED_KEY), Kind.QUARANTINED, now)
    yield message(_lot(AUTHORITY, [2], STRANGER), Kind.QUARANTINED, now)
    yield message(_lot(AUTHORITY, [3], OTHER_DEPARTMENT_KEY), Kind.QUARANTINED, now)
    yield message(_lot(AUTHORITY, [1]), Kind.APPENDED, now)
    yield message(_lot(f"{DEPARTMENT}/never-opened", [0]), Kind.QUARANTINED, now)
    yield message(_lot(CLOSED, [0]), Kind.APPENDED, before)
    yield message(_lot(CLOSED, [1]), Kind.QUARANTINED, now)


def _opened_later(governing: Governing) -> Iterator[Sent]:
    """Its first message may come to its own writer before that has heard of the register."""
    unopened = governing.size
    yield message(_lot(OPENED, [0]), Kind.QUARANTINED, unopened)
    yield governing.opened(OPENED)
    yield message(_lot(OPENED, [0]), Kind.APPENDED, governing.size)
    yield message(_lot(OPENED, [1, 2]), Kind.APPENDED, governing.size)
    yield message(_lot(OPENED, [3]), Kind.QUARANTINED, unopened)


def _waits(governing: Governing, now: int) -> Iterator[Sent]:
    yield message(_lot(WAITS, [0], LATE_KEY), Kind.QUARANTINED, now)
    yield message(_lot(WAITS, [1]), Kind.APPENDED, now)
    late = governing.authorised(LATE_KEY, late=True)
    yield message(_lot(WAITS, [0], LATE_KEY), Kind.APPENDED, governing.size)
    yield message(_lot(WAITS, [2]), Reason.STALE_VIEW, now)
    yield late


def _last() -> Iterator[Sent]:
    for partition in range(PARTITIONS):
        yield Sent(partition, b"no register", b"no message", Kind.QUARANTINED, late=True)
