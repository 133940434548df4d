"""The report of an audit: one HTML file that loads nothing, runs nothing, and can be printed.

Verdict first, then counts, plots, findings with their exhibits, and what all of that does not show. The same
audit gives the same bytes.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Final

from services.auditing.report import texts
from services.auditing.report.exhibits import Exhibit, Place
from services.auditing.report.figures import Figures
from services.auditing.report.finding_list import Link, Links, counted, finding_list, weighed
from services.auditing.report.lag_plot import histogram
from services.auditing.report.markup import Markup, cut, join, tag, timed
from services.auditing.report.registers import counts_table, kept_told, promises_told, register_sections
from services.auditing.report.tables import facts, listed
from services.auditing.report.timeline_plot import timeline
from services.auditing.report.timing_tables import (
    after_returns_explained,
    after_returns_table,
    classes_table,
    in_a_sentence,
    lags_explained,
    lags_table,
    months_table,
    registers_table,
)
from services.auditing.report.words import many, time_in_words
from services.auditing.results import AuditResult, Standing

_SENTENCE: Final = 2_000
_MOST_SENTENCES: Final = 200
_NO_EXHIBITS: Final[Mapping[Place, Exhibit]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Basis:
    """On what the lateness of decisions was judged: the profile's title and what it rests on, in its words.

    `figures` are what was counted under it.
    """

    title: str
    basis: str
    figures: Figures


def report_page(
    result: AuditResult, basis: Basis | None, link: Link, exhibits: Mapping[Place, Exhibit] = _NO_EXHIBITS
) -> bytes:
    """Return the report as UTF-8; `basis` is None where no decision was judged.

    `exhibits` are entries that findings name, in the order in which they are listed.
    """
    parts = list(_parts(result, basis, Links(link, exhibits)))
    contents = tag(
        "nav",
        tag("h2", "Contents", id="contents"),
        listed(tag("a", title, href=f"#{name}") for name, title, _ in parts),
        aria_labelledby="contents",
    )
    verdict, *others = (
        tag("section", tag("h2", title, id=name), content, aria_labelledby=name)
        for name, title, content in parts
    )
    body = tag(
        "body",
        tag("a", "Skip to the verdict", href="#verdict", class_="skip"),
        tag("header", *_head(result)),
        tag("main", verdict, contents, *others),
        tag(
            "footer",
            tag("p", f"Daybook {cut(result.software, 100)}. This page loads nothing and runs nothing."),
        ),
    )
    page = tag(
        "html",
        tag(
            "head",
            tag("meta", charset="utf-8"),
            tag("meta", http_equiv="Content-Security-Policy", content=_security_policy()),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="referrer", content="no-referrer"),
            tag("title", f"Audit report: {cut(result.ledger, 200)}, {time_in_words(result.ended)}"),
            Markup(f"<style>{_style()}</style>"),
        ),
        body,
        lang="en-GB",
    )
    return f"<!DOCTYPE html>\n{page}\n".encode()


@cache
def _style() -> str:
    return (Path(__file__).parent / "style.css").read_text(encoding="utf-8")


def _security_policy() -> str:
    digest = b64encode(sha256(_style().encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _head(result: AuditResult) -> Iterator[Markup]:
    yield tag("p", "Daybook audit report", class_="kind")
    yield tag("h1", f"Audit of {cut(result.ledger, 200)}")
    visit = f"visit {result.visit:,} of this auditor"
    if result.previous is None:
        visit = "first visit of this auditor"
    yield tag("p", f"{time_in_words(result.begun)}; {visit}.")


def _parts(result: AuditResult, basis: Basis | None, links: Links) -> Iterator[tuple[str, str, Markup]]:
    """Yield the parts of the page: the name of their anchor, their title, and what is in them."""
    yield "verdict", "Verdict", join(_verdict(result, basis))
    yield "numbers", "The registers in numbers", join(_numbers(result))
    if basis is not None:
        yield "timing", "When decisions were registered", join(_timing(basis))
        yield "lags", "How long it took to register decisions", join(_lags(basis.figures))
    yield (
        "findings",
        "What was found",
        join(
            [counted(result), finding_list(result, links)]
            if _has_any(result)
            else [tag("p", "Nothing was found.")]
        ),
    )
    yield "registers", "Each register", register_sections(result)
    yield "open", "What cannot be claimed", join(_left_open(result))
    yield "limits", "What no audit of a ledger shows", listed(texts.LIMITS)
    yield "made", "How this report was made", join(_made(result, basis))
    yield "words", "Words used here", facts(texts.GLOSSARY)


def _has_any(result: AuditResult) -> bool:
    return bool(result.all_findings() or result.more)


def _verdict(result: AuditResult, basis: Basis | None) -> Iterator[Markup]:
    shade, sign, label, meaning = _in_a_word(result)
    yield tag(
        "div",
        tag("p", tag("span", sign, class_="sign", aria_hidden="true"), f" {label}", class_="label"),
        tag("p", timed(cut(result.verdict, _SENTENCE))),
        class_=f"verdict {shade}",
    )
    yield tag("p", meaning)
    yield tag("p", weighed(result), " ", tag("a", "Read what was found", href="#findings"), ".")
    if basis is not None and basis.figures.decisions:
        yield tag(
            "p",
            in_a_sentence(basis.figures),
            " ",
            tag("a", "See when decisions were registered", href="#timing"),
            ".",
        )
    yield tag(
        "p",
        f"This audit leaves {many(len(result.cannot_claim), 'thing')} open. ",
        tag("a", "Read what cannot be claimed", href="#open"),
        ".",
    )


def _in_a_word(result: AuditResult) -> tuple[str, str, str, str]:
    if result.failed:
        return "failed", "✗", "Failed", texts.FAILED
    if result.unread or any(each.standing is Standing.UNREAD for each in result.registers):
        return "unread", "!", "Incomplete", texts.INCOMPLETE
    return "intact", "✓", "Intact", texts.INTACT_AT_FIRST if result.previous is None else texts.INTACT


def _numbers(result: AuditResult) -> Iterator[Markup]:
    yield counts_table(result)
    if result.promises is not None:
        yield promises_told(result.promises)
    if result.kept:
        yield kept_told(result)
    if result.unread:
        yield tag("h3", "What could not be read")
        yield _sentences([f"{each.register or 'The ledger'}: {each.why}" for each in result.unread])


def _timing(basis: Basis) -> Iterator[Markup]:
    figures = basis.figures
    if not figures.decisions:
        yield tag("p", "No decision was registered in what was read.")
        return
    yield tag(
        "p",
        "Each decision is held against the limit that the profile has for it, at the times that witnesses "
        "prove, and as it was first registered. Corrections made later are told among the findings.",
    )
    yield classes_table(figures)
    yield after_returns_table(figures)
    yield after_returns_explained()
    yield timeline(figures)
    yield months_table(figures)
    if len(figures.registers) > 1:
        yield registers_table(figures)


def _lags(figures: Figures) -> Iterator[Markup]:
    if not figures.decisions:
        yield tag("p", "No decision was registered in what was read.")
        return
    yield histogram(figures)
    yield lags_explained()
    yield lags_table(figures)


def _left_open(result: AuditResult) -> Iterator[Markup]:
    yield _sentences(result.cannot_claim)
    if result.remarks:
        yield tag("h3", "Remarks")
        yield _sentences(result.remarks)


def _sentences(sentences: list[str] | tuple[str, ...]) -> Markup:
    told: list[str] = [timed(cut(each, _SENTENCE)) for each in sentences[:_MOST_SENTENCES]]
    left = len(sentences) - len(told)
    return listed([*told, f"and {left:,} more"] if left > 0 else told)


def _made(result: AuditResult, basis: Basis | None) -> Iterator[Markup]:
    profile = cut(result.profile, _SENTENCE)
    yield facts(
        [
            ("Ledger", cut(result.ledger, _SENTENCE)),
            ("Read from", cut(result.url, _SENTENCE)),
            ("Policy file", f"fingerprint {cut(result.policy_fingerprint, _SENTENCE)}"),
            ("Witnesses", "asked for" if result.witnessed else "none asked for: no time is proved"),
            ("Begun", time_in_words(result.begun)),
            ("Ended", time_in_words(result.ended)),
            ("Visit", f"{result.visit:,} with a state that was begun on {time_in_words(result.since)}"),
            ("Last visit", "none" if result.previous is None else time_in_words(result.previous)),
            ("Profile", profile or "none: no detection was run"),
            ("Its title", cut(basis.title, _SENTENCE) if basis is not None else ""),
            ("It rests on", cut(basis.basis, _SENTENCE) if basis is not None else ""),
            ("Calendar", cut(result.calendar, _SENTENCE)),
            ("Software", f"Daybook {cut(result.software, _SENTENCE)}"),
        ]
    )
    yield tag("h3", "To check all of it again")
    yield tag(
        "p",
        "With your own policy file and a new, empty state directory the following reads everything anew. "
        "It needs neither this report nor whoever made it.",
    )
    yield tag("pre", f"daybook audit {cut(result.url, _SENTENCE)} --policy YOUR_POLICY --state A_NEW_DIRECTORY")
