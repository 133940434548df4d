"""The topics of a distributed ledger, how they must be set, and the check that they are.

The topics are the history, so nothing in them may ever be deleted or compacted, and the number of partitions
never changes: it decides which partition a register has.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code
from aiokafka.protocol.metadata import MetadataRequest

from ledger.errors import LedgerError

SUBMISSIONS: Final = "daybook.submissions"
"""Accepted submissions and ledger-written entries, in the order that is the history; key = register."""

CHECKPOINTS: Final = "daybook.checkpoints"
"""Signed and cosigned checkpoints, as news; key = register."""

REJECTIONS: Final = "daybook.rejections"
"""What became of messages that gave no entry; key = register."""

TOPICS: Final = (SUBMISSIONS, CHECKPOINTS, REJECTIONS)
"""All of them."""

PARTITIONS: Final = 12
"""Partitions of each topic, where nothing else is said."""

MAX_MESSAGE: Final = 4 * 1024 * 1024
"""Bytes that each topic takes in one batch of messages, at least."""

_EXACTLY: Final = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "unclean.leader.election.enable": "false",
}
"""Settings without which a broker would lose history: by age, by size, by compaction, or by a stale leader."""

_MAX_MESSAGE_BYTES: Final = "max.message.bytes"

_IN_SYNC: Final = "min.insync.replicas"

_COPIES: Final = 2
"""Copies that must have a write before it is acknowledged, where there are several."""

_SEEN: Final = 10.0
"""Seconds after which every broker must know of a created topic."""


class TopicsError(LedgerError):
    """Topics are not as the ledger needs them; the message names every one and what is wrong."""


async def create_topics(
    bootstrap: str,
    partitions: int = PARTITIONS,
    replication: int = 1,
    *,
    in_sync: int = 1,
    prefix: str = "",
    tls: ssl.SSLContext | None = None,
) -> list[str]:
    """Create the topics that are missing, check all, and return the names of those created.

    A write is acknowledged when `in_sync` of its `replication` copies have it. A topic that is there is never
    changed: one that is not as it must be raises TopicsError, as in `check_topics`. So does an `in_sync` too
    low for the copies, with nothing created. Raises aiokafka.errors.KafkaError where Kafka cannot be reached or
    refuses.
    """
    if fault := _fault_of_copies(replication, in_sync):
        raise TopicsError(f"nothing was created: {fault} (see the setting min_in_sync)")
    settings = {**_EXACTLY, _MAX_MESSAGE_BYTES: str(MAX_MESSAGE), _IN_SYNC: str(in_sync)}
    async with _admin(bootstrap, tls) as admin:
        created = await _create(admin, _names(prefix), partitions, replication, settings)
        if created:
            await _seen(bootstrap, tls, created)
        await _check(admin, partitions, prefix)
    return created


async def check_topics(
    bootstrap: str,
    partitions: int = PARTITIONS,
    *,
    prefix: str = "",
    tls: ssl.SSLContext | None = None,
) -> None:
    """Check that the topics are there and are set as they must be.

    Raises TopicsError, which names every topic that is missing, has another number of partitions, or could lose
    messages; aiokafka.errors.KafkaError where Kafka cannot be reached.
    """
    async with _admin(bootstrap, tls) as admin:
        await _check(admin, partitions, prefix)


def _names(prefix: str) -> list[str]:
    return [prefix + name for name in TOPICS]


def _reached(bootstrap: str, tls: ssl.SSLContext | None) -> dict[str, Any]:
    return {
        "bootstrap_servers": bootstrap,
        "client_id": "daybook",
        "security_protocol": "SSL" if tls else "PLAINTEXT",
        "ssl_context": tls,
    }


@contextlib.asynccontextmanager
async def _admin(bootstrap: str, tls: ssl.SSLContext | None) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(**_reached(bootstrap, tls))
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()


async def _create(
    admin: AIOKafkaAdminClient,
    names: list[str],
    partitions: int,
    replication: int,
    settings: Mapping[str, str],
) -> list[str]:
    """Create topics; return the names of those that were not there yet. Raises KafkaError."""
    wanted = [NewTopic(name, partitions, replication, topic_configs=dict(settings)) for name in names]
    answer = await admin.create_topics(wanted)
    created = []
    for name, code, message in answer.topic_errors:
        refused = for_code(code)
        if code == 0:
            created.append(name)
        elif refused is not TopicAlreadyExistsError:
            raise refused(f"topic {name}: {message}")
    return created


async def _seen(bootstrap: str, tls: ssl.SSLContext | None, names: list[str]) -> None:
    """Wait until every broker knows of topics that the controller has made; some time at most.

    Any of them may be asked next, by us or by a service that starts. Raises KafkaError where none answers.
    """
    client = AIOKafkaClient(**_reached(bootstrap, tls))
    try:
        await client.bootstrap()
        until = time.monotonic() + _SEEN
        for broker in client.cluster.brokers():
            while time.monotonic() < until:  # nobody tells
                if set(names) <= await _known(client, broker.nodeId):
                    break
                await asyncio.sleep(0.05)
    finally:
        await client.close()


async def _known(client: AIOKafkaClient, broker: int) -> set[str]:
    """Return the topics that a broker knows; none where it does not answer, as one that is started again."""
    try:
        answer = await client.send(broker, MetadataRequest())
    except KafkaError:
        return set()
    return {each["topic"] for each in answer.to_object()["topics"]}


async def _check(admin: AIOKafkaAdminClient, partitions: int, prefix: str) -> None:
    names = _names(prefix)
    there = {each["topic"]: each for each in await admin.describe_topics()}
    found = [name for name in names if name in there]
    wrong = [f"{name} is missing" for name in names if name not in there]
    for name in found:
        count = len(there[name]["partitions"])
        if count != partitions:
            wrong.append(f"{name} has {count} partitions and not {partitions}")
    settings = await _settings(admin, found) if found else {}
    for name in found:
        copies = max((len(each["replicas"]) for each in there[name]["partitions"]), default=1)
        wrong += [f"{name} has {fault}" for fault in _faults(settings[name], copies)]
    if wrong:
        raise TopicsError("; ".join(wrong))


def _faults(settings: Mapping[str, str], copies: int) -> list[str]:
    faults = [
        f"{setting}={settings.get(setting)} and not {value}"
        for setting, value in _EXACTLY.items()
        if settings.get(setting) != value
    ]
    if int(settings[_MAX_MESSAGE_BYTES]) < MAX_MESSAGE:
        faults.append(f"{_MAX_MESSAGE_BYTES}={settings[_MAX_MESSAGE_BYTES]} and not {MAX_MESSAGE} or more")
    # A broker that does not tell of it may have one copy only.
    if fault := _fault_of_copies(copies, int(settings.get(_IN_SYNC, "1"))):
        faults.append(fault)
    return faults


def _fault_of_copies(copies: int, in_sync: int) -> str | None:
    # Acknowledged by one broker alone, a write is lost with it, whatever the others have.
    if copies == 1 or in_sync >= _COPIES:
        return None
    return f"{_IN_SYNC}={in_sync} and not {_COPIES} or more, with {copies} copies"


async def _settings(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, dict[str, str]]:
    """Return what the broker says of each topic, with its defaults. Raises KafkaError."""
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    found = {}
    for answer in await admin.describe_configs(resources):
        for code, message, _, name, entries in answer.resources:
            if code:
                error: type[KafkaError] = for_code(code)
                raise error(f"topic {name}: {message}")
            found[name] = {entry[0]: entry[1] for entry in entries}
    return found
