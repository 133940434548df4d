"""Faust, reading from where the database says and committing where the database stands.

By itself Faust seeks to the group's committed offsets after every rebalance, whatever was sought before, and
commits what it believes acknowledged, which may lie beyond what was done. Here the group's offsets only repeat
what the database says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import faust
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from services.distributed.faust_app import PatientConsumer, PatientThread

FETCH_WAIT: Final = 200
"""Milliseconds of a fetch that finds nothing; a broker answers with the first byte."""

Positions = Callable[[], Mapping[TP, int]]
"""Tells the next offset of each partition that has a writer."""

Committed = Callable[[Mapping[TP, int]], None]
"""Is told, before each seek, what the group had committed."""


class _PromptThread(PatientThread):
    def _create_worker_consumer(self, transport: driver.Transport) -> Any:
        consumer: Any = super()._create_worker_consumer(transport)
        # One request is under way at a time: a partition that is resumed, or whose messages were taken late,
        # waits until the broker has answered for the others. Faust asks it to hold that back for 1.5 seconds.
        consumer._fetch_max_wait_ms = FETCH_WAIT
        return consumer


class _PositionedConsumer(PatientConsumer):
    positions: Positions
    told: Committed

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return _PromptThread(self, loop=self.loop, beacon=self.beacon)

    async def perform_seek(self) -> None:
        """Seek every partition that has a writer to its position; the others are not to be read."""
        committed = await self.seek_to_committed()
        self.told(
            {TP(tp.topic, tp.partition): offset for tp, offset in committed.items() if offset is not None}
        )
        assigned = self.assignment()
        positions = {tp: offset for tp, offset in self.positions().items() if tp in assigned}
        await self.seek_wait(positions)
        for tp in positions:
            # The group's word says nothing of what is done: the next commit replaces it.
            self._committed_offset[tp] = None

    def _filter_committable_offsets(self, tps: Iterable[TP]) -> dict[TP, int]:
        for tp in tps:
            self._acked[tp].clear()
            self._acked_index[tp].clear()
            self._gap.pop(tp, None)
        return {
            tp: offset
            for tp, offset in self.positions().items()
            if offset and self._committed_offset[tp] != offset
        }


class _PositionedTransport(driver.Transport):
    Consumer = _PositionedConsumer
    positions: Positions
    told: Committed

    def create_consumer(self, callback: Any, **options: Any) -> Any:
        consumer: Any = super().create_consumer(callback, **options)
        consumer.positions = self.positions
        consumer.told = self.told
        return consumer


def read_from(app: faust.App, positions: Positions, told: Committed) -> None:
    """Make an app that is not started yet read from `positions`, and commit them."""
    transport = _PositionedTransport(app.conf.broker_consumer, app)
    transport.positions = positions
    transport.told = told
    app.transport = transport
