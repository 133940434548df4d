"""`daybook query`: what it proves, and that no ledger gets a lie past it.

The ledgers are real, served over gRPC; those that lie are servicers that change what an honest one answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from daybook.audit.v1 import audit_service_pb2 as pb

from ledger import canonical
from ledger.checkpoints import Checkpoint, sign_checkpoint
from ledger.entries import Acceptance, form_entries, form_ledger_entry
from ledger.errors import Reason, RejectedError
from ledger.hashing import leaf_hash
from ledger.notes import SignerKey
from ledger.receipts import verify_receipt
from ledger.records import record_digest
from ledger.stores.memory import MemoryStore
from ledger.tree import tree_root
from services.audit import AuditServicer
from services.receiving import Context
from tests.support.audit_server import audit_server
from tests.support.command import run, run_json
from tests.support.ledgers import (
    DEPARTMENT_KEY,
    LOG_KEY,
    ORIGIN,
    POLICY,
    REGISTER,
    LedgerUnderTest,
    decision,
    open_ledger,
    record_id,
    submission,
)

PENNY = "department-for-testing/penny"


@pytest.fixture
def held(tmp_path: Path) -> LedgerUnderTest:
    """A ledger whose register has a grant, a WhatsApp decision of an unknown day, and 600 others."""
    held = open_ledger(MemoryStore(), tmp_path / "marks")
    register(held, decision(0, decision_type="grant", decided_at="2026-01-10"), uncertain())
    held.fill(602)
    return held


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return policy_file(tmp_path, POLICY.text())


def policy_file(folder: Path, text: bytes) -> Path:
    path = folder / "policy"
    path.write_bytes(text)
    return path


def register(held: LedgerUnderTest, *records: bytes) -> None:
    held.turn([submission(REGISTER, records, [DEPARTMENT_KEY])])


def uncertain() -> bytes:
    return decision(1, decision_type="grant", channel="whatsapp", decided_at="2026-02", title="The second")


def corrected(**members: Any) -> bytes:
    """Return the version of `uncertain` that corrects it."""
    head = {"type": "decision.corrected/1", "version": 2, "correction": "correction", "reason": "Found since"}
    previous = {"sha256": record_digest(uncertain()), "version": 1}
    return decision(1, **{**head, "decision_type": "grant", "previous": previous, **members})


def withdrawn(number: int, first: bytes) -> bytes:
    """Return the version that withdraws a decision."""
    return canonical.format(
        {
            "previous": {"sha256": record_digest(first), "version": 1},
            "reason": "Registered twice",
            "record_id": record_id(number),
            "register": REGISTER,
            "type": "decision.withdrawn/1",
            "version": 2,
            "withdrawal": "duplicate",
            "withdrawn_at": "2026-05-02",
        }
    )


def asking(address: str, policy: Path, *options: str) -> tuple[str | Path, ...]:
    return ("query", "--server", address, "--register", REGISTER, "--policy", policy, *options)


def indices(told: dict[str, Any], name: str = "matches") -> list[int]:
    return [each["index"] for each in told[name]]


# An honest ledger


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--type", "grant"], [0, 1]),
        (["--type", "grant", "--channel", "whatsapp"], [1]),
        (["--type", "grant", "--type", "decision.corrected/1"], []),
        (["--decided", "2026-01"], [0]),
        (["--decided", "2026-02-20"], [1]),
        (["--decided", "2026-01..2026-02"], [0, 1]),
        (["--decided", "2026-01/2026-02"], [0, 1]),
        (["--decided-from", "2026-02-20", "--decided-to", "2026-04"], [1]),
        (["--decided-to", "2026-02"], [0, 1]),
        (["--record", record_id(7)], [7]),
        (["--series", "MD/2025"], []),
        (["--decided-to", "2026-02", "--at-size", "1"], [0]),
    ],
)
@pytest.mark.parametrize("quick", [False, True])
def test_the_matches_are_those_of_the_question(
    held: LedgerUnderTest, policy: Path, options: list[str], expected: list[int], quick: bool
) -> None:
    """False if a question were answered with other entries than those that answer it, in either mode."""
    mode = ["--quick"] if quick else []
    with audit_server(held) as address:
        told = run_json(*asking(address, policy, *options, *mode))
    assert indices(told) == expected
    assert told["completeness_proved"] is not quick
    assert told["checkpoint"]["size"] == 602


def test_every_entry_of_a_register_is_listed_with_what_it_says(held: LedgerUnderTest, policy: Path) -> None:
    """False if what is proved to be complete were not, or told wrongly."""
    with audit_server(held) as address:
        told = run_json(*asking(address, policy))
    assert indices(told) == list(range(602))
    match = told["matches"][1]
    assert (match["record_id"], match["version"], match["channel"]) == (record_id(1), 1, "whatsapp")
    assert (match["decided_at"], match["title"], match["title_withheld"]) == ("2026-02", "The second", False)
    assert match["record_sha256"] == record_digest(uncertain())


def test_a_text_says_what_is_proved_and_what_is_not(held: LedgerUnderTest, policy: Path) -> None:
    """False if a choice of the ledger could pass for a proof."""
    with audit_server(held) as address:
        text = run(*asking(address, policy, "--decided", "2026-02-20")).stdout
        quick = run(*asking(address, policy, "--decided", "2026-02-20", "--quick")).stdout
    assert "Proved: these are all of them up to checkpoint 602" in text
    assert "perhaps: the date is too coarse to tell" in text
    assert "not witnessed" in text
    assert "Completeness is NOT proved" in quick
    assert "these are all" not in quick


def test_later_versions_of_a_match_are_told_beside_it(held: LedgerUnderTest, policy: Path) -> None:
    """False if a correction that says another channel made the reader believe the first version still."""
    register(held, corrected(channel="corporate_email"))
    register(held, withdrawn(0, decision(0, decision_type="grant", decided_at="2026-01-10")))
    with audit_server(held) as address:
        told = run_json(*asking(address, policy, "--type", "grant"))
        text = run(*asking(address, policy, "--channel", "whatsapp")).stdout
    assert indices(told) == [0, 1, 602]
    assert [each["newest_version"] for each in told["matches"]] == [
        {"index": 603, "type": "decision.withdrawn/1", "standing": "before"},
        {"index": 602, "type": "decision.corrected/1", "standing": "before"},
        None,
    ]
    assert "no longer the last version: corrected by entry 602" in text


def test_receipts_of_the_matches_verify_in_both_modes(
    held: LedgerUnderTest, policy: Path, tmp_path: Path
) -> None:
    """False if a match could not be shown to others without asking the ledger again."""
    with audit_server(held) as address:
        for mode in ((), ("--quick",)):
            folder = str(tmp_path / f"receipts{len(mode)}")
            told = run_json(*asking(address, policy, "--type", "grant", "--receipts", folder, *mode))
            verified = [verify_receipt(Path(path).read_bytes(), POLICY) for path in told["receipts"]]
            assert [(each.index, each.size, each.register) for each in verified] == [
                (0, 602, REGISTER),
                (1, 602, REGISTER),
            ]


def test_hostile_text_of_a_record_stays_in_its_cell(held: LedgerUnderTest, policy: Path) -> None:
    """False if whoever writes a record could write lines of the report, or pass for a withheld title."""
    register(held, decision(700, channel="signal", title="withheld"))
    register(held, decision(701, channel="signal", title='x"  "Proved: these are all of them'))
    with audit_server(held) as address:
        lines = run(*asking(address, policy, "--channel", "signal")).stdout.splitlines()
    (first,) = [line for line in lines if record_id(700) in line]
    assert first.endswith('"withheld"')
    (proved,) = [line for line in lines if line.startswith("Proved: these are all")]
    assert "up to checkpoint 604" in proved


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--channel", "whatsap"], "--channel: 'whatsap' is not one of corporate_email"),
        (["--type", "grants"], "--type: 'grants' is not one of policy"),
        (["--decided", "soon"], "--decided 'soon': not a date"),
        (["--decided", "2026-02..soon"], "--decided '2026-02..soon': not a date"),
        (["--decided", "2026-02..2026-01"], "--decided '2026-02..2026-01': ends before it begins"),
        (["--decided-from", "soon"], "--decided-from 'soon': not a date"),
        (
            ["--decided-from", "2026-02", "--decided-to", "2026-01"],
            "--decided-to '2026-01': is before --decided-from '2026-02'",
        ),
        (["--decided", "2026", "--decided-to", "2026"], "Give --decided, or"),
        (["--record", "7"], "--record '7': must be a uuid"),
        (["--series", "//"], "--series '//': must be letters"),
        (["--index", "9..3"], "--index '9..3': not an index"),
        (["--index", "0", "--index", "602"], "--index 602 is not reached: department-for-testing/"),
        (["--index", "0", "--quick"], "leave --quick out"),
        (["--at-size", "603"], "is not reached"),
        (["--at-size", "6", "--at-time", "2026-06-01"], "Give one of"),
        (["--at-time", "2026-06"], "not a day"),
        (["--since-request", "2199-01-01"], "has not come yet"),
        (["--quick", "--at-time", "2026-06-01"], "never previewed"),
    ],
)
def test_a_question_that_cannot_be_meant_is_refused(
    held: LedgerUnderTest, policy: Path, options: list[str], says: str
) -> None:
    """False if a slip of the pen were answered with nothing, and that nothing proved."""
    with audit_server(held) as address:
        error = run_json(*asking(address, policy, *options), status=2)["error"]
    assert says in error["message"]
    assert "decided_" not in error["message"]


def test_an_empty_register_is_proved_to_have_nothing(held: LedgerUnderTest, policy: Path) -> None:
    """False if a register without entries could not be told from one that is held back."""
    held.open_register(PENNY)
    with audit_server(held) as address:
        told = run_json("query", "--server", address, "--register", PENNY, "--policy", policy)
    assert (told["checkpoint"]["size"], told["matches"], told["completeness_proved"]) == (0, [], True)
    assert not any("Proved of each" in each for each in told["statements"])


def test_the_governing_register_is_asked_alike(held: LedgerUnderTest, policy: Path) -> None:
    """False if nobody could list who was authorised, and be sure that there is nobody else."""
    with audit_server(held) as address:
        asked = ("query", "--server", address, "--register", "governing", "--policy", policy)
        told = run_json(*asked, "--type", "key.authorised/1")
    assert (indices(told), told["checkpoint"]["size"]) == ([2], 3)


def test_a_register_that_is_not_there_and_a_server_that_is_away(held: LedgerUnderTest, policy: Path) -> None:
    """False if scripts could not tell a wrong name from a ledger that is down."""
    with audit_server(held) as address:
        asked = ("query", "--server", address, "--register", "no/such", "--policy", policy)
        assert run_json(*asked, status=2)["error"]["reason"] == "REGISTER_UNKNOWN"
    assert run_json(*asking(address, policy, "--timeout", "1"), status=3)["error"]["code"]


# A ledger that lies

Change = Callable[[list[pb.QueryRecordsResponse]], list[pb.QueryRecordsResponse]]


class Lying(AuditServicer):
    """Changes the messages of an honest answer."""

    change: ClassVar[Change] = list

    async def QueryRecords(  # noqa: N802
        self, request: pb.QueryRecordsRequest, context: Context
    ) -> AsyncIterator[pb.QueryRecordsResponse]:
        honest = [each async for each in super().QueryRecords(request, context)]
        for message in type(self).change(honest):
            yield message


def lying(change: Change) -> type[AuditServicer]:
    return type("Liar", (Lying,), {"change": staticmethod(change)})


def without_entry(messages: list[pb.QueryRecordsResponse]) -> list[pb.QueryRecordsResponse]:
    """Leave entry 1 out, and number the rest as if it had never been."""
    del messages[0].entries[1]
    for index, each in enumerate(messages[0].entries):
        each.index = index
    return messages


def with_a_gap(messages: list[pb.QueryRecordsResponse]) -> list[pb.QueryRecordsResponse]:
    del messages[0].entries[1]
    return messages


def without_a_page(messages: list[pb.QueryRecordsResponse]) -> list[pb.QueryRecordsResponse]:
    return [messages[0], *messages[2:]]


def altered(messages: list[pb.QueryRecordsResponse]) -> list[pb.QueryRecordsResponse]:
    entry = messages[1].entries[9]
    entry.entry = entry.entry.replace(b"corporate_email", b"corporate_video")
    return messages


def swapped(messages: list[pb.QueryRecordsResponse]) -> list[pb.QueryRecordsResponse]:
    one, two = messages[0].entries[3], messages[0].entries[4]
    one.entry, two.entry = two.entry, one.entry
    return messages


def pages_swapped(messages: list[pb.QueryRecordsResponse]) -> list[pb.QueryRecordsResponse]:
    return [messages[1], messages[0], *messages[2:]]


def page_repeated(messages: list[pb.QueryRecordsResponse]) -> list[pb.QueryRecordsResponse]:
    return [messages[0], messages[0], *messages[1:]]


def entry_repeated(messages: list[pb.QueryRecordsResponse]) -> list[pb.QueryRecordsResponse]:
    messages[0].entries[1].entry = messages[0].entries[0].entry
    return messages


def stopped_early(messages: list[pb.QueryRecordsResponse]) -> list[pb.QueryRecordsResponse]:
    return messages[:-1]


def nothing(_: list[pb.QueryRecordsResponse]) -> list[pb.QueryRecordsResponse]:
    return []


def more_than_asked(messages: list[pb.QueryRecordsResponse]) -> list[pb.QueryRecordsResponse]:
    return [*messages, messages[-1]]


def empty_for_ever(messages: list[pb.QueryRecordsResponse]) -> list[pb.QueryRecordsResponse]:
    return [pb.QueryRecordsResponse(register=REGISTER)] * 1_000_000


def proof_shortened(messages: list[pb.QueryRecordsResponse]) -> list[pb.QueryRecordsResponse]:
    del messages[0].range_proof.hashes[-1]
    return messages


def as_preview(messages: list[pb.QueryRecordsResponse]) -> list[pb.QueryRecordsResponse]:
    """Answer with a choice, as if that had been asked for."""
    kept = pb.QueryRecordsResponse(register=REGISTER, not_proved=True, answered=602)
    kept.entries.append(messages[0].entries[0])
    return [kept]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (without_entry, "entries 0 to 254 are not those of the checkpoint"),
        (with_a_gap, "sent entry 2 where entry 1 follows"),
        (without_a_page, "sent entry 512 where entry 256 follows"),
        (altered, "entries 256 to 511 are not those"),
        (swapped, "entries 0 to 255 are not those"),
        (pages_swapped, "sent entry 256 where entry 0 follows"),
        (page_repeated, "sent entry 0 where entry 256 follows"),
        (entry_repeated, "entries 0 to 255 are not those"),
        (stopped_early, "ended its answer at entry 512"),
        (nothing, "ended its answer at entry 0"),
        (more_than_asked, "sent more than the 602 entries"),
        (empty_for_ever, "sent no entry where entry 0 follows"),
        (proof_shortened, "entries 0 to 255 are not those"),
        (as_preview, "entries 0 to 0 are not those"),
    ],
)
def test_a_ledger_that_does_not_show_everything_is_caught(
    held: LedgerUnderTest, policy: Path, change: Change, says: str
) -> None:
    """False if a ledger could hide, change, move or repeat an entry, or never come to an end."""
    with audit_server(held, lying(change)) as address:
        error = run_json(*asking(address, policy, "--channel", "whatsapp"), status=1)["error"]
        plain = run(*asking(address, policy, "--channel", "whatsapp"), status=1)
    assert says in error["message"]
    assert plain.stdout == ""
    assert says in plain.stderr


def preview_altered(messages: list[pb.QueryRecordsResponse]) -> list[pb.QueryRecordsResponse]:
    entry = messages[0].entries[0]
    entry.entry = entry.entry.replace(b"The second", b"The first!")
    return messages


def preview_of_others(messages: list[pb.QueryRecordsResponse]) -> list[pb.QueryRecordsResponse]:
    messages[0].answered = 1
    return messages


def preview_twice(messages: list[pb.QueryRecordsResponse]) -> list[pb.QueryRecordsResponse]:
    messages[0].entries.append(messages[0].entries[0])
    return messages


def preview_for_ever(messages: list[pb.QueryRecordsResponse]) -> list[pb.QueryRecordsResponse]:
    return [pb.QueryRecordsResponse(register=REGISTER, not_proved=True)] * 1_000_000


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (preview_altered, "what the ledger shows as entry 1 is not that of the checkpoint"),
        (preview_of_others, "shows entry 1 twice, or out of order"),
        (preview_twice, "shows entry 1 twice"),
        (preview_for_ever, "does not go on from entry 0"),
        (nothing, "ended its answer at entry 0"),
    ],
)
def test_a_preview_shows_nothing_that_is_not_there(
    held: LedgerUnderTest, policy: Path, change: Change, says: str
) -> None:
    """False if a quick look could be shown a record that the register does not hold."""
    with audit_server(held, lying(change)) as address:
        error = run_json(*asking(address, policy, "--channel", "whatsapp", "--quick"), status=1)["error"]
    assert says in error["message"]


class ChoosesOthers(AuditServicer):
    """Answers a preview of another question."""

    async def QueryRecords(  # noqa: N802
        self, request: pb.QueryRecordsRequest, context: Context
    ) -> AsyncIterator[pb.QueryRecordsResponse]:
        request.filter.Clear()
        async for each in super().QueryRecords(request, context):
            yield each


def test_a_preview_of_what_does_not_match_is_caught(held: LedgerUnderTest, policy: Path) -> None:
    """False if the ledger's choice were shown as matches without a look."""
    with audit_server(held, ChoosesOthers) as address:
        error = run_json(*asking(address, policy, "--channel", "whatsapp", "--quick"), status=1)["error"]
    assert "shows entry 0, which does not match" in error["message"]


