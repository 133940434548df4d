"""The client that departments import: connect, sign, submit, and get back what has been proved.

    async with connect("127.0.0.1:7070", policy=policy, register=name, key=key) as client:
        answer = await client.submit(client.sign(records))

Verification cannot be turned off. What is trusted is the department's own witness policy file; the key that
signs acknowledgements comes from the governing register's first entry, proved under that policy.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from daybook.registration.v1 import registration_service_pb2 as pb
from daybook.registration.v1 import registration_service_pb2_grpc as rpc
from daybook.submission.v1 import submission_pb2

from ledger.ed25519 import SecretKey
from ledger.errors import MalformedError, RejectedError, VerificationError
from ledger.governing_types import LedgerOpened, SubmissionRejected
from ledger.notes import VerifierKey
from ledger.receipt_file import KeyEvidence, Receipt
from ledger.receipts import VerifiedReceipt, verify_receipt
from ledger.records import parse_record
from ledger.witnessing import Policy, check_clocks
from services.client.answers import (
    Answer,
    AnswerVerifier,
    Promised,
    Registered,
    Rejected,
    is_of_another_signer,
)
from services.client.channels import Tls, open_channel
from services.client.errors import CallError
from services.client.in_flight import as_finished
from services.client.retrying import call
from services.client.signing import SignedSubmission, sign_submission

GOVERNING: Final = "governing"

CONNECT_TIMEOUT: Final = 10.0
"""Seconds for the first calls of a connection, retries included."""

SUBMIT_TIMEOUT: Final = 60.0
"""Seconds for one submission, retries included."""

EVIDENCE_TIMEOUT: Final = 5.0
"""Seconds for what shows whose a key is: the records are registered whether it comes or not."""

IN_FLIGHT: Final = 8
"""Submissions that `submit_many` has under way at once."""


@dataclass(frozen=True, slots=True)
class LedgerIdentity:
    """What a connection has proved about the ledger before anything is sent to it.

    `opening` is the verified receipt of its first governing entry.
    """

    origin: str
    acknowledgement_key: VerifierKey
    opening: VerifiedReceipt


@dataclass(frozen=True, slots=True)
class Delivery:
    """How one submission of many ended: an answer that was verified, or the error of its last call."""

    submission: SignedSubmission
    outcome: Answer | CallError


def only_ledger(policy: Policy) -> str:
    """Return the origin of the one ledger that a policy names. Raises MalformedError for none or several."""
    origins = policy.ledger_origins
    if len(origins) != 1:
        named = ", ".join(origins) or "none"
        raise MalformedError(f"policy: names the ledgers {named}, where one is needed (<origin>/governing)")
    return origins[0]


@asynccontextmanager
async def connect(
    address: str,
    *,
    policy: Policy,
    register: str,
    key: SecretKey,
    tls: Tls | None = None,
    timeout: float = CONNECT_TIMEOUT,  # noqa: ASYNC109 - sent along as the calls' deadline
) -> AsyncIterator[Client]:
    """Connect to a ledger at ``host:port`` to write to one register, and prove who it is.

    Without `tls` the ledger must be on this computer: it answers nobody else.

    Raises CallError when it does not answer, VerificationError when it is not the policy's ledger, and
    MalformedError for a policy that does not name exactly one ledger.
    """
    async with open_channel(address, tls) as channel:
        stub = rpc.RegistrationServiceStub(channel)
        identity = await identify(stub, policy, timeout)
        yield Client(stub, policy, identity, register, key)


async def identify(
    stub: rpc.RegistrationServiceAsyncStub,
    policy: Policy,
    timeout: float = CONNECT_TIMEOUT,  # noqa: ASYNC109 - sent along as the call's deadline
) -> LedgerIdentity:
    """Fetch and verify governing entry 0, which names the acknowledgement key (formats.md, section 7).

    Raises CallError, VerificationError or MalformedError as `connect` does.
    """
    origin = only_ledger(policy)
    _, opening = await fetch_receipt(stub, policy, origin, GOVERNING, 0, timeout)
    record = _parsed(opening)
    if not isinstance(record, LedgerOpened) or record.origin != origin:
        raise VerificationError(f"governing entry 0 does not open the ledger {origin}")
    key = VerifierKey.parse(record.acknowledgement_key)
    if key.name != f"{origin}/acknowledgements":
        raise VerificationError(f"the acknowledgement key is {key.name}, not {origin}/acknowledgements")
    return LedgerIdentity(origin, key, opening)


async def fetch_receipt(
    stub: rpc.RegistrationServiceAsyncStub,
    policy: Policy,
    ledger_origin: str,
    register: str,
    entry: int | submission_pb2.RecordVersion,
    timeout: float,  # noqa: ASYNC109 - sent along as the call's deadline
) -> tuple[bytes, VerifiedReceipt]:
    """Fetch the receipt of an entry, by index or by record version, and verify it is of that register.

    Raises CallError, or VerificationError when it does not hold or is of another register or index.
    """
    request = pb.GetReceiptRequest(register=register)
    if isinstance(entry, int):
        request.index = entry
    else:
        request.record.CopyFrom(entry)
    response = await call(lambda left: stub.GetReceipt(request, timeout=left), timeout)
    try:
        verified = verify_receipt(response.receipt, policy)
        check_clocks(verified.every_cosignature, int(time.time()))
    except MalformedError as error:
        raise VerificationError(f"the ledger's receipt: {error}") from error
    if (verified.ledger_origin, verified.register) != (ledger_origin, register):
        raise VerificationError(f"asked for a receipt of {register}, got one of {verified.register}")
    asked = (entry,) if isinstance(entry, int) else (entry.record_id, entry.version)
    got = (verified.index,) if isinstance(entry, int) else (verified.record_id, verified.version)
    if asked != got:
        raise VerificationError(f"asked for a receipt of {asked}, got one of {got}")
    return response.receipt, verified


def _parsed(verified: VerifiedReceipt) -> object:
    try:
        return parse_record(verified.record)
    except (MalformedError, RejectedError) as error:
        raise VerificationError(f"governing entry {verified.index}: {error}") from error


class Client:
    """Writes to one register of one ledger. Made by `connect`; safe to share between tasks of one loop."""

    def __init__(
        self,
        stub: rpc.RegistrationServiceAsyncStub,
        policy: Policy,
        identity: LedgerIdentity,
        register: str,
        key: SecretKey,
    ) -> None:
        self._stub = stub
        self._policy = policy
        self._register = register
        self._key = key
        self._verifier = AnswerVerifier(policy, f"{identity.origin}/{register}", identity.acknowledgement_key)
        self._evidence: dict[bytes, KeyEvidence] = {}
        self._evidence_lock = asyncio.Lock()
        self.identity = identity

    @property
    def register_origin(self) -> str:
        """The origin that submissions are signed for."""
        return f"{self.identity.origin}/{self._register}"

    def sign(self, records: Sequence[bytes]) -> SignedSubmission:
        """Sign 1..1,000 canonical records as one submission, in order. Nothing is sent."""
        return sign_submission(records, self.register_origin, [self._key])

    async def submit(
        self,
        submission: SignedSubmission,
        *,
        wait_for: submission_pb2.WaitFor.ValueType = submission_pb2.WAIT_FOR_SEALED,
        timeout: float = SUBMIT_TIMEOUT,  # noqa: ASYNC109 - sent along as the call's deadline
    ) -> Answer:
        """Register a submission and return what was proved.

        Sent again, within `timeout` seconds, while the ledger is away or busy; the same submission again
        gives the same answer. Raises CallError: RefusedError when it breaks a rule, UnavailableError when
        time ran out; VerificationError when the answer does not hold.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        request = pb.RegisterRequest(submission=message_of(submission), wait_for=wait_for)
        response = await call(lambda left: self._stub.Register(request, timeout=left), timeout)
        return await self._judged(submission, response.acknowledgement, deadline)

    async def submit_many(
        self,
        submissions: Iterable[SignedSubmission],
        *,
        in_flight: int = IN_FLIGHT,
        wait_for: submission_pb2.WaitFor.ValueType = submission_pb2.WAIT_FOR_SEALED,
        timeout: float = SUBMIT_TIMEOUT,  # noqa: ASYNC109 - of each submission
    ) -> AsyncIterator[Delivery]:
        """Submit many, several in flight, and yield each as it ends: in any order.

        Submissions are taken from the iterable only as fast as they are answered. Where one must come after
        another, submit them one after the other. Raises VerificationError, which ends the rest.
        """

        async def deliver(submission: SignedSubmission) -> Delivery:
            try:
                answer = await self.submit(submission, wait_for=wait_for, timeout=timeout)
            except CallError as error:
                return Delivery(submission, error)
            return Delivery(submission, answer)

        jobs = (partial(deliver, submission) for submission in submissions)
        async for delivery in as_finished(jobs, in_flight):
            yield delivery

    async def receipt(
        self,
        entry: int | submission_pb2.RecordVersion,
        *,
        timeout: float = SUBMIT_TIMEOUT,  # noqa: ASYNC109 - sent along as the call's deadline
    ) -> tuple[bytes, VerifiedReceipt]:
        """Fetch the receipt of an entry of this register, by index or record version, and verify it.

        Raises CallError or VerificationError.
        """
        return await fetch_receipt(
            self._stub, self._policy, self.identity.origin, self._register, entry, timeout
        )

    async def _judged(
        self, submission: SignedSubmission, answer: submission_pb2.Acknowledgement, deadline: float
    ) -> Answer:
        if answer.state == submission_pb2.STATE_REJECTED:
            return await self._rejected(submission, answer, deadline)
        verified: Registered | Promised
        try:
            verified = self._verifier.verify(submission, answer)
        except VerificationError as error:
            if not is_of_another_signer(error, answer):
                raise
            verified = await self._first_signed(submission, answer, deadline)
        if isinstance(verified, Registered):
            return await self._with_key(verified, deadline)
        return verified

    async def _first_signed(
        self, submission: SignedSubmission, answer: submission_pb2.Acknowledgement, deadline: float
    ) -> Registered | Promised:
        """Verify an answer whose entries carry the signature under which the submission came first."""
        _, first = await self.receipt(answer.first_index, timeout=_left(deadline))
        if first.entry.membership is None:
            raise VerificationError(f"the entry at index {first.index} is not of a submission")
        signed = submission.signed_by(first.entry.membership.signatures)
        return self._verifier.verify(signed, answer)

    async def _with_key(self, registered: Registered, deadline: float) -> Registered:
        key = registered.submission.signatures[0].key
        evidence = self._evidence.get(key)
        if evidence is None:
            evidence = await self._find_evidence(key, registered.first_index, deadline)
        return registered if evidence is None else registered.with_key(evidence)

    async def _find_evidence(self, key: bytes, index: int, deadline: float) -> KeyEvidence | None:
        """Fetch, once for each key, what shows that it was authorised: it serves every later receipt.

        The records are registered whatever comes of this: where the ledger does not answer, or leaves the
        evidence out, the receipts say that the department is claimed, and the next answer asks again.
        """
        async with self._evidence_lock:
            if key not in self._evidence:
                try:
                    data, verified = await self.receipt(index, timeout=min(EVIDENCE_TIMEOUT, _left(deadline)))
                except CallError:
                    return None
                evidence = Receipt.parse(data).key
                if evidence is not None and verified.signers == (key,):
                    self._evidence[key] = evidence
            return self._evidence.get(key)

    async def _rejected(
        self, submission: SignedSubmission, answer: submission_pb2.Acknowledgement, deadline: float
    ) -> Rejected:
        """Verify the rejection: the entry says so, not the server."""
        index = answer.rejection.index
        try:
            self._verifier.acknowledgement(submission, answer.note)
        except MalformedError as error:
            raise VerificationError(f"the ledger's answer: {error}") from error
        receipt, verified = await self.receipt(index, timeout=_left(deadline))
        record = _parsed(verified)
        if (
            not isinstance(record, SubmissionRejected)
            or verified.signers
            or record.submission_id != submission.submission_id
        ):
            raise VerificationError(f"the entry at index {index} does not reject this submission")
        return Rejected(submission, answer.note, index, record.reason, receipt)


def message_of(submission: SignedSubmission) -> submission_pb2.SignedSubmission:
    """Return a submission as it is sent."""
    return submission_pb2.SignedSubmission(
        body=submission.body,
        records=submission.records,
        signatures=[
            submission_pb2.Signature(key=each.key, signature=each.signature) for each in submission.signatures
        ],
    )


def _left(deadline: float) -> float:
    return max(1.0, deadline - asyncio.get_running_loop().time())
