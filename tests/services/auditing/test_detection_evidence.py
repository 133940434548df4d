"""The evidence of what detections find: the entries by hash, the numbers, and how to look again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from ledger import base64
from services.auditing.audit_state import open_audit_state
from services.auditing.detection_evidence import keep_detections
from services.auditing.results import AuditFinding, AuditResult, Source
from services.cli.audit_report import audit_lines
from tests.support.audited import verdict
from tests.support.audited_months import SECOND, Months, months
from tests.support.ledgers import ORIGIN, REGISTER, decision

HOSTILE = "a\nFAILURE fork: b\r\u2028\u202e\x1b[2J</pre><script>alert(1)</script>"


@pytest.fixture
def it(tmp_path: Path) -> Iterator[Months]:
    with months(tmp_path, date(2026, 6, 26)) as it:
        yield it


def lines(finding: AuditFinding) -> list[dict[str, Any]]:
    """Return what stands in the file of a finding, line by line."""
    return [json.loads(line) for line in Path(finding.evidence).read_bytes().split(b"\n")[:-1]]


def data_of(finding: AuditFinding) -> bytes:
    return Path(finding.evidence).read_bytes()


def exists(finding: AuditFinding) -> bool:
    return Path(finding.evidence).exists()


def of_detections(result: AuditResult) -> list[AuditFinding]:
    return [each for each in result.all_findings() if each.source is Source.DETECTION]


def keep(it: Months, result: AuditResult) -> AuditResult:
    with it.it.opened() as monitored, open_audit_state(monitored, it.it.policy) as state:
        return keep_detections(state, result)


async def test_each_finding_has_a_line_with_all_that_it_was_made_from(it: Months) -> None:
    """False if a finding could not be looked at again from its evidence and the entries alone.

    The hash of an entry is that of RFC 6962: of a zero byte and the entry.
    """
    result = await it.visit()
    found = of_detections(result)
    assert {each.code for each in found} >= {"DET-01", "DET-04", "DET-05"}
    for each in found:
        assert Path(each.evidence).is_relative_to(it.it.state / "evidence")
        (line,) = [line for line in lines(each)[1:] if line["id"] == each.evidence_id]
        entries = it.it.entries(each.register)
        assert line == {
            "id": each.evidence_id,
            "code": each.code,
            "severity": each.severity.value,
            "register": each.register,
            "explanation": each.what,
            "inputs": dict(each.inputs),
            "innocent": list(each.innocent),
            "recheck": each.recheck,
            "spans": [list(span) for span in each.spans],
            "count": each.count,
            "entries": [
                {"index": first, "sha256": sha256(b"\0" + entries[first]).hexdigest()}
                for first, last in each.spans
                if first == last
            ],
        }
        assert line["recheck"]
        assert line["innocent"]
    assert len({each.evidence_id for each in found}) == len(found)
    told = "\n".join(audit_lines(result))
    first = found[0]
    assert f"Evidence: {first.evidence}, finding {first.evidence_id}" in told


async def test_the_first_line_says_of_what_the_file_is(it: Months) -> None:
    """False if whoever is given the file alone did not know the ledger, the root or the terms."""
    result = await it.visit()
    for register in (REGISTER, SECOND):
        one = verdict(result, register)
        head, *rest = lines(next(each for each in one.findings if each.source is Source.DETECTION))
        assert (head["type"], head["ledger"], head["register"]) == ("daybook.detections/1", ORIGIN, register)
        assert (head["size"], head["root"]) == (one.size, one.root)
        assert len(base64.decode(head["root"])) == 32
        assert (head["profile"], head["calendar"]) == (result.profile, result.calendar)
        assert f"daybook evidence --register {register} " in head["how_to_check"]
        assert len(rest) == sum(each.source is Source.DETECTION for each in one.findings)


async def test_the_same_findings_have_the_same_evidence(it: Months) -> None:
    """False if an exhibit named in a report could not be found again after the next visit."""
    before = await it.visit()
    files = {each.evidence: data_of(each) for each in of_detections(before)}
    again = await it.visit()
    assert {each.evidence: data_of(each) for each in of_detections(again)} == files
    record = decision(900, SECOND, reference={"number": 900, "series": "PS/2026"}, decided_at="2026-01-05")
    it.register(datetime(2026, 7, 1, 10, tzinfo=UTC), SECOND, [record])
    later = await it.visit()
    names = {each.evidence_id for each in of_detections(before)}
    grown = {each.evidence_id for each in of_detections(later)}
    assert len(names & grown) > 10
    assert grown - names


async def test_what_is_no_longer_found_has_no_evidence(it: Months) -> None:
    """False if findings under one profile stood among those of another."""
    result = await it.visit()
    gone = next(each for each in of_detections(result) if each.register == SECOND)
    bare = replace(
        result,
        registers=tuple(
            replace(each, findings=()) if each.register == SECOND else each for each in result.registers
        ),
    )
    kept = keep(it, bare)
    assert not exists(gone)
    assert of_detections(kept)
    assert not list((it.it.state / "evidence").glob("*.tmp"))


async def test_hostile_text_stays_in_its_line(it: Months) -> None:
    """False if a record's text could forge a line of evidence, or steer the terminal of who reads it."""
    result = await it.visit()
    one = verdict(result)
    hostile = tuple(
        replace(each, what=HOSTILE, inputs={HOSTILE: HOSTILE}) if each.source is Source.DETECTION else each
        for each in one.findings
    )
    registers = tuple(
        replace(each, findings=hostile) if each.register == REGISTER else each for each in result.registers
    )
    kept = keep(it, replace(result, registers=registers))
    finding = next(each for each in of_detections(kept) if each.register == REGISTER)
    data = data_of(finding)
    assert data.isascii()
    assert not set(data) & (set(range(32)) - {10})
    assert (
        len(data.splitlines()) == len(lines(finding)) == 1 + sum(each.what == HOSTILE for each in hostile) > 1
    )
    assert lines(finding)[1]["explanation"] == HOSTILE


async def test_without_detections_what_was_kept_stays(it: Months) -> None:
    """False if an audit that runs no detection took away what an earlier one had found."""
    result = await it.visit()
    keep(it, replace(result, profile="", registers=(), findings=()))
    assert exists(of_detections(result)[0])
