"""Records: every type, every rule, and that the short way of parsing decides as the long one does."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, Final

import pytest
from hypothesis import given, settings

from ledger import canonical, records
from ledger.errors import MalformedError, Reason, RejectedError
from ledger.own_records import restore_declared
from ledger.records import (
    DEPARTMENT_TYPES,
    GOVERNING_TYPES,
    KNOWN_TYPES,
    LEDGER_WRITTEN,
    MAX_RECORD,
    RESERVED,
    Broken,
    DecisionRegistered,
    NotUnderstood,
    Record,
    RestoreDeclared,
    check_place,
    checkpoint_anchored,
    decided_earliest,
    findings,
    ledger_may_write,
    parse_record,
    read_record,
    record_digest,
    submission_rejected,
    uuid8,
    violations,
)
from tests.support.record_strategies import department_records, spoilt_records
from tests.support.records import (
    LEDGER_ORIGIN,
    REGISTER,
    changed,
    correction,
    decision,
    decision_bytes,
    period_return,
    void,
    withdrawal,
)
from tests.support.vectors import VECTORS, load

RECORDS = {path.stem: path.read_bytes() for path in sorted((VECTORS / "records").iterdir())}
SHA = "ab" * 32


def faults(value: dict[str, Any]) -> dict[str, Reason]:
    """Return field -> reason, after checking that `violations` and `parse_record` agree."""
    found = violations(value)
    data = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    if found:
        with pytest.raises((RejectedError, MalformedError)):
            parse_record(data)
    else:
        parse_record(data)
    return {violation.field: violation.reason for violation in found}


def invalid(*fields: str) -> dict[str, Reason]:
    return dict.fromkeys(fields, Reason.INVALID_FIELD)


def outcome(parse: Any, data: bytes) -> Any:
    try:
        return parse(data)
    except (MalformedError, RejectedError) as error:
        return type(error), str(error), getattr(error, "violations", None), getattr(error, "offset", None)


@pytest.mark.parametrize("name", RECORDS)
def test_every_vector_record_is_accepted_as_its_type(name: str) -> None:
    """A record of each type, in exact bytes, parses; otherwise departments cannot rely on the vectors."""
    record = parse_record(RECORDS[name])
    assert record.type.startswith(name.partition("-")[0])
    assert isinstance(record, KNOWN_TYPES[record.type])
    assert violations(json.loads(RECORDS[name])) == ()
    assert findings(RECORDS[name]) == ()


def test_every_type_of_the_specification_is_known_and_no_other() -> None:
    """The types and the closed list are those of formats.md, section 3."""
    undefined = {"access.read/1"}
    assert set(KNOWN_TYPES) == DEPARTMENT_TYPES | GOVERNING_TYPES | (set(LEDGER_WRITTEN) - undefined)
    assert not RESERVED & set(KNOWN_TYPES)


@settings(max_examples=400)
@given(department_records())
def test_the_short_way_takes_every_valid_record_of_a_department(value: dict[str, Any]) -> None:
    """The short way is what makes registration fast: it must not send valid records on, nor change them."""
    data = canonical.format(value)
    short = records._parse_shortly(data)
    assert short is not None
    assert short == records._parse_fully(data)
    assert violations(value) == ()


@settings(max_examples=1500)
@given(spoilt_records())
def test_the_short_way_never_decides_otherwise_than_the_long_way(data: bytes) -> None:
    """If it did, what is refused would depend on how a record is spelled."""
    assert outcome(parse_record, data) == outcome(records._parse_fully, data)


@settings(max_examples=300)
@given(spoilt_records())
def test_reading_leniently_never_raises_and_finds_what_parsing_refuses(data: bytes) -> None:
    """A verifier must report a record that breaks rules, not stop at it."""
    read = read_record(data)
    refused = isinstance(outcome(records._parse_fully, data), tuple)
    assert isinstance(read, Broken | NotUnderstood) == refused
    assert bool(findings(data)) == refused


@settings(max_examples=500)
@given(spoilt_records())
def test_a_dry_run_finds_fault_exactly_where_registration_would(data: bytes) -> None:
    """PrepareRecords must neither promise what registration refuses nor refuse what it accepts."""
    try:
        value = json.loads(data)
    except ValueError:
        return
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    if isinstance(value, dict) and text.encode("utf-8", "surrogatepass") == data:
        assert bool(violations(value)) == isinstance(outcome(parse_record, data), tuple)


def test_all_violations_are_reported_at_once_with_their_paths_and_codes() -> None:
    """A clerk who mends one field at a time sends the record ten times."""
    value = decision(
        channel="pigeon",
        participants=[{"role": "whip"}, {"role": "whip"}, {"role": "wizard"}],
        record_id="nil",
        surname="x",
    )
    found = {violation.field: violation for violation in violations(value)}
    assert set(found) == {"channel", "participants[2].role", "record_id", "surname"}
    assert "whatsapp" in found["channel"].allowed
    assert "whip" in found["participants[2].role"].allowed
    with pytest.raises(RejectedError) as caught:
        parse_record(canonical.format(value))
    assert set(caught.value.violations) == set(found.values())
    assert caught.value.reason is Reason.INVALID_FIELD


@pytest.mark.parametrize("member", sorted(set(decision()) - {"type", "title"}))
def test_a_decision_without_a_required_member_is_refused(member: str) -> None:
    """Every required member of formats.md is required."""
    assert faults(changed(decision(), {member: None})) == invalid(member)


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"title": "x" * 255}, []),
        ({"title": "x" * 256}, ["title"]),
        ({"title": "😀" * 255}, []),
        ({"title": "😀" * 256}, ["title"]),
        ({"title": "one\ntwo"}, ["title"]),
        ({"rationale": "one\ntwo"}, []),
        ({"rationale": "x" * 16_000}, []),
        ({"rationale": "x" * 16_001}, ["rationale"]),
        ({"description": "x" * 8_000}, []),
        ({"description": "x" * 8_001}, ["description"]),
        ({"matter_id": "x" * 500}, []),
        ({"matter_id": "x" * 501}, ["matter_id"]),
        ({"matter_id": "a\nb"}, ["matter_id"]),
        ({"options_considered": ["a\nb", "c"]}, []),
        ({"title_alternate": "a\\nb", "rationale": "a\nb"}, []),
        ({"title_alternate": "a\nb", "rationale": "ab"}, ["title_alternate"]),
        ({"version": 2}, ["version"]),
        ({"version": 0}, ["version"]),
        ({"previous": {"sha256": SHA, "version": 1}}, ["previous"]),
        ({"correction": "correction"}, ["correction"]),
        ({"reference": {"number": 0, "series": "MD/2026"}}, ["reference.number"]),
        ({"reference": {"number": True, "series": "MD//2026"}}, ["reference.number", "reference.series"]),
        ({"decided_at": "2026-02-29"}, ["decided_at"]),
        ({"decided_at": "2026-06/2026-06-25"}, ["decided_at"]),
        ({"decided_at": "2020-07/2020-09"}, []),
        ({"register": "governing/x"}, ["register"]),
        ({"register": "governing"}, []),
        ({"decision_maker": {"name": "A", "office": "a", "role": "whip"}}, ["decision_maker.name"]),
        ({"participants": [{"name": "A", "role": "whip"}]}, ["participants[0].name"]),
        ({"evidence": [{"kind": "email", "media_type": "a/b", "size": 0}]}, ["evidence[0].sha256"]),
        ({"evidence": [{"kind": "email", "media_type": "a/b", "sha256": SHA, "size": 0}]}, []),
        ({"relations": [{"target": {"uri": "x"}, "type": "corrects"}]}, []),
        (
            {"relations": [{"target": {"uri": "x", "version": 1}, "type": "corrects"}]},
            ["relations[0].target.version"],
        ),
        (
            {"relations": [{"target": {"version": 1}, "type": "corrects"}]},
            ["relations[0].target.record_id"],
        ),
        (
            {"procurement": {"value": {"amount": "1.0", "currency": "gbp"}}},
            ["procurement.value.amount", "procurement.value.currency"],
        ),
        ({"language": ["cy", "en-GB"]}, []),
        ({"classification": {"sensitive": 1, "tier": "OFFICIAL"}}, ["classification.sensitive"]),
        ({"channel": "private_email", "decision_type": "contract_approval"}, []),
    ],
)
def test_the_members_of_a_decision_keep_their_rules(changes: dict[str, Any], fields: list[str]) -> None:
    """What formats.md, sections 2 and 3, refuse is refused, naming the field; nothing else is."""
    assert faults(decision(**changes)) == invalid(*fields)


@pytest.mark.parametrize(
    ("paths", "changes", "fields"),
    [
        (["title"], {"title": None}, []),
        ([], {"title": None}, ["title"]),
        (["title"], {}, ["withheld.title"]),
        (["rationale", "channel_justification", "description", "late_explanation"], {}, []),
        (["participants/0", "participants/1"], {}, []),
        (["participants/1"], {}, ["withheld.participants"]),
        (["participants/0", "participants/2"], {}, ["withheld.participants"]),
        (["participants/0"], {"participants": [{"role": "whip"}]}, ["withheld.participants/0"]),
        (["participants/0.name"], {"participants": [{"role": "whip"}]}, []),
        (["participants/1.name"], {"participants": [{"role": "whip"}]}, ["withheld.participants/1.name"]),
        (["participants/0", "participants/0.name"], {}, ["withheld.participants/0.name"]),
        (["participants/0.name"], {}, ["withheld.participants/0.name"]),
        (["external_parties/0", "options_considered/0"], {}, []),
        (["procurement.supplier", "procurement.value"], {}, []),
        (
            ["procurement.supplier"],
            {"procurement": {"supplier": {"name": "x"}}},
            ["withheld.procurement.supplier"],
        ),
        (["decision_maker.name"], {}, []),
        (["captured_by.name"], {}, ["withheld.captured_by.name"]),
        (["captured_by.name"], {"captured_by": {"office": "a", "role": "whip"}}, []),
        (["evidence/0.sha256"], {"evidence": [{"kind": "email", "media_type": "a/b", "size": 1}]}, []),
        (["reason"], {}, ["withheld"]),
        (["channel"], {}, ["withheld"]),
        (["external_parties/0.name"], {}, ["withheld"]),
        ([f"participants/{'9' * 5000}.name"], {}, [f"withheld.participants/{'9' * 5000}.name"]),
    ],
)
def test_only_what_may_be_withheld_is_and_never_beside_the_clear(
    paths: list[str], changes: dict[str, Any], fields: list[str]
) -> None:
    """A field that stood both withheld and in clear would have two values."""
    withheld = dict.fromkeys(paths, SHA) or None
    assert faults(decision(withheld=withheld, **changes)) == invalid(*fields)


@pytest.mark.parametrize("kind", ["accept", "refuse"])
def test_withheld_paths_are_those_of_the_vectors(kind: str) -> None:
    """Another program that withholds a path of the vectors is understood; one of the others is refused."""
    from ledger.record_rules import pattern_of

    for path in load("values.json")["withheld_path"][kind]:
        assert (pattern_of(path) in DecisionRegistered.WITHHOLDABLE) == (kind == "accept"), path


def test_a_secret_record_is_refused_with_a_reason_of_its_own() -> None:
    """SECRET and TOP_SECRET must alarm, not look like a typing error."""
    for tier in ("SECRET", "TOP_SECRET"):
        value = decision(classification={"sensitive": False, "tier": tier})
        assert faults(value) == {"classification.tier": Reason.CLASSIFICATION_REFUSED}
        with pytest.raises(RejectedError) as caught:
            parse_record(canonical.format({**value, "channel": "pigeon"}))
        assert caught.value.reason is Reason.CLASSIFICATION_REFUSED
    assert faults(decision(classification={"sensitive": False, "tier": "PUBLIC"})) == invalid(
        "classification.tier"
    )


@pytest.mark.parametrize("name", [*sorted(RESERVED), "decision.registered/2", "access.read/1", "x"])
def test_a_type_that_is_not_defined_is_refused_and_read_as_not_understood(name: str) -> None:
    """A later type must not be taken for one of ours, and must not stop a verifier."""
    data = decision_bytes(type=name)
    with pytest.raises(RejectedError) as caught:
        parse_record(data)
    assert caught.value.reason is Reason.UNKNOWN_TYPE
    read = read_record(data)
    assert isinstance(read, NotUnderstood)
    assert read.header.record_id == decision()["record_id"]
    assert read.findings == (f"type not understood: {name}",)


def test_a_record_without_a_type_is_refused_for_that() -> None:
    """There is nothing to judge the rest by."""
    assert faults(decision(type=None)) == invalid("type")
    assert isinstance(read_record(canonical.format(decision(type=None))), Broken)


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({}, []),
        ({"previous": None}, ["previous"]),
        ({"reason": None}, ["reason"]),
        ({"reason": None, "withheld": {"reason": SHA}}, []),
        ({"version": 1}, ["version"]),
        ({"correction": "typo"}, ["correction"]),
        ({"previous": {"sha256": SHA, "version": 0}}, ["previous.version"]),
        ({"version": 7}, []),
    ],
)
def test_a_correction_says_what_it_follows_and_why(changes: dict[str, Any], fields: list[str]) -> None:
    """Whether `previous` is right is the append rules' question; that it is there is ours."""
    assert faults(correction(decision_bytes(), **changes)) == invalid(*fields)


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({}, []),
        ({"previous": None}, ["previous"]),
        ({"reason": None}, ["reason"]),
        ({"reason": None, "withheld": {"reason": SHA}}, []),
        ({"withheld": {"title": SHA}}, ["withheld"]),
        ({"title": "x"}, ["title"]),
        ({"version": 1}, ["version"]),
        ({"withheld": {"decision_maker.name": SHA}}, ["withheld.decision_maker.name"]),
    ],
)
def test_a_withdrawal_says_what_it_follows_and_why(changes: dict[str, Any], fields: list[str]) -> None:
    """A withdrawal is a version like another, with members of its own."""
    assert faults(withdrawal(decision_bytes(), **changes)) == invalid(*fields)


