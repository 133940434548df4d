"""The detector: takes verified entries as they come, and knows at any time what all of them give to look at.

Nothing that it finds is an accusation, or an integrity failure. What it finds depends on the entries, their
witnessed bounds, the profile and the calendar alone: not on when they were taken, nor on how many at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Final

from ledger.records import Decision, DecisionCorrected, DecisionRegistered, ReferenceVoided, ReturnFiled
from ledger.timeline import Bounds
from ledger.values import Partial, partial
from ledger.vocabularies import VOCABULARIES
from services.auditing.detections import channels, corrections, evidence, hours, lateness, procurement
from services.auditing.detections.rules import DAY, RULES, Case, Terms
from services.auditing.fact_store import INDEX, PLACE_BITS, FactStore, Place, record_key, text_key
from services.auditing.facts import Fact
from services.auditing.found import Found
from services.auditing.lateness import LatenessJudge, Verdict, last_begun
from services.auditing.profile_types import Limit, Profile
from services.auditing.remembered.activity import ActivityMemory
from services.auditing.remembered.contracts import ContractMemory
from services.auditing.remembered.crowds import CrowdMemory
from services.auditing.remembered.documents import DocumentMemory
from services.auditing.remembered.matters import MatterMemory
from services.auditing.remembered.returns import ReturnsMemory
from services.auditing.remembered.series import Earlier, SeriesMemory, State
from services.auditing.remembered.witnessed import WitnessedMemory
from services.auditing.working_days import Calendar

BATCH: Final = 100_000
"""Facts of one transaction."""


class Detector(AbstractContextManager["Detector"]):
    """Runs every detection that the profile has, in the terms of a calendar.

    What it remembers is in one file at `path`, in memory for None. A file that was made under another profile,
    calendar or version of the rules is emptied: `next_index` tells from where a register is to be given again.
    So is one that was made from other bounds, where the caller names them: `bounds`. Not for several threads.
    Raises StoreError where the file fails.
    """

    def __init__(self, path: Path | None, profile: Profile, calendar: Calendar, bounds: str = "") -> None:
        terms = Terms.of(profile, calendar)
        rules = " ".join(f"{rule.id}/{rule.version}" for rule in RULES.values())
        made_under = {"profile": terms.profile_identity, "calendar": calendar.version, "rules": rules}
        if bounds:
            made_under["bounds"] = bounds
        self._terms = terms
        self._store = FactStore(path, made_under)
        self._judge = LatenessJudge(profile, calendar)
        self._series = SeriesMemory(self._store, terms)
        self._returns = ReturnsMemory(self._store, terms, self._series)
        self._activity = ActivityMemory(self._store, terms)
        self._contracts = ContractMemory(self._store, terms)
        self._documents = DocumentMemory(self._store, terms)
        self._matters = MatterMemory(self._store, terms)
        self._crowds = CrowdMemory(self._store, terms)
        self._witnessed = WitnessedMemory(self._store, terms)
        detections = profile.detections
        registration = detections.late_registration
        limits = [limit.working_days for limit in registration.limits] if registration is not None else []
        if detections.back_dated is not None:
            limits.append(detections.back_dated.working_days)
        # Working days are no shorter than days: what came in before so many seconds is late under no limit.
        self._soonest = min(limits, default=1 << 40) * DAY
        nccc = detections.nccc_origin
        self._nccc = frozenset(nccc.channels) if nccc is not None else frozenset()
        capture = detections.late_capture
        self._captures = _channels_of(capture.limits) if capture is not None else frozenset()
        self._watched = self._nccc | self._captures
        self._burst_width = detections.burst.minutes * 60 if detections.burst is not None else -1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._store.close()

    def next_index(self, register: str) -> int:
        """Return the index of the entry of a register that is to be observed next."""
        return self._store.size(register)

    def observe(self, facts: Iterable[Fact]) -> None:
        """Take new facts: of each register in the order of indices, none left out.

        They are taken in transactions of `BATCH` facts. Raises ValueError for one that does not follow.
        """
        source = iter(facts)
        while self._observe(islice(source, BATCH)):
            pass

    def _observe(self, batch: Iterator[Fact]) -> int:
        """Take one transaction of facts, and return how many there were."""
        taken, name, register, expected = 0, "", 0, 0
        latest: int | None = None
        decision: tuple[int, int | None] | None = None
        with self._transaction():
            for fact in batch:
                if fact.register != name:
                    self._store.came_to(name, expected, latest, decision)
                    name, latest, decision = fact.register, None, None
                    register, expected = self._store.register(name), self._store.size(name)
                if fact.index != expected:
                    raise ValueError(f"entry {fact.index} of {name}, where {expected} is the next")
                self._take(fact, register)
                expected += 1
                taken += 1
                after = fact.bounds.not_after
                if isinstance(fact.record, Decision):
                    decision = fact.index, after
                if after is not None and (latest is None or after > latest):
                    latest = after
            self._store.came_to(name, expected, latest, decision)
            self._flush()
        return taken

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            with self._store.transaction():
                yield
        except BaseException:
            # What is in memory only was never written.
            self._series.forget()
            self._crowds.forget()
            self._witnessed.forget()
            raise

    def _flush(self) -> None:
        self._series.flush()
        self._crowds.flush()
        self._witnessed.flush()

    def found(self, now: int | None = None) -> Iterator[Found]:
        """Yield every finding that stands, by register, first index and detection.

        `now` (POSIX seconds) is up to when something can be overdue; where it is None that is the latest time
        that witnesses have stated of any entry. Nothing may be observed while the findings are read.
        """
        self.settle(now)
        yield from self._store.findings()

    def page(self, register: str, after: Place, most: int) -> list[tuple[Place, Found]]:
        """Return the findings of a register that stand behind a place, as they were when last settled.

        In order, at most `most`, and fewer where they are long.
        """
        return self._store.page(register, after, most)

    def settle(self, now: int | None = None) -> None:
        """Make the findings that depend on what is not there, or on `now` (see `found`), as things stand."""
        with self._transaction():
            if now is None:
                (now,) = self._store.one("SELECT max(witnessed) FROM registers")
            self._flush()
            self._matters.settle()
            self._contracts.settle()
            self._documents.settle()
            self._series.settle()
            self._returns.settle(now)
            self._crowds.settle()
            self._witnessed.settle(now)
            self._activity.settle()

    def _take(self, fact: Fact, register: int) -> None:
        self._witnessed.take(fact, register)
        record = fact.record
        if isinstance(record, DecisionRegistered | DecisionCorrected):
            self._decision(fact, register, record)
        elif isinstance(record, ReturnFiled):
            self._returns.take(fact, register, record)
            self._activity.take(fact, register, record)
        elif isinstance(record, ReferenceVoided):
            self._series.void(register, register << PLACE_BITS | fact.index, record, fact.bounds)

    def _decision(self, fact: Fact, register: int, record: DecisionRegistered | DecisionCorrected) -> None:
        place = register << PLACE_BITS | fact.index
        decided = partial(record.decided_at)
        key = record_key(record.record_id)
        state = self._series.state(register, record.reference.series)
        bounds, accepted_at, first_index = fact.bounds, fact.accepted_at, fact.index
        earlier, made, registered = None, 0, place
        if record.version > 1:
            earlier = self._series.last(register, key)
        if earlier is not None:
            first_index, made = earlier.first & INDEX, earlier.corrections
            if not _decides_anew(record, decided, earlier):
                registered, accepted_at = earlier.registered, earlier.accepted_at
                bounds = Bounds(earlier.not_before, earlier.not_after, bounds.comparable)
        if isinstance(record, DecisionCorrected) and record.correction == "correction":
            made += 1
        before, after = bounds.not_before, bounds.not_after
        may_be_late = before is not None and before > decided.latest + self._soonest
        late, case = False, None
        if may_be_late or earlier is not None or not self._is_plain(record, decided, after):
            case = Case(
                fact.register,
                fact.index,
                first_index,
                registered & INDEX,
                record,
                decided,
                bounds,
                accepted_at,
                fact.bounds,
            )
            inversion = None
            if may_be_late and before is not None:
                inversion = self._series.inversion(state, place, decided, before)
            late = self._single(case, register, fact, inversion, may_be_late=may_be_late)
        self._series.add(
            (
                place,
                key,
                record.version,
                None if earlier is None else earlier.place,
                state.id,
                record.reference.number,
                decided.earliest,
                decided.latest,
                fact.bounds.not_before,
                fact.bounds.not_after,
                fact.accepted_at,
                record.decision_answer,
                made,
                registered,
            )
        )
        self._series.date(state, place, decided, fact.bounds)
        if state.returned:
            self._returns.touch(state, decided.latest)
        if earlier is not None and case is not None:
            self._followed(case, register, state, earlier, key, made)
            return
        self._series.add_decision(state, record)
        if not bounds.comparable or before is None or after is None:
            return
        if after - before <= self._burst_width:
            migrated = record.late_reason == "migration_of_legacy"
            self._crowds.registered(
                register, fact.submitter, state.id, fact.index, after, late=late, migrated=migrated
            )

    def _is_plain(self, record: Decision, decided: Partial, not_after: int | None) -> bool:
        """Tell whether no rule looks at a decision by itself, unless it came late: most are so."""
        return (
            record.channel not in self._watched
            and record.decision_type != "contract_approval"
            and record.procurement is None
            and record.publication is None
            and record.effective_at is None
            and record.evidence is None
            and record.matter_id is None
            and record.stage is None
            and record.disappearing_messages is None
            and (not_after is None or last_begun(record.decided_at, decided) <= not_after)
        )

    def _single(
        self,
        case: Case,
        register: int,
        fact: Fact,
        inversion: lateness.Inversion | None,
        *,
        may_be_late: bool,
    ) -> bool:
        """Run what looks at one statement by itself; tell whether it was registered late."""
        record, bounds = case.record, case.bounds
        terms = self._terms
        found: list[Found | None] = []
        late, exempt = False, False
        if may_be_late or record.decision_type == "contract_approval":
            verdict, late_found = lateness.late_registration(terms, self._judge, case)
            late = verdict.verdict in (Verdict.LATE, Verdict.EXEMPT)
            exempt = verdict.verdict is Verdict.EXEMPT
            found.append(late_found)
        in_matter = None
        if record.matter_id is not None or record.stage is not None:
            in_matter = self._matters.take(case, register)
        if case.index == case.registered_index:
            found.append(lateness.back_dated(terms, case, inversion or in_matter))
        if bounds.not_after is not None and case.decided.latest > bounds.not_after:
            found.append(lateness.future_dated(terms, case))
        if record.channel in self._captures:
            found.append(lateness.late_capture(terms, case))
        if record.channel in self._nccc:
            found.append(channels.nccc_origin(terms, case))
        if record.disappearing_messages is not None:
            found.append(channels.disappearing_on(terms, case))
        if record.evidence is not None:
            found.append(evidence.screenshots_only(terms, case))
            self._documents.take(case, register, _submission(fact))
        published_late = False
        if record.procurement is not None or record.publication is not None or record.effective_at is not None:
            publication = procurement.late_publication(terms, case)
            published_late = publication is not None and publication.inputs["certain"] == "yes"
            found += (
                publication,
                procurement.decision_after_award(terms, case),
                procurement.retrospective_contract(terms, case),
                procurement.notice_churn(terms, case),
                self._contracts.take(case, register),
            )
            self._crowds.published(case, register, late=published_late)
        found += hours.off_hours(terms, case, late_registration=late, late_publication=published_late)
        for each in found:
            if each is not None:
                self._keep(case, each)
        return late and not exempt

    def _keep(self, case: Case, found: Found) -> None:
        """Keep a finding of one statement. One that a later version of the record repeats is the same one."""
        key = f"record:{case.first_index}:{text_key(found.explanation)}"
        if case.index != case.first_index:
            before = self._store.get(found.register, found.detection, key)
            if before is not None:
                found = replace(found, indices=tuple(sorted({*before.indices, *found.indices})))
        self._store.put(found, key)

    def _followed(
        self, case: Case, register: int, state: State, earlier: Earlier, key: bytes, made: int
    ) -> None:
        """Run what compares a version of a record with the one before."""
        record, place = case.record, register << PLACE_BITS | case.index
        self._series.follow(earlier, place)
        self._returns.reopen(earlier.series, earlier.latest)
        if (state.id, record.reference.number) != (earlier.series, earlier.number):
            self._series.add_decision(state, record)
        if not isinstance(record, DecisionCorrected) or record.correction != "correction":
            return
        before, after = (earlier.place & INDEX, earlier.answer), (case.index, record.decision_answer)
        flipped = corrections.flipped_answer(self._terms, case.register, before, after)
        if flipped is not None:
            self._store.put(flipped, f"answer:{case.index}")
        rule = self._terms.profile.detections.correction_chain
        if rule is not None and made >= rule.corrections:
            versions = self._series.versions(register, key)
            chain = corrections.correction_chain(self._terms, case.register, made, versions)
            if chain is not None:
                self._store.put(chain, f"chain:{case.first_index}")


def _decides_anew(record: Decision, decided: Partial, earlier: Earlier) -> bool:
    """Tell whether a version is an amendment that states when another decision was made."""
    if not isinstance(record, DecisionCorrected) or record.correction != "amendment":
        return False
    return (decided.earliest, decided.latest) != (earlier.earliest, earlier.latest)


def _submission(fact: Fact) -> int:
    return fact.index if fact.submission_first is None else fact.submission_first


def _channels_of(limits: Iterable[Limit]) -> frozenset[str]:
    """Return the channels that limits are for."""
    return frozenset(chain.from_iterable(limit.channels or VOCABULARIES["channel"] for limit in limits))
