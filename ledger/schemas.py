"""JSON Schemas (draft 2020-12) of what departments and auditors read and write, made from the record types.

A schema says what a member may be. What one member asks of another it says where JSON Schema can; order,
characters, calendar and digests it cannot, so passing a schema is not yet being accepted: `records` decides.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from ledger import base64
from ledger.governing_types import KeyRevoked, PolicyPublished
from ledger.record_types import Members, Recorded, ReferenceVoided, ReturnFiled, Target
from ledger.records import KNOWN_TYPES
from ledger.shapes import Anything, Code, Digests, Integer, Items, Object, Shape, String, Truth, shape_of
from ledger.values import FromOne, Key, Register, Sha256, Uint, Uuid

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]


def schemas() -> dict[str, Schema]:
    """Return every schema by its file name: ``decision.registered-1.json`` for `decision.registered/1`."""
    made = {name: _of_record(name, record_type) for name, record_type in KNOWN_TYPES.items()}
    made["entry/1"] = _envelope()
    made["disclosure/1"] = _disclosure()
    return {f"{name.replace('/', '-')}.json": schema for name, schema in sorted(made.items())}


def _of_record(name: str, record_type: type[Recorded]) -> Schema:
    definitions: dict[str, Schema] = {}
    body = _members(record_type, definitions)
    if record_type.WITHHOLDABLE:
        body["properties"]["withheld"] = {
            **body["properties"]["withheld"],
            "propertyNames": {"pattern": _paths_pattern(record_type.WITHHOLDABLE)},
        }
    demands = [_in_clear_or_withheld(member) for member in record_type.OWED]
    if demands:
        body["allOf"] = demands
    return _document(name, body, definitions)


def _document(name: str, body: Schema, definitions: Mapping[str, Schema]) -> Schema:
    head: Schema = {"$schema": DIALECT, "$id": f"urn:daybook:schema:{name}", "title": name, **body}
    return {**head, "$defs": dict(sorted(definitions.items()))} if definitions else head


def _members(members: type[Members], definitions: dict[str, Schema]) -> Schema:
    shape = shape_of(members)
    if not isinstance(shape, Object):
        raise TypeError(f"{members.__name__} has no members")
    return {
        "description": inspect.getdoc(members),
        "type": "object",
        "properties": {name: _schema(item, definitions) for name, item in shape.members.items()},
        "required": list(shape.required),
        "minProperties": 1,
        "additionalProperties": False,
        **_DEMANDS.get(members, {}),
    }


def _schema(shape: Shape, definitions: dict[str, Schema]) -> Schema:
    match shape:
        case String():
            return _string(shape)
        case Code(values=(only,)):
            return {"const": only}
        case Code():
            return {"enum": list(shape.values)}
        case Integer() if shape.minimum == shape.maximum:
            return {"const": shape.minimum}
        case Integer():
            return {"type": "integer", "minimum": shape.minimum, "maximum": shape.maximum}
        case Truth():
            return {"type": "boolean"} if len(shape.values) > 1 else {"const": shape.values[0]}
        case Items():
            schema = {"type": "array", "items": _schema(shape.item, definitions), "minItems": shape.minimum}
            return schema if shape.maximum is None else {**schema, "maxItems": shape.maximum}
        case Digests():
            digest = _schema(shape.digest, definitions)
            return {"type": "object", "additionalProperties": digest, "minProperties": 1}
        case Anything():
            return {"type": "object", "minProperties": 1}
        case Object():
            name = shape.type.__name__
            if name not in definitions:
                definitions[name] = _members(shape.type, definitions)
            return {"$ref": f"#/$defs/{name}"}


def _string(shape: String) -> Schema:
    schema: Schema = {"type": "string"}
    if shape.form is not None:
        schema["description"] = shape.form.words
    if shape.minimum:
        schema["minLength"] = shape.minimum
    if shape.maximum is not None:
        schema["maxLength"] = shape.maximum
    if shape.form is not None and shape.form.pattern is not None:
        schema["pattern"] = _whole(shape.form.pattern)
    elif not shape.multiline:
        schema["not"] = {"pattern": "\n"}
    return schema


def _whole(pattern: str) -> str:
    return f"^(?:{pattern})$"


def _paths_pattern(paths: Iterable[str]) -> str:
    return _whole("|".join(re.escape(path).replace(r"\*", "(?:0|[1-9][0-9]*)") for path in sorted(paths)))


def _in_clear_or_withheld(member: str) -> Schema:
    held: Schema = {"required": ["withheld"], "properties": {"withheld": {"required": [member]}}}
    return {"oneOf": [{"required": [member]}, held]}


def _none_of(*members: str) -> Schema:
    return {"not": {"anyOf": [{"required": [member]} for member in members]}}


def _kind(kind: str, member: str, *others: str) -> Schema:
    return {"properties": {"kind": {"const": kind}}, "required": [member], **_none_of(*others)}


_DEMANDS: Final[Mapping[type[Members], Schema]] = {
    Target: {
        "oneOf": [
            {"required": ["uri"], "maxProperties": 1},
            {"required": ["record_id", "version"], **_none_of("uri")},
        ]
    },
    ReturnFiled: {
        "oneOf": [
            {"required": ["count", "first", "last"], **_none_of("nil_return")},
            {"required": ["nil_return"], **_none_of("count", "first", "last")},
        ],
        "if": {"properties": {"version": {"const": 1}}},
        "then": _none_of("previous", "reason"),
        "else": {"required": ["previous", "reason"]},
    },
    ReferenceVoided: {
        "if": {"properties": {"version": {"const": 1}}},
        "then": _none_of("previous", "taken_back"),
        "else": {"required": ["previous"]},
    },
    KeyRevoked: {
        "dependentSchemas": {"suspected_from": {"properties": {"reason": {"const": "compromised"}}}},
    },
    PolicyPublished: {
        "oneOf": [
            _kind("witness", "text", "profile", "calendar"),
            _kind("profile", "profile", "text", "calendar"),
            _kind("calendar", "calendar", "text", "profile"),
        ]
    },
}


def _value(annotation: Any) -> Schema:
    return _schema(shape_of(annotation), {})


def _object(description: str, properties: Schema, *optional: str) -> Schema:
    return {
        "description": description,
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def _envelope() -> Schema:
    signature = _object(
        "A signature over the body of the submission.",
        {
            "key": _value(Key),
            "signature": {
                "description": "base64 of the 64 bytes of an Ed25519 signature",
                "type": "string",
                "pattern": _whole("[A-Za-z0-9+/]{85}[AQgw]=="),
            },
        },
    )
    submission = _object(
        "Where the record stands in its submission, and who signed that. Absent on what the ledger writes.",
        {
            "count": {"type": "integer", "minimum": 1, "maximum": 1_000},
            "path": {
                "description": "base64 of the path in the submission tree, sibling first",
                "type": "string",
                "minLength": len(base64.encode(bytes(32))),
                "maxLength": len(base64.encode(bytes(10 * 32))),
                "pattern": _whole("(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"),
            },
            "position": {"type": "integer", "minimum": 0, "maximum": 999},
            "signatures": {"type": "array", "items": signature, "minItems": 1, "maxItems": 8},
        },
        "path",
    )
    body = _object(
        "The envelope of an entry: what the ledger says about the record that follows it.",
        {
            "accepted_at": {
                "description": "the ledger's clock, YYYY-MM-DDTHH:MM:SS.mmmZ: a claim",
                "type": "string",
                "pattern": _whole("[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z"),
            },
            "governing_size": _value(Uint),
            "submission": submission,
            "submitter": {
                "description": "who submitted, as the ledger saw it: a claim",
                "type": "string",
                "maxLength": 256,
                "pattern": _whole("anonymous|ledger|uri:[!#-\\[\\]-~]+"),
            },
            "type": {"const": "entry/1"},
        },
        "submission",
    )
    return _document("entry/1", body, {})


def _disclosure() -> Schema:
    paths = {path for record_type in KNOWN_TYPES.values() for path in record_type.WITHHOLDABLE}
    opening = _object(
        "What opens one field.",
        {
            "path": {"type": "string", "pattern": _paths_pattern(paths)},
            "salt": _value(Sha256) | {"description": "the salt, 32 bytes as lower-case hex"},
            "value": {"type": ["string", "object"]},
        },
    )
    body = _object(
        "Values of withheld fields of one record version, each with the salt that opens it; sorted by path.",
        {
            "disclosures": {"type": "array", "items": opening, "minItems": 1},
            "record_id": _value(Uuid),
            "register": _value(Register),
            "type": {"const": "disclosure/1"},
            "version": _value(FromOne),
        },
    )
    return _document("disclosure/1", body, {})