NIL = {"count": None, "first": None, "last": None, "nil_return": True}
AGAIN = {"previous": {"sha256": SHA, "version": 1}, "reason": "Counted again.", "version": 2}


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({}, []),
        (NIL, []),
        ({"nil_return": True}, ["count", "first", "last"]),
        ({"count": None}, ["count"]),
        ({**NIL, "nil_return": None}, ["count", "first", "last"]),
        ({**NIL, "nil_return": False}, ["nil_return"]),
        ({"count": 0}, ["count"]),
        ({"first": 9, "last": 1, "count": 7}, []),
        ({"period": "2026-08-04T10:00Z"}, ["period"]),
        ({"period": "2026-07/2026-09"}, []),
        (AGAIN, []),
        ({**AGAIN, "previous": None}, ["previous"]),
        ({**AGAIN, "reason": None}, ["reason"]),
        ({**AGAIN, "version": 1}, ["previous", "reason"]),
        ({"withheld": {"signatory.name": SHA}}, []),
        ({"withheld": {"statement": SHA}}, ["withheld"]),
    ],
)
def test_a_return_counts_or_is_nil(changes: dict[str, Any], fields: list[str]) -> None:
    """A return that did both would not be a statement; a wrong count is one, and is accepted."""
    assert faults(period_return(**changes)) == invalid(*fields)


