"""Queries: what fits, what may fit, and what cannot be asked."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import canonical
from ledger.errors import RejectedError
from ledger.record_queries import Fit, make_query
from ledger.records import Header, parse_record
from ledger.values import partial
from tests.support.ledgers import decision, record_id
from tests.support.record_strategies import department_records


@st.composite
def dates(draw: st.DrawFn) -> str:
    """Return a partial date of any precision around 2026."""
    day = date(2026, 1, 1) + timedelta(days=draw(st.integers(0, 400)))
    text = day.isoformat()
    return draw(st.sampled_from([text[:4], text[:7], text, f"{text}T09:30Z", f"{text}T09:30:05Z"]))


@given(dates(), dates(), dates())
def test_a_time_fits_by_the_seconds_that_it_covers(decided: str, begin: str, end: str) -> None:
    """False if a decision that may have been taken in the time asked for were left out.

    Every second of the decision's date is inside, or some are, or none is.
    """
    if partial(begin).earliest > partial(end).latest:
        with pytest.raises(RejectedError):
            make_query(decided_from=begin, decided_to=end)
        return
    fit = make_query(decided_from=begin, decided_to=end).fit(parse_record(decision(0, decided_at=decided)))
    covered = range(partial(decided).earliest, partial(decided).latest + 1)
    asked = range(partial(begin).earliest, partial(end).latest + 1)
    inside = [second in asked for second in (covered[0], covered[-1])]
    overlap = max(covered[0], asked[0]) <= min(covered[-1], asked[-1])
    assert fit is (Fit.YES if all(inside) else Fit.PERHAPS if overlap else Fit.NO)


@given(department_records())
def test_no_condition_fits_every_record(record: dict[str, Any]) -> None:
    """False if a list of everything left something out."""
    assert make_query().fit(parse_record(canonical.format(record))) is Fit.YES


def test_what_a_record_lacks_does_not_fit() -> None:
    """False if a withdrawal, which has no channel, were shown for every channel."""
    returned = parse_record(
        b'{"nil_return":true,"period":"2026-04","record_id":"%b","register":"a/b","series":"MD/2026",'
        b'"signatory":{"office":"secretary-of-state","role":"secretary_of_state"},"type":"return.filed/1",'
        b'"version":1}' % record_id(0).encode()
    )
    assert make_query(series="MD/2026").fit(returned) is Fit.YES
    assert make_query(types=["return.filed/1"]).fit(returned) is Fit.YES
    assert make_query(channels=["whatsapp"]).fit(returned) is Fit.NO
    assert make_query(decided_to="2030").fit(returned) is Fit.NO


def test_of_a_record_that_cannot_be_read_only_its_head_decides() -> None:
    """False if a decision could be hidden from a question by breaking a rule of its record."""
    query = make_query(types=["return.filed/1"], record_id=record_id(0), channels=["whatsapp"])
    assert query.may_fit(Header())
    assert query.may_fit(Header("return.filed/1", record_id(0)))
    assert not query.may_fit(Header("decision.registered/1", record_id(0)))
    assert not query.may_fit(Header("return.filed/1", record_id(1)))


def test_every_fault_of_a_question_is_told_at_once() -> None:
    """False if somebody had to guess his way to a question that is answered."""
    with pytest.raises(RejectedError) as caught:
        make_query(types=["x"], decision_types=["x"], channels=["x"], record_id="x", series="/", decided_to="x")
    assert sorted(each.field for each in caught.value.violations) == sorted(
        ["types", "decision_types", "channels", "record_id", "series", "decided_to"]
    )
