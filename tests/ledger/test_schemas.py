"""The published JSON Schemas: up to date, valid, and never stricter than registration."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from jsonschema import Draft202012Validator

from ledger.records import KNOWN_TYPES
from ledger.schemas import schemas
from tests.support.record_strategies import department_records
from tests.support.records import decision, period_return
from tests.support.vectors import VECTORS, load
from tests.support.write_schemas import text_of

FOLDER = Path(__file__).parents[2] / "docs" / "schemas"
SCHEMAS = schemas()
RECORDS = sorted((VECTORS / "records").iterdir())


def validator(name: str) -> Any:
    return Draft202012Validator(SCHEMAS[f"{name.replace('/', '-')}.json"])


def test_the_schemas_in_docs_are_those_of_the_types() -> None:
    """Run `python -m tests.support.write_schemas docs/schemas` after a change of a type."""
    written = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    assert written == {name: text_of(schema) for name, schema in SCHEMAS.items()}


def test_every_type_has_a_schema_that_is_one() -> None:
    """A schema that is not valid itself accepts anything in some tools."""
    expected = {*KNOWN_TYPES, "entry/1", "disclosure/1"}
    assert {schema["title"] for schema in SCHEMAS.values()} == expected
    for schema in SCHEMAS.values():
        Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_every_vector_record_passes_its_schema(path: Path) -> None:
    """What registration accepts, a client's validator must not refuse."""
    record = json.loads(path.read_bytes())
    validator(record["type"]).validate(record)


def test_the_vectors_of_envelope_and_disclosure_pass_their_schemas() -> None:
    """The envelope and disclosure of formats.md are those of the schemas."""
    validator("disclosure/1").validate(load("disclosure.json"))
    seen = 0
    for case in load("append-rules.json")["story"]:
        message = base64.b64decode(case["message_base64"])
        while message:
            size = int.from_bytes(message[:2], "big")
            envelope = json.loads(message[2 : 2 + size].partition(b"\n")[0])
            validator("entry/1").validate(envelope)
            message = message[2 + size :]
            seen += 1
    assert seen > 5


@settings(max_examples=60)
@given(department_records())
def test_every_valid_record_passes_its_schema(record: dict[str, Any]) -> None:
    """As for the vectors, for records of every shape."""
    validator(record["type"]).validate(record)


@pytest.mark.parametrize(
    "record",
    [
        decision(channel="pigeon"),
        decision(title=None),
        decision(title="x" * 256),
        decision(title="a\nb"),
        decision(surname="x"),
        decision(version=2),
        decision(version=True),
        decision(withheld={"title": "0" * 64}),
        decision(withheld={"channel": "0" * 64}),
        decision(withheld={"rationale": "0"}),
        decision(decided_at="2026-02-29"),
        decision(classification={"sensitive": False, "tier": "SECRET"}),
        decision(relations=[{"target": {"uri": "x", "version": 1}, "type": "corrects"}]),
        decision(relations=[{"target": {"version": 1}, "type": "corrects"}]),
        decision(foi={}),
        period_return(nil_return=True),
        period_return(count=None),
        period_return(reason="x"),
        period_return(version=2),
    ],
    ids=range(19),
)
def test_a_record_that_registration_refuses_fails_where_a_schema_can_say_so(record: dict[str, Any]) -> None:
    """The schemas are worth having: they find what a clerk gets wrong."""
    assert not validator(record["type"]).is_valid(record)