FOLLOWS = {"previous": {"sha256": SHA, "version": 1}, "version": 2}


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({}, []),
        ({"last": 1124}, []),
        ({"last": 1125}, ["last"]),
        ({"last": 124}, ["last"]),
        ({"first": 0}, ["first"]),
        ({"reason": None}, ["reason"]),
        ({"series": None}, ["series"]),
        ({"signatory": None}, ["signatory"]),
        ({"taken_back": True}, ["taken_back"]),
        (FOLLOWS, []),
        ({**FOLLOWS, "taken_back": True}, []),
        ({**FOLLOWS, "taken_back": False}, ["taken_back"]),
        ({**FOLLOWS, "previous": None}, ["previous"]),
        ({**FOLLOWS, "version": 1}, ["previous"]),
        ({"withheld": {"signatory.name": SHA}}, []),
        ({"withheld": {"reason": SHA}}, ["withheld"]),
    ],
)
def test_a_void_names_its_numbers_and_why(changes: dict[str, Any], fields: list[str]) -> None:
    """A void without a reason, or of every number there is, would hide gaps instead of explaining them."""
    assert faults(void(**changes)) == invalid(*fields)


@pytest.mark.parametrize(
    ("name", "changes", "fields"),
    [
        (
            "ledger.opened",
            {"governance": {"keys": [], "threshold": 1}},
            ["governance.keys", "governance.threshold"],
        ),
        ("ledger.opened", {"origin": "other.example"}, ["ledger_key", "acknowledgement_key"]),
        ("ledger.opened", {"predecessor": {"notes": ["a\nb"], "origin": "old.example"}}, []),
        ("register.opened", {"name": "governing"}, ["name"]),
        ("register.opened", {"name": "access"}, []),
        ("register.closed", {"size": -1}, ["size"]),
        ("key.authorised", {"department": "governing"}, ["department"]),
        ("key.authorised", {"key": "AtB47W5sDmeDmua/JsHyJIQhS9VgIVvV7glBwPyb9G1="}, ["key"]),
        ("key.revoked", {"reason": "lost"}, ["suspected_from"]),
        ("key.revoked", {"reason": "lost", "suspected_from": None}, []),
        ("policy.published-profile", {"profile": None}, ["profile"]),
        ("policy.published-profile", {"text": "x"}, ["text"]),
        ("policy.published-profile", {"kind": "calendar"}, ["calendar", "profile"]),
        ("policy.published-profile", {"kind": "calendar", "profile": None, "calendar": {"a": 1}}, []),
        ("policy.published-profile", {"profile": {"a": ["b\nc"]}}, ["profile.a[0]"]),
        ("policy.published-witness", {"effective_from": "2026-01-05"}, ["effective_from"]),
        ("checkpoint.anchored", {"checkpoint": "x" * 16_384}, []),
        ("checkpoint.anchored", {"checkpoint": "—" * 16_384}, ["checkpoint"]),
        ("submission.rejected", {"reason": "OVERLOADED"}, ["reason"]),
        ("submission.rejected", {"count": 1_001}, ["count"]),
        ("submission.rejected", {"rejected": None, "existing": None}, []),
        ("register.opened", {"version": 2}, ["version"]),
    ],
)
def test_records_about_the_ledger_keep_their_rules(
    name: str, changes: dict[str, Any], fields: list[str]
) -> None:
    """Governance rests on these: each rule of formats.md, section 3, is applied."""
    assert faults(changed(json.loads(RECORDS[name]), changes)) == invalid(*fields)


