from __future__ import annotations

import stat
from pathlib import Path

import pytest

from ledger.notes import COSIGNATURE_V1, SignerKey, VerifierKey
from services.witness.directory import WitnessDirectory
from tests.support.command import run, run_json
from tests.support.growing_log import GrowingLog
from tests.support.vectors import VECTORS

NAME = "witness.example/w"
LEDGER = GrowingLog("ledger.example/governing")


@pytest.fixture
def directory(tmp_path: Path) -> WitnessDirectory:
    run("witness", "keygen", tmp_path / "w", "--name", NAME)
    return WitnessDirectory(tmp_path / "w")


def test_keygen_makes_a_key_for_cosignatures_that_only_its_owner_can_read(tmp_path: Path) -> None:
    """False if others could sign as the witness, or the line given to ledgers were not its key."""
    made = run_json("witness", "keygen", tmp_path / "new" / "w", "--name", NAME)
    files = WitnessDirectory(tmp_path / "new" / "w")
    assert stat.S_IMODE(files.key.stat().st_mode) == 0o600
    vkey = VerifierKey.parse(files.public_key.read_text().strip())
    assert (vkey.name, vkey.type) == (NAME, COSIGNATURE_V1)
    assert made["vkey"] == str(vkey) == str(SignerKey.parse(files.key.read_text().strip()).cosigner)
    assert made["secret_file"] == str(files.key)


def test_keygen_prints_the_line_for_policies(tmp_path: Path) -> None:
    """False if an institution had to look for what it must publish."""
    printed = run("witness", "keygen", tmp_path / "w", "--name", NAME).stdout.splitlines()
    assert printed[-1] == (tmp_path / "w" / "key.pub").read_text().strip()


@pytest.mark.parametrize("left", ["key", "key.pub", "witness.sqlite3"])
def test_keygen_replaces_nothing(directory: WitnessDirectory, left: str) -> None:
    """False if a second keygen could make a witness forget, or become another."""
    for path in (directory.key, directory.public_key, directory.state):
        if path.name != left:
            path.unlink()
    before = (directory.root / left).read_bytes()
    run("witness", "keygen", directory.root, "--name", NAME, status=2)
    assert (directory.root / left).read_bytes() == before
    assert len(list(directory.root.iterdir())) == 1


@pytest.mark.parametrize("name", ["", "two words", "a+b", "x" * 256, "line\nbreak"])
def test_keygen_refuses_what_cannot_stand_in_a_note(tmp_path: Path, name: str) -> None:
    """False if a witness could be made whose cosignatures nobody can read."""
    run("witness", "keygen", tmp_path / "w", "--name", name, status=2)
    assert not (tmp_path / "w").exists()


def test_a_ledger_is_added_by_its_policy_file(directory: WitnessDirectory) -> None:
    """False if the file that verifiers hold could not be given to a witness."""
    printed = run("witness", "add-ledger", directory.root, "--policy", VECTORS / "policy").stdout
    assert printed.startswith("Accepted: every register of ledger ledger.daybook.example, key ledger.daybook")
    (accepted,) = run_json("witness", "list", directory.root)["accepted"]
    assert (accepted["rule"], accepted["origin"], accepted["enabled"]) == (
        "ledger",
        "ledger.daybook.example",
        True,
    )


def test_a_disabled_ledger_is_shown_as_such(directory: WitnessDirectory) -> None:
    """False if an operator could not see why a ledger is answered 404."""
    run("witness", "add-ledger", directory.root, "--vkey", LEDGER.vkey)
    run("witness", "disable-ledger", directory.root, "--vkey", LEDGER.vkey)
    (accepted,) = run_json("witness", "list", directory.root)["accepted"]
    assert accepted["enabled"] is False
    assert "DISABLED" in run("witness", "list", directory.root).stdout


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--vkey", "nonsense"),
        ("--vkey", LEDGER.vkey, "--policy", str(VECTORS / "policy")),
        ("--policy", str(VECTORS / "c2sp" / "size-7.note")),
        ("--log-list", str(VECTORS / "policy")),
    ],
    ids=["nothing", "no key", "two sources", "no policy", "no list"],
)
def test_what_is_not_understood_adds_nothing(directory: WitnessDirectory, options: tuple[str, ...]) -> None:
    """False if a slip of the keyboard could make the witness trust something else."""
    run("witness", "add-ledger", directory.root, *options, status=2)
    assert run_json("witness", "list", directory.root)["accepted"] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("add-ledger", "{}", "--vkey", LEDGER.vkey),
        ("disable-ledger", "{}", "--vkey", LEDGER.vkey),
        ("list", "{}"),
        ("serve", "{}", "--listen", "127.0.0.1:0"),
    ],
    ids=lambda arguments: str(arguments[0]),
)
def test_where_there_is_no_witness_every_command_says_how_to_make_one(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """False if somebody who has mistyped a path were left alone, or got an empty witness."""
    given = [each.format(tmp_path / "none") for each in arguments]
    shown = run_json("witness", *given, status=2)
    assert "daybook witness keygen" in shown["error"]["message"]
    assert not (tmp_path / "none").exists()


def test_a_secret_key_is_never_quoted(directory: WitnessDirectory) -> None:
    """False if a mistyped path printed a secret on a screen."""
    directory.key.write_text("PRIVATE+KEY+witness.example/w+nonsense\n")
    for arguments in (("serve", directory.root), ("add-ledger", directory.root, "--policy", directory.key)):
        result = run("witness", *arguments, status=2)
        assert "nonsense" not in result.output


def test_a_file_that_is_not_there_is_unreadable(directory: WitnessDirectory, tmp_path: Path) -> None:
    """False if a missing file were taken for bad input."""
    run("witness", "add-ledger", directory.root, "--policy", tmp_path / "none", status=3)
    run("witness", "add-ledger", directory.root, "--log-list", tmp_path / "none", status=3)


@pytest.mark.parametrize("name", ["", "keygen", "add-ledger", "disable-ledger", "list", "serve"])
def test_help_shows_an_example(name: str) -> None:
    """False if a command could only be learned from its source."""
    printed = run("witness", *filter(None, [name]), "--help").stdout
    assert f"daybook witness {name or 'keygen'} ./witness" in printed
