"""The request add-checkpoint and how a witness decides (C2SP tlog-witness; specs/witness.md, section 2)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import base64
from ledger.add_checkpoint import (
    MAX_PROOF,
    AddCheckpoint,
    CheckpointRefusedError,
    Contradiction,
    check_follows,
    contradiction,
    open_submitted,
)
from ledger.checkpoints import Checkpoint
from ledger.errors import MalformedError
from ledger.hashing import EMPTY_ROOT, Hash
from ledger.notes import COSIGNATURE_V1, SignerKey, VerifierKey, cosignature_line, sign_note
from tests.support.growing_log import GrowingLog, key
from tests.support.vectors import VECTORS

ORIGIN = "daybook.example/register/dept-a"
DEPT_A = VerifierKey.parse(
    "daybook.example/register/dept-a+374327f9+Ae7AIwA2YJWB1b9jSaTbE1wBMPGRChF0vgvMOZ/p6360"
)
FIRST = (VECTORS / "c2sp" / "add-checkpoint-0-to-7").read_bytes()
GROWTH = (VECTORS / "c2sp" / "add-checkpoint-7-to-13").read_bytes()

LOG = GrowingLog("log.example/a")
KEYS = (LOG.signer.verifier,)
HASH = b"A" * 43 + b"="
NOTE = b"o\n1\nr\n\n\xe2\x80\x94 o AAAAAAA=\n"

hashes = st.binary(min_size=32, max_size=32).map(Hash)


def status(
    request: AddCheckpoint, latest: Checkpoint | None = None, keys: tuple[VerifierKey, ...] = KEYS
) -> int:
    """Return how a witness answers: 200, or the status of its refusal."""
    try:
        check_follows(request, open_submitted(request, keys).checkpoint, latest)
    except CheckpointRefusedError as refusal:
        return refusal.status
    return 200


def signed(text: str, log: GrowingLog = LOG) -> bytes:
    return sign_note(text.encode(), [log.signer])


def root(size: int) -> str:
    return base64.encode(LOG.root(size))


# The request


@pytest.mark.parametrize("body", [FIRST, GROWTH], ids=["first", "growth"])
def test_the_requests_of_the_specification_are_parsed_and_made_again(body: bytes) -> None:
    """If false, no foreign witness would understand ours, or ours no foreign log."""
    request = AddCheckpoint.parse(body)
    assert request.data() == body
    assert request.origin == ORIGIN


@given(st.integers(0, 2**63 - 1), st.lists(hashes, max_size=MAX_PROOF).map(tuple), st.binary(max_size=200))
def test_a_request_survives_its_own_bytes(old: int, proof: tuple[Hash, ...], note: bytes) -> None:
    """If false, a blank line within a note, or some size, would be read as something else."""
    request = AddCheckpoint(old, proof, note)
    assert AddCheckpoint.parse(request.data()) == request


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n\n" + NOTE,
        b"old 0\n" + NOTE.replace(b"\n\n", b"\n"),
        b"old 0",
        b"old\n\n" + NOTE,
        b"old \n\n" + NOTE,
        b"Old 0\n\n" + NOTE,
        b"size 0\n\n" + NOTE,
        b" old 0\n\n" + NOTE,
        b"old  0\n\n" + NOTE,
        b"old 00\n\n" + NOTE,
        b"old 07\n\n" + NOTE,
        b"old +7\n\n" + NOTE,
        b"old -1\n\n" + NOTE,
        b"old 7 \n\n" + NOTE,
        b"old 7_0\n\n" + NOTE,
        b"old 0x7\n\n" + NOTE,
        "old \u0667\n\n".encode() + NOTE,
        b"old 9223372036854775808\n\n" + NOTE,
        b"old 0\r\n\r\n" + NOTE,
        b"old 1\n" + HASH[:-1] + b"\n\n" + NOTE,
        b"old 1\n" + HASH[:-2] + b"B=\n\n" + NOTE,
        b"old 1\n" + HASH[4:] + b"\n\n" + NOTE,
        b"old 1\nAAAA" + HASH + b"\n\n" + NOTE,
        b"old 1\n" + HASH + b" \n\n" + NOTE,
        b"old 1\n" + b"_" * 43 + b"=\n\n" + NOTE,
        b"old 1\n" + (HASH + b"\n") * 64 + b"\n" + NOTE,
    ],
    ids=repr,
)
def test_a_body_outside_the_grammar_is_refused(body: bytes) -> None:
    """If false, one request would have two spellings, or a witness would guess what was meant."""
    with pytest.raises(MalformedError):
        AddCheckpoint.parse(body)


def test_sixty_three_hashes_are_as_many_as_are_read() -> None:
    """If false, a proof in the largest trees could not be sent, or a body could hold any number."""
    body = b"old 1\n" + (HASH + b"\n") * 63 + b"\n" + NOTE
    assert len(AddCheckpoint.parse(body).proof) == 63
    with pytest.raises(MalformedError):
        AddCheckpoint(1, (EMPTY_ROOT,) * 64, NOTE)


@pytest.mark.parametrize("old", [-1, 2**63])
def test_a_request_of_no_size_cannot_be_made(old: int) -> None:
    """If false, the ledger could send what no witness reads."""
    with pytest.raises(MalformedError):
        AddCheckpoint(old, (), NOTE)
    with pytest.raises(MalformedError):
        AddCheckpoint(0, (Hash(b"short"),), NOTE)


# The decision


def test_the_specifications_log_is_cosigned_and_grows() -> None:
    """If false, V1 and V2 of the specification would not be answered as it says."""
    first = AddCheckpoint.parse(FIRST)
    seven = open_submitted(first, [DEPT_A]).checkpoint
    assert seven.size == 7
    assert status(first, None, (DEPT_A,)) == 200
    assert status(AddCheckpoint.parse(GROWTH), seven, (DEPT_A,)) == 200
    with pytest.raises(CheckpointRefusedError) as refused:
        check_follows(replace(first, old=3), seven, seven)
    assert (refused.value.status, refused.value.latest) == (409, 7)


TABLE = {
    "first": (LOG.request(0, 5), None, 200),
    "growth": (LOG.request(5, 9), 5, 200),
    "growth from nothing": (LOG.request(0, 9), 0, 200),
    "the empty tree": (LOG.request(0, 0), None, 200),
    "again": (LOG.request(5, 5), 5, 200),
    "no such log": (LOG.request(0, 5), None, 404),
    "no note": (AddCheckpoint(0, (), b"log.example/a\n"), None, 400),
    "note with a carriage return": (AddCheckpoint(0, (), LOG.note(5).replace(b"\n", b"\r\n")), None, 400),
    "signed by nobody known": (
        AddCheckpoint(0, (), sign_note(LOG.checkpoint(5).text(), [SignerKey("log.example/a", key("other"))])),
        None,
        403,
    ),
    "signature that fails": (
        AddCheckpoint(0, (), LOG.note(5).replace(LOG.checkpoint(5).text(), LOG.checkpoint(6).text())),
        None,
        403,
    ),
    "two lines": (AddCheckpoint(0, (), signed("log.example/a\n5\n")), None, 400),
    "extension line": (AddCheckpoint(0, (), signed(f"log.example/a\n5\n{root(5)}\nx\n")), None, 400),
    "empty extension": (AddCheckpoint(0, (), signed(f"log.example/a\n5\n{root(5)}\n\nx\n")), None, 400),
    "size with a zero before": (AddCheckpoint(0, (), signed(f"log.example/a\n05\n{root(5)}\n")), None, 400),
    "short root": (AddCheckpoint(0, (), signed("log.example/a\n5\nAAAA\n")), None, 400),
    "old above the size": (LOG.request(6, 5), 6, 400),
    "empty tree with a root": (AddCheckpoint(0, (), signed(f"log.example/a\n0\n{root(5)}\n")), None, 422),
    "old below ours": (LOG.request(3, 9), 5, 409),
    "old above ours": (LOG.request(6, 9), 5, 409),
    "nothing cosigned yet": (LOG.request(3, 9), None, 409),
    "first with a proof": (LOG.request(0, 5, [EMPTY_ROOT]), None, 422),
    "proof of something else": (LOG.request(5, 9, LOG.proof(4, 9)), 5, 422),
    "no proof": (LOG.request(5, 9, []), 5, 422),
    "another history": (LOG.forked(3).request(5, 9), 5, 422),
    "another root of one size": (LOG.forked(3).request(5, 5), 5, 422),
    "again with a proof": (LOG.request(5, 5, [EMPTY_ROOT]), 5, 422),
}


@pytest.mark.parametrize("name", TABLE)
def test_every_row_of_the_table_has_its_status(name: str) -> None:
    """If false, a log would be told something else than what is wrong."""
    request, latest, expected = TABLE[name]
    keys = () if expected == 404 else KEYS
    assert status(request, None if latest is None else LOG.checkpoint(latest), keys) == expected


SEVERAL_RULES_BROKEN = {
    "unknown log and malformed note: 404": (AddCheckpoint(0, (), b"x"), (), 404),
    "malformed note and no known signature: 400": (
        AddCheckpoint(0, (), sign_note(LOG.checkpoint(5).text(), [SignerKey(LOG.origin, key("other"))])[:-1]),
        KEYS,
        400,
    ),
    "bad signature and extension line: 403": (
        AddCheckpoint(0, (), signed(f"log.example/a\n5\n{root(5)}\nx\n").replace(b"\nx\n", b"\ny\n")),
        KEYS,
        403,
    ),
    "extension line and old above the size: 400": (
        AddCheckpoint(9, (), signed(f"log.example/a\n0\n{root(5)}\nx\n")),
        KEYS,
        400,
    ),
    "old above the size, and the empty tree with a root: 400": (
        AddCheckpoint(9, (), signed(f"log.example/a\n0\n{root(5)}\n")),
        KEYS,
        400,
    ),
    "the empty tree with a root, and not our size: 422": (
        AddCheckpoint(0, (), signed(f"log.example/a\n0\n{root(5)}\n")),
        KEYS,
        422,
    ),
    "not our size, and a wrong proof: 409": (LOG.forked(3).request(4, 9), KEYS, 409),
}


@pytest.mark.parametrize("name", SEVERAL_RULES_BROKEN)
def test_of_two_broken_rules_the_earlier_one_is_told(name: str) -> None:
    """If false, the checks do not stand in the specification's order."""
    request, keys, expected = SEVERAL_RULES_BROKEN[name]
    assert status(request, LOG.checkpoint(5), keys) == expected


