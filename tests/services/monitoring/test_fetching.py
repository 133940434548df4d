"""Reading from a server that may be slow, broken or hostile: bounded in bytes and time, and told apart."""

from __future__ import annotations

import gzip
import json
import socket
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import grpc.aio
import pytest

from ledger.notes import MAX_NOTE_SIZE
from ledger.tiles import Bundle, Tile, encode_bundle
from services.monitoring.fetching import (
    ATTEMPTS,
    AbsentError,
    FetchError,
    Site,
    UnavailableError,
    UnfitError,
    together,
)
from tests.support.certificates import make_issuer
from tests.support.tiled_site import (
    Answer,
    Handler,
    TiledSite,
    _packed_zeros,
    bomb,
    endless,
    silent,
    status,
    zipped,
)

REGISTER = "department/office"
PREFIX = f"/logs/{REGISTER}"
CHECKPOINT = f"{PREFIX}/checkpoint"
ENTRIES = [b"entry %d" % number for number in range(256)]
HASHES = bytes(range(256)) * 32


@pytest.fixture
def served() -> Iterator[TiledSite]:
    with TiledSite() as site:
        yield site


@pytest.fixture
async def site(served: TiledSite) -> AsyncIterator[Site]:
    async with Site(served.url, timeout=30) as site:
        yield site


async def test_a_tile_and_a_bundle_are_read_at_their_width(site: Site, served: TiledSite) -> None:
    """False if a tile were not what the server has."""
    served.files[f"{PREFIX}/tile/1/x001/234.p/3"] = HASHES[:96]
    served.files[f"{PREFIX}/tile/entries/000.p/2"] = encode_bundle(ENTRIES[:2])
    served.files[CHECKPOINT] = b"a note"
    assert await site.tile(REGISTER, Tile(1, 1_234, 3)) == HASHES[:96]
    assert await site.bundle(REGISTER, Bundle(0, 2)) == ENTRIES[:2]
    assert await site.checkpoint(REGISTER) == b"a note"


async def test_a_partial_one_that_is_gone_is_cut_from_the_full_one(site: Site, served: TiledSite) -> None:
    """False if a server that has dropped what is no longer the right edge could not be read."""
    served.files[f"{PREFIX}/tile/0/000"] = HASHES
    served.files[f"{PREFIX}/tile/entries/000"] = encode_bundle(ENTRIES)
    assert await site.tile(REGISTER, Tile(0, 0, 7)) == HASHES[: 7 * 32]
    assert await site.bundle(REGISTER, Bundle(0, 7)) == ENTRIES[:7]
    with pytest.raises(AbsentError):
        await site.tile(REGISTER, Tile(0, 1))
    with pytest.raises(AbsentError):
        await site.bundle(REGISTER, Bundle(1, 3))


@pytest.mark.parametrize("data", [HASHES[:95], HASHES[:97], HASHES[:128], b""], ids=len)
async def test_a_tile_of_another_width_is_unfit(site: Site, served: TiledSite, data: bytes) -> None:
    """False if hashes that were not asked for, or half a hash, passed for a tile."""
    served.files[f"{PREFIX}/tile/0/000.p/3"] = data
    with pytest.raises(UnfitError):
        await site.tile(REGISTER, Tile(0, 0, 3))


@pytest.mark.parametrize("data", [encode_bundle(ENTRIES[:1]), encode_bundle(ENTRIES[:3]), b"\0", b""], ids=len)
async def test_a_bundle_of_another_width_is_unfit(site: Site, served: TiledSite, data: bytes) -> None:
    """False if entries beyond those that were signed were read, or some left out."""
    served.files[f"{PREFIX}/tile/entries/000.p/2"] = data
    with pytest.raises(UnfitError):
        await site.bundle(REGISTER, Bundle(0, 2))


