"""The lies: each is what an operator who holds the ledger's keys can make of his own ledger.

He signs every checkpoint anew. What he cannot do is sign for a department, or for a witness; where he decides
who may write, because the governance key is his, he can have a key of his own authorised.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from ledger import base64, canonical
from ledger.admission import instant
from ledger.ed25519 import SecretKey
from ledger.entries import Acceptance, accept, parse_entry, rebuild_submission
from ledger.governing import GOVERNING
from ledger.notes import SignerKey
from services.client.signing import sign_submission
from services.compose import new_key
from services.drill.originals import Original
from services.drill.rewriting import Entries, LyingCopy, accepted_anew, anchor_of, rewritten

BACK_DATED: Final = timedelta(days=30)
"""By how much the back-dated lies set a time back."""


class CannotLieError(Exception):
    """This ledger does not have what the lie needs; the message says what."""


@dataclass(frozen=True, slots=True)
class Lie:
    """One way to lie. `what` says what was done; `tell` makes the copy, of this register, in a new folder.

    `tell` raises CannotLieError, StoreError, OSError.
    """

    name: str
    what: str
    tell: Callable[[Original, str, Path], LyingCopy]


def choose(original: Original) -> str:
    """Return the department's register with the most entries. Raises CannotLieError where none has any."""
    registers = [name for name in original.notes if "/" in name]
    found = max(registers, key=original.size, default=None)
    if found is None or not original.size(found):
        raise CannotLieError("no department's register has an entry yet: there is nothing to lie about")
    return found


# One register, rewritten


def _back_dated(original: Original, register: str, folder: Path) -> LyingCopy:
    def messages() -> Iterator[Entries]:
        last = _count(original, register) - 1
        for at, entries in enumerate(original.messages(register)):
            yield _earlier(register, entries) if at == last else entries

    return rewritten(original, folder, {register: messages()})


def _earlier(register: str, entries: Entries) -> Entries:
    return accepted_anew(register, entries, accepted_at=_set_back(entries))


def _set_back(entries: Sequence[bytes]) -> str:
    claimed = datetime.fromisoformat(parse_entry(entries[0]).acceptance.accepted_at)
    return instant((claimed - BACK_DATED).timestamp())


def _altered(original: Original, register: str, folder: Path) -> LyingCopy:
    def messages() -> Iterator[Entries]:
        middle = _middle(original, register)
        for at, entries in enumerate(original.messages(register)):
            if at != middle:
                yield entries
                continue
            records = [entry.partition(b"\n")[2] for entry in entries]
            records[0] = _other(records[0])
            yield accepted_anew(register, entries, records=records)

    return rewritten(original, folder, {register: messages()})


def _other(record: bytes) -> bytes:
    """Return a record that says another title."""
    members: dict[str, Any] = json.loads(record)
    if "title" in members:
        members["title"] = f"{members['title'][:200]} (as it should have been)"
    else:
        members["title_alternate"] = "As it should have been"
    return canonical.format(members)


def _deleted(original: Original, register: str, folder: Path) -> LyingCopy:
    middle = _middle(original, register)
    return rewritten(
        original,
        folder,
        {register: (each for at, each in enumerate(original.messages(register)) if at != middle)},
    )


def _truncated(original: Original, register: str, folder: Path) -> LyingCopy:
    left = _count(original, register) - 1
    return rewritten(original, folder, {register: islice(original.messages(register), left)})


