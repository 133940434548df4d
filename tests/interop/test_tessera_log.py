"""A log that Tessera keeps, by its own example program, submits its checkpoints to our witness."""

from __future__ import annotations

import hashlib
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ledger import tree
from ledger.ed25519 import SecretKey
from ledger.hashing import leaf_hash
from ledger.notes import SignerKey
from ledger.tiles import decode_entries
from ledger.witnessing import JudgedCheckpoint, Policy, judge
from services.witness.directory import WitnessDirectory
from tests.interop.programs import fetch, wait_until
from tests.support.command import run, run_json
from tests.support.foreign_witness import log_list
from tests.support.witness_process import MadeWitness, RunningWitness, make_witness, witnessing

pytestmark = [pytest.mark.journey, pytest.mark.timeout(1_200)]

ORIGIN = "tessera.example/log"


@dataclass(frozen=True, slots=True)
class TesseraLog:
    """A log in a folder, and the witness policy by which Tessera publishes it."""

    programs: Path
    root: Path
    policy: Policy
    made: MadeWitness
    witness: RunningWitness

    @property
    def storage(self) -> Path:
        return self.root / "storage"

    def command(self, name: str, count: int) -> list[str | Path]:
        """Return the command that adds `count` entries, which are told apart by `name`."""
        entries = self.root / name
        entries.mkdir()
        for number in range(count):
            (entries / f"{number:05}").write_text(f"{name}, {number}", encoding="utf-8")
        return [
            *(self.programs / "posix-oneshot", "-storage_dir", self.storage, "-entries", f"{entries}/*"),
            *("-private_key", self.root / "key", "-witness_policy_file", self.root / "policy"),
        ]

    def add(self, name: str, count: int) -> None:
        """Add entries, and return once Tessera has published a checkpoint of them."""
        done = subprocess.run(
            self.command(name, count), capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr

    def published(self) -> JudgedCheckpoint:
        """Judge what Tessera has published under the very policy that it was given."""
        return judge((self.storage / "checkpoint").read_bytes(), self.policy, ORIGIN)


@pytest.fixture
def log(foreign: Path, tmp_path: Path) -> Iterator[TesseraLog]:
    """A new Tessera log, accepted by a new witness of ours through a log list."""
    key = SignerKey(ORIGIN, SecretKey(secrets.token_bytes(32)))
    (tmp_path / "key").write_text(key.text(), encoding="utf-8")
    (tmp_path / "list").write_text(log_list([str(key.verifier)]), encoding="utf-8")
    made = make_witness(tmp_path / "witness", "witness.example/w")
    run("witness", "add-ledger", made.directory, "--log-list", tmp_path / "list")
    with witnessing(made.directory) as witness:
        policy = Policy.parse(
            f"log {key.verifier}\nwitness ours {made.vkey} {witness.url}\n"
            "group enough all ours\nquorum enough\n".encode()
        )
        # As we write it: Tessera has its own parser.
        (tmp_path / "policy").write_bytes(policy.text())
        yield TesseraLog(foreign, tmp_path, policy, made, witness)


def test_a_tessera_log_grows_under_our_witness(log: TesseraLog) -> None:
    """If false, a log that is not Daybook's cannot use our witness, or does not believe its cosignatures."""
    for name, count, size in (("first", 3, 3), ("second", 300, 303)):
        log.add(name, count)
        published = log.published()
        assert published.checkpoint.size == size
        assert [each.witness for each in published.cosignatures] == ["ours"]


def test_tesseras_tree_is_ours(log: TesseraLog) -> None:
    """If false, Tessera and we do not make the same tree of the same entries."""
    log.add("only", 300)
    bundles = (log.storage / "tile/entries" / name for name in ("000", "001.p/44"))
    entries = [entry for bundle in bundles for entry in decode_entries(bundle.read_bytes())]
    assert entries == [f"only, {number}".encode() for number in range(300)]
    assert tree.tree_root(list(map(leaf_hash, entries))) == log.published().checkpoint.root


def test_our_witness_shows_the_checkpoint_that_tessera_published(log: TesseraLog) -> None:
    """If false, whoever asks our witness about a foreign log is told of another one."""
    log.add("only", 3)
    shown = fetch(f"{log.witness.url}/{hashlib.sha256(ORIGIN.encode()).hexdigest()}/checkpoint")
    assert judge(shown, log.policy, ORIGIN).checkpoint == log.published().checkpoint


def test_a_tessera_log_with_two_histories_is_refused_and_found_out(log: TesseraLog) -> None:
    """If false, a log of another make that is restored from an old copy gets its other history cosigned."""
    log.add("shared", 3)
    shutil.copytree(log.storage, log.root / "old copy")
    log.add("one history", 300)
    shutil.rmtree(log.storage)
    (log.root / "old copy").rename(log.storage)
    published = (log.storage / "checkpoint").read_bytes()
    evidence = WitnessDirectory(log.made.directory).evidence
    with subprocess.Popen(log.command("another history", 400), stderr=subprocess.DEVNULL) as tessera:
        try:
            # Tessera asks again for ever, so it is ended when our witness has written down what it saw.
            wait_until(lambda: list(evidence.glob("*.json")), "evidence of the second history")
        finally:
            tessera.kill()
    assert (log.storage / "checkpoint").read_bytes() == published
    listed = run_json("witness", "list", log.made.directory, status=1)
    (found,) = listed["evidence"]
    # Tessera's own proof convicts it: it leads from another tree of the size that was cosigned.
    assert found["proof"] is True
    assert judge(found["ours"].encode(), log.policy, ORIGIN).checkpoint.size == 303
    assert log.policy.open(found["theirs"].encode(), ORIGIN).checkpoint.size == 403
    assert [each["size"] for each in listed["origins"]] == [303]
