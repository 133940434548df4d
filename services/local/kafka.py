"""One real Apache Kafka broker on this machine: one node in KRaft mode, which may be killed and started again.

It listens on the loopback, without passwords, and with TLS where it is asked to: for trials and tests. A
message that it acknowledged outlives a SIGKILL of the broker, because it is in the page cache; it outlives a
power cut only where `durable` is set.
"""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from services.local.kafka_jars import KafkaMissingError, find_java, kafka_jars
from services.local.ports import free_port
from services.local.tls import ServerTls

__all__ = ["Kafka", "KafkaMissingError", "KafkaNotStartedError", "has_brokers", "kafka"]

MAX_MESSAGE: Final = 4 * 1024 * 1024
"""Bytes of the largest batch of messages."""

_UP: Final = 60.0
"""Seconds that the broker may take to answer."""

_DOWN: Final = 30.0
"""Seconds that it may take to stop in order."""

_JVM: Final = (
    "-Xms128m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    # It lives for minutes: to compile what it does a second time, and better, costs a core for most of them.
    "-XX:TieredStopAtLevel=1",
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
)


class KafkaNotStartedError(Exception):
    """The broker ended, or did not answer in time; the message has the last lines of its log."""


class Kafka:
    """A broker with its data below one folder. Its ports stay the same over every stop and start.

    With `tls` it listens for nothing else. Clients are sent on to `name`, by which it is known to them.
    """

    def __init__(self, folder: Path, *, durable: bool = False, tls: ServerTls | None = None) -> None:
        self.folder = folder
        self.name = "127.0.0.1"
        java = find_java()
        self._java = java.command
        self._jars = kafka_jars()
        self._classes = self._jars.with_name(f"{self._jars.name}-java-{java.version}.jsa")
        self._durable = durable
        self._tls = tls
        self._port = free_port()
        self._controller_port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """Where it listens: HOST:PORT, for clients."""
        return f"127.0.0.1:{self._port}"

    @property
    def log(self) -> Path:
        """What it says about itself; written on at each start."""
        return self.folder / "broker.log"

    @property
    def pid(self) -> int:
        """The id of the broker's process. Raises RuntimeError where none runs."""
        if self._process is None:
            raise RuntimeError("Kafka does not run")
        return self._process.pid

    def start(self) -> None:
        """Start the broker, on the data that is there, and wait until it answers. It must not run yet.

        Raises KafkaNotStartedError.
        """
        if self._process is not None:
            raise RuntimeError("Kafka runs already")
        self.folder.mkdir(parents=True, exist_ok=True)
        begin = self.log.stat().st_size if self.log.exists() else 0
        self._new_classes.unlink(missing_ok=True)
        self._properties.write_text(self._settings(), encoding="utf-8")
        if not (self._data / "meta.properties").exists():
            self._format()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the Java that was found
                [
                    self._java,
                    *_JVM,
                    self._class_archive(),
                    "-cp",
                    self._jars / "*",
                    "kafka.Kafka",
                    self._properties,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                # An interrupt from the terminal is for who started it, and who stops it in order.
                start_new_session=True,
            )
        try:
            self._wait_until_it_answers(self._process, begin)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Stop it in order (SIGTERM), and wait; with SIGKILL if that takes too long. Nothing if none runs."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_DOWN)
            self._keep_class_archive()
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """End it with SIGKILL: nothing of it runs any more on return. Nothing if none runs."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._process = None

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    @property
    def _new_classes(self) -> Path:
        return self.folder / "classes.jsa"

    def _class_archive(self) -> str:
        """Return the option for Java's archive of parsed classes, with which a broker starts in half the time.

        The first broker that is stopped in order writes it; Java starts without one that does not fit.
        """
        if self._classes.exists():
            return f"-XX:SharedArchiveFile={self._classes}"
        return f"-XX:ArchiveClassesAtExit={self._new_classes}"

    def _keep_class_archive(self) -> None:
        """Move a new archive to the jars, for every broker after this one."""
        if not self._new_classes.exists():
            return
        with tempfile.TemporaryDirectory(dir=self._classes.parent) as name:
            # Perhaps from another file system. Only a whole archive has the name that others look for.
            copy = shutil.copy(self._new_classes, name)
            Path(copy).replace(self._classes)
        self._new_classes.unlink()

    def _settings(self) -> str:
        listener = "PLAINTEXT" if self._tls is None else "SSL"
        settings: dict[str, str | int | Path] = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller_port}",
            "listeners": f"{listener}://{self.bootstrap},CONTROLLER://127.0.0.1:{self._controller_port}",
            "advertised.listeners": f"{listener}://{self.name}:{self._port}",
            "listener.security.protocol.map": f"{listener}:{listener},CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": listener,
            "log.dirs": self._data,
            "auto.create.topics.enable": "false",
            "message.max.bytes": MAX_MESSAGE,
            "replica.fetch.max.bytes": MAX_MESSAGE,
            # One node holds the only copy of everything.
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            # The defaults, of 50, make a first start slow.
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.num.partitions": 4,
            "share.coordinator.state.topic.num.partitions": 4,
            # After a SIGKILL the broker is let in again when its former self has been silent for so long.
            "broker.session.timeout.ms": 3000,
            "broker.heartbeat.interval.ms": 500,
            # A group starts with its first member, and notices a killed one soon.
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 2000,
            "num.network.threads": 2,
            "num.io.threads": 4,
        }
        if self._durable:
            settings["log.flush.interval.messages"] = 1
        if self._tls is not None:
            settings |= self._tls_settings(self._tls)
        return "".join(f"{name}={value}\n" for name, value in settings.items())

    def _tls_settings(self, tls: ServerTls) -> dict[str, str | int | Path]:
        # Kafka takes a key and its certificate as one PEM file.
        pair = self.folder / "broker.pem"
        pair.touch(mode=0o600)
        pair.write_bytes(tls.key.read_bytes() + tls.certificate.read_bytes())
        return {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": pair,
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": tls.issuer,
            "ssl.client.auth": "required" if tls.demands_certificates else "none",
        }

    def _format(self) -> None:
        cluster = base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=")
        tool = ["kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", f"--config={self._properties}"]
        with self.log.open("ab") as log:
            done = subprocess.run(  # noqa: S603 - the Java that was found
                [self._java, "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", self._jars / "*", *tool],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=False,
            )
        if done.returncode:
            raise KafkaNotStartedError(f"its storage could not be formatted:\n{self._tail(0)}")

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes], begin: int) -> None:
        until = time.monotonic() + _UP
        tls = self._tls.asking() if self._tls is not None else None
        while not has_brokers(self._port, tls):
            if process.poll() is not None:
                raise KafkaNotStartedError(
                    f"Kafka ended with status {process.returncode}:\n{self._tail(begin)}"
                )
            if time.monotonic() > until:
                raise KafkaNotStartedError(f"Kafka did not answer within {_UP:.0f} s:\n{self._tail(begin)}")
            time.sleep(0.05)

    def _tail(self, begin: int) -> str:
        lines = self.log.read_bytes()[begin:].decode("utf-8", "replace").splitlines()
        return "\n".join(lines[-30:])


@contextlib.contextmanager
def kafka(folder: Path, *, durable: bool = False, tls: ServerTls | None = None) -> Iterator[Kafka]:
    """Run a broker with its data below `folder`; stop it at the end, if it still runs, and leave the data.

    `durable` writes each message to the disk before it is acknowledged. Raises KafkaMissingError where Java,
    or Maven on the first time, is missing; KafkaNotStartedError where the broker does not come up.
    """
    broker = Kafka(folder, durable=durable, tls=tls)
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


_METADATA_OF_ALL: Final = struct.pack(">hhih7si", 3, 1, 1, 7, b"daybook", -1)
"""A Metadata request, version 1: key, version, correlation id, client id, and no list of topics for all."""


def has_brokers(port: int, tls: ssl.SSLContext | None = None) -> bool:
    """Say whether the broker names itself: it does so when it takes requests, and listens long before."""
    try:
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=2))
            if tls is not None:
                connection = stack.enter_context(tls.wrap_socket(connection))
            connection.sendall(struct.pack(">i", len(_METADATA_OF_ALL)) + _METADATA_OF_ALL)
            with connection.makefile("rb") as answer:
                size, correlation, brokers = struct.unpack(">iii", answer.read(12))
    except (OSError, struct.error):
        return False
    return bool(size >= 12 and correlation == 1 and brokers > 0)
