"""Which witness policy is in force, and what a change of it does to a ledger that runs."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier

import pytest

from ledger.notes import COSIGNATURE_V1, SignerKey, VerifierKey
from ledger.stores.memory import MemoryStore
from ledger.witnessing import Policy, Witness, judge
from services.witness_policy import PolicyInForce
from tests.support.growing_log import key
from tests.support.ledger_dir import LedgerOnDisk, opening
from tests.support.ledgers import (
    DEPARTMENT,
    GOVERNANCE_KEY,
    LOG_KEY,
    ORIGIN,
    POLICY,
    REGISTER,
    LedgerUnderTest,
    open_ledger,
)
from tests.support.scripted_witness import ScriptedWitness, honestly, replies
from tests.support.witnessed import policy_text, witnessed

MAIN = f"{ORIGIN}/{REGISTER}"
LOG = f"log {POLICY.logs[0].key}\n"
ONE = Witness("one", SignerKey("one.example/w", key("one")).cosigner, "http://one.example")
TWO = Witness("two", SignerKey("two.example/w", key("two")).cosigner)


def many(number: int, name: str = "witness") -> list[Witness]:
    """Return so many witnesses, with names of at least this length."""
    return [Witness(f"w{each}", SignerKey(f"{name}{each}", key(f"{each}")).cosigner) for each in range(number)]


@pytest.fixture
def held(tmp_path: Path) -> LedgerUnderTest:
    return open_ledger(MemoryStore(), tmp_path / "marks")


def text(*witnesses: Witness, quorum: str = "one") -> str:
    """Return a policy file."""
    named = "".join(f"witness {each.name} {each.key}\n" for each in witnesses)
    return f"{LOG}{named}quorum {quorum}\n"


class Deciding:
    """A ledger's published policies, at a time that a test sets."""

    def __init__(self, held: LedgerUnderTest) -> None:
        self.held = held
        self.now = datetime(2026, 7, 1, tzinfo=UTC)
        self.in_force = PolicyInForce(held.ledger, lambda: self.now.timestamp())

    def publish(self, text: str, effective_from: str = "2026-01-01T00:00Z", kind: str = "witness") -> None:
        stated = {"text": text} if kind == "witness" else {kind: {"holidays": 1}}
        self.held.govern("policy.published/1", kind=kind, name="any", effective_from=effective_from, **stated)

    @property
    def witnesses(self) -> list[str] | None:
        """The names of those who are asked; None where nobody is."""
        policy = self.in_force()
        return None if policy is None else [each.name for each in policy.witnesses]


@pytest.fixture
def deciding(held: LedgerUnderTest) -> Deciding:
    return Deciding(held)


def test_nobody_is_asked_before_governance_says_whom(deciding: Deciding) -> None:
    """If false, a ledger would ask whoever it likes."""
    assert deciding.witnesses is None
    deciding.publish("", kind="profile")
    assert deciding.witnesses is None


def test_the_latest_that_was_published_holds_and_is_one_value(deciding: Deciding) -> None:
    """If false, an older policy would come back; or seals would be looked for anew at every question."""
    deciding.publish(text(ONE))
    assert deciding.witnesses == ["one"]
    deciding.publish(text(TWO, quorum="two"))
    assert deciding.witnesses == ["two"]
    assert deciding.in_force() is deciding.in_force()
    # By their order in the register: one that says it held from an earlier time is later all the same.
    deciding.publish(text(ONE), "2020-01-01T00:00Z")
    assert deciding.witnesses == ["one"]


