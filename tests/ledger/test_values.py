"""The value types of formats.md, section 2: accepted and refused spellings, and the seconds of partials."""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import base64, values
from ledger.errors import MalformedError
from ledger.values import Form, is_instant, is_key, is_partial, is_period, is_register, is_vkey, partial
from tests.support.vectors import load

CHECKS: dict[str, Callable[[str], bool]] = {
    "slug": values.is_slug,
    "register": values.is_register,
    "ledger_origin": values.is_ledger_origin,
    "amount": values.is_amount,
    "uuid": values.is_uuid,
}
ANNOTATED = {
    name: annotation
    for name, annotation in vars(values).items()
    if any(isinstance(note, Form) for note in get_args(annotation))
}
SINGLE = st.dates(min_value=date(1900, 1, 1)).flatmap(
    lambda day: st.sampled_from([f"{day}", f"{day}"[:7], f"{day}"[:4], f"{day}T09:30Z", f"{day}T23:59:59Z"])
)


def second(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


@pytest.mark.parametrize("name", CHECKS)
def test_each_value_type_accepts_and_refuses_what_the_vectors_say(name: str) -> None:
    """Another implementation's spelling would otherwise be refused here, or ours there."""
    cases = load("values.json")[name]
    for value in cases["accept"]:
        assert CHECKS[name](value), value
    for value in [*cases["refuse"], *(f"{value}\n" for value in cases["accept"])]:
        assert not CHECKS[name](value), value


@pytest.mark.parametrize("case", load("partial-dates.json")["accept"], ids=lambda case: case["value"])
def test_a_partial_covers_the_seconds_of_the_vectors(case: dict[str, str]) -> None:
    """Deadlines are judged by these seconds; civil dates are London's, summer time included."""
    covered = partial(case["value"])
    assert (covered.earliest, covered.latest) == (second(case["earliest"]), second(case["latest"]))
    assert is_partial(case["value"])


@pytest.mark.parametrize("value", [*load("partial-dates.json")["refuse"], "2026\n", "2026/", "٢٠٢٦", "10000"])
def test_another_spelling_of_a_partial_is_refused(value: str) -> None:
    """Two spellings would be two precisions, or none."""
    assert not is_partial(value)
    with pytest.raises(MalformedError):
        partial(value)


def test_every_day_of_every_year_is_a_date_and_no_other_is() -> None:
    """The calendar is written as a pattern; this is the calendar."""
    for year in (*range(1896, 2110), *range(2396, 2404), *range(9990, 10_000)):
        for month in range(14):
            for day in (0, 1, 9, 10, 19, 20, 28, 29, 30, 31, 32, 39):
                real = year >= 1900 and 1 <= month <= 12 and 1 <= day <= calendar.monthrange(year, month)[1]
                assert is_partial(f"{year:04}-{month:02}-{day:02}") == real, (year, month, day)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_many_uuids_are_uuids_each(count: int) -> None:
    """False if among others something passed for a UUID that is none, such as two of them on two lines."""
    cases = load("values.json")["uuid"]
    there = cases["accept"][:1] * count
    assert values.are_uuids(there)
    assert values.are_uuids(cases["accept"])
    refused = [*cases["refuse"], "", "\n", *(f"{value}\n" for value in cases["accept"])]
    refused += [f"{a}\n{b}" for a in cases["accept"] for b in cases["accept"]]
    refused += ["\n".join(cases["accept"]), cases["accept"][0] + cases["accept"][0]]
    for value in refused:
        for place in range(count + 1):
            assert not values.are_uuids([*there[:place], value, *there[place:]]), value


@given(SINGLE)
def test_a_partial_lies_within_every_coarser_one(value: str) -> None:
    """A day must not begin before its month does."""
    covered = partial(value)
    assert covered.earliest <= covered.latest
    if "T" not in value and len(value) > 4:
        coarser = partial(value.rpartition("-")[0])
        assert coarser.earliest <= covered.earliest
        assert covered.latest <= coarser.latest


@given(st.dates(min_value=date(1900, 1, 1), max_value=date(9999, 12, 30)))
def test_days_follow_one_another_without_gap_or_overlap(day: date) -> None:
    """No second belongs to two days or to none, when the clocks change as well."""
    assert partial(f"{day}").latest + 1 == partial(f"{day + timedelta(days=1)}").earliest


@given(SINGLE, SINGLE)
def test_an_interval_is_of_two_partials_in_order(first: str, last: str) -> None:
    """`a/b` is accepted exactly when a ends before b begins, and covers both."""
    begins, ends = partial(first), partial(last)
    assert is_partial(f"{first}/{last}") == (begins.latest < ends.earliest)
    if begins.latest < ends.earliest:
        covered = partial(f"{first}/{last}")
        assert (covered.earliest, covered.latest) == (begins.earliest, ends.latest)


@given(st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(9999, 12, 31)))  # noqa: DTZ001
def test_an_instant_is_a_partial_to_the_second_or_the_minute(moment: datetime) -> None:
    """An instant has one meaning as either."""
    exact = f"{moment:%Y-%m-%dT%H:%M:%S}Z".rjust(20, "0")
    assert is_instant(exact)
    at = (moment.replace(microsecond=0, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    assert partial(exact) == values.Partial(at, at)
    minute = partial(f"{exact[:16]}Z")
    assert (minute.earliest, minute.latest) == (at - moment.second, at - moment.second + 59)


def test_an_instant_has_a_time_and_a_period_has_none() -> None:
    """`effective_from` is a moment, and a return's period whole days."""
    assert is_instant("2026-01-05T09:06Z")
    assert not is_instant("2026-01-05")
    assert not is_instant("2026-01-05T09:06Z/2026-01-06T09:06Z")
    assert is_period("2026-01/2026-03")
    assert not is_period("2026-01-05T09:06Z")
    assert not is_period("2026-01/2026-03-31T09:06Z")


@given(st.binary(min_size=32, max_size=32), st.integers(0, 43), st.characters(codec="ascii"))
def test_a_key_is_canonical_base64_of_32_bytes(public: bytes, place: int, character: str) -> None:
    """A key in another spelling would be another key in the governing register."""
    text = base64.encode(public)
    assert is_key(text)
    other = text[:place] + character + text[place + 1 :]
    try:
        is_spelled = len(base64.decode(other, 32)) == 32
    except MalformedError:
        is_spelled = False
    assert is_key(other) == is_spelled


def test_a_vkey_has_its_key_id_and_is_no_witness_key() -> None:
    """A vkey of another type would be trusted for what it does not sign."""
    good = "ledger.daybook.example/governing+e5b2b79d+AYbD14wMhBIbU4gR+XKvsEi0aCLDXZ2k7WZML8UK61cQ"
    assert is_vkey(good)
    assert not is_vkey(good.replace("e5b2b79d", "e5b2b79e"))
    assert not is_vkey("witness-one.example/w+9ba24533+BGNzAIwSV2U9GSx35EM4YuIVbazdmOgXtBHZBwDI1fRs")
    assert not is_vkey("")


def test_names_of_a_hundred_fit_and_longer_ones_do_not() -> None:
    """Each half of a register is a slug of at most 100."""
    assert is_register(f"{'x' * 100}/{'y' * 100}")
    assert not is_register(f"{'x' * 101}/y")
    assert not is_register(f"x/{'y' * 101}")
    assert values.is_series("A" * 100)
    assert not values.is_series("A" * 101)
    assert not values.is_series("MD//2026")
    assert values.is_line("😀" * 500)
    assert not values.is_line("😀" * 501)
    assert not values.is_line("a\nb")
    assert values.is_text("a\nb")
    assert not values.is_text("")
    assert values.is_sha256("0" * 64)
    assert not values.is_sha256("A" * 64)
    assert values.is_currency("GBP")
    assert not values.is_currency("gbp")


@pytest.mark.parametrize("name", ANNOTATED)
@given(st.data())
def test_the_published_pattern_of_a_form_accepts_what_the_form_accepts(name: str, data: Any) -> None:
    """The JSON Schemas publish the pattern: a client must not be told that a good value is bad."""
    (form,) = (note for note in get_args(ANNOTATED[name]) if isinstance(note, Form))
    samples = st.sampled_from(
        ["governing", "a/b", "2026-02-29", "2024-02-29", "2026-06-25T09:30Z", "2020-07/2020-09", "0.00", "GBP"]
    )
    value = data.draw(
        samples | st.from_regex(form.pattern or "", fullmatch=True) if name != "Vkey" else samples
    )
    if form.accepts(value):
        assert re.search(f"^(?:{form.pattern})$", value)
