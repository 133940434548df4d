"""A ledger in which everything has happened once: the smallest store that has every kind of row and entry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ledger import base64, canonical
from ledger.admission import instant
from ledger.checkpoints import Checkpoint
from ledger.ed25519 import SecretKey
from ledger.entries import Acceptance, accept
from ledger.governing import GOVERNING
from ledger.ledger import Appended, Rejected, Turn
from ledger.notes import SignerKey, cosignature_line, split_note
from ledger.own_records import checkpoint_anchored
from ledger.store import NewCosignatures, Store
from services.published import SignedCheckpoint
from tests.support.ledgers import (
    DEPARTMENT,
    DEPARTMENT_KEY,
    EPOCH,
    REGISTER,
    LedgerUnderTest,
    decision,
    open_ledger,
    record_id,
    submission,
    vkey,
)
from tests.support.records import correction, period_return, withdrawal

SECOND: Final = f"{DEPARTMENT}/permanent-secretary"
THIRD: Final = f"{DEPARTMENT}/minister-of-state"
ACCESS: Final = "access"
SECOND_KEY: Final = SecretKey(b"\x05" * 32)
WITNESSES: Final = tuple(
    SignerKey(f"witness-{name}.test/w", SecretKey(bytes([seed]) * 32))
    for name, seed in (("one", 0x11), ("two", 0x12))
)


def tell(store: Store, marks: Path) -> LedgerUnderTest:
    """Fill an empty store: five registers, every way in which an entry comes about, all notes kept.

    The governing register has 11 entries, `REGISTER` 77, `SECOND` 5, `THIRD` 260, `ACCESS` none. `WITNESSES`
    have cosigned every size of `REGISTER`, and the last of `THIRD` twice.
    """
    held = open_ledger(store, marks)
    held.open_register(SECOND)
    held.open_register(ACCESS)
    held.authorise(SECOND_KEY)
    held.add(range(70))
    held.add([70])
    revise(held)
    held.add(range(5), SECOND, SECOND_KEY)
    anchor(held, REGISTER)
    lose_race(held)
    key = base64.encode(SECOND_KEY.public)
    held.govern("key.revoked/1", department=DEPARTMENT, key=key, reason="compromised")
    held.govern("register.closed/1", name=SECOND, size=5, reason="The office was abolished.")
    held.add([71, 72])
    held.open_register(THIRD)
    held.add(range(260), THIRD)
    publish_witnesses(held)
    keep_notes(held)
    for stored in held.ledger.store.notes(REGISTER, 0, 100):
        cosign(held, REGISTER, stored.size, EPOCH + stored.size)
    cosign(held, THIRD, 260, EPOCH + 1_000)
    cosign(held, THIRD, 260, EPOCH + 2_000)
    return held


def publish_witnesses(held: LedgerUnderTest, *witnesses: SignerKey) -> int:
    """Publish a policy of all of these witnesses (default: `WITNESSES`); return the index of its entry."""
    keys = [str(witness.cosigner) for witness in witnesses or WITNESSES]
    lines = [
        f"log {vkey(GOVERNING)}",
        *(f"witness w{number} {key}" for number, key in enumerate(keys)),
        f"group all all {' '.join(f'w{number}' for number in range(len(keys)))}",
        "quorum all",
    ]
    return held.govern(
        "policy.published/1",
        kind="witness",
        name="default",
        effective_from="2026-07-01T00:00Z",
        text="".join(f"{line}\n" for line in lines),
    )


def cosign(
    held: LedgerUnderTest, register: str, size: int, time: int, witnesses: Sequence[SignerKey] = WITNESSES
) -> None:
    """Let witnesses cosign the kept note of a size at `time`, POSIX seconds, and keep their lines."""
    stored = held.ledger.store.note(register, size)
    assert stored is not None
    assert stored.size == size
    text, _ = split_note(stored.note)
    lines = [cosignature_line(text, witness, time) for witness in witnesses]
    held.ledger.store.keep_cosignatures([NewCosignatures(register, stored, lines)])


def revise(held: LedgerUnderTest) -> None:
    """Register a correction, a withdrawal and a return."""
    corrected = canonical.format(correction(decision(3)))
    withdrawn = canonical.format(withdrawal(decision(4)))
    filed = canonical.format(period_return(register=REGISTER, record_id=record_id(1_000)))
    held.turn([submission(REGISTER, [corrected, withdrawn], [DEPARTMENT_KEY])])
    held.turn([submission(REGISTER, [filed], [DEPARTMENT_KEY])])


def anchor(held: LedgerUnderTest, register: str) -> None:
    """Anchor a register's latest checkpoint in the governing register."""
    turn = held.ledger.turn()
    record = checkpoint_anchored(held.published.latest(register).note)
    outcome = turn.append_ledger_written(GOVERNING, record, instant(EPOCH + held.turns))
    assert isinstance(outcome, Appended)
    commit(held, turn)


def lose_race(held: LedgerUnderTest) -> None:
    """Replay a message that another replica accepted, of a version that is taken here."""
    taken = canonical.format(correction(decision(3), reason="Another reason."))
    lost = submission(REGISTER, [taken], [DEPARTMENT_KEY])
    turn = held.ledger.turn()
    size = held.ledger.fold.signed_size
    outcome = turn.replay(accept(lost, Acceptance(instant(EPOCH + held.turns), "anonymous", size)))
    assert isinstance(outcome, Rejected)
    commit(held, turn)


def commit(held: LedgerUnderTest, turn: Turn) -> None:
    """Commit a turn that was made by hand, and sign what grew."""
    held.turns += 1
    growths = turn.commit(held.published.unsaved())
    held.published.saved()
    checkpoints = [
        Checkpoint(held.ledger.register_origin(name), growth.head.size, growth.head.root)
        for name, growth in growths.items()
    ]
    notes = held.signer.sign(checkpoints)
    signed = map(SignedCheckpoint, checkpoints, notes)
    held.published.add(dict(zip(growths, signed, strict=True)))


def keep_notes(held: LedgerUnderTest) -> None:
    """Commit the notes that were signed last, as a drained server does."""
    held.ledger.turn().commit(held.published.unsaved())
    held.published.saved()
