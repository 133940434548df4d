"""Asking one witness for its cosignature, over HTTP (C2SP tlog-witness; specs/witness.md, section 2).

Nothing that a witness answers is believed unverified, and no answer is read beyond its limit. Deployed
witnesses deviate from the specification; what of that is tolerated is said where it is.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import ssl
from dataclasses import dataclass
from typing import Final

import aiohttp

from ledger.add_checkpoint import AddCheckpoint
from ledger.errors import MalformedError, SignatureError
from ledger.notes import MAX_NOTE_SIZE, SignatureLine, cosignature_time, open_note, split_note
from ledger.tree import MAX_SIZE
from ledger.witnessing import FUTURE_TOLERANCE, Witness

MAX_ANSWER: Final = 16 * 1024
"""Bytes of an answer beyond which it is not read on: a cosignature line has some 200."""

MAX_HELD: Final = 64 * 1024
"""Bytes of the checkpoint note that a witness shows of a log."""

SIZE_TYPE: Final = "text/x.tlog.size"
"""Content type of a 409 that tells the size which the witness has cosigned."""

MOST_RETRY_AFTER: Final = 60.0
"""Seconds for which a Retry-After is honoured: a witness must not send a ledger away for longer."""

_SIZE: Final = re.compile(rb"(0|[1-9][0-9]{0,18})\n")
_SECONDS: Final = re.compile(r"[0-9]{1,6}")


@dataclass(frozen=True, slots=True)
class Granted:
    """The witness cosigned: its line, verified over the checkpoint that was sent, and its time."""

    line: SignatureLine
    time: int


@dataclass(frozen=True, slots=True)
class Holds:
    """The witness has cosigned `size` entries last, and not the size that the request goes on from (409)."""

    size: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The witness will not cosign this checkpoint, however often it is asked.

    `disputes` where it says that it knows another history: 422; or 409 without a size, as omniwitness answers
    an equal size with another root.
    """

    status: int
    text: str
    disputes: bool


@dataclass(frozen=True, slots=True)
class Unavailable:
    """No usable answer: try again, after `retry_after` seconds where the witness asked for that (429, 503)."""

    text: str
    retry_after: float | None = None


Answer = Granted | Holds | Refused | Unavailable


def new_session(*, timeout: float, issuers: ssl.SSLContext | None) -> aiohttp.ClientSession:
    """Return a session for witnesses: no cookies, no proxies of the environment, at most 32 calls to each.

    `timeout` is in seconds, for one call; `issuers` are those whose TLS certificates are trusted, by default
    the system's.
    """
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=timeout),
        connector=aiohttp.TCPConnector(limit=0, limit_per_host=32, ssl=issuers or True),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        headers={"User-Agent": "daybook", "Accept-Encoding": "identity"},
    )


async def ask(session: aiohttp.ClientSession, witness: Witness, request: AddCheckpoint, now: int) -> Answer:
    """Ask a witness to cosign; `now` is in POSIX seconds. Raises ValueError where the witness has no URL."""
    if witness.url is None:
        raise ValueError(f"the policy names no URL for witness {witness.name}")
    address = f"{witness.url.rstrip('/')}/add-checkpoint"
    try:
        async with session.post(address, data=request.data(), allow_redirects=False) as response:
            body = await _read(response, MAX_ANSWER)
            return _answer(response, body, witness, request.note, now)
    except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError, OSError, ValueError) as error:
        return Unavailable(_why(error))


def _answer(response: aiohttp.ClientResponse, body: bytes, witness: Witness, note: bytes, now: int) -> Answer:
    match response.status:
        case 200:
            return _cosigned(body, witness, note, now)
        case 409 if response.headers.getall("Content-Type", []) == [SIZE_TYPE]:
            found = _SIZE.fullmatch(body)
            if found is None or int(found[1]) > MAX_SIZE:
                return Unavailable("answered 409 with a body that is no size")
            return Holds(int(found[1]))
        case 409 | 422:
            return Refused(response.status, _text(body), disputes=True)
        case 429 | 503:
            return Unavailable(f"answered {response.status}: {_text(body)}", _retry_after(response))
        case status if 400 <= status < 500:
            # 404 for a log that it does not know, or 403 as litewitness says it.
            return Refused(status, _text(body), disputes=False)
        case status:
            return Unavailable(f"answered {status}: {_text(body)}")


def _cosigned(body: bytes, witness: Witness, note: bytes, now: int) -> Answer:
    """Verify the lines of a 200 by opening the note that was sent with them added; others' are dropped."""
    try:
        opened = open_note(note + body, [witness.key])
    except (MalformedError, SignatureError) as error:
        return Unavailable(f"answered 200 without a good cosignature: {error}")
    if opened.text != split_note(note)[0]:
        # A blank line in the answer makes the text end later, and the signature one of another text.
        return Unavailable("answered 200 without a good cosignature: a blank line before it")
    (line,) = opened.verified
    time = cosignature_time(line.signature)
    if time > now + FUTURE_TOLERANCE:
        return Unavailable(f"its clock is {time - now} s ahead")
    return Granted(line, time)


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes:
    body = b""
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > most:
            raise ValueError(f"answered with more than {most} bytes")
    return body


async def held_checkpoint(session: aiohttp.ClientSession, witness: Witness, origin: str) -> bytes | None:
    """Return the checkpoint note of `origin` that a witness shows, unverified; None where it shows none.

    Its monitoring prefix is taken to be its submission prefix (specs/witness.md, section 3).
    """
    if witness.url is None:
        return None
    name = hashlib.sha256(origin.encode()).hexdigest()
    address = f"{witness.url.rstrip('/')}/{name}/checkpoint"
    try:
        async with session.get(address, allow_redirects=False) as response:
            if response.status != 200:
                return None
            return await _read(response, min(MAX_HELD, MAX_NOTE_SIZE))
    except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError, OSError, ValueError):
        return None


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    stated = response.headers.get("Retry-After", "")
    return min(float(stated), MOST_RETRY_AFTER) if _SECONDS.fullmatch(stated) else None


def _text(body: bytes) -> str:
    """Return a witness's words on one line, so that they can be logged."""
    text = body[:300].decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else " " for letter in text).strip() or "(no text)"


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "did not answer in time"
    if isinstance(error, aiohttp.ClientConnectorError):
        reason = error.os_error.strerror or str(error.os_error)
        return f"cannot connect to {error.host}:{error.port}: {reason}"
    return str(error) or type(error).__name__
