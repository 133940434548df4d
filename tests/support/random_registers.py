"""Two registers of random records that have much to do with each other: numbers, contracts, stages, documents.

They are no story: what they are for is that anything comes before, behind and between anything.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from random import Random
from typing import Any, Final

from ledger import canonical
from ledger.timeline import Bounds
from services.auditing.facts import Fact
from tests.support.facts import Record, fact_at
from tests.support.records import (
    DEPARTMENT,
    correction,
    decision,
    following,
    period_return,
    record_id,
    void,
    withdrawal,
)

OFFICES: Final = ("secretary-of-state", "minister-of-state")
DAY: Final = 86_400
SERIES: Final = ("A/1", "B/1")
_OPTIONAL: Final = (
    *("procurement", "publication", "evidence", "matter_id", "stage", "decision_answer"),
    *("departmental_reference", "disappearing_messages", "late_reason"),
)


def random_registers(random: Random, begun: int) -> tuple[dict[str, list[Fact]], int]:
    """Return the facts of each register, and when the last one was registered (POSIX seconds)."""
    making = _Making(random, begun)
    for _ in range(random.randint(5, 40)):
        making.step()
        if random.random() < 0.03:
            making.crowd()
    return making.facts, making.now


class _Making:
    def __init__(self, random: Random, begun: int) -> None:
        self.random, self.now = random, begun
        self.facts: dict[str, list[Fact]] = {f"{DEPARTMENT}/{office}": [] for office in OFFICES}
        self.decisions: dict[str, list[Record]] = {register: [] for register in self.facts}
        self.voids: dict[str, list[Record]] = {register: [] for register in self.facts}
        self._made = 0

    def step(self) -> None:
        """Register one more record somewhere."""
        random = self.random
        self.now += random.choice((1, 1, 60, 60, 60, 600, 600, 3_600, DAY, 3 * DAY, 20 * DAY))
        self._register(random.choice((*self.facts, next(iter(self.facts)))), random.random())

    def crowd(self) -> None:
        """Register many decisions of one office within some minutes."""
        for _ in range(14):
            self.now += self.random.randint(1, 120)
            self._register(next(iter(self.facts)), 0)

    def _register(self, register: str, kind: float) -> None:
        random, record = self.random, self._record(register, kind)
        fact = fact_at(len(self.facts[register]), record, self.now, register)
        if random.random() < 0.2:
            wide = Bounds(self.now - 4_000, self.now + 20, random.random() < 0.8)
            fact = replace(fact, bounds=wide)
        elif random.random() < 0.05:
            fact = replace(fact, bounds=Bounds(self.now - 30, None, comparable=True))
        self.facts[register].append(fact)

    def _record(self, register: str, kind: float) -> Record:
        random, decisions, voids = self.random, self.decisions[register], self.voids[register]
        if kind < 0.5 or not decisions:
            record = decision(register=register, record_id=self._record_id(), **self._members())
            decisions.append(record)
            return record
        place = random.randrange(len(decisions))
        before = canonical.format(decisions[place])
        if kind < 0.75:
            how = random.choice(("correction", "amendment"))
            members = dict.fromkeys(_OPTIONAL) | self._members()
            if random.random() < 0.3:
                del members["decided_at"]
            decisions[place] = correction(before, correction=how, **members)
            return decisions[place]
        if kind < 0.8:
            del decisions[place]
            return withdrawal(before)
        if kind < 0.9:
            return self._void(register, voids)
        counts = random.choice(({"count": 2, "first": 1, "last": 4}, {"nil_return": True, **_NONE}))
        period = f"{datetime.fromtimestamp(self.now - random.randint(0, 90) * DAY, UTC):%Y-%m}"
        series = random.choice(SERIES)
        return period_return(
            register=register, record_id=self._record_id(), series=series, period=period, **counts
        )

    def _void(self, register: str, voids: list[Record]) -> Record:
        random = self.random
        first = random.randint(1, 9)
        stated = {"first": first, "last": first + random.randint(0, 4), "series": random.choice(SERIES)}
        if not voids or random.random() < 0.5:
            voids.append(void(register=register, record_id=self._record_id(), **stated))
            return voids[-1]
        place = random.randrange(len(voids))
        earlier = {name: value for name, value in voids[place].items() if name != "taken_back"}
        taken_back = {"taken_back": True} if random.random() < 0.3 else {}
        voids[place] = {**earlier, **following(canonical.format(voids[place])), **stated, **taken_back}
        return voids[place]

    def _record_id(self) -> str:
        self._made += 1
        return record_id(1_000 + self._made)

    def _members(self) -> dict[str, Any]:
        random, day = self.random, self._day
        decided_ago = random.choice((0, -1, 2, 30, 90))
        stated: dict[str, Any] = {
            "decided_at": day(decided_ago),
            "captured_at": day(decided_ago),
            "reference": {"number": random.randint(1, 9), "series": random.choice(SERIES)},
            "channel": random.choice(("corporate_email", "whatsapp")),
            "decision_type": random.choice(("policy", "contract_approval", "contract_award")),
        }
        if random.random() < 0.5:
            stated["procurement"] = procurement = {
                "ocid": f"ocds-{random.randint(1, 3)}",
                "supplier": {"name": random.choice(("Acme Ltd", "Acme plc", "Other plc"))},
                "value": {"amount": random.choice(("100.00", "100.40", "200.00")), "currency": "GBP"},
            }
            if random.random() < 0.6:
                procurement["award_date"] = day(decided_ago + random.randint(-3, 3))
            if random.random() < 0.5:
                procurement["start_date"] = day(decided_ago + random.randint(-3, 40))
        if random.random() < 0.3:
            updates = [f"{day(-60)}T10:{random.randint(10, 59)}Z" for _ in range(random.randint(1, 3))]
            stated["publication"] = {"first": f"{day(decided_ago - 40)}T10:{random.randint(10, 59)}Z"}
            if random.random() < 0.6:
                stated["publication"]["updates"] = updates
        if random.random() < 0.4:
            stated["evidence"] = [
                {
                    "kind": random.choice(("screenshot", "minutes")),
                    "media_type": "image/png",
                    "sha256": f"{random.randint(1, 3):064x}",
                    "size": 3,
                }
            ]
        if random.random() < 0.4:
            stated["stage"] = {
                "scheme": "three-case",
                "scheme_version": 1,
                "code": random.choice(("strategic", "outline", "full")),
                "outcome": random.choice(("pass", "fail", "waived", "not_performed")),
            }
        for name, values in (
            ("matter_id", ("M1", "M2", None)),
            ("decision_answer", ("agreed", "not_agreed", None)),
            ("departmental_reference", ("DR/1", "DR/3", "DR/6", None)),
            ("disappearing_messages", ("on", None, None)),
            ("late_reason", ("migration_of_legacy", None, None)),
        ):
            value = random.choice(values)
            if value is not None:
                stated[name] = value
        return stated

    def _day(self, ago: int) -> str:
        return f"{datetime.fromtimestamp(self.now - ago * DAY, UTC):%Y-%m-%d}"


_NONE: Final = {"count": None, "first": None, "last": None}