def test_governance_keys_are_sorted_distinct_and_enough() -> None:
    """A threshold that cannot be met, or that one key meets twice, would decide who governs."""
    opened = json.loads(RECORDS["ledger.opened"])
    keys = opened["governance"]["keys"]
    for wrong, field in (
        ({"keys": keys[::-1], "threshold": 2}, "governance.keys"),
        ({"keys": [keys[0], keys[0]], "threshold": 2}, "governance.keys"),
        ({"keys": keys, "threshold": 4}, "governance.threshold"),
    ):
        assert faults({**opened, "governance": wrong}) == invalid(field)


@pytest.mark.parametrize(
    ("data", "offset"),
    [
        (b"", 0),
        (b"[]", 0),
        (b'{"a":1.0}', 5),
        (b'{"a":1,"a":1}', 7),
        (decision_bytes() + b"\n", len(decision_bytes())),
        (decision_bytes().replace(b"gowns", b"go\x7fns"), decision_bytes().index(b"gowns") + 2),
        (decision_bytes().replace(b"gowns", b"go\\tns"), decision_bytes().index(b"gowns") + 2),
        (decision_bytes().replace(b'"version":1', b'"version":null'), decision_bytes().rindex(b"1")),
        (decision_bytes(foi={"closure_years": 1}).replace(b'{"closure_years":1}', b"{}"), None),
        (b"[" * 60_000, 0),
    ],
)
def test_bytes_that_are_not_canonical_are_refused_at_their_place(data: bytes, offset: int | None) -> None:
    """One record, one spelling: another would be another digest of the same statement."""
    with pytest.raises(MalformedError) as caught:
        parse_record(data)
    assert offset is None or caught.value.offset == offset
    assert isinstance(read_record(data), Broken)


