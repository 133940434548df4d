"""Tables: a caption, a header for every column, and one for every row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from services.auditing.report.markup import Markup, join, tag


def table(
    caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]], total: Sequence[str] = ()
) -> Markup:
    """Return a table whose rows begin with their header; `total` is the last row.

    A narrow screen scrolls it sideways; on paper nothing is cut off.
    """
    head = tag("tr", *(tag("th", column, scope="col") for column in columns))
    body = join(_row(row) for row in rows)
    foot = tag("tfoot", _row(total)) if total else ""
    made = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", body), foot)
    return scrolling(made, f"Table: {caption}")


def scrolling(content: Markup, name: str) -> Markup:
    """Return what is wider than a narrow screen, with a name by which it is reached with the keyboard."""
    return tag("div", content, class_="scroll", tabindex="0", role="region", aria_label=name)


def facts(pairs: Iterable[tuple[str, str]]) -> Markup:
    """Return names with what they stand for; those without anything are left out."""
    return tag(
        "dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs if value), class_="facts"
    )


def listed(items: Iterable[str], class_: str | None = None) -> Markup:
    """Return a list."""
    return tag("ul", *(tag("li", item) for item in items), class_=class_)


def _row(cells: Sequence[str]) -> Markup:
    first, *rest = cells
    return tag("tr", tag("th", first, scope="row"), *map(_cell, rest))


def _cell(content: str) -> Markup:
    is_number = content.replace(",", "").isascii() and content.replace(",", "").isdigit()
    return tag("td", content, class_="number" if is_number else None)
