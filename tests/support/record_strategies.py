"""Hypothesis strategies of records: valid ones, made from the shapes of their types, and spoilt ones."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any, get_args

from hypothesis import strategies as st

from ledger import canonical, values
from ledger.governing_types import GovernanceKeys, LedgerOpened, PolicyPublished
from ledger.record_types import Decision, DecisionCorrected, Members, Relation, ReturnFiled, Target
from ledger.records import KNOWN_TYPES
from ledger.shapes import Anything, Code, Digests, Integer, Items, Object, Shape, String, Truth, shape_of
from tests.support.vectors import load

_CHARACTERS = " aZ09\"\\/{}[]:,~£é—ẁ😀"
_KEYS = load("keys.json")


def _form(annotation: Any) -> values.Form:
    (form,) = (note for note in get_args(annotation) if isinstance(note, values.Form))
    return form


_SLUGS = st.sampled_from(["a", "hm-treasury", "office-2", "x" * 100])
_REGISTERS = st.sampled_from(["governing", "access", "a/b", f"{'x' * 100}/{'y' * 100}"])
_DATES = st.dates(min_value=__import__("datetime").date(1900, 1, 1)).map(str)
_INSTANTS = st.builds(
    lambda date, hour, second: f"{date}T{hour:02}:{second:02}" + (f":{second:02}Z" if second % 2 else "Z"),
    _DATES,
    st.integers(0, 23),
    st.integers(0, 59),
)
_CIVIL = _DATES | _DATES.map(lambda date: date[:7]) | _DATES.map(lambda date: date[:4])
_SHA256 = st.binary(min_size=32, max_size=32).map(bytes.hex)
_FORMS: dict[values.Form, st.SearchStrategy[str]] = {
    _form(values.Slug): _SLUGS,
    _form(values.Register): _REGISTERS,
    _form(values.LedgerOrigin): st.just("ledger.daybook.example"),
    _form(values.Uuid): st.uuids().map(str),
    _form(values.Sha256): _SHA256,
    _form(values.Key): st.binary(min_size=32, max_size=32).map(values.base64_of)
    if hasattr(values, "base64_of")
    else st.just("AtB47W5sDmeDmua/JsHyJIQhS9VgIVvV7glBwPyb9G0="),
    _form(values.Instant): _INSTANTS,
    _form(values.PartialDate): _CIVIL | _INSTANTS | st.just("2020-07/2020-09"),
    _form(values.Period): _CIVIL | st.just("2020-07/2020-09"),
    _form(values.Amount): st.sampled_from(["0.00", "91970816.79"]),
    _form(values.Currency): st.just("GBP"),
    _form(values.Series): st.sampled_from(["MD/2026", "a.b_c-d"]),
}
