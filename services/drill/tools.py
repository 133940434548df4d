"""The auditor's tools, each as its command runs it, and what it says of a copy."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ledger.errors import LedgerError
from ledger.fsck import check, check_span, stand_on
from ledger.governing import GOVERNING
from ledger.receipts import verify_receipt
from ledger.stores.sqlite import SqliteStore
from ledger.witnessing import Policy
from services.auditing.audit_round import audit
from services.auditing.audit_state import AuditState, open_audit_state
from services.auditing.found import Severity
from services.auditing.results import AuditResult, Source
from services.auditing.visit import Asked
from services.drill.rewriting import LyingCopy
from services.ledger_files import public_path, read_public_key
from services.monitoring.comparing import compare_states
from services.monitoring.fetching import Site
from services.monitoring.rounds import Limits
from services.monitoring.state import State, StateDirectory, open_mirror, open_seen

NO_DEADLINE: Final = 1 << 40
"""Seconds for an anchor: a ledger that was stopped may have one outstanding, and no lie is about that."""


@dataclass(frozen=True, slots=True)
class Caught:
    """What one tool caught: by which code, in a sentence, and the file of evidence where there is one.

    `is_failure` tells whether it is an integrity failure, or a finding.
    """

    tool: str
    code: str
    register: str
    what: str
    is_failure: bool
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Auditor:
    """An auditor with a policy. His states are below `folder`, each by a name of its own."""

    ledger: str
    policy: Policy
    folder: Path

    def state(self, name: str) -> Path:
        """Return where a state is."""
        return self.folder / name

    def remember(self, name: str, earlier: str) -> None:
        """Begin a state as a copy of an earlier one. Raises OSError."""
        shutil.copytree(self.state(earlier), self.state(name))

    async def audit(self, url: str, name: str, kept: Sequence[Path] = ()) -> AuditResult:
        """Audit what is served at an address, with a state. Raises StoreError, OSError."""
        asked = Asked(kept=tuple(kept), limits=Limits(NO_DEADLINE, patience=0.0), detects=False)
        async with Site(url) as site:
            with self._opened(name) as state:
                return await audit(site, state, self.policy, asked)

    def compare(self, name: str, other: str) -> list[Caught]:
        """Compare what two auditors saw, as `daybook monitor --compare` does. Raises StoreError, OSError."""
        with self._monitored(name) as state:
            compared = compare_states(state, self.state(other), self.policy)
        return [
            Caught("compare", each.kind.value, each.register, each.what, is_failure=True)
            for each in compared.findings
        ]

    @contextmanager
    def _monitored(self, name: str) -> Iterator[State]:
        root = self.state(name)
        with open_seen(root) as seen:
            if seen.origin() is None:
                seen.begin(self.ledger, int(time.time()))
            with open_mirror(root, self.ledger) as mirror:
                yield State(StateDirectory(root), mirror, seen)

    @contextmanager
    def _opened(self, name: str) -> Iterator[AuditState]:
        with self._monitored(name) as monitored, open_audit_state(monitored, self.policy) as state:
            yield state


def caught_by_audit(tool: str, result: AuditResult) -> list[Caught]:
    """Return what an audit caught: integrity failures, and findings that ask for more than a glance."""
    return [
        Caught(tool, each.code, each.register, each.what, each.is_failure, each.evidence)
        for each in result.all_findings()
        if each.is_failure
        or (each.source is not Source.DETECTION and each.severity.rank >= Severity.MEDIUM.rank)
    ]


def check_store(copy: LyingCopy) -> list[Caught]:
    """Check a copy's directory, as `daybook fsck` does. Raises StoreError, OSError."""
    log = read_public_key(public_path(copy.directory.log_key))
    with closing(SqliteStore(copy.directory.store)) as store:
        ground = stand_on(store, log.name.removesuffix(f"/{GOVERNING}"), log)
        # Whoever lies about a ledger takes the signer's marks away with it.
        found = check(ground, lambda spans: [check_span(ground, each) for each in spans], {}, _unseen)
    return [
        Caught("fsck", "problem", each.register, f"{each.place}: {each.what}", is_failure=True)
        for each in found.problems
    ]


def _unseen(_done: int) -> None:
    """Nobody watches."""


def check_receipt(data: bytes, policy: Policy) -> list[Caught]:
    """Verify a receipt offline, as `daybook verify` does."""
    try:
        verify_receipt(data, policy)
    except LedgerError as error:
        return [Caught("verify", type(error).__name__, "", str(error), is_failure=True)]
    return []
