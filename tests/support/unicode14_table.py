"""Writes ledger/unicode14.py, on an interpreter whose Unicode data is 14.0.0 (Python 3.11).

Run from the root of the repository::

    python -m tests.support.unicode14_table > ledger/unicode14.py
"""

from __future__ import annotations

import sys
import textwrap
import unicodedata
from itertools import groupby

MODULE = '''"""Which code points Unicode 14.0 leaves unassigned (general category Cn).

Written by tests/support/unicode14_table.py: do not edit. Python 3.11 knows Unicode 14.0, later Pythons
know more of it; what a record may say must not depend on which one reads it (formats.md, section 1).
"""

from __future__ import annotations

from typing import Final

_TABLE: Final = """
{table}
"""

UNASSIGNED: Final = tuple(
    (int(first, 16), int(last or first, 16))
    for first, _, last in (item.partition("-") for item in _TABLE.split())
)
"""Ranges (first, last), both included, in order. Noncharacters are among them; private use is not."""
'''


def ranges_in_unicodedata() -> list[tuple[int, int]]:
    """Return the unassigned ranges according to this interpreter."""
    unassigned = [point for point in range(sys.maxunicode + 1) if unicodedata.category(chr(point)) == "Cn"]
    runs = groupby(enumerate(unassigned), lambda pair: pair[1] - pair[0])
    return [(run[0][1], run[-1][1]) for run in (list(group) for _, group in runs)]


def rendered(ranges: list[tuple[int, int]]) -> str:
    """Return the text of ledger/unicode14.py for these ranges."""
    items = (f"{first:x}" if first == last else f"{first:x}-{last:x}" for first, last in ranges)
    table = textwrap.fill(" ".join(items), 108, break_on_hyphens=False)
    return MODULE.format(table=table)


if __name__ == "__main__":
    if unicodedata.unidata_version != "14.0.0":
        sys.exit(f"Unicode {unicodedata.unidata_version} here: needs a Python with 14.0.0")
    sys.stdout.write(rendered(ranges_in_unicodedata()))
