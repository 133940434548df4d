"""What a monitor finds, and the files in which it keeps the evidence.

A finding is an integrity failure of the ledger as it is served. Its file is JSON that a person can read: what
was found, what should have been, every note involved, and what proves it. A proof in it can be checked by
anybody, offline, under his own policy; `check` does.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from ledger import base64
from ledger.add_checkpoint import AddCheckpoint
from ledger.checkpoints import peek_origin
from ledger.entries import parse_entry, verify_entry
from ledger.errors import LedgerError, MalformedError
from ledger.hashing import HASH_SIZE, Hash, leaf_hash
from ledger.proofs import roots_from_consistency, verify_inclusion
from ledger.split_views import SplitView, verify_split_view
from ledger.witnessing import Policy

TYPE: Final = "daybook.monitor-evidence/1"
"""The type of the files."""

WITNESS_TYPE: Final = "daybook.witness-evidence/1"
"""The type of a witness's files, which can be checked as well."""

MAX_FILE: Final = 16 * 1024 * 1024
"""Bytes of the longest file of evidence."""

_MOST_SAID: Final = 2_000

_NO_NAME: Final = re.compile("[^a-z0-9]+")


class Kind(StrEnum):
    """What is wrong."""

    FORK = "fork"
    """The ledger has signed two histories."""

    ROLLBACK = "rollback"
    """Less is served than the ledger has signed before."""

    ALTERED = "altered"
    """What is served is not what the ledger has signed."""

    FORGED = "forged"
    """The ledger has signed an entry that registration cannot have made."""

    HIDDEN = "hidden"
    """A register that the governing register opens is not served, or not listed."""

    UNOPENED = "unopened"
    """A register is listed that the governing register never opened."""

    UNANCHORED = "unanchored"
    """A register's checkpoint was not carried into the governing register in time."""

    ANCHOR = "anchor"
    """The governing register carries what is no checkpoint of a register of this ledger."""

    SIGNATURE = "signature"
    """What is served as a checkpoint is not signed by the ledger, or a signature on it is wrong."""

    UNSEALED = "unsealed"
    """The checkpoint that is served does not satisfy the reader's policy."""

    AHEAD = "ahead"
    """An entry was judged against governing entries that nobody is shown."""

    MISSING = "missing"
    """Something is not served that a signed checkpoint implies."""

    @property
    def may_pass(self) -> bool:
        """Whether an honest ledger may show this for a moment, while one register is ahead of another."""
        return self in _MAY_PASS


_MAY_PASS: Final = frozenset(
    {Kind.ROLLBACK, Kind.HIDDEN, Kind.UNOPENED, Kind.UNSEALED, Kind.AHEAD, Kind.MISSING}
)