async def test_compressed_answers_are_unpacked(site: Site, served: TiledSite) -> None:
    """False if a server that compresses bundles, as it should, could not be read."""
    served.answers[f"{PREFIX}/tile/entries/000"] = zipped(encode_bundle(ENTRIES))
    served.answers[CHECKPOINT] = zipped(b"")
    assert await site.bundle(REGISTER, Bundle(0)) == ENTRIES
    assert await site.checkpoint(REGISTER) == b""


@pytest.mark.parametrize(
    "answer",
    [
        endless,
        bomb,
        zipped(b"\0" * (MAX_NOTE_SIZE + 1)),
        lambda each: each.reply(200, b"\0" * (MAX_NOTE_SIZE + 1)),
    ],
    ids=["endless", "bomb", "unpacked-a-byte-too-long", "a-byte-too-long"],
)
async def test_no_answer_is_read_beyond_what_it_can_have(site: Site, served: TiledSite, answer: Answer) -> None:
    """False if a server could fill the memory of whoever reads from it."""
    served.answers[CHECKPOINT] = answer
    _packed_zeros()  # it takes long, and longer where memory is traced
    tracemalloc.start()
    try:
        with pytest.raises(UnfitError, match="goes on beyond"):
            await site.checkpoint(REGISTER)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The server is in this process as well.
    assert most < 8 * MAX_NOTE_SIZE


async def test_the_longest_note_is_read(site: Site, served: TiledSite) -> None:
    """False if the bound were one byte too tight."""
    served.files[CHECKPOINT] = b"\0" * MAX_NOTE_SIZE
    assert len(await site.checkpoint(REGISTER)) == MAX_NOTE_SIZE
    served.answers[CHECKPOINT] = zipped(b"\0" * MAX_NOTE_SIZE)
    assert len(await site.checkpoint(REGISTER)) == MAX_NOTE_SIZE


def cut_short(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100")
    handler.end_headers()
    handler.wfile.write(b"half")


def cut_gzip(handler: Handler) -> None:
    handler.begin(Content_Encoding="gzip")
    handler.wfile.write(gzip.compress(b"whole")[:-4])


def no_http(handler: Handler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH\r\n")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (status(403), "403"),
        (status(410), "410"),
        (status(301, Location="/elsewhere"), "301"),
        (status(206), "206"),
        (cut_short, "."),
        (cut_gzip, "cut off"),
        (no_http, "."),
        (lambda each: each.reply(200, b"x", Content_Encoding="br"), "coding"),
    ],
)
async def test_what_is_not_an_answer_is_unavailable(
    site: Site, served: TiledSite, answer: Answer, why: str
) -> None:
    """False if trouble on the way were taken for what the ledger says, or a redirect were followed."""
    served.files["/elsewhere"] = b"elsewhere"
    served.answers[CHECKPOINT] = answer
    with pytest.raises(UnavailableError, match=why) as raised:
        await site.checkpoint(REGISTER)
    assert not isinstance(raised.value, (AbsentError, UnfitError))
    assert raised.value.url == f"{served.url}{CHECKPOINT}"
    assert "/elsewhere" not in served.asked


async def test_bytes_after_a_compressed_answer_are_not_passed_over(site: Site, served: TiledSite) -> None:
    """False if two readers could unpack two different things."""
    served.answers[CHECKPOINT] = lambda each: each.reply(
        200, gzip.compress(b"whole") + gzip.compress(b"more"), Content_Encoding="gzip"
    )
    with pytest.raises(UnfitError):
        await site.checkpoint(REGISTER)


@pytest.mark.timeout(60)
async def test_a_server_that_says_no_more_is_given_up(served: TiledSite) -> None:
    """False if a server could hold a monitor up for ever."""
    served.answers[CHECKPOINT] = silent
    async with Site(served.url, timeout=0.2) as site:
        with pytest.raises(UnavailableError, match="within"):
            await site.checkpoint(REGISTER)


