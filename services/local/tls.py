"""What a local Kafka or PostgreSQL is given to be reached by TLS alone."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ServerTls:
    """PEM files: the server's certificate with its unencrypted key, and the issuer of both, whom clients trust.

    With `demands_certificates` a client must show one of the same issuer. The server's own then serves for
    whoever starts the server, and asks whether it answers.
    """

    issuer: Path
    certificate: Path
    key: Path
    demands_certificates: bool = False

    def asking(self) -> ssl.SSLContext:
        """Return what a client needs that asks the server on the loopback, by whatever name.

        Raises OSError for files that cannot be read, ssl.SSLError for those that cannot be used.
        """
        context = ssl.create_default_context(cafile=str(self.issuer))
        context.check_hostname = False
        context.load_cert_chain(self.certificate, self.key)
        return context
