"""`daybook monitor` as it is called: its statuses, what it prints, and how it ends."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ledger.notes import ED25519, VerifierKey
from services.monitoring.following import STRETCH
from tests.support.certificates import make_issuer
from tests.support.command import run, run_json
from tests.support.ledgers import ORIGIN, REGISTER
from tests.support.monitored import WITNESSED, Monitored, monitored, sign
from tests.support.server import command_line, environment
from tests.support.tiled_site import Handler, TiledSite, silent, status

CHECKPOINT = f"/logs/{REGISTER}/checkpoint"


@pytest.fixture
def it(tmp_path: Path) -> Iterator[Monitored]:
    with monitored(tmp_path) as it:
        it.held.fill(300)
        it.publish()
        yield it


def once(it: Monitored, *more: str | Path, status: int = 0) -> str:
    """Make one round with the command; return what it prints."""
    options = ("--policy", it.policy_file, "--state", it.state, "--once", "--patience", "0", *more)
    return run("monitor", it.site.url, *options, status=status).stdout


def once_json(it: Monitored, *more: str | Path, status: int = 0) -> dict[str, Any]:
    options = ("--policy", it.policy_file, "--state", it.state, "--once", "--patience", "0", *more)
    return run_json("monitor", it.site.url, *options, status=status)


def another_history(it: Monitored) -> list[bytes]:
    """Return entries that are as many, and not the same."""
    return [*it.entries(REGISTER)[:-1], it.entries(REGISTER)[0]]


def fork(it: Monitored) -> None:
    """Serve another history of the same size, signed by the same key."""
    entries = another_history(it)
    it.site.put(REGISTER, entries, sign(REGISTER, entries))


def test_the_first_round_says_what_it_cannot_say(it: Monitored) -> None:
    """False if a reader could take a new state for knowledge of the past, or no witness for one history."""
    text = once(it)
    assert "This state is new: nothing can be said about the time before" in text
    assert "no witness" in text
    assert "--compare" in text
    assert f"{REGISTER}: 0 -> 300 entries" in text
    assert "nothing wrong" in text
    again = once(it)
    assert "This state is new" not in again
    assert "->" not in again


def test_one_of_a_thing_is_told_as_one(tmp_path: Path) -> None:
    """False if a reader stumbled over "1 registers"."""
    with monitored(tmp_path) as it:
        it.held.fill(1)
        it.publish()
        first, later = once(it), once(it, "--reread", "1")
        assert f"{REGISTER}: 0 -> 1 entry" in first.splitlines()[-1]
        assert "1 old bundle read again" in later
        it.site.answers[CHECKPOINT] = status(404)
        once(it, status=1)
        assert "Evidence from earlier rounds is in" in (told := once(it, status=1))
        assert ": 1 file." in told


def test_under_a_witnessed_policy_it_does_not_say_that_there_is_none(tmp_path: Path) -> None:
    """False if a ledger with witnesses were called one without."""
    with monitored(tmp_path, WITNESSED) as it:
        it.publish(at=10)
        assert "no witness" not in once(it)
        assert once_json(it)["witnessed"] is True


def test_json_is_one_object_with_stable_names(it: Monitored) -> None:
    """False if a script that reads it broke."""
    told = once_json(it)
    assert told["ok"] is True
    assert told["first"] is True
    assert told["ledger_origin"] == ORIGIN
    assert told["policy_fingerprint"] == it.policy.fingerprint
    assert told["findings"] == told["not_read"] == told["remarks"] == []
    (governing, register) = told["registers"]
    assert governing["register"] == "governing"
    assert (register["register"], register["before"], register["size"]) == (REGISTER, 0, 300)
    assert once_json(it)["first"] is False


def test_a_finding_ends_with_status_1_and_evidence_that_anybody_can_check(
    it: Monitored, tmp_path: Path
) -> None:
    """False if a script could not tell a fork from a fine ledger, or nobody could show it to others."""
    once(it)
    honest = it.notes[REGISTER].decode()
    fork(it)
    text = once(it, status=1)
    assert f"FORK {REGISTER}: two checkpoints of size 300" in text
    assert all(line in text for line in honest.splitlines())
    told = once_json(it, status=1)
    assert told["ok"] is False
    (finding,) = told["findings"]
    assert (finding["kind"], finding["register"], finding["proof"]) == ("fork", REGISTER, True)
    assert honest in finding["notes"]
    path = Path(finding["evidence"])
    assert path.parent == it.state / "evidence"
    assert str(path) in text
    stranger = Path(shutil.copy(path, tmp_path / "by-mail"))
    proof = run("monitor", "--policy", it.policy_file, "--check", stranger, status=1)
    assert "Proved:" in proof.stdout
    assert "two histories" in proof.stdout
    assert "300" in run_json("monitor", "--policy", it.policy_file, "--check", stranger, status=1)["proved"]
    assert len(list(path.parent.iterdir())) == 1  # found three times, kept once


def test_evidence_from_earlier_is_not_forgotten(it: Monitored) -> None:
    """False if a ledger that was caught, and behaves again, looked as if nothing had been."""
    once(it)
    fork(it)
    once(it, status=1)
    it.site.put(REGISTER, it.entries(REGISTER), it.notes[REGISTER])
    assert "Evidence from earlier rounds is in" in once(it)


def test_evidence_that_proves_nothing_is_bad_input(it: Monitored, tmp_path: Path) -> None:
    """False if a file that does not hold looked like one that does."""
    path = tmp_path / "file.json"
    path.write_text("{}")
    error = run_json("monitor", "--policy", it.policy_file, "--check", path, status=2)["error"]
    assert error["reason"] == "NOT_PROVED"
    run("monitor", "--policy", it.policy_file, "--check", tmp_path / "none", status=3)
    run("monitor", "--policy", it.policy_file, "--check", "/dev/zero", status=2)


def test_what_cannot_be_read_is_status_3(it: Monitored) -> None:
    """False if a ledger that is away were taken for a wrong one, or for a fine one."""
    it.site.answers[CHECKPOINT] = status(403)
    told = once_json(it, status=3)
    assert told["ok"] is False
    assert told["findings"] == []
    assert [each["register"] for each in told["not_read"]] == [REGISTER]
    assert "cannot be read" in once(it, status=3)
    it.site.answers["/registers.json"] = silent
    assert "within 0.2 s" in once(it, "--timeout", "0.2", status=3)
    with TiledSite() as gone:
        address = gone.url
    run_json(*("monitor", address, "--policy", it.policy_file, "--state", it.state, "--once"), status=3)


def test_mistakes_have_the_status_of_mistakes(it: Monitored, tmp_path: Path) -> None:
    """False if a wrong call looked like a wrong ledger."""
    state, policy = ("--state", it.state), ("--policy", it.policy_file)
    assert "daybook policy" in run("monitor", it.site.url, *state, status=2).stderr
    run("monitor", it.site.url, *policy, "--once", status=2)
    run("monitor", *policy, *state, status=2)
    run("monitor", "127.0.0.1:7071", *policy, *state, "--once", status=2)
    run("monitor", *policy, "--state", tmp_path / "new", "--compare", it.state, status=2)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter").write_text("Dear Sir")
    run("monitor", it.site.url, *policy, "--state", tmp_path / "other", "--once", status=2)


def test_the_state_of_another_ledger_is_a_mistake(it: Monitored, tmp_path: Path) -> None:
    """False if a state could be gone on with under another ledger's policy, or under another key."""
    once(it)
    line = it.policy.text().split(b"\n")[0].decode()
    other = tmp_path / "other.policy"
    vkey = VerifierKey.parse(line.removeprefix("log "))
    other.write_text(f"log {vkey.renamed('other.test/governing')}\nquorum none\n")
    error = run_json(*("monitor", it.site.url, "--policy", other, "--state", it.state, "--once"), status=2)[
        "error"
    ]
    assert error["reason"] == "STATE_OF_OTHER_LEDGER"
    stranger = VerifierKey(vkey.name, vkey.type, bytes(32))
    other.write_text(f"log {stranger}\nquorum none\n")
    error = run_json(*("monitor", it.site.url, "--policy", other, "--state", it.state, "--once"), status=2)[
        "error"
    ]
    assert error["reason"] == "STATE_OF_OTHER_KEY"
    other.write_text(f"log {vkey.renamed(f'{ORIGIN}/{REGISTER}')}\nquorum none\n")
    error = run_json(*("monitor", it.site.url, "--policy", other, "--state", it.state, "--once"), status=2)[
        "error"
    ]
    assert error["reason"] == "POLICY_NAMES_NO_LEDGER"


