"""One visit of an auditor: a round of the monitor, and then what only an auditor asks.

The round reads and verifies everything, and finds integrity failures. What it has brought in is looked at
once more here: by a second tree, against the witnesses' clocks and the governing register's past, against what
a department was promised, and by the detections.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

from ledger import base64
from ledger.governing import GOVERNING
from ledger.witnessing import Policy
from services.auditing.audit_state import AuditState, audited_facts
from services.auditing.authority import authority_findings
from services.auditing.detecting import Detector
from services.auditing.detection_evidence import keep_detections
from services.auditing.evidence_files import keep_entry_finding
from services.auditing.examining import Bar, Examiner, second_tree
from services.auditing.facts import Fact
from services.auditing.found import Found, Severity
from services.auditing.governing_rules import judge_governing
from services.auditing.kept_checkpoints import compared, take, unopened
from services.auditing.known_findings import dated
from services.auditing.oddities import oddities
from services.auditing.promises import hold_promises
from services.auditing.published_terms import published_terms
from services.auditing.relations import relation_findings, try_relations
from services.auditing.results import (
    AuditFinding,
    AuditResult,
    Source,
    Standing,
)
from services.auditing.sealed_times import gather_times
from services.auditing.stale_seals import stale_checkpoint
from services.auditing.standing_proofs import standing_proofs
from services.auditing.summing_up import registers_asked, sum_up
from services.auditing.terms_before import changed_terms, keep_terms
from services.auditing.terms_in_force import terms_in_force
from services.auditing.unwitnessed_beginnings import unwitnessed_beginning
from services.auditing.views import judge_views
from services.auditing.visit import Asked, UnknownRegisterError, Visit
from services.monitoring.fetching import Site
from services.monitoring.findings import Finding, how_to_check, keep, look_again, shown
from services.monitoring.judging import Judge
from services.monitoring.rounds import Monitor, Round


async def audit(
    site: Site,
    state: AuditState,
    policy: Policy,
    asked: Asked,
    bar: Bar = lambda _label, _total: nullcontext(lambda _done: None),
    clock: Callable[[], float] = time.time,
) -> AuditResult:
    """Make one visit, and return what it comes to. `clock` gives POSIX seconds.

    Raises UnknownRegisterError, KeptCheckpointError, StoreError and OSError; nothing for what the ledger does.
    """
    auditor = _Auditor(site, state, policy, asked, bar, clock)
    return await auditor.visit()


class _Auditor:
    def __init__(
        self,
        site: Site,
        state: AuditState,
        policy: Policy,
        asked: Asked,
        bar: Bar,
        clock: Callable[[], float],
    ) -> None:
        self._site = site
        self._state = state
        self._monitored = state.monitored
        self._policy = policy
        self._asked = asked
        self._bar = bar
        self._clock = clock
        self._judge = Judge(self._monitored, policy, clock)

    async def visit(self) -> AuditResult:
        begun = int(self._clock())
        latest = self._state.notebook.one("SELECT number, ended FROM visit ORDER BY number DESC LIMIT 1")
        began_with = bool(self._monitored.mirror.heads())
        kept = take(self._monitored, self._policy, self._judge, self._asked.kept, begun)
        only = self._asked.registers or None
        monitor = Monitor(
            self._site, self._monitored, self._policy, self._asked.limits, self._bar, self._clock, only
        )
        made = await monitor.round()
        made.findings += kept.findings
        hidden = list(unopened(self._monitored, made))
        made.findings += hidden
        self._check_asked(made)
        terms = terms_in_force(self._state, self._asked.profile, begun, self._asked.days)
        # A visit that read nothing leaves nothing to compare with.
        number, previous = (latest[0] + 1, latest[1] if began_with else None) if latest else (1, None)
        visit = Visit(begun, number, previous, made, kept, terms)
        gather_times(self._state, self._policy, kept.opened, self._clock())
        with ExitStack() as stack:
            detector = None
            if self._asked.detects:
                made_from = self._state.detections, terms.profile, terms.calendar, self._state.bounds_named
                detector = stack.enter_context(Detector(*made_from))
            self._examine(detector)
            self._find(visit, detector)
        if self._asked.detects:
            visit.changed_terms = changed_terms(self._state, terms, visit.listing.findings)
        names = {each.register for each in hidden}
        agreed = tuple(compared(kept.checkpoints, self._monitored, self._judge, names))
        ended = int(self._clock())
        summed = sum_up(self._state, self._policy, self._asked, visit, agreed, self._site.url, ended)
        result = keep_detections(self._state, summed)
        self._record(visit, result)
        return result

    def _check_asked(self, made: Round) -> None:
        opened = self._monitored.mirror.fold.registers
        unknown = [each for each in self._asked.registers if each not in opened and each != GOVERNING]
        if unknown and GOVERNING not in made.broken():
            raise UnknownRegisterError(
                f"The governing register opens no {', '.join(map(ascii, unknown))}; it opens "
                f"{', '.join(sorted(opened)) or 'none'}"
            )

    def _mirrored(self) -> list[str]:
        heads = self._monitored.mirror.heads()
        return [each for each in registers_asked(self._state, self._asked) if each in heads]

    def _read_to_the_end(self, visit: Visit) -> list[str]:
        """Return the registers of which everything was read that the ledger has signed, as far as was seen."""
        seen, unread = self._monitored.seen, {each.register for each in visit.made.troubles}
        return [
            each
            for each in self._mirrored()
            if each not in unread
            and (latest := seen.latest(each)) is not None
            and latest.size <= self._monitored.size(each)
        ]

    # Looking

    def _examine(self, detector: Detector | None) -> None:
        for register in self._mirrored():
            observe = partial(self._observe, detector, register)
            Examiner(self._state, observe, self._bar).examine(register)
            if register != GOVERNING:
                observe([])
                judge_views(self._state, register)
                try_relations(self._state, register)
        judge_governing(self._state)

    def _observe(self, detector: Detector | None, register: str, facts: Sequence[Fact]) -> None:
        """Have the detections take facts, or all up to the end of what was examined.

        What they remember may be behind, as under another profile than before, or ahead after a death.
        """
        if detector is None:
            return
        begin = detector.next_index(register)
        if facts and facts[0].index <= begin:
            detector.observe(facts[begin - facts[0].index :])
            return
        end = facts[-1].index + 1 if facts else second_tree(self._state, register).size
        with self._bar(f"Detecting in {register}", end - begin) as advance:
            detector.observe(_told(audited_facts(self._state, register, begin, end), advance))

    def _find(self, visit: Visit, detector: Detector | None) -> None:
        """Gather everything that is found."""
        for finding in visit.made.findings:
            visit.listing.add(self._of_round(finding, visit.begun))
        new = {Path(each.evidence) for each in visit.listing.findings}
        for proved in standing_proofs(self._monitored.directory.evidence, self._policy, new):
            visit.listing.add(proved)
        read = self._read_to_the_end(visit)
        if self._asked.acknowledgements is not None:
            folder, now = self._asked.acknowledgements, self._clock()
            visit.held = hold_promises(self._state, folder, read, now)
        for found in self._of_registers(visit, read):
            visit.listing.add(self._with_evidence(found, visit.begun))
        for each in detector.found(int(self._clock())) if detector is not None else ():
            if visit.listing.is_full(each.detection):
                visit.listing.count(each.detection)
            else:
                visit.listing.add(_of_detection(each))
        known = dated(self._state.notebook, visit.listing.findings, visit.begun, visit.number)
        visit.listing.findings = list(known)

    def _of_registers(self, visit: Visit, read: Sequence[str]) -> Iterator[AuditFinding]:
        grace = visit.terms.profile.revocation_grace_seconds
        fresh = visit.terms.profile.detections.unwitnessed
        for register in self._mirrored():
            yield from self._other_root(register)
            yield from oddities(self._state, register)
            if fresh is not None and register in read:
                stale = stale_checkpoint(self._state, self._policy, register, fresh.seconds, visit.begun)
                yield from () if stale is None else (stale,)
            if register == GOVERNING and self._asked.detects:
                yield from published_terms(self._state, visit.begun)
            if register != GOVERNING:
                yield from authority_findings(self._state, register, grace)
                if self._policy.quorum.root is not None:
                    unseen = unwitnessed_beginning(self._state, register, self._asked.limits.anchor_within)
                    yield from () if unseen is None else (unseen,)
                yield from relation_findings(self._state, register, read)
        if visit.held is not None:
            yield from visit.held.listing.findings

    def _other_root(self, register: str) -> Iterator[AuditFinding]:
        """Compare the root that merkletools makes with ours, and so with the one that was signed."""
        tree, head = second_tree(self._state, register), self._monitored.mirror.heads()[register]
        if (tree.size, tree.root()) == (head.size, head.root):
            return
        yield AuditFinding(
            "second-tree",
            Source.INTEGRITY,
            Severity.CRITICAL,
            True,
            register,
            f"of {tree.size} entries merkletools makes the root {base64.encode(tree.root())}; of {head.size} "
            f"our own tree makes {base64.encode(head.root)}",
            "two independent implementations come to the same root of the same entries",
            inputs={"merkletools": tree.root().hex(), "own_tree": head.root.hex(), "size": str(head.size)},
            recheck=look_again(self._site.url),
        )

    def _of_round(self, finding: Finding, now: int) -> AuditFinding:
        path = keep(self._monitored.directory.evidence, self._state.origin, finding, now)
        return AuditFinding(
            finding.kind.value,
            Source.INTEGRITY,
            Severity.CRITICAL,
            True,
            finding.register,
            finding.what,
            finding.expected,
            inputs={f"note {number}": shown(note) for number, note in enumerate(finding.notes, 1)},
            evidence=str(path),
            is_proof=finding.proof is not None,
            recheck=how_to_check(str(path), finding.proof, url=self._site.url),
        )

    def _with_evidence(self, finding: AuditFinding, now: int) -> AuditFinding:
        path, proves = keep_entry_finding(self._state, finding, now)
        checks = f"daybook monitor --check {shlex.quote(str(path))} --policy YOUR_POLICY"
        return replace(
            finding,
            evidence=str(path),
            is_proof=proves,
            recheck=finding.recheck or (checks if proves else "read the entries that it names"),
        )

    def _record(self, visit: Visit, result: AuditResult) -> None:
        """Note that the visit came to its end, and the size of each register that it found intact."""
        intact = [
            (each.register, each.size, visit.begun, result.ended)
            for each in result.registers
            if each.standing is Standing.INTACT
        ]
        with self._state.notebook.together():
            if self._asked.detects:
                keep_terms(self._state, visit.terms, visit.listing.findings)
            self._state.notebook.write(
                "INSERT INTO visit VALUES (?, ?, ?)", (visit.number, visit.begun, result.ended)
            )
            self._state.notebook.write_all(
                "INSERT INTO audited VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET size = excluded.size, "
                "begun = excluded.begun, at = excluded.at",
                intact,
            )
            self._state.notebook.write_all(
                "INSERT INTO visited VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET begun = excluded.begun",
                [each[:3] for each in intact],
            )


def _told(facts: Iterable[Fact], advance: Callable[[int], None]) -> Iterator[Fact]:
    for fact in facts:
        yield fact
        advance(1)


def _of_detection(found: Found) -> AuditFinding:
    spans = tuple((index, index) for index in found.indices[:100])
    return AuditFinding(
        found.detection,
        Source.DETECTION,
        found.severity,
        False,
        found.register,
        found.explanation,
        "",
        spans,
        len(found.indices),
        {"rule_version": str(found.version), **found.inputs},
        found.innocent,
        recheck=found.recheck,
    )