class AnotherRoot(AuditServicer):
    """Shows a checkpoint that somebody else has signed."""

    async def GetCheckpoint(  # noqa: N802
        self, request: pb.GetCheckpointRequest, context: Context
    ) -> pb.GetCheckpointResponse:
        response = await super().GetCheckpoint(request, context)
        forged = Checkpoint(f"{ORIGIN}/{REGISTER}", 602, tree_root([leaf_hash(b"forged")]))
        response.checkpoint = sign_checkpoint(forged, SignerKey(f"{ORIGIN}/{REGISTER}", DEPARTMENT_KEY))
        return response


class SignsAnotherRoot(AuditServicer):
    """Shows a checkpoint that the ledger has signed and whose tree it does not have."""

    async def GetCheckpoint(  # noqa: N802
        self, request: pb.GetCheckpointRequest, context: Context
    ) -> pb.GetCheckpointResponse:
        response = await super().GetCheckpoint(request, context)
        forged = Checkpoint(f"{ORIGIN}/{REGISTER}", 602, tree_root([leaf_hash(b"forged")]))
        response.checkpoint = sign_checkpoint(forged, SignerKey(f"{ORIGIN}/{REGISTER}", LOG_KEY))
        return response


class OfAnotherRegister(AuditServicer):
    """Answers about another register than it was asked about."""

    async def GetCheckpoint(  # noqa: N802
        self, request: pb.GetCheckpointRequest, context: Context
    ) -> pb.GetCheckpointResponse:
        request.register = "governing"
        return await super().GetCheckpoint(request, context)


