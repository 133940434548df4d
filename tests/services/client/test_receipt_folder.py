from __future__ import annotations

from pathlib import Path

import pytest

from ledger.errors import MalformedError
from services.client.receipt_folder import ReceiptFolder
from tests.support.records import RECORD_ID, REGISTER, record_id


def test_what_is_kept_is_read_back(tmp_path: Path) -> None:
    """False if a receipt were stored under another name than the one that is looked up."""
    folder = ReceiptFolder(tmp_path, REGISTER)
    assert folder.read(RECORD_ID, 1) is None
    folder.keep([(RECORD_ID, 1, b"one"), (RECORD_ID, 2, b"two"), (record_id(1), 1, b"three")])
    assert folder.read(RECORD_ID, 1) == b"one"
    assert folder.read(RECORD_ID, 2) == b"two"
    department, office = REGISTER.split("/")
    names = sorted(path.name for path in (tmp_path / department / office).iterdir())
    assert names == sorted([f"{RECORD_ID}.1.receipt", f"{RECORD_ID}.2.receipt", f"{record_id(1)}.1.receipt"])


@pytest.mark.parametrize("name", ["../../etc/passwd", "", RECORD_ID.upper(), f"{RECORD_ID}/x"])
def test_a_record_id_that_is_no_uuid_never_becomes_a_path(tmp_path: Path, name: str) -> None:
    """False if a record could make the client write outside its folder."""
    with pytest.raises(MalformedError):
        ReceiptFolder(tmp_path, REGISTER).keep([(name, 1, b"x")])


def test_a_leftover_of_a_crash_is_no_receipt_and_does_no_harm(tmp_path: Path) -> None:
    """False if a half-written file could be taken for a receipt, or stop the next run."""
    folder = ReceiptFolder(tmp_path, REGISTER)
    folder.keep([(RECORD_ID, 1, b"one")])
    leftover = folder.folder / f".{RECORD_ID}.2.receipt.1.part"
    leftover.write_bytes(b"hal")
    assert folder.read(RECORD_ID, 2) is None
    folder.keep([(RECORD_ID, 2, b"whole")])
    assert folder.read(RECORD_ID, 2) == b"whole"
