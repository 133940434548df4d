"""Which logs a witness cosigns for: single logs, and every register of a ledger (formats.md, section 11)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from ledger.checkpoints import parse_decimal
from ledger.errors import MalformedError
from ledger.notes import ED25519, VerifierKey
from ledger.values import is_ledger_origin, is_register
from ledger.witnessing import Policy
from services.witness.state import Accepted, State

LOG: Final = "log"
LEDGER: Final = "ledger"

_GOVERNING: Final = "/governing"
_HEADER: Final = "logs/v0"
_FIELDS: Final = ("vkey", "origin", "qpd", "contact")


def accepted_key(vkey: VerifierKey) -> Accepted:
    """Return what a key alone stands for: a governing key for its whole ledger, another for its one log.

    Raises MalformedError for a key that is not a log's (type 0x01).
    """
    if vkey.type != ED25519:
        raise MalformedError(f"{vkey.name} is not a log's key: its type is 0x{vkey.type:02x}, not 0x01")
    ledger_origin = vkey.name.removesuffix(_GOVERNING)
    if ledger_origin != vkey.name and is_ledger_origin(ledger_origin):
        return Accepted(LEDGER, ledger_origin, str(vkey))
    return Accepted(LOG, vkey.name, str(vkey))


def accepted_by_policy(policy: Policy) -> tuple[Accepted, ...]:
    """Return what the log lines of a policy file stand for. Raises MalformedError where it has none."""
    if not policy.logs:
        raise MalformedError("the policy names no log")
    return tuple(accepted_key(log.key) for log in policy.logs)


def accepted_by_list(data: bytes) -> tuple[Accepted, ...]:
    """Return the logs of a list in the log-list format of the witness network (witness.md, section 6).

    Each stands for itself alone, a ledger's governing register as well. Raises MalformedError, which names
    the line.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError("log list: not UTF-8", error.start) from error
    numbered = ((number, line.strip()) for number, line in enumerate(text.split("\n"), start=1))
    lines = [(number, line) for number, line in numbered if line and not line.startswith("#")]
    if not lines or lines[0][1] != _HEADER:
        raise MalformedError(f"log list: the first line is not {_HEADER}")
    found = []
    for item in _items(lines[1:]):
        vkey = VerifierKey.parse(item["vkey"])
        if vkey.type != ED25519:
            raise MalformedError(f"log list: the type of {vkey.name}'s key is not 0x01")
        found.append(Accepted(LOG, item.get("origin", vkey.name), str(vkey), item.get("contact")))
    return tuple(found)


def _items(lines: list[tuple[int, str]]) -> Iterator[dict[str, str]]:
    item: dict[str, str] = {}
    last = -1
    for number, line in lines:
        field, _, value = line.partition(" ")
        if field not in _FIELDS or not value.strip():
            raise MalformedError(f"log list: line {number} is not one of {', '.join(_FIELDS)} with a value")
        place = _FIELDS.index(field)
        if place == 0:
            if item:
                yield item
            item = {}
        elif not item or place <= last:
            raise MalformedError(f"log list: line {number}: {field} is out of order")
        if field == "qpd":
            # How often the log may ask in a day. Read, so that a list with nonsense is refused; not enforced.
            parse_decimal(value)
        item[field] = value.strip()
        last = place
    if item:
        yield item


def check_not_own(accepted: Accepted, witness: VerifierKey) -> None:
    """Raise MalformedError where a witness would cosign for itself, by name or by key (witness.md, 2)."""
    if accepted.origin == witness.name:
        raise MalformedError(f"{accepted.origin} is the witness's own name: it cannot be a log's")
    if VerifierKey.parse(accepted.vkey).public == witness.public:
        raise MalformedError(f"the key of {accepted.origin} is the witness's own: it cannot be a log's")


class AcceptedLogs:
    """Answers which keys may sign checkpoints of an origin, from the state as it is at that moment."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._own_name = state.witness.name

    def keys(self, origin: str) -> tuple[VerifierKey, ...]:
        """Return the keys trusted for an origin; none for a log that is not accepted.

        As of a verifier's policy: the keys of that log, and for a register of a ledger the ledger's governing
        keys under the register's name. Raises StoreError.
        """
        if origin == self._own_name:
            return ()
        found = [_key(vkey) for vkey in self._state.vkeys(LOG, origin)]
        ledger_origin, _, register = origin.partition("/")
        if is_ledger_origin(ledger_origin) and is_register(register):
            found += [_renamed(vkey, origin) for vkey in self._state.vkeys(LEDGER, ledger_origin)]
        # One key may be there under both rules; to open a note it may not stand twice.
        return tuple(dict.fromkeys(found))


@lru_cache(maxsize=4096)
def _key(vkey: str) -> VerifierKey:
    return VerifierKey.parse(vkey)


@lru_cache(maxsize=4096)
def _renamed(vkey: str, origin: str) -> VerifierKey:
    return _key(vkey).renamed(origin)
