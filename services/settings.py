"""Settings: from options first, else from the environment (DAYBOOK_…), else the defaults."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ledger.errors import LedgerError
from services.client.channels import Tls

Seconds = Annotated[float, Field(gt=0)]


class SettingsError(LedgerError):
    """Settings that cannot be used; the message says which, and what to do."""


class WitnessSettings(BaseSettings):
    """Of whatever signs, and so asks witnesses. Every one can be given as DAYBOOK_<NAME>."""

    model_config = SettingsConfigDict(env_prefix="DAYBOOK_", frozen=True, extra="forbid")

    witness_seconds: Seconds = 5.0
    """Seconds that a witness may take for one answer."""

    witness_refresh_seconds: Seconds = 600.0
    """Seconds after which the latest checkpoint of an idle register is cosigned anew."""

    witness_ca: Path | None = None
    """PEM certificates of those who issue the witnesses' certificates; by default those the system trusts."""


class ServeSettings(WitnessSettings):
    """Of `daybook serve`. Every one can be given as DAYBOOK_<NAME>."""

    grpc: str = "127.0.0.1:7070"
    """HOST:PORT of gRPC; port 0 takes any free one."""

    http: str = "127.0.0.1:7071"
    """HOST:PORT of HTTP; port 0 takes any free one."""

    tls_certificate: Path | None = None
    """PEM certificate chain of this server, for both; without it only loopback addresses are bound."""

    tls_key: Path | None = None
    """PEM private key of the certificate."""

    client_ca: Path | None = None
    """PEM certificates of those who issue client certificates; with it, gRPC demands one of every caller."""

    grace_seconds: float = 10.0
    """Seconds that calls under way are given to end when the server is stopped."""

    anchor_seconds: Seconds = 10.0
    """Seconds between two anchors of a register that changes."""

    detections: bool = True
    """Look for what deserves a look, for ListFindings; catching up, it takes a share of the processor."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, address in (("grpc", self.grpc), ("http", self.http)):
            host, _ = split_address(address)
            if self.tls_certificate is None and not is_loopback(host):
                raise ValueError(
                    f"{name}: without TLS only a loopback address may be bound, not {host!r}; "
                    "give a certificate and key, or use 127.0.0.1"
                )
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("a TLS certificate and its key go together")
        if self.client_ca is not None and self.tls_certificate is None:
            raise ValueError("client certificates need TLS: give a certificate and key as well")
        return self


class ClientSettings(BaseSettings):
    """Of the commands that connect to a ledger. Every one is given as DAYBOOK_CLIENT_<NAME>."""

    model_config = SettingsConfigDict(env_prefix="DAYBOOK_CLIENT_", frozen=True, extra="forbid")

    tls: bool = False
    """Connect with TLS, trusting the issuers that this system trusts."""

    tls_ca: Path | None = None
    """PEM certificates of those who issue the server's certificate; connects with TLS."""

    tls_certificate: Path | None = None
    """PEM certificate of this client, where the ledger asks who calls; connects with TLS."""

    tls_key: Path | None = None
    """PEM private key of the certificate."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("DAYBOOK_CLIENT_TLS_CERTIFICATE and DAYBOOK_CLIENT_TLS_KEY go together")
        return self


def client_tls() -> Tls | None:
    """Return what the environment says of TLS to a ledger; None for none. Raises SettingsError or OSError."""
    with _told_plainly():
        settings = ClientSettings()
    files = (settings.tls_ca, settings.tls_certificate, settings.tls_key)
    if not settings.tls and not any(files):
        return None
    issuers, certificate, key = (path.read_bytes() if path else None for path in files)
    return Tls(issuers, certificate, key)


def witness_settings() -> WitnessSettings:
    """Return the settings of the environment. Raises SettingsError."""
    with _told_plainly():
        return WitnessSettings()


def serve_settings(**given: Any) -> ServeSettings:
    """Return the settings, with those of `given` that are not None before all others. Raises SettingsError."""
    with _told_plainly():
        return ServeSettings(**{name: value for name, value in given.items() if value is not None})


@contextmanager
def _told_plainly() -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        text = "; ".join(str(fault["msg"]).removeprefix("Value error, ") for fault in error.errors())
        raise SettingsError(text) from error


def split_address(address: str) -> tuple[str, int]:
    """Split HOST:PORT, [IPv6]:PORT included. Raises ValueError."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ValueError(f"{address!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine's loopback: an address of it, or ``localhost``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