def test_a_record_of_one_byte_too_many_is_refused_as_too_large() -> None:
    """61,440 bytes fit; one more does not."""
    room = MAX_RECORD - len(decision_bytes(options_considered=["x"] * 4)) + 4
    texts = ["x" * 15_000] * 3
    fits = decision_bytes(options_considered=[*texts, "x" * (room - 45_000)])
    assert len(fits) == MAX_RECORD
    parse_record(fits)
    over = decision_bytes(options_considered=[*texts, "x" * (room - 44_999)])
    with pytest.raises(RejectedError) as caught:
        parse_record(over)
    assert caught.value.reason is Reason.RECORD_TOO_LARGE
    assert [found.reason for found in violations(json.loads(over))] == [Reason.RECORD_TOO_LARGE]


def test_a_dry_run_names_the_member_with_a_refused_character() -> None:
    """PrepareRecords has no bytes to point into, so it points at the member."""
    value = decision(title="a\u2028b", participants=[{"organisation": "e\u0301", "role": "whip"}])
    found = {violation.field: violation.reason for violation in violations(value)}
    assert found == dict.fromkeys(("title", "participants[0].organisation"), Reason.NOT_CANONICAL)


def reason_of(record: Record, register: str) -> tuple[Reason, set[str]]:
    with pytest.raises(RejectedError) as caught:
        check_place(record, register)
    return caught.value.reason, {violation.field for violation in caught.value.violations}


