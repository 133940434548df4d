"""The signer as it runs: what it signs, what it refuses, and what it remembers over every kind of end."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from ledger.checkpoints import Checkpoint, open_checkpoint, sign_checkpoint
from ledger.ed25519 import SecretKey
from ledger.errors import MalformedError, SplitViewError, StoreError
from ledger.governing import GOVERNING
from ledger.hashing import EMPTY_ROOT, Hash, leaf_hash
from ledger.notes import SignerKey
from ledger.proofs import compute, plan_consistency
from ledger.stores.memory import MemoryStore
from ledger.tree import EMPTY, extend
from services.distributed import signer_service
from services.distributed.settings import DistributedSettings
from services.distributed.signer_marks import raise_marks
from services.distributed.signing import GuardedSigner, SignerAwayError, SignerClient, Signing, ToSign, Verdict
from services.ledger_files import write_key_pair
from services.local.ports import free_port
from services.signing import HighWaterMarks
from tests.support.certificates import Issuer, make_issuer
from tests.support.ledgers import LOG_KEY, ORIGIN, REGISTER, vkey
from tests.support.service_process import ServiceProcess, launch, running

LEAVES: Final = [leaf_hash(b"entry %d" % number) for number in range(40)]
OTHERS: Final = [LEAVES[0], *[leaf_hash(b"other %d" % number) for number in range(40)]]
SECOND: Final = "department-for-testing/second"


def head(size: int, leaves: list[Hash] = LEAVES, register: str = REGISTER) -> Checkpoint:
    """Return the checkpoint of the first leaves."""
    root = extend(EMPTY, leaves[:size]).after.root() if size else EMPTY_ROOT
    return Checkpoint(f"{ORIGIN}/{register}", size, root)


def proof(first: int, second: int, leaves: list[Hash] = LEAVES) -> tuple[Hash, ...]:
    """Return the consistency proof between two sizes."""
    extension = extend(EMPTY, leaves[:second])
    return compute(plan_consistency(first, second), lambda node: extension.node(*node))


def extending(first: int, second: int, register: str = REGISTER) -> ToSign:
    """Return a checkpoint with the proof that it extends another."""
    return ToSign(head(second, register=register), proof(first, second) if first else ())


def moved(wanted: ToSign, register: str) -> ToSign:
    """Return the same of another register."""
    return replace(wanted, checkpoint=replace(wanted.checkpoint, origin=f"{ORIGIN}/{register}"))


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, object]:
    key = tmp_path / "log"
    write_key_pair(key, SignerKey(f"{ORIGIN}/{GOVERNING}", LOG_KEY))
    return {
        "origin": ORIGIN,
        "kafka": "127.0.0.1:1",
        "database": "host=127.0.0.1",
        "log_key": key,
        "signer": f"127.0.0.1:{free_port()}",
        "signer_marks": tmp_path / "signer.marks",
    }


@asynccontextmanager
async def signer(
    settings: dict[str, object], log: Path, *confirmed: ToSign
) -> AsyncIterator[tuple[ServiceProcess, SignerClient]]:
    """Run a signer, have these signed one after the other, each confirmed before the next, and ask it."""
    with running("signer", settings, log) as process:
        client = SignerClient.of(DistributedSettings.model_validate(settings))
        try:
            for each in confirmed:
                assert (await one(client, each)).verdict is Verdict.SIGNED
                await client.confirm([each.checkpoint])
            yield process, client
        finally:
            await client.close()


async def one(client: SignerClient, wanted: ToSign) -> Signing:
    """Ask for one signature."""
    (signing,) = (await client.sign([wanted])).results
    return signing


_FIRST: Final = (ToSign(head(0)), ToSign(head(7)))
_OTHER: Final = ToSign(head(12, OTHERS), proof(7, 12, OTHERS))

_VERDICTS: Final[dict[str, tuple[tuple[ToSign, ...], ToSign, Verdict, int | None]]] = {
    "first, of size 0": ((), ToSign(head(0)), Verdict.SIGNED, 0),
    "first, larger": ((), ToSign(head(3)), Verdict.UNCONFIRMED, None),
    "from size 0, without proof": (_FIRST[:1], ToSign(head(7)), Verdict.SIGNED, 7),
    "again": (_FIRST, ToSign(head(7)), Verdict.SIGNED, 7),
    "smaller": (_FIRST, ToSign(head(6)), Verdict.BEHIND, 7),
    "smaller, size 0": (_FIRST, ToSign(head(0)), Verdict.BEHIND, 7),
    "another root": (_FIRST, ToSign(head(7, OTHERS)), Verdict.CONTRADICTS, 7),
    "larger": (_FIRST, extending(7, 12), Verdict.SIGNED, 12),
    "larger, without proof": (_FIRST, ToSign(head(12)), Verdict.CONTRADICTS, 7),
    "larger, of another tree": (_FIRST, _OTHER, Verdict.CONTRADICTS, 7),
    "larger, the proof of another size": (_FIRST, ToSign(head(12), proof(7, 13)), Verdict.CONTRADICTS, 7),
    "larger, the proof from another mark": (_FIRST, ToSign(head(12), proof(6, 12)), Verdict.CONTRADICTS, 7),
}


async def test_the_verdicts(settings: dict[str, object], tmp_path: Path) -> None:
    """The signer signs what does not extend its mark, or refuses what does."""
    async with signer(settings, tmp_path / "log.txt") as (_, client):
        for number, (name, (before, wanted, verdict, mark)) in enumerate(_VERDICTS.items()):
            register = f"department-for-testing/case-{number}"
            for each in before:
                assert (await one(client, moved(each, register))).verdict is Verdict.SIGNED
                await client.confirm([moved(each, register).checkpoint])
            asked = moved(wanted, register)
            signing = await one(client, asked)
            expected = None if mark is None else head(mark, register=register)
            assert (signing.verdict, signing.mark) == (verdict, expected), name
            assert bool(signing.note) == (verdict is Verdict.SIGNED), name
            if signing.note:
                opened = open_checkpoint(signing.note, f"{ORIGIN}/{register}", [vkey(register)])
                assert opened.checkpoint == asked.checkpoint
            marks = await client.marks([f"{ORIGIN}/{register}"])
            assert [each.checkpoint for each in marks.by_origin.values()] == ([expected] if expected else []), (
                name
            )


async def test_one_refused_stops_no_other(settings: dict[str, object], tmp_path: Path) -> None:
    """One register that may not be signed for holds up all."""
    async with signer(settings, tmp_path / "log.txt", *_FIRST) as (_, client):
        wanted = [ToSign(head(3)), ToSign(head(0, register=SECOND)), ToSign(head(9, register=GOVERNING))]
        signings = await client.sign(wanted)
        assert [each.verdict for each in signings.results] == [
            Verdict.BEHIND,
            Verdict.SIGNED,
            Verdict.UNCONFIRMED,
        ]
        marks = await client.marks()
        assert {each.checkpoint: each.confirmed for each in marks.by_origin.values()} == {
            head(7): True,
            head(0, register=SECOND): False,
        }
        assert marks.instance == signings.instance


async def test_nothing_larger_is_signed_before_the_mark_is_confirmed(
    settings: dict[str, object], tmp_path: Path
) -> None:
    """After a restore the signer signs beyond what the witnesses hold."""
    async with signer(settings, tmp_path / "log.txt", *_FIRST) as (process, client):
        instance = (await client.marks()).instance
        process.terminate()
    async with signer(settings, tmp_path / "log.txt") as (process, client):
        assert (await client.marks()).instance != instance
        assert (await one(client, ToSign(head(7)))).verdict is Verdict.SIGNED
        assert (await one(client, extending(7, 9))).verdict is Verdict.UNCONFIRMED
        assert process.standing()["unconfirmed"] == [f"{ORIGIN}/{REGISTER}"]
        assert await client.confirm([head(9), head(0, register=SECOND)]) == []
        assert await client.confirm([head(7, OTHERS)]) == []
        assert (await one(client, extending(7, 9))).verdict is Verdict.UNCONFIRMED
        assert await client.confirm([head(7)]) == [f"{ORIGIN}/{REGISTER}"]
        assert (await one(client, extending(7, 9))).verdict is Verdict.SIGNED
        assert (await one(client, extending(9, 11))).verdict is Verdict.SIGNED
        assert process.terminate() == 0


async def test_marks_of_an_older_copy_are_raised_by_what_was_signed(
    settings: dict[str, object], tmp_path: Path
) -> None:
    """Marks that were restored keep a ledger still for ever, or are raised by whatever anybody shows."""
    marks = Path(str(settings["signer_marks"]))
    async with signer(settings, tmp_path / "log.txt", *_FIRST) as (process, client):
        assert process.terminate() == 0
        older = await asyncio.to_thread(marks.read_bytes)
    async with signer(settings, tmp_path / "log.txt", ToSign(head(7))) as (process, client):
        note = (await one(client, extending(7, 9))).note
        process.kill()
    await asyncio.to_thread(marks.write_bytes, older)
    async with signer(settings, tmp_path / "log.txt", ToSign(head(7))) as (process, client):
        origin = f"{ORIGIN}/{REGISTER}"
        stranger = sign_checkpoint(head(12), SignerKey(origin, SecretKey(b"\x07" * 32)))
        elsewhere = sign_checkpoint(
            Checkpoint("other.test/governing", 12, head(12).root), SignerKey("other.test/governing", LOG_KEY)
        )
        for not_its_own in (stranger, elsewhere, b"no note"):
            with pytest.raises(MalformedError):
                await client.remember([note, not_its_own])
        assert (await client.marks([origin])).by_origin[origin].checkpoint == head(7)
        await client.remember([note])
        await client.remember([note, sign_checkpoint(head(8), SignerKey(origin, LOG_KEY))])
        held = (await client.marks([origin])).by_origin[origin]
        assert (held.checkpoint, held.confirmed) == (head(9), False)
        assert (await one(client, ToSign(head(8)))).verdict is Verdict.BEHIND
        assert (await one(client, extending(9, 12))).verdict is Verdict.UNCONFIRMED
        assert await client.confirm([head(9)]) == [origin]
        assert (await one(client, extending(9, 12))).verdict is Verdict.SIGNED
        assert "the marks are those of an older copy" in process.said()
        assert process.terminate() == 0


async def test_another_root_of_the_marks_size_is_evidence(settings: dict[str, object], tmp_path: Path) -> None:
    """The log key has signed two histories, and whoever shows the signer the other one hears nothing of it."""
    async with signer(settings, tmp_path / "log.txt", *_FIRST) as (process, client):
        origin = f"{ORIGIN}/{REGISTER}"
        mine, theirs = (
            sign_checkpoint(each, SignerKey(origin, LOG_KEY)) for each in (head(7), head(7, OTHERS))
        )
        with pytest.raises(SplitViewError) as caught:
            await client.remember(
                [sign_checkpoint(head(3, register=SECOND), SignerKey(f"{ORIGIN}/{SECOND}", LOG_KEY)), theirs]
            )
        assert (caught.value.first, caught.value.second) == (mine, theirs)
        assert origin in str(caught.value)
        larger = [sign_checkpoint(head(9, leaves), SignerKey(origin, LOG_KEY)) for leaves in (LEAVES, OTHERS)]
        with pytest.raises(SplitViewError) as caught:
            await client.remember(larger)
        assert [caught.value.first, caught.value.second] == larger
        marks = await client.marks()
        assert {each.checkpoint: each.confirmed for each in marks.by_origin.values()} == {head(7): True}
        await client.remember([mine])
        assert "two histories" in process.said()
        assert process.terminate() == 0


async def test_marks_are_not_raised_beside_a_running_signer(
    settings: dict[str, object], tmp_path: Path
) -> None:
    """A mark that was raised is written over by a smaller one, and another history is signed."""
    marks = Path(str(settings["signer_marks"]))
    async with signer(settings, tmp_path / "log.txt", *_FIRST):
        before = await asyncio.to_thread(marks.read_bytes)
        with pytest.raises(OSError, match="another signer"):
            raise_marks(marks, MemoryStore(), ORIGIN)
        assert await asyncio.to_thread(marks.read_bytes) == before
    assert raise_marks(marks, MemoryStore(), ORIGIN) == {}


async def test_what_was_signed_is_known_after_a_kill(settings: dict[str, object], tmp_path: Path) -> None:
    """A mark that was not written before its signature lets another history be signed."""
    size = 1
    async with signer(settings, tmp_path / "log.txt", ToSign(head(0)), ToSign(head(1))) as (process, client):
        for size in range(2, 12):
            assert (await one(client, extending(size - 1, size))).verdict is Verdict.SIGNED
        process.kill()
    async with signer(settings, tmp_path / "log.txt") as (_, client):
        marks = await client.marks()
        assert [each.checkpoint for each in marks.by_origin.values()] == [head(size)]
        assert (await one(client, ToSign(head(size, OTHERS)))).verdict is Verdict.CONTRADICTS


async def test_a_second_signer_is_refused(settings: dict[str, object], tmp_path: Path) -> None:
    """Two signers over one file of marks sign two histories."""
    async with signer(settings, tmp_path / "log.txt"):
        elsewhere = {**settings, "signer": f"127.0.0.1:{free_port()}"}
        status, error = ended(elsewhere, tmp_path / "second.txt")
        assert status == 3
        assert "another signer" in error["message"]


def ended(settings: dict[str, object], log: Path) -> tuple[int, dict[str, Any]]:
    """Run a signer that ends by itself; return its status and what it says."""
    process = launch("signer", settings, log)
    said, _ = process.communicate(timeout=30)
    return process.returncode, json.loads(said)["error"]


async def test_damaged_marks_end_the_signer(settings: dict[str, object], tmp_path: Path) -> None:
    """A signer that cannot read what it has signed signs whatever comes."""
    async with signer(settings, tmp_path / "log.txt", ToSign(head(0)), ToSign(head(1))):
        pass
    marks = tmp_path / "signer.marks"
    data = bytearray(marks.read_bytes())
    data[20] ^= 1
    data[532] ^= 1
    marks.write_bytes(data)
    status, error = ended(settings, tmp_path / "again.txt")
    assert status == 3
    assert "damaged" in error["message"]


async def test_lost_marks_sign_nothing_but_size_zero(settings: dict[str, object], tmp_path: Path) -> None:
    """A signer without its marks signs a head that it cannot compare."""
    async with signer(settings, tmp_path / "log.txt", *_FIRST):
        pass
    (tmp_path / "signer.marks").unlink()
    async with signer(settings, tmp_path / "log.txt") as (_, client):
        assert (await one(client, ToSign(head(7)))).verdict is Verdict.UNCONFIRMED
        assert (await one(client, ToSign(head(0)))).verdict is Verdict.SIGNED
        assert (await one(client, ToSign(head(7)))).verdict is Verdict.UNCONFIRMED


def of(origin: str, *extensions: str) -> Checkpoint:
    """Return the size 0 of any origin."""
    return Checkpoint(origin, 0, EMPTY_ROOT, extensions)


_REFUSED: Final[dict[str, Callable[[SignerClient], Any]]] = {
    "of another ledger": lambda client: client.sign([ToSign(of(f"other.test/{REGISTER}"))]),
    "of no register": lambda client: client.sign([ToSign(of(f"{ORIGIN}/No Register"))]),
    "with an extension": lambda client: client.sign([ToSign(of(f"{ORIGIN}/{REGISTER}", "x"))]),
    "twice": lambda client: client.sign([ToSign(head(0)), ToSign(head(0))]),
    "a hash that is none": lambda client: client.sign([ToSign(head(3), [Hash(b"x")])]),
    "marks of another ledger": lambda client: client.marks([f"other.test/{REGISTER}"]),
    "a confirmation of another ledger": lambda client: client.confirm([of("other.test/a/b")]),
}


async def test_what_no_service_asks_is_refused(settings: dict[str, object], tmp_path: Path) -> None:
    """The log key signs for another ledger."""
    async with signer(settings, tmp_path / "log.txt") as (_, client):
        for ask in _REFUSED.values():
            with pytest.raises(MalformedError, match="INVALID_ARGUMENT"):
                await ask(client)
        assert (await client.marks()).by_origin == {}


async def test_a_signer_that_is_away(settings: dict[str, object]) -> None:
    """Who asks takes an absent signer for a refusal."""
    client = SignerClient.of(DistributedSettings.model_validate(settings))
    with pytest.raises(SignerAwayError):
        await client.marks()
    await client.close()


async def test_marks_are_synced_when_nothing_is_signed(
    settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut takes a mark that lay about unsynced."""
    synced: list[int] = []
    sync = os.fdatasync

    def counted(file: int) -> None:
        synced.append(file)
        sync(file)

    monkeypatch.setattr("os.fdatasync", counted)
    told = DistributedSettings.model_validate(settings)
    serving = asyncio.create_task(signer_service.run(told, lambda _: None))
    client = SignerClient.of(told)
    end = time.monotonic() + 20
    try:
        for wanted in _FIRST:
            while not serving.done() and time.monotonic() < end:
                try:
                    await client.sign([wanted])
                    break
                except SignerAwayError:
                    await asyncio.sleep(0.05)
            await client.confirm([wanted.checkpoint])
            # The first mark of an origin is synced at once; the second when the signer is idle.
            while len(synced) < (1 if wanted is _FIRST[0] else 2):
                assert time.monotonic() < end
                await asyncio.sleep(0.01)
    finally:
        await client.close()
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving


