"""Findings of the distributed ledger: those of an embedded one, whatever happens to the projector."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, closing
from importlib.resources import files
from pathlib import Path
from typing import Any, LiteralString

import aiohttp
import grpc
import grpc.aio
import psycopg
import pytest
from daybook.audit.v1 import audit_service_pb2 as pb
from daybook.audit.v1.audit_service_pb2_grpc import AuditServiceStub
from psycopg import sql

from ledger.errors import StoreError
from ledger.governing import GOVERNING
from ledger.ledger import LedgerView
from ledger.store import Store
from ledger.stores.postgres import READER_ROLE
from services.auditing.fact_store import BEGINNING, Place
from services.auditing.found import Found, Severity
from services.auditing.lookout import Lookout
from services.client.errors import from_rpc_error
from services.distributed.detections_file import detections_file
from services.distributed.finding_table import FindingReader, FindingTable, Looked, looked
from services.distributed.governed import governed_policies
from services.distributed.projection import ProjectedRegisters
from services.distributed.shown_findings import ShownFindings
from tests.support.brokers import SharedKafka
from tests.support.calling import assert_refused
from tests.support.ledgers import DEPARTMENT_KEY, ORIGIN, REGISTER, decision, submission
from tests.support.outbox import Ground, Process, service
from tests.support.postgres_ledger import PostgresLedger
from tests.support.witnesses import Witnesses

PATIENCE = 60.0
CODE = grpc.StatusCode
Listed = dict[str, tuple[int, list[dict[str, Any]]]]
"""Of each register, how many entries were looked at, and the findings."""


@pytest.fixture
async def ledger(
    tmp_path: Path, kafka: SharedKafka, prefix: str, fresh_database: str
) -> AsyncIterator[PostgresLedger]:
    ground = await Ground.laid(tmp_path, kafka.bootstrap, prefix, fresh_database)
    made = PostgresLedger.made(ground, None)
    yield made
    made.close()


@pytest.fixture
def witnesses(tmp_path: Path) -> Iterator[Witnesses]:
    with ExitStack() as stack:
        yield Witnesses(tmp_path, stack)


def on_whatsapp(number: int) -> bytes:
    """Return a decision about which there is something to say. Every second number of the series is missing."""
    return decision(
        number,
        channel="whatsapp",
        device="privately_owned",
        decision_type="grant",
        reference={"number": 2 * number + 1, "series": "MD/2026"},
    )


async def grown(ledger: PostgresLedger, numbers: range, of: Callable[[int], bytes] = on_whatsapp) -> None:
    """Register decisions, a hundred a submission, and have them signed."""
    for first in range(numbers.start, numbers.stop, 100):
        records = [of(number) for number in range(first, min(first + 100, numbers.stop))]
        one = submission(REGISTER, records, [DEPARTMENT_KEY])
        await asyncio.to_thread(ledger.held.commit_unsigned, [one])
    await ledger.until_signed()


async def publish_profile(ledger: PostgresLedger, *, without: str) -> None:
    """Publish the strict profile without one of its detections."""
    text = (files("services.auditing") / "profiles" / "daybook-strict.json").read_text("utf-8")
    profile: dict[str, Any] = json.loads(text)
    profile["name"] = "mine"
    del profile["detections"][without]
    published = ledger.held.govern_submission(
        "policy.published/1",
        kind="profile",
        name="mine",
        effective_from="2026-01-01T00:00Z",
        profile=profile,
    )
    await asyncio.to_thread(ledger.held.commit_unsigned, [published])
    await ledger.until_signed()


def embedded(store: Store, path: Path, sizes: Mapping[str, int] | None = None) -> Listed:
    """Return what the embedded ledger's own core finds in the same entries, in one go, in a file of its own."""
    view = LedgerView(store, ORIGIN)
    policy = governed_policies(view)()
    wanted = sizes or {name: head.size for name, head in store.heads().items() if head.size}
    with Lookout(view, path, time.time) as lookout:
        lookout.refresh()
        for register, size in wanted.items():
            while lookout.take(register, size, policy):
                pass
        found: Listed = {}
        for register, size in wanted.items():
            lookout.settle()
            pages = [each for page in lookout.found(register) for _, each in page]
            found[register] = size, [timeless(each.members()) for each in pages]
    path.unlink()
    return found


