"""`daybook init --succeeds`: a ledger that is closed for ever, and the one that names it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ledger.entries import parse_entry
from ledger.errors import MalformedError
from ledger.export import noted_sizes
from ledger.governing import GOVERNING
from ledger.notes import SignatureLine, SignerKey, cosignature_line, format_note, split_note
from ledger.records import LedgerOpened, parse_record
from ledger.store import NewCosignatures
from ledger.stores.sqlite import SqliteStore
from ledger.witnessing import Policy
from services.compose import register_locally
from services.ledger_files import LedgerDirectory, WriterLock
from services.predecessors import split_notes
from tests.support.command import run, run_json
from tests.support.ledger_dir import LedgerOnDisk, governing, make_ledger
from tests.support.ledger_story import WITNESSES
from tests.support.ledgers import DEPARTMENT, EPOCH, ORIGIN, REGISTER
from tests.support.unsynced import unsynced

SECOND = f"{DEPARTMENT}/permanent-secretary"
NEW = "ledger-2.test"


@pytest.fixture
def old(tmp_path: Path) -> LedgerOnDisk:
    """A ledger with two registers."""
    return make_ledger(tmp_path / "old", (REGISTER, SECOND))


def opening_record(root: Path) -> LedgerOpened:
    """Return entry 0 of a ledger."""
    with closing(SqliteStore(LedgerDirectory(root).store)) as store:
        (entry,) = store.entries(GOVERNING, 0, 1)
    record = parse_record(parse_entry(entry).record)
    assert isinstance(record, LedgerOpened)
    return record


def notes_of(record: LedgerOpened) -> list[bytes]:
    """Return the predecessor's notes."""
    assert record.predecessor is not None
    assert record.predecessor.origin == ORIGIN
    return [note.encode() for note in record.predecessor.notes]


def last_note(ledger: LedgerOnDisk, register: str) -> bytes:
    """Return a register's last note, as the log signed it."""
    with closing(SqliteStore(ledger.directory.store)) as store:
        stored = store.note(register, 1 << 30)
    assert stored is not None
    return stored.note


def lines(text: bytes, time: int, witnesses: Sequence[SignerKey] = WITNESSES) -> list[SignatureLine]:
    """Return the cosignature lines of witnesses."""
    return [cosignature_line(text, witness, time) for witness in witnesses]


def test_entry_0_names_the_old_ledger_and_carries_its_last_notes(old: LedgerOnDisk, tmp_path: Path) -> None:
    """False if a reader of the new ledger could not see where the old one ended."""
    told = run_json("init", tmp_path / "new", "--origin", NEW, "--succeeds", old.root)
    assert notes_of(opening_record(tmp_path / "new")) == [
        last_note(old, register) for register in (GOVERNING, SECOND, REGISTER)
    ]
    assert told["succeeds"]["origin"] == ORIGIN
    assert [one["register"] for one in told["succeeds"]["notes"]] == [GOVERNING, SECOND, REGISTER]
    assert told["succeeds"]["left_out"] == told["succeeds"]["unsigned"] == []
    assert "Everything holds" in run("fsck", tmp_path / "new", "--processes", "1").output


