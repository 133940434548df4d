"""docs/errors.md, made from the table of `services/status.py`.

.venv/bin/python -m services.errors_page > docs/errors.md
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from services.status import TABLE, http_status

_HEAD: Final = """\
# Errors

Made from the table in `services/status.py` by `.venv/bin/python -m services.errors_page`; a test keeps it so.

A call that is refused ends with a `google.rpc.Status`: a gRPC code, a message in English, and these details.

- **ErrorInfo**, always: `domain` is `daybook`, `reason` is one of the names below and stable, `metadata`
  holds the details named below and `request_id`, which the server's log has too.
- **BadRequest**, where fields are at fault: `field` is a path such as `records[3].decided_at`, `reason` one
  of the names below, `description` says what is wrong and what would be accepted. Every violation is named
  at once, up to 64; those that do not fit in 6,000 bytes are counted in `fields_left_out`.
- **RetryInfo**, where the very same call may succeed later: wait at least `retry_delay`.

A call that is refused has changed nothing, unless its entry says otherwise. Sending the very same submission
again is always safe: it is known by its `submission_id`, and gets the earlier answer.

On the HTTP endpoints the same reasons have the status given.
"""

_TAIL: Final = """\

## Deadlines

`Register` and the governance calls wait for a state, and their deadline bounds the wait. When it runs out,
the answer is the state reached: pending is an answer, not an error.

- Without a deadline they are refused: INVALID_ARGUMENT, `INVALID_FIELD`, field `grpc-timeout`.
- With less than 20 ms left when they arrive they are not begun: DEADLINE_EXCEEDED, ErrorInfo reason
  `DEADLINE_EXCEEDED`. Nothing was changed.

A request of any call that has not come in whole after 20 seconds is not begun: DEADLINE_EXCEEDED as well.

## Answers that gRPC itself gives

These have no ErrorInfo, because the call did not reach Daybook, or its answer did not reach you.

| gRPC code | when | send the same again? |
|---|---|---|
| DEADLINE_EXCEEDED | no answer came in time; it may have been accepted | yes: that is safe |
| CANCELLED | you cancelled the call, or the server is stopping; it may have been accepted | yes: that is safe |
| UNAVAILABLE | the server cannot be reached, or refuses your certificate | yes, with growing pauses |
| RESOURCE_EXHAUSTED | the message is larger than the server takes (2 MiB: no valid submission is) | no |
| UNIMPLEMENTED | there is no such call | no |
"""


def page() -> str:
    """Return docs/errors.md."""
    return _HEAD + "".join(_sections()) + _TAIL


def _sections() -> Iterator[str]:
    for code in dict.fromkeys(row.code for row in TABLE.values()):
        first = next(reason for reason, row in TABLE.items() if row.code is code)
        yield f"\n## {code.name} (HTTP {http_status(first).value})\n\n"
        yield "| reason | meaning | field or detail | send the same again? |\n|---|---|---|---|\n"
        for reason, row in TABLE.items():
            if row.code is code:
                wait = "" if row.delay is None else f", after {row.delay:g} s"
                yield f"| `{reason.value}` | {row.meaning} | {row.carries} | {row.retry.value}{wait} |\n"


if __name__ == "__main__":
    print(page(), end="")
