"""`daybook govern`, in the ledger's directory and against a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger import canonical
from ledger.notes import SignerKey
from services.cli.govern import _action_first
from services.governing_requests import Request
from tests.support.command import run, run_json
from tests.support.records import DEPARTMENT, LEDGER_ORIGIN, record_id
from tests.support.server import MadeLedger, Server, daybook, make_ledger, serving
from tests.support.witness_process import make_witness, witnessing

ACTIONS = frozenset({"open-register", "sign"})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["./led", "open-register", "a/b"], ["open-register", "--directory", "./led", "a/b"]),
        (["--server", "h:1", "open-register", "a/b"], ["open-register", "--server", "h:1", "a/b"]),
        (["--json", "open-register", "a/b"], ["open-register", "--json", "a/b"]),
        (["--policy=p", "d", "open-register"], ["open-register", "--policy=p", "--directory", "d"]),
        (["sign", "request"], ["sign", "request"]),
        (["--help"], ["--help"]),
        (["d"], ["d"]),
    ],
)
def test_the_directory_and_options_may_stand_before_the_action(given: list[str], expected: list[str]) -> None:
    """False if the ledger could be named only behind the action."""
    assert _action_first(given, ACTIONS) == expected


def test_a_misspelt_action_is_named_with_those_that_are_there() -> None:
    """False if the directory, which is right, were called no command."""
    told = run("govern", "led", "opn-register", "a/b", status=2).output
    assert "opn-register" in told
    assert "close-register" in told


def test_a_ledger_that_waits_for_signatures_says_so(tmp_path: Path) -> None:
    """False if whoever serves or makes it too early were told that there is no ledger, or something else."""
    for name in ("one", "two"):
        run("keygen", tmp_path / name, "--name", name)
        (tmp_path / name).rename(tmp_path / f"{name}.away")
    directory = tmp_path / "ledger"
    keys = ("--governance", tmp_path / "one.pub", "--governance", tmp_path / "two.pub")
    asked = ("init", directory, "--origin", LEDGER_ORIGIN, *keys)
    assert "--threshold" in run(*asked, status=2).output, "one of many is never assumed"
    run(*asked, "--threshold", "2")
    for given in (*asked, "--threshold", "2"), ("serve", directory), ("fsck", directory):
        assert "--signature" in run(*given, status=2).output
    wrong = run("init", directory, "--signature", tmp_path / "one.pub", status=2).output
    assert str(tmp_path / "one.pub") in wrong.replace("\n", "")


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> MadeLedger:
    return make_ledger(tmp_path_factory.mktemp("govern"))


@pytest.mark.journey
class TestInTheDirectory:
    """Governance that one holder signs, while nobody serves the ledger."""

    def test_a_register_is_opened_once(self, ledger: MadeLedger) -> None:
        """False if a second opening were another entry."""
        opened = ("govern", ledger.directory, "open-register", f"{DEPARTMENT}/once", "--title", "x")
        assert run_json(*opened)["already_registered"] is False
        assert run_json(*opened, status=2)["error"]["reason"] == "REGISTER_ALREADY_OPEN"

    def test_a_key_must_prove_itself(self, ledger: MadeLedger, tmp_path: Path) -> None:
        """False if a department could be given a key that somebody else holds."""
        run("keygen", tmp_path / "new", "--name", "new")
        run("keygen", tmp_path / "other", "--name", "other")
        asked = ("govern", ledger.directory, "authorise-key", DEPARTMENT, "--label", "x")
        named = ("--public-key", f"{tmp_path / 'new'}.pub")
        assert run_json(*asked, *named, status=2)["error"]["reason"] == "PROOF_MISSING"
        told = run_json(*asked, *named, "--proof", tmp_path / "other", status=2)
        assert told["error"]["reason"] == "PROOF_OF_ANOTHER_KEY"
        run(*asked, *named, "--proof", tmp_path / "new")

    def test_a_proof_can_be_made_where_the_secret_is(self, ledger: MadeLedger, tmp_path: Path) -> None:
        """False if the department had to hand over its secret key to be authorised."""
        run("keygen", tmp_path / "far", "--name", "far")
        asked = ("govern", ledger.directory, "authorise-key", DEPARTMENT, "--label", "far away")
        named = ("--public-key", f"{tmp_path / 'far'}.pub")
        run(*asked, *named, "--request-out", tmp_path / "request")
        run("govern", "sign", tmp_path / "request", "--key", tmp_path / "far", "--out", tmp_path / "proof")
        run(*asked, *named, "--proof", tmp_path / "proof")
        other = (*asked[:-1], "another label", *named, "--proof", tmp_path / "proof")
        assert run_json(*other, status=2)["error"]["reason"] == "SIGNATURE_OF_ANOTHER_REQUEST"

    def test_a_key_is_revoked_and_a_register_closed(self, ledger: MadeLedger, tmp_path: Path) -> None:
        """False if what governance ended went on."""
        run("keygen", tmp_path / "brief", "--name", "brief")
        pub = ("--public-key", f"{tmp_path / 'brief'}.pub")
        govern = ("govern", ledger.directory)
        run(*govern, "authorise-key", DEPARTMENT, *pub, "--proof", tmp_path / "brief", "--label", "x")
        run(*govern, "revoke-key", DEPARTMENT, *pub, "--reason", "compromised", "--suspected-from", "2026-11")
        run(*govern, "open-register", f"{DEPARTMENT}/ended", "--title", "x")
        run(*govern, "close-register", f"{DEPARTMENT}/ended", "--size", "0", "--reason", "abolished")

    def test_a_mistake_names_the_field_and_the_values(self, ledger: MadeLedger, tmp_path: Path) -> None:
        """False if a person were told only that something is wrong."""
        run("keygen", tmp_path / "k", "--name", "k")
        pub = ("--public-key", f"{tmp_path / 'k'}.pub")
        asked = ("govern", ledger.directory, "revoke-key", DEPARTMENT, *pub, "--reason", "stolen")
        (violation,) = run_json(*asked, status=2)["error"]["violations"]
        assert violation["field"] == "reason"
        assert "compromised" in violation["allowed"]

    def test_a_witness_policy_is_published(self, ledger: MadeLedger) -> None:
        """False if a policy file could not become an entry."""
        asked = ("publish-policy", ledger.policy, "--kind", "witness", "--name", "ledger")
        told = run_json("govern", ledger.directory, *asked)
        assert told["record"]["text"] == ledger.policy.read_text()

    def test_without_a_ledger_it_says_what_to_name(self) -> None:
        """False if a newcomer saw a traceback, or nothing."""
        error = run_json("govern", "open-register", "a/b", "--title", "x", status=2)["error"]
        assert error["reason"] == "LEDGER_MISSING"


@pytest.mark.journey
def test_two_of_three_holders_in_different_places_decide(tmp_path: Path) -> None:
    """False if one holder alone could decide, or two could not without meeting."""
    names = [tmp_path / name for name in ("ico", "tna", "uksa")]
    for name in names:
        daybook("keygen", name, "--name", name.name)
    governance = [part for name in names for part in ("--governance", f"{name}.pub")]
    directory = tmp_path / "ledger"
    daybook("init", directory, "--origin", LEDGER_ORIGIN, *governance, "--threshold", "2")
    request = tmp_path / "request"
    asked = ("govern", directory, "open-register", "a/b", "--title", "x")
    assert run_json(*asked, status=2)["error"]["reason"] == "KEY_MISSING"
    assert run_json(*asked, "--key", names[0], status=2)["error"]["reason"] == "GOVERNANCE_REFUSED"
    run(*asked, "--request-out", request)
    signatures = [Path(f"{name}.signature") for name in names[:2]]
    for name, signature in zip(names, signatures, strict=False):
        run("govern", "sign", request, "--key", name, "--out", signature)
    one = ("govern", "submit", directory, request, "--signature", signatures[0])
    assert run_json(*one, status=2)["error"]["reason"] == "GOVERNANCE_REFUSED"
    told = run_json(*one, "--signature", signatures[1])
    assert (told["index"], told["already_registered"]) == (1, False)
    again = run_json("govern", directory, "submit", request, *one[4:], "--signature", signatures[1])
    assert (again["index"], again["already_registered"]) == (1, True)


@pytest.mark.parametrize("member", ["record", "body", "register_origin", "submission_id"])
def test_a_request_that_says_one_thing_and_signs_another_is_refused(tmp_path: Path, member: str) -> None:
    """False if a holder could be shown one decision and made to sign another."""
    record = {
        "name": "a/b",
        "record_id": record_id(1),
        "register": "governing",
        "title": "x",
        "type": "register.opened/1",
        "version": 1,
    }
    request = tmp_path / "request"
    value = json.loads(Request(f"{LEDGER_ORIGIN}/governing", canonical.format(record)).data())
    changes = {"record": ("a/b", "a/c"), "body": ("/1", "/2"), "register_origin": ("ledger", "other")}
    old, new = changes.get(member, (value["submission_id"][:4], "ffff"))
    value[member] = value[member].replace(old, new)
    request.write_text(json.dumps(value))
    run("keygen", tmp_path / "holder", "--name", "holder")
    signing = ("govern", "sign", request, "--key", tmp_path / "holder", "--out", tmp_path / "signature")
    assert "not that of the record" in run(*signing, status=2).stderr
    assert not (tmp_path / "signature").exists()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MadeLedger, Server]]:
    made = make_ledger(tmp_path_factory.mktemp("server"))
    with serving(made.directory) as running:
        yield made, running


@pytest.mark.journey
class TestOverGrpc:
    """The same decisions, sent to a server."""

    def test_the_directory_names_the_ledger_and_signs(self, server: tuple[MadeLedger, Server]) -> None:
        """False if an operator had to stop the server to open a register."""
        made, running = server
        asked = ("govern", made.directory, "open-register", "a/b", "--title", "x")
        assert run_json(*asked, "--server", running.grpc)["index"] == 3
        # Another process has the store: without --server it is a matter of usage.
        error = run_json(*asked, status=2)["error"]
        assert "--server" in error["message"]

    def test_a_policy_and_a_key_are_enough_elsewhere(
        self, server: tuple[MadeLedger, Server], tmp_path: Path
    ) -> None:
        """False if a governor needed the operator's directory."""
        made, running = server
        key = tmp_path / "governance"
        key.write_bytes((made.directory / "keys" / "governance").read_bytes())
        assert SignerKey.parse(key.read_text().strip())
        asked = ("govern", "--server", running.grpc, "open-register", "a/c", "--title", "x", "--key", key)
        assert run_json(*asked, status=2)["error"]["reason"] == "LEDGER_MISSING"
        assert run_json(*asked, "--policy", made.policy)["already_registered"] is False

    def test_what_is_not_served_says_so(self, server: tuple[MadeLedger, Server]) -> None:
        """False if a governance change seemed to hang, or failed without a way on."""
        made, running = server
        own = made.directory / "keys" / "governance"
        change = ("change-governance", "--governance", f"{own}.pub", "--threshold", "1", "--reason", "x")
        told = run_json("govern", made.directory, *change, "--server", running.grpc, status=2)
        assert told["error"]["reason"] == "NOT_SERVED"

    def test_the_policy_from_the_url_comes_with_a_warning(self, server: tuple[MadeLedger, Server]) -> None:
        """False if a key that the operator's server states could be taken for one that was compared."""
        made, running = server
        result = run("policy", f"http://{running.http}")
        assert result.stdout == made.policy.read_text()
        assert "WARNING" in result.stderr


