"""What an import has recovered is declared once, whole, and with the sizes of before it began."""

from pathlib import Path

import pytest

from ledger.catch_up import Missing
from ledger.records import RestoreDeclared, parse_record
from services.ledger_files import DirectoryError, LedgerDirectory
from services.restoring import (
    NOTHING_PENDING,
    PendingRestore,
    forget_pending,
    pending_restore,
    read_pending,
    write_pending,
)

GOVERNING = Missing("governing", 2, 5)
OFFICE = Missing("department-for-testing/secretary-of-state", 0, 9)
SIZES = {"governing": 5, OFFICE.register: 12}


def test_a_pending_restore_is_read_as_it_was_written(tmp_path: Path) -> None:
    """False if a size or a register were lost between the import and the next start."""
    directory = LedgerDirectory(tmp_path)
    assert pending_restore(directory) == NOTHING_PENDING
    pending = NOTHING_PENDING.merged([OFFICE, GOVERNING]).completed(SIZES)
    write_pending(directory, pending)
    assert pending_restore(directory) == pending
    forget_pending(directory)
    forget_pending(directory)
    assert pending_restore(directory) == NOTHING_PENDING
    assert list(tmp_path.iterdir()) == []


def test_the_ledger_may_not_start_while_an_import_is_unfinished(tmp_path: Path) -> None:
    """False if part of what was lost could be taken for all of it."""
    directory = LedgerDirectory(tmp_path)
    write_pending(directory, NOTHING_PENDING.merged([OFFICE]))
    with pytest.raises(DirectoryError, match="interrupted"):
        pending_restore(directory)


def test_what_the_older_copy_held_is_remembered_over_an_interruption() -> None:
    """False if an import that is run again declared a smaller loss than there was."""
    first = NOTHING_PENDING.merged([GOVERNING, OFFICE])
    again = first.merged([Missing(OFFICE.register, 6, 12)]).completed(SIZES)
    assert dict(again.restored) == {"governing": GOVERNING, OFFICE.register: Missing(OFFICE.register, 0, 12)}


def test_no_more_is_declared_than_was_recovered() -> None:
    """False if an interrupted import's aim were declared although a smaller export ended it."""
    aimed = NOTHING_PENDING.merged([GOVERNING, OFFICE])
    ended = aimed.completed({"governing": 2, OFFICE.register: 4})
    assert dict(ended.restored) == {OFFICE.register: Missing(OFFICE.register, 0, 4)}


def test_each_register_is_declared_by_one_record_however_often_it_is_asked() -> None:
    """False if a start that was interrupted between two records wrote other ones at the next."""
    pending = PendingRestore({OFFICE.register: OFFICE, "governing": GOVERNING}, 5)
    records = pending.records("ledger.test")
    assert records == pending.records("ledger.test")
    parsed = [parse_record(record) for record in records]
    assert [
        (one.restored, one.stored_size, one.recovered_size)
        for one in parsed
        if isinstance(one, RestoreDeclared)
    ] == [
        ("governing", 2, 5),
        (OFFICE.register, 0, 9),
    ]
    assert PendingRestore(pending.restored, 6).records("ledger.test") != records


DAMAGED = [
    "",
    "{}",
    "[]",
    '{"type": "daybook.restore-pending/2", "source": "event_log", "governing_size": 5, "registers": {}}',
    '{"type": "daybook.restore-pending/1", "source": "tiles", "governing_size": 5, "registers": {}}',
    '{"type": "daybook.restore-pending/1", "source": "event_log", "governing_size": 0, "registers": {}}',
    '{"type": "daybook.restore-pending/1", "source": "event_log", "governing_size": 5, "registers": '
    '{"governing": {"stored_size": 3, "recovered_size": 3}}}',
    '{"type": "daybook.restore-pending/1", "source": "event_log", "governing_size": 5, "registers": '
    '{"Governing": {"stored_size": 3, "recovered_size": 4}}}',
]


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_file_is_refused(text: str, tmp_path: Path) -> None:
    """False if a restore could be left undeclared because its file cannot be read."""
    directory = LedgerDirectory(tmp_path)
    directory.pending_restore.write_text(text)
    with pytest.raises(DirectoryError, match="damaged"):
        read_pending(directory)