def timeless(found: dict[str, Any]) -> dict[str, Any]:
    """Return a finding without the moment at which it was looked for what is overdue."""
    inputs = {name: value for name, value in found["inputs"].items() if name not in ("as_at", "waited_seconds")}
    if inputs == found["inputs"]:
        return found
    return {
        **found,
        "inputs": inputs,
        "explanation": re.sub(r", [\d,]+ hours? before .*", "", found["explanation"]),
    }


def shown(response: pb.ListFindingsResponse) -> list[dict[str, Any]]:
    return [
        timeless(
            {
                "detection": each.detection,
                "version": each.version,
                "severity": each.severity,
                "register": response.register,
                "indices": list(each.indices),
                "inputs": dict(each.inputs),
                "explanation": each.explanation,
                "innocent": list(each.innocent),
                "recheck": each.recheck,
            }
        )
        for each in response.findings
    ]


class Auditing:
    """Asks the audit service, by gRPC."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub

    async def page(self, register: str = REGISTER, **asked: Any) -> pb.ListFindingsResponse:
        request = pb.ListFindingsRequest(register=register, **asked)
        response: pb.ListFindingsResponse = await self._stub.ListFindings(request, timeout=30)
        return response

    async def listed(self, registers: Iterable[str], most: int = 0) -> Listed:
        """Return every page of these registers; none where nothing was looked at yet."""
        found: Listed = {}
        for register in registers:
            everything: list[dict[str, Any]] = []
            token, size = "", 0
            while token or not everything:
                try:
                    page = await self.page(register, page_size=most, page_token=token)
                except grpc.aio.AioRpcError as error:
                    if from_rpc_error(error).reason != "BACKEND_DOWN":
                        raise
                    return {}
                everything += shown(page)
                token, size = page.next_page_token, page.size
                if not token:
                    break
            found[register] = size, everything
        return found

    async def until(self, expected: Listed) -> None:
        """Wait until the service lists just this."""
        deadline = time.monotonic() + PATIENCE
        while (found := await self.listed(expected)) != expected:
            if time.monotonic() > deadline:
                assert found == expected
            await asyncio.sleep(0.1)


@asynccontextmanager
async def auditing(ground: Ground) -> AsyncIterator[Auditing]:
    with service(ground, "audit", "--grpc", "127.0.0.1:0") as audit:
        async with grpc.aio.insecure_channel(audit.addresses["grpc"]) as channel:
            yield Auditing(AuditServiceStub(channel))


async def standing(projector: Process) -> dict[str, Any]:
    """Return what readiness says of the detections."""
    return dict((await projector.readiness())[1].get("findings", {}))


async def until_standing(projector: Process, so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE
    while not ((stands := await standing(projector)) and so(stands)):
        assert time.monotonic() < deadline, stands
        await asyncio.sleep(0.02)
    return stands


async def test_the_audit_service_lists_what_an_embedded_ledger_finds(
    ledger: PostgresLedger, tmp_path: Path
) -> None:
    """False if the same entries gave other findings here, or pages left some out."""
    ground, other = ledger.ground, tmp_path / "embedded"
    with service(ground, "signer"), service(ground, "relay"), service(ground, "cosigner"):
        async with auditing(ground) as audit:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await audit.page()
            assert_refused(from_rpc_error(caught.value), CODE.UNAVAILABLE, "BACKEND_DOWN")
            with service(ground, "projector") as projector:
                for first in range(0, 200, 80):
                    await grown(ledger, range(first, first + 80))
                    expected = embedded(ledger.store, other)
                    await audit.until(expected)
                size, found = expected[REGISTER]
                assert size == 240
                assert {each["detection"] for each in found} >= {"DET-05", "DET-08"}
                assert len(found) > 240
                for most in (1_000, 100, 7):
                    assert await audit.listed(expected, most) == expected
                stands = await until_standing(projector, lambda told: told["behind"] == 0)
                assert stands["trouble"] is None
                assert stands["profile"].startswith("daybook-strict/1 sha256:")
                metrics = await metrics_of(projector)
                assert f'daybook_findings_size{{register="{REGISTER}"}} 240.0' in metrics
                assert "daybook_findings_failing 0.0" in metrics
                assert projector.terminate() == 0
            # Nobody projects now: what was found is still there, and says how far it goes.
            assert await audit.listed(expected) == expected
            refused: list[tuple[dict[str, Any], grpc.StatusCode, str]] = [
                ({"register": "no/such"}, CODE.NOT_FOUND, "REGISTER_UNKNOWN"),
                ({"size": 241}, CODE.OUT_OF_RANGE, "SIZE_NOT_REACHED"),
                ({"page_token": "7"}, CODE.INVALID_ARGUMENT, "INVALID_FIELD"),
            ]
            for asked, code, reason in refused:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await audit.page(**asked)
                error = from_rpc_error(caught.value)
                assert (error.code, error.reason) == (code, reason)


async def metrics_of(projector: Process) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"http://{projector.ops}/metrics") as answer:
        return await answer.text()


async def test_a_killed_projector_loses_no_finding(ledger: PostgresLedger, tmp_path: Path) -> None:
    """False if a SIGKILL while it looks lost findings or found twice, or a standby found something else."""
    ground = ledger.ground
    with service(ground, "signer"), service(ground, "relay"), service(ground, "cosigner"):
        await grown(ledger, range(1_500))
        expected = embedded(ledger.store, tmp_path / "embedded")
        behind, kills, anew = 1_500, 0, 0
        while kills < 3:
            kept = {"detections": tmp_path / f"detections-{anew}.sqlite3"}
            with service(ground, "projector", **kept) as projector:
                least = max(1, behind - 200)
                stands = await until_standing(projector, lambda told, least=least: told["behind"] < least)  # type: ignore[misc]
                projector.kill()
            behind, kills = stands["behind"], kills + 1
            if not behind:
                # It had looked at everything before anybody noticed here: it begins anew, with another file.
                behind, kills, anew = 1_500, 0, anew + 1
        async with auditing(ground) as audit:
            with service(ground, "projector", **kept) as projector, service(ground, "projector") as standby:
                await until_standing(projector, lambda told: told["behind"] < behind)
                projector.kill()
                # It has another file, and so begins with the first entry.
                await until_standing(standby, lambda told: told["behind"] == 0)
                await audit.until(expected)


async def test_made_from_zero_it_is_the_same(ledger: PostgresLedger, tmp_path: Path) -> None:
    """False if what was wrong in the file of detections stayed there though all was to be made anew."""
    ground, path = ledger.ground, tmp_path / "detections.sqlite3"
    with service(ground, "signer"), service(ground, "relay"), service(ground, "cosigner"):
        await grown(ledger, range(20))
        expected = embedded(ledger.store, tmp_path / "embedded")
        size, found = expected[REGISTER]
        less = [each for each in found if each["detection"] != "DET-05"]
        assert len(less) < len(found)
        async with auditing(ground) as audit:
            with service(ground, "projector", detections=path) as projector:
                await audit.until(expected)
                assert projector.terminate() == 0
            with closing(sqlite3.connect(path, isolation_level=None)) as file:
                file.execute("DELETE FROM findings WHERE detection = 'DET-05'")
            with service(ground, "projector", detections=path):
                await audit.until({**expected, REGISTER: (size, less)})
            with service(ground, "projector", "--from-zero", detections=path):
                await audit.until(expected)


async def test_times_are_the_witnesses_and_another_profile_begins_anew(
    tmp_path: Path, kafka: SharedKafka, prefix: str, fresh_database: str, witnesses: Witnesses
) -> None:
    """False if lateness did not rest on witnessed times, or findings went on in terms that nobody chose."""
    ground = await Ground.laid(tmp_path, kafka.bootstrap, prefix, fresh_database)
    ledger = PostgresLedger.made(ground, witnesses.policy)
    ground = ledger.ground
    try:
        with (
            service(ground, "signer"),
            service(ground, "relay"),
            service(ground, "cosigner"),
            service(ground, "projector") as projector,
        ):
            async with auditing(ground) as audit:
                for each in range(3):
                    await grown(ledger, range(10 * each, 10 * each + 10))
                    await until_standing(projector, lambda told: told["behind"] == 0)
                await until_cosigned(ledger)
                expected = embedded(ledger.store, tmp_path / "embedded")
                await audit.until(expected)
                late = [each for each in expected[REGISTER][1] if each["detection"] == "DET-01"]
                assert late
                assert all(each["inputs"]["not_before"] for each in late)
                await publish_profile(ledger, without="nccc_origin")
                await until_standing(projector, lambda told: "mine/" in told["profile"] and not told["behind"])
                await until_cosigned(ledger)
                after = embedded(ledger.store, tmp_path / "embedded")
                await audit.until(after)
    finally:
        ledger.close()
    assert "DET-05" in {each["detection"] for each in expected[REGISTER][1]}
    assert "DET-05" not in {each["detection"] for each in after[REGISTER][1]}


async def until_cosigned(ledger: PostgresLedger) -> None:
    """Wait until both witnesses' cosignatures of every head are kept: times rest on them."""
    deadline = time.monotonic() + PATIENCE
    for register, head in ledger.store.heads().items():
        while len(list(ledger.store.cosigned(register, head.size, head.size + 1))) < 2:
            assert time.monotonic() < deadline, f"{register} at {head.size} is not sealed"
            await asyncio.sleep(0.05)


