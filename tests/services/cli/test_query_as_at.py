"""`daybook query` as at a moment: the witnesses' times decide, and whatever they leave open is said.

The register has two decisions, sealed on the 14th of November 2023 at 22:13:20; a correction of the second,
sealed a day later; a third decision, sealed yet a day later; and a fourth, a day after that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from daybook.audit.v1 import audit_service_pb2 as pb

from ledger.admission import instant
from ledger.checkpoints import Checkpoint, sign_checkpoint
from ledger.hashing import leaf_hash
from ledger.notes import SignerKey, format_note, split_note
from ledger.stores.memory import MemoryStore
from ledger.tree import tree_root
from ledger.witnessing import Policy, cosign
from services.audit import AuditServicer
from services.receiving import Context
from tests.services.cli.test_query import asking, corrected, indices, policy_file, register, uncertain
from tests.support.audit_server import audit_server, seal, witnessed
from tests.support.command import run, run_json
from tests.support.ledgers import (
    EPOCH,
    LOG_KEY,
    ORIGIN,
    POLICY,
    REGISTER,
    LedgerUnderTest,
    decision,
    open_ledger,
)
from tests.support.monitored import BEGAN, WITNESSED, WITNESSES

DAY = 86_400


@pytest.fixture
def held(tmp_path: Path) -> LedgerUnderTest:
    held = witnessed(open_ledger(MemoryStore(), tmp_path / "marks"))
    register(held, decision(0), uncertain())
    seal(held, BEGAN)
    register(held, corrected(channel="corporate_email"))
    seal(held, BEGAN + DAY)
    register(held, decision(2))
    seal(held, BEGAN + 2 * DAY)
    register(held, decision(3))
    seal(held, BEGAN + 3 * DAY)
    return held


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return policy_file(tmp_path, WITNESSED.text())


def standings(told: dict[str, Any]) -> dict[int, str]:
    return {each["index"]: each["standing"] for name in ("matches", "since") for each in told[name]}


def test_the_register_as_it_stood_at_a_size(held: LedgerUnderTest, policy: Path) -> None:
    """False if what was corrected or added later showed through, or were not said to have come."""
    with audit_server(held) as address:
        told = run_json(*asking(address, policy, "--at-size", "2"))
        text = run(*asking(address, policy, "--at-size", "2")).stdout
    assert (indices(told), indices(told, "since")) == ([0, 1], [2, 3, 4])
    assert [each["newest_version"] for each in told["matches"]] == [None, None]
    view, since = text.split("Since then\n")
    assert "decision.corrected/1" not in view
    assert "Since then: 2 added that match, 1 that correct, withdraw or replace one." in since
    assert told["checkpoint"]["witnessed"]
    assert told["checkpoint"]["sealed_by"] == "2023-11-17T22:13:20Z"


def test_a_correction_that_matches_no_more_is_said_to_have_come_since(
    held: LedgerUnderTest, policy: Path
) -> None:
    """False if a correction away from the question's channel could pass unseen."""
    with audit_server(held) as address:
        told = run_json(*asking(address, policy, "--at-size", "2", "--channel", "whatsapp"))
    assert (indices(told), indices(told, "since")) == ([1], [2])


def test_what_becomes_of_a_record_that_was_added_since_is_told_too(held: LedgerUnderTest, policy: Path) -> None:
    """False if a decision could be registered and corrected away between two looks."""
    with audit_server(held) as address:
        told = run_json(*asking(address, policy, "--at-size", "0", "--channel", "whatsapp"))
    assert (indices(told), indices(told, "since")) == ([], [1, 2])


def test_at_a_moment_witnesses_decide_and_what_they_leave_open_has_its_window(
    held: LedgerUnderTest, policy: Path
) -> None:
    """False if the ledger's own clock decided what a requester could have been given."""
    with audit_server(held) as address:
        told = run_json(*asking(address, policy, "--at-time", "2023-11-15T12:00Z"))
        text = run(*asking(address, policy, "--at-time", "2023-11-15T12:00Z")).stdout
    assert standings(told) == {0: "before", 1: "before", 2: "before or after", 3: "after", 4: "after"}
    assert told["as_at"]["proved"]
    assert (told["as_at"]["known_size"], told["as_at"]["later_from"]) == (2, 3)
    (straddling,) = [each for each in told["matches"] if each["index"] == 2]
    assert (straddling["not_before"], straddling["not_after"]) == (instant_of(0), instant_of(DAY))
    assert f"came in after {instant_of(0)}, and by {instant_of(DAY)}" in text
    assert "perhaps no longer the last version: corrected by entry 2" in text
    assert "2 entries match, as it stood then." in told["statements"]
    assert any(each.startswith("1 entry matches that may have come in before") for each in told["statements"])


