"""Channels to a ledger: with TLS, or without it on this computer itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import grpc
import grpc.aio

OPTIONS: Final = (
    ("grpc.enable_retries", 0),  # one retry owner: retrying.py
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.max_receive_message_length", 8 * 1024 * 1024),
)
"""How a channel to a ledger is opened."""

_LOOPBACK: Final = ("127.", "localhost:", "[::1]:")


@dataclass(frozen=True, slots=True)
class Tls:
    """What TLS needs, PEM. `issuers` of the server's certificate: None takes those that the system trusts.

    `certificate` and `key` are the department's own, where the ledger asks who calls. They protect the
    connection only: what is believed is decided by the policy file, what may be written by the signature.
    """

    issuers: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = None


def channel_options(address: str) -> tuple[tuple[str, int], ...]:
    """Return the options of a channel to ``host:port``: a proxy never stands before this computer itself."""
    return (*OPTIONS, ("grpc.enable_http_proxy", 0)) if address.startswith(_LOOPBACK) else OPTIONS


def open_channel(address: str, tls: Tls | None) -> grpc.aio.Channel:
    """Return a channel to ``host:port``, not yet connected: with `tls`, or without TLS where it is None."""
    options = channel_options(address)
    if tls is None:
        return grpc.aio.insecure_channel(address, options=options)
    credentials = grpc.ssl_channel_credentials(tls.issuers, tls.key, tls.certificate)
    return grpc.aio.secure_channel(address, credentials, options=options)
