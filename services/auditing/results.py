"""What an audit comes to: the verdicts, and every finding with its evidence.

Plain data, made by `services.auditing.audit_round`, told by the command and by the report. Text in it may
repeat what a ledger served: escape it wherever it is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from services.auditing.after_returns import AfterReturnCounts
from services.auditing.found import Severity

Span = tuple[int, int]
"""Entries by their indices: first and last, both included."""

MAX_SPANS = 100
"""Spans that one finding lists; `count` tells how many entries there are in all."""


class Source(StrEnum):
    """What has found something."""

    INTEGRITY = "integrity"
    """The round that reads, derives and compares everything: what it finds proves the ledger wrong."""

    RULES = "rules"
    """The governing register, keys, versions and relations, as they stood at the time."""

    TIME = "time"
    """What the ledger claims of time, held against the witnesses' clocks."""

    ACKNOWLEDGEMENT = "acknowledgement"
    """What was promised to a department, held against the registers."""

    DETECTION = "detection"
    """A detection, with parameters from the profile. Never an integrity failure."""


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """One thing that was found.

    `code` is a stable name: of an integrity failure that of the monitor (`fork`, `rollback`, …), of a detection
    its id (`DET-01`). `is_failure` tells whether it is an integrity failure: exit status 1. `register` is empty
    for the ledger. `spans` are the entries that it is about, of which there are `count`, the first `MAX_SPANS`
    spans only. `what` and `expected` are a sentence each; `inputs` are the numbers it was made from. `evidence`
    is the path of the file that was kept, empty where there is none, and `evidence_id` names the finding in a
    file that has several. `is_proof` tells whether anybody can check that file offline. `recheck` says how to
    look at it again. `since` is when this auditor saw it first, POSIX seconds; `is_new` where that is this
    visit, or where it covers later entries than it did.
    """

    code: str
    source: Source
    severity: Severity
    is_failure: bool
    register: str
    what: str
    expected: str = ""
    spans: tuple[Span, ...] = ()
    count: int = 0
    inputs: Mapping[str, str] = field(default_factory=dict[str, str])
    innocent: tuple[str, ...] = ()
    evidence: str = ""
    evidence_id: str = ""
    is_proof: bool = False
    recheck: str = ""
    since: int = 0
    is_new: bool = True


class Standing(StrEnum):
    """How a register stands, in one word."""

    INTACT = "intact"
    """All that was signed was read, and everything in it holds."""

    FAILED = "failed"
    """An integrity failure was found."""

    UNREAD = "unread"
    """It could not be read, or not to its end: nothing is said about what was not read."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What the entries of a register are, by what they say they are."""

    decisions: int = 0
    corrections: int = 0
    withdrawals: int = 0
    returns: int = 0
    rejections: int = 0
    others: int = 0


@dataclass(frozen=True, slots=True)
class RegisterVerdict:
    """One register: the verdict first, then what it rests on.

    `verdict` is one sentence or two for anybody; `details` are further ones. `before` is how many entries had
    been audited at the last visit, `size` how many now, and `root` (base64) the root of those, derived twice.
    `checkpoint` is the latest note that was verified, empty where none was; `cosigned_by` names the witnesses
    on it and `sealed_at` is when its quorum was met, by their clocks (POSIX seconds; None without witnesses).
    `anchored` is the largest size that the governing register carries, None for none. `counts` are of all
    `size` entries, and so are `after_returns`; None where no detection was run. `undated` first entries have no
    witnessed not-before; 0 without witnesses, since then none has.
    """

    register: str
    title: str
    standing: Standing
    verdict: str
    details: tuple[str, ...]
    before: int
    size: int
    root: str
    checkpoint: str
    cosigned_by: tuple[str, ...]
    sealed_at: int | None
    anchored: int | None
    is_closed: bool
    counts: Counts
    findings: tuple[AuditFinding, ...]
    after_returns: AfterReturnCounts | None = None
    undated: int = 0

    @property
    def added(self) -> int:
        """How many entries were added since the last visit."""
        return self.size - self.before

    @property
    def is_fresh(self) -> bool:
        """Whether none of its entries had been audited before this visit."""
        return self.before == 0 and self.size > 0


@dataclass(frozen=True, slots=True)
class KeptCheckpoint:
    """A checkpoint that the auditor had kept elsewhere, and that everything was compared with.

    `sealed_at` is POSIX seconds by the witnesses' clocks, None where no quorum states it. `file` is where it
    came from. `agrees` tells whether it is of the history that was read; None where that could not be decided.
    """

    file: str
    register: str
    size: int
    sealed_at: int | None
    agrees: bool | None


@dataclass(frozen=True, slots=True)
class Promises:
    """What became of the acknowledgements in a department's collection.

    `kept` became entries, `rejected` a provable rejection. `open` may still be kept: nothing shows that the
    register has moved on since. `broken` are in it neither way though it has. `unread` are of registers that
    were not read, or may still be opened; `unusable` files prove nothing.
    """

    files: int = 0
    kept: int = 0
    rejected: int = 0
    open: int = 0
    broken: int = 0
    unread: int = 0
    unusable: int = 0


@dataclass(frozen=True, slots=True)
class Unread:
    """What could not be read, and so was not judged. `register` is empty for the ledger."""

    register: str
    why: str


@dataclass(frozen=True, slots=True)
class AuditResult:
    """One visit of an auditor to one ledger.

    Times are POSIX seconds by the auditor's own clock: `begun` and `ended` of this visit, `previous` of the
    last one that came to its end (None for none), `since` of the state. `visit` counts the visits of this
    state from 1. `witnessed` tells whether the policy asks for witnesses, and `comparable` whether times of
    different quorums may be compared (formats.md, section 15). `cannot_claim` are sentences: what this audit
    leaves open, and why. `findings` are about the ledger as a whole; each register has its own. `more` tells
    how many findings are not listed, by code. `profile` and `calendar` name what detections were run with,
    with versions; empty for none. `software` is Daybook's version. `changed_terms` says how the profile or
    the working days differ from those of the last visit, empty where they do not.
    """

    ledger: str
    url: str
    policy_fingerprint: str
    witnessed: bool
    comparable: bool
    visit: int
    begun: int
    ended: int
    previous: int | None
    since: int
    verdict: str
    registers: tuple[RegisterVerdict, ...]
    findings: tuple[AuditFinding, ...]
    unread: tuple[Unread, ...]
    kept: tuple[KeptCheckpoint, ...]
    promises: Promises | None
    cannot_claim: tuple[str, ...]
    remarks: tuple[str, ...]
    more: Mapping[str, int]
    profile: str
    calendar: str
    software: str
    changed_terms: str = ""

    def all_findings(self) -> tuple[AuditFinding, ...]:
        """Return every finding: of the ledger, then of each register."""
        return (*self.findings, *(each for one in self.registers for each in one.findings))

    @property
    def failed(self) -> bool:
        """Whether an integrity failure was found."""
        return any(each.is_failure for each in self.all_findings())
