"""`daybook export` and `daybook import`: copies to read, and ledgers restored from an older copy."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ledger.checkpoints import Checkpoint
from ledger.ed25519 import SecretKey
from ledger.entries import parse_entry
from ledger.errors import SplitViewError
from ledger.export import NoteBlock, export_file, read_export
from ledger.governing import GOVERNING
from ledger.hashing import Hash
from ledger.ledger import Ledger
from ledger.notes import SignerKey, cosignature_line, split_note
from ledger.reader import RegisterReader, TileCache
from ledger.records import RestoreDeclared, parse_record
from ledger.store import NewCosignatures
from ledger.stores.sqlite import SqliteStore
from services.client.signing import sign_submission
from services.compose import embedded, register_locally
from services.ledger_files import LedgerDirectory, WriterLock
from services.restoring import NOTHING_PENDING, pending_restore, read_pending, write_pending
from services.signing import HighWaterMarks
from tests.support.command import run, run_json
from tests.support.ledger_dir import LedgerOnDisk, governing, make_ledger, opening
from tests.support.ledger_story import WITNESSES
from tests.support.ledgers import DEPARTMENT, DEPARTMENT_KEY, ORIGIN, REGISTER, decision
from tests.support.server import daybook
from tests.support.server_process import refusal
from tests.support.store_surgery import flip_in_entry, opened

SECOND = f"{DEPARTMENT}/permanent-secretary"


def add(ledger: LedgerOnDisk, numbers: Iterable[int], register: str = REGISTER) -> None:
    """Register one submission in a ledger that nobody serves."""
    records = [decision(number, register) for number in numbers]
    signed = sign_submission(records, f"{ORIGIN}/{register}", [DEPARTMENT_KEY])
    register_locally(ledger.root, signed.body, signed.records, signed.signatures)


def open_register(ledger: LedgerOnDisk, name: str) -> None:
    """Open a register in a ledger that nobody serves."""
    signed = opening(name)
    register_locally(ledger.root, signed.body, signed.records, signed.signatures)


def contents(directory: LedgerDirectory) -> dict[str, tuple[object, ...]]:
    """Return all that a store holds."""
    with closing(SqliteStore(directory.store)) as store:
        return {
            register: (
                head,
                store.entries(register, 0, head.size),
                list(store.all_tiles(register)),
                sorted(store.all_submissions(register)),
                list(store.all_records(register)),
                list(store.notes(register, 0, 1 << 40)),
            )
            for register, head in store.heads().items()
        }


def files(root: Path) -> dict[str, bytes]:
    """Return every file below a directory, but for the lock, which names a process, and SQLite's scratch."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != "lock" and not path.name.endswith(("-wal", "-shm"))
    }


@pytest.fixture
def ledger(tmp_path: Path) -> LedgerOnDisk:
    """A ledger with seven decisions in one register."""
    made = make_ledger(tmp_path / "ledger")
    add(made, range(5))
    add(made, [5, 6])
    return made


@pytest.fixture
def older(ledger: LedgerOnDisk, tmp_path: Path) -> LedgerOnDisk:
    """A copy of the ledger, keys and marks included, after which the ledger went on: another register too."""
    shutil.copytree(ledger.root, tmp_path / "older")
    add(ledger, [7])
    open_register(ledger, SECOND)
    add(ledger, range(20, 24), SECOND)
    add(ledger, [8, 9, 10])
    return LedgerOnDisk(LedgerDirectory(tmp_path / "older"), ledger.policy, ledger.acknowledgement_key)


@pytest.fixture
def export(ledger: LedgerOnDisk, tmp_path: Path) -> Path:
    """Where the ledger is exported to; asked for after `older`, it has all."""
    return tmp_path / "ledger.export"


def test_a_copy_that_is_made_from_an_export_is_the_ledger_and_exports_the_same(
    ledger: LedgerOnDisk, export: Path, tmp_path: Path
) -> None:
    """False if an export left anything out, or what is made from it could not be checked by anybody."""
    told = run_json("export", ledger.root, export)
    assert told["registers"] == {GOVERNING: 3, REGISTER: 7}
    assert (told["origin"], told["bytes"]) == (ORIGIN, export.stat().st_size)
    assert run("export", ledger.root).stdout_bytes == export.read_bytes()
    copy = tmp_path / "copy"
    imported = run_json("import", copy, export)
    assert imported["is_copy"]
    assert imported["sizes"] == told["registers"]
    assert contents(LedgerDirectory(copy)) == contents(ledger.directory)
    assert "Everything holds" in run("fsck", copy, "--processes", "1").output
    assert files(copy).keys() == {"daybook.sqlite3", "keys/log.pub"}
    again = tmp_path / "again.export"
    run("export", copy, again)
    assert again.read_bytes() == export.read_bytes()


