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
    """Read a witness policy file. Raises OSError, or FailureError with status 2 where it is malformed."""
    try:
        return Policy.parse(path.read_bytes())
    except MalformedError as error:
        raise UsageError(f"{path} is not a witness policy file: {error}", "POLICY_MALFORMED") from error


def policy_beside(key: Path) -> Path:
    """Return where a department's policy file is looked for when none is named: KEY.policy."""
    return Path(f"{key}.policy")
