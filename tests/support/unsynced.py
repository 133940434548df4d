"""Stores and marks that do not wait for the disk: where a test makes hundreds of commits, and cuts no power."""

from __future__ import annotations

import os
import sqlite3

import pytest

from ledger.stores.sqlite import SqliteStore


def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nothing that this process writes be synced, until the test ends.

    What a process wrote before it died is there all the same.
    """
    connect = SqliteStore._connect

    def connected(store: SqliteStore) -> sqlite3.Connection:
        connection = connect(store)
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    monkeypatch.setattr(SqliteStore, "_connect", connected)
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, lambda _: None)
