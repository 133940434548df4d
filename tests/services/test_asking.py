"""Asking a witness: what is made of every answer that a server can give, over a real connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from ledger.add_checkpoint import AddCheckpoint
from ledger.ed25519 import SecretKey
from ledger.notes import SignerKey, cosignature_line, open_note
from ledger.witnessing import Witness
from services.asking import (
    MAX_ANSWER,
    MAX_HELD,
    MOST_RETRY_AFTER,
    Answer,
    Granted,
    Holds,
    Refused,
    Unavailable,
    ask,
    held_checkpoint,
    new_session,
)
from tests.support.growing_log import GrowingLog
from tests.support.scripted_witness import (
    SIZE_TYPE,
    Behaviour,
    Exchange,
    ScriptedWitness,
    cosigns,
    hangs,
    replies,
    resets,
    scripted_witness,
    sends,
)

LOG = GrowingLog("ledger.test/department-for-testing/secretary-of-state")
REQUEST = LOG.request(3, 7)
OTHER = SignerKey("other.example/w", SecretKey(b"\x21" * 32))
NOW = 1_785_000_000


@pytest.fixture
async def witness() -> AsyncIterator[ScriptedWitness]:
    """A witness whose clock says NOW."""
    async with scripted_witness("one") as serving:
        serving.clock = lambda: NOW
        yield serving


async def answer_to(
    witness: ScriptedWitness, *behaviours: Behaviour, within: float = 30.0, request: AddCheckpoint = REQUEST
) -> Answer:
    """Return what is made of one answer."""
    witness.will(*behaviours)
    async with new_session(timeout=within, issuers=None) as session:
        return await ask(session, witness.witness, request, NOW)


async def unavailable(witness: ScriptedWitness, *behaviours: Behaviour, within: float = 30.0) -> Unavailable:
    """Return what is made of an answer that is none."""
    answer = await answer_to(witness, *behaviours, within=within)
    assert isinstance(answer, Unavailable), answer
    return answer


def line(exchange: Exchange, at: int = NOW, key: SignerKey | None = None) -> bytes:
    """Return a good cosignature of what is asked for."""
    return cosignature_line(exchange.checkpoint.text(), key or exchange.witness.key, at).line


# 200


async def test_the_request_is_that_of_the_specification_and_a_cosignature_is_taken(
    witness: ScriptedWitness,
) -> None:
    """If false, a witness would be asked for something else, or its signature be lost."""
    witness.latest[LOG.origin] = LOG.checkpoint(3)
    answer = await answer_to(witness)
    assert witness.asked == [REQUEST]
    assert isinstance(answer, Granted)
    assert answer.time == NOW
    opened = open_note(REQUEST.note + answer.line.line, [witness.key.cosigner])
    assert opened.verified == (answer.line,)


async def test_lines_of_other_keys_are_dropped(witness: ScriptedWitness) -> None:
    """If false, a witness could plant lines of others, which later keep the sealed note from being opened."""
    planted = line(Exchange(witness, REQUEST, {}, None), key=OTHER)  # type: ignore[arg-type]
    answer = await answer_to(witness, cosigns(lambda it: planted + line(it) + b"\xe2\x80\x94 junk AAAAAAA=\n"))
    assert isinstance(answer, Granted)
    assert answer.line.by == (witness.key.name, witness.key.cosigner.key_id)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda it: b"", "without a good cosignature"),
        (lambda it: b"\n", "without a good cosignature"),
        (lambda it: b"thank you\n", "without a good cosignature"),
        (lambda it: line(it)[:-1], "without a good cosignature"),
        (lambda it: line(it).replace(b"\n", b"\r\n"), "without a good cosignature"),
        (lambda it: b"\xff\xfe\n", "not UTF-8"),
        (lambda it: line(it, key=OTHER), "no signature of a known key"),
        (lambda it: line(it, key=SignerKey(it.witness.key.name, OTHER.secret)), "no signature of a known"),
        (lambda it: bytes(line(it)[:-9]) + b"AAAAAAA=\n", "invalid signature"),
        (lambda it: cosignature_line(LOG.checkpoint(6).text(), it.witness.key, NOW).line, "invalid signature"),
        # One bad line of the witness's own spoils the answer, whatever comes after it.
        (
            lambda it: cosignature_line(LOG.checkpoint(6).text(), it.witness.key, NOW).line + line(it),
            "invalid signature",
        ),
        (lambda it: line(it, NOW + 301), "301 s ahead"),
        (lambda it: line(it, 2**63 - 1), "ahead"),
    ],
)
async def test_a_200_without_a_good_cosignature_is_none(
    witness: ScriptedWitness, make: object, why: str
) -> None:
    """If false, a checkpoint would count as cosigned that no verifier accepts."""
    assert callable(make)
    assert why in (await unavailable(witness, cosigns(make))).text


async def test_a_clock_that_is_a_little_ahead_is_tolerated(witness: ScriptedWitness) -> None:
    """If false, a witness would be lost whose clock every verifier still accepts."""
    answer = await answer_to(witness, cosigns(lambda it: line(it, NOW + 300)))
    assert isinstance(answer, Granted)
    assert answer.time == NOW + 300


async def test_a_cosignature_at_time_zero_is_none(witness: ScriptedWitness) -> None:
    """If false, a bound would begin in 1970."""

    def at_zero(exchange: Exchange) -> bytes:
        text = exchange.checkpoint.text()
        signature = witness.key.secret.sign(b"cosignature/v1\ntime 0\n" + text)
        good = cosignature_line(text, witness.key, NOW)
        return type(good)(good.name, good.key_id, bytes(8) + signature).line

    assert "invalid signature" in (await unavailable(witness, cosigns(at_zero))).text


async def test_a_cosignature_of_a_text_that_the_answer_itself_makes_longer_is_none(
    witness: ScriptedWitness,
) -> None:
    """If false, a witness could have the ledger keep a line that spoils every note it stands on.

    A blank line in the answer moves the end of the signed text: behind it a signature may be good that is not
    one of the checkpoint.
    """

    def longer(exchange: Exchange) -> bytes:
        text = exchange.request.note
        return b"\n" + cosignature_line(text, exchange.witness.key, NOW).line

    assert "without a good cosignature" in (await unavailable(witness, cosigns(longer))).text


async def test_of_two_lines_of_the_witness_the_first_counts(witness: ScriptedWitness) -> None:
    """If false, an answer with a fresh line beside an old one would be refused."""
    answer = await answer_to(witness, cosigns(lambda it: line(it, NOW - 5) + line(it, NOW)))
    assert isinstance(answer, Granted)
    assert answer.time == NOW - 5


# 409


@pytest.mark.parametrize("size", [0, 3, 7, 2**63 - 1])
async def test_a_409_of_the_exact_type_tells_a_size(witness: ScriptedWitness, size: int) -> None:
    """If false, a witness that is behind could not be caught up."""
    answer = await answer_to(witness, replies(409, b"%d\n" % size, Content_Type=SIZE_TYPE))
    assert answer == Holds(size)


@pytest.mark.parametrize(
    "body",
    [b"", b"\n", b"7", b"07\n", b"+7\n", b"-1\n", b"7\n7\n", b"seven\n", b"9223372036854775808\n", b" 7\n"],
)
async def test_a_409_whose_size_is_none_is_no_answer(witness: ScriptedWitness, body: bytes) -> None:
    """If false, the ledger would go on from, or stop for, a size that nobody has stated."""
    answer = await unavailable(witness, replies(409, body, Content_Type=SIZE_TYPE))
    assert "no size" in answer.text


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", f"{SIZE_TYPE}; charset=utf-8", SIZE_TYPE.upper(), f"{SIZE_TYPE}s"]
)
async def test_a_409_of_another_type_disputes_the_root(witness: ScriptedWitness, content_type: str) -> None:
    """If false, omniwitness's word for another root would be read as a size (witness.md, section 2)."""
    answer = await answer_to(witness, replies(409, b"7\n", Content_Type=content_type))
    assert answer == Refused(409, "7", disputes=True)


