"""Witnessing: who must have seen a checkpoint before it counts.

A witness policy (C2SP tlog-policy) names the ledger's key, the witnesses, and which of them make a quorum.
Cosignatures (C2SP tlog-cosignature) that meet it seal a checkpoint. What their times prove is in `timeline`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ledger.checkpoints import Checkpoint, OpenedCheckpoint, open_checkpoint
from ledger.errors import MalformedError, QuorumError, SignatureError
from ledger.notes import (
    COSIGNATURE_V1,
    ED25519,
    Note,
    SignatureLine,
    SignerKey,
    VerifierKey,
    cosignature_line,
    cosignature_time,
)
from ledger.values import is_ledger_origin, is_register

NONE = "none"
"""The reserved name: no witness is asked for."""

FUTURE_TOLERANCE = 300
"""Seconds by which a witness's clock may be ahead of the verifier's."""

_GOVERNING = "/governing"
_REFUSED_BYTE = re.compile(rb"[^\t\n\x20-\x7e\x80-\xff]")
_THRESHOLD = re.compile("[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True)
class Log:
    """A ``log`` line: a key that signs checkpoints of the origin that is its name."""

    key: VerifierKey
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Witness:
    """A ``witness`` line: its name within the policy, and the key that cosigns.

    `url` is where checkpoints are submitted to it (the submission prefix).
    """

    name: str
    key: VerifierKey
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """A ``group`` line: holds when at least `threshold` of `members` hold."""

    name: str
    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Quorum:
    """Which sets of witnesses suffice.

    `root` is the name of the component that must hold; None is ``quorum none``: nobody is asked, and nothing
    is witnessed. Groups are in the order of their definition: each names only what stands before it.
    """

    witnesses: tuple[str, ...]
    groups: tuple[Group, ...]
    root: str | None

    def __post_init__(self) -> None:
        """Raise MalformedError where names or numbers are not those of a policy (witness.md, section 6)."""
        defined: set[str] = set()
        taken: set[str] = set()
        for name in self.witnesses:
            _define(name, defined)
        for group in self.groups:
            if not 1 <= group.threshold <= len(group.members):
                raise MalformedError(
                    f"policy: group {group.name!r} asks for {group.threshold} of {len(group.members)} members"
                )
            for member in group.members:
                if member not in defined:
                    raise MalformedError(f"policy: {member!r} is not defined before group {group.name!r}")
                if member in taken:
                    raise MalformedError(f"policy: {member!r} is a member twice")
                taken.add(member)
            _define(group.name, defined)
        if self.root is not None and self.root not in defined:
            raise MalformedError(f"policy: quorum {self.root!r} is not defined")

    def is_met_by(self, witnesses: Collection[str]) -> bool:
        """Tell whether these witnesses suffice; always under ``quorum none``."""
        if self.root is None:
            return True
        held = set(self.witnesses).intersection(witnesses)
        for group in self.groups:
            if len(held.intersection(group.members)) >= group.threshold:
                held.add(group.name)
        return self.root in held

    @property
    def comparable(self) -> bool:
        """Whether any two quorums share a witness, so that not-before and not-after may be compared.

        Otherwise two sets of witnesses that share no clock may each suffice (formats.md, section 15).
        """
        if self.root is None:
            return False
        # A component can be split when two disjoint sets of witnesses both make it hold. Each member stands
        # in one group only, so members split independently: those that can be split serve both sides, and
        # of the rest each side needs its own.
        split: set[str] = set()
        for group in self.groups:
            shared = len(split.intersection(group.members))
            own = max(0, group.threshold - shared)
            if 2 * own <= len(group.members) - shared:
                split.add(group.name)
        return self.root not in split


def _define(name: str, defined: set[str]) -> None:
    if name == NONE:
        raise MalformedError("policy: the name 'none' is reserved")
    if name in defined:
        raise MalformedError(f"policy: {name!r} is defined twice")
    defined.add(name)


@dataclass(frozen=True, slots=True)
class Policy:
    """A witness policy: all that a verifier trusts (C2SP tlog-policy; witness.md, section 6).

    Raises MalformedError: a log key not of type 0x01, a witness key not of type 0x04, one public key twice
    among logs or among witnesses, or a quorum over other witnesses than these.
    """

    logs: tuple[Log, ...]
    witnesses: tuple[Witness, ...]
    quorum: Quorum

    def __post_init__(self) -> None:
        _check_keys("log", [log.key for log in self.logs], ED25519)
        _check_keys("witness", [witness.key for witness in self.witnesses], COSIGNATURE_V1)
        if self.quorum.witnesses != tuple(witness.name for witness in self.witnesses):
            raise MalformedError("policy: the quorum is not over these witnesses")

    @classmethod
    def parse(cls, data: bytes) -> Policy:
        """Parse a policy file; raises MalformedError, which names the line."""
        return _PolicyFile().read(data)

    def text(self) -> bytes:
        """Return the file in its plainest spelling: no comments, single spaces, thresholds as numbers."""
        lines: list[tuple[str | None, ...]] = [
            *(("log", str(log.key), log.url) for log in self.logs),
            *(("witness", each.name, str(each.key), each.url) for each in self.witnesses),
            *(("group", group.name, str(group.threshold), *group.members) for group in self.quorum.groups),
            ("quorum", self.quorum.root or NONE),
        ]
        text = "".join(" ".join(item for item in line if item is not None) + "\n" for line in lines)
        return text.encode("utf-8", "surrogateescape")

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 of `text()`: two people compare it to know that they trust the same keys."""
        return hashlib.sha256(self.text()).hexdigest()

    @property
    def ledger_origins(self) -> tuple[str, ...]:
        """The origins of the ledgers that are named by a governing vkey, each once."""
        names = (log.key.name for log in self.logs)
        origins = (name.removesuffix(_GOVERNING) for name in names if name.endswith(_GOVERNING))
        return tuple(dict.fromkeys(origins))

    def log_keys(self, origin: str) -> tuple[VerifierKey, ...]:
        """Return the keys that may sign checkpoints of `origin`; none for a log that is not trusted.

        Those of that name; and for a register of a ledger, the ledger's governing keys under the register's
        name, key ID computed anew: a ledger has one log key (formats.md, section 11).
        """
        keys = [log.key for log in self.logs if log.key.name == origin]
        ledger_origin, _, register = origin.partition("/")
        governing = ledger_origin + _GOVERNING
        if origin != governing and is_ledger_origin(ledger_origin) and is_register(register):
            keys += [log.key.renamed(origin) for log in self.logs if log.key.name == governing]
        return tuple(keys)

    def open(self, note: bytes, origin: str) -> OpenedCheckpoint:
        """Verify a checkpoint note of `origin`: the log's signature and every known witness's.

        The quorum is not asked for; `judge` does. Raises as `open_checkpoint`, and SignatureError for a log
        that the policy does not name.
        """
        log = self.log_keys(origin)
        if not log:
            raise SignatureError(f"the policy names no key for the log {origin!r}")
        witnesses = [witness.key for witness in self.witnesses]
        return open_checkpoint(note, origin, log, witnesses)

    def cosignatures(self, opened: OpenedCheckpoint) -> tuple[Cosignature, ...]:
        """Return who among the witnesses has cosigned, and when."""
        names = {(witness.key.name, witness.key.key_id): witness.name for witness in self.witnesses}
        return tuple(
            Cosignature(names[line.by], opened.checkpoint.size, cosignature_time(line.signature))
            for line in opened.note.verified
            if line.by in names
        )

    def is_sealed(self, opened: OpenedCheckpoint) -> bool:
        """Tell whether a quorum of witnesses has cosigned; never under ``quorum none``."""
        cosigned = {cosignature.witness for cosignature in self.cosignatures(opened)}
        return self.quorum.root is not None and self.quorum.is_met_by(cosigned)

    def description(self) -> str:
        """Return in plain English what this policy trusts, several lines, with the fingerprint."""
        return "\n".join(_described(self)) + "\n"