async def test_what_may_pass_is_asked_for_again(site: Site, served: TiledSite) -> None:
    """False if one 503 ended a long way; or if a 404, which is an answer, were not believed at once."""
    turns = iter([503, 429])

    def for_a_while(handler: Handler) -> None:
        number = next(turns, 200)
        handler.reply(number, b"a note" if number == 200 else b"", Retry_After="0")

    served.answers[CHECKPOINT] = for_a_while
    assert await site.checkpoint(REGISTER) == b"a note"
    assert len(served.asked) == ATTEMPTS
    served.asked.clear()
    with pytest.raises(AbsentError):
        await site.tile(REGISTER, Tile(0, 0))
    assert len(served.asked) == 1


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    """False if a ledger that is down were taken for one that hides."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
    async with Site(address) as site:
        with pytest.raises(UnavailableError):
            await site.checkpoint(REGISTER)


async def test_why_nothing_was_got_is_said_in_plain_words(tmp_path: Path) -> None:
    """False if a mistyped address were answered with an error of the program's own libraries."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        gone = f"127.0.0.1:{taken.getsockname()[1]}"
    assert await why(f"http://{gone}") == f"nobody answers at {gone} (Connection refused)"
    assert await why(f"https://{gone}") == f"nobody answers at {gone} (Connection refused)"
    with TiledSite() as served:
        place = served.url.removeprefix("http://")
        assert await why(f"https://{place}") == "what answers there speaks no TLS: http:// instead of https://?"
        served.use_tls(make_issuer(tmp_path / "issuer").issue("server", "IP:127.0.0.1"))
        assert "certificate is not one that this computer trusts" in await why(f"https://{place}")


async def test_a_grpc_address_is_taken_for_one() -> None:
    """False if whoever gives the other of a ledger's two addresses were shown the bytes of its protocol."""
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        said = await why(f"http://127.0.0.1:{port}")
    finally:
        await server.stop(None)
    assert said == "what answers there does not speak HTTP: is it the gRPC address, or one for https://?"


async def why(url: str) -> str:
    """Return what is said of an address at which nothing can be got."""
    async with Site(url, timeout=10) as site:
        with pytest.raises(UnavailableError) as raised:
            await site.checkpoint(REGISTER)
    return raised.value.what


@pytest.mark.parametrize("url", ["127.0.0.1:7071", "ftp://x", "http://", "http://x?y", "http://x#y", ""])
def test_what_is_no_address_is_refused(url: str) -> None:
    """False if a mistyped address ended in a message about the network."""
    with pytest.raises(ValueError, match="not an http or https address"):
        Site(url)


async def test_the_list_of_registers_has_names(site: Site, served: TiledSite) -> None:
    """False if the operator's list could not be compared."""
    served.list(["governing", "a/b"])
    assert await site.registers() == {"governing": None, "a/b": None}
    stated = [{"name": "a/b", "opened_index": 3}, {"name": "c/d", "opened_index": -1}, {"name": 7}]
    served.files["/registers.json"] = json.dumps({"registers": stated}).encode()
    assert await site.registers() == {"a/b": 3, "c/d": None, "7": None}


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b'{"registers": 1}', b'{"registers": [1]}', b'{"registers": [{}]}', b"[" * 10_000],
)
async def test_what_is_no_list_of_registers_is_unfit(site: Site, served: TiledSite, data: bytes) -> None:
    """False if a page in place of the list ended the monitor."""
    served.files["/registers.json"] = data
    with pytest.raises(UnfitError):
        await site.registers()


async def test_of_several_the_first_failure_gives_up_the_others(site: Site, served: TiledSite) -> None:
    """False if a failure left others running, which nobody waits for."""
    served.answers[CHECKPOINT] = silent
    with pytest.raises(FetchError):
        await together([site.checkpoint(REGISTER), site.tile(REGISTER, Tile(0, 0))])


@pytest.mark.parametrize("make", [lambda url: f"{url}/", lambda url: f"{url}//"])
async def test_a_slash_behind_the_address_is_no_other_address(
    served: TiledSite, make: Callable[[str], str]
) -> None:
    """False if an address with a slash at its end led elsewhere."""
    served.files[CHECKPOINT] = b"a note"
    async with Site(make(served.url)) as site:
        assert await site.checkpoint(REGISTER) == b"a note"
