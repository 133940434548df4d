"""What one member of a record asks of another (formats.md, sections 3 and 4).

Every rule takes the record as parsed JSON, well shaped or not, and yields what is wrong; a member of the
wrong shape is the walk's business, and is passed over here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any, Final

from ledger.errors import MalformedError, Reason, RejectedError, Violation
from ledger.governing_types import (
    MAX_ANCHORED_NOTE,
    CheckpointAnchored,
    GovernanceChanged,
    KeyRevoked,
    LedgerOpened,
    PolicyPublished,
    RegisterOpened,
)
from ledger.notes import VerifierKey
from ledger.record_types import (
    MAX_VOIDED,
    Decision,
    DecisionCorrected,
    DecisionRegistered,
    Recorded,
    ReferenceVoided,
    ReturnFiled,
)
from ledger.shapes import shown

Faults = Iterator[Violation]
_INDEX: Final = re.compile(r"/(?:0|[1-9][0-9]*)(?=\.|\Z)")


def faults_between(record_type: type[Recorded], value: Mapping[str, Any]) -> Faults:
    """Yield every rule between members that `value`, a record of this type, breaks."""
    yield from _withheld(record_type, value)
    for rule in _RULES.get(record_type, ()):
        yield from rule(value)


_GRAVITY: Final = (Reason.UNKNOWN_TYPE, Reason.CLASSIFICATION_REFUSED, Reason.WRONG_REGISTER)


def refusal(found: tuple[Violation, ...]) -> RejectedError:
    """Return one error for all violations, at least one; its reason is that of the gravest."""
    reasons = {violation.reason for violation in found}
    reason = next((each for each in _GRAVITY if each in reasons), found[0].reason)
    first = next(violation for violation in found if violation.reason is reason)
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    return RejectedError(reason, f"{first.field}: {first.description}{more}", violations=found)


def pattern_of(path: str) -> str:
    """Return a withheld path with `*` for each list index: ``participants/0.name`` → ``participants/*.name``.

    A path that is not of the form of formats.md, section 4, comes back as it is, and no type lists it.
    """
    return _INDEX.sub("/*", path)


def without_rules(record: Recorded) -> bool:
    """Tell, from the typed record, whether none of the rules here can apply: most decisions are so."""
    if not isinstance(record, Decision):
        return False
    return (
        record.title is not None
        and record.withheld is None
        and record.relations is None
        and (record.evidence is None or all(item.sha256 is not None for item in record.evidence))
        and (not isinstance(record, DecisionCorrected) or record.reason is not None)
    )


def _withheld(record_type: type[Recorded], value: Mapping[str, Any]) -> Faults:
    found = value.get("withheld")
    paths: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    for name in record_type.OWED:
        if name not in value and name not in paths:
            yield _fault(name, "is required, in clear or withheld")
    yield from _evidence_digests(value, paths)
    known = record_type.WITHHOLDABLE
    for path in paths:
        if pattern_of(path) not in known:
            yield _fault("withheld", f'"{shown(path)}" is no path that may be withheld', tuple(known))
        elif fault := _misplaced(path, value):
            yield _fault(f"withheld.{path}", fault)
    yield from _incomplete_lists(paths)


def _evidence_digests(value: Mapping[str, Any], paths: Mapping[str, Any]) -> Faults:
    evidence = value.get("evidence")
    for index, item in enumerate(evidence if isinstance(evidence, list) else ()):
        if isinstance(item, Mapping) and "sha256" not in item and f"evidence/{index}.sha256" not in paths:
            yield _fault(f"evidence[{index}].sha256", "is required, in clear or withheld")


def _misplaced(path: str, value: Mapping[str, Any]) -> str | None:
    """Return why a path of the right form cannot stand in this record."""
    first, _, rest = path.partition(".")
    name, slash, index = first.partition("/")
    parent: object = value.get(name)
    if not rest:
        return "is in clear as well: a field is one or the other" if name in value else None
    if slash:
        if not isinstance(parent, list):
            return "is a member of a list item that is not there"
        # Compared as text: an index of a thousand digits is not worth an integer.
        places = {str(place): item for place, item in enumerate(parent)}
        if index not in places:
            return "is a member of a list item that is not there"
        parent = places[index]
    elif parent is None:
        # An object that has only withheld members would be empty, and is left out; others are there.
        return None if name == "procurement" else f"is a member of {name}, which is not there"
    if isinstance(parent, Mapping) and rest in parent:
        return "is in clear as well: a field is one or the other"
    return None


def _incomplete_lists(paths: Mapping[str, Any]) -> Faults:
    held: dict[str, set[str]] = {}
    for path in paths:
        name, slash, index = path.partition("/")
        if slash and "." not in index:
            held.setdefault(name, set()).add(index)
    for name, indices in held.items():
        if indices != {str(index) for index in range(len(indices))}:
            yield _fault(f"withheld.{name}", "must have all items of the list, from 0, or none")


def _one_target(value: Mapping[str, Any]) -> Faults:
    relations = value.get("relations")
    for index, relation in enumerate(relations if isinstance(relations, list) else ()):
        target = relation.get("target") if isinstance(relation, Mapping) else None
        if isinstance(target, Mapping) and target:
            yield from _target(target, f"relations[{index}].target")


def _target(target: Mapping[str, Any], path: str) -> Faults:
    if "uri" in target:
        for name in ("record_id", "register", "version"):
            if name in target:
                yield _fault(f"{path}.{name}", "stands beside a uri: a target is a record or a uri")
    else:
        for name in ("record_id", "version"):
            if name not in target:
                yield _fault(f"{path}.{name}", "is required, or a uri instead")


def _return_versions(value: Mapping[str, Any]) -> Faults:
    yield from _from_version_2(value, "previous", "reason")


def _void_versions(value: Mapping[str, Any]) -> Faults:
    yield from _from_version_2(value, "previous")
    if value.get("version") == 1 and "taken_back" in value:
        yield _fault("taken_back", "stands from version 2")


def _from_version_2(value: Mapping[str, Any], *names: str) -> Faults:
    version = value.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        return
    for name in names:
        if version == 1 and name in value:
            yield _fault(name, "stands from version 2")
        elif version > 1 and name not in value:
            yield _fault(name, "is required from version 2")


def _voided_numbers(value: Mapping[str, Any]) -> Faults:
    first, last = value.get("first"), value.get("last")
    if not isinstance(first, int) or not isinstance(last, int):
        return
    if not first <= last < first + MAX_VOIDED:
        yield _fault("last", f"must be from `first` on, and end a run of at most {MAX_VOIDED} numbers")


def _counted(value: Mapping[str, Any]) -> Faults:
    numbers = ("count", "first", "last")
    if "nil_return" in value:
        for name in numbers:
            if name in value:
                yield _fault(name, "stands beside nil_return: a return counts or is nil")
    else:
        for name in numbers:
            if name not in value:
                yield _fault(name, "is required, or nil_return instead")


def _governance(value: Mapping[str, Any]) -> Faults:
    governance = value.get("governance")
    if not isinstance(governance, Mapping):
        return
    keys, threshold = governance.get("keys"), governance.get("threshold")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        return
    if any(first >= second for first, second in pairwise(keys)):
        yield _fault("governance.keys", "must be sorted, no key twice")
    if isinstance(threshold, int) and threshold > len(keys):
        yield _fault("governance.threshold", f"must be at most the number of keys, {len(keys)}")


def _own_keys(value: Mapping[str, Any]) -> Faults:
    origin = value.get("origin")
    found = {}
    for name, role in (("ledger_key", "governing"), ("acknowledgement_key", "acknowledgements")):
        key = _vkey(value.get(name))
        if key is None:
            continue
        found[name] = key.public
        if isinstance(origin, str) and key.name != f"{origin}/{role}":
            yield _fault(name, f"must be the key <origin>/{role}")
    if len(found) == 2 and len(set(found.values())) == 1:
        yield _fault("acknowledgement_key", "must not be the ledger key under another name")


def _vkey(value: object) -> VerifierKey | None:
    try:
        return VerifierKey.parse(value) if isinstance(value, str) else None
    except MalformedError:
        return None


def _suspicion(value: Mapping[str, Any]) -> Faults:
    if "suspected_from" in value and value.get("reason") != "compromised":
        yield _fault("suspected_from", "stands only where the reason is compromised")


def _policy(value: Mapping[str, Any]) -> Faults:
    wanted = {"witness": "text", "profile": "profile", "calendar": "calendar"}
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in wanted:
        return
    for name in ("text", "profile", "calendar"):
        if name == wanted[kind] and name not in value:
            yield _fault(name, f"is required where kind is {kind}")
        elif name != wanted[kind] and name in value:
            yield _fault(name, f"does not stand where kind is {kind}")


def _openable(value: Mapping[str, Any]) -> Faults:
    if value.get("name") == "governing":
        yield _fault("name", "must not be governing: it is open from the first entry")


def _note_size(value: Mapping[str, Any]) -> Faults:
    note = value.get("checkpoint")
    if isinstance(note, str) and len(note.encode(errors="replace")) > MAX_ANCHORED_NOTE:
        yield _fault("checkpoint", f"must have at most {MAX_ANCHORED_NOTE} bytes")


_RULES: Final[Mapping[type[Recorded], tuple[Callable[[Mapping[str, Any]], Faults], ...]]] = {
    DecisionRegistered: (_one_target,),
    DecisionCorrected: (_one_target,),
    ReturnFiled: (_return_versions, _counted),
    ReferenceVoided: (_void_versions, _voided_numbers),
    LedgerOpened: (_governance, _own_keys),
    GovernanceChanged: (_governance,),
    RegisterOpened: (_openable,),
    KeyRevoked: (_suspicion,),
    PolicyPublished: (_policy,),
    CheckpointAnchored: (_note_size,),
}


def _fault(path: str, description: str, allowed: tuple[str, ...] = ()) -> Violation:
    return Violation(Reason.INVALID_FIELD, description, path, allowed)
