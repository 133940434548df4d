from __future__ import annotations

import stat
from pathlib import Path

from ledger.notes import SignerKey, VerifierKey
from tests.support.command import run, run_json


def test_a_key_pair_fits_together_and_the_secret_is_private(tmp_path: Path) -> None:
    """False if the secret could be read by others, or signed for another public key."""
    secret = tmp_path / "key"
    run("keygen", secret, "--name", "department")
    signer = SignerKey.parse(secret.read_text().strip())
    assert str(signer.verifier) == Path(f"{secret}.pub").read_text().strip()
    assert signer.name == "department"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_neither_file_is_ever_overwritten(tmp_path: Path) -> None:
    """False if a second keygen destroyed a key that is in use."""
    secret = tmp_path / "key"
    run("keygen", secret, "--name", "department")
    before = secret.read_bytes()
    assert "not overwritten" in run("keygen", secret, "--name", "department", status=2).stderr
    assert secret.read_bytes() == before
    secret.unlink()
    run("keygen", secret, "--name", "department", status=2)
    assert not secret.exists()


def test_json_and_text_never_show_the_secret(tmp_path: Path) -> None:
    """False if a log of the terminal were a copy of the key."""
    told = run_json("keygen", tmp_path / "one", "--name", "department")
    assert VerifierKey.parse(told["vkey"]).name == "department"
    text = run("keygen", tmp_path / "two", "--name", "department").output
    for path, output in ((tmp_path / "one", str(told)), (tmp_path / "two", text)):
        # The key's own base64 may hold a "+" too.
        secret = path.read_text().strip().split("+", 4)[4]
        assert len(secret) == 44
        assert secret not in output


def test_a_name_that_no_key_can_have_is_refused(tmp_path: Path) -> None:
    """False if a file were written that no program could read back."""
    run("keygen", tmp_path / "key", "--name", "two words", status=2)
    assert not (tmp_path / "key").exists()
