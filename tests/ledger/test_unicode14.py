from __future__ import annotations

import sys
import unicodedata
from pathlib import Path

import pytest

import ledger.unicode14
from ledger.unicode14 import UNASSIGNED
from tests.support.unicode14_table import ranges_in_unicodedata, rendered


@pytest.mark.skipif(unicodedata.unidata_version != "14.0.0", reason="needs the Unicode data of Python 3.11")
def test_the_table_is_what_its_script_writes() -> None:
    """If false, the table was edited by hand, or is not Unicode 14.0."""
    assert Path(str(ledger.unicode14.__file__)).read_text(encoding="utf-8") == rendered(ranges_in_unicodedata())


def test_the_table_leaves_the_published_number_of_code_points_unassigned() -> None:
    """If false, the table is not Unicode 14.0, on whatever Python this runs.

    144,697 characters (graphic and format), 65 controls, 137,468 private use and 2,048 surrogates are
    assigned in 14.0; the rest of 1,114,112 code points are not.
    """
    unassigned = sum(last - first + 1 for first, last in UNASSIGNED)
    assert sys.maxunicode + 1 - unassigned == 144_697 + 65 + 137_468 + 2_048


def test_the_ranges_are_in_order_and_apart() -> None:
    """If false, a code point is listed twice, or a look-up goes astray."""
    assert all(0 < first <= last <= sys.maxunicode for first, last in UNASSIGNED)
    ends = [last for _, last in UNASSIGNED]
    begins = [first for first, _ in UNASSIGNED]
    assert all(begin > end + 1 for end, begin in zip(ends, begins[1:], strict=False))


def test_what_was_assigned_in_unicode_14_is_assigned_here() -> None:
    """If false, this Python's Unicode data is older than 14.0, and its normalization cannot be relied on."""
    still_unassigned = {point for first, last in ranges_in_unicodedata() for point in range(first, last + 1)}
    in_the_table = {point for first, last in UNASSIGNED for point in range(first, last + 1)}
    assert still_unassigned <= in_the_table
