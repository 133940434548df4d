"""What whoever can write manifests anew may try with a closed pack, and the exhibit that must then be named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ledger import base64
from tests.support.story import REGISTER

Forge = Callable[[Path], None]


def _swap(bag: Path) -> None:
    one, two = bag / "data/exhibits/JS-1/record.json", bag / "data/exhibits/JS-2/record.json"
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)


def edited(name: str, old: bytes, new: bytes) -> Forge:
    """Replace bytes in one file, where they first stand."""

    def edit(bag: Path) -> None:
        data = (bag / name).read_bytes()
        assert old in data
        (bag / name).write_bytes(data.replace(old, new, 1))

    return edit


def _in_index(change: Callable[[dict[str, Any]], None]) -> Forge:
    def edit(bag: Path) -> None:
        index = json.loads((bag / "data/index.json").read_bytes())
        change(index)
        (bag / "data/index.json").write_text(json.dumps(index, indent=1, sort_keys=True) + "\n")

    return edit


FORGERIES: Final[dict[str, tuple[Forge, str | None]]] = {
    "another word in the readable text": (
        edited("data/exhibits/JS-1/record.txt", b"whatsapp", b"in_person"),
        "JS/1",
    ),
    "another value in the record": (
        edited("data/exhibits/JS-1/record.json", b"whatsapp", b"in_person"),
        "JS/1",
    ),
    "the records of two exhibits swapped": (_swap, "JS/1"),
    "another value in the disclosure": (
        edited("data/exhibits/JS-1/disclosure.json", b"25 million", b"26 million"),
        "JS/1",
    ),
    "another word in what it opens": (
        edited("data/exhibits/JS-1/opened.txt", b"25 million", b"26 million"),
        "JS/1",
    ),
    "a file added to an exhibit": (lambda bag: put(bag, "data/exhibits/JS-1/note.txt", b"more\n"), "JS/1"),
    "a file added to the payload keys": (lambda bag: put(bag, "data/keys/x.receipt", b"more\n"), None),
    "an exhibit that the index does not list": (_in_index(lambda index: index["exhibits"].pop()), "JS/4"),
    "another index of the entry": (_in_index(lambda index: index["exhibits"][0].update(index=1)), "JS/1"),
    "another label": (_in_index(lambda index: index["exhibits"][0].update(label="JS/9")), None),
    "another register": (_in_index(lambda index: index.update(register="a/b")), "JS/1"),
    "another identifier": (_in_index(lambda index: index.update(identifier="other")), None),
    "a variant that holds disclosures and says open": (
        _in_index(lambda index: index.update(variant="open")),
        None,
    ),
    "another hash in the schedule": (edited("data/hashes.txt", b"JS/1  ", b"JS/1  0"), None),
    "a checkpoint of no receipt": (
        lambda bag: put(bag, "data/checkpoints/a-1-b.note", _note(bag).replace(b"\n7\n", b"\n8\n")),
        None,
    ),
    "a checkpoint under another name": (lambda bag: put(bag, "data/checkpoints/a-1-b.note", _note(bag)), None),
    "a consistency proof that does not hold": (
        lambda bag: put(bag, "data/consistency.json", _consistency(3, 7, [b"\1" * 32] * 3)),
        None,
    ),
    "a consistency proof between other sizes": (
        lambda bag: put(bag, "data/consistency.json", _consistency(3, 6, [b"\1" * 32] * 3)),
        None,
    ),
    "a checkpoint taken away": (lambda bag: next(iter((bag / "data/checkpoints").iterdir())).unlink(), None),
    "a custody log without entries": (
        lambda bag: put(bag, "data/custody.json", b'{"type": "daybook.custody/1", "entries": []}'),
        None,
    ),
    "a policy that is none": (lambda bag: put(bag, "data/policy", b"quorum\n"), None),
    "the page taken away": (lambda bag: (bag / "verify.html").unlink(), None),
    "another version of BagIt": (edited("bagit.txt", b"1.0", b"0.9"), None),
}


def put(bag: Path, name: str, data: bytes) -> None:
    (bag / name).write_bytes(data)


def _note(bag: Path) -> bytes:
    (path,) = (bag / "data/checkpoints").glob("*secretary-of-state-7-*.note")
    return path.read_bytes()


def _consistency(first: int, second: int, hashes: list[bytes]) -> bytes:
    proof = {
        "register": REGISTER,
        "first": first,
        "second": second,
        "hashes": [base64.encode(each) for each in hashes],
    }
    return json.dumps({"type": "daybook.consistency/1", "proofs": [proof]}).encode()
