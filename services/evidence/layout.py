"""What lies where in a pack, and what its index says: shared by who writes packs and who checks them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from ledger.errors import MalformedError
from services.evidence.bag import PAYLOAD

PACK_TYPE: Final = "daybook.evidence/1"

INDEX: Final = f"{PAYLOAD}index.json"
POLICY: Final = f"{PAYLOAD}policy"
REPORT: Final = f"{PAYLOAD}report.txt"
HASHES: Final = f"{PAYLOAD}hashes.txt"
CUSTODY: Final = f"{PAYLOAD}custody.json"
CONSISTENCY: Final = f"{PAYLOAD}consistency.json"
FINDINGS: Final = f"{PAYLOAD}findings.json"
GOVERNING_ENTRIES: Final = f"{PAYLOAD}governing.entries"
PAGE: Final = "verify.html"

EXHIBITS: Final = f"{PAYLOAD}exhibits/"
KEYS: Final = f"{PAYLOAD}keys/"
CHECKPOINTS: Final = f"{PAYLOAD}checkpoints/"

OPEN: Final = "open"
CLOSED: Final = "closed"


def exhibit_folder(label: str) -> str:
    """Return where the files of an exhibit are, ending with a slash."""
    return f"{EXHIBITS}{label.replace('/', '-')}/"


def disclosure_path(label: str) -> str:
    """Return where the disclosure of an exhibit is, in a closed pack."""
    return f"{exhibit_folder(label)}disclosure.json"


def opened_path(label: str) -> str:
    """Return where the values that it opens are, as readable text."""
    return f"{exhibit_folder(label)}opened.txt"


def key_path(index: int) -> str:
    """Return where the receipt of a governing entry is."""
    return f"{KEYS}governing-{index:06d}.receipt"


def json_file(value: Mapping[str, Any]) -> bytes:
    """Return a JSON file of ASCII: nothing in it can steer a terminal, and a text editor shows all of it."""
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def parse_own_file(data: bytes) -> dict[str, Any]:
    """Return the object in a JSON file that packing wrote. Raises MalformedError, also for another spelling."""
    value = parse_json_file(data)
    if json_file(value) != data:
        raise MalformedError("not spelled as packs are: ASCII, sorted, one member a line")
    return value


def parse_json_file(data: bytes) -> dict[str, Any]:
    """Return the object in a JSON file of a pack. Raises MalformedError, also where a member stands twice."""
    try:
        value = json.loads(data.decode(), object_pairs_hook=_distinct, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise MalformedError("not a JSON object")
    return value


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise MalformedError("a member stands twice")
    return value


def _refuse(constant: str) -> NoReturn:
    raise MalformedError(f"not JSON: {constant}")
