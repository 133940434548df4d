"""Why no broker can be reached: asked once a client has failed, which says only that it has.

A certificate that is not accepted, on either side, ends a connection as a broker does that is away. Whoever has
to mend it must be told which.
"""

from __future__ import annotations

import socket
import ssl
import struct
from contextlib import ExitStack
from typing import Final

from services.distributed.kafka_clients import tls
from services.distributed.settings import DistributedSettings
from services.settings import split_address

_PATIENCE: Final = 5.0
"""Seconds that each step with one broker may take."""

_NUMBER: Final = 0x64627931
"""That of the request, which the answer repeats."""

_VERSIONS: Final = struct.pack(">hhih7s", 18, 0, _NUMBER, 7, b"daybook")
"""An ApiVersions request, version 0, which a broker answers to anybody: key, version, number, client."""


def why_unreachable(settings: DistributedSettings) -> str | None:
    """Say of each broker in one line why it cannot be reached; None where one can be.

    Raises SettingsError for TLS files that cannot be used.
    """
    context = tls(settings)
    found = []
    for each in settings.kafka.split(","):
        address = each.strip()
        why = _why(address, context, shows=settings.kafka_certificate is not None)
        if why is None:
            return None
        found.append(f"{address}: {why}")
    return "; ".join(found)


def _why(address: str, context: ssl.SSLContext | None, *, shows: bool) -> str | None:
    host, port = split_address(address)
    with ExitStack() as stack:
        try:
            connection = stack.enter_context(socket.create_connection((host, port), timeout=_PATIENCE))
        except OSError as error:
            return f"no connection ({error.strerror or error})"
        try:
            if context is not None:
                connection = stack.enter_context(context.wrap_socket(connection, server_hostname=host))
        except ssl.SSLCertVerificationError as error:
            said = error.verify_message.rstrip(".")
            return f"its certificate is not accepted ({said})"
        except OSError as error:
            return f"no TLS with it ({_said(error)}): kafka_ca is set, so nothing is sent without"
        try:
            connection.sendall(struct.pack(">i", len(_VERSIONS)) + _VERSIONS)
            with connection.makefile("rb") as answer:
                # One that wants TLS answers, with an alert.
                answered = answer.read(8)[4:] == struct.pack(">i", _NUMBER)
        except TimeoutError:
            return f"no answer within {_PATIENCE:.0f} s"
        except OSError as error:
            # With TLS 1.3 a broker judges the client's certificate when the client is done.
            return f"it ends the connection ({_said(error)})" + _advice(context, shows=shows)
        return None if answered else "it ends the connection" + _advice(context, shows=shows)


def _advice(context: ssl.SSLContext | None, *, shows: bool) -> str:
    if context is None:
        return ": does it want TLS? Then set kafka_ca"
    return ": does it accept kafka_certificate?" if shows else ": does it want a kafka_certificate?"


def _said(error: OSError) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return error.strerror or str(error) or type(error).__name__
