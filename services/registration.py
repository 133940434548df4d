"""The registration service: parse, check, call, reply."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, aclosing
from functools import partial
from typing import Any

import grpc
from daybook.registration.v1 import registration_service_pb2 as pb
from daybook.registration.v1 import registration_service_pb2_grpc as rpc
from daybook.submission.v1 import submission_pb2
from structlog.contextvars import get_contextvars

from ledger.errors import LedgerError, Reason, RejectedError, Violation
from ledger.ledger import LedgerView
from ledger.values import is_sha256
from services import wire
from services.lookup import find_entry, invalid
from services.peers import submitter
from services.pipelining import pipelined
from services.places import Places
from services.preparing import prepare
from services.published import Published
from services.reached import LONGEST_WAIT, State, Waiter
from services.receipts import ReceiptBuilder
from services.registrar import Registrar
from services.status import let_go, to_status
from services.submissions import Submissions

STREAM_WINDOW = 64
"""Requests of one RegisterStream that are under way, or answered and not yet read: more are not taken."""

MAX_PREPARED = 64
"""Requests of PrepareRecords that wait for their turn, of at most 2 MiB each."""

STREAM_LINGER = 1.0
"""Seconds for which a stopping server refuses a stream's further requests by tag, before it ends the stream."""

_SEALED = (submission_pb2.WAIT_FOR_UNSPECIFIED, submission_pb2.WAIT_FOR_SEALED)

Context = grpc.aio.ServicerContext[Any, Any]


class RegistrationServicer(rpc.RegistrationServiceServicer):
    """Registers submissions and gives out what they were answered with. Streams end when `stopping` is set.

    With `apart` nothing is read from the store in the event loop: where the store is another process.
    """

    def __init__(
        self,
        ledger: LedgerView,
        published: Published,
        submissions: Submissions,
        receipts: ReceiptBuilder,
        stopping: asyncio.Event,
        *,
        apart: bool = False,
    ) -> None:
        self._ledger = ledger
        self._published = published
        self._submissions = submissions
        self._receipts = receipts
        self._registrar = Registrar(ledger, submissions)
        self._waiter = Waiter(ledger, published, receipts, apart=apart)
        self._apart = apart
        self._stopping = stopping
        self._preparing = Places(MAX_PREPARED, "requests to prepare records")
        self._preparer = ThreadPoolExecutor(1, "preparer")

    async def PrepareRecords(
        self, request: pb.PrepareRecordsRequest, context: Context
    ) -> pb.PrepareRecordsResponse:
        """Return the canonical bytes of typed records, what to sign, and every violation."""
        with ExitStack() as places:
            places.enter_context(self._preparing.one())
            # One at a time: nobody waits for long behind requests that are made to take long.
            loop = asyncio.get_running_loop()
            work = loop.run_in_executor(self._preparer, prepare, request, self._ledger.origin, time.time())
            # Whoever leaves leaves his request here until its turn, and with it the place.
            work.add_done_callback(partial(_give_back, places.pop_all()))
        # Unlike awaiting it, this does not cancel it.
        await asyncio.wait([work])
        return work.result()

    async def Register(self, request: pb.RegisterRequest, context: Context) -> pb.RegisterResponse:
        """Register one submission."""
        answer = await self._register(request, submitter(context), context.time_remaining())
        return pb.RegisterResponse(acknowledgement=answer)

    async def _register(
        self, request: pb.RegisterRequest, by: str, left: float | None
    ) -> submission_pb2.Acknowledgement:
        """Register, and wait as asked for at most `left` seconds from when it is sequenced."""
        began = time.monotonic()
        signed = request.submission
        if request.wait_for not in submission_pb2.WaitFor.values():
            raise invalid("wait_for", "no such state to wait for")
        accepted = await self._registrar.register(
            signed.body, tuple(signed.records), wire.signatures(signed), by
        )
        wait_for = State.SEALED if request.wait_for in _SEALED else State(request.wait_for)
        remains = None if left is None else left - (time.monotonic() - began)
        return wire.acknowledgement(await self._waiter.reached(accepted, wait_for, remains))

    async def RegisterStream(
        self, requests: AsyncIterator[pb.RegisterStreamRequest], context: Context
    ) -> AsyncIterator[pb.RegisterStreamResponse]:
        """Register many submissions, answered by tag in whatever order they are done."""
        by = submitter(context)

        async def answer(one: pb.RegisterStreamRequest) -> pb.RegisterStreamResponse:
            try:
                if self._stopping.is_set():
                    raise RejectedError(Reason.DRAINING, "this server is stopping; ask another, or again")
                # The stream's deadline is that of all its requests: one must not use it up.
                left = min(context.time_remaining() or LONGEST_WAIT, LONGEST_WAIT)
                acknowledgement = await self._register(one.request, by, left)
            except LedgerError as error:
                request_id = get_contextvars().get("request_id", "")
                status = to_status(error, request_id)
                let_go(error)
                return pb.RegisterStreamResponse(tag=one.tag, error=status)
            return pb.RegisterStreamResponse(tag=one.tag, acknowledgement=acknowledgement)

        # Closed at once when the client leaves, not when the garbage is collected.
        async with aclosing(
            pipelined(requests, answer, STREAM_WINDOW, self._stopping, STREAM_LINGER)
        ) as responses:
            async for response in responses:
                yield response

    async def GetSubmission(
        self, request: pb.GetSubmissionRequest, context: Context
    ) -> pb.GetSubmissionResponse:
        """Answer again for a submission that is known."""
        if not is_sha256(request.submission_id):
            violation = Violation(Reason.INVALID_FIELD, "must be 64 lowercase hex digits", "submission_id")
            raise RejectedError(Reason.INVALID_FIELD, "submission_id is malformed", violations=(violation,))
        self._published.latest(request.register)
        found = await self._submissions.find(request.register, request.submission_id)
        if found is None:
            raise RejectedError(
                Reason.SUBMISSION_UNKNOWN,
                f"register {request.register!r} holds no submission {request.submission_id}, or not yet",
                detail={"register": request.register, "submission_id": request.submission_id},
            )
        reached = await self._waiter.reached(found, State.ACCEPTED, None)
        return pb.GetSubmissionResponse(acknowledgement=wire.acknowledgement(reached))

    async def GetReceipt(self, request: pb.GetReceiptRequest, context: Context) -> pb.GetReceiptResponse:
        """Return the receipt of one entry."""
        return await asyncio.to_thread(self._receipt, request) if self._apart else self._receipt(request)

    def _receipt(self, request: pb.GetReceiptRequest) -> pb.GetReceiptResponse:
        size = self._published.latest(request.register).size
        index = find_entry(self._ledger.store, request, size)
        built = self._receipts.receipt(request.register, index)
        state = wire.state(sealed=built.sealed, anchored=built.anchored)
        return pb.GetReceiptResponse(receipt=built.data, state=state)


def _give_back(places: ExitStack, work: asyncio.Future[pb.PrepareRecordsResponse]) -> None:
    places.close()
    if not work.cancelled():
        work.exception()  # seen: maybe nobody waits for it any more