def test_of_several_ledgers_in_a_policy_the_one_that_is_served_is_followed(
    it: Monitored, tmp_path: Path
) -> None:
    """False if an auditor of several ledgers needed a policy file for each."""
    other = VerifierKey("other.test/governing", ED25519, bytes(31) + b"\1")
    policy = tmp_path / "both"
    policy.write_bytes(f"log {other}\n".encode() + it.policy.text())
    state = tmp_path / "state-of-one"
    told = run_json(*("monitor", it.site.url, "--policy", policy, "--state", state, "--once"))
    assert told["ledger_origin"] == ORIGIN
    it.site.files["/logs/governing/checkpoint"] = b"third.test/governing\n"
    error = run_json(
        *("monitor", it.site.url, "--policy", policy, "--state", tmp_path / "state-of-none", "--once"), status=2
    )["error"]
    assert error["reason"] == "OTHER_LEDGER"


def test_two_states_are_compared_with_and_without_a_round(it: Monitored, tmp_path: Path) -> None:
    """False if two people could not turn what they were shown into a proof."""
    once(it)
    mine, theirs = it.state, tmp_path / "theirs"
    shutil.copytree(mine, tmp_path / "same")
    told = run_json("monitor", "--policy", it.policy_file, "--state", mine, "--compare", tmp_path / "same")
    assert told["compared"]["checkpoints"] == 2
    assert "registers" not in told
    it.held.fill(310)
    it.publish()
    run(*("monitor", it.site.url, "--policy", it.policy_file, "--state", theirs, "--once"))
    assert "nothing contradicts" in once(it, "--compare", theirs)
    error = run_json(
        *("monitor", "--policy", it.policy_file, "--state", mine, "--compare", tmp_path), status=2
    )["error"]
    assert "not a monitor's state" in error["message"]
    (theirs / "seen.sqlite3").write_bytes(b"x" * 5_000)
    told = run_json("monitor", "--policy", it.policy_file, "--state", mine, "--compare", theirs, status=3)
    assert "cannot be read" in told["compared"]["undecided"][0]


