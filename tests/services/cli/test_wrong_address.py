"""A wrong address, or a wrong policy file, is told as the reader's mistake, and not as a broken ledger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.notes import ED25519, VerifierKey
from tests.support.command import run, run_json
from tests.support.ledgers import ORIGIN
from tests.support.monitored import Monitored, monitored

GOVERNING = "/logs/governing/checkpoint"


@pytest.fixture
def it(tmp_path: Path) -> Iterator[Monitored]:
    with monitored(tmp_path) as it:
        it.held.fill(3)
        it.publish()
        yield it


def policy_of(it: Monitored, name: str, public: bytes | None = None) -> Path:
    """Return a policy file of another name, or with another key."""
    line = it.policy.text().split(b"\n")[0].decode().removeprefix("log ")
    key = VerifierKey(
        f"{name}/governing", ED25519, VerifierKey.parse(line).public if public is None else public
    )
    path = it.folder / "other.policy"
    path.write_text(f"log {key}\nquorum none\n")
    return path


def options(it: Monitored, policy: Path) -> tuple[str | Path, ...]:
    return (it.site.url, "--policy", policy, "--state", it.state, "--patience", "0")


def test_another_ledger_at_the_address_is_no_failure_of_it(it: Monitored) -> None:
    """False if a stranger with the wrong file were told that a ledger had been tampered with."""
    policy = policy_of(it, "elsewhere.test")
    for command in (("audit",), ("monitor", "--once")):
        name, *more = command
        text = run(name, *options(it, policy), *more, status=3).stdout
        assert f"this address serves '{ORIGIN}', your policy names elsewhere.test" in text
        assert "wrong address, or the wrong policy file?" in text
    assert "NOTHING COULD BE READ" in text
    assert "nothing wrong" not in text.lower()
    value = run_json("audit", *options(it, policy), status=3)
    assert (value["ok"], value["failed"]) == (False, False)
    assert not (it.state / "evidence").exists()


@pytest.mark.parametrize("page", [b"<html>Welcome</html>", b"", b"elsewhere.test\x1b[2J/governing\n0\n"])
def test_what_is_no_checkpoint_at_all_is_no_failure_either(it: Monitored, page: bytes) -> None:
    """False if some other web server's page were taken for a ledger's doing, or steered a terminal."""
    it.site.files[GOVERNING] = page
    text = run("audit", *options(it, it.policy_file), status=3).stdout
    assert "is no checkpoint of a ledger" in text
    assert "\x1b" not in text


def test_once_the_ledger_was_seen_another_in_its_place_is_found(it: Monitored) -> None:
    """False if a ledger that was followed could be taken away by showing another one's name."""
    run("audit", *options(it, it.policy_file))
    it.site.files[GOVERNING] = it.notes["governing"].replace(ORIGIN.encode(), b"elsewhere.test")
    value = run_json("audit", *options(it, it.policy_file), status=1)
    (finding,) = (each for one in value["registers"] for each in one["findings"] if each["is_failure"])
    assert finding["code"] == "signature"
    assert f"this address serves 'elsewhere.test', your policy names {ORIGIN}" in finding["what"]
    assert "An innocent cause: the address is not that of the ledger" in finding["expected"]
    assert Path(finding["evidence"]).exists()


def test_another_key_under_the_same_name_is_a_failure_with_its_innocent_cause(it: Monitored) -> None:
    """False if a ledger that lost its key passed, or nobody thought of a policy file that is old."""
    policy = policy_of(it, ORIGIN, bytes(31) + b"\1")
    text = run("audit", *options(it, policy), status=1).stdout
    assert "it is not signed with the key that your policy names" in text
    assert "before a change of the ledger's key, or of another ledger of the same name" in text