def test_a_record_stands_only_where_its_type_may() -> None:
    """A department cannot write governance, nor anybody what the ledger writes itself."""
    registered = parse_record(decision_bytes())
    check_place(registered, REGISTER)
    assert reason_of(registered, "a/b") == (Reason.WRONG_REGISTER, {"register"})
    assert reason_of(registered, "governing") == (Reason.WRONG_REGISTER, {"register", "type"})
    in_governing = parse_record(decision_bytes(register="governing"))
    assert reason_of(in_governing, "governing") == (Reason.WRONG_REGISTER, {"type"})
    assert reason_of(parse_record(decision_bytes(register="access")), "access")[0] is Reason.WRONG_REGISTER
    key = parse_record(RECORDS["key.authorised"])
    check_place(key, "governing")
    assert reason_of(key, REGISTER) == (Reason.WRONG_REGISTER, {"register", "type"})
    anchor = parse_record(RECORDS["checkpoint.anchored"])
    assert reason_of(anchor, "governing") == (Reason.UNKNOWN_TYPE, {"type"})


def test_the_closed_list_is_the_whole_of_what_the_ledger_may_write_unsigned() -> None:
    """An unsigned decision is an integrity failure, whoever wrote it."""
    assert ledger_may_write("checkpoint.anchored/1", "governing")
    assert not ledger_may_write("checkpoint.anchored/1", REGISTER)
    assert ledger_may_write("submission.rejected/1", REGISTER)
    assert ledger_may_write("submission.rejected/1", "governing")
    assert ledger_may_write("access.read/1", "access")
    assert ledger_may_write("restore.declared/1", "governing")
    for name in DEPARTMENT_TYPES | GOVERNING_TYPES | {"x"}:
        assert not ledger_may_write(name, "governing")


def test_the_earliest_second_of_a_decision_is_told_and_of_nothing_else() -> None:
    """The rule against decisions in the future rests on it."""
    assert decided_earliest(parse_record(decision_bytes(decided_at="1970-01-02T00:00:05Z"))) == 86_405
    assert decided_earliest(parse_record(RECORDS["return.filed"])) is None