async def test_detections_that_fail_hold_up_no_counting_and_are_told(
    ledger: PostgresLedger, tmp_path: Path
) -> None:
    """False if a fault in what only looks stopped what counts, went unnoticed, or took away what was found."""
    ground = ledger.ground
    with service(ground, "signer"), service(ground, "relay"), service(ground, "cosigner"):
        await grown(ledger, range(5))
        before = embedded(ledger.store, tmp_path / "embedded")
        async with auditing(ground) as audit:
            with service(ground, "projector") as projector:
                await audit.until(before)
                may_write(ground, "REVOKE INSERT ON projection.finding FROM")
                await grown(ledger, range(5, 10))
                stands = await until_standing(projector, lambda told: told["trouble"] is not None)
                assert "permission denied" in stands["trouble"]
                assert (await projector.readiness())[0] == 200
                assert "daybook_findings_failing 1.0" in await metrics_of(projector)
                with ProjectedRegisters(ground.settings.conninfo()) as counted:
                    deadline = time.monotonic() + PATIENCE
                    while counted.read()[REGISTER].size != 10:
                        assert time.monotonic() < deadline
                        await asyncio.sleep(0.05)
                assert await audit.listed(before) == before
                may_write(ground, "GRANT INSERT ON projection.finding TO")
                await audit.until(embedded(ledger.store, tmp_path / "embedded"))


