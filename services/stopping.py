"""The wish to stop: asked for once, by a signal or by a failure."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass, field


@dataclass(slots=True)
class Stop:
    """Asked for once, by a signal or by a failure; whoever must end early waits for it."""

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    error: BaseException | None = None
    """Why, where a failure has asked for it."""

    def on_signals(self) -> None:
        """Ask for a stop at SIGTERM and SIGINT. A second signal ends the process as usual."""
        loop = asyncio.get_running_loop()

        def ask(number: signal.Signals) -> None:
            loop.remove_signal_handler(number)
            self.asked.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ask, number)