@pytest.mark.parametrize(("key_of", "status"), [("other.test/governing", 2), (f"{ORIGIN}/acknowledgements", 2)])
def test_another_key_is_refused(settings: dict[str, object], tmp_path: Path, key_of: str, status: int) -> None:
    """A key of another purpose signs checkpoints."""
    wrong = tmp_path / "wrong"
    write_key_pair(wrong, SignerKey(key_of, LOG_KEY))
    found, error = ended({**settings, "log_key": wrong}, tmp_path / "log.txt")
    assert found == status
    assert key_of in error["message"]


def test_a_signer_without_key_or_marks_does_not_start(settings: dict[str, object], tmp_path: Path) -> None:
    """A signer starts with marks that nobody keeps."""
    for name in ("log_key", "signer_marks"):
        rest = {key: value for key, value in settings.items() if key != name}
        assert ended(rest, tmp_path / "log.txt")[0] == 2


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    return make_issuer(tmp_path_factory.mktemp("tls") / "issuer")


def with_tls(settings: dict[str, object], issuer: Issuer, name: str) -> dict[str, object]:
    pair = issuer.issue(name, "IP:127.0.0.1")
    return {
        **settings,
        "tls_certificate": pair.certificate,
        "tls_key": pair.key,
        "client_ca": issuer.pair.certificate,
    }