# Other statuses


async def test_a_422_disputes_the_root(witness: ScriptedWitness) -> None:
    """If false, a fork would look like any other refusal."""
    answer = await answer_to(witness, replies(422, b"the roots differ\n"))
    assert answer == Refused(422, "the roots differ", disputes=True)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 413])
async def test_other_refusals_dispute_nothing(witness: ScriptedWitness, status: int) -> None:
    """If false, a witness that does not know the ledger would stop it."""
    assert await answer_to(witness, replies(status, b"no\n")) == Refused(status, "no", disputes=False)


async def test_the_words_of_a_witness_are_made_fit_for_a_log(witness: ScriptedWitness) -> None:
    """If false, a witness could forge lines of the operator's log, or fill it."""
    answer = await answer_to(witness, replies(403, b"no\r\n\x1b[31mforged\xff" + b"x" * 5_000))
    assert isinstance(answer, Refused)
    assert answer.text.startswith("no   [31mforged\N{REPLACEMENT CHARACTER}xxx")
    assert len(answer.text) <= 300


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("stated", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("61", MOST_RETRY_AFTER),
        ("999999", MOST_RETRY_AFTER),
        ("", None),
        ("-1", None),
        ("1e3", None),
        ("99999999999999999999", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
    ],
)
async def test_a_witness_may_send_us_away_for_a_while_and_no_longer(
    witness: ScriptedWitness, status: int, stated: str, seconds: float | None
) -> None:
    """If false, we would press a busy witness, or it could send the ledger away for ever."""
    answer = await unavailable(witness, replies(status, b"busy\n", Retry_After=stated))
    assert answer == Unavailable(f"answered {status}: busy", seconds)


