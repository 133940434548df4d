"""Producers and consumers of the distributed services, made in one way: what each must never do is set here."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from services.distributed.settings import DistributedSettings
from services.settings import SettingsError

MAX_MESSAGE: Final = 4 * 1024 * 1024
"""Bytes of the largest message (docs/formats.md, section 18)."""

_LINGER: Final = 0
"""Milliseconds that a producer waits for more: what arrives while one request is under way shares the next."""

_BATCH: Final = 1024 * 1024
"""Bytes of messages that share a request and its compression: several, also of large submissions."""

_FETCH_WAIT: Final = 500
"""Milliseconds of a fetch that finds nothing; a broker answers with the first byte."""


def tls(settings: DistributedSettings) -> ssl.SSLContext | None:
    """Return how brokers are reached with TLS, which is then the only way; None where that is not asked for.

    Raises SettingsError for files that cannot be used.
    """
    if settings.kafka_ca is None:
        return None
    try:
        context = ssl.create_default_context(cafile=str(settings.kafka_ca))
    except OSError as error:
        raise SettingsError(
            f"kafka_ca: {settings.kafka_ca} {_why(error, 'holds no PEM certificates')}"
        ) from error
    if settings.kafka_certificate is not None:
        try:
            # An encrypted key would be asked for on the terminal.
            context.load_cert_chain(settings.kafka_certificate, settings.kafka_key, password="")
        except OSError as error:
            files = f"{settings.kafka_certificate} and {settings.kafka_key}"
            why = _why(error, "are not a PEM certificate and its private key, unencrypted")
            raise SettingsError(f"kafka_certificate and kafka_key: {files} {why}") from error
    return context


def _why(error: OSError, unusable: str) -> str:
    return unusable if isinstance(error, ssl.SSLError) else f"cannot be read: {error.strerror or error}"


def security(settings: DistributedSettings) -> dict[str, Any]:
    """Return what every client is told of the brokers. Raises SettingsError as `tls` does."""
    context = tls(settings)
    told: dict[str, Any] = {"bootstrap_servers": settings.kafka}
    return told if context is None else {**told, "security_protocol": "SSL", "ssl_context": context}


def producer(settings: DistributedSettings) -> AIOKafkaProducer:
    """Return an idempotent producer that is told of a message only when every in-sync copy has it."""
    return AIOKafkaProducer(
        **security(settings),
        enable_idempotence=True,
        acks="all",
        linger_ms=_LINGER,
        max_batch_size=_BATCH,
        max_request_size=MAX_MESSAGE,
        compression_type="lz4",
    )


async def stopped(consumer: AIOKafkaConsumer) -> None:
    """Stop a consumer.

    Where the brokers are away aiokafka lets the cancellation of its own fetches out, as if it were ours.
    """
    stopping = asyncio.ensure_future(consumer.stop())
    await asyncio.wait({stopping})
    if not stopping.cancelled():
        stopping.result()


def reader(settings: DistributedSettings) -> AIOKafkaConsumer:
    """Return a consumer without a group, to be assigned partitions by hand: it commits nothing."""
    return AIOKafkaConsumer(
        **security(settings),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        fetch_max_wait_ms=_FETCH_WAIT,
        max_partition_fetch_bytes=MAX_MESSAGE,
        fetch_max_bytes=4 * MAX_MESSAGE,
    )