def may_write(ground: Ground, change: LiteralString) -> None:
    """Change a right of the services."""
    with psycopg.connect(ground.database) as connection:
        role = sql.Identifier(ground.settings.database_role)
        connection.execute(sql.SQL(change) + sql.SQL(" {}").format(role))


async def test_a_file_of_detections_is_of_one_process_at_a_time(tmp_path: Path) -> None:
    """False if two projectors could look through one file, or a temporary one were left behind."""
    path, had = tmp_path / "detections.sqlite3", asyncio.Event()

    async def follow() -> None:
        async with detections_file(path, anew=True):
            had.set()

    async with detections_file(path, anew=False) as given:
        assert given == path
        path.write_bytes(b"")
        following = asyncio.create_task(follow())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(had.wait(), 0.3)
        assert path.exists()
    await following
    assert not path.exists()
    async with detections_file(None, anew=False) as made:
        made.write_bytes(b"")
    assert not made.parent.exists()


# The table.


def finding(index: int, explanation: str = "Odd.") -> tuple[Place, Found]:
    found = Found("DET-05", 1, Severity.LOW, REGISTER, (index,), {"n": "1"}, explanation, ("luck",), "look")
    return (index, "DET-05", f"record:{index}:x"), found


def put(table: FindingTable, size: int, *findings: tuple[Place, Found], register: str = REGISTER) -> Looked:
    pages = [findings[at : at + 3] for at in range(0, len(findings), 3)]
    table.replace(register, looked(size, pages), pages)
    return looked(size, pages)


async def read(conninfo: str, register: str = REGISTER) -> tuple[int, list[tuple[Place, Found]]] | None:
    """Return what a reader finds, two at a time."""
    reader, after, everything = FindingReader(conninfo), BEGINNING, list[tuple[Place, Found]]()
    try:
        while True:
            page = await reader.page(register, after, 2)
            if page is None:
                return None
            everything += [(after, each) for each in page.found]
            if page.after is None:
                return page.size, everything
            after = page.after
    finally:
        await reader.close()


