"""Findings as ListFindings shows them, and the tokens between its pages."""

from __future__ import annotations

import re
from typing import Final

from daybook.audit.v1 import audit_service_pb2 as pb

from services.auditing.fact_store import Place
from services.auditing.found import Found
from services.auditing.lookout import FoundPage
from services.lookup import invalid

_TOKEN: Final = re.compile(r"(-1|0|[1-9][0-9]{0,12}) (DET-[0-9]{2}) ([ -~]{0,200})")


def place_after(token: str) -> Place | None:
    """Return the place behind which a page begins; None for the first page. Raises RejectedError."""
    if not token:
        return None
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise invalid("page_token", "not a `next_page_token` of this call")
    return int(match[1]), match[2], match[3]


def findings_response(register: str, page: FoundPage) -> pb.ListFindingsResponse:
    """Return a page of a register's findings."""
    return pb.ListFindingsResponse(
        register=register,
        size=page.size,
        findings=map(_finding, page.found),
        next_page_token="" if page.after is None else " ".join(map(str, page.after)),
    )


def _finding(found: Found) -> pb.Finding:
    return pb.Finding(
        detection=found.detection,
        version=found.version,
        severity=found.severity.value,
        indices=found.indices,
        explanation=found.explanation,
        inputs=found.inputs,
        innocent=found.innocent,
        recheck=found.recheck,
    )
