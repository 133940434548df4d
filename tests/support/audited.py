"""An auditor's visits to a ledger that `tests.support.monitored` serves.

with monitored(tmp_path, WITNESSED) as it:
    it.held.fill(3)
    it.publish(at=60)
    result = await visit(it, at=61)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from services.auditing.audit_round import audit
from services.auditing.audit_state import open_audit_state
from services.auditing.profile_types import Profile
from services.auditing.results import AuditFinding, AuditResult, RegisterVerdict
from services.auditing.visit import Asked
from services.monitoring.fetching import Site
from tests.support.ledgers import REGISTER
from tests.support.monitored import BEGAN, Monitored


async def visit(
    it: Monitored,
    at: int = 0,
    *,
    registers: Iterable[str] = (),
    kept: Iterable[Path] = (),
    acknowledgements: Path | None = None,
    profile: Profile | None = None,
) -> AuditResult:
    """Make one visit, the clock `at` seconds after `BEGAN`; with detections only where a profile is given."""
    asked = Asked(
        tuple(registers), tuple(kept), acknowledgements, it.limits, profile, detects=profile is not None
    )
    async with Site(it.site.url, timeout=10) as site:
        with it.opened() as monitored, open_audit_state(monitored, it.policy) as state:
            return await audit(site, state, it.policy, asked, _no_bar, lambda: BEGAN + at)


def _no_bar(_label: str, _total: int) -> AbstractContextManager[Callable[[int], None]]:
    return nullcontext(lambda _done: None)


def verdict(result: AuditResult, register: str = REGISTER) -> RegisterVerdict:
    """Return the verdict on one register."""
    (found,) = (each for each in result.registers if each.register == register)
    return found


def found(result: AuditResult, code: str) -> AuditFinding:
    """Return the one finding of a code."""
    (one,) = (each for each in result.all_findings() if each.code == code)
    return one


def codes(result: AuditResult) -> set[str]:
    """Return the codes of all findings."""
    return {each.code for each in result.all_findings()}
