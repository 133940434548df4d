"""Which witnesses a ledger has published: read from its governing entries alone."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.governing import GOVERNING
from ledger.published_policies import witness_keys, witness_policies
from ledger.stores.memory import MemoryStore
from ledger.witnessing import Policy
from tests.support.ledgers import LedgerUnderTest, open_ledger, vkey
from tests.support.story import policy
from tests.support.vectors import load


@pytest.fixture
def held(tmp_path: Path) -> Iterator[LedgerUnderTest]:
    """A ledger with three governing entries."""
    ledger = open_ledger(MemoryStore(), tmp_path / "marks")
    yield ledger
    ledger.signer.close()


def publish(held: LedgerUnderTest, text: str, kind: str = "witness") -> int:
    """Publish a policy; return the index of its entry."""
    members = {"text": text} if kind == "witness" else {"profile": {"text": text.replace("\n", " ")}}
    return held.govern(
        "policy.published/1", kind=kind, name="default", effective_from="2026-07-01T00:00Z", **members
    )


def entries(held: LedgerUnderTest) -> list[bytes]:
    """Return all governing entries."""
    return held.ledger.store.entries(GOVERNING, 0, 100)


def test_the_policy_of_the_vectors_is_read_from_their_governing_register() -> None:
    """False if the witnesses that another implementation published were not those read here."""
    published = [entry.encode() for entry in load("registers.json")[GOVERNING]["entries"]]
    ((index, effective_from, read),) = witness_policies(published)
    assert read == policy()
    assert f'"effective_from":"{effective_from}"'.encode() in published[index]
    assert {key.name for key in witness_keys([policy()]).values()} == {
        f"witness-{number}.example/w" for number in ("one", "two", "three")
    }


def test_every_policy_ever_published_is_yielded_with_its_index(held: LedgerUnderTest) -> None:
    """False if an earlier policy were forgotten when a later one replaces it: its cosignatures are kept."""
    first = f"log {vkey(GOVERNING)}\nquorum none\n"
    one = publish(held, first)
    held.open_register("department-for-testing/permanent-secretary")
    two = publish(held, first + "# again\n")
    assert [(index, read) for index, _, read in witness_policies(entries(held))] == [
        (one, Policy.parse(first.encode())),
        (two, Policy.parse(first.encode())),
    ]


def test_a_text_that_is_no_policy_is_told_as_none(held: LedgerUnderTest) -> None:
    """False if a text that registration accepts could stop whoever reads the policies."""
    index = publish(held, "quorum")
    assert [(at, read) for at, _, read in witness_policies(entries(held))] == [(index, None)]


def test_what_only_mentions_a_policy_is_passed_over(held: LedgerUnderTest) -> None:
    """False if a profile, or a title that quotes the type, were taken for a witness policy."""
    publish(held, f"log {vkey(GOVERNING)}\nquorum none\n", kind="profile")
    held.open_register("department-for-testing/minister-of-state", 'The "policy.published/1" minister')
    damaged = entries(held)[-1].replace(b"entry/1", b"entry/9")
    assert list(witness_policies([*entries(held), damaged, b'"policy.published/1"'])) == []