def _check_keys(kind: str, keys: Sequence[VerifierKey], wanted: int) -> None:
    for key in keys:
        if key.type != wanted:
            raise MalformedError(
                f"policy: key of {kind} {key.name} has type 0x{key.type:02x}, not 0x{wanted:02x}"
            )
    if len({key.public for key in keys}) != len(keys):
        raise MalformedError(f"policy: one public key stands on two {kind} lines")


class _PolicyFile:
    """A policy file as far as it was read, line by line: a name must be defined on an earlier line."""

    def __init__(self) -> None:
        self._logs: list[Log] = []
        self._witnesses: list[Witness] = []
        self._groups: list[Group] = []
        self._defined: set[str] = set()
        self._quorum: list[str] = []

    def read(self, data: bytes) -> Policy:
        if refused := _REFUSED_BYTE.search(data):
            raise MalformedError(f"policy: byte 0x{refused[0][0]:02x} is not allowed", refused.start())
        *lines, rest = data.split(b"\n")
        if rest:
            raise MalformedError("policy: the last line does not end with LF", len(data))
        for number, line in enumerate(lines, start=1):
            # Names are opaque bytes; surrogates carry those that are not UTF-8 through a str and back.
            items = [item.decode("utf-8", "surrogateescape") for item in line.split()]
            if items and not items[0].startswith("#"):
                try:
                    self._line(items)
                except MalformedError as error:
                    raise MalformedError(f"line {number}: {error}") from error
        if not self._quorum:
            raise MalformedError("policy: no quorum line")
        root = None if self._quorum == [NONE] else self._quorum[0]
        names = tuple(witness.name for witness in self._witnesses)
        quorum = Quorum(names, tuple(self._groups), root)
        return Policy(tuple(self._logs), tuple(self._witnesses), quorum)

    def _line(self, items: list[str]) -> None:
        match items:
            case ["log", vkey, *url] if len(url) <= 1:
                self._logs.append(Log(VerifierKey.parse(vkey), *url))
            case ["witness", name, vkey, *url] if len(url) <= 1:
                _define(name, self._defined)
                self._witnesses.append(Witness(name, VerifierKey.parse(vkey), *url))
            case ["group", name, threshold, *members]:
                self._check_defined(members)
                _define(name, self._defined)
                self._groups.append(Group(name, _threshold(threshold, len(members)), tuple(members)))
            case ["quorum", name]:
                if self._quorum:
                    raise MalformedError("policy: a second quorum line")
                if name != NONE:
                    self._check_defined([name])
                self._quorum.append(name)
            case _:
                raise MalformedError(f"policy: not a log, witness, group or quorum line: {items[0]!r}")

    def _check_defined(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self._defined:
                raise MalformedError(f"policy: {name!r} is not defined on an earlier line")


def _threshold(text: str, members: int) -> int:
    if text == "all":
        return members
    if text == "any":
        return 1
    if not _THRESHOLD.fullmatch(text):
        raise MalformedError(f"policy: threshold {text!r} is not all, any or a number from 1")
    return int(text)


def _shown(name: str) -> str:
    """Return a name so that any terminal can print it."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _described(policy: Policy) -> Iterator[str]:
    for log in policy.logs:
        key = log.key.public.hex()
        if log.key.name.endswith(_GOVERNING):
            yield f"Ledger {log.key.name.removesuffix(_GOVERNING)}, every register, by the key {key}."
        else:
            yield f"Log {log.key.name} alone, by the key {key}."
    for witness in policy.witnesses:
        yield f"Witness {_shown(witness.name)} is {witness.key.name}, by the key {witness.key.public.hex()}."
    for group in policy.quorum.groups:
        members = ", ".join(map(_shown, group.members))
        yield f"{_shown(group.name)} holds when at least {group.threshold} of {members} hold."
    root = policy.quorum.root
    if root is None:
        yield "No witness is asked for: the ledger's own signature is enough, and nothing proves a time."
    else:
        yield f"A checkpoint counts when the ledger has signed it and {_shown(root)} holds."
        if policy.quorum.comparable:
            yield "Any two quorums share a witness: times of different quorums may be compared."
        else:
            yield "Two quorums may share no witness: not-before and not-after may not be compared."
    yield f"Fingerprint {policy.fingerprint}"


@dataclass(frozen=True, slots=True)
class Cosignature:
    """What a witness of the policy has signed: at `time`, POSIX seconds, it knew the first `size` entries.

    `witness` is its name within the policy. The signature has been verified.
    """

    witness: str
    size: int
    time: int


@dataclass(frozen=True, slots=True)
class JudgedCheckpoint:
    """A checkpoint that satisfies a policy. `sealed` is False only where the policy asks for no witness."""

    checkpoint: Checkpoint
    note: Note
    cosignatures: tuple[Cosignature, ...]
    sealed: bool


def judge(note: bytes, policy: Policy, origin: str) -> JudgedCheckpoint:
    """Verify a checkpoint note of `origin` under `policy`: the log's signature and the quorum.

    Raises MalformedError; SignatureError, and QuorumError where only the quorum is not met.
    """
    opened = policy.open(note, origin)
    cosignatures = policy.cosignatures(opened)
    cosigned = {cosignature.witness for cosignature in cosignatures}
    if not policy.quorum.is_met_by(cosigned):
        names = ", ".join(sorted(map(_shown, cosigned))) or "nobody"
        others = len(opened.note.unverified)
        unknown = f" ({others} lines are of keys that the policy does not name)" if others else ""
        raise QuorumError(
            f"checkpoint of {origin} at size {opened.checkpoint.size}: of the policy's witnesses, cosigned by "
            f"{names}{unknown}, which does not meet the quorum {_shown(policy.quorum.root or NONE)!r}"
        )
    return JudgedCheckpoint(opened.checkpoint, opened.note, cosignatures, policy.quorum.root is not None)


def cosign(checkpoint: Checkpoint, signer: SignerKey, time: int) -> SignatureLine:
    """Return a witness's signature line over `checkpoint` at `time`, POSIX seconds (type 0x04).

    Signs the re-encoded checkpoint: were that not what was received, the line would be useless and not
    dangerous. Raises ValueError for a time that is not 1..2^63-1.
    """
    return cosignature_line(checkpoint.text(), signer, time)


def check_clocks(cosignatures: Iterable[Cosignature], now: int) -> None:
    """Refuse cosignatures more than 300 s later than `now`, POSIX seconds (witness.md, section 1.1).

    Raises SignatureError.
    """
    for cosignature in cosignatures:
        if cosignature.time > now + FUTURE_TOLERANCE:
            raise SignatureError(
                f"cosignature of {_shown(cosignature.witness)}: {cosignature.time - now} s in the future"
            )