async def test_with_tls_it_answers_only_whom_the_issuer_knows(
    settings: dict[str, object], tmp_path: Path, issuer: Issuer
) -> None:
    """Whoever reaches the signer over the network has checkpoints signed."""
    secured = with_tls(settings, issuer, "signer")
    async with signer(secured, tmp_path / "log.txt", ToSign(head(0))) as (_, client):
        assert (await client.marks()).by_origin
        stranger = with_tls(settings, make_issuer(tmp_path / "stranger"), "stranger")
        for outsider in (stranger, {**stranger, "client_ca": issuer.pair.certificate}, settings):
            asking = SignerClient.of(DistributedSettings.model_validate(outsider))
            with pytest.raises(SignerAwayError):
                await asking.marks()
            await asking.close()
    unguarded = {name: value for name, value in secured.items() if name != "client_ca"}
    assert ended(unguarded, tmp_path / "unguarded.txt")[0] == 2


async def test_a_disk_that_hangs_and_then_fails_ends_the_signer(
    settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on signing, over marks that are lost, where the caller had given up before the disk did."""
    hangs, fails = threading.Event(), threading.Event()
    sync = os.fdatasync

    def failing(file: int) -> None:
        if hangs.is_set():
            return sync(file)  # a kernel tells of what it has lost once
        hangs.set()
        fails.wait(60)
        raise OSError(errno.EIO, "the disk is gone")

    monkeypatch.setattr("os.fdatasync", failing)
    told, ready = DistributedSettings.model_validate(settings), asyncio.Event()
    serving = asyncio.create_task(signer_service.run(told, lambda _: ready.set()))
    client = SignerClient.of(told)
    try:
        await ready.wait()
        asking = asyncio.create_task(client.sign([_FIRST[0]]))
        await asyncio.to_thread(hangs.wait)
        asking.cancel()
        await asyncio.wait([asking])
        fails.set()
        with pytest.raises(StoreError, match="the disk is gone"):
            await asyncio.wait_for(serving, 20)
    finally:
        await client.close()


def test_the_marks_of_a_full_disk_sign_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint is signed whose mark could not be written."""
    marks = HighWaterMarks(tmp_path / "marks")
    guarded = GuardedSigner(LOG_KEY, marks, ORIGIN)
    monkeypatch.setattr("os.pwrite", _full)
    with pytest.raises(StoreError):
        guarded.sign([ToSign(head(0))])
    assert guarded.marks(()) == []
    monkeypatch.undo()
    assert guarded.sign([ToSign(head(0))])[0].verdict is Verdict.SIGNED
    marks.close()


def _full(*_: object) -> int:
    raise OSError(28, "no space")
