"""Evidence against a log: what is kept, that strangers cannot crowd it out, and a forked ledger."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ledger.add_checkpoint import AddCheckpoint, Contradiction
from ledger.checkpoints import Checkpoint
from ledger.notes import SignerKey, cosignature_line, format_note, open_note, split_note
from ledger.proofs import roots_from_consistency
from services.witness.directory import WitnessDirectory
from services.witness.evidence import MAX_FILES, MAX_PER_ORIGIN, Contradicted, EvidenceFolder
from services.witness.state import Cosigned
from tests.support.command import run, run_json
from tests.support.growing_log import GrowingLog, key
from tests.support.witness_process import MadeWitness, ask, call, make_witness, witnessing

WITNESS = SignerKey("witness.example/w", key("witness"))


@pytest.fixture
def made(tmp_path: Path) -> MadeWitness:
    return make_witness(tmp_path / "w", "witness.example/w")


def contradicted(log: GrowingLog, size: int, kind: Contradiction, found_at: int = 1) -> Contradicted:
    """Return evidence that size 5 and then `size` were signed."""
    ours = log.checkpoint(5)
    line = cosignature_line(ours.text(), WITNESS, found_at)
    return Contradicted(
        kind, Cosigned(ours, 1, format_note(ours.text(), [line])), log.request(5, size), found_at
    )


def test_a_forked_ledger_gets_one_of_its_histories_cosigned_and_leaves_proof_of_the_other(
    made: MadeWitness,
) -> None:
    """If false, an operator who copies the ledger and writes on in both could show two histories."""
    ledger = GrowingLog("forked.example/governing")
    made.add_ledger(ledger.vkey)
    log = GrowingLog("forked.example/department/office", ledger.signer.secret)
    fork = log.forked(5)
    with witnessing(made.directory) as running:
        assert ask(running.http, log.request(0, 5)).status == 200
        for size in range(6, 20):
            statuses = {ask(running.http, one.request(size - 1, size)).status for one in (log, fork)}
            assert statuses <= {200, 409, 422}
            assert ask(running.http, fork.request(size, size)).status == 422
        assert ask(running.http, fork.request(19, 30)).status == 422
        assert "evidence against a log" in running.errors()
        assert b'daybook_witness_evidence{kind="proved"} 8.0' in call(running.http, "GET", "/metrics").body
    shown = run_json("witness", "list", made.directory, status=1)
    (origin,) = shown["origins"]
    assert (origin["origin"], origin["size"]) == (log.origin, 19)
    assert Checkpoint.parse(split_note(origin["note"].encode())[0]) == log.checkpoint(19)
    assert len(shown["evidence"]) == MAX_PER_ORIGIN
    for each in shown["evidence"]:
        assert each["proof"]
        verify_evidence(each, log, made)
    text = run("witness", "list", made.directory, status=1).stdout
    assert f"PROOF that {log.origin} has signed two histories" in text


def verify_evidence(members: dict[str, str], log: GrowingLog, made: MadeWitness) -> None:
    """Check evidence as whoever is shown it: two notes that one key has signed and that contradict."""
    ours = open_note(members["ours"].encode(), [log.signer.verifier, made.key])
    assert len(ours.verified) == 2
    theirs = open_note(members["theirs"].encode(), [log.signer.verifier])
    first, second = Checkpoint.parse(ours.text), Checkpoint.parse(theirs.text)
    request = AddCheckpoint.parse(members["request"].encode())
    assert request.note == members["theirs"].encode()
    if first.size == second.size:
        assert first.root != second.root
    else:
        old, new = roots_from_consistency(first.size, second.size, first.root, request.proof)
        assert new == second.root
        assert old != first.root


def test_a_fork_with_its_own_proof_is_proved_and_a_wrong_proof_only_suspected(made: MadeWitness) -> None:
    """If false, anybody could have an honest ledger called a forger, or a forger would go unnamed."""
    honest, forger = GrowingLog("honest.example/a"), GrowingLog("forger.example/a")
    for log in (honest, forger):
        made.add_ledger(log.vkey)
    with witnessing(made.directory) as running:
        for log in (honest, forger):
            assert ask(running.http, log.request(0, 5)).status == 200
        assert ask(running.http, honest.request(5, 9, honest.proof(4, 9))).status == 422
        assert run_json("witness", "list", made.directory)["evidence"][0]["proof"] is False
        assert ask(running.http, forger.forked(4).request(5, 9)).status == 422
        assert ask(running.http, honest.request(5, 9)).status == 200
    shown = run_json("witness", "list", made.directory, status=1)["evidence"]
    assert [(each["origin"], each["proof"]) for each in shown] == [
        (forger.origin, True),
        (honest.origin, False),
    ]
    verify_evidence(shown[0], forger, made)
    text = run("witness", "list", made.directory, status=1).stdout
    assert f"PROOF that {forger.origin}" in text
    assert f"Suspicion: {honest.origin}" in text


def test_honest_mistakes_leave_nothing(made: MadeWitness) -> None:
    """If false, an operator would soon look at no evidence any more."""
    log = GrowingLog("log.example/a")
    made.add_ledger(log.vkey)
    other = SignerKey(log.origin, key("other"))
    unsigned = format_note(log.forked(2).checkpoint(5).text(), split_note(log.note(5))[1])
    with witnessing(made.directory) as running:
        assert ask(running.http, log.request(0, 5)).status == 200
        assert ask(running.http, log.request(0, 9)).status == 409
        assert ask(running.http, log.request(6, 9)).status == 409
        assert ask(running.http, log.request(3, 4)).status == 409
        assert ask(running.http, AddCheckpoint(5, (), unsigned)).status == 403
        forged = GrowingLog(log.origin, other.secret, "another history")
        assert ask(running.http, forged.request(5, 5)).status == 403
    assert run_json("witness", "list", made.directory)["evidence"] == []
    assert not WitnessDirectory(made.directory).evidence.exists()


def test_the_same_pair_is_kept_once(tmp_path: Path) -> None:
    """If false, whoever sends the same again and again fills the disk."""
    folder = EvidenceFolder(tmp_path / "evidence")
    log = GrowingLog("log.example/a")
    first = folder.keep(contradicted(log, 9, Contradiction.SUSPECTED))
    assert first is not None
    assert folder.keep(contradicted(log, 9, Contradiction.SUSPECTED, 2)) is None
    assert folder.keep(contradicted(log, 10, Contradiction.SUSPECTED)) is not None
    assert folder.keep(contradicted(log, 9, Contradiction.PROVED)) is not None
    assert len(folder.all()) == 3
    assert json.loads(first.read_bytes())["found_at"] == "1970-01-01T00:00:01Z"
    assert {path.suffix for path in (tmp_path / "evidence").iterdir()} == {".json"}


def test_what_is_only_suspected_cannot_crowd_out_a_proof(tmp_path: Path) -> None:
    """If false, a forger would first have strangers fill the folder."""
    folder = EvidenceFolder(tmp_path / "evidence")
    log = GrowingLog("log.example/a")
    kept = [folder.keep(contradicted(log, 6 + n, Contradiction.SUSPECTED)) for n in range(2 * MAX_PER_ORIGIN)]
    assert len([path for path in kept if path is not None]) == MAX_PER_ORIGIN
    assert folder.keep(contradicted(log, 9, Contradiction.PROVED)) is not None
    for number in range(MAX_FILES):
        (tmp_path / "evidence" / f"suspected-{number}.json").touch()
    other = GrowingLog("other.example/a")
    assert folder.keep(contradicted(other, 9, Contradiction.SUSPECTED)) is None
    assert folder.keep(contradicted(other, 9, Contradiction.PROVED)) is not None


def test_a_damaged_file_is_taken_for_a_proof(made: MadeWitness) -> None:
    """If false, whoever can damage the file has it pass unseen."""
    folder = WitnessDirectory(made.directory).evidence
    EvidenceFolder(folder).keep(contradicted(GrowingLog("log.example/a"), 9, Contradiction.SUSPECTED))
    run("witness", "list", made.directory)
    (path,) = folder.iterdir()
    for data in (b"", b"[]", b"{}", path.read_bytes()[:-9]):
        path.write_bytes(data)
        assert "damaged" in run("witness", "list", made.directory, status=1).stdout


def test_text_of_the_accused_cannot_steer_a_terminal(made: MadeWitness) -> None:
    """If false, a file of evidence could rewrite what its reader sees."""
    folder = WitnessDirectory(made.directory).evidence
    log = GrowingLog("log.example/\u202e\x9b2J")
    EvidenceFolder(folder).keep(contradicted(log, 9, Contradiction.PROVED))
    text = run("witness", "list", made.directory, status=1).stdout
    assert "\\u202e" in text
    assert "\u202e" not in text
    assert "\x9b" not in text


def test_evidence_that_cannot_be_written_stops_nothing(made: MadeWitness) -> None:
    """If false, a full disk would make the witness answer a forger with anything but a refusal."""
    log = GrowingLog("log.example/a")
    made.add_ledger(log.vkey)
    WitnessDirectory(made.directory).evidence.touch()
    with witnessing(made.directory) as running:
        assert ask(running.http, log.request(0, 5)).status == 200
        assert ask(running.http, log.forked(2).request(5, 5)).status == 422
        assert "evidence could not be kept" in running.errors()
        assert ask(running.http, log.request(5, 9)).status == 200