def test_an_export_comes_over_stdin(ledger: LedgerOnDisk, export: Path, tmp_path: Path) -> None:
    """False if two machines needed a file between them."""
    run("export", ledger.root, export)
    run("import", tmp_path / "copy", "-", stdin=export.read_bytes())
    assert contents(LedgerDirectory(tmp_path / "copy")) == contents(ledger.directory)


def test_a_copy_is_for_reading_and_can_be_brought_up_to_date(
    ledger: LedgerOnDisk, older: LedgerOnDisk, export: Path, tmp_path: Path
) -> None:
    """False if a copy could be served without the keys, or had to be made anew each time."""
    run("export", older.root, export)
    copy = tmp_path / "copy"
    run("import", copy, export)
    assert "copy for reading" in daybook("serve", copy, status=2).stderr
    run("export", ledger.root, export)
    told = run_json("import", copy, export)
    assert [each["register"] for each in told["recovered"]] == [GOVERNING, SECOND, REGISTER]
    assert contents(LedgerDirectory(copy)) == contents(ledger.directory)
    assert files(copy).keys() == {"daybook.sqlite3", "keys/log.pub"}


def test_an_export_that_fails_leaves_the_file_before_it(ledger: LedgerOnDisk, export: Path) -> None:
    """False if a backup could be replaced by half of one, or by one of an altered ledger."""
    run("export", ledger.root, export)
    before = export.read_bytes()
    with opened(ledger.directory.store) as connection:
        flip_in_entry(connection, REGISTER, 4)
    assert "do not make the root" in run("export", ledger.root, export, status=3).output
    assert export.read_bytes() == before
    assert [path.name for path in export.parent.iterdir() if "export" in path.name] == [export.name]


def test_what_cannot_be_exported_or_written_to_is_told(ledger: LedgerOnDisk, tmp_path: Path) -> None:
    """False if a mistake in the arguments looked like a failure of the ledger."""
    assert "no ledger" in run("export", tmp_path, tmp_path / "x", status=2).output
    assert "is no file" in run("export", ledger.root, tmp_path, status=2).output
    assert "--json" in run("export", ledger.root, "--json", status=2).output


# Cosignatures.


def test_cosignatures_go_with_an_export_and_fsck_counts_and_checks_them(
    ledger: LedgerOnDisk, export: Path, tmp_path: Path
) -> None:
    """False if the word of witnesses were lost on the way, or could be altered without a word."""
    lines = [
        f"log {ledger.policy.logs[0].key}",
        *(f"witness w{number} {witness.cosigner}" for number, witness in enumerate(WITNESSES)),
        "quorum none",  # so that nobody is asked
    ]
    policy = governing(
        "policy.published/1",
        kind="witness",
        name="default",
        effective_from="2026-07-01T00:00Z",
        text="".join(f"{line}\n" for line in lines),
    )
    register_locally(ledger.root, policy.body, policy.records, policy.signatures)
    stranger = SignerKey("stranger.test/w", SecretKey(b"\x21" * 32))
    with closing(SqliteStore(ledger.directory.store)) as store:
        stored = store.note(REGISTER, 7)
        assert stored is not None
        text, _ = split_note(stored.note)
        for time in (1_780_000_000, 1_780_000_600):
            new = [cosignature_line(text, witness, time) for witness in (*WITNESSES, stranger)]
            store.keep_cosignatures([NewCosignatures(REGISTER, stored, new)])
    told = run("fsck", ledger.root, "--processes", "1").output
    assert "7 checkpoint notes, 6 cosignatures." in told
    assert "2 cosignatures are not checked: no witness policy that this ledger published names" in told
    run("export", ledger.root, export)
    copy = tmp_path / "copy"
    told = run("import", copy, export).output
    assert "7 checkpoint notes and 4 cosignatures were not here." in told
    assert "2 signature lines were left out" in told
    (tmp_path / "policy").write_text(f"{lines[0]}\nwitness s {stranger.cosigner}\nquorum none\n")
    told = run("import", copy, export, "--policy", tmp_path / "policy").output
    assert "0 checkpoint notes and 2 cosignatures were not here." in told
    assert "6 cosignatures." in run("fsck", copy, "--processes", "1").output
    with opened(LedgerDirectory(copy).store) as connection:
        connection.execute(
            "UPDATE cosignature SET last = CAST(replace(last, x'6a18', x'6a19') AS BLOB) WHERE name = ?",
            (WITNESSES[0].name,),
        )
    told = run("fsck", copy, "--processes", "1", status=1).output
    assert f"{REGISTER}: cosignature of {WITNESSES[0].name} over size 7: " in told