def _reordered(original: Original, register: str, folder: Path) -> LyingCopy:
    count = _count(original, register)
    if count < 2:
        raise CannotLieError(f"{register} has one submission: there is no other order")
    first = max(0, count // 2 - 1)

    def messages() -> Iterator[Entries]:
        source = original.messages(register)
        yield from islice(source, first)
        one, other = next(source), next(source)
        yield from (other, one)
        yield from source

    return rewritten(original, folder, {register: messages()})


def _forked(original: Original, register: str, folder: Path) -> LyingCopy:
    def messages() -> Iterator[Entries]:
        last = _count(original, register) - 1
        for at, entries in enumerate(original.messages(register)):
            if at != last:
                yield entries
                continue
            # As it would be had the same records been accepted a second later.
            claimed = datetime.fromisoformat(parse_entry(entries[0]).acceptance.accepted_at)
            later = instant((claimed + timedelta(seconds=1)).timestamp())
            yield accepted_anew(register, entries, accepted_at=later)

    return rewritten(original, folder, {register: messages()})


# The whole ledger


def _rolled_back(original: Original, _register: str, folder: Path) -> LyingCopy:
    """Cut every register to an earlier moment, and the governing one to what that moment knew."""
    sizes: dict[str, int] = {}
    changed: dict[str, Any] = {}
    needed = 0
    for register in original.notes:
        if register == GOVERNING:
            continue
        kept = _count(original, register) // 2
        cut = _extent(islice(original.messages(register), kept))
        sizes[register], view = cut
        needed = max(needed, view)
        changed[register] = islice(original.messages(register), kept)
    changed[GOVERNING] = _governing_until(original, sizes, needed)
    return rewritten(original, folder, changed)


def _extent(messages: Iterator[Entries]) -> tuple[int, int]:
    """Return how many entries messages have, and the largest governing size that they name."""
    size, view = 0, 0
    for entries in messages:
        size += len(entries)
        view = max(view, parse_entry(entries[0]).acceptance.governing_size)
    return size, view


def _governing_until(original: Original, sizes: dict[str, int], needed: int) -> Iterator[Entries]:
    opened = max((state.opened + 1 for state in original.ledger.fold.registers.values()), default=1)
    for index, entries in enumerate(original.messages(GOVERNING)):
        anchor = anchor_of(entries)
        is_later = anchor is not None and anchor.size > sizes.get(anchor.register, 0)
        if is_later and index >= max(needed, opened):
            return
        yield entries


def _swapped_log_key(original: Original, _register: str, folder: Path) -> LyingCopy:
    """Sign everything with another key, as after a theft, or by somebody who took the address over."""
    copy = rewritten(original, folder, {})
    stranger = new_key(original.log.name)
    swapped = replace(original, log=stranger)
    for name in copy.notes:
        size = original.size(name)
        copy.notes[name] = swapped.sign(name, size, original.reader(name).root(size))
    return copy


def _omitted(original: Original, register: str, folder: Path) -> LyingCopy:
    copy = rewritten(original, folder, {})
    copy.hidden = frozenset({register})
    return copy


# With a key of the operator's own


def _swapped_department_key(original: Original, register: str, folder: Path) -> LyingCopy:
    """Authorise a key of the operator's own, and sign an altered record with it in a true one's place."""
    governance = _governance(original)
    key = SecretKey(new_key("drill").secret.seed)
    middle = _middle(original, register)
    governing, view = _with_key(original, governance, key, register.partition("/")[0])

    def messages() -> Iterator[Entries]:
        for at, entries in enumerate(original.messages(register)):
            if at < middle:
                yield entries
            elif at > middle:
                yield accepted_anew(register, entries, governing_size=view)
            else:
                records = [entry.partition(b"\n")[2] for entry in entries]
                records[0] = _other(records[0])
                yield signed_anew(original, register, records, key, parse_entry(entries[0]).acceptance, view)

    return rewritten(original, folder, {register: messages(), GOVERNING: governing})


def _appended(original: Original, register: str, folder: Path) -> LyingCopy:
    """Authorise a key of the operator's own, and add a record with it that claims to be a month old."""
    governance = _governance(original)
    key = SecretKey(new_key("drill").secret.seed)
    governing, view = _with_key(original, governance, key, register.partition("/")[0])
    *_, last = original.messages(register)
    members: dict[str, Any] = json.loads(last[-1].partition(b"\n")[2])
    if members.get("type") != "decision.registered/1":
        raise CannotLieError(f"the last entry of {register} is no decision to take for a pattern")
    members |= {"record_id": str(uuid4()), "version": 1}
    members["reference"] = {**members["reference"], "number": members["reference"]["number"] + 1}
    members.pop("withheld", None)
    accepted = Acceptance(_set_back(last), "anonymous", view)

    def messages() -> Iterator[Entries]:
        yield from original.messages(register)
        yield signed_anew(original, register, [canonical.format(members)], key, accepted, view)

    return rewritten(original, folder, {register: messages(), GOVERNING: governing})


def _governance(original: Original) -> SignerKey:
    held = original.ledger.fold.governance_at(original.ledger.fold.size)
    key = original.governance
    if key is None or held is None or held.threshold > 1 or key.secret.public not in held.keys:
        raise CannotLieError("the governance keys are not the operator's: he cannot have a key authorised")
    return key


def _with_key(
    original: Original, governance: SignerKey, key: SecretKey, department: str
) -> tuple[Iterator[Entries], int]:
    """Return the governing messages with one more, which authorises a key, and how many entries they have."""
    size = original.size(GOVERNING)
    record = canonical.format(
        {
            "department": department,
            "key": base64.encode(key.public),
            "label": "A further key",
            "record_id": str(uuid4()),
            "register": GOVERNING,
            "type": "key.authorised/1",
            "version": 1,
        }
    )
    *_, last = original.messages(GOVERNING)
    accepted = Acceptance(parse_entry(last[0]).acceptance.accepted_at, "anonymous", size)
    signed = sign_submission([record], original.ledger.register_origin(GOVERNING), [governance.secret, key])
    submission = rebuild_submission(GOVERNING, [record], signed.signatures, original.ledger.origin)

    def messages() -> Iterator[Entries]:
        yield from original.messages(GOVERNING)
        yield list(accept(submission, accepted).entries)

    return messages(), size + 1


def signed_anew(
    original: Original,
    register: str,
    records: Sequence[bytes],
    key: SecretKey,
    acceptance: Acceptance,
    view: int,
) -> Entries:
    """Return records as a submission of the operator's own, accepted as `acceptance` says in this view."""
    signed = sign_submission(records, original.ledger.register_origin(register), [key])
    submission = rebuild_submission(register, records, signed.signatures, original.ledger.origin)
    accepted = Acceptance(acceptance.accepted_at, acceptance.submitter, view)
    return list(accept(submission, accepted).entries)


def _count(original: Original, register: str) -> int:
    return sum(1 for _ in original.messages(register))


def _middle(original: Original, register: str) -> int:
    """Return the number of a signed message in the middle, or the nearest after it."""
    count = _count(original, register)
    signed = [
        at
        for at, entries in enumerate(original.messages(register))
        if parse_entry(entries[0]).membership is not None
    ]
    if not signed:
        raise CannotLieError(f"{register} has no entry that a department has signed")
    return next((at for at in signed if at >= count // 2), signed[-1])


LIES: Final[tuple[Lie, ...]] = (
    Lie("back-dated", "the last records say that they were accepted a month earlier", _back_dated),
    Lie("altered", "one record has another title", _altered),
    Lie("deleted", "one submission in the middle is gone", _deleted),
    Lie("truncated", "the last submission is gone", _truncated),
    Lie("re-ordered", "two submissions have changed places", _reordered),
    Lie("forked", "another history of the same size, to be shown to others", _forked),
    Lie("rolled-back", "an older copy of everything, as a backup would have it", _rolled_back),
    Lie("key-swapped", "everything signed with another log key", _swapped_log_key),
    Lie(
        "department-key-swapped",
        "one record altered, and signed with a key of the operator's that governance authorised",
        _swapped_department_key,
    ),
    Lie(
        "back-dated-later",
        "a record added with a key of the operator's own, which says it was accepted a month ago",
        _appended,
    ),
    Lie("omitted-register", "one register is neither served nor listed", _omitted),
)
"""Every lie about a ledger that is served; forged receipts are in `receipts`."""
