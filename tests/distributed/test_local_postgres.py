"""The local PostgreSQL is a real one: what it has committed outlives its crash."""

from __future__ import annotations

import threading
from pathlib import Path

import psutil
import psycopg
import pytest

from services.local import postgres as local
from services.local.postgres import Postgres, PostgresMissingError, PostgresNotStartedError, postgres
from tests.support.brokers import SharedPostgres


def rows(dsn: str) -> list[int]:
    """Read the table."""
    with psycopg.connect(dsn) as connection:
        return [row[0] for row in connection.execute("SELECT number FROM kept ORDER BY number")]


def keep(dsn: str, numbers: range) -> None:
    """Write rows into the table, which is made where it is not there, and commit."""
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (number integer PRIMARY KEY)")
        for number in numbers:
            connection.execute("INSERT INTO kept VALUES (%s)", [number])


def test_committed_rows_outlive_a_sigkill(fresh_postgres: Postgres) -> None:
    """False if a server killed after a commit lost it, kept what was not committed, or did not come back."""
    fresh_postgres.create_database("daybook")
    dsn = fresh_postgres.dsn()
    keep(dsn, range(100))
    with psycopg.connect(dsn) as connection:
        connection.execute("INSERT INTO kept VALUES (1000)")
        fresh_postgres.kill()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    fresh_postgres.start()
    assert fresh_postgres.dsn() == dsn
    assert rows(dsn) == list(range(100))


def test_a_kill_returns_when_every_process_is_gone(fresh_postgres: Postgres) -> None:
    """False if the next start met what is left of the last one, and were refused."""
    child = psutil.Process(fresh_postgres.pid).children()[0]
    child.suspend()
    killing = threading.Thread(target=fresh_postgres.kill)
    killing.start()
    killing.join(0.5)
    assert killing.is_alive()
    child.resume()
    killing.join()
    fresh_postgres.start()


def test_commits_are_synced_to_the_disk(fresh_postgres: Postgres) -> None:
    """False if tests of durability ran on a server that was told to do without."""
    with psycopg.connect(fresh_postgres.superuser_dsn) as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes", "data_checksums"):
            assert connection.execute(f"SHOW {setting}").fetchone() == ("on",)


def test_it_does_not_run_as_root(fresh_postgres: Postgres) -> None:
    """False if the tests could not be run by root, as containers run them."""
    status = Path(f"/proc/{fresh_postgres.pid}/status").read_text(encoding="utf-8")
    uids = next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1:]
    assert "0" not in uids
    assert fresh_postgres.data.stat().st_uid == int(uids[0])
    assert fresh_postgres.data.stat().st_mode & 0o777 == 0o700


def test_nobody_gets_in_without_the_password(fresh_postgres: Postgres) -> None:
    """False if any user of the machine could change the ledger's rows."""
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(fresh_postgres.dsn("postgres", password="guessed"))
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        psycopg.connect(f"postgresql://postgres@127.0.0.1:{fresh_postgres.port}/postgres", passfile="/dev/null")


def test_an_older_backup_replaces_what_came_after(fresh_postgres: Postgres, tmp_path: Path) -> None:
    """False if a test could not set a database back to an earlier point."""
    keep(fresh_postgres.superuser_dsn, range(3))
    with pytest.raises(RuntimeError, match="stop it first"):
        fresh_postgres.backup(tmp_path / "backup")
    fresh_postgres.stop()
    fresh_postgres.backup(tmp_path / "backup")
    fresh_postgres.start()
    keep(fresh_postgres.superuser_dsn, range(3, 5))
    fresh_postgres.stop()
    fresh_postgres.restore(tmp_path / "backup")
    fresh_postgres.start()
    assert rows(fresh_postgres.superuser_dsn) == [0, 1, 2]


def test_its_folder_serves_again_with_everything_in_it(fresh_postgres: Postgres) -> None:
    """False if a later process could not take the folder up again."""
    keep(fresh_postgres.superuser_dsn, range(3))
    fresh_postgres.stop()
    with postgres(fresh_postgres.folder) as again:
        assert again.folder == fresh_postgres.folder
        assert rows(again.superuser_dsn) == [0, 1, 2]


def test_a_server_that_cannot_start_says_why(fresh_postgres: Postgres) -> None:
    """False if somebody had to look for the log."""
    fresh_postgres.stop()
    (fresh_postgres.data / "PG_VERSION").write_text("9.6\n", encoding="utf-8")
    with pytest.raises(PostgresNotStartedError, match=r"(?s)ended with status 1:.*9\.6"):
        fresh_postgres.start()
    with pytest.raises(RuntimeError, match="does not run"):
        _ = fresh_postgres.pid


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """False if somebody without PostgreSQL were not told what to install."""
    monkeypatch.setattr(local, "OLDEST_POSTGRES", 1000)
    with pytest.raises(PostgresMissingError, match="apt-get install postgresql"), postgres(tmp_path):
        pass


def test_a_test_has_a_database_of_its_own(postgres: SharedPostgres, fresh_database: str) -> None:
    """False if tests that share a server saw each other's rows."""
    keep(fresh_database, range(2))
    assert rows(fresh_database) == [0, 1]
    with psycopg.connect(postgres.superuser_dsn) as connection:
        assert connection.execute("SELECT to_regclass('kept')").fetchone() == (None,)
