"""`daybook run registration`: where departments register, and governance decides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import grpc
from daybook.governance.v1 import governance_service_pb2, governance_service_pb2_grpc
from daybook.registration.v1 import registration_service_pb2, registration_service_pb2_grpc
from prometheus_client import CollectorRegistry

from ledger.ledger import LedgerView
from ledger.notes import SignerKey
from services.distributed.accepting import KafkaSubmissions
from services.distributed.kafka_clients import tls
from services.distributed.ops import ops_endpoint
from services.distributed.reading import Reading, readiness, reading, until_over
from services.distributed.running import CALLS, served
from services.distributed.settings import DistributedSettings
from services.distributed.topics import check_topics
from services.governance import GovernanceServicer
from services.grpc_server import GrpcServer, grpc_server
from services.ledger_files import read_secret_key
from services.reached import Waiter
from services.receipts import ReceiptBuilder
from services.registrar import Registrar
from services.registration import RegistrationServicer
from services.settings import SettingsError
from services.stopping import Stop

LINGER: Final = 1.0
"""Seconds for which a stopping server still waits, before it answers with the state reached."""

_SERVICES: Final = tuple(
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in (
        (registration_service_pb2, "RegistrationService"),
        (governance_service_pb2, "GovernanceService"),
    )
)


async def run(settings: DistributedSettings, ready: Callable[[Mapping[str, str]], None]) -> None:
    """Serve until SIGTERM or SIGINT. Raises as `serve` does."""
    await served(settings.grace_seconds, lambda running: serve(settings, ready, running.stop))


async def serve(settings: DistributedSettings, ready: Callable[[Mapping[str, str]], None], stop: Stop) -> None:
    """Serve until a stop is asked for: then answer what is under way, and let through what was accepted.

    Raises SettingsError or TopicsError; OSError, KafkaError or StoreError where what is needed cannot be
    reached; SplitViewError.
    """
    registry = CollectorRegistry()
    await check_topics(settings.kafka, settings.partitions, prefix=settings.topic_prefix, tls=tls(settings))
    async with reading(settings, registry) as held:
        submissions = KafkaSubmissions(
            settings,
            held.view,
            held.store,
            held.published,
            lambda: held.follower.age,
            _acknowledger(settings, held.view),
            registry,
        )
        async with (
            submissions.started(),
            _calls(settings, registry, held, submissions, stop) as calls,
            ops_endpoint(settings.ops, registry, partial(readiness, held, stop)) as ops,
        ):
            ready({"grpc": calls.address, "ops": ops})
            try:
                await until_over(stop, held.following)
            finally:
                stop.asked.set()
                submissions.drain()
                loop = asyncio.get_running_loop()
                loop.call_later(LINGER, held.published.give_up_waiting)
                loop.call_later(LINGER, submissions.give_up_waiting)
                await calls.server.stop(CALLS * settings.grace_seconds)
                held.store.hurry()


@asynccontextmanager
async def _calls(
    settings: DistributedSettings,
    registry: CollectorRegistry,
    held: Reading,
    submissions: KafkaSubmissions,
    stop: Stop,
) -> AsyncIterator[GrpcServer]:
    def add(server: grpc.aio.Server) -> None:
        receipts = ReceiptBuilder(held.view, held.published)
        registrations = RegistrationServicer(
            held.view, held.published, submissions, receipts, stop.asked, apart=True
        )
        registration_service_pb2_grpc.add_RegistrationServiceServicer_to_server(registrations, server)
        waiter = Waiter(held.view, held.published, receipts, apart=True)
        governance_service_pb2_grpc.add_GovernanceServiceServicer_to_server(
            GovernanceServicer(Registrar(held.view, submissions), waiter), server
        )

    async with grpc_server(settings, registry, stop, _SERVICES, add) as calls:
        yield calls


def _acknowledger(settings: DistributedSettings, view: LedgerView) -> SignerKey:
    """Read the key that the ledger was opened with. Raises SettingsError, OSError or DirectoryError."""
    if settings.acknowledgement_key is None:
        raise SettingsError("acknowledgement_key is not set: give DAYBOOK_ACKNOWLEDGEMENT_KEY")
    key = read_secret_key(settings.acknowledgement_key)
    opened = view.fold.opened
    if opened is None or opened.acknowledgement_key != str(key.verifier):
        raise SettingsError(
            f"{settings.acknowledgement_key} is not the key that {view.origin} acknowledges with"
        )
    return key
