"""Calls to a real server, and what is asserted of every refusal: code, reason, field, and nothing changed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
import grpc.aio
import pytest
from daybook.audit.v1 import audit_service_pb2 as audit
from daybook.audit.v1.audit_service_pb2_grpc import AuditServiceStub
from daybook.governance.v1 import governance_service_pb2 as governance
from daybook.governance.v1.governance_service_pb2_grpc import GovernanceServiceStub
from daybook.registration.v1 import registration_service_pb2 as pb
from daybook.registration.v1.registration_service_pb2_grpc import RegistrationServiceStub
from daybook.submission.v1.submission_pb2 import Acknowledgement

from services.client.channels import channel_options
from services.client.client import message_of
from services.client.errors import CallError, from_rpc_error
from services.client.signing import SignedSubmission

SECONDS: Final = 30.0
"""The deadline of calls whose deadline is not what they are about."""

GOVERNANCE_CALLS: Final[dict[str, Callable[..., Any]]] = {
    "OpenRegister": governance.OpenRegisterRequest,
    "CloseRegister": governance.CloseRegisterRequest,
    "AuthoriseKey": governance.AuthoriseKeyRequest,
    "RevokeKey": governance.RevokeKeyRequest,
    "PublishPolicy": governance.PublishPolicyRequest,
}


class Caller:
    """One channel to a server, with the stubs of its services."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.registration: Any = RegistrationServiceStub(channel)
        self.governance: Any = GovernanceServiceStub(channel)
        self.audit: Any = AuditServiceStub(channel)

    async def register(self, submission: SignedSubmission) -> Acknowledgement:
        """Register a submission; return the acknowledgement. Raises AioRpcError."""
        request = pb.RegisterRequest(submission=message_of(submission))
        response: pb.RegisterResponse = await self.registration.Register(request, timeout=SECONDS)
        return response.acknowledgement

    async def govern(self, call: str, submission: SignedSubmission) -> Acknowledgement:
        """Make one governance call; return the acknowledgement. Raises AioRpcError."""
        request = GOVERNANCE_CALLS[call](submission=message_of(submission))
        response: Any = await getattr(self.governance, call)(request, timeout=SECONDS)
        acknowledgement: Acknowledgement = response.acknowledgement
        return acknowledgement

    async def sizes(self) -> dict[str, int]:
        """Return the size of every register."""
        response = await self.audit.ListRegisters(audit.ListRegistersRequest(page_size=1_000))
        assert not response.next_page_token
        return {one.name: one.size for one in response.registers}

    async def refused(
        self, call: Awaitable[Any], code: grpc.StatusCode, reason: str, *fields: str, **metadata: str
    ) -> CallError:
        """Assert that a call is refused just so, and that no register has grown; return what it said.

        `fields` are among those of its violations; `metadata` is among its details.
        """
        before = await self.sizes()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        error = from_rpc_error(caught.value)
        assert_refused(error, code, reason, *fields, **metadata)
        assert await self.sizes() == before
        return error


def assert_refused(error: CallError, code: grpc.StatusCode, reason: str, *fields: str, **metadata: str) -> None:
    """Assert an error's code, its stable reason, fields at fault and details."""
    assert (error.code, error.reason) == (code, reason), error.message
    named = [violation.field for violation in error.violations]
    assert set(fields) <= set(named), named
    assert metadata.items() <= error.metadata.items(), dict(error.metadata)
    assert error.request_id or not reason


@asynccontextmanager
async def calling(address: str, extra: Sequence[tuple[str, int]] = ()) -> AsyncIterator[Caller]:
    """Open a channel to a server on this computer."""
    options = (*channel_options(address), *extra)
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        yield Caller(channel)