def test_what_witnesses_said_last_comes_with_the_notes(old: LedgerOnDisk, tmp_path: Path) -> None:
    """False if the only word that is not the operator's own were left behind."""
    names = [f"witness w{number} {witness.cosigner}" for number, witness in enumerate(WITNESSES)]
    policy = "".join(
        f"{line}\n" for line in (f"log {old.policy.logs[0].key}", *names, "group all all w0 w1", "quorum all")
    )
    published = governing(
        "policy.published/1", kind="witness", name="default", effective_from="2999-01-01T00:00Z", text=policy
    )
    register_locally(old.root, published.body, published.records, published.signatures)
    with closing(SqliteStore(old.directory.store)) as store:
        size = store.heads()[GOVERNING].size
        for at, times, witnesses in (
            (size - 1, (1_000, 2_000), WITNESSES),
            (size, (3_000,), WITNESSES[:1]),
        ):
            stored = store.note(GOVERNING, at)
            assert stored is not None
            text, _ = split_note(stored.note)
            for time in times:
                new = lines(text, EPOCH + time, witnesses)
                store.keep_cosignatures([NewCosignatures(GOVERNING, stored, new)])
        (sealed,) = noted_sizes(store, GOVERNING, size - 1, size)
    run("init", tmp_path / "new", "--origin", NEW, "--succeeds", old.root)
    last, last_sealed, *_ = notes_of(opening_record(tmp_path / "new"))
    text, (log, *cosigned) = split_note(last)
    assert format_note(text, [log]) == last_note(old, GOVERNING)
    assert cosigned == lines(text, EPOCH + 3_000, WITNESSES[:1])
    assert last_sealed in sealed.exported(GOVERNING)
    text, (_, *cosigned) = split_note(last_sealed)
    assert cosigned == lines(text, EPOCH + 2_000)
    assert Policy.parse(policy.encode()).is_sealed(
        Policy.parse(policy.encode()).open(last_sealed, f"{ORIGIN}/governing")
    )


def test_saved_notes_are_enough_under_the_policy_of_the_old_ledger(old: LedgerOnDisk, tmp_path: Path) -> None:
    """False if a ledger whose directory is lost could not be succeeded from what others hold of it."""
    governing_note, register_note = last_note(old, GOVERNING), last_note(old, REGISTER)
    text, (log,) = split_note(governing_note)
    stranger = SignatureLine("stranger", 7, b"x")
    first, second = (format_note(text, [log, line]) for line in lines(text, EPOCH))
    names = "".join(f"witness w{number} {each.cosigner}\n" for number, each in enumerate(WITNESSES))
    (tmp_path / "policy").write_text(f"log {old.policy.logs[0].key}\n{names}quorum none\n", encoding="utf-8")
    saved = tmp_path / "saved"
    with closing(SqliteStore(old.directory.store)) as store:
        (smaller, *_) = store.notes(GOVERNING, 0, 99)
    notes = [register_note, first, second, smaller.note, format_note(text, [log, stranger])]
    saved.write_bytes(b"\n".join(notes))
    run("init", tmp_path / "new", "--origin", NEW, "--succeeds", saved, "--policy", tmp_path / "policy")
    assert notes_of(opening_record(tmp_path / "new")) == [
        format_note(text, [log, *lines(text, EPOCH)]),
        register_note,
    ]


def test_notes_that_the_old_ledger_did_not_sign_are_refused(old: LedgerOnDisk, tmp_path: Path) -> None:
    """False if somebody could put another ledger's end, or an invented one, into the new ledger for ever."""
    (tmp_path / "policy").write_bytes(old.policy.text())
    saved = tmp_path / "saved"
    note = last_note(old, GOVERNING)
    asked = ("init", tmp_path / "new", "--origin", NEW, "--succeeds", saved)
    saved.write_bytes(note)
    assert "--policy" in run(*asked, status=2).output
    saved.write_bytes(note.replace(b"\n4\n", b"\n5\n"))
    run(*asked, "--policy", tmp_path / "policy", status=1)
    saved.write_bytes(b"no note")
    run(*asked, "--policy", tmp_path / "policy", status=2)
    run("init", tmp_path / "other", "--origin", "other.test")
    (tmp_path / "policy").write_bytes(run("policy", tmp_path / "other").stdout_bytes)
    saved.write_bytes(note)
    run(*asked, "--policy", tmp_path / "policy", status=1)
    assert not (tmp_path / "new").exists()


def test_an_altered_note_in_the_old_directory_is_an_integrity_failure(
    old: LedgerOnDisk, tmp_path: Path
) -> None:
    """False if the old store were believed without its log's signature."""
    with closing(SqliteStore(old.directory.store)) as store:
        store._writer.execute("UPDATE note SET note = CAST(replace(note, x'0a340a', x'0a350a') AS BLOB)")
    run("init", tmp_path / "new", "--origin", NEW, "--succeeds", old.root, status=1)
    assert not (tmp_path / "new").exists()