@pytest.mark.parametrize("status", [201, 204, 500, 502, 504, 599])
async def test_every_other_status_is_no_answer(witness: ScriptedWitness, status: int) -> None:
    """If false, a proxy's page could count as something."""
    answer = await unavailable(witness, replies(status, b"" if status == 204 else b"page\n"))
    assert answer.text.startswith(f"answered {status}")
    assert answer.retry_after is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(witness: ScriptedWitness, status: int) -> None:
    """If false, the ledger could be sent anywhere, within its own network too."""
    async with scripted_witness("elsewhere") as elsewhere:
        answer = await unavailable(witness, replies(status, Location=f"{elsewhere.url}/add-checkpoint"))
        assert answer.text.startswith(f"answered {status}")
        assert elsewhere.connections == 0


# What is no answer of HTTP at all


async def test_a_body_beyond_the_limit_is_not_read_on(witness: ScriptedWitness) -> None:
    """If false, a witness could fill the ledger's memory."""
    sent = 0

    async def flood(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while sent < 1_000_000_000:
            await exchange.send(b"x" * 65_536)
            sent += 65_536

    answer = await unavailable(witness, flood)
    assert answer.text == f"answered with more than {MAX_ANSWER} bytes"
    # What the kernel took in between, no more.
    assert sent < 50_000_000


async def test_a_compressed_body_is_not_unpacked(witness: ScriptedWitness) -> None:
    """If false, a small answer could become a large one."""
    answer = await unavailable(witness, replies(200, b"\x1f\x8b" + bytes(20), Content_Encoding="gzip"))
    assert "without a good cosignature" in answer.text


async def test_a_witness_that_hangs_is_given_up_in_time(witness: ScriptedWitness) -> None:
    """If false, one witness could hold up the ledger for ever."""
    began = time.monotonic()
    assert (await unavailable(witness, hangs, within=0.2)).text == "did not answer in time"
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n",
    ],
    ids=["body", "chunks", "headers"],
)
async def test_an_answer_that_drips_is_given_up_in_time(witness: ScriptedWitness, head: bytes) -> None:
    """If false, a byte now and then would keep a request, and its connection, alive for ever."""

    async def drip(exchange: Exchange) -> None:
        await exchange.send(head)
        number = 0
        while not exchange.writer.is_closing():
            number += 1
            piece = (
                b"x" if b"Length" in head else b"1\r\nx\r\n" if b"chunked" in head else b"A%d: b\r\n" % number
            )
            await exchange.send(piece)
            await asyncio.sleep(0.01)

    began = time.monotonic()
    assert await unavailable(witness, drip, within=0.3)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * 100_000,
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"A%d: x\r\n" % number for number in range(20_000)) + b"\r\n",
    ],
    ids=["nothing", "a line", "SSH", "status", "cut off", "length", "chunk", "long header", "many headers"],
)
async def test_what_is_no_http_is_no_answer(witness: ScriptedWitness, data: bytes) -> None:
    """If false, the task that asks would die of it, and nobody be asked any more."""
    assert (await unavailable(witness, sends(data))).text


