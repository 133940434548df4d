"""Certificates for tests, made with the openssl command: an issuer, servers, clients with SAN URIs."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, both PEM files."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Issuer:
    """A certificate authority that signs for whoever asks."""

    folder: Path
    pair: Pair

    def issue(self, name: str, *alternative_names: str) -> Pair:
        """Issue a certificate for subject alternative names such as ``IP:127.0.0.1`` or ``URI:spiffe://…``."""
        pair = Pair(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        request, extensions = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={','.join(alternative_names)}\n")
        _openssl("req", *_NEW_KEY, "-keyout", pair.key, "-out", request, "-subj", f"/CN={name}")
        _openssl(
            *("x509", "-req", "-in", request, "-out", pair.certificate, "-days", "2", "-extfile", extensions),
            *("-CA", self.pair.certificate, "-CAkey", self.pair.key, "-CAcreateserial"),
        )
        return pair

    def credentials(self, pair: Pair | None = None) -> grpc.ChannelCredentials:
        """Return credentials that trust this issuer, and show `pair`."""
        trusted = self.pair.certificate.read_bytes()
        if pair is None:
            return grpc.ssl_channel_credentials(trusted)
        return grpc.ssl_channel_credentials(trusted, pair.key.read_bytes(), pair.certificate.read_bytes())


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc")


def make_issuer(folder: Path) -> Issuer:
    """Make an issuer whose files are in `folder`, a new one."""
    folder.mkdir()
    pair = Pair(folder / "issuer.pem", folder / "issuer.key")
    _openssl(
        *("req", "-x509", *_NEW_KEY, "-keyout", pair.key, "-out", pair.certificate, "-days", "2"),
        *("-subj", f"/CN={folder.name}"),
    )
    return Issuer(folder, pair)


def _openssl(*arguments: str | Path) -> None:
    command: Sequence[str] = ["openssl", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
