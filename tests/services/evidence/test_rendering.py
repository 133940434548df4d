from __future__ import annotations

import pytest

from services.evidence.rendering import NOT_CANONICAL, render, visible


def test_a_record_is_read_as_one_line_for_each_member() -> None:
    """False if a reader of the text met another record than its bytes are."""
    record = b'{"a":{"b":"x"},"c":[{"d":true},{"d":false}],"e":12,"f":"one\\ntwo"}'
    assert render(record) == b"a.b: x\nc/0.d: yes\nc/1.d: no\ne: 12\nf: one\n    | two\n"


def test_a_text_cannot_forge_a_line_of_its_own() -> None:
    """False if what a record says could pass for another member, or for our words."""
    lines = render(b'{"a":"x\\ntitle: forged","b":"y"}').decode().splitlines()
    assert lines == ["a: x", "    | title: forged", "b: y"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31m", "{U+001B}[31m"),
        ("\u202eevil", "{U+202E}evil"),
        ("\u200b", "{U+200B}"),
        ("\u2028", "{U+2028}"),
        ("\U000e0041", "{U+E0041}"),
        ("plain é 😀\n", "plain é 😀\n"),
    ],
)
def test_what_hides_steers_or_reorders_is_spelled_out(text: str, shown: str) -> None:
    """False if a record could show a reader something else than it says."""
    assert visible(text) == shown


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"[]",
        b'{"a":1.0}',
        b'{"a":-1}',
        b'{"a":null}',
        b'{"a":1,"a":1}',
        b'{"b":1,"a":1}',
        b'{"a": 1}',
        b'{"a":9007199254740992}',
        b'{"a":"\\ud800"}',
        b"\xff",
        b'{"a":NaN}',
        b'{"a":' * 17 + b"1" + b"}" * 17,
    ],
)
def test_bytes_that_could_be_read_in_two_ways_are_not_rendered(record: bytes) -> None:
    """False if two readers of the same bytes could be shown two different records."""
    assert render(record) == NOT_CANONICAL