def test_the_successor_has_another_origin_and_the_old_ledger_is_at_rest(
    old: LedgerOnDisk, tmp_path: Path
) -> None:
    """False if a second history could begin under an old name, or a note that is not the last be carried."""
    new = tmp_path / "new"
    assert "another origin" in run("init", new, "--origin", ORIGIN, "--succeeds", old.root, status=2).output
    with WriterLock(old.directory):
        assert "in use" in run("init", new, "--origin", NEW, "--succeeds", old.root, status=2).output
    run("init", new, "--origin", NEW, "--succeeds", tmp_path / "nowhere", "--policy", tmp_path, status=3)
    assert "no ledger" in run("init", new, "--origin", NEW, "--succeeds", tmp_path, status=2).output
    assert (
        "own key"
        in run("init", new, "--origin", NEW, "--succeeds", old.root, "--policy", tmp_path, status=2).output
    )
    assert not new.exists()


def test_what_a_record_does_not_hold_is_left_out_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """False if a ledger of many offices could not be succeeded, or notes went missing without a word."""
    unsynced(monkeypatch)
    names = [f"{DEPARTMENT}/{'very-' * 14}long-named-office-{number:03}" for number in range(200)]
    old = make_ledger(tmp_path / "old", names)
    told = run_json("init", tmp_path / "new", "--origin", NEW, "--succeeds", old.root)["succeeds"]
    carried, left_out = ([one["register"] for one in told[name]] for name in ("notes", "left_out"))
    assert carried[0] == GOVERNING
    assert len(carried) > 100
    assert carried[1:] + left_out == sorted(names)
    assert left_out
    assert len(notes_of(opening_record(tmp_path / "new"))) == len(carried)


def test_others_who_govern_the_new_ledger_sign_what_it_succeeds(old: LedgerOnDisk, tmp_path: Path) -> None:
    """False if the request that goes round for signatures left out the old ledger."""
    run("keygen", tmp_path / "regulator", "--name", "regulator")
    shutil.move(tmp_path / "regulator", tmp_path / "away")
    new = tmp_path / "new"
    given = ("init", new, "--origin", NEW, "--governance", tmp_path / "regulator.pub")
    assert ORIGIN in run(*given, "--succeeds", old.root).output
    run("govern", "sign", new / "opening.request", "--key", tmp_path / "away", "--out", tmp_path / "signature")
    finished = ("init", new, "--signature", tmp_path / "signature")
    assert "without --signature" in run(*finished, "--succeeds", old.root, status=2).output
    told: dict[str, Any] = json.loads(run(*finished, "--json").stdout)
    assert told["open"]
    assert notes_of(opening_record(new))[0] == last_note(old, GOVERNING)


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (b"a\n1\nx\n\n\xe2\x80\x94 k b\n", 1),
        (b"\n\na\n\n\xe2\x80\x94 k b\n\xe2\x80\x94 l b\n\n\nc\n\n\xe2\x80\x94 k b\n", 2),
        (b"a\n\n\xe2\x80\x94 k b\nc\n\n\xe2\x80\x94 k b\n\n", 2),
    ],
)
def test_notes_are_told_apart_in_a_file(data: bytes, count: int) -> None:
    """False if notes that were saved one after the other ran into each other."""
    found = split_notes(data)
    assert len(found) == count
    assert all(note.endswith(b"\n") and b"\n\n" in note and not note.startswith(b"\n") for note in found)


@pytest.mark.parametrize("data", [b"", b"\n", b"a\n\n", b"\xe2\x80\x94 k b\n", b"a\n\n\xe2\x80\x94 k b\nc\n"])
def test_a_file_that_holds_no_whole_notes_is_refused(data: bytes) -> None:
    """False if the end of a file could be passed over."""
    with pytest.raises(MalformedError):
        split_notes(data)
