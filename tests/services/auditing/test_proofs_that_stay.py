"""What was proved of a register is said of it, however many others failed, and at every later visit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.ed25519 import SecretKey
from services.auditing import listing, standing_proofs
from services.auditing.found import Severity
from services.auditing.listing import Listing
from services.auditing.results import AuditFinding, AuditResult, Source, Standing
from tests.support.audited import codes, found, verdict, visit
from tests.support.ledgers import EPOCH, ORIGIN, REGISTER
from tests.support.monitored import BEGAN, WITNESSED, Monitored, monitored, seal, sign

KEY = SecretKey(b"\x44" * 32)
OTHERS = [f"aaa/register-{number:02}" for number in range(21)]
"""Registers whose names, and whose files of evidence, stand before those of `REGISTER`."""

START = EPOCH - BEGAN
HIDDEN = "department-for-testing/private-office"


@pytest.fixture
def it(tmp_path: Path) -> Iterator[Monitored]:
    with monitored(tmp_path) as it:
        yield it


def text_of(path: str) -> str:
    return Path(path).read_text("utf-8")


def fork(it: Monitored, register: str) -> None:
    """Serve another entry of a register, signed by the ledger, in place of its first."""
    other = [it.entries(register)[0].replace(b"Decision 0", b"Decision X")]
    it.site.put(register, other, sign(register, other))


async def fork_all(it: Monitored) -> AuditResult:
    """Visit a ledger of many registers, then again when it has forked every one of them."""
    it.held.authorise(KEY, "aaa")
    for register in OTHERS:
        it.held.open_register(register)
        it.held.add([0], register, KEY)
    it.held.add([0])
    it.publish()
    assert not (await visit(it)).failed
    for register in (*OTHERS, REGISTER):
        fork(it, register)
    return await visit(it)


async def test_a_proved_fork_is_the_verdict_at_the_next_visit_however_many_there_were(it: Monitored) -> None:
    """False if enough forks of other registers hid that of this one, once it shows its first face again."""
    assert verdict(await fork_all(it)).standing is Standing.FAILED
    assert len(OTHERS) > standing_proofs._MOST
    for register in (*OTHERS, REGISTER):
        it.site.put(register, it.entries(register), it.notes[register])
    again = await visit(it)
    assert {each.register for each in again.registers if each.standing is Standing.FAILED} == {
        *OTHERS,
        REGISTER,
    }
    assert "two different histories" in verdict(again).verdict


async def test_a_register_that_failed_is_never_intact_for_want_of_room_in_the_list(
    it: Monitored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """False if so many failures were listed of others that this register's was dropped, and it passed."""
    monkeypatch.setattr(listing, "MAX_LISTED", 5)
    result = await fork_all(it)
    assert verdict(result).standing is Standing.FAILED
    it.site.put(REGISTER, it.entries(REGISTER), it.notes[REGISTER])
    assert "since your last visit" not in verdict(await visit(it)).verdict


def test_the_list_has_one_failure_of_every_register_and_counts_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """False if what is listed had no bound, or left out the only failure of a register."""
    monkeypatch.setattr(listing, "MAX_LISTED", 2)
    made = Listing()
    for register, is_failure in [("a", True), ("a", True), ("a", True), ("b", True), ("b", True), ("c", False)]:
        severity = Severity.CRITICAL
        made.add(AuditFinding("fork", Source.INTEGRITY, severity, is_failure, register, "something"))
    assert [each.register for each in made.findings] == ["a", "a", "b"]
    assert made.more == {"fork": 3}


async def test_a_file_that_is_no_evidence_is_passed_over(it: Monitored) -> None:
    """False if a file among the evidence could stop every later audit."""
    it.held.add([0])
    it.publish()
    await visit(it)
    fork(it, REGISTER)
    assert verdict(await visit(it)).standing is Standing.FAILED
    evidence = it.state / "evidence"
    for name, text in {"fork-a.json": "[" * 100_000, "fork-b.json": "[]", "fork-c.json": "\xff"}.items():
        (evidence / name).write_text(text)
    it.site.put(REGISTER, it.entries(REGISTER), it.notes[REGISTER])
    assert verdict(await visit(it)).standing is Standing.FAILED


# Registers that nothing opens


async def test_a_checkpoint_of_a_register_that_nothing_opens_is_a_failure_at_every_visit(
    tmp_path: Path,
) -> None:
    """False if a register that the ledger keeps beside its list were shown to be there, and forgotten."""
    with monitored(tmp_path, WITNESSED) as it:
        it.held.add([0])
        it.publish(at=START + 50)
        kept = tmp_path / "kept.note"
        kept.write_bytes(seal(sign(HIDDEN, [b"a decision of nobody's"]), at=START + 40))
        result = await visit(it, at=START + 60, kept=[kept])
        assert found(result, "unopened").register == HIDDEN
        assert found(result, "unopened").is_failure
        assert f"{ORIGIN}/{HIDDEN}\\n1\\n" in text_of(found(result, "unopened").evidence)
        assert [each.agrees for each in result.kept] == [False]
        assert verdict(result).standing is Standing.INTACT
        assert codes(await visit(it, at=START + 70)) == {"unopened"}


async def test_a_register_that_is_opened_after_all_is_no_failure_any_more(
    it: Monitored, tmp_path: Path
) -> None:
    """False if whoever had a note before its opening was published would find a failure for ever."""
    it.held.add([0])
    it.publish()
    earlier = dict(it.site.files), dict(it.notes)
    it.held.open_register(HIDDEN)
    it.held.add([1], HIDDEN)
    it.publish()
    kept = tmp_path / "kept.note"
    kept.write_bytes(it.notes[HIDDEN])
    now = dict(it.site.files)
    it.site.files.clear()
    it.site.files.update(earlier[0])
    assert codes(await visit(it, kept=[kept])) == {"unopened"}
    it.site.files.update(now)
    result = await visit(it, kept=[kept])
    assert not result.failed
    assert [each.agrees for each in result.kept] == [True]


async def test_nothing_is_said_of_it_where_the_governing_register_could_not_be_read(
    it: Monitored, tmp_path: Path
) -> None:
    """False if a register were called hidden by somebody who has not read what may open it."""
    it.held.add([0])
    it.publish()
    await visit(it)
    it.held.open_register(HIDDEN)
    it.held.add([1], HIDDEN)
    it.publish()
    kept = tmp_path / "kept.note"
    kept.write_bytes(it.notes[HIDDEN])
    del it.site.files["/logs/governing/checkpoint"]
    result = await visit(it, kept=[kept])
    assert "unopened" not in codes(result)
    assert [each.agrees for each in result.kept] == [None]
