"""The witness policies that a ledger has published about itself: which witnesses it ever had.

A `policy.published/1` of kind witness sets the ledger's own quorum from the next checkpoint, and never a
verifier's file (formats.md, section 11). Here they also say under which keys the cosignatures that a store
keeps can be checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

from ledger.entries import parse_entry
from ledger.errors import MalformedError, RejectedError
from ledger.notes import VerifierKey
from ledger.records import PolicyPublished, parse_record
from ledger.witnessing import Policy

WITNESS: Final = "witness"
"""The kind of a published policy whose text is a policy file (C2SP tlog-policy)."""

WitnessKeys = Mapping[tuple[str, int], VerifierKey]
"""Keys of witnesses by name and key ID, which is how a signature line names its key."""

_TYPE: Final = b'"policy.published/1"'


def witness_policies(entries: Iterable[bytes]) -> Iterator[tuple[int, str, Policy | None]]:
    """Yield every witness policy that governing entries from index 0 on publish, in their order.

    Each is (index, effective_from, policy); the policy is None where the text is no policy file, which is
    accepted at registration as any other odd text. Entries are taken as judged already.
    """
    for index, data in enumerate(entries):
        # Nearly every governing entry is an anchor: those are not taken apart.
        if _TYPE not in data:
            continue
        try:
            entry = parse_entry(data)
            record = parse_record(entry.record)
        except (MalformedError, RejectedError):
            continue
        if entry.membership is not None and isinstance(record, PolicyPublished) and record.kind == WITNESS:
            yield index, record.effective_from, _policy(record.text or "")


def _policy(text: str) -> Policy | None:
    try:
        return Policy.parse(text.encode())
    except MalformedError:
        return None


def witness_keys(policies: Iterable[Policy]) -> WitnessKeys:
    """Return the keys of all witnesses that these policies name."""
    keys = (witness.key for policy in policies for witness in policy.witnesses)
    return MappingProxyType({(key.name, key.key_id): key for key in keys})