def instant_of(seconds: int) -> str:
    return instant(BEGAN + seconds).replace(".000Z", "Z")


def test_that_nothing_was_added_is_proved_by_a_second_cosignature(tmp_path: Path, policy: Path) -> None:
    """False if a witness's later word on the same size did not narrow the window."""
    held = witnessed(open_ledger(MemoryStore(), tmp_path / "marks2"))
    register(held, decision(0))
    seal(held, BEGAN)
    seal(held, BEGAN + DAY)
    register(held, decision(1))
    seal(held, BEGAN + 2 * DAY)
    with audit_server(held) as address:
        told = run_json(*asking(address, policy, "--at-time", "2023-11-15T12:00Z"))
    assert standings(told) == {0: "before", 1: "after"}


def test_a_date_is_a_whole_day_in_london(held: LedgerUnderTest, policy: Path) -> None:
    """False if an entry of the day itself were said to be before the request, or after it."""
    with audit_server(held) as address:
        told = run_json(*asking(address, policy, "--since-request", "2023-11-15"))
        text = run(*asking(address, policy, "--since-request", "2023-11-15")).stdout
        summer = run_json(*asking(address, policy, "--since-request", "2023-07-01"))
    either = "before or after"
    assert standings(told) == {0: "before", 1: "before", 2: either, 3: either, 4: "after"}
    marked = [line for line in text.splitlines() if "AFTER the request" in line]
    assert len(marked) == 1
    assert "registered" in marked[0]
    assert (summer["as_at"]["earliest"], summer["as_at"]["latest"]) == (
        "2023-06-30T23:00:00Z",
        "2023-07-01T22:59:59Z",
    )
    # Before there was any cosignature nothing is known to have been there, and nothing to have come later
    # but what follows the first.
    assert standings(summer) == {0: either, 1: either, 2: "after", 3: "after", 4: "after"}


def test_an_amendment_after_the_request_is_marked(held: LedgerUnderTest, policy: Path) -> None:
    """False if a record could be changed in answer to a request, and nobody be told."""
    with audit_server(held) as address:
        text = run(*asking(address, policy, "--since-request", "2023-11-14T22:13:20Z")).stdout
        told = run_json(*asking(address, policy, "--since-request", "2023-11-14T12:00Z"))
    assert "before or after: came in after 2023-11-14T22:13:20Z, and by 2023-11-15T22:13:20Z" in text
    assert standings(told)[2] == "after"
    (amended,) = [each for each in told["since"] if each["index"] == 2]
    assert amended["type"] == "decision.corrected/1"


def test_without_witnesses_a_moment_is_the_operators_word(tmp_path: Path) -> None:
    """False if `accepted_at` passed for a proof of time. Turns are one second apart."""
    held = open_ledger(MemoryStore(), tmp_path / "marks")
    register(held, decision(0))
    register(held, decision(1))
    policy = policy_file(tmp_path, POLICY.text())
    at = instant(EPOCH + 3).replace(".000Z", "Z")
    with audit_server(held) as address:
        told = run_json(*asking(address, policy, "--at-time", at))
        text = run(*asking(address, policy, "--at-time", at)).stdout
    assert standings(told) == {0: "before", 1: "after"}
    assert not told["as_at"]["proved"]
    assert "the operator's word, and no proof" in text


def test_what_is_not_sealed_for_the_reader_is_not_answered_about(
    tmp_path: Path, policy: Path, held: LedgerUnderTest
) -> None:
    """False if a checkpoint that witnesses have not seen counted under a policy that asks for them."""
    unsealed = witnessed(open_ledger(MemoryStore(), tmp_path / "a"))
    register(unsealed, decision(0))
    with audit_server(unsealed) as address:
        assert run_json(*asking(address, policy), status=3)["error"]["reason"] == "NOT_SEALED"
    without = open_ledger(MemoryStore(), tmp_path / "b")
    with audit_server(without) as address:
        assert run_json(*asking(address, policy), status=3)["error"]["reason"] == "NOT_SEALED"
    three = Policy.parse(WITNESSED.text().replace(b"two-of-three 2", b"two-of-three 3"))
    with audit_server(held) as address:
        error = run_json(*asking(address, policy_file(tmp_path, three.text())), status=3)["error"]
    assert error["reason"] == "NOT_SEALED"


# A ledger that lies about time


