"""Who calls: the identity that mutual TLS has proven, or none.

It is written into entries as a claim of the ledger. What a caller may write is decided by the signature on
the submission, never by the connection.
"""

from __future__ import annotations

import re
from typing import Any, Final

import grpc.aio

from ledger.entries import ANONYMOUS

_SAN_URI: Final = re.compile(r"[!#-\[\]-~]{1,252}")


def submitter(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """Return ``uri:<SAN URI>`` of the caller's verified certificate, else ``anonymous``.

    A URI that an entry cannot hold (spaces, quotes, over 252 bytes), or more than one, is as good as none.
    """
    uris = list(context.auth_context().get("peer_uri", ()))
    if len(uris) != 1:
        return ANONYMOUS
    uri = uris[0].decode("ascii", "replace")
    return f"uri:{uri}" if _SAN_URI.fullmatch(uri) else ANONYMOUS
