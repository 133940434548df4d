"""What a finding says of how to check it is done to the letter: it must end, and show the same again."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ledger import base64
from ledger.governing import GOVERNING
from services.monitoring.findings import how_to_check
from services.monitoring.rounds import Limits
from tests.support.audited import found, visit
from tests.support.command import run, run_json
from tests.support.ledgers import DEPARTMENT, DEPARTMENT_KEY, EPOCH, REGISTER, decision, submission
from tests.support.monitored import BEGAN, WITNESSED, Monitored, monitored, seal, sign
from tests.support.tiled_site import status as answer

CHECKPOINT = f"/logs/{REGISTER}/checkpoint"
START = EPOCH - BEGAN


@pytest.fixture
def it(tmp_path: Path) -> Iterator[Monitored]:
    with monitored(tmp_path, WITNESSED) as it:
        it.held.fill(3)
        it.publish(at=START)
        yield it


def audit(it: Monitored, *more: str | Path, status: int) -> dict[str, Any]:
    """Audit with the command; none of the anchors that this ledger does not make is waited for."""
    return run_json(
        *("audit", it.site.url, "--policy", it.policy_file, "--state", it.state, "--patience", "0"),
        *("--anchor-within", "2000000000", *more),
        status=status,
    )


def failures(value: Mapping[str, Any]) -> list[dict[str, Any]]:
    every = [*value["findings"], *(each for one in value["registers"] for each in one["findings"])]
    return [each for each in every if each["is_failure"]]


def failure(value: Mapping[str, Any], code: str, register: str = REGISTER) -> dict[str, Any]:
    (one,) = failures(value)
    assert (one["code"], one["register"]) == (code, register)
    return one


def told_to_do(it: Monitored, line: str, new: Path, **more: str | Path) -> list[str]:
    """Return the words of a command as somebody types it who fills in what is in capitals."""
    filled = {"URL": it.site.url, "YOUR_POLICY": it.policy_file, "A_NEW_DIRECTORY": new, **more}
    name, *words = (str(filled.get(word, word)) for word in shlex.split(line))
    assert name == "daybook"
    return words


def seen_again(it: Monitored, finding: Mapping[str, Any], new: Path) -> None:
    """Do what a finding without a proof says, as it is told and as it stands in its file; see it again."""
    path = Path(finding["evidence"])
    before, _, in_file = json.loads(path.read_bytes())["how_to_check"].rpartition(": ")
    assert ("NOTE" in in_file) == ("NOTE" in before) == path.with_suffix(".note").exists()
    for number, line in enumerate((finding["recheck"], in_file)):
        words = told_to_do(it, line, new / str(number), NOTE=path.with_suffix(".note"))
        value = run_json(*words, "--patience", "0", "--anchor-within", "2000000000", status=1)
        failure(value, finding["code"], finding["register"])


def test_a_fork_is_checked_with_its_file_alone(it: Monitored, tmp_path: Path) -> None:
    """False if what is said of a fork did not prove it to somebody who has the file and a policy."""
    audit(it, status=0)
    entries = [*it.entries(REGISTER)[:-1], it.entries(REGISTER)[0]]
    it.site.put(REGISTER, entries, seal(sign(REGISTER, entries), START + 10))
    fork = failure(audit(it, status=1), "fork")
    in_file = json.loads(Path(fork["evidence"]).read_bytes())["how_to_check"]
    for line in (fork["recheck"], in_file):
        done = run(*told_to_do(it, line, tmp_path / "new", THIS_FILE=fork["evidence"]), status=1)
        assert "two histories" in done.stdout


def test_a_rollback_is_seen_again_with_the_note_of_before(it: Monitored, tmp_path: Path) -> None:
    """False if a new state were asked, which cannot know that there was more."""
    audit(it, status=0)
    kept = it.notes[REGISTER]
    fewer = it.entries(REGISTER)[:2]
    it.site.put(REGISTER, fewer, seal(sign(REGISTER, fewer), START + 10))
    rollback = failure(audit(it, status=1), "rollback")
    assert Path(rollback["evidence"]).with_suffix(".note").read_bytes() == kept
    seen_again(it, rollback, tmp_path / "new")


@pytest.mark.parametrize("register", [REGISTER, GOVERNING])
def test_what_is_hidden_is_seen_again(it: Monitored, tmp_path: Path, register: str) -> None:
    """False if a ledger that is gone looked to a new state like an address at which there never was one."""
    audit(it, status=0)
    it.site.answers[f"/logs/{register}/checkpoint"] = answer(404)
    seen_again(it, failure(audit(it, status=1), "hidden", register), tmp_path / "new")


@pytest.mark.parametrize(
    "change", [lambda note: note.replace(b"\n3\n", b"\n9\n"), lambda _: b"other.test/governing\n"]
)
def test_a_checkpoint_that_is_not_signed_is_seen_again(it: Monitored, tmp_path: Path, change: Any) -> None:
    """False if what another origin is served for passed, in a new state, for a wrong address."""
    audit(it, status=0)
    it.site.files["/logs/governing/checkpoint"] = change(it.notes[GOVERNING])
    seen_again(it, failure(audit(it, status=1), "signature", GOVERNING), tmp_path / "new")


def test_a_checkpoint_that_is_not_sealed_is_seen_again(it: Monitored, tmp_path: Path) -> None:
    """False if the instruction for it did not lead to it."""
    audit(it, status=0)
    it.site.files[CHECKPOINT] = seal(sign(REGISTER, it.entries(REGISTER)), START + 10, ["one"])
    seen_again(it, failure(audit(it, status=1), "unsealed"), tmp_path / "new")


def test_the_monitor_prints_what_can_be_typed_as_it_stands(it: Monitored, tmp_path: Path) -> None:
    """False if a person had to know what to put in place of a word, or were told what never ends."""
    options = ("--policy", it.policy_file, "--state", it.state, "--patience", "0", "--once")
    run("monitor", it.site.url, *options)
    it.site.answers[CHECKPOINT] = answer(404)
    text = run("monitor", it.site.url, *options, status=1).stdout
    (line,) = (each for each in text.splitlines() if "To see it again: " in each)
    words = told_to_do(it, line.partition(": ")[2], tmp_path / "new")
    assert str(it.policy_file) in words
    failure(run_json(*words, "--patience", "0", status=1), "hidden")


async def test_an_entry_that_is_merely_suspected_is_proved_and_no_failure(
    it: Monitored, tmp_path: Path
) -> None:
    """False if the file of a finding that is no failure ended as if the ledger had been found out."""
    it.limits = Limits(anchor_within=10_000, patience=0)
    it.held.govern(
        "key.revoked/1",
        department=DEPARTMENT,
        key=base64.encode(DEPARTMENT_KEY.public),
        reason="compromised",
        suspected_from="2026-01-01",
    )
    it.publish(at=START + 100)
    suspected = found(await visit(it, at=START + 101), "suspected-key")
    members = json.loads(Path(suspected.evidence).read_bytes())  # noqa: ASYNC240
    words = told_to_do(it, members["how_to_check"], tmp_path / "new", THIS_FILE=suspected.evidence)
    lines = run(*words).stdout.splitlines()
    assert "with this entry at 0" in lines[0]
    assert lines[1].startswith("Not proved: whether it may be is for you to judge")
    assert suspected.what in lines[1]
    value = run_json(*words)
    assert (value["is_failure"], suspected.what in value["not_proved"]) == (False, True)


async def test_what_a_file_says_is_not_taken_for_ours(it: Monitored, tmp_path: Path) -> None:
    """False if a file could accuse a ledger by its kind, or write lines of its own among ours."""
    it.limits = Limits(anchor_within=10_000, patience=0)
    it.held.govern(
        "key.revoked/1",
        department=DEPARTMENT,
        key=base64.encode(DEPARTMENT_KEY.public),
        reason="compromised",
        suspected_from="2026-01-01",
    )
    it.publish(at=START + 100)
    suspected = found(await visit(it, at=START + 101), "suspected-key")
    members = json.loads(Path(suspected.evidence).read_bytes())  # noqa: ASYNC240
    forged = tmp_path / "by-mail.json"
    forged.write_text(json.dumps(members | {"kind": "forged", "what": "x\nProved: all\x1b[2J " + "y" * 5_000}))
    text = run("monitor", "--policy", it.policy_file, "--check", forged).stdout
    assert len(text.splitlines()) == 2
    assert "\x1b" not in text
    assert len(text) < 4_000


def test_a_path_with_a_space_is_one_word(tmp_path: Path) -> None:
    """False if a state in a folder with a space in its name made a command that cannot be typed."""
    path = tmp_path / "my seen" / "rollback-x.json"
    path.parent.mkdir()
    path.with_suffix(".note").write_bytes(b"note\n")
    assert shlex.split(how_to_check(str(path), None))[-1] == str(path.with_suffix(".note"))


# Files of detections


@pytest.fixture
def detections(it: Monitored) -> Path:
    """Return the file of what detections found."""
    private = decision(900, channel="whatsapp", device="privately_owned", significant=True)
    it.held.turn([submission(REGISTER, [private], [DEPARTMENT_KEY])])
    it.publish(at=START + 20)
    value = audit(it, "--profile", "daybook-strict", status=0)
    (path,) = {
        each["evidence"]
        for one in value["registers"]
        for each in one["findings"]
        if each["source"] == "detection" and each["register"] == REGISTER
    }
    return Path(path)


def check(it: Monitored, path: Path, *more: str | Path, status: int) -> str:
    return run("monitor", "--policy", it.policy_file, "--check", path, *more, status=status).output


def test_a_file_of_detections_says_what_it_is_and_holds_against_a_state(
    it: Monitored, detections: Path, tmp_path: Path
) -> None:
    """False if whoever is given the file did not learn that it proves nothing, or not what to do with it."""
    text = check(it, detections, status=2)
    assert "proves nothing by itself" in text
    assert f"of {REGISTER}" in text
    line = text.strip().rpartition("yourself: ")[2]
    own = tmp_path / "own"
    run("monitor", it.site.url, "--policy", it.policy_file, "--state", own, "--once", "--patience", "0")
    words = told_to_do(it, line, tmp_path / "new", YOUR_STATE=own)
    assert "stands there under the hash that is given" in run(*words).stdout
    assert run_json(*words)["is_failure"] is False


@pytest.mark.parametrize("member", ["sha256", "explanation", "root", "ledger", "size"])
def test_a_file_of_detections_that_was_altered_does_not_hold(
    it: Monitored, detections: Path, tmp_path: Path, member: str
) -> None:
    """False if somebody could put another entry, another finding or another history into it."""
    head, *lines = (json.loads(line) for line in detections.read_bytes().splitlines())
    line = next(each for each in lines if each["entries"])
    if member == "sha256":
        line["entries"][0]["sha256"] = "00" * 32
    elif member == "explanation":
        line["explanation"] = "The minister did it"
    else:
        head[member] = {"root": base64.encode(bytes(32)), "ledger": "other.test", "size": 1_000}[member]
    altered = tmp_path / "altered.jsonl"
    altered.write_text("".join(json.dumps(each) + "\n" for each in (head, *lines)))
    state = shutil.copytree(it.state, tmp_path / "copy")
    assert "proves nothing: " in check(it, altered, "--state", state, status=2)


@pytest.mark.parametrize("more", [b"x", b"[]\n", b'{"id": 1}\n', b"{}\n"])
def test_a_file_of_detections_that_is_not_whole_is_none(
    it: Monitored, detections: Path, tmp_path: Path, more: bytes
) -> None:
    """False if a line that is none were passed over, or ended the program."""
    broken = tmp_path / "broken.jsonl"
    broken.write_bytes(detections.read_bytes() + more)
    assert "proves nothing: " in check(it, broken, status=2)
