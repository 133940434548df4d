"""Settings of the distributed services: from the environment (DAYBOOK_…), else from a file, else the defaults.

The file is TOML, named by DAYBOOK_CONFIG, with the same names in lower case and without the prefix. A secret
is never a value: each is the path of a file that holds it. A name that no setting has is refused in both.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from ledger.values import is_ledger_origin
from services.settings import Seconds, SettingsError, WitnessSettings, is_loopback, split_address

CONFIG: Final = "DAYBOOK_CONFIG"
"""The variable that names the file of settings."""

_PREFIX: Final = "DAYBOOK_"

_OTHERS: Final = re.compile(r"DAYBOOK_(CONFIG|CACHE|CLIENT_.*|TEST_.*)")
"""Variables that are no settings of services: the file's name, and those of clients, local brokers, tests."""

REDACTED: Final = "(redacted)"

_PASSWORD: Final = re.compile(r"(password\s*=\s*)('[^']*'|\S+)|(?<=:)[^:@/]+(?=@)")

Count = Annotated[int, Field(gt=0)]


class DistributedSettings(WitnessSettings):
    """Of every service of the distributed mode, and of the commands that prepare for it."""

    model_config = SettingsConfigDict(env_prefix="DAYBOOK_", frozen=True, extra="forbid")

    origin: str
    """The ledger's origin, as in every checkpoint."""

    kafka: str
    """HOST:PORT of brokers, with commas between."""

    kafka_ca: Path | None = None
    """PEM certificates of those who issue the brokers' certificates; with it the connection is TLS."""

    kafka_certificate: Path | None = None
    """PEM certificate of this service, where brokers ask who calls."""

    kafka_key: Path | None = None
    """PEM private key of the certificate."""

    topic_prefix: str = ""
    """What the names of topics and consumer groups begin with: one cluster may hold several ledgers."""

    partitions: Count = 12
    """Partitions of `daybook.submissions` and `daybook.checkpoints`: fixed for ever when they are created."""

    replication: Count = 1
    """Copies that brokers keep of each topic, at its creation; 3 in production."""

    min_in_sync: Count = 1
    """Copies without which nothing is acknowledged, at a topic's creation; 2 in production."""

    database: str
    """PostgreSQL, as a connection string without a password: that is read from `database_password_file`."""

    database_password_file: Path | None = None
    """A file that holds the password of the database's user, on one line."""

    database_role: str = "daybook_app"
    """The role that may append and never change: `daybook migrate` makes it, services that write take it."""

    database_reader: str = "daybook_reader"
    """The role that may only read: `daybook migrate` makes it, services that only read take it."""

    log_key: Path | None = None
    """The log key's file: of the signer alone."""

    acknowledgement_key: Path | None = None
    """The file of the key that signs acknowledgements: of registration alone."""

    signer: str = "127.0.0.1:7075"
    """HOST:PORT of the signer: where it listens, and where the sequencer and the cosigner find it."""

    signer_marks: Path | None = None
    """The signer's high-water marks, a file on a disk that keeps what it is given: of the signer alone."""

    grpc: str = "127.0.0.1:7070"
    """HOST:PORT of gRPC, for registration and audit; port 0 takes any free one."""

    http: str = "127.0.0.1:7071"
    """HOST:PORT of HTTP, for tiles; port 0 takes any free one."""

    ops: str = "127.0.0.1:0"
    """HOST:PORT of every service's /healthz, /readyz and /metrics."""

    tls_certificate: Path | None = None
    """PEM certificate chain of this service; without it only loopback addresses are bound."""

    tls_key: Path | None = None
    """PEM private key of the certificate."""

    client_ca: Path | None = None
    """PEM certificates of those who issue client certificates; with it, gRPC demands one of every caller."""

    grace_seconds: float = 10.0
    """Seconds within which a service ends that is told to stop; calls under way have six tenths of it."""

    anchor_seconds: Seconds = 300.0
    """Seconds between two anchors of a register that changes."""

    in_flight_bytes: Count = 64 * 1024 * 1024
    """Bytes of submissions that may be on their way to Kafka; beyond it registration answers OVERLOADED."""

    view_seconds: Seconds = 30.0
    """Age of its view of the governing register beyond which registration accepts nothing."""

    session_seconds: Seconds = 6.0
    """Seconds without a sign of life after which Kafka gives a service's partitions to another."""

    stall_seconds: Seconds = 60.0
    """Seconds without progress, with work waiting, after which a service ends itself to be started anew."""

    detections: Path | None = None
    """The file in which detections remember what they saw, else a temporary one: of the projector alone."""

    declared_witnesses: Path | None = None
    """The file of witnesses that the operator has declared restored: of the cosigner alone."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the names are fixed
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let options come before the environment, and that before the file."""
        return init_settings, env_settings, _FileSource(settings_cls)

    @field_validator("origin")
    @classmethod
    def _is_origin(cls, value: str) -> str:
        if not is_ledger_origin(value):
            raise ValueError(f"{value!r} is no ledger origin")
        return value

    @field_validator("kafka")
    @classmethod
    def _are_addresses(cls, value: str) -> str:
        for address in value.split(",") if value else ():
            split_address(address.strip())
        return value

    @field_validator("database")
    @classmethod
    def _is_without_password(cls, value: str) -> str:
        from psycopg import ProgrammingError
        from psycopg.conninfo import conninfo_to_dict

        secret = "the database's password belongs in a file: set database_password_file"  # noqa: S105 - none
        if _PASSWORD.search(value):
            raise ValueError(secret)
        try:
            given = conninfo_to_dict(value)
        except ProgrammingError:
            given = None
        # A password that is not escaped may be taken for a port. What PostgreSQL's library says repeats a part.
        if given is None or not re.fullmatch("[0-9,]*", str(given.get("port", ""))):
            raise ValueError("neither a connection URI nor key=value pairs of PostgreSQL")
        if given.keys() & {"password", "sslpassword"}:
            raise ValueError(secret)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> DistributedSettings:
        for name, address in (("grpc", self.grpc), ("http", self.http), ("signer", self.signer)):
            host, _ = split_address(address)
            if self.tls_certificate is None and not is_loopback(host):
                raise ValueError(
                    f"{name}: without TLS only a loopback address may be used, not {host!r}; "
                    "give a certificate and key, or use 127.0.0.1"
                )
        split_address(self.ops)
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("a TLS certificate and its key go together")
        if self.client_ca is not None and self.tls_certificate is None:
            raise ValueError("client certificates need TLS: give a certificate and key as well")
        if (self.kafka_certificate is None) != (self.kafka_key is None):
            raise ValueError("kafka_certificate and kafka_key go together")
        if self.kafka_certificate is not None and self.kafka_ca is None:
            raise ValueError("kafka_certificate needs TLS: give kafka_ca as well")
        return self

    def conninfo(self) -> str:
        """Return the connection string of a service, which takes `database_role`. Raises SettingsError."""
        return self._with(options=f"-c role={self.database_role}")

    def reader_conninfo(self) -> str:
        """Return the connection string of a service that only reads, which takes `database_reader`."""
        return self._with(options=f"-c role={self.database_reader}")

    def owner_conninfo(self) -> str:
        """Return the connection string of who makes the tables and the roles: as it was given."""
        return self._with()

    def _with(self, **more: str) -> str:
        from psycopg.conninfo import make_conninfo

        if self.database_password_file is not None:
            more["password"] = read_secret(self.database_password_file, "the database's password")
        return make_conninfo(self.database, **more)

    def told(self) -> dict[str, Any]:
        """Return every setting, for people: where secrets are, and none of them."""
        told = {name: getattr(self, name) for name in sorted(type(self).model_fields)}
        shown = {name: str(value) if isinstance(value, Path) else value for name, value in told.items()}
        return {
            name: _PASSWORD.sub(REDACTED, value) if isinstance(value, str) else value
            for name, value in shown.items()
        }


