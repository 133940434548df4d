"""Packs of the vectors' story: an open and a closed one, each as a folder and as a ZIP file; and a browser."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.chromium import browser
from tests.support.packs import Packs, chosen_receipts, make_packs

__all__ = ["browser"]


@pytest.fixture(scope="session")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Packs:
    """Nobody changes them: see `copied`."""
    root = tmp_path_factory.mktemp("packs")
    return make_packs(root, chosen_receipts(root / "receipts"))


@pytest.fixture
def copied(packs: Packs, tmp_path: Path) -> Packs:
    """A copy for a test to spoil."""
    root = tmp_path / "copied"
    shutil.copytree(packs.root, root)
    return Packs(root)
