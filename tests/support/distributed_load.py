"""Departments that load a distributed ledger over several registers, and write down all that they are told.

Half of the writers are content with a promise (ACCEPTED), as a department in a hurry; half wait for the proof.
What was not answered when a service died is sent again, the very same submission, to any replica that is there.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final
from uuid import UUID

import grpc
import grpc.aio
from daybook.submission.v1 import submission_pb2

from services.client.answers import Promised, Registered
from services.client.client import Client, connect
from services.client.errors import CallError, UnavailableError, from_rpc_error
from services.client.signing import SignedSubmission, sign_submission
from services.ledger_files import LedgerDirectory
from tests.support.calling import calling
from tests.support.journal import Held, Journal, compare
from tests.support.ledger_dir import LedgerOnDisk
from tests.support.ledgers import DEPARTMENT, DEPARTMENT_KEY, ORIGIN, decision

REGISTERS: Final = tuple(f"{DEPARTMENT}/office-{number}" for number in range(8))
"""Registers of one department, in several partitions."""

PATIENCE: Final = 20.0
"""Seconds that a call is given, retries included: longer than any service takes to come back."""

_GONE: Final = (asyncio.CancelledError, UnavailableError)


@dataclass(slots=True)
class DistributedLoad:
    """All writers of one ledger, and what they were told: proofs, and promises by submission_id."""

    ledger: LedgerOnDisk
    draw: random.Random
    journal: Journal = field(default_factory=Journal)
    promised: dict[str, str] = field(default_factory=dict)
    _pending: dict[str, SignedSubmission] = field(default_factory=dict)
    _number: int = 0
    _told: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def acknowledged(self) -> int:
        """How many acknowledgements of either kind were given."""
        return len(self.promised) + len(self.journal.answers)

    def sign(self, register: str, count: int) -> SignedSubmission:
        """Sign that many new decisions for a register, and write the submission down."""
        records = []
        for _ in range(count):
            self._number += 1
            record_id = str(UUID(int=self.draw.getrandbits(128), version=4))
            records.append(decision(self._number, register, record_id=record_id))
        return self.journal.send(sign_submission(records, f"{ORIGIN}/{register}", [DEPARTMENT_KEY]))

    @asynccontextmanager
    async def on(
        self, *addresses: str, registers: Sequence[str] = REGISTERS, largest: int = 20
    ) -> AsyncIterator[None]:
        """Load the replicas at `addresses` from here to the end of the block; then drop what is under way.

        Any answer that does not hold, and any refusal, is raised at the end; that nobody answered is not.
        """
        tasks = [
            asyncio.create_task(self._write(addresses, register, proved, largest))
            for register in registers
            for proved in (False, True)
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome in ended:
            if isinstance(outcome, BaseException) and not isinstance(outcome, _GONE):
                raise outcome

    async def until(self, more: int, seconds: float = 60.0) -> None:
        """Wait until so many more acknowledgements have come."""
        wanted = self.acknowledged + more
        async with asyncio.timeout(seconds):
            while self.acknowledged < wanted:
                self._told.clear()
                await self._told.wait()

    async def _write(self, addresses: Sequence[str], register: str, proved: bool, largest: int) -> None:
        name = f"{register} {proved}"
        wait_for = submission_pb2.WAIT_FOR_SEQUENCED if proved else submission_pb2.WAIT_FOR_ACCEPTED
        while True:
            try:
                await self._write_to(self.draw.choice(addresses), name, register, wait_for, largest)
            except UnavailableError:
                await asyncio.sleep(0.05)  # the replica is away: another, or this one when it is back

    async def _write_to(
        self,
        address: str,
        name: str,
        register: str,
        wait_for: submission_pb2.WaitFor.ValueType,
        largest: int,
    ) -> None:
        async with connect(address, policy=self.ledger.policy, register=register, key=DEPARTMENT_KEY) as client:
            while True:
                if name not in self._pending:
                    count = 1 if self.draw.random() < 0.5 else self.draw.randint(2, largest)
                    self._pending[name] = self.sign(register, count)
                if await self._submit(client, self._pending[name], wait_for):
                    del self._pending[name]

    async def _submit(
        self, client: Client, submission: SignedSubmission, wait_for: submission_pb2.WaitFor.ValueType
    ) -> bool:
        """Submit once; tell whether that is enough: a promise is, for whoever asked for no more."""
        answer = await client.submit(submission, wait_for=wait_for, timeout=PATIENCE)
        if isinstance(answer, Registered):
            self.journal.answered(answer)
            self._told.set()
            return True
        assert isinstance(answer, Promised), f"nothing that is sent here can lose a race: {answer}"
        self.promised[submission.submission_id] = submission.register
        self._told.set()
        return wait_for == submission_pb2.WAIT_FOR_ACCEPTED

    async def refused(self, address: str, register: str) -> CallError:
        """Send a submission that cannot be taken now; return how it is refused. It is sent again in the end."""
        submission = self._pending["refused"] = self.sign(register, 1)
        async with calling(address, [("grpc.enable_retries", 0)]) as caller:
            try:
                answer = await caller.register(submission)
            except grpc.aio.AioRpcError as error:
                return from_rpc_error(error)
        raise AssertionError(f"it was taken: {answer}")

    async def finish(self, address: str) -> None:
        """Send what is still unanswered until it is answered: as a department would, after the trouble."""
        for name, submission in list(self._pending.items()):
            async with connect(
                address, policy=self.ledger.policy, register=submission.register, key=DEPARTMENT_KEY
            ) as client:
                while not await self._submit(client, submission, submission_pb2.WAIT_FOR_SEQUENCED):
                    pass
            del self._pending[name]

    def compare(self, copy: Path) -> Mapping[str, Held]:
        """Compare all that was acknowledged with a ledger made from the event log, which nobody serves."""
        held = compare(self.journal, replace(self.ledger, directory=LedgerDirectory(copy)))
        for submission_id, register in self.promised.items():
            assert submission_id in held[register].runs, f"{register}: promised and lost: {submission_id}"
        return held
