"""Packs with the whole governing register of the story, gone on with as a test says; and forged ones."""

from __future__ import annotations

import base64 as plain_base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from ledger import base64
from ledger.export import MessageBlock, read_export
from ledger.receipt_file import KeyEvidence, NotBefore, Receipt
from ledger.tiles import decode_entries
from services.evidence.custody import Keeper
from services.evidence.exhibits import note_path
from services.evidence.gathered import Gathered
from services.evidence.governing import WholeRegister, governing_file
from services.evidence.layout import json_file
from services.evidence.packing import write_pack
from services.evidence.preparing import prepare
from tests.support.forged_ledger import ACCEPTANCE, Log, canonical, signed_entry
from tests.support.packs import write_manifests
from tests.support.records import decision_bytes, record_id
from tests.support.story import REGISTER, policy, secret
from tests.support.vectors import VECTORS

DEPARTMENT: Final = REGISTER.partition("/")[0]
AUTHORISED: Final = 5
"""The governing entry that authorises the department's key: the last one of `begun`."""

NOW: Final = 1_900_000_000
GOVERN: Final = ("governance one", "governance two")


def begun() -> Log:
    """Return the story's governing register up to the department's first key."""
    data = plain_base64.b64decode((VECTORS / "ledger.export.base64").read_bytes())
    log = Log("governing")
    for block in read_export(io.BytesIO(data)).blocks:
        if isinstance(block, MessageBlock) and block.register == "governing" and len(log.data) <= AUTHORISED:
            log.data.extend(decode_entries(block.value))
    assert len(log.data) == AUTHORISED + 1
    return log


def govern(log: Log, record_type: str, *, by: Sequence[str] = GOVERN, **members: object) -> int:
    """Append a signed governing entry, whoever signs it; return its index."""
    index = len(log.data)
    record = {
        "record_id": record_id(1_000 + index), "register": "governing", "type": record_type, "version": 1,
        **members,
    }  # fmt: skip
    return log.append(signed_entry("governing", canonical(record), by))


def revoke(log: Log, name: str = "department", reason: str = "lost", **members: Any) -> int:
    """Revoke a key of the story; return the index."""
    key = base64.encode(secret(name).public)
    return govern(log, "key.revoked/1", department=DEPARTMENT, key=key, reason=reason, **members)


def authorise(log: Log, name: str, by: Sequence[str]) -> int:
    """Authorise a key of the story, which signs for itself."""
    key = base64.encode(secret(name).public)
    signers = (*by, name)
    return govern(log, "key.authorised/1", by=signers, department=DEPARTMENT, key=key, label=name)


@dataclass(slots=True)
class Case:
    """One decision, judged at governing size `judged_at`, in a pack with a governing register.

    `times` are POSIX seconds: the not-before and the not-after of the decision, by two witnesses each.
    `known` are (size, time) of further governing checkpoints, for the bounds of its entries.
    """

    governing: Log
    judged_at: int
    signer: str = "department"
    not_before: int = 1_783_092_000
    not_after: int = 1_783_092_020
    governed_at: int = 1_783_100_000
    known: tuple[tuple[int, int], ...] = ()
    with_key: bool = False
    register: Log = field(default_factory=lambda: Log(REGISTER))

    def receipt(self) -> bytes:
        """Return the decision's receipt."""
        if not self.register.data:
            acceptance = replace(ACCEPTANCE, governing_size=self.judged_at)
            self.register.append(signed_entry(REGISTER, decision_bytes(), [self.signer], acceptance))
        proof = self.register.proof(0, 1, both(self.not_after))
        key = None
        if self.with_key:
            size = AUTHORISED + 1
            key = KeyEvidence(
                self.governing.data[AUTHORISED], self.governing.proof(AUTHORISED, size, both(self.governed_at))
            )
        before = NotBefore(self.register.note(0, both(self.not_before)), ())
        return Receipt(self.register.data[0], proof, before, key).data()

    def gathered(self) -> Gathered:
        """Return what a source would have found."""
        size = len(self.governing.data)
        known = [
            Receipt(self.governing.data[0], self.governing.proof(0, of, both(time))).data()
            for of, time in self.known
        ]
        whole = WholeRegister(self.governing.note(size, both(self.governed_at)), tuple(self.governing.data))
        return Gathered([self.receipt()], known[:1], "a story", "all", register_of_keys=whole)

    def pack(self, out: Path) -> Path:
        """Write the pack. Raises what `prepare` does."""
        keeper = Keeper("J. Smith", "investigator", "a case", datetime(2026, 11, 26, 21, 30, tzinfo=UTC))
        write_pack(prepare(self.gathered(), policy(), keeper, now=NOW), out)
        return out


def both(time: int) -> Mapping[str, int]:
    """Return the times of two witnesses: a quorum."""
    return {"one": time, "two": time}


def put_governing(bag: Path, log: Log, *, size: int | None = None, note: bytes | None = None) -> None:
    """Put another governing register into a pack, with manifests to match."""
    index = json.loads((bag / "data/index.json").read_bytes())
    (bag / index["governing"]["checkpoint"]).unlink(missing_ok=True)
    entries = log.data if size is None else log.data[:size]
    made = log.note(len(log.data), both(1_783_100_000)) if note is None else note
    index["governing"] = {"size": len(entries), "checkpoint": note_path(made)}
    (bag / "data/governing.entries").write_bytes(governing_file(entries))
    (bag / note_path(made)).write_bytes(made)
    (bag / "data/index.json").write_bytes(json_file(index))
    write_manifests(bag)


def take_governing_away(bag: Path) -> None:
    """Take the governing register out of a pack, with manifests to match."""
    index = json.loads((bag / "data/index.json").read_bytes())
    stated = index["governing"]
    index["governing"] = None
    (bag / "data/governing.entries").unlink()
    (bag / "data/index.json").write_bytes(json_file(index))
    note = (bag / stated["checkpoint"]).read_bytes()
    if not any(note in path.read_bytes() for path in bag.rglob("*.receipt")):
        (bag / stated["checkpoint"]).unlink()
    write_manifests(bag)