class SignerSettings(DistributedSettings):
    """Of the signer, which reaches neither brokers nor the database."""

    kafka: str = ""
    database: str = ""


_Of = TypeVar("_Of", bound=DistributedSettings)


class _FileSource(PydanticBaseSettingsSource):
    """The file that DAYBOOK_CONFIG names."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        """Return nothing: the file is read as a whole."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the file's settings. Raises SettingsError."""
        named = os.environ.get(CONFIG)
        if not named:
            return {}
        try:
            return tomllib.loads(Path(named).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SettingsError(f"{CONFIG} names {named}, which cannot be used: {error}") from error


def sources() -> dict[str, str]:
    """Return where each setting comes from: `environment`, `file` or `default`. Raises SettingsError."""
    given = _variables()
    file = _FileSource(DistributedSettings)()
    return {
        name: "environment" if _PREFIX + name.upper() in given else "file" if name in file else "default"
        for name in sorted(DistributedSettings.model_fields)
    }


def read_secret(path: Path, what: str) -> str:
    """Return the one line of a file. Raises SettingsError, which shows nothing of it."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise SettingsError(f"{what}: {path} cannot be read: {why}") from error
    if len(lines) != 1 or not lines[0]:
        raise SettingsError(f"{what}: {path} must hold one line")
    return lines[0]


def distributed_settings(**given: Any) -> DistributedSettings:
    """Return the settings, with those of `given` that are not None before all others. Raises SettingsError."""
    return _settings(DistributedSettings, given)


def signer_settings(**given: Any) -> SignerSettings:
    """Return the signer's settings, as `distributed_settings` does."""
    return _settings(SignerSettings, given)


def _settings(of: type[_Of], given: Mapping[str, Any]) -> _Of:
    faults = _unknown_variables()
    try:
        settings = of(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        faults += [_fault(dict(fault)) for fault in error.errors()]
        raise SettingsError("; ".join(faults)) from error
    if faults:
        raise SettingsError("; ".join(faults))
    return settings


def _variables() -> set[str]:
    return {name.upper() for name in os.environ if name.upper().startswith(_PREFIX)}


def _unknown_variables() -> list[str]:
    known = {_PREFIX + name.upper() for name in DistributedSettings.model_fields}
    unknown = sorted(name for name in _variables() - known if not _OTHERS.fullmatch(name))
    return [_no_setting(name, (*known, CONFIG)) for name in unknown]


def _no_setting(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, known, 1, 0.8)
    return f"{name}: no setting has this name" + (f" (did you mean {near[0]}?)" if near else "")


def _fault(fault: Mapping[str, Any]) -> str:
    text = str(fault["msg"]).removeprefix("Value error, ")
    place = ".".join(map(str, fault["loc"]))
    if fault["type"] == "missing":
        return f"{place} is not set: give {_PREFIX}{place.upper()}, or put it into the file that {CONFIG} names"
    if fault["type"] == "extra_forbidden":
        return _no_setting(place, DistributedSettings.model_fields)
    return f"{place}: {text}" if place else text
