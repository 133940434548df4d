"""Finding: the detections beside a running ledger, and ListFindings over a real server."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import stat
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from importlib.resources import files
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import grpc.aio
import pytest
from daybook.audit.v1 import audit_service_pb2 as pb
from daybook.submission.v1.submission_pb2 import WAIT_FOR_SEQUENCED

from ledger.governing import GOVERNING
from ledger.sealing import SealedCheckpoint, SealedReader
from ledger.store import Store
from ledger.stores.memory import MemoryStore
from ledger.stores.sqlite import SqliteStore
from ledger.timeline import Bounds
from services import finding
from services.auditing.calendars import packaged
from services.auditing.detecting import Detector
from services.auditing.facts import Fact, fact_of
from services.auditing.found import Found
from services.auditing.lookout import Lookout
from services.auditing.profiles import shipped
from services.auditing.stored_bounds import stored_bounds
from services.client.errors import from_rpc_error
from services.client.signing import SignedSubmission, sign_submission
from services.monitoring.findings import instant
from tests.support import audit_server
from tests.support.calling import assert_refused, calling
from tests.support.ledger_dir import LedgerOnDisk, governing
from tests.support.ledgers import DEPARTMENT_KEY, EPOCH, ORIGIN, REGISTER, decision, open_ledger
from tests.support.scripted_witness import ScriptedWitness, honestly, replies
from tests.support.served import Served, served
from tests.support.server_process import running
from tests.support.witnessed import policy_text, publishing

CODE = grpc.StatusCode
STRICT = shipped("daybook-strict")
CALENDAR = packaged(STRICT.calendar)


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be waited for that is only there to spare a real server."""
    monkeypatch.setattr(finding, "PAUSE", 0.001)
    monkeypatch.setattr(finding, "LOOK", 0.02)
    monkeypatch.setattr(finding, "FIRST_DELAY", 0.01)


def deciding(*records: Mapping[str, Any]) -> SignedSubmission:
    """Return a submission of decisions with these members."""
    made = [decision(number, record_id=str(uuid4()), **members) for number, members in enumerate(records)]
    return sign_submission(made, f"{ORIGIN}/{REGISTER}", [DEPARTMENT_KEY])


def late(number: int = 0) -> dict[str, Any]:
    """Return what makes a decision late under every profile: made in 2019, recorded now."""
    return {"decided_at": "2019-05-01", "captured_at": "2019-05-02", "reference": ref(number)}


def plain(number: int = 0) -> dict[str, Any]:
    """Return a decision about which there is nothing to say: of this month, by mail."""
    return {"decided_at": "2026-05", "decision_type": "grant", "reference": ref(number)}


def on_whatsapp(number: int = 0) -> dict[str, Any]:
    """Return a decision that is looked at for where it was made, whenever that is witnessed."""
    return {
        "channel": "whatsapp",
        "device": "privately_owned",
        "decision_type": "grant",
        "reference": ref(number),
    }


def ref(number: int) -> dict[str, Any]:
    return {"number": number + 1, "series": "MD/2026"}


