"""Which logs are accepted: lists, rules, rotation, and changes while the witness is served."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ledger.add_checkpoint import AddCheckpoint
from ledger.errors import MalformedError
from ledger.notes import SignerKey, VerifierKey, sign_note
from ledger.witnessing import Policy
from services.witness.accepting import accepted_by_list, accepted_by_policy, accepted_key
from services.witness.directory import WitnessDirectory
from services.witness.state import Accepted
from tests.support.command import run, run_json
from tests.support.growing_log import GrowingLog, key
from tests.support.vectors import VECTORS
from tests.support.witness_process import MadeWitness, RunningWitness, ask, latest, make_witness, witnessing

NewLog = Callable[[], GrowingLog]

A = GrowingLog("log.example/a").vkey
B = GrowingLog("log.example/b").vkey

LIST = f"""\
# logs of a test
logs/v0

vkey {A}
qpd 86400
contact somebody (at) log.example | https://log.example/contact

# the next
vkey {B}
origin an origin that is not the key's name
qpd 24
contact else@log.example

vkey {GrowingLog("ledger.example/governing").vkey}
"""


def test_a_list_accepts_each_of_its_logs_alone() -> None:
    """If false, a list of the witness network could not be imported, or would accept more than it names."""
    governing = "ledger.example/governing"
    assert accepted_by_list(LIST.encode()) == (
        Accepted("log", "log.example/a", A, "somebody (at) log.example | https://log.example/contact"),
        Accepted("log", "an origin that is not the key's name", B, "else@log.example"),
        Accepted("log", governing, GrowingLog(governing).vkey),
    )
    assert accepted_by_list(b"logs/v0\n") == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"vkey {A}\n",
        f"logs/v1\nvkey {A}\n",
        f"logs/v0\nlogs/v0\nvkey {A}\n",
        "logs/v0\nvkey nonsense\n",
        f"logs/v0\nvkey {A[:-1]}\n",
        "logs/v0\nvkey\n",
        "logs/v0\nqpd 5\n",
        f"logs/v0\norigin log.example/a\nvkey {A}\n",
        f"logs/v0\nvkey {A}\ncontact x\nqpd 5\n",
        f"logs/v0\nvkey {A}\nqpd 5\nqpd 5\n",
        f"logs/v0\nvkey {A}\nqpd many\n",
        f"logs/v0\nvkey {A}\nother x\n",
        f"logs/v0\nvkey {A}\norigin \n",
    ],
)
def test_a_list_that_is_not_understood_accepts_nothing(text: str) -> None:
    """If false, half a list would be taken for one."""
    with pytest.raises(MalformedError):
        accepted_by_list(text.encode())


def test_a_list_with_keys_of_witnesses_or_no_text_is_refused() -> None:
    """If false, a witness's key could stand for a log."""
    cosigner = SignerKey("w.example/w", key("w")).cosigner
    for data in (f"logs/v0\nvkey {cosigner}\n".encode(), b"logs/v0\n\xff\n"):
        with pytest.raises(MalformedError):
            accepted_by_list(data)
    with pytest.raises(MalformedError):
        accepted_key(cosigner)


def test_a_policy_accepts_its_ledgers_whole_and_its_other_logs_alone() -> None:
    """If false, `add-ledger --policy` would not mean what the policy means to a verifier."""
    policy = Policy.parse((VECTORS / "policy").read_bytes())
    vkey = "ledger.daybook.example/governing+e5b2b79d+AYbD14wMhBIbU4gR+XKvsEi0aCLDXZ2k7WZML8UK61cQ"
    assert accepted_by_policy(policy) == (Accepted("ledger", "ledger.daybook.example", vkey),)
    (alone,) = accepted_by_policy(Policy.parse((VECTORS / "c2sp" / "policy-both").read_bytes()))
    assert (alone.rule, alone.origin) == ("log", "daybook.example/register/dept-a")
    with pytest.raises(MalformedError):
        accepted_by_policy(Policy.parse(b"quorum none\n"))


@pytest.mark.parametrize("name", ["governing", "/governing", "UPPER/governing", "a/b/governing"])
def test_a_key_that_is_no_ledgers_governing_key_stands_for_one_log(name: str) -> None:
    """If false, a key of some other log would sign for registers that nobody has named."""
    assert accepted_key(SignerKey(name, key("x")).verifier).rule == "log"