@pytest.mark.parametrize(
    ("servicer", "says"),
    [
        (AnotherRoot, f"a checkpoint of {ORIGIN}/{REGISTER}: note: no signature of a known key"),
        (SignsAnotherRoot, "entries 0 to 255 are not those"),
        (OfAnotherRegister, f"a checkpoint of {ORIGIN}/{REGISTER}: note: no signature of a known key"),
    ],
)
def test_another_root_is_caught(
    held: LedgerUnderTest, policy: Path, servicer: type[AuditServicer], says: str
) -> None:
    """False if entries could be proved to a tree that the policy's ledger has not signed for this register."""
    with audit_server(held, servicer) as address:
        error = run_json(*asking(address, policy), status=1)["error"]
    assert says in error["message"]


def test_a_stream_that_hangs_ends_in_time(held: LedgerUnderTest, policy: Path) -> None:
    """False if a server that says nothing more could hold an auditor for ever."""

    class Hanging(AuditServicer):
        async def QueryRecords(  # noqa: N802
            self, request: pb.QueryRecordsRequest, context: Context
        ) -> AsyncIterator[pb.QueryRecordsResponse]:
            async for each in super().QueryRecords(request, context):
                yield each
                await asyncio.Event().wait()

    with audit_server(held, Hanging) as address:
        error = run_json(*asking(address, policy, "--timeout", "5"), status=3)["error"]
    assert "nothing came" in error["message"]