def test_the_records_of_the_ledger_itself_are_made_byte_for_byte() -> None:
    """A rebuilt ledger writes the same anchors and rejections."""
    anchored = json.loads(RECORDS["checkpoint.anchored"])
    assert checkpoint_anchored(anchored["checkpoint"].encode()) == RECORDS["checkpoint.anchored"]
    made = 0
    for case in load("append-rules.json")["after_the_story"]:
        if "rejection_entry" not in case:
            continue
        data = case["rejection_entry"].encode().partition(b"\n")[2]
        value = json.loads(data)
        rejected, existing = value.get("rejected"), value.get("existing")
        rebuilt = submission_rejected(
            register=case["register"],
            register_origin=f"{LEDGER_ORIGIN}/{case['register']}",
            submission_id=case["submission_id"],
            count=value["count"],
            reason=Reason(case["reason"]),
            index=case["index"],
            rejected=rejected and (rejected["position"], rejected["record_id"], rejected["version"]),
            existing=existing and (existing["index"], existing["sha256"]),
        )
        assert rebuilt == data
        made += 1
    assert made > 0


def restored(**other: Any) -> dict[str, Any]:
    """Return the record of a restore, parsed."""
    facts: dict[str, Any] = {
        "register": "d/o",
        "register_origin": "ledger.test/d/o",
        "stored_size": 3,
        "recovered_size": 7,
        "source": "event_log",
        "governing_size": 5,
    }
    record: dict[str, Any] = json.loads(restore_declared(**facts | other))
    assert isinstance(parse_record(restore_declared(**facts | other)), RestoreDeclared)
    return record


def test_a_restore_is_declared_once_and_another_one_anew() -> None:
    """A restore that is declared twice is one record; a later one finds more governing entries, and is two."""
    stated = b"restore.declared/1\nledger.test/d/o\n3\n7\nevent_log\n5\n"
    assert restored() == {
        "record_id": uuid8(stated),
        "recovered_size": 7,
        "register": "governing",
        "restored": "d/o",
        "source": "event_log",
        "stored_size": 3,
        "type": "restore.declared/1",
        "version": 1,
    }
    others: list[dict[str, Any]] = [{"stored_size": 4}, {"recovered_size": 8}, {"source": "tiles"}]
    others += [{}, {"governing_size": 6}, {"register_origin": "ledger.test/d/p"}]
    ids = {restored(**other)["record_id"] for other in others}
    assert len(ids) == 6
    with pytest.raises(RejectedError):
        restored(source="memory")


def test_an_anchor_that_is_too_large_or_not_text_is_refused() -> None:
    """The ledger keeps its own limits."""
    with pytest.raises(RejectedError):
        checkpoint_anchored(b"x" * 16_385)
    with pytest.raises(MalformedError):
        checkpoint_anchored(b"\xff")


def test_digest_and_uuid8_are_those_of_the_specification() -> None:
    """Entry 0's record in formats.md, section 20, has this digest, the anchor's note this UUID."""
    assert record_digest(RECORDS["decision.registered"]) == (
        "04d4087340f069c4749f0d1e8275d11f6a6c9878912e70646b065519cad136eb"
    )
    anchored = json.loads(RECORDS["checkpoint.anchored"])
    assert uuid8(anchored["checkpoint"].encode()) == anchored["record_id"]


_IN_THREADS: Final = """
import sys, threading
sys.setswitchinterval(1e-6)
from ledger.records import KNOWN_TYPES
import msgspec
together = threading.Barrier(4)
def convert():
    together.wait()
    for each in KNOWN_TYPES.values():
        try:
            msgspec.convert({}, each)
        except msgspec.ValidationError:
            pass
threads = [threading.Thread(target=convert) for _ in range(4)]
for each in threads:
    each.start()
for each in threads:
    each.join()
"""


def test_the_first_records_of_a_process_may_be_parsed_in_several_threads() -> None:
    """Half of such processes crashed."""
    for _ in range(8):
        assert subprocess.run([sys.executable, "-c", _IN_THREADS], check=False).returncode == 0


def test_records_are_frozen() -> None:
    """What was judged is what is registered."""
    record = parse_record(decision_bytes())
    with pytest.raises(AttributeError):
        record.version = 2  # type: ignore[misc]