def test_a_witness_policy_is_not_published_while_its_quorum_does_not_answer(tmp_path: Path) -> None:
    """False if one wrong address could leave a ledger that seals nothing, and after a restart does not grow."""
    ledger, made = tmp_path / "ledger", make_witness(tmp_path / "one", "one.example/w")
    run("init", ledger, "--origin", "ledger.example.org")
    policy = tmp_path / "policy"
    with witnessing(made.directory) as served:
        policy.write_text(
            run("policy", ledger, "--witness", f"{made.directory / 'key.pub'}={served.url}").stdout,
            encoding="utf-8",
        )
        command = ("govern", ledger, "publish-policy", policy, "--kind", "witness", "--name", "default")
    refused = run_json(*command, status=3)["error"]
    assert "nothing was published" in refused["message"].lower()
    with witnessing(made.directory, "--listen", served.http):
        # It answers now, though it does not know the ledger: that is said, and can be mended.
        told = run_json(*command)
        assert (told["index"], told["sealed"]) == (1, False)


def test_the_witness_policy_of_another_ledger_is_not_published(tmp_path: Path) -> None:
    """False if a policy that was meant for another ledger could stand in this one's register for ever."""
    for name in ("one", "other"):
        run("init", tmp_path / name, "--origin", f"{name}.example.org")
    policy = tmp_path / "policy"
    policy.write_text(run("policy", tmp_path / "other").stdout, encoding="utf-8")
    command = ("govern", tmp_path / "one", "publish-policy", policy, "--kind", "witness", "--name", "default")
    assert run_json(*command, status=2)["error"]["reason"] == "POLICY_OF_OTHER_LEDGER"