@dataclass(frozen=True, slots=True)
class EntryProof:
    """That `entry` stands at `index` under a note: its inclusion proof (RFC 6962, section 2.1.1)."""

    note: bytes
    index: int
    entry: bytes
    hashes: tuple[Hash, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. `what` and `expected` are a sentence each; `register` is empty for the ledger.

    `notes` are checkpoint notes, with the lines that were verified; `material` is whatever else was served,
    by a name that says what it is. `before` is the note seen earlier that shows what is wrong to whoever did
    not see it: without it a new state finds nothing.
    """

    kind: Kind
    register: str
    what: str
    expected: str
    notes: tuple[bytes, ...] = ()
    proof: SplitView | EntryProof | None = None
    material: Mapping[str, str] = field(default_factory=dict[str, str])
    before: bytes = b""


class FoundError(Exception):
    """A register cannot be followed further, because of a finding."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.what)
        self.finding = finding


def shown(data: bytes, limit: int = 65_536) -> str:
    """Return bytes that were served as text for `material`, the first `limit` of them."""
    return data[:limit].decode("utf-8", "backslashreplace")


# Writing


def keep(folder: Path, ledger: str, finding: Finding, now: float) -> Path:
    """Write a finding's evidence durably below `folder`, and return its file.

    The same finding has the same file, and the first one stays. The note seen earlier, where there is one, is
    kept beside it as `note_beside` says. `now` is POSIX seconds. Raises OSError.
    """
    path = keep_members(folder, finding.kind.value, finding.register, _members(ledger, finding), now)
    note = note_beside(path)
    if finding.before and not note.exists():
        _write(note, finding.before)
    return path


def note_beside(path: Path) -> Path:
    """Return where the note seen earlier is kept, of a finding whose evidence is in `path`."""
    return path.with_suffix(".note")


def keep_members(folder: Path, kind: str, register: str, members: Mapping[str, Any], now: float) -> Path:
    """Write the members of a finding's evidence as `keep` does. `kind` is a name in lower case."""
    digest = hashlib.sha256(json.dumps(members, sort_keys=True).encode()).hexdigest()[:16]
    # A name of a register may come from a list that anybody wrote.
    about = _NO_NAME.sub("-", register)[:120]
    path = folder / f"{'-'.join(filter(None, (kind, about, digest)))}.json"
    if path.exists():
        return path
    folder.mkdir(exist_ok=True)
    members = {"type": TYPE, "found_at": instant(now), **members}
    _write(path, json.dumps(members, ensure_ascii=False, indent=2).encode() + b"\n")
    return path


def _write(path: Path, data: bytes) -> None:
    being_written = path.with_suffix(".tmp")
    with being_written.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    being_written.rename(path)
    _make_durable(path.parent)


def instant(seconds: float) -> str:
    """Return POSIX seconds as an instant, to the second."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _members(ledger: str, finding: Finding) -> dict[str, Any]:
    members = evidence_members(
        finding.kind.value,
        ledger,
        finding.register,
        finding.what,
        finding.expected,
        finding.notes,
        finding.proof,
        finding.material,
    )
    if finding.before and finding.proof is None:
        members["how_to_check"] = (
            "NOTE is the file beside this one whose name ends with .note: " + _to_see_again("NOTE")
        )
    return members


def evidence_members(
    kind: str,
    ledger: str,
    register: str,
    what: str,
    expected: str,
    notes: Sequence[bytes],
    proof: SplitView | EntryProof | None,
    material: Mapping[str, str],
) -> dict[str, Any]:
    """Return what a file of evidence says, but for its type and when it was made."""
    members: dict[str, Any] = {
        "kind": kind,
        "ledger": ledger,
        "register": register,
        "what": what,
        "expected": expected,
        "how_to_check": how_to_check("THIS_FILE", proof),
        "notes": [shown(note) for note in notes],
    }
    if proof is not None:
        members["proof"] = _proof_members(proof)
    if material:
        members["material"] = dict(material)
    return members


def how_to_check(
    path: str, proof: SplitView | EntryProof | None, policy: str = "YOUR_POLICY", url: str = "URL"
) -> str:
    """Return the command with which anybody checks a finding whose evidence is in `path`.

    Without a proof it is one that looks again, with the note seen earlier where one is kept beside `path`.
    """
    if proof is not None:
        return f"daybook monitor --check {shlex.quote(path)} --policy {shlex.quote(policy)}"
    note = note_beside(Path(path))
    return _to_see_again(str(note) if note.exists() else "", policy, url)


def look_again(url: str) -> str:
    """Return the command with which an auditor reads everything again."""
    return _to_see_again("", url=url)


def _to_see_again(note: str, policy: str = "YOUR_POLICY", url: str = "URL") -> str:
    kept = f" --last-checkpoint {shlex.quote(note)}" if note else ""
    return f"daybook audit {shlex.quote(url)} --policy {shlex.quote(policy)} --state A_NEW_DIRECTORY{kept}"


def _proof_members(proof: SplitView | EntryProof) -> dict[str, Any]:
    hashes = [base64.encode(each) for each in proof.hashes]
    if isinstance(proof, SplitView):
        notes = {"smaller": proof.smaller.decode(), "larger": proof.larger.decode()}
        if not proof.root:
            return {"type": "two-roots", "origin": proof.origin, **notes}
        root = base64.encode(proof.root)
        return {"type": "consistency", "origin": proof.origin, **notes, "root": root, "hashes": hashes}
    return {
        "type": "inclusion",
        "note": proof.note.decode(),
        "index": proof.index,
        "entry": base64.encode(proof.entry),
        "hashes": hashes,
    }


def _make_durable(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# Checking


@dataclass(frozen=True, slots=True)
class Checked:
    """What a file of evidence proves by itself: `proved`, a sentence, and what it leaves to be judged.

    `is_failure` where what is proved is an integrity failure, whoever looks at it.
    """

    proved: str
    left: str = ""
    is_failure: bool = True


def check(data: bytes, policy: Policy) -> Checked:
    """Check the proof in a file of evidence, a monitor's or a witness's, under the reader's own policy.

    Raises MalformedError for a file without a proof, SignatureError or ProofError where it proves nothing.
    """
    try:
        members = json.loads(data)
        if not isinstance(members, dict) or members.get("type") not in (TYPE, WITNESS_TYPE):
            raise MalformedError("not a file of evidence")
        if members["type"] == WITNESS_TYPE:
            return _check_split(_of_witness(members), policy)
        if "proof" not in members:
            raise MalformedError("this evidence has no proof that can be checked offline")
        proof = members["proof"]
        if proof["type"] == "inclusion":
            return _check_entry(_entry_proof(proof), policy, _one_line(members.get("what", "")))
        return _check_split(_split_view(proof), policy)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MalformedError(f"not a file of evidence: {error}") from error


def _check_split(view: SplitView, policy: Policy) -> Checked:
    proved = verify_split_view(view, policy)
    if proved.larger_size == proved.size:
        how = "both stated by checkpoints that it signed"
    else:
        how = f"one stated by a checkpoint that it signed, one by what it signed of size {proved.larger_size}"
    return Checked(
        f"{proved.origin} has signed two histories: its first {proved.size} entries have the root "
        f"{base64.encode(proved.stated)} and the root {base64.encode(proved.other)}, {how}"
    )


def _one_line(said: str) -> str:
    """Return what a file says without what could be taken for lines of ours."""
    return " ".join(said[:_MOST_SAID].split())


def _check_entry(proof: EntryProof, policy: Policy, said: str) -> Checked:
    origin = peek_origin(proof.note)
    checkpoint = policy.open(proof.note, origin).checkpoint
    verify_inclusion(proof.index, checkpoint.size, leaf_hash(proof.entry), proof.hashes, checkpoint.root)
    proved = f"{origin} has signed a register of {checkpoint.size} entries with this entry at {proof.index}"
    try:
        entry = parse_entry(proof.entry)
        if entry.membership is not None:
            verify_entry(entry, origin)
    except LedgerError as error:
        return Checked(f"{proved}, which is none: {error}")
    # What a file says of an entry that is sound by itself is somebody's word, whatever kind it names.
    says = f'. The file says: "{said}"' if said else ""
    left = "whether it may be is for you to judge: by the register, since the entry alone does not show it"
    return Checked(proved, left + says, is_failure=False)


def _split_view(proof: Mapping[str, Any]) -> SplitView:
    notes = proof["smaller"].encode(), proof["larger"].encode()
    if proof["type"] == "two-roots":
        return SplitView(proof["origin"], *notes)
    root = base64.decode(proof["root"], HASH_SIZE)
    return SplitView(proof["origin"], *notes, root, _hashes(proof["hashes"]))


def _entry_proof(proof: Mapping[str, Any]) -> EntryProof:
    entry = base64.decode(proof["entry"])
    index = proof["index"]
    if not isinstance(index, int):
        raise MalformedError("an index that is no number")
    return EntryProof(proof["note"].encode(), index, entry, _hashes(proof["hashes"]))


def _hashes(texts: Sequence[str]) -> tuple[Hash, ...]:
    return tuple(Hash(base64.decode(text, HASH_SIZE)) for text in texts)


def _of_witness(members: Mapping[str, Any]) -> SplitView:
    """Return the split view of a witness's evidence: its own note, and what it was asked to cosign after."""
    request = AddCheckpoint.parse(members["request"].encode())
    ours = members["ours"].encode()
    sizes = [int(note.split(b"\n", 2)[1]) for note in (ours, request.note)]
    if not request.proof or sizes[0] == sizes[1]:
        # Of one size with two roots: whatever proof came with it was of another step.
        return SplitView(members["origin"], ours, request.note)
    root, _ = roots_from_consistency(sizes[0], sizes[1], Hash(bytes(HASH_SIZE)), request.proof)
    return SplitView(members["origin"], ours, request.note, root, request.proof)