def test_one_failing_signature_of_a_trusted_key_is_refused_whatever_else_signed() -> None:
    """If false, a note with a broken signature of a known key would be cosigned."""
    new = SignerKey(LOG.origin, key("new"))
    both = sign_note(LOG.checkpoint(5).text(), [LOG.signer, new])
    keys = (LOG.signer.verifier, new.verifier)
    assert status(AddCheckpoint(0, (), both), None, keys) == 200
    lines = both.split(b"\n")
    broken = lines[-2][:-8] + b"AAAAAAA="
    assert status(AddCheckpoint(0, (), b"\n".join([*lines[:-2], broken, b""])), None, keys) == 403
    assert status(AddCheckpoint(0, (), b"\n".join([*lines[:-2], broken, b""])), None, KEYS) == 200


def test_lines_of_strangers_are_never_among_the_verified() -> None:
    """If false, a line planted under the witness's own name would be stored as if it were verified."""
    witness = SignerKey("witness.example/w", key("witness"))
    planted = cosignature_line(b"another text\n", witness, 1)
    opened = open_submitted(AddCheckpoint(0, (), LOG.note(5) + planted.line), KEYS)
    assert [line.name for line in opened.note.verified] == [LOG.origin]
    assert planted not in opened.note.verified


def test_bytes_that_are_no_text_are_no_known_log() -> None:
    """If false, the look-up of a log's keys would fail instead of finding none."""
    assert AddCheckpoint(0, (), b"\xff\n5\n").origin == "�"
    # Nor does it help to spell out what stands in their place.
    assert status(AddCheckpoint(0, (), b"\xff\n5\n\n" + NOTE)) == 400


