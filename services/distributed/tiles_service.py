"""`daybook run tiles`: the HTTP endpoint of checkpoints, tiles and entry bundles."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry

from services.cosigning import unsealed
from services.distributed.ops import ops_endpoint
from services.distributed.projection import ProjectedRegisters
from services.distributed.reading import readiness, reading, until_over
from services.distributed.running import served
from services.distributed.settings import DistributedSettings
from services.http_server import Http, bound, http_config, started
from services.published import Published
from services.sealing_state import MOST_NAMED, NONE_CONFIGURED
from services.stopping import Stop
from services.tile_endpoint import Readiness, build_app


class SealsSeen:
    """What a process tells of seals that asks no witness itself: what it sees in the store, and who asks."""

    def __init__(self, published: Published) -> None:
        self._published = published

    def unconfirmed(self) -> list[str]:
        """Return none: nothing grows by this process, so it need not know which registers may."""
        return []

    def told(self) -> dict[str, Any] | str:
        """Return it for /readyz. Whether each witness answers, only the cosigner knows."""
        policy = self._published.policy
        if policy is None:
            return NONE_CONFIGURED
        waiting = sorted(unsealed(self._published))
        return {
            "asked_by": "the cosigner, not this process",
            "quorum": policy.quorum.root,
            "quorum_met": not waiting,
            "unsealed_registers": len(waiting),
            "unsealed": waiting[:MOST_NAMED],
        }


async def run(settings: DistributedSettings, ready: Callable[[Mapping[str, str]], None]) -> None:
    """Serve until SIGTERM or SIGINT. Raises as `serve` does."""
    await served(settings.grace_seconds, lambda running: serve(settings, ready, running.stop))


async def serve(settings: DistributedSettings, ready: Callable[[Mapping[str, str]], None], stop: Stop) -> None:
    """Serve until a stop is asked for, and then answer what is under way.

    Raises OSError or StoreError where what is needed cannot be reached; SplitViewError.
    """
    registry = CollectorRegistry()
    with bound(settings.http) as listening:
        async with reading(settings, registry) as held:
            counted = ProjectedRegisters(settings.reader_conninfo())
            state = Readiness(held.trouble)
            app = build_app(
                held.view,
                held.published,
                registry,
                state,
                SealsSeen(held.published),
                apart=True,
                counted=counted.shown,
            )
            http = Http(http_config(app, settings))
            serving = asyncio.create_task(http.serve(sockets=[listening]))
            async with ops_endpoint(settings.ops, registry, partial(readiness, held, stop)) as ops:
                await started(http, serving)
                host, port = listening.getsockname()[:2]
                state.ready()
                ready({"http": f"[{host}]:{port}" if ":" in host else f"{host}:{port}", "ops": ops})
                try:
                    await until_over(stop, held.following, serving)
                finally:
                    state.draining()
                    stop.asked.set()
                    http.should_exit = True
                    await asyncio.wait({serving})
                    counted.close()