def test_a_split_view_is_status_1_when_compared(tmp_path: Path) -> None:
    """False if comparing could find two histories and end as if all were well."""
    states = []
    for name, numbers in (("a", range(10)), ("b", range(100, 117))):
        (tmp_path / name).mkdir()
        with monitored(tmp_path / name) as it:
            it.held.add(numbers)
            it.publish()
            once(it)
            states.append(it.state)
            policy = it.policy_file
    for mine, other in (states, states[::-1]):
        result = run("monitor", "--policy", policy, "--state", mine, "--compare", other, status=1)
        assert f"FORK {REGISTER}: the checkpoints of size 10 and of size 17" in result.stdout
        (path,) = (mine / "evidence").iterdir()
        assert "first 10 entries" in run("monitor", "--policy", policy, "--check", path, status=1).stdout


def test_over_tls_the_issuers_of_the_environment_are_trusted_and_no_others(tmp_path: Path) -> None:
    """False if a monitor did not reach a ledger behind TLS, or took any certificate."""
    issuer = make_issuer(tmp_path / "issuer")
    stranger = make_issuer(tmp_path / "stranger")
    with monitored(tmp_path) as it:
        it.publish()
        it.site.use_tls(issuer.issue("server", "IP:127.0.0.1"))
        arguments = ("--policy", it.policy_file, "--state", it.state, "--once")
        command = command_line("monitor", it.site.url, *arguments)
        for trusted, status in ((stranger.pair, 3), (issuer.pair, 0)):
            env = {**environment(), "DAYBOOK_CLIENT_TLS_CA": str(trusted.certificate)}
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == status, done.stdout + done.stderr
        env["DAYBOOK_CLIENT_TLS_CA"] = str(issuer.pair.key)
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2, done.stdout + done.stderr
        assert "holds no PEM certificates" in done.stderr


