"""The governance service: what the ledger decides about itself, as signed submissions to `governing`.

The five calls differ in the one type of record that they take. The signatures, never the connection, decide.
"""

from __future__ import annotations

from typing import Any, Final

import grpc.aio
from daybook.governance.v1 import governance_service_pb2 as pb
from daybook.governance.v1 import governance_service_pb2_grpc as rpc
from daybook.submission.v1 import submission_pb2

from ledger.admission import rejection
from ledger.entries import MAX_RECORDS
from ledger.errors import MalformedError, Reason, Violation
from ledger.rules import read_header
from services import wire
from services.peers import submitter
from services.reached import State, Waiter
from services.registrar import Registrar

Context = grpc.aio.ServicerContext[Any, Any]

SEAL_SECONDS: Final = 10.0
"""Seconds that a decision waits for its seal, whatever the deadline: it stands all the same."""

TYPES: Final = {
    "OpenRegister": "register.opened/1",
    "CloseRegister": "register.closed/1",
    "AuthoriseKey": "key.authorised/1",
    "RevokeKey": "key.revoked/1",
    "PublishPolicy": "policy.published/1",
}
"""The type of record that each call takes."""


class GovernanceServicer(rpc.GovernanceServiceServicer):
    """Takes signed governance requests."""

    def __init__(self, registrar: Registrar, waiter: Waiter) -> None:
        self._registrar = registrar
        self._waiter = waiter

    async def OpenRegister(self, request: pb.OpenRegisterRequest, context: Context) -> pb.OpenRegisterResponse:
        """Open a register."""
        answer = await self._govern("OpenRegister", request.submission, context)
        return pb.OpenRegisterResponse(acknowledgement=answer)

    async def CloseRegister(
        self, request: pb.CloseRegisterRequest, context: Context
    ) -> pb.CloseRegisterResponse:
        """Close a register for ever."""
        answer = await self._govern("CloseRegister", request.submission, context)
        return pb.CloseRegisterResponse(acknowledgement=answer)

    async def AuthoriseKey(self, request: pb.AuthoriseKeyRequest, context: Context) -> pb.AuthoriseKeyResponse:
        """Bind a key to a department."""
        answer = await self._govern("AuthoriseKey", request.submission, context)
        return pb.AuthoriseKeyResponse(acknowledgement=answer)

    async def RevokeKey(self, request: pb.RevokeKeyRequest, context: Context) -> pb.RevokeKeyResponse:
        """Revoke a key."""
        answer = await self._govern("RevokeKey", request.submission, context)
        return pb.RevokeKeyResponse(acknowledgement=answer)

    async def PublishPolicy(
        self, request: pb.PublishPolicyRequest, context: Context
    ) -> pb.PublishPolicyResponse:
        """Publish a witness policy, a profile or a calendar."""
        answer = await self._govern("PublishPolicy", request.submission, context)
        return pb.PublishPolicyResponse(acknowledgement=answer)

    async def _govern(
        self, call: str, signed: submission_pb2.SignedSubmission, context: Context
    ) -> submission_pb2.Acknowledgement:
        _check_type(call, signed)
        accepted = await self._registrar.register(
            signed.body, tuple(signed.records), wire.signatures(signed), submitter(context)
        )
        left = min(context.time_remaining() or SEAL_SECONDS, SEAL_SECONDS)
        return wire.acknowledgement(await self._waiter.reached(accepted, State.SEALED, left))


def _check_type(call: str, signed: submission_pb2.SignedSubmission) -> None:
    """Refuse a record of another type than the call's. One that cannot be read is refused further on."""
    if len(signed.records) > MAX_RECORDS:
        return  # refused further on, for that
    for position, record in enumerate(signed.records):
        try:
            found = read_header(record).type
        except MalformedError:
            continue
        if found != TYPES[call]:
            text = f"{call} takes {TYPES[call]}, not {found}"
            raise rejection(
                [Violation(Reason.INVALID_FIELD, text, f"records[{position}].type", (TYPES[call],))]
            )