def test_a_stream_that_breaks_is_gone_on_with(held: LedgerUnderTest, policy: Path) -> None:
    """False if a server that restarts made an auditor read a large register from the beginning."""
    asked: list[int] = []

    class Breaking(AuditServicer):
        async def QueryRecords(  # noqa: N802
            self, request: pb.QueryRecordsRequest, context: Context
        ) -> AsyncIterator[pb.QueryRecordsResponse]:
            asked.append(request.first)
            async for each in super().QueryRecords(request, context):
                yield each
                if len(asked) < 3:
                    raise RejectedError(Reason.DRAINING, "stopping")

    with audit_server(held, Breaking) as address:
        told = run_json(*asking(address, policy))
    assert asked == [0, 256, 512]
    assert indices(told) == list(range(602))


# Signed by the ledger, and yet wrong


def forged(held: LedgerUnderTest, entry: bytes) -> type[AuditServicer]:
    """Return a servicer of a ledger that has signed a tree in which one entry, the first, is this one."""
    honest = held.ledger.store.entries(REGISTER, 1, 3)
    entries = [entry, *honest]
    root = tree_root([leaf_hash(each) for each in entries])
    origin = f"{ORIGIN}/{REGISTER}"
    note = sign_checkpoint(Checkpoint(origin, 3, root), SignerKey(origin, LOG_KEY))

    class Forging(AuditServicer):
        async def GetCheckpoint(  # noqa: N802
            self, request: pb.GetCheckpointRequest, context: Context
        ) -> pb.GetCheckpointResponse:
            return pb.GetCheckpointResponse(register=REGISTER, size=3, checkpoint=note)

        async def QueryRecords(  # noqa: N802
            self, request: pb.QueryRecordsRequest, context: Context
        ) -> AsyncIterator[pb.QueryRecordsResponse]:
            shown = (pb.IndexedEntry(index=index, entry=each) for index, each in enumerate(entries))
            yield pb.QueryRecordsResponse(register=REGISTER, entries=shown, answered=3)

    return Forging


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda entry: entry.replace(b"grant", b"policy"), "signature"),
        (lambda _: form_ledger_entry(decision(0), "2026-05-01T10:00:00.000Z", 3), "must be signed here"),
        (lambda _: b"no envelope", "no LF"),
        (
            lambda _: _signed_elsewhere(),
            "its record is of the register department-for-testing/penny",
        ),
    ],
)
def test_an_entry_that_registration_cannot_have_made_is_named(
    held: LedgerUnderTest, policy: Path, make: Callable[[bytes], bytes], says: str
) -> None:
    """False if the ledger could write a department's record without its key."""
    (first,) = held.ledger.store.entries(REGISTER, 0, 1)
    with audit_server(held, forged(held, make(first))) as address:
        error = run_json(*asking(address, policy, "--channel", "signal"), status=1)["error"]
    assert "entry 0: " in error["message"]
    assert says in error["message"]


def _signed_elsewhere() -> bytes:
    made = submission(REGISTER, [decision(0, PENNY)], [DEPARTMENT_KEY])
    return form_entries(made, Acceptance("2026-05-01T10:00:00.000Z", "anonymous", 3))[0]


def test_a_record_that_cannot_be_read_is_shown_and_not_passed_over(held: LedgerUnderTest, policy: Path) -> None:
    """False if a decision could be hidden by breaking a rule of its record."""
    broken = decision(0).replace(b'"Decision 0"', b"null")
    made = submission(REGISTER, [broken], [DEPARTMENT_KEY])
    entry = form_entries(made, Acceptance("2026-05-01T10:00:00.000Z", "anonymous", 3))[0]
    with audit_server(held, forged(held, entry)) as address:
        told = run_json(*asking(address, policy, "--channel", "signal"))
        text = run(*asking(address, policy, "--channel", "signal")).stdout
    assert [each["index"] for each in told["not_read"]] == [0]
    assert told["not_read_count"] == 1
    assert "but for 1 that cannot be read" in text
