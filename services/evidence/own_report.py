"""The report that this program would write of a pack that was checked, from what was found and nothing else.

A report that says something else was written by another version, under another policy, or by a liar.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from ledger import base64
from ledger.hashing import HASH_SIZE, Hash
from ledger.witnessing import Policy
from services.evidence.checked import CheckedPack
from services.evidence.custody import Keeper
from services.evidence.gathered import Gathered, ReadWhole
from services.evidence.report import Story, report_text


def own_report(
    checked: CheckedPack,
    index: Mapping[str, Any],
    custody: Sequence[Mapping[str, Any]],
    policy: Policy,
    signed_by: str | None,
) -> bytes:
    """Return the report of a pack without faults. What only its packer knows comes from index and custody log.

    `policy` is the one in the pack. Raises MalformedError or ValueError where these hold no root or no time.
    """
    packed, whole = custody[-1], index["read_whole"]
    story = Story(
        identifier=checked.identifier,
        variant=checked.variant,
        ledger_origin=index["ledger_origin"],
        register=index["register"],
        policy=policy,
        gathered=Gathered(
            [],
            [],
            index["source"],
            index["selection"],
            whole=None
            if whole is None
            else ReadWhole(whole["size"], Hash(base64.decode(whole["root"], HASH_SIZE))),
            by_index=index["by_index"],
        ),
        exhibits=tuple(each.exhibit for each in checked.exhibits),
        governing=tuple(checked.keys),
        opened={each.label: tuple(each.opened) for each in checked.exhibits},
        one_history=checked.one_history,
        governing_register=checked.governing,
        authorities=checked.authorities,
        links=checked.links,
        has_findings=checked.findings is not None,
        signed_by=signed_by,
        keeper=Keeper(packed["who"], packed["role"], packed["reason"], datetime.fromisoformat(packed["at"])),
        made_at=packed["at"],
    )
    return report_text(story)