def counting(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Return a list that grows by one with every look for what is new."""
    looks: list[None] = []
    refresh = Lookout.refresh

    def counted(looking: Lookout) -> None:
        looks.append(None)
        refresh(looking)

    monkeypatch.setattr(Lookout, "refresh", counted)
    return looks


async def listed(it: Served, register: str = REGISTER, **asked: Any) -> pb.ListFindingsResponse:
    """Ask for one page."""
    response: pb.ListFindingsResponse = await it.caller.audit.ListFindings(
        pb.ListFindingsRequest(register=register, **asked)
    )
    return response


async def seen(it: Served, size: int, register: str = REGISTER) -> pb.ListFindingsResponse:
    """Wait until so many entries were looked at, and return what was found."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await listed(it, register, size=size)
            except grpc.aio.AioRpcError as error:
                if from_rpc_error(error).reason not in ("SIZE_NOT_REACHED", "BACKEND_DOWN"):
                    raise
            await asyncio.sleep(0.01)


def one_pass(it: Served, bounds: Callable[[str, int], Bounds], profile: Any = STRICT) -> list[Found]:
    """Return what one pass of the detections over the whole ledger finds in the register."""

    def facts(register: str) -> list[Fact]:
        reader = it.opened.ledger.reader(register)
        size = it.published.latest(register).size
        entries = enumerate(reader.entries(0, size))
        return [fact_of(register, index, entry, bounds(register, index)) for index, entry in entries]

    with Detector(None, profile, CALENDAR) as detector:
        for register in sorted(it.published.registers()):
            detector.observe(facts(register))
        return [each for each in detector.found(int(time.time())) if each.register == REGISTER]


def unbounded(_register: str, _index: int) -> Bounds:
    return Bounds(None, None, comparable=False)


def members(found: pb.Finding) -> dict[str, Any]:
    return {
        "detection": found.detection,
        "version": found.version,
        "severity": found.severity,
        "register": REGISTER,
        "indices": list(found.indices),
        "inputs": dict(found.inputs),
        "explanation": found.explanation,
        "innocent": list(found.innocent),
        "recheck": found.recheck,
    }


@asynccontextmanager
async def witnessed(ledger: LedgerOnDisk, *witnesses: ScriptedWitness) -> AsyncIterator[Served]:
    """Serve a ledger that asks these witnesses."""
    async with served(ledger.root) as it:
        await it.govern("PublishPolicy", publishing(policy_text(ledger, [w.witness for w in witnesses])))
        await it.until_all_sealed()
        yield it


async def test_a_served_ledger_finds_what_one_pass_finds(ledger: LedgerOnDisk) -> None:
    """If false, what runs beside the ledger would say something else than the same rules run by an auditor."""
    async with served(ledger.root) as it:
        for first in range(0, 30, 5):
            await it.register(deciding(*(on_whatsapp(first + each) for each in range(4))))
            await it.register(deciding(plain(first + 4)))
        answer = await seen(it, 30)
        expected = one_pass(it, unbounded)
    assert (answer.size, answer.register, answer.next_page_token) == (30, REGISTER, "")
    assert [members(each) for each in answer.findings] == [each.members() for each in expected]
    assert {each.detection for each in expected} >= {"DET-05"}
    assert all(each.innocent and each.recheck and each.inputs["profile"] for each in answer.findings)


async def test_times_are_the_witnesses_and_an_entry_waits_for_them(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If false, lateness would rest on the ledger's own clock, or on no time at all."""
    looks = counting(monkeypatch)
    async with witnessed(ledger, one, two) as it:
        await it.register(deciding(late(0)))
        answer = await seen(it, 1)
        (found,) = (each for each in answer.findings if each.detection == "DET-01")
        bounds = await it.bounds(0)
        assert list(found.indices) == [0]
        assert found.inputs["not_before"] == instant(bounds.not_before)
        # Nobody states when the second one came in: a fact without bounds would be no lateness.
        for witness in (one, two):
            witness.always(replies(503))
        await it.register(deciding(late(1)), WAIT_FOR_SEQUENCED)
        began = len(looks)
        await it.until(lambda: len(looks) > began + 2)
        answer = await listed(it)
        assert answer.size == 1
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await listed(it, size=2)
        assert_refused(from_rpc_error(caught.value), CODE.OUT_OF_RANGE, "SIZE_NOT_REACHED", latest_size="1")
        for witness in (one, two):
            witness.always(honestly)
        await seen(it, 2)
        later = await it.bounds(1)
    assert bounds.HasField("not_before")
    assert later.not_after >= bounds.not_after


async def test_what_one_policy_seals_is_never_judged_by_the_one_before(
    ledger: LedgerOnDisk, one: ScriptedWitness, two: ScriptedWitness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If false, a change of witnesses during a look would hide for good what is late."""
    changing, changed = threading.Event(), threading.Event()
    async with witnessed(ledger, one) as it:
        sealed = it.published.sealed

        def sealed_later(register: str) -> SealedCheckpoint | None:
            if threading.current_thread() is not threading.main_thread() and register == REGISTER:
                changing.set()
                changed.wait(60)
            return sealed(register)

        # Between the question which policy is in force and what is sealed.
        monkeypatch.setattr(it.published, "sealed", sealed_later)
        await asyncio.to_thread(changing.wait)
        await it.govern("PublishPolicy", publishing(policy_text(ledger, [two.witness])))
        await it.register(deciding(late()))
        changed.set()
        answer = await seen(it, 1)
        (found,) = (each for each in answer.findings if each.detection == "DET-01")
        assert found.inputs["not_after"] == instant((await it.bounds(0)).not_after)


@pytest.mark.parametrize("make", [lambda _: MemoryStore(), lambda path: SqliteStore(path / "store")])
def test_the_bounds_of_neighbours_are_those_of_the_whole_timeline(
    make: Callable[[Path], Store], tmp_path: Path
) -> None:
    """If false, a finding would rest on a window that GetTimeBounds contradicts."""
    held = audit_server.witnessed(open_ledger(make(tmp_path), tmp_path / "marks"))
    policy, pick = held.published.policy, random.Random(5)
    assert policy is not None
    time = EPOCH
    for _ in range(12):
        held.fill(held.published.latest(REGISTER).size + pick.randrange(4))
        time += pick.randrange(1, 1_000)
        audit_server.seal(held, time, pick.choice([("one", "two"), ("one",), ("two",), ()]))
    size = held.published.latest(REGISTER).size
    store = held.ledger.store
    timeline = SealedReader(store, policy).timeline(REGISTER)
    expected = [timeline.bounds(index) for index in range(size)]
    assert len(set(expected)) > 3
    for begin in range(size):
        for end in range(begin + 1, size + 1):
            assert list(stored_bounds(store, policy, REGISTER, begin, end)) == expected[begin:end]


async def test_after_sigkill_the_findings_are_those_of_one_pass(ledger: LedgerOnDisk, tmp_path: Path) -> None:
    """If false, a crash would lose findings, or count entries twice."""
    log, count = tmp_path / "log", 0
    for _ in range(4):
        with running(ledger.root, log) as server:
            async with calling(server.grpc) as caller:
                for _ in range(3):
                    made = deciding(*(on_whatsapp(2 * count + 2 * each) for each in range(40)))
                    await caller.register(made)
                    count += 40
            # Killed right behind the last answer, wherever the detections are.
            server.kill()
    async with served(ledger.root) as it:
        answer = await seen(it, count)
        expected = one_pass(it, unbounded)
    assert [members(each) for each in answer.findings] == [each.members() for each in expected]
    assert len(expected) >= count


async def test_a_restart_goes_on_where_it_was(ledger: LedgerOnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """If false, every start of a large ledger would look at all of it again."""
    async with served(ledger.root) as it:
        await it.register(deciding(on_whatsapp(0), on_whatsapp(2), plain(4)))
        await seen(it, 3)
    observed: list[tuple[str, int]] = []
    observe = Detector.observe

    def noting(detector: Detector, facts: Iterable[Fact]) -> None:
        held = list(facts)
        observed.extend((fact.register, fact.index) for fact in held)
        observe(detector, held)

    monkeypatch.setattr(Detector, "observe", noting)
    async with served(ledger.root) as it:
        await it.register(deciding(on_whatsapp(6)))
        answer = await seen(it, 4)
        expected = one_pass(it, unbounded)
    assert [each for each in observed[: len(observed) - 7] if each[0] == REGISTER] == [(REGISTER, 3)]
    assert [members(each) for each in answer.findings] == [each.members() for each in expected]


async def test_the_file_is_private_and_made_again_where_it_was_deleted(ledger: LedgerOnDisk) -> None:
    """If false, others could read what was found, or a lost file would lose it for good."""
    path = ledger.directory.detections
    async with served(ledger.root) as it:
        await it.register(deciding(on_whatsapp(0), on_whatsapp(2)))
        before = await seen(it, 2)
    for each in ledger.root.glob("detections.sqlite3*"):
        assert stat.S_IMODE(each.stat().st_mode) == 0o600
        each.unlink()
    async with served(ledger.root) as it:
        after = await seen(it, 2)
    assert path.exists()
    assert list(after.findings) == list(before.findings)
    assert before.findings


async def test_a_file_that_has_seen_more_than_there_is_begins_anew(ledger: LedgerOnDisk) -> None:
    """If false, after the ledger's store was put back the detections would stand still for ever."""
    with Detector(ledger.directory.detections, STRICT, CALENDAR) as detector:
        held = open_ledger(MemoryStore(), ledger.root.parent / "marks")
        held.fill(50)
        entries = enumerate(held.ledger.reader(REGISTER).entries(0, 50))
        detector.observe(fact_of(REGISTER, index, entry, unbounded("", 0)) for index, entry in entries)
    async with served(ledger.root) as it:
        await it.register(deciding(on_whatsapp(0)))
        answer = await seen(it, 1)
        expected = one_pass(it, unbounded)
    assert answer.size == 1
    assert [members(each) for each in answer.findings] == [each.members() for each in expected]


async def test_another_profile_in_force_has_everything_looked_at_anew(ledger: LedgerOnDisk) -> None:
    """If false, findings would go on in terms that nobody has chosen any more."""
    profile = _profile(without="nccc_origin")
    async with served(ledger.root) as it:
        await it.register(deciding(on_whatsapp(0)))
        strict = await seen(it, 1)
        await it.govern(
            "PublishPolicy",
            governing(
                "policy.published/1",
                kind="profile",
                name=profile["name"],
                effective_from="2026-01-01T00:00Z",
                profile=profile,
            ),
        )
        async with asyncio.timeout(30):
            while any(each.detection == "DET-05" for each in (await seen(it, 1)).findings):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert "DET-05" in {each.detection for each in strict.findings}


def _profile(*, without: str) -> dict[str, Any]:
    text = (files("services.auditing") / "profiles" / "daybook-strict.json").read_text("utf-8")
    profile: dict[str, Any] = json.loads(text)
    profile["name"] = "mine"
    del profile["detections"][without]
    return profile


async def test_detections_that_fail_stop_nothing_and_are_told(
    ledger: LedgerOnDisk, capsys: pytest.CaptureFixture[str]
) -> None:
    """If false, a fault in what only looks would keep departments from registering, or go unnoticed."""
    path = ledger.directory.detections
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE somebody_elses (x)")
    async with served(ledger.root) as it:
        await it.register(deciding(on_whatsapp(0)))
        async with asyncio.timeout(30):
            while not (told := await it.ready())["findings"]["trouble"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (told["status"], told["ready"]) == (200, True)
        assert "not a file of detections" in told["findings"]["trouble"]
        assert told["findings"]["behind"] == sum(each.size for each in it.published.registers().values())
        assert (await it.get("/healthz")).status_code == 200
        assert "daybook_findings_failing 1.0" in (await it.get("/metrics")).text
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await listed(it)
        assert_refused(from_rpc_error(caught.value), CODE.UNAVAILABLE, "BACKEND_DOWN")
        await it.register(deciding(plain(1)))
        path.unlink()
        answer = await seen(it, 2)
        assert answer.findings
        # They may be listed a moment before it is told that all is well again.
        async with asyncio.timeout(30):
            while (told := await it.ready())["findings"]["trouble"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        metrics = (await it.get("/metrics")).text
    profile = told["findings"].pop("profile")
    assert profile.startswith("daybook-strict/1 sha256:")
    assert told["findings"] == {"behind": 0, "trouble": None}
    assert "daybook_findings_failing 0.0" in metrics
    assert f'daybook_findings_size{{register="{REGISTER}"}} 2.0' in metrics
    assert "detections failed" in capsys.readouterr().out


async def test_a_rule_that_breaks_stops_nothing(ledger: LedgerOnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """If false, one record that a rule did not expect would end the server."""

    def broken(*_: Any) -> int:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(Detector, "observe", broken)
        async with served(ledger.root) as it:
            await it.register(deciding(on_whatsapp(0)))
            async with asyncio.timeout(30):
                while (await it.ready())["findings"]["trouble"] != "ZeroDivisionError":  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await it.register(deciding(plain(1)))
    async with served(ledger.root) as it:
        assert (await seen(it, 2)).findings


async def test_pages_are_in_order_and_leave_nothing_out(ledger: LedgerOnDisk) -> None:
    """If false, a finding could hide behind a page's end."""
    async with served(ledger.root) as it:
        await it.register(deciding(*(on_whatsapp(2 * each) for each in range(20))))
        whole = await seen(it, 20)
        assert len(whole.findings) > 20
        firsts = [each.indices[0] if each.indices else -1 for each in whole.findings]
        assert firsts == sorted(firsts)
        for most in (1, 7, len(whole.findings), 1_000):
            found: list[pb.Finding] = []
            token = ""
            while True:
                page = await listed(it, page_size=most, page_token=token)
                assert len(page.findings) <= most
                found += page.findings
                token = page.next_page_token
                if not token:
                    break
            assert found == list(whole.findings)


async def test_long_findings_come_in_smaller_pages(
    ledger: LedgerOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If false, a page could outgrow what gRPC clients take."""
    monkeypatch.setattr("services.auditing.fact_store.PAGE_BYTES", 700)
    async with served(ledger.root) as it:
        await it.register(deciding(*(on_whatsapp(2 * each) for each in range(20))))
        page = await seen(it, 20)
        assert page.next_page_token
        found = list(page.findings)
        assert 1 <= len(found) < 20
        while page.next_page_token:
            page = await listed(it, page_token=page.next_page_token)
            assert page.findings
            found += page.findings
        expected = one_pass(it, unbounded)
    assert [members(each) for each in found] == [each.members() for each in expected]


@pytest.mark.parametrize(
    ("asked", "code", "reason", "fields"),
    [
        ({"register": "no/such"}, CODE.NOT_FOUND, "REGISTER_UNKNOWN", []),
        ({"size": 2}, CODE.OUT_OF_RANGE, "SIZE_NOT_REACHED", []),
        ({"page_size": 1_001}, CODE.INVALID_ARGUMENT, "INVALID_FIELD", ["page_size"]),
        ({"page_token": "7"}, CODE.INVALID_ARGUMENT, "INVALID_FIELD", ["page_token"]),
        ({"page_token": "-2 DET-01 a"}, CODE.INVALID_ARGUMENT, "INVALID_FIELD", ["page_token"]),
        ({"page_token": "0 DET-01 \N{SNOWMAN}"}, CODE.INVALID_ARGUMENT, "INVALID_FIELD", ["page_token"]),
    ],
)
async def test_what_cannot_be_answered_is_refused(
    asked: dict[str, Any], code: grpc.StatusCode, reason: str, fields: Sequence[str], ledger: LedgerOnDisk
) -> None:
    """If false, a caller could not tell a mistake from a register without findings."""
    async with served(ledger.root) as it:
        await it.register(deciding(on_whatsapp(0)))
        await seen(it, 1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await listed(it, **{"register": REGISTER, **asked})
        assert_refused(from_rpc_error(caught.value), code, reason, *fields)


async def test_the_governing_register_is_looked_at_too(ledger: LedgerOnDisk) -> None:
    """If false, nobody would be told of governing entries that witnesses saw late."""
    async with served(ledger.root) as it:
        answer = await seen(it, 3, GOVERNING)
    assert (answer.size, answer.register) == (3, GOVERNING)


def test_what_becomes_overdue_is_found_without_a_new_entry(tmp_path: Path) -> None:
    """If false, an entry that no quorum witnesses would be noticed only when something else comes in."""
    held = open_ledger(MemoryStore(), tmp_path / "marks")
    held.fill(1)
    now = EPOCH + 3_600.0
    with Lookout(held.ledger, tmp_path / "file", lambda: now) as looking:
        looking.refresh()
        assert looking.take(REGISTER, 1, None) == 1
        before = looking.page(REGISTER, None, 100)
        now += 2 * 86_400
        after = looking.page(REGISTER, None, 100)
    assert "DET-29" not in {each.detection for each in before.found}
    assert "DET-29" in {each.detection for each in after.found}
