"""The Faust app of a service, which creates nothing, and ends where the brokers are away as well.

There aiokafka lets the cancellation of its own fetches out of `stop`, and the thread would die of it without a
word to whoever waits for it; or it waits for a broker that will not answer any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, Final

import faust
import structlog
from faust.transport.drivers import aiokafka as driver

from services.distributed.kafka_clients import tls
from services.distributed.running import LAST
from services.distributed.settings import DistributedSettings

_FETCHED: Final = 128
"""Messages that wait in a stream before its partitions are paused."""

_POLLED: Final = 500
"""Messages taken at once from what was fetched: a small batch may have been compressed from millions."""

_REQUEST: Final = 90.0
"""Seconds that a broker may take to answer."""

_log = structlog.get_logger()


class PatientThread(driver.AIOKafkaConsumerThread):
    """Stops its consumer, for some time at the most."""

    async def on_thread_stop(self) -> None:
        """Stop."""
        await for_a_while(super().on_thread_stop(), _farewell(self.app), "the group is not left")


class PatientConsumer(driver.Consumer):
    """Commits in its end, for some time at the most."""

    async def on_stop(self) -> None:
        """Commit."""
        await for_a_while(super().on_stop(), _farewell(self.app), "the group's offsets are not committed")

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return PatientThread(self, loop=self.loop, beacon=self.beacon)


def _farewell(app: object) -> float:
    assert isinstance(app, StreamApp)  # noqa: S101 - no other has these threads
    return app.farewell


async def for_a_while(ending: Awaitable[Any], seconds: float, without: str) -> None:
    """Do what a group would have in the end, for so long at the most; else log what is not done."""
    doing = asyncio.ensure_future(ending)
    await asyncio.wait({doing}, timeout=seconds)
    if not doing.done():
        doing.cancel()
        # Of these groups nobody needs to know: the store says what is done, or all is asked for again.
        _log.warning("Kafka does not answer in the end", without=without)
    elif not doing.cancelled():
        doing.result()


class _Transport(driver.Transport):
    Consumer = PatientConsumer


class StreamApp(faust.App):
    """An app that keeps no tables, and so needs no folder for them, which it would make wherever it starts."""

    farewell: float
    """Seconds for its group's last commit, and as many to leave it. Else it is missed after its session."""

    def _create_directories(self) -> None:
        pass


def stream_app(settings: DistributedSettings, name: str) -> StreamApp:
    """Return a Faust app of the group `name` that creates nothing, keeps no tables and opens no port.

    It is started and stopped from our own event loop, which must be running.
    """
    app = StreamApp(
        settings.topic_prefix + name,
        broker=[f"kafka://{each.strip()}" for each in settings.kafka.split(",")],
        broker_credentials=tls(settings),
        loop=asyncio.get_running_loop(),
        autodiscover=False,
        web_enabled=False,
        web_bind="127.0.0.1",
        value_serializer="raw",
        key_serializer="raw",
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        stream_wait_empty=False,
        stream_buffer_maxsize=_FETCHED,
        broker_max_poll_records=_POLLED,
        broker_commit_interval=1.0,
        # Faust wants it to be longer than a session.
        broker_request_timeout=max(_REQUEST, 1.5 * settings.session_seconds),
        broker_session_timeout=settings.session_seconds,
        broker_rebalance_timeout=max(settings.session_seconds, 6.0),
        broker_heartbeat_interval=settings.session_seconds / 4,
    )
    app.farewell = LAST * settings.grace_seconds
    app.transport = _Transport(app.conf.broker_consumer, app)
    return app
