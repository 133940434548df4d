from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from services.evidence import bag as bag_module
from services.evidence.bag import Bag, ExistsError, writing
from tests.support.command import run, run_json
from tests.support.packs import DISCLOSURE, MADE_AT, POLICY, Packs, chosen_receipts, files_of, make_packs
from tests.support.story import REGISTER
from tests.support.vectors import VECTORS, load


@pytest.mark.parametrize("variant", ["folder", "closed"])
def test_a_pack_is_a_bag_that_other_software_finds_valid(packs: Packs, variant: str) -> None:
    """False if a tribunal's own BagIt tool refused the pack."""
    done = subprocess.run(
        [sys.executable, "-m", "bagit", "--validate", getattr(packs, variant)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "is valid" in done.stderr


def test_a_bag_that_was_damaged_is_not_valid_to_other_software(copied: Packs) -> None:
    """False if the manifests did not cover the payload for others than us."""
    (copied.folder / "data/report.txt").write_bytes(b"another report\n")
    done = subprocess.run(
        [sys.executable, "-m", "bagit", "--validate", copied.folder], capture_output=True, check=False
    )
    assert done.returncode == 1


def test_the_zip_holds_the_files_of_the_folder(packs: Packs, tmp_path: Path) -> None:
    """False if what was verified in one form were something else in the other."""
    with zipfile.ZipFile(packs.zip) as archive:
        archive.extractall(tmp_path)
        assert {(each.date_time, each.compress_type) for each in archive.infolist()} == {
            ((1980, 1, 1, 0, 0, 0), zipfile.ZIP_STORED)
        }
    (base,) = tmp_path.iterdir()
    assert files_of(base) == files_of(packs.folder)


def test_the_same_input_makes_the_same_bytes(packs: Packs, tmp_path: Path) -> None:
    """False if a second person could not make the very same pack, to show that nothing was added."""
    again = make_packs(tmp_path, chosen_receipts(tmp_path / "receipts"))
    assert again.zip.read_bytes() == packs.zip.read_bytes()
    assert again.closed_zip.read_bytes() == packs.closed_zip.read_bytes()
    assert files_of(again.folder) == files_of(packs.folder)


def test_every_exhibit_has_its_record_its_text_and_its_receipt(packs: Packs) -> None:
    """False if an exhibit could not be read, or not be proved."""
    files = files_of(packs.folder)
    receipt = (VECTORS / "receipts/anchored-at-a-smaller-size.receipt").read_bytes()
    record_id = "1168b4da-721e-452a-abad-d256e13d742c"
    assert files[f"data/exhibits/JS-1/{record_id}.1.receipt"] == receipt
    assert files["data/exhibits/JS-1/record.json"] in receipt
    assert b"channel: whatsapp\n" in files["data/exhibits/JS-1/record.txt"]
    assert {name.split("/")[2] for name in files if name.startswith("data/exhibits/")} == {
        "JS-1", "JS-2", "JS-3", "JS-4",
    }  # fmt: skip


def test_the_variants_hold_the_same_receipts_and_only_the_closed_one_what_was_withheld(packs: Packs) -> None:
    """False if an open bundle gave away a closed one, or the two were of different evidence."""
    opened, closed = files_of(packs.folder), files_of(packs.closed)
    receipts = {name for name in opened if name.endswith((".receipt", ".note", "record.json"))}
    assert receipts
    assert all(opened[name] == closed[name] for name in receipts)
    values = [b"25 million gowns", b"Example Gowns Ltd", b"A. N. Example", b"GB-COH-00000000"]
    salts = [item["salt"].encode() for item in load("disclosure.json")["disclosures"]]
    for secret in [*values, *salts]:
        assert not any(secret in data for data in opened.values()), secret
        assert any(secret in data for data in closed.values()), secret
        assert secret not in packs.zip.read_bytes()


def test_the_report_and_the_index_tell_what_is_proved_and_by_when(packs: Packs) -> None:
    """False if the pack needed somebody to explain it."""
    report = (packs.folder / "data/report.txt").read_text()
    assert "2026-07-03T15:20:15Z (03 July 2026 16:20:15 BST)" in report
    assert "What is not proved" in report
    assert "daybook verify PACK --policy YOUR_POLICY" in report
    assert (packs.folder / "data/hashes.txt").read_text().startswith("JS/1  ")


def test_the_custody_log_says_who_did_what_with_which_digests(tmp_path: Path) -> None:
    """False if the chain of custody had a gap at its first link."""
    receipts = chosen_receipts(tmp_path / "receipts")
    packs = make_packs(
        tmp_path, receipts, "--by", "J. Smith", "--role", "investigator", "--reason", "s.50 case"
    )
    log = load_json(packs.folder / "data/custody.json")
    assert [entry["action"] for entry in log["entries"]] == ["gathered", "verified", "packed"]
    assert {(entry["who"], entry["role"], entry["reason"]) for entry in log["entries"]} == {
        ("J. Smith", "investigator", "s.50 case")
    }
    assert {(entry["at"], entry["at_local"]) for entry in log["entries"]} == {
        (MADE_AT, "2026-11-26T21:30:00+00:00")
    }
    schedule = next(
        line for line in (packs.folder / "manifest-sha256.txt").read_text().splitlines() if "hashes" in line
    )
    assert log["entries"][-1]["sha256_after"] == schedule.split()[0]
    closed = load_json(packs.closed / "data/custody.json")
    assert "disclosed" in [entry["action"] for entry in closed["entries"]]


def load_json(path: Path) -> dict[str, list[dict[str, str]]]:
    value: dict[str, list[dict[str, str]]] = json.loads(path.read_bytes())
    return value


def test_a_receipt_that_does_not_hold_is_not_packed(tmp_path: Path) -> None:
    """False if a pack lent its weight to a forgery."""
    folder = tmp_path / "receipts"
    folder.mkdir()
    bad = (VECTORS / "receipts/bad/proof-hashes-swapped.receipt").read_bytes()
    (folder / "bad.receipt").write_bytes(bad)
    out = tmp_path / "pack"
    options = ("--register", REGISTER, "--receipts", folder, "--policy", POLICY, "--out", out)
    run("evidence", *options, status=1)
    assert not out.exists()


def _write_half(out: Path) -> None:
    with writing(out, "base") as target:
        Bag(target).add("data/one", b"1")
        raise ZeroDivisionError


def test_nothing_is_overwritten_and_nothing_half_is_left(tmp_path: Path) -> None:
    """False if an accident could leave half a pack under a whole one's name, or destroy an earlier one."""
    for out in (tmp_path / "pack", tmp_path / "pack.zip"):
        with pytest.raises(ZeroDivisionError):
            _write_half(out)
        assert list(tmp_path.iterdir()) == []
        with writing(out, "base") as target:
            Bag(target).add("data/one", b"1")
            assert not out.exists()
        before = out.read_bytes() if out.is_file() else files_of(out)
        with pytest.raises(ExistsError), writing(out, "base") as target:
            Bag(target).add("data/two", b"2")
        assert before == (out.read_bytes() if out.is_file() else files_of(out))
        if out.is_file():
            out.unlink()
        else:
            (out / "data/one").unlink()
            (out / "data").rmdir()
            out.rmdir()
    assert bag_module.DECLARATION.startswith(b"BagIt-Version: 1.0\n")


def test_what_somebody_else_puts_there_meanwhile_stays(tmp_path: Path) -> None:
    """False if two people who pack at once could lose what one of them made."""
    with pytest.raises(ExistsError):
        _write_beside(tmp_path / "pack.zip", tmp_path / "pack.zip")
    assert (tmp_path / "pack.zip").read_bytes() == b"theirs"
    (tmp_path / "pack").mkdir()
    with pytest.raises(ExistsError):
        _write_beside(tmp_path / "pack", tmp_path / "pack/theirs")
    assert files_of(tmp_path) == {"pack.zip": b"theirs", "pack/theirs": b"theirs"}


def _write_beside(out: Path, theirs: Path) -> None:
    with writing(out, "base") as target:
        Bag(target).add("data/one", b"1")
        theirs.write_bytes(b"theirs")


@pytest.mark.parametrize(
    ("options", "status", "reason"),
    [
        (["--select", "colour=red"], 2, "MALFORMED"),
        (["--select", "index=9..3"], 2, "MALFORMED"),
        (["--select", "record=x"], 2, "MALFORMED"),
        (["--select", "decided=1.5.2026"], 2, "MALFORMED"),
        (["--select", "channel=carrier_pigeon"], 2, "INVALID_FIELD"),
        (["--select", "type=contract"], 2, "INVALID_FIELD"),
        (["--select", "channel=telegram"], 2, "NOTHING_TO_PACK"),
        (["--exhibit-prefix", "../x"], 2, "MALFORMED"),
        (["--by", "one\ntwo"], 2, "BAD_USAGE"),
        (["--date", "yesterday"], 2, "BAD_USAGE"),
    ],
)
def test_bad_input_is_refused_with_its_reason(
    packs: Packs, tmp_path: Path, options: list[str], status: int, reason: str
) -> None:
    """False if a slip made an empty pack, or one with forged lines."""
    error = run_json(
        "evidence", "--register", REGISTER, "--receipts", packs.root / "receipts", "--policy", POLICY,
        "--out", tmp_path / "pack", *options, status=status,
    )["error"]  # fmt: skip
    assert error["reason"] == reason
    assert not (tmp_path / "pack").exists()


@pytest.mark.parametrize(
    ("select", "indices"),
    [
        ([], [0, 3, 5, 6]),
        (["all"], [0, 3, 5, 6]),
        (["index=3..5"], [3, 5]),
        (["index=0", "index=6"], [0, 6]),
        (["record=1168b4da-721e-452a-abad-d256e13d742c"], [0]),
        (["channel=whatsapp"], [0]),
        (["type=return.filed/1"], [3]),
        (["decided=2026-06-20..2026-06-30"], [0]),
        (["decided=2026-06", "index=1..9"], []),
        (["channel=whatsapp", "type=decision.registered/1"], [0]),
    ],
)
def test_what_is_asked_for_is_what_is_packed(
    packs: Packs, tmp_path: Path, select: list[str], indices: list[int]
) -> None:
    """False if an exhibit were left out, or one that nobody asked for were in."""
    given = [each for one in select for each in ("--select", one)]
    out = tmp_path / "pack"
    run(
        "evidence", "--register", REGISTER, "--receipts", packs.root / "receipts", "--policy", POLICY,
        "--out", out, *given, status=0 if indices else 2,
    )  # fmt: skip
    if indices:
        told = run_json("verify", out, "--policy", POLICY)
        assert [exhibit["index"] for exhibit in told["exhibits"]] == indices


def test_a_disclosure_of_no_exhibit_is_refused(packs: Packs, tmp_path: Path) -> None:
    """False if a value went into a pack whose records do not withhold it."""
    error = run_json(
        "evidence", "--register", REGISTER, "--receipts", packs.root / "receipts", "--policy", POLICY,
        "--out", tmp_path / "pack", "--select", "index=3", "--closed", DISCLOSURE, status=2,
    )["error"]  # fmt: skip
    assert "is of no exhibit" in error["message"]


def test_findings_go_into_the_pack_as_they_are(packs: Packs, tmp_path: Path) -> None:
    """False if an auditor's findings were changed on their way to a tribunal."""
    findings = tmp_path / "findings.json"
    findings.write_bytes(b'{"findings": [{"detection": "DET-01"}]}\n')
    out = tmp_path / "pack"
    run(
        "evidence", "--register", REGISTER, "--receipts", packs.root / "receipts", "--policy", POLICY,
        "--out", out, "--findings", findings,
    )  # fmt: skip
    assert (out / "data/findings.json").read_bytes() == findings.read_bytes()
    run("verify", out, "--policy", POLICY)


def test_offline_nothing_of_a_network_and_no_database_is_loaded(packs: Packs, tmp_path: Path) -> None:
    """False if packing a folder of receipts needed more than what it uses."""
    script = (
        "import sys\nfrom services.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n    assert not end.code\n"
        "print('LOADED', *sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [
            sys.executable, "-c", script, "evidence", "--register", REGISTER,
            "--receipts", packs.root / "receipts", "--policy", POLICY, "--out", tmp_path / "pack",
        ],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    loaded = done.stdout.split("LOADED")[1].split()
    assert not set(loaded) & {"grpc", "google", "daybook", "sqlite3", "psycopg", "faust", "aiokafka"}


def refused(tmp_path: Path, *options: str | Path, receipts: bool = True) -> str:
    """Return what is said where no pack is made."""
    folder = tmp_path / "receipts"
    if not folder.exists():
        chosen_receipts(folder)
    source = ("--receipts", folder) if receipts else ()
    result = run("evidence", "--register", REGISTER, *source, "--policy", POLICY, *options, status=2)
    return " ".join(result.stderr.split())


def test_a_slip_is_told_by_the_name_of_what_is_wrong(tmp_path: Path) -> None:
    """False if somebody had to guess which of their files, or options, was meant."""
    out = ("--out", tmp_path / "pack")
    said = refused(tmp_path, "--out", tmp_path / "none/e.zip")
    assert f"the folder {tmp_path / 'none'} does not exist" in said
    assert f"--findings {POLICY} is not a file of findings: not JSON" in refused(
        tmp_path, *out, "--findings", POLICY
    )
    assert f"{POLICY} is not a disclosure file" in refused(tmp_path, *out, "--closed", POLICY)
    receipts = tmp_path / "receipts"
    assert f"{receipts}/anchored" in refused(tmp_path, *out, "--closed", receipts)
    assert "only one of --server, --receipts and --state" in refused(tmp_path, *out, "--server", "127.0.0.1:1")
    assert "Say where the records come from" in refused(tmp_path, *out, receipts=False)
    assert not (tmp_path / "pack").exists()


def test_a_folder_of_disclosures_may_hold_those_of_other_records(tmp_path: Path) -> None:
    """False if a caseworker had to sort their folder first, or were not told what was left out."""
    receipts, folder = chosen_receipts(tmp_path / "receipts"), tmp_path / "disclosures"
    folder.mkdir()
    disclosed = json.loads(DISCLOSURE.read_bytes())
    (folder / "a.json").write_bytes(DISCLOSURE.read_bytes())
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**disclosed, "record_id": "00000000-0000-4000-8000-000000000001"}))
    (folder / "b.json").write_bytes(other.read_bytes())
    options = ("--register", REGISTER, "--receipts", receipts, "--policy", POLICY, "--exhibit-prefix", "JS")
    told = run("evidence", *options, "--closed", folder, "--out", tmp_path / "pack").stdout
    assert "Disclosed: values of 1 exhibit; 1 disclosure was of no exhibit, and passed over." in told
    checked = run_json("verify", tmp_path / "pack-closed", "--policy", POLICY)
    assert [bool(each["disclosed"]) for each in checked["exhibits"]] == [True, False, False, False]
    # One that was named is meant, and where none is of an exhibit there is nothing to disclose.
    assert f"{other}: the disclosure of 00000000-" in refused(
        tmp_path, "--closed", other, "--out", tmp_path / "no"
    )
    (folder / "a.json").unlink()
    assert "none is of an exhibit" in refused(tmp_path, "--closed", folder, "--out", tmp_path / "no")


def test_one_exhibit_is_told_as_one(tmp_path: Path) -> None:
    """False if a person read of 1 exhibits."""
    receipts = chosen_receipts(tmp_path / "receipts")
    told = run(
        "evidence", "--register", REGISTER, "--receipts", receipts, "--policy", POLICY,
        "--select", "index=0", "--out", tmp_path / "pack",
    ).stdout  # fmt: skip
    assert "open variant, 1 exhibit, DB/1, " in told
    assert "The pack verifies: 1 exhibit, " in run("verify", tmp_path / "pack", "--policy", POLICY).stdout