# Catching up.


def signed_roots(directory: LedgerDirectory) -> dict[tuple[str, int], Hash]:
    """Return the root at every size that has a note, as the tiles make it; the notes state the same."""
    found = {}
    with closing(SqliteStore(directory.store)) as store:
        for register, head in store.heads().items():
            reader = RegisterReader(store, register, TileCache())
            for stored in store.notes(register, 0, head.size + 1):
                found[register, stored.size] = reader.root(stored.size)
                assert Checkpoint.parse(split_note(stored.note)[0]).root == reader.root(stored.size)
    return found


def test_a_ledger_restored_from_an_older_copy_catches_up_and_declares_it_once(
    ledger: LedgerOnDisk, older: LedgerOnDisk, export: Path
) -> None:
    """False if what was lost did not come back to the byte, or came back without a word in the ledger."""
    run("export", ledger.root, export)
    told = run("import", older.root, export).output
    assert f"{REGISTER}: 11 entries, of which 7 were here." in told
    assert f"{SECOND}: 4 entries, of which 0 were here." in told
    assert f"{GOVERNING}: 4 entries, of which 3 were here." in told
    assert f"Next: daybook serve {older.root}" in told
    assert contents(older.directory) == contents(ledger.directory)
    assert signed_roots(older.directory) == signed_roots(ledger.directory)
    assert "Everything holds" in run("fsck", older.root, "--processes", "1").output
    # A start, as any: the registers that the restored marks knew nothing of are signed for again.
    add(older, [11])
    assert pending_restore(older.directory) == NOTHING_PENDING
    with closing(SqliteStore(older.directory.store)) as store:
        written = [parse_record(parse_entry(each).record) for each in store.entries(GOVERNING, 4, 99)]
        assert store.heads()[REGISTER].size == 12
    declared = []
    for record in written:
        assert isinstance(record, RestoreDeclared)
        declared.append((record.restored, record.stored_size, record.recovered_size, record.source))
    assert declared == [
        (GOVERNING, 3, 4, "event_log"),
        (SECOND, 0, 4, "event_log"),
        (REGISTER, 7, 11, "event_log"),
    ]
    assert "Everything holds" in run("fsck", older.root, "--processes", "1").output
    assert "nothing was changed" in run("import", older.root, export).output


def test_a_lost_store_comes_back_beside_the_keys(ledger: LedgerOnDisk, export: Path) -> None:
    """False if somebody with the keys and an export, but no store, had to begin a new ledger."""
    run("export", ledger.root, export)
    before = contents(ledger.directory)
    with closing(SqliteStore(ledger.directory.store)) as store:
        store._writer.execute("DELETE FROM note")
        shutil.copy(f"{ledger.directory.store}-wal", ledger.root.with_name("left-over"))
    ledger.directory.store.unlink()
    # What the store had not yet been given when it was lost is of no other store.
    shutil.copy(ledger.root.with_name("left-over"), f"{ledger.directory.store}-wal")
    told = run_json("import", ledger.root, export)
    assert {each["register"]: each["stored_size"] for each in told["recovered"]} == {GOVERNING: 0, REGISTER: 0}
    assert not told["is_copy"]
    assert contents(ledger.directory) == before
    add(ledger, [11])


def test_marks_that_were_restored_with_the_store_know_of_everything_afterwards(
    ledger: LedgerOnDisk, older: LedgerOnDisk, export: Path
) -> None:
    """False if the signer could sign a second history of what it had signed before the restore."""
    run("export", ledger.root, export)
    run("import", older.root, export)
    with closing(HighWaterMarks(older.directory.marks)) as marks:
        for register, size in signed_roots(ledger.directory):
            if size:
                with pytest.raises(SplitViewError):
                    marks.raise_to([Checkpoint(f"{ORIGIN}/{register}", size, Hash(bytes(32)))])


def test_marks_that_are_missing_stay_missing(older: LedgerOnDisk, export: Path, tmp_path: Path) -> None:
    """False if an import took away the refusal of a signer that has forgotten what it signed."""
    run("export", older.root, export)
    older.directory.marks.unlink()
    run("import", older.root, export)
    assert not older.directory.marks.exists()
    assert refusal(older.root, tmp_path / "serve.log").status == 2


