"""Settings of a server: from options first, else from the environment (DAYBOOK_…), else the defaults."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any, Self

from pydantic import model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class ServeSettings(BaseSettings):
    """Of `daybook serve`. Every one can be given as DAYBOOK_<NAME>."""

    model_config = SettingsConfigDict(env_prefix="DAYBOOK_", frozen=True, extra="forbid")

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


def serve_settings(**given: Any) -> ServeSettings:
    """Return the settings, with those of `given` that are not None before all others. Raises ValueError."""
    return ServeSettings(**{name: value for name, value in given.items() if value is not None})


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
