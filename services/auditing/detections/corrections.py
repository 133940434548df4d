"""DET-28: records that are corrected again and again, or whose answer a "correction" turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from services.auditing.detections.rules import Terms, many
from services.auditing.found import Found, Severity

_YES: Final = frozenset({"agreed", "agreed_in_part", "agreed_with_conditions"})
_NO: Final = frozenset({"not_agreed"})


def correction_chain(terms: Terms, register: str, corrections: int, versions: Sequence[int]) -> Found | None:
    """Return the finding for a record with many corrections; `versions` are the indices of all its versions."""
    rule = terms.profile.detections.correction_chain
    if rule is None or corrections < rule.corrections:
        return None
    inputs = {
        "what": "corrections",
        "corrections": corrections,
        "limit_corrections": rule.corrections,
        "versions": len(versions),
    }
    return terms.found(
        "DET-28",
        Severity.LOW,
        register,
        versions,
        inputs,
        f"The record has been corrected {many(corrections, 'time')}; the profile notes "
        f"{rule.corrections} and more.",
    )


def flipped_answer(
    terms: Terms, register: str, before: tuple[int, str | None], after: tuple[int, str | None]
) -> Found | None:
    """Return the finding for a version of correction code `correction` that turns a yes into a no, or back.

    Each side is the entry's index and its `decision_answer`.
    """
    if terms.profile.detections.correction_chain is None:
        return None
    answers = before[1], after[1]
    if not ((answers[0] in _YES and answers[1] in _NO) or (answers[0] in _NO and answers[1] in _YES)):
        return None
    inputs = {"what": "answer turned", "answer_before": answers[0], "answer_after": answers[1]}
    return terms.found(
        "DET-28",
        Severity.HIGH,
        register,
        (before[0], after[0]),
        inputs,
        f"What is marked as a correction, not as an amendment, changes the answer from {answers[0]} "
        f"to {answers[1]}.",
    )
