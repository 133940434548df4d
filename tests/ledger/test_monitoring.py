"""What a monitor judges for itself, apart from where it reads."""

from __future__ import annotations

import pytest

from ledger.monitoring import seconds_unanchored
from ledger.witnessing import Cosignature, Group, Quorum

WITNESSES = ("one", "two", "three")
TWO_OF_THREE = Quorum(WITNESSES, (Group("two-of-three", 2, WITNESSES),), "two-of-three")
ANY = Quorum(WITNESSES, (Group("any", 1, WITNESSES),), "any")
NONE = Quorum(WITNESSES, (), None)


def cosigned(size: int, **times: int) -> list[Cosignature]:
    return [Cosignature(witness, size, time) for witness, time in times.items()]


def elapsed(
    register: list[Cosignature], governing: list[Cosignature], quorum: Quorum = TWO_OF_THREE
) -> int | None:
    return seconds_unanchored(register, 7, governing, 20, quorum)


def test_it_counts_from_when_the_quorum_was_met_to_when_a_quorum_last_knew_no_more() -> None:
    """False if one witness alone, with whatever clock, could make a ledger late, or keep it from being late."""
    register = cosigned(7, one=100, two=130, three=900)
    assert elapsed(register, cosigned(20, one=500, two=400, three=450)) == 450 - 130
    assert elapsed(register, cosigned(20, one=500, two=50)) == 50 - 130


@pytest.mark.parametrize(
    ("register", "governing"),
    [
        (cosigned(7, one=100), cosigned(20, one=500, two=500)),
        (cosigned(7, one=100, two=100), cosigned(20, one=500)),
        ([], []),
    ],
)
def test_without_a_quorum_on_either_side_nothing_is_said(
    register: list[Cosignature], governing: list[Cosignature]
) -> None:
    """False if fewer witnesses than the policy asks for proved a time."""
    assert elapsed(register, governing) is None


@pytest.mark.parametrize("quorum", [ANY, NONE], ids=["any", "none"])
def test_times_of_quorums_that_share_no_witness_are_not_compared(quorum: Quorum) -> None:
    """False if two clocks that nobody has compared decided (formats.md, section 15)."""
    both = cosigned(7, one=100, two=100), cosigned(20, one=5_000, two=5_000)
    assert elapsed(*both) == 4_900
    assert elapsed(*both, quorum) is None


def test_an_empty_register_counts_too() -> None:
    """False if a register's beginning needed no anchor."""
    register = cosigned(0, one=100, two=100)
    assert seconds_unanchored(register, 0, cosigned(20, one=500, two=500), 20, TWO_OF_THREE) == 400
