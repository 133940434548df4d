"""The coded vocabularies are those of the domain model."""

from __future__ import annotations

from typing import get_args

from ledger import vocabularies
from ledger.vocabularies import NCCC, REFUSED_TIERS, VOCABULARIES
from tests.support.vectors import load


def test_each_vocabulary_has_the_codes_of_the_domain_model_in_order() -> None:
    """A code too few refuses a true record; a code too many registers what nobody understands."""
    expected = load("vocabularies.json")
    nccc = expected.pop("nccc")
    assert {name: list(VOCABULARIES[name]) for name in expected} == expected
    assert set(nccc) == NCCC


def test_every_private_channel_is_a_channel_and_parliament_is_not_private() -> None:
    """Findings on private channels rest on this set."""
    assert set(get_args(vocabularies.Channel)) >= NCCC
    assert "parliamentary_email" not in NCCC
    assert "unknown" not in NCCC


def test_refused_tiers_are_no_codes() -> None:
    """SECRET must never pass as a tier."""
    assert not REFUSED_TIERS & set(get_args(vocabularies.Tier))


def test_no_vocabulary_holds_a_code_twice() -> None:
    """A repeated code is a slip of transcription."""
    for name, codes in VOCABULARIES.items():
        assert len(set(codes)) == len(codes) > 0, name
