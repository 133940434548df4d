"""A free port that is still free when a server comes back after a crash."""

from __future__ import annotations

import random
import socket
from typing import Final

_RANGE: Final = range(20_000, 32_768)
"""Below the ports that Linux gives to outgoing connections: none of them takes one between kill and start."""


def free_port() -> int:
    """Return a port of 127.0.0.1 at which nobody listens. Raises OSError where hundreds are taken."""
    for port in random.sample(_RANGE, 500):
        with socket.socket() as attempt:
            # As servers do, so that one whose last connections linger counts as free.
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                attempt.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no free port on 127.0.0.1")