def test_a_log_whose_origin_is_not_its_keys_name_is_cosigned(
    made: MadeWitness, served: RunningWitness, tmp_path: Path
) -> None:
    """If false, logs such as the Go checksum database could not be followed."""
    path = tmp_path / "list"
    path.write_text(LIST)
    run("witness", "add-ledger", made.directory, "--log-list", path)
    odd = GrowingLog("an origin that is not the key's name".replace(" ", "-"))
    signer = GrowingLog("log.example/b").signer
    text = odd.checkpoint(5).text().replace(odd.origin.encode(), b"an origin that is not the key's name")
    assert ask(served.http, AddCheckpoint(0, (), sign_note(text, [signer]))).status == 200
    by_name = GrowingLog("log.example/b")
    assert ask(served.http, by_name.request(0, 5)).status == 404


def test_ledgers_are_added_and_disabled_while_the_witness_is_served(
    made: MadeWitness, served: RunningWitness
) -> None:
    """If false, each new ledger would cost all others an interruption."""
    log = GrowingLog("while.example/a")
    assert ask(served.http, log.request(0, 3)).status == 404
    made.add_ledger(log.vkey)
    assert ask(served.http, log.request(0, 3)).status == 200
    run("witness", "disable-ledger", made.directory, "--vkey", log.vkey)
    assert ask(served.http, log.request(3, 5)).status == 404
    assert latest(served.http, log.origin).status == 200
    made.add_ledger(log.vkey)
    assert ask(served.http, log.forked(1).request(0, 4)).status == 409
    assert ask(served.http, log.request(3, 5)).status == 200
    assert run_json("witness", "disable-ledger", made.directory, "--vkey", log.vkey)["disabled"] == log.vkey
    again = run_json("witness", "disable-ledger", made.directory, "--vkey", log.vkey, status=2)
    assert again["error"]["reason"] == "KEY_UNKNOWN"


def test_a_ledger_rotates_its_key(made: MadeWitness, served: RunningWitness) -> None:
    """If false, a ledger with a new key could only start again as another ledger."""
    old = GrowingLog("rotating.example/governing")
    new = GrowingLog("rotating.example/governing", key("the new one"))
    made.add_ledger(old.vkey)
    under_old = GrowingLog("rotating.example/a/b", old.signer.secret)
    assert ask(served.http, under_old.request(0, 3)).status == 200
    under_new = GrowingLog("rotating.example/a/b", new.signer.secret)
    assert ask(served.http, under_new.request(3, 4)).status == 403
    made.add_ledger(new.vkey)
    both = sign_note(under_old.checkpoint(4).text(), [under_old.signer, under_new.signer])
    assert ask(served.http, AddCheckpoint(3, under_old.proof(3, 4), both)).status == 200
    assert latest(served.http, under_old.origin).body.count("— rotating.example/a/b ".encode()) == 2
    assert ask(served.http, under_new.request(4, 5)).status == 200
    run("witness", "disable-ledger", made.directory, "--vkey", old.vkey)
    assert ask(served.http, under_old.request(5, 6)).status == 403
    assert ask(served.http, under_new.request(5, 6)).status == 200


def test_a_log_that_two_rules_accept_is_cosigned(made: MadeWitness, served: RunningWitness) -> None:
    """If false, importing a list beside the rule would shut its registers out."""
    ledger = GrowingLog("twice.example/governing")
    log = GrowingLog("twice.example/a/b", ledger.signer.secret)
    made.add_ledger(ledger.vkey)
    made.add_ledger(log.vkey)
    assert ask(served.http, log.request(0, 3)).status == 200


def test_a_witness_is_no_log_of_itself(tmp_path: Path) -> None:
    """If false, one name would say two things in one note, or one key sign two kinds of statement."""
    made = make_witness(tmp_path / "w", "ledger.example/ico/witness")
    own = made.key
    as_log = VerifierKey(own.name, 1, own.public)
    other = VerifierKey("log.example/a", 1, own.public)
    for vkey in (as_log, other, GrowingLog(own.name).signer.verifier):
        shown = run_json("witness", "add-ledger", made.directory, "--vkey", str(vkey), status=2)
        assert "own" in shown["error"]["message"]
    assert run_json("witness", "list", made.directory)["accepted"] == []


def test_under_a_ledgers_rule_the_witness_s_own_name_is_still_no_log(tmp_path: Path) -> None:
    """If false, a ledger could open a register by the name of its witness."""
    made = make_witness(tmp_path / "w", "ledger.example/ico/witness")
    ledger = GrowingLog("ledger.example/governing")
    made.add_ledger(ledger.vkey)
    with witnessing(made.directory) as running:
        own = GrowingLog("ledger.example/ico/witness", ledger.signer.secret)
        assert ask(running.http, own.request(0, 3)).status == 404
        other = GrowingLog("ledger.example/ico/other", ledger.signer.secret)
        assert ask(running.http, other.request(0, 3)).status == 200
    assert WitnessDirectory(made.directory).state.exists()