def test_a_key_of_a_witness_is_not_a_key_of_a_log() -> None:
    """If false, a cosignature could pass for the log's own signature."""
    as_witness = VerifierKey(LOG.origin, COSIGNATURE_V1, LOG.signer.secret.public)
    assert status(LOG.request(0, 5), None, (as_witness,)) == 403


# What a refused checkpoint shows


@pytest.mark.parametrize("old", range(1, 18))
@pytest.mark.parametrize("size", range(1, 18))
def test_a_fork_with_its_own_proof_is_proved_wherever_the_proof_shows_our_tree(old: int, size: int) -> None:
    """If false, two histories of one log would be seen and not be called by their name."""
    if old > size:
        return
    fork = LOG.forked(old - 1)
    request = fork.request(old, size)
    found = contradiction(request, fork.checkpoint(size), LOG.checkpoint(old))
    # From a power of two the proof starts from our own root, and leads nowhere: that shows nothing.
    shown = old == size or old.bit_count() > 1
    assert found is (Contradiction.PROVED if shown else Contradiction.SUSPECTED)


@given(st.integers(1, 60), st.integers(0, 60), st.integers(0, 60), st.data())
def test_nobody_can_prove_anything_against_an_honest_log(
    old: int, more: int, claimed: int, data: st.DataObject
) -> None:
    """If false, a stranger could make an honest log look like a forger."""
    size = old + more
    proof = list(LOG.proof(old, size))
    made_up = data.draw(st.permutations([*proof, *data.draw(st.lists(hashes, max_size=3))]))
    for given_proof in (proof, made_up, proof[1:], [*proof, EMPTY_ROOT], list(LOG.proof(claimed, size))):
        request = LOG.request(claimed, size, given_proof[:MAX_PROOF])
        found = contradiction(request, LOG.checkpoint(size), LOG.checkpoint(old))
        assert found is not Contradiction.PROVED


def test_what_says_nothing_against_the_log_is_no_evidence() -> None:
    """If false, the evidence would fill up with honest mistakes."""
    five = LOG.checkpoint(5)
    nine = LOG.checkpoint(9)
    assert contradiction(LOG.request(0, 9), nine, None) is None
    assert contradiction(LOG.request(0, 9), nine, LOG.checkpoint(0)) is None
    assert contradiction(LOG.request(3, 9), nine, five) is None
    assert contradiction(LOG.request(5, 9), nine, five) is None
    assert contradiction(LOG.request(3, 5), five, nine) is None
    assert contradiction(LOG.request(5, 5, [EMPTY_ROOT]), five, five) is None


def test_another_root_of_one_size_is_proof_whatever_size_was_asked_from() -> None:
    """If false, a forked log that asks with a wrong size would leave no trace."""
    fork = LOG.forked(3)
    for old in (0, 3, 5):
        assert (
            contradiction(fork.request(old, 5), fork.checkpoint(5), LOG.checkpoint(5)) is Contradiction.PROVED
        )
