"""What whoever can write manifests anew may try with a closed pack, and the exhibit that must then be named."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ledger import base64
from services.evidence.exhibits import identifier
from services.evidence.hashes import hash_schedule
from services.evidence.layout import json_file
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
        (bag / "data/index.json").write_bytes(json_file(index))

    return edit


def _in_findings(change: Callable[[dict[str, Any]], None]) -> Forge:
    def edit(bag: Path) -> None:
        findings = json.loads((bag / "data/findings.json").read_bytes())
        change(findings)
        (bag / "data/findings.json").write_text(json.dumps(findings))

    return edit


def _in_custody(entry: int, member: str, value: str) -> Forge:
    def edit(bag: Path) -> None:
        log = json.loads((bag / "data/custody.json").read_bytes())
        log["entries"][entry][member] = value
        (bag / "data/custody.json").write_bytes(json_file(log))

    return edit


def _twice(bag: Path) -> None:
    """Show the last exhibit a second time, under the next label, and have all else agree."""

    def change(index: dict[str, Any]) -> None:
        again = json.loads(json.dumps(index["exhibits"][-1]).replace("JS-4", "JS-5").replace("JS/4", "JS/5"))
        index["exhibits"].append(again)
        index["findings"][-1]["exhibits"].append({"label": "JS/5", "sha256": again["sha256"]})

    shutil.copytree(bag / "data/exhibits/JS-4", bag / "data/exhibits/JS-5")
    _in_index(change)(bag)
    _agree(bag)


def _leave_a_number_out(bag: Path) -> None:
    """Show the last exhibit under the label after its own, and have all else agree."""
    index = (bag / "data/index.json").read_text()
    (bag / "data/index.json").write_text(index.replace("JS-4", "JS-5").replace("JS/4", "JS/5"))
    (bag / "data/exhibits/JS-4").rename(bag / "data/exhibits/JS-5")
    _agree(bag)


def _agree(bag: Path) -> None:
    """Write identifier, hash schedule and custody log anew, as they follow from the index."""
    index = json.loads((bag / "data/index.json").read_bytes())
    receipts = [(bag / listed["receipt"]).read_bytes() for listed in index["exhibits"]]
    before, index["identifier"] = (
        index["identifier"],
        identifier(index["ledger_origin"], index["register"], receipts),
    )
    (bag / "data/index.json").write_bytes(json_file(index))
    info = (bag / "bag-info.txt").read_text()
    (bag / "bag-info.txt").write_text(info.replace(before, index["identifier"]))
    schedule = hash_schedule(index, lambda name: hashlib.sha256((bag / name).read_bytes()).hexdigest())
    (bag / "data/hashes.txt").write_bytes(schedule)
    _in_custody(0, "sha256_after", hashlib.sha256(b"".join(receipts)).hexdigest())(bag)
    _in_custody(-1, "sha256_after", hashlib.sha256(schedule).hexdigest())(bag)


def _renamed(bag: Path) -> None:
    _in_index(lambda index: index.update(identifier=index["identifier"][:-1] + "x"))(bag)
    info = (bag / "bag-info.txt").read_text()
    stated = re.search(r"(?m)^(External-Identifier: .*).$", info)
    assert stated
    (bag / "bag-info.txt").write_text(info.replace(stated[0], f"{stated[1]}x"))


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
        lambda bag: put(
            bag, "data/custody.json", json_file({"type": "daybook.custody/1", "entries": list[str]()})
        ),
        None,
    ),
    "a policy that is none": (lambda bag: put(bag, "data/policy", b"quorum\n"), None),
    "the page taken away": (lambda bag: (bag / "verify.html").unlink(), None),
    "a file that no pack has": (lambda bag: put(bag, "data/statement.txt", b"All is well.\n"), None),
    "a second page beside the page": (lambda bag: put(bag, "index.html", b"<h1>Verified</h1>\n"), None),
    "a manifest of another algorithm": (lambda bag: put(bag, "manifest-md5.txt", b"0  data/x\n"), None),
    "files to fetch from elsewhere": (
        lambda bag: put(bag, "fetch.txt", b"http://evil.example/x - data/x\n"),
        None,
    ),
    "exhibits that leave a number out": (_leave_a_number_out, None),
    "one entry as two exhibits": (_twice, None),
    "the identifier of another pack": (_renamed, None),
    "a member of the index that stands twice": (
        edited("data/index.json", b'\n "exhibits"', b'\n "exhibits": [],\n "exhibits"'),
        None,
    ),
    "a custody log of other receipts": (_in_custody(0, "sha256_after", "0" * 64), None),
    "a custody log of another hash schedule": (_in_custody(-1, "sha256_after", "0" * 64), None),
    "a custody log that reads backwards": (
        edited("data/custody.json", b'"reason": "', '"reason": "\u202e'.encode()),
        None,
    ),
    "a custody log that ends otherwise": (_in_custody(-1, "action", "sealed"), None),
    "a report that steers a terminal": (
        edited("data/report.txt", b"What is proved", b"\x1b[2JWhat is proved"),
        None,
    ),
    "a report that reads backwards": (
        edited("data/report.txt", b"What is proved", "\u202eWhat is proved".encode()),
        None,
    ),
    "a finding that names an exhibit that is not there": (
        _in_findings(lambda found: found["findings"][0].update(exhibits=["JS/9"])),
        None,
    ),
    "a finding with another digest of an exhibit": (
        _in_findings(
            lambda found: found["registers"][0]["findings"][0].update(
                exhibits=[{"label": "JS/1", "sha256": "0" * 64}]
            )
        ),
        None,
    ),
    "a finding of other entries than the index says": (
        _in_findings(lambda found: found["registers"][0]["findings"][0].update(spans=[[1, 2]])),
        None,
    ),
    "findings of another ledger": (_in_findings(lambda found: found.update(ledger="evil.example")), None),
    "findings taken away": (lambda bag: (bag / "data/findings.json").unlink(), None),
    "findings with a member twice": (
        edited("data/findings.json", b'"findings": [{', b'"findings": [], "findings": [{'),
        None,
    ),
    "an exhibit that hides its finding": (
        _in_index(lambda index: index["exhibits"][0].update(findings=[])),
        None,
    ),
    "an exhibit with the finding of another": (
        _in_index(lambda index: index["exhibits"][2].update(findings=["F/1"])),
        None,
    ),
    "an index that hides a finding": (_in_index(lambda index: index["findings"].pop()), None),
    "an index with a finding of its own": (
        _in_index(lambda index: index["findings"].append({**index["findings"][0], "label": "F/3"})),
        None,
    ),
    "a governing register that is stated and not there": (
        _in_index(lambda index: index.update(governing={"size": 1, "checkpoint": "data/checkpoints/x.note"})),
        None,
    ),
    "a governing register that is there and not stated": (
        lambda bag: put(bag, "data/governing.entries", b"\0\1x"),
        None,
    ),
    "a member of the index that no pack has": (
        _in_index(lambda index: index.update(certified_by="the court")),
        None,
    ),
    "a whole register of another shape": (_in_index(lambda index: index.update(read_whole=True)), None),
    "a name in the bag's own lines that steers a terminal": (
        edited("bag-info.txt", b"Contact-Name: ", b"Contact-Name: \xc2\x9b2J"),
        None,
    ),
    "a remark in the policy": (
        lambda bag: put(bag, "data/policy", b"# This one is right\n" + (bag / "data/policy").read_bytes()),
        None,
    ),
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
    return json_file({"type": "daybook.consistency/1", "proofs": [proof]})