# Following


@contextmanager
def following(it: Monitored, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Follow a ledger in a process of its own; kill it at the end if it still runs."""
    arguments = ("monitor", it.site.url, "--policy", it.policy_file, "--state", it.state, "--patience", "0")
    with subprocess.Popen(
        command_line(*arguments, *options),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        # Reading a line has no timeout of its own.
        watchdog = threading.Timer(120, process.kill)
        watchdog.start()
        try:
            yield process
        finally:
            watchdog.cancel()
            process.kill()


def told_until(process: subprocess.Popen[str], wanted: str) -> list[str]:
    """Read lines up to one that has `wanted`."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if wanted in line:
            return lines
    raise AssertionError(f"no {wanted!r} in {''.join(lines)}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_following_goes_on_and_stops_when_told(it: Monitored, number: signal.Signals) -> None:
    """False if a monitor did not see what is new, or could only be killed."""
    with following(it, "--interval", "0.05") as process:
        told_until(process, f"{REGISTER}: 0 -> 300 entries")
        it.held.fill(310)
        it.publish()
        told_until(process, f"{REGISTER}: 300 -> 310 entries")
        it.site.answers[CHECKPOINT] = status(403)
        told_until(process, "is tried again in the next round")
        del it.site.answers[CHECKPOINT]
        told_until(process, "nothing wrong")
        process.send_signal(number)
        told_until(process, "Stopped")
        assert process.wait(60) == 0


def test_following_ends_with_status_1_when_something_is_found(it: Monitored) -> None:
    """False if a monitor went on as if nothing had been, or stopped without saying why."""
    with following(it, "--interval", "0.05", "--json") as process:
        first = json.loads(told_until(process, "}")[0])
        assert first["ok"] is True
        # The checkpoint alone: other tiles in the middle of a round would be found as altered ones.
        it.site.files[CHECKPOINT] = sign(REGISTER, another_history(it))
        lines = told_until(process, '"ok": false')
        found = json.loads(lines[-1])
        assert found["findings"][0]["kind"] == "fork"
        assert Path(found["findings"][0]["evidence"]).exists()
        assert process.wait(60) == 1


def test_a_kill_in_the_middle_loses_a_stretch_at_the_most(it: Monitored) -> None:
    """False if a death cost what was read, or left something that no signature covers."""
    for first in range(300, 3 * STRETCH, 900):
        it.held.add(range(first, min(first + 900, 3 * STRETCH)))
    it.publish()
    late = f"/logs/{REGISTER}/tile/entries/040"
    reached = threading.Event()

    def hold(handler: Handler) -> None:
        reached.set()
        silent(handler)

    it.site.answers[late] = hold
    with following(it, "--once") as process:
        assert reached.wait(120)
        process.kill()
        assert process.wait(60) == -signal.SIGKILL
    with it.opened() as state:
        held = state.size(REGISTER)
        assert 2 * STRETCH - 1_000 < held < 3 * STRETCH
        assert state.seen.latest(REGISTER) is not None
    del it.site.answers[late]
    it.site.asked.clear()
    once(it, "--reread", "0")
    assert it.mirrored()[REGISTER] == it.entries(REGISTER)
    first_asked = min(path for path in it.site.asked if "/entries/" in path and REGISTER in path)
    assert first_asked >= f"/logs/{REGISTER}/tile/entries/{held // 256:03}"
