"""Governance over gRPC: a signed request sent to GovernanceService, and its answer verified."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from daybook.audit.v1 import audit_service_pb2 as audit
from daybook.audit.v1 import audit_service_pb2_grpc as audit_rpc
from daybook.governance.v1 import governance_service_pb2 as pb
from daybook.governance.v1 import governance_service_pb2_grpc as rpc
from daybook.registration.v1 import registration_service_pb2_grpc as registration_rpc
from daybook.submission.v1 import submission_pb2

from ledger.entries import Signature
from ledger.errors import MalformedError
from ledger.witnessing import Policy
from services.client.answers import AnswerVerifier, Promised, Registered
from services.client.channels import Tls, open_channel
from services.client.client import SUBMIT_TIMEOUT, identify, message_of
from services.client.retrying import call
from services.client.signing import unsigned_submission

_CALLS: Final[dict[str, tuple[str, Any]]] = {
    "register.opened/1": ("OpenRegister", pb.OpenRegisterRequest),
    "register.closed/1": ("CloseRegister", pb.CloseRegisterRequest),
    "key.authorised/1": ("AuthoriseKey", pb.AuthoriseKeyRequest),
    "key.revoked/1": ("RevokeKey", pb.RevokeKeyRequest),
    "policy.published/1": ("PublishPolicy", pb.PublishPolicyRequest),
}

SERVED_TYPES: Final = tuple(_CALLS)
"""Types of governing records that a server takes; the others are written in the ledger's directory."""


async def governing_note(address: str, tls: Tls | None = None, timeout: float = SUBMIT_TIMEOUT) -> bytes:  # noqa: ASYNC109 - sent along as the call's deadline
    """Return the latest note of the governing register that a server shows, unverified. Raises CallError."""
    request = audit.GetCheckpointRequest(register="governing", kind=audit.CHECKPOINT_KIND_SIGNED)
    async with open_channel(address, tls) as channel:
        stub = audit_rpc.AuditServiceStub(channel)
        return (await call(lambda left: stub.GetCheckpoint(request, timeout=left), timeout)).checkpoint


async def govern(
    address: str,
    policy: Policy,
    record_type: str,
    record: bytes,
    signatures: Sequence[Signature],
    tls: Tls | None = None,
    timeout: float = SUBMIT_TIMEOUT,  # noqa: ASYNC109 - sent along as the call's deadline
) -> Registered | Promised:
    """Send one signed governing record, of a type in `SERVED_TYPES`, and return what was proved.

    The ledger is that of `policy`. Raises CallError, VerificationError, or MalformedError for a policy that
    does not name exactly one ledger or a type that is not served.
    """
    if record_type not in _CALLS:
        raise MalformedError(f"{record_type} is not served over gRPC")
    name, message_type = _CALLS[record_type]
    async with open_channel(address, tls) as channel:
        identity = await identify(registration_rpc.RegistrationServiceStub(channel), policy)
        origin = f"{identity.origin}/governing"
        submission = unsigned_submission([record], origin).signed_by(signatures)
        request = message_type(submission=message_of(submission), wait_for=submission_pb2.WAIT_FOR_SEALED)
        method = getattr(rpc.GovernanceServiceStub(channel), name)
        response = await call(lambda left: method(request, timeout=left), timeout)
        verifier = AnswerVerifier(policy, origin, identity.acknowledgement_key)
        return verifier.verify(submission, response.acknowledgement)
