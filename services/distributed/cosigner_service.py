"""The cosigner: it takes every signed checkpoint to the witnesses, and tells the signer what they confirm.

It knows the checkpoints from the topic. What witnesses have signed it keeps in the store, whose outbox carries
it to the topic. One works at a time, so that no witness is asked about everything twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry

from ledger.errors import SplitViewError
from ledger.ledger import LedgerView
from ledger.stores.postgres import PostgresStore
from services.cosigning import Cosigner
from services.declared_witnesses import DeclaredWitnesses
from services.distributed.confirming import Confirming
from services.distributed.faust_app import stream_app
from services.distributed.following_checkpoints import CheckpointFollower
from services.distributed.governed import governed_policies
from services.distributed.kafka_clients import tls
from services.distributed.note_agent import NoteAgent
from services.distributed.only_one import work_alone
from services.distributed.opened_store import open_store
from services.distributed.restored_store import RestoredStore
from services.distributed.running import Running, served
from services.distributed.settings import DistributedSettings
from services.distributed.signing import SignerClient
from services.distributed.topics import check_topics
from services.following import Standing, cancel
from services.known_history import AheadError
from services.published import Published
from services.sealing_state import SealingMetrics, SealingState
from services.time_bounds import Timelines
from services.witness_policy import PolicyInForce
from services.witnessing import cosigning

NAME: Final = "daybook-cosigner"
"""The name of the consumer group, behind the prefix."""

_log = structlog.get_logger()


class CosignerService:
    """One cosigner at work, from the lock to the end. `told` says how it stands."""

    def __init__(self, settings: DistributedSettings, store: PostgresStore, running: Running) -> None:
        self.registry = CollectorRegistry()
        self._settings = settings
        self._store = store
        self._running = running
        self._restored = RestoredStore(settings, store, self.registry)
        self._cosigner: Cosigner | None = None
        self._confirming: Confirming | None = None
        self._sealing: SealingState | None = None

    def told(self) -> dict[str, Any]:
        """Return, for readiness, whether checkpoints are sealed and by whom, or that the store is behind."""
        behind = self._restored.told()
        waits = {} if behind is None else {"behind": behind}
        if self._confirming is None or self._sealing is None:
            return {"ready": False, **waits}
        signer = {"instance": self._confirming.instance, "trouble": self._confirming.away}
        ready = self._confirming.instance is not None and self._confirming.away is None and behind is None
        return {"ready": ready, "signer": signer, "sealing": self._sealing.told(), **waits}

    async def work(self) -> None:
        """Cosign until a stop is asked for. Raises as `run` does."""
        # Before anything is read that would be of the older copy.
        if not await self._running.unless_stopped(self._restored.make_whole()):
            await self._running.until_over()
            return
        settings = self._settings
        view = LedgerView(self._store, settings.origin)
        policies = await asyncio.to_thread(governed_policies, view)
        published = Published(self._store, policies)
        follower = CheckpointFollower(settings, view, published, self.registry)
        app = stream_app(settings, NAME)
        agent = NoteAgent(app, settings, follower.take)
        signer = SignerClient.of(settings)
        try:
            async with follower.fed() as following:
                confirming = self._confirming = Confirming(signer, view, published)
                self._sealing = SealingState(published, confirming, self._standings)
                timelines = Timelines(published)
                metrics = SealingMetrics(self._sealing, timelines, self.registry)

                async def ask() -> None:
                    await confirming.first_look()
                    try:
                        while True:
                            try:
                                await self._until_restarted(view, published, confirming, metrics, policies)
                            except AheadError as ahead:
                                # Nothing is to grow beside what a witness holds, whoever has confirmed it.
                                confirming.withdraw()
                                await self._restored.catch_up(ahead)
                    except SplitViewError as error:
                        _log.error(
                            "a witness knows another history",
                            why=str(error),
                            ours=error.first.decode("utf-8", "replace"),
                            theirs=error.second.decode("utf-8", "replace"),
                        )
                        raise

                parts = [
                    self._running.part(agent.run),
                    self._running.part(confirming.run),
                    self._running.part(ask),
                    self._running.part(lambda: following),
                ]
                for part in parts:
                    app.task(part)
                await app.start()
                try:
                    await self._running.until_over()
                finally:
                    await self._running.finish("goodbye to Kafka", app.stop())
        finally:
            await signer.close()

    async def _until_restarted(
        self,
        view: LedgerView,
        published: Published,
        confirming: Confirming,
        metrics: SealingMetrics,
        policies: PolicyInForce,
    ) -> None:
        """Ask the witnesses; return when the signer was started anew: then they are to be asked from the start.

        Raises AheadError where a witness holds more than signer or store, and SplitViewError where it knows
        another history; StoreError, OSError.
        """
        confirming.restarted.clear()
        path = self._settings.declared_witnesses
        async with cosigning(
            view,
            published,
            confirming,
            self._settings,
            metrics,
            time.time,
            DeclaredWitnesses(path) if path is not None else _nobody_declared,
            policies.history,
            confirming.signed_size,
        ) as cosigner:
            self._cosigner = cosigner
            asking = asyncio.create_task(cosigner.run())
            restarted = asyncio.create_task(confirming.restarted.wait())
            try:
                await asyncio.wait({asking, restarted}, return_when=asyncio.FIRST_COMPLETED)
                if asking.done():
                    asking.result()
            finally:
                await cancel([asking, restarted])

    def _standings(self) -> Sequence[Standing]:
        return self._cosigner.standings() if self._cosigner is not None else ()


def _nobody_declared(_vkey: str) -> int | None:
    return None


async def run(settings: DistributedSettings, ready: Callable[[Mapping[str, str]], None]) -> None:
    """Cosign until SIGTERM or SIGINT; as a standby while another cosigner works.

    Raises SplitViewError where a witness knows what neither the signer nor the store does; StoreError or
    OSError where PostgreSQL, Kafka or the file of issuers cannot be reached; TopicsError.
    """
    await served(settings.grace_seconds, lambda running: _run(settings, ready, running))


async def _run(
    settings: DistributedSettings, ready: Callable[[Mapping[str, str]], None], running: Running
) -> None:
    await check_topics(settings.kafka, settings.partitions, prefix=settings.topic_prefix, tls=tls(settings))
    conninfo = settings.conninfo()
    store = await asyncio.to_thread(open_store, settings)
    running.in_the_end(store.hurry)
    try:
        service = CosignerService(settings, store, running)
        await work_alone(
            "cosigner", conninfo, settings, running, service.registry, service.told, ready, service.work
        )
    finally:
        store.close()
