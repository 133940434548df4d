"""What stops a partition for good: the topic, the store and the marks do not tell one history."""

from __future__ import annotations

from ledger.errors import VerificationError


class LogError(VerificationError):
    """The log is not what the store was made from, or the store not what was signed: nobody goes on."""


class GapError(LogError):
    """A message does not follow the one before it."""


class TruncatedError(LogError):
    """The topic ends before what was done of it, or has lost its beginning."""


class OtherTopicError(LogError):
    """The topic is not the one that the store was made from."""