def test_threads_that_ask_at_once_are_told_one_value(
    deciding: Deciding, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If false, one would take seals to be of another policy than they are for, and show none ever again."""
    deciding.publish(text(ONE))
    both, parse = Barrier(2), Policy.parse

    def together(data: bytes) -> Policy:
        both.wait(timeout=10)
        return parse(data)

    monkeypatch.setattr(Policy, "parse", together)
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: deciding.in_force(), range(2))
    assert one is not None
    assert one is other
    assert deciding.in_force() is one


def test_a_policy_waits_for_its_time(deciding: Deciding) -> None:
    """If false, a change could not be announced, or would come too soon."""
    deciding.publish(text(ONE))
    deciding.publish(text(TWO, quorum="two"), "2026-07-02T00:00Z")
    assert deciding.witnesses == ["one"]
    deciding.now = datetime(2026, 7, 1, 23, 59, 59, tzinfo=UTC)
    assert deciding.witnesses == ["one"]
    deciding.now = datetime(2026, 7, 2, tzinfo=UTC)
    assert deciding.witnesses == ["two"]


def test_quorum_none_is_a_decision_too(deciding: Deciding) -> None:
    """If false, governance could not decide to ask nobody; or the policy before it would hold on."""
    deciding.publish(text(ONE))
    deciding.publish(text(ONE, quorum="none"))
    assert deciding.in_force() is None


@pytest.mark.parametrize(
    "unusable",
    [
        "this is no policy\n",
        "quorum one\n",
        text(ONE).replace("quorum one", "quorum two"),
        text(ONE) + "witness one x\n",
        # The ledger's own key as its witness.
        text(Witness("one", VerifierKey("self.example/w", COSIGNATURE_V1, LOG_KEY.public))),
        # More lines than a note may have.
        text(*many(100), quorum="w1"),
        # Names so long that no anchor could carry them.
        text(*many(38, "w" * 300), quorum="w1"),
    ],
    ids=["no policy", "undefined", "other quorum", "broken line", "itself", "too many", "too long"],
)
def test_a_policy_that_cannot_be_used_leaves_the_one_before(deciding: Deciding, unusable: str) -> None:
    """If false, a mistake in a policy would make the ledger ask fewer than before, or nobody."""
    deciding.publish(text(ONE, TWO))
    deciding.publish(unusable)
    assert deciding.witnesses == ["one", "two"]
    deciding.publish(text(TWO, quorum="two"))
    assert deciding.witnesses == ["two"]


def test_as_many_witnesses_as_a_note_can_hold_are_asked(deciding: Deciding) -> None:
    """If false, a policy that every verifier accepts would not be used."""
    deciding.publish(text(*many(64), quorum="w1"))
    assert deciding.witnesses == [f"w{each}" for each in range(64)]


def test_only_the_ledgers_own_key_is_taken_as_the_log(deciding: Deciding) -> None:
    """If false, a published file could make the ledger accept notes of another log as its own."""
    other = VerifierKey(f"{ORIGIN}/governing", 1, GOVERNANCE_KEY.public)
    deciding.publish(text(ONE).replace(LOG, f"log {other}\n"))
    policy = deciding.in_force()
    assert policy is not None
    assert [log.key for log in policy.logs] == [POLICY.logs[0].key]


# While a ledger runs


async def test_a_new_witness_is_asked_at_once_and_what_was_sealed_must_be_sealed_by_it_too(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, the ledger would go by a policy that governance has replaced."""
    async with witnessed(ledger.root) as it:
        await it.publish(policy_text(ledger, [one.witness]))
        await it.add(3)
        await it.until_all_sealed()
        two.always(replies(500))
        await it.publish(policy_text(ledger, [one.witness, two.witness]))
        await it.until(lambda: two.asked != [])
        # Two of two: what one has sealed is not enough any more.
        assert it.sealed_size() is None
        await it.add()
        two.always(honestly)
        sealed = await it.until_sealed(4)
        assert {each.witness for each in judge(sealed.note, it.policy, MAIN).cosignatures} == {"one", "two"}
        await it.until_all_sealed()


async def test_a_witness_that_is_dismissed_is_not_asked_again(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, a dismissed institution would still be told of everything, and hold up the rest."""
    async with witnessed(ledger.root) as it:
        await it.publish(policy_text(ledger, [one.witness, two.witness]))
        await it.add(3)
        await it.until_all_sealed()
        await it.publish(policy_text(ledger, [one.witness]))
        await it.until_all_sealed()
        asked = len(two.asked)
        await two.stop()
        await it.add()
        sealed = await it.until_sealed(4)
        assert {each.witness for each in sealed.cosignatures} == {"one"}
        assert len(two.asked) == asked
        # What it had cosigned still stands where it was a witness, and nowhere in the notes of today.
        earlier = it.published.sealed_reader
        assert earlier is not None
        old = earlier.first_covering(REGISTER, 0)
        assert old is not None
        assert {each.witness for each in old.cosignatures} == {"one"}
        assert [each.name for each in it.cosigner.standings()] == ["one"]


async def test_a_policy_comes_into_force_by_itself(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness
) -> None:
    """If false, an announced policy would wait for the next governance decision, or a restart."""
    ahead = 0.0
    async with witnessed(ledger.root) as it:
        it.opened.policies._clock = lambda: time.time() + ahead
        await it.publish(policy_text(ledger, [one.witness]))
        await it.until_all_sealed()
        later = datetime.now(UTC) + timedelta(hours=1)
        await it.publish(policy_text(ledger, [one.witness, two.witness]), f"{later:%Y-%m-%dT%H:%M:%SZ}")
        await it.until_all_sealed()
        assert two.asked == []
        ahead = 3_600.0
        await it.until(lambda: len(it.policy.witnesses) == 2)
        await it.until_all_sealed()
        assert two.size_of(MAIN) == 0
        assert MAIN in two.latest


async def test_a_policy_that_asks_nobody_any_more_lets_registers_grow(
    ledger: LedgerOnDisk, one: ScriptedWitness
) -> None:
    """If false, a ledger whose witnesses are gone for good could not go on, though governance says so."""
    async with witnessed(ledger.root) as it:
        await it.publish(policy_text(ledger, [one.witness]))
        await it.until_all_sealed()
        await it.publish(policy_text(ledger, [one.witness], "quorum none"))
        await it.until(lambda: it.published.policy is None)
        await one.stop()
        await it.add()
        assert it.sealed_size() is None
        await it.send(opening(f"{DEPARTMENT}/permanent-secretary"))
        await it.add(1, f"{DEPARTMENT}/permanent-secretary")
