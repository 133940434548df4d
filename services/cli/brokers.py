"""What commands that need Kafka say when they cannot go on with it: why, in one line."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from services.cli.reporting import UnreachableError
from services.distributed.settings import DistributedSettings


class _Attempts(logging.Handler):
    """Keeps why the client's last attempt to connect has failed: its errors do not say it."""

    why = ""

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage()
        if said.startswith("Unable connect"):
            self.why = said


@contextmanager
def reaching_kafka(settings: DistributedSettings) -> Iterator[None]:
    """Run what talks to Kafka. Raises UnreachableError where that failed, and brokers cannot be reached."""
    # Loaded here: who only asks for help does not wait for it.
    from aiokafka.errors import KafkaError

    from services.distributed.unreachable import why_unreachable

    attempts = _Attempts(logging.WARNING)
    # Without a log, what the client writes of each attempt would be printed as well.
    log = logging.getLogger("aiokafka")
    log.addHandler(attempts)
    try:
        yield
    except (KafkaError, ConnectionError) as error:
        # Subclasses of ConnectionError are of other connections.
        if not isinstance(error, KafkaError) and type(error) is not ConnectionError:
            raise
        why = why_unreachable(settings)
        if why is not None:
            raise UnreachableError(f"Kafka cannot be reached: {why}", "KAFKA_UNREACHABLE") from error
        if attempts.why:
            # A broker answered, and named others, or itself by another name.
            raise UnreachableError(f"Kafka answers, but: {attempts.why}", "KAFKA_UNREACHABLE") from error
        if isinstance(error, KafkaError):
            raise UnreachableError(f"Kafka: {error}", "KAFKA_UNREACHABLE") from error
        raise
    finally:
        log.removeHandler(attempts)
