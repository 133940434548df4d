"""`daybook migrate`: what it prints, and how it ends."""

from __future__ import annotations

import json
import os
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ledger.stores.postgres import APPLICATION_ROLE, PostgresStore
from services.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run the command here; return its status and what it printed."""
    with pytest.raises(SystemExit) as ended:
        main(["migrate", *arguments])
    said = capsys.readouterr()
    status = ended.value.code or 0
    assert isinstance(status, int)
    return status, said.out, said.err


def test_it_makes_the_schema_and_says_so(fresh_database: str, capsys: pytest.CaptureFixture[str]) -> None:
    """False if the command made no store, or did not say what it had done."""
    assert run(capsys, "--database", fresh_database) == (
        0,
        "Applied 0001_ledger.sql.\ndaybook_app may add, daybook_reader may read: grant them to your users.\n",
        "",
    )
    with closing(PostgresStore(fresh_database)) as store:
        assert store.heads() == {}
    status, said, _ = run(capsys, "--database", fresh_database)
    assert (status, said.splitlines()[0]) == (0, "The schema is up to date: nothing to apply.")


def test_the_database_may_come_from_the_settings(
    fresh_database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """False if a password had to stand in the arguments, for all to see."""
    parts = conninfo_to_dict(fresh_database)
    password = tmp_path / "password"
    password.write_text(f"{parts.pop('password', None) or 'none is asked for'}\n")
    password.chmod(0o600)
    for name, value in {
        "ORIGIN": "ledger.example",
        "KAFKA": "127.0.0.1:9092",
        "DATABASE": make_conninfo(**parts),  # type: ignore[arg-type]
        "DATABASE_PASSWORD_FILE": str(password),
    }.items():
        monkeypatch.setenv(f"DAYBOOK_{name}", value)
    status, said, _ = run(capsys, "--json")
    assert status == 0
    assert json.loads(said) == {"applied": ["0001_ledger.sql"], "application_role": APPLICATION_ROLE}


def test_without_a_role_nothing_is_granted(fresh_database: str, capsys: pytest.CaptureFixture[str]) -> None:
    """False if an operator who keeps the roles himself could not."""
    status, said, _ = run(capsys, "--database", fresh_database, "--application-role", "")
    assert (status, said) == (0, "Applied 0001_ledger.sql.\n")
    with psycopg.connect(fresh_database) as connection:
        granted = connection.execute(
            "SELECT count(*) FROM information_schema.role_table_grants WHERE grantee LIKE 'daybook%'"
        ).fetchall()
    assert granted == [(0,)]


def test_bad_usage_is_told_apart_from_a_database_that_is_away(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """False if a script could not tell whether to try again; or a password were printed."""
    for name in [name for name in os.environ if name.startswith("DAYBOOK_")]:
        monkeypatch.delenv(name)
    assert run(capsys)[0] == 2
    status, _, said = run(capsys, "--database", "postgresql://somebody:secret@[::1/daybook")
    assert (status, "secret" in said) == (2, False)
    status, said, _ = run(capsys, "--json", "--database", "postgresql://somebody:secret@127.0.0.1:1/daybook")
    assert (status, "secret" in said) == (3, False)
    assert json.loads(said)["error"]["reason"] == "STORE_FAILED"
