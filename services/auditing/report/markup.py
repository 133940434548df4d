"""HTML from parts. Whatever is not markup already is escaped, so that nothing is injected by forgetting to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from typing import Final

from services.evidence.rendering import visible

_VOID: Final = frozenset({"br", "meta"})
_EMPTY: Final = frozenset({"line", "path", "rect"})
_INSTANT: Final = re.compile(r"(\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d)?Z)?)", re.ASCII)


class Markup(str):
    """Text that is HTML already. Joined to other text it is plain text again, and is escaped."""

    __slots__ = ()


def shown(text: str) -> Markup:
    """Return text as it may stand in a page: nothing in it is markup, hides, steers or reorders."""
    return text if isinstance(text, Markup) else Markup(escape(visible(text)))


def timed(text: str) -> Markup:
    """Return text with the instants in it kept on one line."""
    parts = _INSTANT.split(text)
    return join(tag("span", part, class_="at") if _INSTANT.fullmatch(part) else part for part in parts)


def cut(text: str, limit: int) -> str:
    """Return the first `limit` characters of a text, and how many are left out."""
    left = len(text) - limit
    return text if left <= 0 else f"{text[:limit]} … ({left:,} more characters)"


def join(parts: Iterable[str], between: str = "") -> Markup:
    """Return parts one after the other."""
    return Markup(shown(between).join(map(shown, parts)))


def tag(name: str, /, *content: str, **attributes: str | None) -> Markup:
    """Return an element. An attribute of None is left out; `class_` and `aria_label` give the names meant."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{shown(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    if name in _EMPTY:
        return Markup(f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{join(content)}</{name}>")