async def test_what_stands_is_replaced_whole_or_not_at_all(ledger: PostgresLedger) -> None:
    """False if a reader saw half of what a projector puts there, or a crash in the middle left it."""
    conninfo = ledger.ground.settings.reader_conninfo()
    before, after = [finding(each) for each in range(7)], [finding(each, "Odder.") for each in range(3, 12)]

    async def seen() -> tuple[int, list[Found]]:
        found = await read(conninfo)
        assert found is not None
        return found[0], [each for _, each in found[1]]

    assert await read(conninfo) is None
    with FindingTable(ledger.ground.settings.conninfo()) as table:
        first = put(table, 7, *before)
        assert await seen() == (7, [each for _, each in before])

        def breaking() -> Iterator[list[tuple[Place, Found]]]:
            yield after[:4]
            raise StoreError("the file is gone")

        with pytest.raises(StoreError):
            table.replace(REGISTER, looked(12, [after]), breaking())
        assert table.read() == {REGISTER: first}
        assert await seen() == (7, [each for _, each in before])
        with psycopg.connect(ledger.ground.database) as other:
            # One of its statements has to wait, and so its commit.
            other.execute("SELECT FROM projection.finding WHERE first = 0 FOR UPDATE")
            putting = asyncio.create_task(asyncio.to_thread(put, table, 12, *after))
            await until_waiting(ledger.ground.database)
            assert await seen() == (7, [each for _, each in before])
            other.rollback()
        second = await putting
        assert await seen() == (12, [each for _, each in after])
        assert table.read() == {REGISTER: second}
        put(table, 3, register=GOVERNING)
        assert await read(conninfo, GOVERNING) == (3, [])
        table.remove([REGISTER])
        assert await read(conninfo) == (0, [])
        table.clear()
        assert await read(conninfo) is None


async def until_waiting(database: str) -> None:
    """Wait until somebody waits for a lock."""
    deadline = time.monotonic() + PATIENCE
    with psycopg.connect(database, autocommit=True) as connection:
        while not connection.execute("SELECT FROM pg_locks WHERE NOT granted").fetchall():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)


def test_who_only_reads_writes_nothing(ledger: PostgresLedger) -> None:
    """False if the services that list findings could make some, or take some away."""
    settings = ledger.ground.settings
    with FindingTable(settings.conninfo()) as table:
        put(table, 2, finding(0))
    with FindingTable(settings.reader_conninfo()) as reading:
        before = reading.read()
        for work in (lambda: put(reading, 3, finding(1)), reading.clear, lambda: reading.remove([REGISTER])):
            with pytest.raises(StoreError, match="permission denied"):
                work()
        assert reading.read() == before
    with psycopg.connect(ledger.ground.database) as connection:
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(READER_ROLE)))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM projection.finding")


async def test_a_database_without_the_table_is_told_as_that(ledger: PostgresLedger) -> None:
    """False if after an update without `daybook migrate` nobody were told why there are no findings."""
    with psycopg.connect(ledger.ground.database) as connection:
        connection.execute("DROP TABLE projection.finding, projection.looked")
    with FindingTable(ledger.ground.settings.conninfo()) as table, pytest.raises(StoreError, match="migrate"):
        table.read()
    with pytest.raises(StoreError, match="migrate"):
        await read(ledger.ground.settings.reader_conninfo())


def test_where_all_is_looked_at_anew_what_was_found_stays_till_then(
    ledger: PostgresLedger, tmp_path: Path
) -> None:
    """False if a projector that lost its file took findings away until it had found them again."""
    ledger.add(range(200))
    view = LedgerView(ledger.store, ORIGIN)
    governed_policies(view)
    with (
        FindingTable(ledger.ground.settings.conninfo()) as table,
        Lookout(view, tmp_path / "file", time.time) as it,
    ):
        kept = put(table, 150, finding(5))
        it.refresh()
        it.take(REGISTER, 100, None)
        showing = ShownFindings(table)
        showing.show(it, all_seen=False)
        assert table.read() == {REGISTER: kept}
        while it.take(REGISTER, 200, None):
            pass
        showing.show(it, all_seen=False)
        further = table.read()[REGISTER]
        assert further == looked(200, it.found(REGISTER))
        # There is nothing more of another copy of the ledger, nor of a register that was in that one only.
        put(table, 500, finding(5))
        put(table, 9, finding(0), register="other/office")
        showing.show(it, all_seen=True)
        assert table.read() == {REGISTER: further}
