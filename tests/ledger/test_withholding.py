"""Withheld fields: the digests of the vectors, and that only the right value and salt open one."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import canonical
from ledger.errors import MalformedError, RejectedError, VerificationError
from ledger.records import parse_record
from ledger.withholding import (
    Disclosure,
    Opening,
    canonical_value,
    open_disclosure,
    parse_disclosure,
    withheld_digest,
    withhold,
)
from tests.support.records import LEDGER_ORIGIN, RECORD_ID, REGISTER, decision
from tests.support.vectors import VECTORS, load

REGISTERED = (VECTORS / "records" / "decision.registered.json").read_bytes()
DISCLOSURE = (VECTORS / "disclosure.json").read_bytes()
FULL = decision(
    title="Approve purchase of 25 million gowns",
    rationale="Extreme urgency.\nNo alternative.",
    decision_maker={"name": "A. N. Example", "office": "secretary-of-state", "role": "secretary_of_state"},
    evidence=[{"kind": "email", "media_type": "message/rfc822", "sha256": "0" * 64, "size": 9}],
    options_considered=["Wait.", "Buy."],
    participants=[{"name": "B", "role": "whip"}, {"name": "C", "role": "external"}],
    procurement={"supplier": {"name": "Example Gowns Ltd"}, "value": {"amount": "1.00", "currency": "GBP"}},
)
NAMES = ["decision_maker.name", "participants/0.name", "participants/1.name"]
OTHERS = [
    "title",
    "rationale",
    "evidence/0.sha256",
    "options_considered/0",
    "options_considered/1",
    "procurement.supplier",
    "procurement.value",
]


def salts(paths: list[str]) -> dict[str, bytes]:
    return {path: hashlib.sha256(path.encode()).digest() for path in paths}


def withheld(paths: list[str]) -> tuple[dict[str, Any], Disclosure]:
    return withhold(FULL, paths, LEDGER_ORIGIN, salts(paths))


@pytest.mark.parametrize("case", load("withheld.json"), ids=lambda case: f"{case['record']}:{case['path']}")
def test_a_digest_is_that_of_the_vectors(case: dict[str, Any]) -> None:
    """Otherwise no other program could open what we withhold."""
    record = json.loads((VECTORS / "records" / f"{case['record']}.json").read_bytes())
    salt = bytes.fromhex(case["salt_hex"])
    digest = withheld_digest(
        ledger_origin=LEDGER_ORIGIN,
        register=record["register"],
        record_id=record["record_id"],
        version=record["version"],
        path=case["path"],
        salt=salt,
        value=case["value"],
    )
    assert digest == case["digest"] == record["withheld"][case["path"]]
    assert bytes.fromhex(case["preimage_hex"]).endswith(salt + canonical_value(case["value"]))


def test_the_disclosure_of_the_vectors_opens_its_record() -> None:
    """A disclosure file of another program opens the fields here, in whatever layout it comes."""
    disclosure = parse_disclosure(DISCLOSURE)
    assert open_disclosure(disclosure, REGISTERED, LEDGER_ORIGIN) == {
        "participants/0.name": "A. N. Example",
        "procurement.supplier": {"identifier": "GB-COH-00000000", "name": "Example Gowns Ltd"},
        "title": "Approve purchase of 25 million gowns",
    }
    assert parse_disclosure(disclosure.format()) == disclosure
    assert disclosure.format() == canonical.format(json.loads(DISCLOSURE))


def test_the_record_of_the_vectors_is_what_withholding_makes() -> None:
    """From the values in clear and the salts, the very bytes of the vector."""
    disclosure = parse_disclosure(DISCLOSURE)
    clear = json.loads(REGISTERED)
    del clear["withheld"]
    for opening in disclosure.openings:
        place, _, name = opening.path.rpartition(".")
        where = {"": clear, "procurement": clear["procurement"], "participants/0": clear["participants"][0]}
        where[place][name] = opening.value
    before = copy.deepcopy(clear)
    salt_of = {opening.path: opening.salt for opening in disclosure.openings}
    record, made = withhold(clear, list(salt_of), LEDGER_ORIGIN, salt_of)
    assert canonical.format(record) == REGISTERED
    assert made == disclosure
    assert clear == before


@given(
    st.sets(
        st.sampled_from(
            ["title", "rationale", "evidence/0.sha256", "procurement.supplier", "procurement.value"]
        )
    ),
    st.booleans(),
)
def test_whatever_is_withheld_is_accepted_and_opens_again(chosen: set[str], lists: bool) -> None:
    """Withholding loses nothing that the salts cannot give back, and leaves a valid record."""
    paths = [*NAMES, *chosen]
    if lists:
        paths += ["options_considered/0", "options_considered/1"]
    record, disclosure = withheld(paths)
    data = canonical.format(record)
    parse_record(data)
    opened = open_disclosure(parse_disclosure(disclosure.format()), data, LEDGER_ORIGIN)
    assert set(opened) == set(paths) == set(record["withheld"])
    assert b"A. N. Example" not in data


def test_a_withheld_item_keeps_the_name_inside() -> None:
    """`name` exists withheld by its own path, or inside its withheld item."""
    record, disclosure = withheld(["decision_maker.name", "participants/0", "participants/1"])
    assert "participants" not in record
    opened = open_disclosure(disclosure, canonical.format(record), LEDGER_ORIGIN)
    assert opened["participants/1"] == {"name": "C", "role": "external"}


def test_an_object_left_without_members_is_left_out() -> None:
    """Canonical JSON has no empty object."""
    record, _ = withheld([*NAMES, "procurement.supplier", "procurement.value"])
    assert "procurement" not in record


@given(st.integers(0, len(DISCLOSURE) - 1), st.integers(0, 7))
def test_a_disclosure_with_any_bit_flipped_opens_nothing_else(place: int, bit: int) -> None:
    """Every bit of salt, value, path and place counts; layout does not."""
    data = bytearray(DISCLOSURE)
    data[place] ^= 1 << bit
    try:
        opened = open_disclosure(parse_disclosure(bytes(data)), REGISTERED, LEDGER_ORIGIN)
    except (MalformedError, VerificationError):
        return
    assert opened == open_disclosure(parse_disclosure(DISCLOSURE), REGISTERED, LEDGER_ORIGIN)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"record_id": RECORD_ID},
        {"register": "a/b"},
        {"openings": (Opening("rationale", bytes(32), "x"),)},
    ],
    ids=["version", "record_id", "register", "path"],
)
def test_a_disclosure_of_another_record_is_refused(change: dict[str, Any]) -> None:
    """A true disclosure of one record must not be shown as that of another."""
    with pytest.raises(VerificationError):
        open_disclosure(replace(parse_disclosure(DISCLOSURE), **change), REGISTERED, LEDGER_ORIGIN)


def test_a_disclosure_holds_in_one_ledger_only() -> None:
    """The origin is that of the verified checkpoint."""
    with pytest.raises(VerificationError):
        open_disclosure(parse_disclosure(DISCLOSURE), REGISTERED, "other.example")


def test_a_record_that_withholds_nothing_is_not_opened() -> None:
    """A field in clear is not disclosed: it is there."""
    data = canonical.format(decision(record_id="1168b4da-721e-452a-abad-d256e13d742c"))
    with pytest.raises(VerificationError):
        open_disclosure(parse_disclosure(DISCLOSURE), data, LEDGER_ORIGIN)


def test_a_value_that_opens_must_keep_the_rules_of_its_field() -> None:
    """A department could otherwise register under a digest what it may not register in clear."""
    opening = Opening("title", bytes(32), "x" * 256)
    disclosure = Disclosure(REGISTER, RECORD_ID, 1, (opening,))
    digest = withheld_digest(
        ledger_origin=LEDGER_ORIGIN,
        register=REGISTER,
        record_id=RECORD_ID,
        version=1,
        path="title",
        salt=opening.salt,
        value=opening.value,
    )
    data = canonical.format(decision(title=None, withheld={"title": digest}))
    parse_record(data)
    with pytest.raises(RejectedError) as caught:
        open_disclosure(disclosure, data, LEDGER_ORIGIN)
    assert [violation.field for violation in caught.value.violations] == ["title"]


@pytest.mark.parametrize(
    ("paths", "field"),
    [
        (["title"], "decision_maker.name"),
        ([*NAMES, "channel"], "channel"),
        ([*NAMES, "options_considered/1"], "withheld.options_considered"),
        ([*NAMES, "options_considered/0"], "withheld.options_considered/0"),
    ],
)
def test_withholding_what_may_not_be_is_refused(paths: list[str], field: str) -> None:
    """What the ledger would refuse is refused before anything is signed; a name is never left in clear."""
    with pytest.raises(RejectedError) as caught:
        withheld(paths)
    assert field in {violation.field for violation in caught.value.violations}


@pytest.mark.parametrize("paths", [[], ["title", "title"], ["description"], ["participants/7.name"], ["a..b"]])
def test_withholding_what_is_not_there_is_refused(paths: list[str]) -> None:
    """A slip in a path must not pass as if the field were withheld."""
    with pytest.raises(MalformedError):
        withheld(paths)


def test_each_field_needs_a_salt_of_its_own_of_32_bytes() -> None:
    """A shared or short salt lets a guesser test values against the digest."""
    for given_salts in ({}, {"title": bytes(31)}, {"title": bytes(32), "rationale": bytes(32)}):
        with pytest.raises(MalformedError):
            withhold(FULL, [*NAMES, "title", "rationale"], LEDGER_ORIGIN, {**salts(NAMES), **given_salts})
    with pytest.raises(MalformedError):
        withhold({"type": "decision.registered/1"}, ["title"], LEDGER_ORIGIN, salts(["title"]))


def test_some_fields_can_be_disclosed_without_the_others() -> None:
    """A field is opened alone: the rest stays as it was."""
    one = parse_disclosure(DISCLOSURE).only(["title"])
    assert list(open_disclosure(one, REGISTERED, LEDGER_ORIGIN)) == ["title"]
    with pytest.raises(MalformedError):
        one.only(["rationale"])


def test_neither_value_nor_salt_shows_in_a_repr() -> None:
    """Logs and tracebacks must not disclose."""
    shown = repr(parse_disclosure(DISCLOSURE))
    assert "gowns" not in shown
    assert "Example" not in shown


GOOD: dict[str, Any] = json.loads(DISCLOSURE)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"a":' + b"9" * 5_000 + b"}",
        DISCLOSURE.replace(b'"version": 1', b'"version": NaN'),
        DISCLOSURE.replace(b'"version": 1', b'"version": true'),
        DISCLOSURE.replace(b'"version": 1', b'"version": 1, "version": 1'),
        json.dumps({**GOOD, "type": "disclosure/2"}).encode(),
        json.dumps({**GOOD, "more": 1}).encode(),
        json.dumps({**GOOD, "register": "A/b"}).encode(),
        json.dumps({**GOOD, "record_id": "x"}).encode(),
        json.dumps({**GOOD, "version": 0}).encode(),
        json.dumps({**GOOD, "disclosures": []}).encode(),
        json.dumps({**GOOD, "disclosures": GOOD["disclosures"][::-1]}).encode(),
        json.dumps({**GOOD, "disclosures": [GOOD["disclosures"][0]] * 2}).encode(),
        json.dumps({**GOOD, "disclosures": [{**GOOD["disclosures"][0], "salt": "00"}]}).encode(),
        json.dumps({**GOOD, "disclosures": [{**GOOD["disclosures"][0], "path": 1}]}).encode(),
        json.dumps({**GOOD, "disclosures": [1]}).encode(),
    ],
    ids=range(19),
)
def test_a_file_that_is_no_disclosure_is_malformed(data: bytes) -> None:
    """A disclosure file comes from a stranger."""
    with pytest.raises(MalformedError):
        parse_disclosure(data)


@given(st.binary(max_size=64) | st.text(max_size=64).map(str.encode))
def test_no_bytes_make_parsing_fail_otherwise(data: bytes) -> None:
    """Only MalformedError comes out of bad bytes."""
    with pytest.raises(MalformedError):
        parse_disclosure(data)
