"""Faust, reading from where the database says and committing where the database stands.

By itself Faust seeks to the group's committed offsets after every rebalance, whatever was sought before, and
commits what it believes acknowledged, which may lie beyond what was done. Here the group's offsets only repeat
what the database says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import faust
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

Positions = Callable[[], Mapping[TP, int]]
"""Tells the next offset of each partition that has a writer."""

Committed = Callable[[Mapping[TP, int]], None]
"""Is told, before each seek, what the group had committed."""


class _PositionedConsumer(driver.Consumer):
    positions: Positions
    told: Committed

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
