"""What commands print of text that others wrote."""

from __future__ import annotations

import json

from services.cli.reporting import json_text


def test_json_is_read_back_as_it_was_and_steers_no_terminal() -> None:
    """False if text in a record could colour, turn or hide what `--json` shows on a terminal."""
    hostile = "one\x9b2J two\x1b[2J\N{RIGHT-TO-LEFT OVERRIDE}\N{LINE SEPARATOR}\N{TAG SPACE}\x7f café 決定"
    for value in ({hostile: [hostile, 1, None, True]}, hostile):
        text = json_text(value)
        assert json.loads(text) == value
        assert all(each.isprintable() or each == "\n" for each in text)
        assert "café 決定" in text
    assert "\n" not in json_text({"a": [1, 2]}, indent=None)
