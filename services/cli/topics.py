"""`daybook topics`: the Kafka topics of a distributed ledger, created or checked."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import Annotated

import typer
from aiokafka.errors import KafkaError

from ledger.errors import StoreError
from ledger.event_log import SUBMISSIONS
from ledger.stores.postgres import NotMigratedError, PostgresStore
from services.cli.brokers import reaching_kafka
from services.cli.reporting import IntegrityError, JsonOption, expected_failures, report
from services.distributed.kafka_clients import tls
from services.distributed.settings import DistributedSettings, distributed_settings
from services.distributed.topics import TOPICS, TopicsError, check_topics, create_topics


def run(
    check: Annotated[bool, typer.Option("--check", help="Create nothing: only say what is wrong.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Create the topics of a distributed ledger, or check that they are as they must be.

    The history is in them for ever: nothing in them may be deleted by age or size, or compacted, and the number
    of their partitions never changes. It is kept in the database as well, where that was migrated; services do
    not start with another. A topic that is there is never changed. DAYBOOK_KAFKA,
    DAYBOOK_TOPIC_PREFIX, DAYBOOK_PARTITIONS, DAYBOOK_REPLICATION and DAYBOOK_MIN_IN_SYNC say where and how.
    Exit status 1 where a topic is missing or could lose messages, each named; 3 where Kafka or the database
    cannot be reached. Example:

        DAYBOOK_REPLICATION=3 DAYBOOK_MIN_IN_SYNC=2 daybook topics
    """
    with expected_failures(as_json=as_json):
        settings = distributed_settings()
        fixed: int | None = None
        unasked: StoreError | None = None
        try:
            fixed = _in_database(settings)
        except StoreError as error:
            unasked = error
        if fixed is not None and fixed != settings.partitions:
            raise IntegrityError(
                f"the database belongs to topics of {fixed} partitions, not {settings.partitions}: that never "
                "changes",
                "PARTITIONS_DIFFER",
            )
        with reaching_kafka(settings):
            created = asyncio.run(_topics(settings, check=check))
        said: str | None = None
        if isinstance(unasked, NotMigratedError):
            said = f"The number of partitions is not in the database yet: {unasked}, then daybook topics again"
        elif unasked is not None:
            done = f"Created {', '.join(created)}. " if created else ""
            raise StoreError(
                f"{done}The topics are as they must be, but the database could not be asked for the number of "
                f"their partitions: {unasked}"
            ) from unasked
        elif fixed is None and not check:
            _fix(settings)
            said = f"The database will take no other number than {settings.partitions} partitions."
        lines = [f"Created {name}." for name in created]
        lines.append(
            f"{len(TOPICS)} topics of {settings.partitions} partitions are as they must be: nothing in them is "
            "ever deleted."
        )
        told = {
            "created": created,
            "database": said or f"has {fixed or 'no'} partitions",
            "partitions": settings.partitions,
            "topics": [settings.topic_prefix + name for name in TOPICS],
        }
        report(told, [*lines, *([said] if said else [])], as_json=as_json)


async def _topics(settings: DistributedSettings, *, check: bool) -> list[str]:
    context = tls(settings)
    try:
        if check:
            await check_topics(settings.kafka, settings.partitions, prefix=settings.topic_prefix, tls=context)
            return []
        return await create_topics(
            settings.kafka,
            settings.partitions,
            settings.replication,
            in_sync=settings.min_in_sync,
            prefix=settings.topic_prefix,
            tls=context,
        )
    except TopicsError as error:
        raise IntegrityError(str(error), "TOPICS_WRONG") from error
    except KafkaError as error:
        raise ConnectionError(f"Kafka: {error}") from error


def _in_database(settings: DistributedSettings) -> int | None:
    """Return the number of partitions that the database has. Raises StoreError, or NotMigratedError."""
    with closing(PostgresStore(settings.conninfo(), read_only=True)) as store:
        return store.partitions(SUBMISSIONS)


def _fix(settings: DistributedSettings) -> None:
    with closing(PostgresStore(settings.conninfo())) as store:
        store.fix_partitions(SUBMISSIONS, settings.partitions)
