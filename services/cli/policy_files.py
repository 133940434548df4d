"""Reading witness policy files, and saying where one comes from."""

from __future__ import annotations

from pathlib import Path

from ledger.errors import MalformedError
from ledger.witnessing import Policy
from services.cli.reporting import UsageError

HOW_TO_GET_ONE = (
    "Make one with `daybook policy DIR > policy` where the ledger's directory is, or "
    "`daybook policy URL > policy`, and compare its fingerprint (`daybook policy show policy`) with the "
    "ledger's operator over another channel before you trust it"
)
"""One sentence for whoever has no policy file."""


def read_policy(path: Path) -> Policy:
    """Read a witness policy file. Raises OSError, or UsageError where it is malformed."""
    data = path.read_bytes()
    if b"PRIVATE+KEY+" in data:
        # The parser quotes the line that it does not understand, and this one nobody may see.
        raise UsageError(f"{path} holds a secret key, and is not a witness policy file", "POLICY_MALFORMED")
    try:
        return Policy.parse(data)
    except MalformedError as error:
        raise UsageError(f"{path} is not a witness policy file: {error}", "POLICY_MALFORMED") from error


def policy_beside(key: Path) -> Path:
    """Return where a department's policy file is looked for when none is named: KEY.policy."""
    return Path(f"{key}.policy")
