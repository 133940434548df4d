"""One real PostgreSQL on this machine, which may be killed and started again: for trials and tests.

It listens on the loopback, wants a password (SCRAM), has no Unix socket, and syncs every commit to the disk.
With TLS it lets nobody in without.
PostgreSQL refuses to run as root; started by root it runs as the user postgres, or else as nobody.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import secrets
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NotRequired, TypedDict
from urllib.parse import quote, urlencode

import psycopg
from psycopg import sql

from services.local.ports import free_port
from services.local.tls import ServerTls

SUPERUSER: Final = "postgres"
"""The role that may do everything."""

OLDEST_POSTGRES: Final = 15
"""The oldest PostgreSQL that is taken."""

_UP: Final = 60.0
"""Seconds that the server may take to answer, with the recovery after a crash."""

_DOWN: Final = 30.0
"""Seconds that it may take to stop, or to be gone after a SIGKILL."""

_SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "max_connections": "100",
    "shared_buffers": "64MB",
}


class PostgresMissingError(Exception):
    """PostgreSQL cannot be had here; the message says what to install."""


class PostgresNotStartedError(Exception):
    """The server ended, or did not answer in time; the message has the last lines of its log."""


class _As(TypedDict):
    """Who runs a program, as subprocess takes it."""

    user: NotRequired[int]
    group: NotRequired[int]
    extra_groups: NotRequired[list[int]]


@dataclass(frozen=True, slots=True)
class _Owner:
    """The user that PostgreSQL runs as, and whom its files belong to."""

    uid: int
    gid: int

    def run_as(self) -> _As:
        if self.uid == os.geteuid():
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def take(self, path: Path) -> None:
        """Make the file or folder, with all that is in it, belong to this user. Only root can, or must."""
        if self.uid == os.geteuid():
            return
        for each in (path, *path.rglob("*")):
            os.chown(each, self.uid, self.gid, follow_symlinks=False)

    def reaches(self, folder: Path) -> bool:
        """Say whether this user may pass through every folder above, as far as they are there yet."""
        for above in folder.resolve().parents:
            if not above.exists():
                continue
            status = above.stat()
            bit = 0o100 if status.st_uid == self.uid else 0o010 if status.st_gid == self.gid else 0o001
            if not status.st_mode & bit:
                return False
        return True


class Postgres:
    """A server with its data in one folder. Its port and password stay the same over every stop and start."""

    def __init__(self, folder: Path, *, tls: ServerTls | None = None) -> None:
        self.folder = folder
        self._tls = tls
        self._programs = _find_programs()
        self._owner = _owner()
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._alive = -1

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        return self._port

    @property
    def data(self) -> Path:
        """Its data folder."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """What it says about itself; written on at each start."""
        return self.folder / "postgres.log"

    @property
    def pid(self) -> int:
        """The id of the postmaster. Raises RuntimeError where none runs."""
        if self._process is None:
            raise RuntimeError("PostgreSQL does not run")
        return self._process.pid

    @property
    def password(self) -> str:
        """The superuser's password."""
        return self._password_file.read_text(encoding="utf-8")

    @property
    def superuser_dsn(self) -> str:
        """The superuser's connection to the database postgres."""
        return self.dsn("postgres")

    def dsn(self, database: str = "daybook", user: str = SUPERUSER, password: str | None = None) -> str:
        """Return a connection URI; without a password it has the superuser's."""
        secret = quote(self.password if password is None else password, safe="")
        where = (
            f"postgresql://{quote(user, safe='')}:{secret}@127.0.0.1:{self._port}/{quote(database, safe='')}"
        )
        if self._tls is None:
            return where
        shown = {"sslmode": "verify-full", "sslrootcert": str(self._tls.issuer)}
        if self._tls.demands_certificates:
            shown |= {"sslcert": str(self._tls.certificate), "sslkey": str(self._tls.key)}
        return f"{where}?{urlencode(shown, quote_via=quote)}"

    def create_database(self, name: str) -> None:
        """Create an empty database. Raises psycopg.errors.DuplicateDatabase."""
        create_database(self.superuser_dsn, name)

    def start(self) -> None:
        """Start the server, on the data that is there, and wait until it answers. It must not run yet.

        Raises PostgresNotStartedError.
        """
        if self._process is not None:
            raise RuntimeError("PostgreSQL runs already")
        if not (self.data / "PG_VERSION").exists():
            self._initialise()
        begin = self.log.stat().st_size
        settings = [f"-c{name}={value}" for name, value in {**_SETTINGS, **self._tls_settings()}.items()]
        # Every process of the server inherits the pipe's end: it closes when the last one is gone.
        self._alive, inherited = os.pipe()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the program that was found
                [self._programs / "postgres", "-D", self.data, "-p", str(self._port), *settings],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.data,
                pass_fds=(inherited,),
                # An interrupt from the terminal is for who started it, and who stops it in order.
                start_new_session=True,
                **self._owner.run_as(),
            )
        os.close(inherited)
        try:
            self._wait_until_it_answers(self._process, begin)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Stop it in order, ending every connection (SIGINT, a "fast" shutdown). Nothing if none runs."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(_DOWN)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._wait_until_gone(self._process)

    def kill(self) -> None:
        """End the postmaster with SIGKILL: nothing of the server runs on return. Nothing if none runs."""
        if self._process is None:
            return
        self._process.kill()
        self._wait_until_gone(self._process)

    def backup(self, to: Path) -> None:
        """Copy the data into the folder `to`, which is not there yet. The server must be stopped."""
        self._require_stopped()
        shutil.copytree(self.data, to, symlinks=True)

    def restore(self, backup: Path) -> None:
        """Put a backup in the place of the data. The server must be stopped."""
        self._require_stopped()
        shutil.rmtree(self.data)
        shutil.copytree(backup, self.data, symlinks=True)
        self._owner.take(self.data)

    @property
    def _password_file(self) -> Path:
        return self.folder / "password"

    def _require_stopped(self) -> None:
        if self._process is not None:
            raise RuntimeError("a copy of the data of a running PostgreSQL would be of no use: stop it first")

    def _initialise(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data.mkdir(mode=0o700, exist_ok=True)
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(secrets.token_urlsafe(24), encoding="utf-8")
        self._owner.take(self.data)
        self._owner.take(self._password_file)
        with self.log.open("ab") as log:
            done = subprocess.run(  # noqa: S603 - the program that was found
                [
                    self._programs / "initdb",
                    f"--pgdata={self.data}",
                    f"--username={SUPERUSER}",
                    f"--pwfile={self._password_file}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    "--locale=C",
                    "--data-checksums",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.data,
                check=False,
                **self._owner.run_as(),
            )
        if done.returncode:
            raise PostgresNotStartedError(f"initdb failed:\n{self._tail(0)}")

    def _tls_settings(self) -> dict[str, str]:
        """Return the settings for TLS, and put what they name where the server's user can read it."""
        if self._tls is None:
            return {}
        demanded = " clientcert=verify-ca" if self._tls.demands_certificates else ""
        files = {
            "ssl_ca_file": ("issuer.pem", self._tls.issuer.read_bytes()),
            "ssl_cert_file": ("server.pem", self._tls.certificate.read_bytes()),
            "ssl_key_file": ("server.key", self._tls.key.read_bytes()),
            "hba_file": ("tls.conf", f"hostssl all all 127.0.0.1/32 scram-sha-256{demanded}\n".encode()),
        }
        for name, content in files.values():
            path = self.data / name
            path.touch(mode=0o600)
            path.write_bytes(content)
            self._owner.take(path)
        return {"ssl": "on", **{setting: str(self.data / name) for setting, (name, _) in files.items()}}

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes], begin: int) -> None:
        until = time.monotonic() + _UP
        while True:
            try:
                psycopg.connect(self.superuser_dsn, connect_timeout=5).close()
            except psycopg.OperationalError as error:
                said = str(error)
            else:
                return
            if process.poll() is not None:
                raise PostgresNotStartedError(
                    f"PostgreSQL ended with status {process.returncode}:\n{self._tail(begin)}"
                )
            if time.monotonic() > until:
                raise PostgresNotStartedError(
                    f"PostgreSQL did not answer within {_UP:.0f} s: {said}\n{self._tail(begin)}"
                )
            time.sleep(0.02)

    def _wait_until_gone(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for the postmaster and for its children, which see its end a moment later.

        Before that the next postmaster would find their shared memory in use, and refuse to start.
        """
        process.wait()
        gone, _, _ = select.select([self._alive], [], [], _DOWN)
        if not gone:
            raise RuntimeError(f"processes of PostgreSQL outlived the postmaster {process.pid}")
        os.close(self._alive)
        self._process = None

    def _tail(self, begin: int) -> str:
        lines = self.log.read_bytes()[begin:].decode("utf-8", "replace").splitlines()
        return "\n".join(lines[-30:])


@contextlib.contextmanager
def postgres(folder: Path, *, tls: ServerTls | None = None) -> Iterator[Postgres]:
    """Run a server with its data below `folder`; stop it at the end, if it still runs, and leave the data.

    Where root starts it in a folder that an ordinary user cannot reach, the data is in a temporary one instead
    (see `Postgres.folder`) and is gone at the end. Raises PostgresMissingError where PostgreSQL is missing;
    PostgresNotStartedError where the server does not come up.
    """
    with contextlib.ExitStack() as stack:
        if not _owner().reaches(folder / "data"):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="daybook-postgres-")))
            folder.chmod(0o711)
        server = Postgres(folder, tls=tls)
        stack.callback(server.stop)
        server.start()
        yield server


def create_database(superuser_dsn: str, name: str) -> None:
    """Create an empty database. Raises psycopg.errors.DuplicateDatabase."""
    with psycopg.connect(superuser_dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


def drop_database(superuser_dsn: str, name: str) -> None:
    """Drop a database, ending every connection to it; nothing where there is none."""
    with psycopg.connect(superuser_dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _owner() -> _Owner:
    if os.geteuid() != 0:
        return _Owner(os.geteuid(), os.getegid())
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return _Owner(entry.pw_uid, entry.pw_gid)
    raise PostgresMissingError("PostgreSQL does not run as root, and there is no user postgres or nobody")


def _find_programs() -> Path:
    """Return the folder of the newest PostgreSQL: of PATH first, else of where distributions put it."""
    found = [Path(program).resolve().parent for program in [shutil.which("postgres")] if program]
    for pattern in ("lib/postgresql/*/bin", "pgsql-*/bin", "libexec/postgresql*"):
        found += sorted(Path("/usr").glob(pattern), key=_version, reverse=True)
    for folder in found:
        if (folder / "initdb").exists() and _version(folder) >= OLDEST_POSTGRES:
            return folder
    raise PostgresMissingError(
        f"a local PostgreSQL {OLDEST_POSTGRES} or later is not here. Install it: apt-get install postgresql"
    )


def _version(folder: Path) -> int:
    """Return the major version of the PostgreSQL in a folder of programs, 0 where there is none."""
    try:
        said = subprocess.run(  # noqa: S603 - the program that was found
            [folder / "postgres", "--version"], capture_output=True, text=True, check=False
        ).stdout
    except OSError:
        return 0
    major = re.search(r"\) (\d+)", said)
    return int(major[1]) if major else 0
