"""The names that settings may have, and what they must not hold: refused before anything is reached."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.distributed.settings import distributed_settings, signer_settings
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


@pytest.mark.parametrize("command", [("config", "show"), ("topics",), ("run", "relay"), ("run", "signer")])
def test_a_variable_that_is_no_setting_is_refused(
    monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """False if a misspelt variable left a default in force without a word."""
    monkeypatch.setenv("DAYBOOK_PARTITION", "24")
    said = run(*command, status=2).output
    assert "DAYBOOK_PARTITION: no setting has this name (did you mean DAYBOOK_PARTITIONS?)" in said


def test_all_that_is_wrong_is_named_at_once_and_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """False if somebody had to start a service once for each mistake, or read a secret in its log."""
    monkeypatch.delenv("DAYBOOK_KAFKA")
    monkeypatch.setenv("DAYBOOK_KAFAK", "127.0.0.1:9092")
    monkeypatch.setenv("DAYBOOK_DATABASE_PASSWORD", "hunter2")
    monkeypatch.setenv("DAYBOOK_WHATEVER", "hunter3")
    said = run("config", "show", status=2).output
    for expected in (
        "DAYBOOK_KAFAK: no setting has this name (did you mean DAYBOOK_KAFKA?)",
        "(did you mean DAYBOOK_DATABASE_PASSWORD_FILE?)",
        "DAYBOOK_WHATEVER: no setting has this name;",
        "kafka is not set: give DAYBOOK_KAFKA",
    ):
        assert expected in said
    assert "hunter" not in said


def test_variables_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """False if nobody could run a service where a client, or these tests, have settings as well."""
    file = tmp_path / "daybook.toml"
    file.write_text("partitions = 24")
    for name in ("DAYBOOK_CLIENT_TLS_CA", "DAYBOOK_TEST_KAFKA", "DAYBOOK_CACHE"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("DAYBOOK_CONFIG", str(file))
    assert distributed_settings().partitions == 24


def test_a_misspelt_name_in_the_file_is_corrected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """False if somebody had to compare the names letter by letter."""
    file = tmp_path / "daybook.toml"
    file.write_text('topic_prefx = "a."')
    monkeypatch.setenv("DAYBOOK_CONFIG", str(file))
    assert (
        "topic_prefx: no setting has this name (did you mean topic_prefix?)"
        in run("config", "show", status=2).output
    )


def test_the_signer_needs_neither_kafka_nor_a_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """False if the host of the log key had to be told where everything else is."""
    monkeypatch.delenv("DAYBOOK_KAFKA")
    monkeypatch.delenv("DAYBOOK_DATABASE")
    assert signer_settings().origin == "ledger.test"
    assert run("run", "signer", status=2).output.startswith("the signer needs log_key and signer_marks")
    assert run_json("config", "show", "--for", "signer")["origin"]["value"] == "ledger.test"
    for command in (("config", "show"), ("config", "show", "--for", "relay"), ("run", "relay")):
        assert "kafka is not set" in run(*command, status=2).output


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("DAYBOOK_KAFKA", "kafka.internal", "kafka: 'kafka.internal' is not HOST:PORT"),
        ("DAYBOOK_KAFKA", "a:9092,b", "kafka: 'b' is not HOST:PORT"),
        ("DAYBOOK_DATABASE", "daybook", "database: neither a connection URI nor key=value pairs of PostgreSQL"),
        ("DAYBOOK_KAFKA_CERTIFICATE", "/a.pem", "kafka_certificate and kafka_key go together"),
    ],
)
def test_what_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    """False if it were found out later, by a library that says it in its own way."""
    monkeypatch.setenv(name, value)
    assert said in run("config", "show", status=2).output


@pytest.mark.parametrize(
    "database",
    ["host=db sslpassword=hunter2", "postgresql://u@h/db?password=hunter2", "postgresql://u:hunter2/@h/db"],
)
def test_no_connection_string_with_a_secret_is_taken_or_repeated(
    monkeypatch: pytest.MonkeyPatch, database: str
) -> None:
    """False if a password stood in the environment for all to read, or in the log for ever."""
    monkeypatch.setenv("DAYBOOK_DATABASE", database)
    assert "hunter" not in run("config", "show", status=2).output


def test_a_certificate_for_kafka_is_not_taken_without_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    """False if who gives a certificate, and forgets the issuers, were connected without TLS."""
    monkeypatch.setenv("DAYBOOK_KAFKA_CERTIFICATE", "/a.pem")
    monkeypatch.setenv("DAYBOOK_KAFKA_KEY", "/a.key")
    with pytest.raises(SettingsError, match="kafka_certificate needs TLS: give kafka_ca as well"):
        distributed_settings()


def test_what_postgresql_says_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """False if its line breaks and tabs stood in what a command prints."""
    monkeypatch.setenv("DAYBOOK_DATABASE", "host=127.0.0.1 port=1 dbname=daybook")
    for command in (("migrate",), ("rebuild", "--from", "store")):
        said = run(*command, status=3).output
        assert said.count("\n") == 1
        assert "\\t" not in said
        assert "Connection refused Is the server running" in said
