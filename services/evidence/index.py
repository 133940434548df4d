"""The exhibit index of a pack, as a stranger may have written it: its shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ledger.errors import MalformedError
from services.evidence.exhibits import MAX_EXHIBITS, check_prefix, label
from services.evidence.layout import CLOSED, OPEN, PACK_TYPE

_INDEX_TEXTS: Final = ("identifier", "ledger_origin", "register", "selection", "source", "tool", "variant")
_EXHIBIT: Final[Mapping[str, type | tuple[type, ...]]] = {
    "label": str,
    "register": str,
    "index": int,
    "record_type": (str, type(None)),
    "record_id": (str, type(None)),
    "version": (int, type(None)),
    "sha256": str,
    "receipt": str,
    "record": str,
    "text": str,
    "disclosed": bool,
    "findings": list,
}
_FINDING: Final = {"label": str, "at": str, "code": str, "exhibits": list}


def check_index(index: Mapping[str, Any]) -> None:
    """See that an index has the shape of one: raises MalformedError.

    What it says is held against the receipts later.
    """
    if index.get("type") != PACK_TYPE:
        raise MalformedError(f"not an index of type {PACK_TYPE}")
    if index.keys() != {
        "type",
        *_INDEX_TEXTS,
        "by_index",
        "read_whole",
        "exhibits",
        "findings",
        "governing",
        "keys",
    }:
        raise MalformedError("it has other members than it must have")
    if index["read_whole"] is not None:
        _check_members(index["read_whole"], {"size": int, "root": str}, "read_whole")
    if any(not isinstance(index.get(name), str) for name in _INDEX_TEXTS):
        raise MalformedError(f"{', '.join(_INDEX_TEXTS)}: one is missing, or no text")
    if not isinstance(index["by_index"], bool):
        raise MalformedError("by_index is not true or false")
    if index["variant"] not in (OPEN, CLOSED):
        raise MalformedError("variant is not open or closed")
    exhibits, keys = index.get("exhibits"), index.get("keys")
    if not isinstance(exhibits, list) or not 1 <= len(exhibits) <= MAX_EXHIBITS or not isinstance(keys, list):
        raise MalformedError("no list of exhibits, or none of keys")
    prefix = exhibits[0]["label"].partition("/")[0] if _is_labelled(exhibits[0]) else ""
    for number, listed in enumerate(exhibits, 1):
        _check_members(listed, _EXHIBIT, "an exhibit")
        if listed["label"] != label(check_prefix(prefix), number):
            raise MalformedError(f"exhibit {number} is labelled {listed['label']!r}: they are numbered from 1")
        if listed["disclosed"] and index["variant"] == OPEN:
            raise MalformedError("an open pack with a disclosure")
    for listed in keys:
        _check_members(listed, {"path": str, "index": int, "record_type": str}, "a key")
    for name in ("index", "receipt"):
        if len({listed[name] for listed in exhibits}) != len(exhibits):
            raise MalformedError(f"two exhibits have one {name}")
    if not isinstance(index.get("findings"), list):
        raise MalformedError("no list of findings")
    for listed in index["findings"]:
        _check_members(listed, _FINDING, "a finding")
    if index.get("governing") is not None:
        _check_members(index["governing"], {"size": int, "checkpoint": str}, "the governing register")


def _is_labelled(listed: object) -> bool:
    return isinstance(listed, dict) and isinstance(listed.get("label"), str)


def _check_members(value: object, members: Mapping[str, Any], what: str) -> None:
    if not isinstance(value, dict) or value.keys() != members.keys():
        raise MalformedError(f"{what} has other members than it must have")
    for name, wanted in members.items():
        if not isinstance(value[name], wanted) or (isinstance(value[name], bool) and wanted is not bool):
            raise MalformedError(f"{what}: {name} is not of its type")