class ClaimsLater(AuditServicer):
    """Says of every entry that it came in late, and shows the notes that it has."""

    async def GetTimeBounds(  # noqa: N802
        self, request: pb.GetTimeBoundsRequest, context: Context
    ) -> pb.GetTimeBoundsResponse:
        response = await super().GetTimeBounds(request, context)
        response.not_before = BEGAN + 30 * DAY
        return response


class ClaimsEarlier(AuditServicer):
    """Shows as the checkpoint as at a time what was cosigned after it."""

    async def GetCheckpoint(  # noqa: N802
        self, request: pb.GetCheckpointRequest, context: Context
    ) -> pb.GetCheckpointResponse:
        request.ClearField("as_at")
        return await super().GetCheckpoint(request, context)


class Forked(AuditServicer):
    """Shows as the checkpoint as at a time one of another history, sealed with the witnesses' help."""

    size = 1

    async def GetCheckpoint(  # noqa: N802
        self, request: pb.GetCheckpointRequest, context: Context
    ) -> pb.GetCheckpointResponse:
        response = await super().GetCheckpoint(request, context)
        if request.HasField("time"):
            origin = f"{ORIGIN}/{REGISTER}"
            root = tree_root([leaf_hash(b"%d" % number) for number in range(type(self).size)])
            other = Checkpoint(origin, type(self).size, root)
            text, lines = split_note(sign_checkpoint(other, SignerKey(origin, LOG_KEY)))
            cosigned = [cosign(other, WITNESSES[name], BEGAN) for name in ("one", "two")]
            response.checkpoint = format_note(text, [*lines, *cosigned])
        return response


class ForkedAtOurSize(Forked):
    size = 5


class Inconsistent(AuditServicer):
    """Proves nothing of its older checkpoints."""

    async def GetConsistencyProof(  # noqa: N802
        self, request: pb.GetConsistencyProofRequest, context: Context
    ) -> pb.GetConsistencyProofResponse:
        response = await super().GetConsistencyProof(request, context)
        response.hashes[0] = bytes(32)
        return response


@pytest.mark.parametrize(
    ("servicer", "reason", "says"),
    [
        (ClaimsLater, "VERIFICATION_FAILED", "entry 2 came in after 2023-11-15T12:00:59Z, and shows no"),
        (ClaimsEarlier, "VERIFICATION_FAILED", "of 5 entries, no quorum had cosigned by then"),
        (Forked, "PROOF_INVALID", "shows a checkpoint of 1 entries, and does not prove"),
        (ForkedAtOurSize, "SPLIT_VIEW", "two histories of"),
        (Inconsistent, "PROOF_INVALID", "shows a checkpoint of 2 entries, and does not prove"),
    ],
)
def test_a_time_that_is_not_proved_is_not_believed(
    held: LedgerUnderTest, policy: Path, servicer: type[AuditServicer], reason: str, says: str
) -> None:
    """False if the ledger could move a record before a request, or after it."""
    with audit_server(held, servicer) as address:
        asked = asking(address, policy, "--at-time", "2023-11-15T12:00Z")
        error = run_json(*asked, status=1)["error"]
    assert error["reason"] == reason
    assert says in error["message"]


class Withholding(AuditServicer):
    """Shows no older checkpoint and no time at all."""

    async def GetCheckpoint(  # noqa: N802
        self, request: pb.GetCheckpointRequest, context: Context
    ) -> pb.GetCheckpointResponse:
        response = await super().GetCheckpoint(request, context)
        if request.HasField("time"):
            origin = f"{ORIGIN}/{REGISTER}"
            nothing = Checkpoint(origin, 0, tree_root([]))
            text, lines = split_note(sign_checkpoint(nothing, SignerKey(origin, LOG_KEY)))
            cosigned = [cosign(nothing, WITNESSES[name], BEGAN - DAY) for name in ("one", "two")]
            response.checkpoint = format_note(text, [*lines, *cosigned])
        return response

    async def GetTimeBounds(  # noqa: N802
        self, request: pb.GetTimeBoundsRequest, context: Context
    ) -> pb.GetTimeBoundsResponse:
        return pb.GetTimeBoundsResponse(register=request.register, index=request.index)


def test_a_ledger_that_withholds_times_proves_less_and_nothing_wrong(
    held: LedgerUnderTest, policy: Path
) -> None:
    """False if silence could make an entry early or late."""
    with audit_server(held, Withholding) as address:
        told = run_json(*asking(address, policy, "--at-time", "2023-11-15T12:00Z"))
    assert set(standings(told).values()) == {"before or after"}