def test_an_export_that_ends_earlier_changes_nothing_and_says_so(
    ledger: LedgerOnDisk, older: LedgerOnDisk, export: Path
) -> None:
    """False if an old export could set a ledger back, or were taken for a failure."""
    run("export", older.root, export)
    before = files(ledger.root)
    told = run("import", ledger.root, export).output
    assert f"{export} holds nothing that {ledger.root} lacks: nothing was changed." in told
    assert files(ledger.root) == before
    assert not run_json("import", ledger.root, export)["changed"]


def test_what_no_note_covers_is_brought_in_and_told(
    ledger: LedgerOnDisk, older: LedgerOnDisk, export: Path
) -> None:
    """False if what a killed server had acknowledged were left behind, or passed for signed."""
    run("export", ledger.root, export)
    blocks = list(read_export(io.BytesIO(export.read_bytes())).blocks)
    uncovered = [block for block in blocks if not (isinstance(block, NoteBlock) and block.size == 11)]
    export.write_bytes(b"".join(export_file(ORIGIN, uncovered)))
    told = run("import", older.root, export).output
    assert f"{REGISTER}: no checkpoint note covers the last 3 entries; their authors' signatures do." in told
    add(older, [12])


def test_marks_that_know_of_more_than_the_export_are_told(
    ledger: LedgerOnDisk, older: LedgerOnDisk, export: Path, tmp_path: Path
) -> None:
    """False if a ledger that is still behind what it signed seemed ready to be served."""
    run("export", ledger.root, export)
    add(ledger, [30])
    shutil.copy(ledger.directory.marks, older.directory.marks)
    told = run("import", older.root, export).output
    assert f"WARNING: {REGISTER}: this ledger has signed size 12, and has 11." in told
    with pytest.raises(SplitViewError), embedded(older.directory):
        pass


# What is refused, and changes nothing.


@pytest.fixture
def untouched(older: LedgerOnDisk) -> Iterator[None]:
    """Assert at the end that nothing in the older copy has changed."""
    before = files(older.root)
    yield
    assert files(older.root) == before


@pytest.mark.usefixtures("untouched")
def test_an_export_of_another_history_is_refused_with_both_notes(
    ledger: LedgerOnDisk, older: LedgerOnDisk, export: Path, tmp_path: Path
) -> None:
    """False if a ledger that signed on from an older copy could be joined with the one it was copied from."""
    fork = LedgerOnDisk(LedgerDirectory(tmp_path / "fork"), ledger.policy, ledger.acknowledgement_key)
    shutil.copytree(older.root, fork.root)
    add(fork, [50, 51, 52])
    run("export", ledger.root, export)
    before = files(fork.root)
    told = run_json("import", fork.root, export, status=1)["error"]
    assert files(fork.root) == before
    assert told["reason"] == "SPLIT_VIEW"
    assert "Entry 7 " in told["message"]
    origin = f"{ORIGIN}/{REGISTER}"
    opened_notes = [ledger.policy.open(told[name].encode(), origin).checkpoint for name in ("first", "second")]
    assert [each.size for each in opened_notes] == [10, 8]