async def test_a_connection_that_breaks_or_is_refused_is_no_answer(witness: ScriptedWitness) -> None:
    """If false, the task that asks would die of a restart of the witness."""
    assert (await unavailable(witness, resets)).text

    async def half(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhalf")
        exchange.reset()

    assert (await unavailable(witness, half)).text
    await witness.stop()
    assert (await unavailable(witness)).text


async def test_a_name_that_nobody_has_is_no_answer() -> None:
    """If false, a mistyped address would end the task that asks."""
    nobody = Witness("w", SignerKey("w.example/w", SecretKey(b"\x22" * 32)).cosigner, "http://nobody.invalid")
    strange = Witness("w", nobody.key, "gopher://127.0.0.1/")
    async with new_session(timeout=5, issuers=None) as session:
        for each in (nobody, strange):
            assert isinstance(await ask(session, each, REQUEST, NOW), Unavailable)


async def test_a_witness_without_an_address_cannot_be_asked() -> None:
    """If false, it would be asked at some other address."""
    nowhere = Witness("w", SignerKey("w.example/w", SecretKey(b"\x22" * 32)).cosigner)
    async with new_session(timeout=5, issuers=None) as session:
        with pytest.raises(ValueError, match="no URL"):
            await ask(session, nowhere, REQUEST, NOW)
        assert await held_checkpoint(session, nowhere, LOG.origin) is None


async def test_no_proxy_of_the_environment_stands_between(
    witness: ScriptedWitness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If false, whoever sets a variable would hear, and answer, what witnesses are asked."""
    async with scripted_witness("proxy") as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        witness.latest[LOG.origin] = LOG.checkpoint(3)
        assert isinstance(await answer_to(witness), Granted)
        assert proxy.connections == 0


async def test_a_slash_behind_the_prefix_makes_no_difference(witness: ScriptedWitness) -> None:
    """If false, a policy that ends its URL with a slash would ask at another path."""
    witness.latest[LOG.origin] = LOG.checkpoint(3)
    slashed = Witness("one", witness.key.cosigner, f"{witness.url}/")
    async with new_session(timeout=30, issuers=None) as session:
        assert isinstance(await ask(session, slashed, REQUEST, NOW), Granted)


async def test_connections_are_used_again(witness: ScriptedWitness) -> None:
    """If false, every checkpoint would cost a handshake with every witness."""
    witness.latest[LOG.origin] = LOG.checkpoint(3)
    async with new_session(timeout=30, issuers=None) as session:
        assert isinstance(await ask(session, witness.witness, REQUEST, NOW), Granted)
        for _ in range(5):
            again = LOG.request(7, 7)
            assert isinstance(await ask(session, witness.witness, again, NOW), Granted)
        assert witness.connections == 1


# What a witness shows


async def test_what_a_witness_shows_of_a_log_is_read_up_to_a_limit(witness: ScriptedWitness) -> None:
    """If false, the evidence of a fork could not be had, or a witness could fill the memory with it."""
    async with new_session(timeout=30, issuers=None) as session:

        async def held() -> bytes | None:
            return await held_checkpoint(session, witness.witness, LOG.origin)

        assert await held() is None
        witness.keep(LOG.note(7), NOW)
        assert await held() == witness.notes[LOG.origin]
        witness.shown[LOG.origin] = b"x" * MAX_HELD
        assert await held() == b"x" * MAX_HELD
        witness.shown[LOG.origin] = b"x" * (MAX_HELD + 1)
        assert await held() is None
        await witness.stop()
        assert await held() is None
