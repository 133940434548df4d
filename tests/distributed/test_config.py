"""`daybook config show` and the settings of the distributed services: where they come from, what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.distributed.settings import DistributedSettings, distributed_settings
from services.settings import SettingsError
from tests.support.command import run, run_json

GIVEN = {
    "DAYBOOK_ORIGIN": "ledger.test",
    "DAYBOOK_KAFKA": "127.0.0.1:9092",
    "DAYBOOK_DATABASE": "host=db.internal dbname=daybook",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what a ledger cannot do without is set."""
    for name in [name for name in os.environ if name.startswith("DAYBOOK_")]:
        monkeypatch.delenv(name)
    for name, value in GIVEN.items():
        monkeypatch.setenv(name, value)


def write(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> Path:
    """Write a file of settings, and name it."""
    path = folder / "daybook.toml"
    path.write_text(text)
    monkeypatch.setenv("DAYBOOK_CONFIG", str(path))
    return path


def test_an_option_goes_before_the_environment_and_that_before_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """False if a setting that somebody gives for one run were overruled by an older one."""
    write(
        monkeypatch,
        tmp_path,
        'grpc = "127.0.0.1:1"\nhttp = "127.0.0.1:1"\nops = "127.0.0.1:1"\norigin = "other.test"',
    )
    monkeypatch.setenv("DAYBOOK_GRPC", "127.0.0.1:2")
    monkeypatch.setenv("DAYBOOK_HTTP", "127.0.0.1:2")
    settings = distributed_settings(grpc="127.0.0.1:3", http=None)
    assert (settings.grpc, settings.http, settings.ops) == ("127.0.0.1:3", "127.0.0.1:2", "127.0.0.1:1")
    assert (settings.origin, settings.signer) == ("ledger.test", "127.0.0.1:7075")
    shown = run_json("config", "show")
    assert {name: shown[name]["from"] for name in ("http", "ops", "signer")} == {
        "http": "environment",
        "ops": "file",
        "signer": "default",
    }
    assert shown["ops"]["value"] == "127.0.0.1:1"


def test_each_setting_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """False if somebody had to find out one by one what a service needs."""
    for name in GIVEN:
        monkeypatch.delenv(name)
    said = run("config", "show", status=2).output
    for name in GIVEN:
        assert f"give {name}" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('kafak = "127.0.0.1:9092"', "kafak: no setting has this name"),
        ("partitions = 0", "partitions: "),
        ("kafka = ", "which cannot be used"),
    ],
    ids=["unknown", "out-of-range", "no-toml"],
)
def test_a_file_with_what_cannot_be_used_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, said: str
) -> None:
    """False if a misspelt name or a damaged file left a default in force without a word."""
    write(monkeypatch, tmp_path, text)
    assert said in run("config", "show", status=2).output


def test_a_file_that_is_named_and_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """False if a service started with other settings than the operator believes."""
    monkeypatch.setenv("DAYBOOK_CONFIG", str(tmp_path / "missing.toml"))
    assert "missing.toml" in run("config", "show", status=2).output


@pytest.mark.parametrize(
    "database",
    [
        "postgresql://daybook:hunter2@db.internal/daybook",
        "host=db password=hunter2",
        "password='hunter2' host=db",
    ],
)
def test_a_password_in_the_connection_string_is_refused_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, database: str
) -> None:
    """False if the database's password could stand in a process's environment, or in its messages."""
    monkeypatch.setenv("DAYBOOK_DATABASE", database)
    said = run("config", "show", status=2).output
    assert "database_password_file" in said
    assert "hunter2" not in said


def test_a_secret_is_read_from_its_file_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """False if `config show` could be pasted into no report."""
    secret = tmp_path / "password"
    secret.write_text("hunter2\n")
    monkeypatch.setenv("DAYBOOK_DATABASE_PASSWORD_FILE", str(secret))
    assert "password=hunter2" in distributed_settings().conninfo()
    for arguments in (["show"], ["show", "--redacted"], ["show", "--redacted", "--json"]):
        said = run("config", *arguments).output
        assert str(secret) in said
        assert "hunter2" not in said


@pytest.mark.parametrize("text", [None, "", "hunter2\nhunter3\n", "\n"])
def test_an_unreadable_secret_is_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None
) -> None:
    """False if a service began without its password, or told a part of it."""
    secret = tmp_path / "password"
    if text is not None:
        secret.write_text(text)
    monkeypatch.setenv("DAYBOOK_DATABASE_PASSWORD_FILE", str(secret))
    with pytest.raises(SettingsError, match=str(secret)) as raised:
        distributed_settings().conninfo()
    assert "hunter" not in str(raised.value)


def test_every_setting_is_shown() -> None:
    """False if one were added that nobody can look up."""
    assert set(run_json("config", "show")) == set(DistributedSettings.model_fields)