@pytest.mark.usefixtures("untouched")
def test_an_export_that_is_not_whole_is_refused(
    ledger: LedgerOnDisk, older: LedgerOnDisk, export: Path
) -> None:
    """False if the first half of an export were brought in before the second was found missing."""
    run("export", ledger.root, export)
    data = export.read_bytes()
    for wrong in (data[: len(data) // 2], data[:-1], data + b"x", b"", b"daybook.export/2\n" + data[17:]):
        export.write_bytes(wrong)
        run("import", older.root, export, status=2)
        missing = older.root.with_name("missing")
        run("import", missing, export, status=2)
        assert not missing.exists()


@pytest.mark.usefixtures("untouched")
def test_an_altered_export_is_refused(ledger: LedgerOnDisk, older: LedgerOnDisk, export: Path) -> None:
    """False if somebody could change a record on its way, under a note or after the last one."""
    run("export", ledger.root, export)
    data = export.read_bytes()
    for text in (b'"title":"Decision 2"', b'"title":"Decision 10"'):
        assert text in data
        export.write_bytes(data.replace(text, text.replace(b"Decision", b"Derision")))
        assert "signature or shape" in run("import", older.root, export, status=1).output


@pytest.mark.usefixtures("untouched")
def test_an_altered_message_that_no_note_covers_is_refused(
    ledger: LedgerOnDisk, older: LedgerOnDisk, export: Path
) -> None:
    """False if what was accepted last could be lost or changed on its way: only its author vouches for it."""
    run("export", ledger.root, export)
    blocks = list(read_export(io.BytesIO(export.read_bytes())).blocks)
    uncovered = [block for block in blocks if not (isinstance(block, NoteBlock) and block.size == 11)]
    assert len(uncovered) == len(blocks) - 1
    export.write_bytes(b"".join(export_file(ORIGIN, uncovered)).replace(b'"Decision 10"', b'"Decision 11"'))
    assert "registration cannot have made" in run("import", older.root, export, status=1).output


@pytest.mark.usefixtures("untouched")
def test_an_export_of_another_ledger_is_refused(older: LedgerOnDisk, export: Path, tmp_path: Path) -> None:
    """False if one ledger could be put into the directory of another."""
    run("init", tmp_path / "other", "--origin", "other.test")
    run("export", tmp_path / "other", export)
    assert "other.test/governing" in run("import", older.root, export, status=2).output


@pytest.mark.usefixtures("untouched")
def test_an_export_under_the_same_name_and_another_key_is_an_integrity_failure(
    older: LedgerOnDisk, export: Path, tmp_path: Path
) -> None:
    """False if whoever opens a ledger of the same name could pass for this one."""
    run("init", tmp_path / "other", "--origin", ORIGIN)
    run("export", tmp_path / "other", export)
    assert "was opened with the key" in run("import", older.root, export, status=1).output


def test_the_reader_s_own_policy_decides_whose_export_it_is(
    ledger: LedgerOnDisk, export: Path, tmp_path: Path
) -> None:
    """False if a copy of a ledger could be made that only claims to be the one whose key the reader holds."""
    run("export", ledger.root, export)
    for name, origin in (("other", ORIGIN), ("elsewhere", "other.test")):
        run("init", tmp_path / name, "--origin", origin)
        (tmp_path / f"{name}.policy").write_bytes(run("policy", tmp_path / name).stdout_bytes)
    copy = tmp_path / "copy"
    assert (
        "does not trust" in run("import", copy, export, "--policy", tmp_path / "other.policy", status=1).output
    )
    assert (
        "does not name"
        in run("import", copy, export, "--policy", tmp_path / "elsewhere.policy", status=2).output
    )
    assert not copy.exists()
    (tmp_path / "policy").write_bytes(ledger.policy.text())
    run("import", copy, export, "--policy", tmp_path / "policy")


@pytest.mark.usefixtures("untouched")
def test_what_the_signer_has_signed_otherwise_is_an_integrity_failure(
    ledger: LedgerOnDisk, older: LedgerOnDisk, export: Path, tmp_path: Path
) -> None:
    """False if the marks of a ledger that had gone another way were raised over it."""
    run("export", ledger.root, export)
    fork = LedgerOnDisk(LedgerDirectory(tmp_path / "fork"), ledger.policy, ledger.acknowledgement_key)
    shutil.copytree(older.root, fork.root)
    add(fork, [50])
    shutil.copy(older.directory.store, fork.directory.store)
    before = files(fork.root)
    told = run("import", fork.root, export, status=1).output
    assert "the signer has signed another root of size 8" in told
    assert files(fork.root) == before


def test_a_directory_that_is_in_use_or_holds_something_else_is_refused(
    ledger: LedgerOnDisk, export: Path, tmp_path: Path
) -> None:
    """False if an import could write under a running server, or among somebody's files."""
    run("export", ledger.root, export)
    with WriterLock(ledger.directory):
        assert "in use" in run("import", ledger.root, export, status=2).output
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letters").write_text("dear")
    assert "letters" in run("import", tmp_path / "mine", export, status=2).output
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letters"]


def test_an_interrupted_import_holds_the_ledger_back_until_it_is_run_again(
    ledger: LedgerOnDisk, older: LedgerOnDisk, export: Path
) -> None:
    """False if half a recovery could be served, or the loss were declared smaller than it was."""
    run("export", ledger.root, export)
    with closing(SqliteStore(older.directory.store)) as store:
        held = Ledger.open(store, ORIGIN)
        sizes = {register: head.size for register, head in held.heads().items()}
    assert sizes == {GOVERNING: 3, REGISTER: 7}
    run("import", older.root, export)
    whole = read_pending(older.directory)
    write_pending(older.directory, NOTHING_PENDING.merged(list(whole.restored.values())))
    assert "interrupted" in daybook("serve", older.root, status=2).stderr
    run("import", older.root, export)
    assert pending_restore(older.directory) == whole


def test_progress_and_results_are_apart(ledger: LedgerOnDisk, export: Path) -> None:
    """False if what is piped on could hold anything but the export."""
    assert run("export", ledger.root).stdout_bytes.startswith(b"daybook.export/1\n")
    assert json.loads(run("export", ledger.root, export, "--json").stdout)["messages"] == 5
