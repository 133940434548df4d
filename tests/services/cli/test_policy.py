from __future__ import annotations

import socket
import threading
from pathlib import Path

from ledger.notes import VerifierKey
from ledger.witnessing import Policy
from services.compose import register_locally
from services.ledger_files import LedgerDirectory, public_path
from tests.support.answering import ORIGIN, AnsweringLedger
from tests.support.command import run, run_json
from tests.support.ledger_dir import governing, make_ledger
from tests.support.ledgers import ORIGIN as LEDGER
from tests.support.ledgers import REGISTER as OFFICE
from tests.support.records import LEDGER_ORIGIN, REGISTER
from tests.support.server_process import running
from tests.support.vectors import VECTORS
from tests.support.witness_process import make_witness, witnessing


def directory(tmp_path: Path) -> Path:
    path = public_path(LedgerDirectory(tmp_path).log_key)
    path.parent.mkdir(parents=True)
    path.write_text(f"{AnsweringLedger().log.verifier}\n")
    return tmp_path


def test_the_file_from_a_directory_names_the_ledger_and_no_witness(tmp_path: Path) -> None:
    """False if what is printed were not a policy under which the ledger's notes verify."""
    policy = Policy.parse(run("policy", directory(tmp_path)).stdout.encode())
    assert policy == AnsweringLedger().policy()
    assert policy.ledger_origins == (LEDGER_ORIGIN,)


def test_for_one_register_it_names_that_registers_own_key(tmp_path: Path) -> None:
    """False if other C2SP tools, which know nothing of governing keys, could not use the file."""
    policy = Policy.parse(run("policy", directory(tmp_path), "--register", REGISTER).stdout.encode())
    (log,) = policy.logs
    assert log.key == VerifierKey.parse(str(AnsweringLedger().log.verifier.renamed(ORIGIN)))


def test_show_says_what_is_trusted_with_the_fingerprint() -> None:
    """False if two people could not compare what they trust."""
    policy = Policy.parse((VECTORS / "policy").read_bytes())
    text = run("policy", "show", VECTORS / "policy").stdout
    assert policy.fingerprint in text
    assert "2 of one, two, three" in text
    told = run_json("policy", "show", VECTORS / "policy")
    assert told["fingerprint"] == policy.fingerprint
    assert told["quorum"] == "majority"


def test_mistakes_have_the_status_of_mistakes(tmp_path: Path) -> None:
    """False if a script could not tell a wrong call from a ledger that is away."""
    run("policy", "show", status=2)
    run("policy", "show", VECTORS / "keys.json", status=2)
    run("policy", tmp_path, status=3)
    run("policy", directory(tmp_path), "--register", "Not A Register", status=2)
    error = run_json("policy", "http://127.0.0.1:1", status=3)["error"]
    assert error["reason"] == "UNREACHABLE"


def test_a_secret_key_given_in_place_of_a_policy_is_never_shown(tmp_path: Path) -> None:
    """False if the line that the parser does not understand, and quotes, could be somebody's secret key."""
    run("keygen", tmp_path / "key", "--name", "key")
    secret = (tmp_path / "key").read_text().strip()
    for given in ("policy", "show", tmp_path / "key"), ("verify", "r", "--policy", tmp_path / "key"):
        result = run(*given, status=2)
        assert "holds a secret key" in result.output
        assert secret not in result.output


def test_an_address_that_does_not_speak_http_cannot_be_read() -> None:
    """False if the gRPC address, given by mistake, ended in a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        answering = threading.Thread(target=_answer_no_http, args=(listening,))
        answering.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        assert "gRPC" in run_json("policy", url, status=3)["error"]["message"]
        answering.join()


def _answer_no_http(listening: socket.socket) -> None:
    caller, _ = listening.accept()
    with caller:
        caller.recv(1024)
        caller.sendall(b"\0\0\6\4\0\0\0\0\0\n")


def test_a_new_policy_asks_the_witnesses_that_are_named(tmp_path: Path) -> None:
    """False if what governance is to publish asked others, or fewer, than the command was given."""
    made = [make_witness(tmp_path / name, f"{name}.example/w") for name in ("one", "two", "three")]
    options: list[str] = []
    for number, witness in enumerate(made):
        options += ["--witness", f"{witness.directory / 'key.pub'}=http://127.0.0.1:{number + 1}"]
    for quorum, threshold in (("all", 3), ("any", 1), ("2", 2)):
        text = run("policy", directory(tmp_path / quorum), *options, "--quorum", quorum).stdout
        policy = Policy.parse(text.encode())
        assert [str(each.key) for each in policy.witnesses] == [each.vkey for each in made]
        assert [each.url for each in policy.witnesses] == [f"http://127.0.0.1:{n}" for n in (1, 2, 3)]
        (group,) = policy.quorum.groups
        assert (group.threshold, policy.quorum.root) == (threshold, group.name)


def test_witnesses_that_make_no_policy_are_mistakes(tmp_path: Path) -> None:
    """False if a quorum that can never hold, or a key that cosigns nothing, could be published."""
    key = make_witness(tmp_path / "one", "one.example/w").directory / "key.pub"
    ledger = directory(tmp_path)
    run("keygen", tmp_path / "department", "--name", "department")
    for options in (
        ("--witness", f"{key}=http://127.0.0.1:1", "--quorum", "2"),
        ("--witness", f"{key}=http://127.0.0.1:1", "--quorum", "some"),
        ("--witness", f"{key}=ftp://127.0.0.1:1"),
        ("--witness", str(key)),
        ("--witness", f"{key}=http://127.0.0.1:1", "--witness", f"{key}=http://127.0.0.1:2"),
        ("--witness", f"{tmp_path / 'department.pub'}=http://127.0.0.1:1"),
    ):
        run("policy", ledger, *options, status=2)


def test_a_published_policy_is_the_one_that_verifiers_are_given(tmp_path: Path) -> None:
    """False if a verifier's file left out the witnesses that the ledger asks, wherever it came from."""
    ledger = make_ledger(tmp_path / "ledger")
    with witnessing((made := make_witness(tmp_path / "one", "one.example/w")).directory) as running_witness:
        made.add_ledger(str(ledger.policy.logs[0].key))
        text = run(
            "policy", ledger.root, "--witness", f"{made.directory / 'key.pub'}={running_witness.url}"
        ).stdout
        published = governing(
            "policy.published/1",
            kind="witness",
            name="witnesses",
            text=text,
            effective_from="2026-01-01T00:00Z",
        )
        register_locally(ledger.root, published.body, published.records, published.signatures)
        assert run("policy", ledger.root).stdout == text
        with running(ledger.root, tmp_path / "serve.log") as server:
            assert run("policy", f"http://{server.http}").stdout == text
            kept, fetched = (
                run("policy", source, "--log-list").stdout for source in (ledger.root, f"http://{server.http}")
            )
    assert kept.splitlines()[0] == "logs/v0"
    names = [VerifierKey.parse(line.removeprefix("vkey ")).name for line in kept.splitlines()[1:]]
    assert set(names) == {f"{LEDGER}/governing", f"{LEDGER}/{OFFICE}"}
    assert sorted(kept.splitlines()) == sorted(fetched.splitlines())
