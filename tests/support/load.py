"""Clients that load a real server in every way at once, and write down all that they are told.

Each writer has at most one piece of work under way. When the server dies, whatever was not answered is kept,
and it is the first thing that the writer sends when it is let loose on the next server: as a department
would.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from itertools import count
from typing import Any, Final
from uuid import UUID

import grpc.aio
import pytest
from daybook.audit.v1 import audit_service_pb2 as audit
from daybook.audit.v1.audit_service_pb2_grpc import AuditServiceStub
from daybook.registration.v1 import registration_service_pb2 as pb
from daybook.registration.v1.registration_service_pb2_grpc import RegistrationServiceStub

from ledger import canonical
from ledger.ed25519 import SecretKey
from ledger.governing import GOVERNING
from ledger.receipt_file import Receipt
from ledger.rules import read_header
from services.client.answers import Answer, AnswerVerifier, Promised, Registered
from services.client.channels import channel_options
from services.client.client import Client, connect, message_of
from services.client.errors import RefusedError, UnavailableError, from_status
from services.client.governance import govern
from services.client.signing import SignedSubmission, sign_submission
from tests.support.journal import Journal
from tests.support.ledger_dir import LedgerOnDisk, authorising, opening, revoking
from tests.support.ledgers import DEPARTMENT, DEPARTMENT_KEY, ORIGIN, REGISTER, decision
from tests.support.records import correction

PATIENCE: Final = 60.0
"""Seconds that a call is given, retries included: far more than any answer takes."""

_GONE: Final = (asyncio.CancelledError, UnavailableError)
"""How a task may end: dropped by the caller, or because the server was away for longer than its patience."""

STREAMED: Final = 12
"""Submissions that a stream has under way at once."""


class Load:
    """All writers and readers of one ledger, over any number of servers of it, one after the other."""

    def __init__(self, ledger: LedgerOnDisk, draw: random.Random) -> None:
        self.ledger = ledger
        self.journal = Journal()
        self.draw = draw
        self._number = 0
        self._pending: dict[str, SignedSubmission] = {}
        self._chain: bytes | None = None
        self._reigns = 0
        self._seen: dict[str, int] = {}
        self._answered = asyncio.Event()

    def next_decision(self, register: str = REGISTER) -> bytes:
        """Return a decision that nobody has sent yet."""
        self._number += 1
        return decision(self._number, register, record_id=str(UUID(int=self.draw.getrandbits(128), version=4)))

    def sign(
        self, records: Sequence[bytes], register: str = REGISTER, key: SecretKey = DEPARTMENT_KEY
    ) -> SignedSubmission:
        """Sign records for one register and write the submission down."""
        return self.journal.send(sign_submission(records, f"{ORIGIN}/{register}", [key]))

    @asynccontextmanager
    async def on(self, address: str) -> AsyncIterator[list[asyncio.Task[None]]]:
        """Load the server at `address` from here to the end of the block, then drop every call under way.

        Yields the tasks. Any answer but the right one, and any refusal that was not asked for, is raised at
        the end; that the server went away is not.
        """
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(
                connect(address, policy=self.ledger.policy, register=REGISTER, key=DEPARTMENT_KEY)
            )
            channel = await stack.enter_async_context(
                grpc.aio.insecure_channel(address, options=channel_options(address))
            )
            tasks = [asyncio.create_task(one) for one in self._jobs(client, channel, address)]
            try:
                yield tasks
            finally:
                for task in tasks:
                    task.cancel()
                ended = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome in ended:
            if isinstance(outcome, BaseException) and not isinstance(outcome, _GONE):
                raise outcome

    async def answered(self) -> None:
        """Wait for the next answer to a submission or request."""
        self._answered.clear()
        await self._answered.wait()

    def _jobs(self, client: Client, channel: grpc.aio.Channel, address: str) -> list[Coroutine[Any, Any, None]]:
        return [
            *(self._write(f"single {number}", client, self._single) for number in range(6)),
            *(self._write(f"batch {number}", client, self._batch) for number in range(2)),
            self._write("corrections", client, self._correction),
            self._write_twice(client),
            self._write_overlapping(client),
            self._stream(client, channel),
            self._govern(address),
            self._read(client),
            *(self._watch(channel, register) for register in (REGISTER, GOVERNING)),
        ]

    async def _write(self, name: str, client: Client, make: Callable[[], SignedSubmission]) -> None:
        """Submit one after the other; what was not answered last time comes first."""
        while True:
            await self._submit(client, self._kept(name, make))
            del self._pending[name]

    def _kept(self, name: str, make: Callable[[], SignedSubmission]) -> SignedSubmission:
        """Return the submission that waits under `name` for an answer, made now where there is none."""
        if name not in self._pending:
            self._pending[name] = make()
        return self._pending[name]

    async def _submit(self, client: Client, submission: SignedSubmission) -> Registered:
        """Submit until there is a proof: under a policy that asks witnesses, time may run out before."""
        while True:
            noted = self._note(await client.submit(submission, timeout=PATIENCE))
            if noted is not None:
                return noted

    def _note(self, answer: Answer) -> Registered | None:
        """Write an answer down; None for a promise, which only a policy that asks witnesses leaves."""
        if isinstance(answer, Promised):
            assert self.ledger.policy.quorum.root is not None, "an embedded ledger answers with the index fixed"
            return None
        assert isinstance(answer, Registered)
        self.journal.answered(answer)
        self._answered.set()
        return answer

    def _single(self) -> SignedSubmission:
        return self.sign([self.next_decision()])

    def _batch(self) -> SignedSubmission:
        return self.sign([self.next_decision() for _ in range(self.draw.randint(2, 12))])

    def _correction(self) -> SignedSubmission:
        """Return the next version of one long-lived record."""
        if self._chain is None:
            self._chain = self.next_decision()
        else:
            self._chain = canonical.format(correction(self._chain, title=f"Title {self._number}"))
        return self.sign([self._chain])

    async def _write_twice(self, client: Client) -> None:
        """Send the same submission from two callers at once, then an old one again: always one answer."""
        while True:
            submission = self._kept("twice", self._single)
            first, second = await asyncio.gather(*(self._submit(client, submission) for _ in range(2)))
            assert (first.first_index, first.entries) == (second.first_index, second.entries)
            del self._pending["twice"]
            old = await self._some_answer()
            again = await self._submit(client, old.submission)
            assert again.known
            assert (again.first_index, again.entries) == (old.first_index, old.entries)

    async def _some_answer(self) -> Registered:
        """Return any answer about the main register."""
        while True:
            for _ in range(len(self.journal.answers)):
                answer = self.draw.choice(self.journal.answers)
                if answer.submission.register == REGISTER:
                    return answer
            await asyncio.sleep(0.01)

    async def _write_overlapping(self, client: Client) -> None:
        """Send a registered record together with a new one: refused, whatever happens to the server."""
        while True:
            there = await self._some_answer()
            submission = self.sign([self.next_decision(), there.submission.records[0]])
            await self._refused(client, submission, "RECORD_ALREADY_REGISTERED")

    async def _refused(self, client: Client, submission: SignedSubmission, reason: str) -> None:
        with pytest.raises(RefusedError) as refused:
            await client.submit(submission, timeout=PATIENCE)
        assert refused.value.reason == reason
        self.journal.was_refused(submission)

    async def _govern(self, address: str) -> None:
        """Open a register, authorise a key, write with it, revoke it, and be refused; then again."""
        while True:
            name = f"{DEPARTMENT}/office-{self._reigns}"
            key = SecretKey(hashlib.sha256(name.encode()).digest())
            await self._ask(address, f"open {name}", partial(opening, name))
            await self._ask(address, f"authorise {name}", partial(authorising, key))
            async with connect(address, policy=self.ledger.policy, register=name, key=key) as client:
                first = self._kept(f"write {name}", lambda: self.sign([self.next_decision(name)], name, key))  # noqa: B023
                await self._submit(client, first)
                await self._ask(address, f"revoke {name}", partial(revoking, key))
                await self._refused(client, self.sign([self.next_decision(name)], name, key), "KEY_REVOKED")
                # The answer to an old submission outlives its key.
                assert (await self._submit(client, first)).known
            self._reigns += 1

    async def _ask(self, address: str, step: str, make: Callable[[], SignedSubmission]) -> None:
        """Take one governance step: the very same request, until it is answered, and answered the same."""
        request = self._kept(step, lambda: self.journal.send(make()))
        (record,) = request.records
        record_type = read_header(record).type
        policy, signatures = self.ledger.policy, request.signatures
        while True:
            answer = await govern(address, policy, record_type, record, signatures, timeout=PATIENCE)
            if self._note(answer) is not None:
                return

    async def _stream(self, client: Client, channel: grpc.aio.Channel) -> None:
        """Pipeline submissions over RegisterStream, matching answers by tag."""
        verifier = AnswerVerifier(
            self.ledger.policy, client.register_origin, client.identity.acknowledgement_key
        )
        while True:
            call = RegistrationServiceStub(channel).RegisterStream()
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await self._pipeline(call, verifier)
            await asyncio.sleep(0.02)  # the server is going or gone: what was not answered comes first

    async def _pipeline(self, call: Any, verifier: AnswerVerifier) -> None:
        under_way: dict[int, str] = {}
        tags = count()
        refused = False
        while True:
            for name in (f"stream {number}" for number in range(STREAMED)):
                if name not in under_way.values() and not refused:
                    tag = next(tags)
                    under_way[tag] = name
                    request = pb.RegisterRequest(submission=message_of(self._kept(name, self._single)))
                    await call.write(pb.RegisterStreamRequest(tag=tag, request=request))
            response = await call.read()
            if response is grpc.aio.EOF:
                return
            name = under_way.pop(response.tag)
            if response.HasField("acknowledgement"):
                # A promise stays pending: it is sent again.
                if self._note(verifier.verify(self._pending[name], response.acknowledgement)) is not None:
                    del self._pending[name]
            elif not refused:
                reason = from_status(response.error).reason
                if reason == "BACKEND_DOWN" and self.ledger.policy.quorum.root is not None:
                    await asyncio.sleep(0.02)  # the witnesses have not confirmed the heads yet
                    continue
                assert reason == "DRAINING"
                refused = True
                await call.done_writing()

    async def _read(self, client: Client) -> None:
        """Fetch and verify receipts of what was acknowledged, and write down their checkpoints."""
        while True:
            answer = await self._some_answer()
            receipt, verified = await client.receipt(answer.first_index, timeout=PATIENCE)
            assert verified.record == answer.submission.records[0]
            self.journal.saw(REGISTER, Receipt.parse(receipt).proof.note)

    async def _watch(self, channel: grpc.aio.Channel, register: str) -> None:
        """Write down every checkpoint that is shown, from the last one seen."""
        while True:
            request = audit.WatchCheckpointsRequest(
                register=register,
                kind=audit.CHECKPOINT_KIND_SIGNED,
                after_size=self._seen.get(register, 0),
            )
            with suppress(grpc.aio.AioRpcError):
                async for shown in AuditServiceStub(channel).WatchCheckpoints(request):
                    assert shown.size > self._seen.get(register, 0)
                    self._seen[register] = shown.size
                    self.journal.saw(register, shown.checkpoint)
            await asyncio.sleep(0.02)  # the server is going or gone
