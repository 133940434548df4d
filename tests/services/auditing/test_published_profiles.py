"""Profiles and calendars in a governing register, where registration accepts any object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ledger.errors import RejectedError
from ledger.governing import GOVERNING
from ledger.stores.memory import MemoryStore
from services.auditing.declared import members
from services.auditing.profiles import in_force, published_overrides, published_profile, shipped
from tests.support.ledgers import LedgerUnderTest, open_ledger
from tests.support.times import seconds

PROFILE = members(shipped("nccc-2023"))
DAYS: Mapping[str, Any] = {
    "type": "daybook.calendar/1",
    "name": "days",
    "calendar": "foi-uk",
    "dated": "2026-11-26",
    "basis": "Made up",
    "working": [{"date": "2027-08-30", "reason": "Moved to another day"}],
}


@pytest.fixture
def held(tmp_path: Path) -> Iterator[LedgerUnderTest]:
    """A ledger with three governing entries."""
    ledger = open_ledger(MemoryStore(), tmp_path / "marks")
    yield ledger
    ledger.signer.close()


def publish(held: LedgerUnderTest, kind: str, name: str, value: Mapping[str, Any]) -> bytes:
    """Publish an object; return its entry, as it is found through the fold."""
    held.govern(
        "policy.published/1", kind=kind, name=name, effective_from="2026-07-01T00:00Z", **{kind: dict(value)}
    )
    published = in_force(held.ledger.fold.published, kind, seconds("2026-07-01T00:00:00Z"))
    return held.ledger.reader(GOVERNING).entry(published[-1].index)


def test_what_is_published_is_read_from_its_entry(held: LedgerUnderTest) -> None:
    """False if an auditor used another profile, or other days, than governance signed."""
    assert published_profile(publish(held, "profile", "nccc-2023", PROFILE)) == shipped("nccc-2023")
    overrides = published_overrides(publish(held, "calendar", "days", DAYS))
    assert members(overrides) == DAYS


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("profile", "nccc-2023", {"limit": 5}),
        ("profile", "daybook-strict", PROFILE),
        ("profile", "days", DAYS),
        ("calendar", "nccc-2023", PROFILE),
        ("calendar", "other", DAYS),
        ("calendar", "bank holidays", {"days": ["2026-12-25"]}),
    ],
)
def test_what_is_published_and_is_none_is_refused(
    held: LedgerUnderTest, kind: str, name: str, value: Mapping[str, Any]
) -> None:
    """False if an object that registration let pass were taken for a profile, or one for another's name."""
    entry = publish(held, kind, name, value)
    with pytest.raises(RejectedError):
        (published_profile if kind == "profile" else published_overrides)(entry)


def test_an_entry_of_another_kind_is_refused(held: LedgerUnderTest) -> None:
    """False if whatever stands at an index were read as a profile."""
    calendar = publish(held, "calendar", "days", DAYS)
    for entry in (calendar, held.ledger.reader(GOVERNING).entry(0)):
        with pytest.raises(RejectedError):
            published_profile(entry)
