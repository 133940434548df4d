"""What people type to say which entries they mean: one meaning in `daybook query` and `daybook evidence`."""

from __future__ import annotations

import json

import pytest

from ledger.errors import MalformedError, RejectedError
from ledger.record_queries import CHANNELS
from services.criteria import KINDS, channel, decided_within, index_range, kind
from services.evidence.selection import parse_selection
from tests.support.ledgers import decision


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026", ("2026", "2026")),
        ("2026-05..2026-06", ("2026-05", "2026-06")),
        ("2026-05/2026-06", ("2026-05", "2026-06")),
        ("2026-05..2026-05-03", ("2026-05", "2026-05-03")),
        ("2026-05/2026-05", ("2026-05", "2026-05")),
        ("2026-05-01T09:30Z..2026-06-25", ("2026-05-01T09:30Z", "2026-06-25")),
    ],
)
def test_a_time_is_typed_as_one_date_or_as_two(text: str, expected: tuple[str, str]) -> None:
    """False if a spelling that one command teaches were refused by another."""
    assert decided_within(text) == expected


@pytest.mark.parametrize(
    "text", ["", "..", "soon", "2026..", "/2026", "2026..2026..2026", "2025/2026..2027", "2026-06..2026-05"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    """False if a slip of the pen were answered."""
    with pytest.raises(MalformedError):
        decided_within(text)


@pytest.mark.parametrize(("text", "expected"), [("0", (0, 0)), ("3..9", (3, 9)), ("3..3", (3, 3))])
def test_indices_are_typed_as_one_or_as_a_range(text: str, expected: tuple[int, int]) -> None:
    """False if the entries that a finding names could not be asked for."""
    assert index_range(text) == expected


@pytest.mark.parametrize("text", ["", "-1", "01", "9..3", "3..", "3-9", "3,4", "٣"])
def test_what_is_no_index_is_refused(text: str) -> None:
    """False if a slip of the pen were answered with other entries."""
    with pytest.raises(MalformedError):
        index_range(text)


@pytest.mark.parametrize(
    ("judge", "value", "allowed"), [(channel, "watsapp", CHANNELS), (kind, "contract", KINDS)]
)
def test_a_code_that_no_record_can_have_is_refused_with_those_that_one_can(
    judge: object, value: str, allowed: tuple[str, ...]
) -> None:
    """False if nobody were told which words there are."""
    assert callable(judge)
    with pytest.raises(RejectedError, match=r"^--this 'x': '.*' is not one of ") as caught:
        judge("--this 'x'", value)
    (violation,) = caught.value.violations
    assert (violation.field, violation.allowed) == ("--this", allowed)


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        (["type=grant"], [0, 2]),
        (["type=grant", "type=policy"], [0, 1, 2]),
        (["type=grant", "type=decision.registered/1"], [0, 2]),
        (["type=grant", "type=return.filed/1"], []),
        (["type=grant", "channel=signal"], [2]),
        (["decided=2026-05/2026-06"], [0, 1]),
        (["decided=2026-05..2026-06"], [0, 1]),
    ],
)
def test_a_selection_means_what_a_query_means(select: list[str], expected: list[int]) -> None:
    """False if a pack of all grants held nothing, though a query lists them."""
    records = [
        decision(0, decision_type="grant"),
        decision(1, decision_type="policy", decided_at="2026-06-30"),
        decision(2, decision_type="grant", channel="signal", decided_at="2026-07-01"),
    ]
    selection = parse_selection(select)
    assert [index for index, record in enumerate(records) if selection.takes(index, record)] == expected


@pytest.mark.parametrize("wrong", [[], {}, 1, None])
def test_a_record_that_breaks_its_rules_neither_stops_a_selection_nor_hides_from_it(wrong: object) -> None:
    """False if one entry of a lying ledger kept every pack from being made, or were left out unseen."""
    names = ("record_id", "type", "decision_type", "channel", "decided_at")
    record = json.dumps(dict.fromkeys(names, wrong)).encode()
    asked = ["type=grant", "channel=signal", "decided=2026"]
    assert all(parse_selection([each]).takes(0, record) for each in asked)
