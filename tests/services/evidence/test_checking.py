from __future__ import annotations

import hashlib
import os
import random
import time
from pathlib import Path
from typing import Final

import pytest

from ledger.notes import SignerKey
from ledger.receipt_file import Receipt
from ledger.witnessing import Policy
from services.evidence.bag import ALGORITHMS
from services.evidence.checked import CheckedPack, exhibit_of
from services.evidence.checking import check_pack
from services.evidence.signature import sign_pack
from tests.services.evidence.forgeries import FORGERIES, edited
from tests.support.command import run, run_json
from tests.support.forged_ledger import ACCEPTED, Log, signed_entry
from tests.support.monitored import WITNESSED
from tests.support.packs import POLICY, Packs, chosen_receipts, files_of, flip, make_packs, write_manifests
from tests.support.records import decision_bytes
from tests.support.story import LEDGER_ORIGIN, REGISTER, secret
from tests.support.vectors import load

TRUSTED: Final = Policy.parse(POLICY.read_bytes())


def check(path: Path) -> CheckedPack:
    return check_pack(path, TRUSTED, int(time.time()))


@pytest.mark.parametrize("form", ["folder", "closed", "zip", "closed_zip"])
def test_a_good_pack_verifies_with_the_bounds_of_the_vectors(packs: Packs, form: str) -> None:
    """False if a pack as it was written did not prove what its receipts do."""
    told = run_json("verify", getattr(packs, form), "--policy", POLICY)
    assert told["verified"]
    assert told["own_report"]
    golden = {
        (case["index"], case["not_before"], case["not_after"], case["anchored"])
        for case in load("receipts.json")["cases"]
        if case["verdict"] == "verified"
    }
    assert [each["label"] for each in told["exhibits"]] == ["JS/1", "JS/2", "JS/3", "JS/4"]
    for each in told["exhibits"]:
        assert (each["index"], each["not_before"], each["not_after"], each["anchored"]) in golden
    disclosed = told["exhibits"][0]["disclosed"]
    assert ("title" in disclosed) == ("closed" in form)


def test_one_flipped_bit_anywhere_in_a_folder_is_found_and_named(copied: Packs) -> None:
    """False if any byte of a pack could be changed unseen, or a fault were told without where it is."""
    pick = random.Random(13)
    for name, data in files_of(copied.closed).items():
        places = {0, len(data) - 1, *(pick.randrange(len(data)) for _ in range(3))}
        for position in sorted(places):
            bit = pick.randrange(8)
            flip(copied.closed / name, position, bit)
            faults = check(copied.closed).faults
            assert any(fault.file == name for fault in faults), (name, position, bit, faults)
            assert {fault.exhibit for fault in faults if fault.file == name} == {exhibit_of(name)}
            flip(copied.closed / name, position, bit)
    assert not check(copied.closed).faults


def test_one_flipped_bit_anywhere_in_a_zip_file_is_found(copied: Packs) -> None:
    """False if a ZIP file could be changed unseen, between its files too."""
    pick = random.Random(14)
    length = copied.closed_zip.stat().st_size
    directory = [length - 1 - place for place in range(0, 3_000, 31)]
    for position in [*directory, *(pick.randrange(length) for _ in range(60))]:
        bit = pick.randrange(8)
        flip(copied.closed_zip, position, bit)
        assert check(copied.closed_zip).faults, (position, bit)
        flip(copied.closed_zip, position, bit)


def test_the_command_names_the_exhibit_and_ends_with_status_1(copied: Packs) -> None:
    """False if a caseworker had to search for what does not hold."""
    (receipt,) = (copied.folder / "data/exhibits/JS-2").glob("*.receipt")
    flip(receipt, 700)
    result = run("verify", copied.folder, "--policy", POLICY, status=1)
    assert "does NOT verify" in result.stderr
    assert "Exhibit JS/2, data/exhibits/JS-2/" in result.stderr
    error = run_json("verify", copied.folder, "--policy", POLICY, status=1)["error"]
    assert error["exhibits"] == ["JS/2"]


def test_a_policy_of_another_ledger_is_told_once_and_not_of_each_file(packs: Packs, tmp_path: Path) -> None:
    """False if the one thing that is wrong were lost among as many lines as there are files."""
    policy = tmp_path / "policy"
    policy.write_bytes(WITNESSED.text())
    for pack in (packs.folder, packs.zip):
        lines = run("verify", pack, "--policy", policy, status=1).stderr.splitlines()
        told = [line for line in lines if f"names no key for the log '{LEDGER_ORIGIN}/{REGISTER}'" in line]
        assert len(told) == 1
        assert told[0].strip().startswith("7 files: ")
        assert (
            "Exhibit JS/1, Exhibit JS/2, Exhibit JS/3, Exhibit JS/4, data/" in lines[lines.index(told[0]) + 1]
        )


def test_a_pack_that_lost_its_declaration_is_damaged_and_still_a_pack(copied: Packs) -> None:
    """False if whoever takes one file out of a pack turned tampering into a slip of the hand."""
    (copied.folder / "bagit.txt").unlink()
    run("verify", copied.folder, "--policy", POLICY, status=1)


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_with_manifests_to_match_is_found_and_named(copied: Packs, name: str) -> None:
    """False if whoever can write manifests could make a pack say something else than its receipts."""
    forge, exhibit = FORGERIES[name]
    forge(copied.closed)
    write_manifests(copied.closed)
    faults = check(copied.closed).faults
    assert faults
    if exhibit is not None:
        assert exhibit in {fault.exhibit for fault in faults}


def test_a_wrong_sum_of_the_payload_is_found(copied: Packs) -> None:
    """False if bag-info could say that something else was packed."""
    edited("bag-info.txt", b"Payload-Oxum: ", b"Payload-Oxum: 1")(copied.closed)
    write_manifests(copied.closed, oxum=False)
    assert [fault.file for fault in check(copied.closed).faults] == ["bag-info.txt"]


def test_files_that_no_manifest_lists_and_files_that_are_missing_are_named(copied: Packs) -> None:
    """False if something could be slipped in, or taken out."""
    (copied.folder / "data/extra.txt").write_bytes(b"extra\n")
    (copied.folder / "data/exhibits/JS-3/record.txt").unlink()
    told = {(fault.exhibit, fault.file) for fault in check(copied.folder).faults}
    assert (None, "data/extra.txt") in told
    assert ("JS/3", "data/exhibits/JS-3/record.txt") in told


def test_a_policy_of_another_ledger_proves_nothing(packs: Packs, tmp_path: Path) -> None:
    """False if the policy in the pack were taken where the reader's own does not fit."""
    other = tmp_path / "policy"
    other.write_text("log example.org/governing+…\n".replace("…", "00000000+AQ=="))
    run("verify", packs.folder, "--policy", other, status=2)
    text = (POLICY.read_text()).replace("quorum majority", "group everyone all majority\nquorum everyone")
    other.write_text(text)
    run("verify", packs.folder, "--policy", other)
    lines = [line for line in POLICY.read_text().splitlines() if not line.startswith(("group", "quorum"))]
    strict = [*lines, "group every all one two three", "quorum every", ""]
    other.write_text("\n".join(strict))
    result = run("verify", packs.folder, "--policy", other, status=1)
    assert "does not meet the quorum" in result.stderr


def test_links_and_strange_names_in_a_folder_are_faults(copied: Packs) -> None:
    """False if checking a pack could read a file outside it."""
    victim = copied.root / "outside.txt"
    victim.write_bytes(b"secret\n")
    (copied.folder / "data/link.txt").symlink_to(victim)
    (copied.folder / "data/folder").symlink_to(copied.closed)
    (copied.folder / "data/odd\nname\x1b[31m").write_bytes(b"odd\n")
    os.mkfifo(copied.folder / "data/pipe")
    faults = {fault.file: fault.description for fault in check(copied.folder).faults}
    assert faults["data/link.txt"] == "not an ordinary file"
    assert faults["data/folder"] == "not an ordinary file"
    assert faults["data/pipe"] == "not an ordinary file"
    assert faults["data/odd\nname\x1b[31m"] == "a name that no pack has"
    result = run("verify", copied.folder, "--policy", POLICY, status=1)
    assert "\x1b" not in result.stderr


def test_what_is_no_pack_is_told(tmp_path: Path) -> None:
    """False if any folder, or a file that is no ZIP file, verified; or all of a folder were read for it."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/secret").write_bytes(b"")
    (tmp_path / "folder/secret").chmod(0)
    error = run_json("verify", tmp_path / "folder", "--policy", POLICY, status=2)["error"]
    assert error["reason"] == "NOT_A_PACK"
    assert "is no evidence pack: there is no bagit.txt in it" in error["message"]
    (tmp_path / "a.zip").write_bytes(b"PK\x05\x06" + bytes(17))
    run("verify", tmp_path / "a.zip", "--policy", POLICY, status=1)
    (tmp_path / "b.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    run("verify", tmp_path / "b.zip", "--policy", POLICY, status=1)
    run("verify", tmp_path / "none", "--policy", POLICY, status=3)


def test_a_signed_pack_is_verified_by_the_packers_key(packs: Packs, tmp_path: Path) -> None:
    """False if somebody else's signature, or none, passed for the packer's."""
    for name in ("key", "other"):
        run("keygen", tmp_path / name, "--name", f"{name}.example")
    made = make_packs(tmp_path, chosen_receipts(tmp_path / "receipts"), "--sign", tmp_path / "key")
    told = run_json("verify", made.zip, "--policy", POLICY, "--signer", tmp_path / "key.pub")
    assert told["signer"] == (tmp_path / "key.pub").read_text().strip()
    run("verify", made.zip, "--policy", POLICY, "--signer", tmp_path / "other.pub", status=1)
    run("verify", packs.zip, "--policy", POLICY, "--signer", tmp_path / "key.pub", status=1)
    (made.folder / "signature.note").unlink()
    result = run("verify", made.folder, "--policy", POLICY, status=1)
    assert "signature.note" in result.stderr
    edited("data/report.txt", b"EVIDENCE", b"evidence")(made.closed)
    write_manifests(made.closed)
    assert [fault.file for fault in check(made.closed).faults] == ["signature.note"]


def test_two_histories_in_one_pack_are_found_and_neither_is_packed(packs: Packs, tmp_path: Path) -> None:
    """False if a ledger that signed two histories could have a record of each in one pack."""
    receipts = tmp_path / "receipts"
    receipts.mkdir()
    for name, title in (("one", "The first story"), ("two", "The second story")):
        log = Log(REGISTER)
        for number in range(2):
            record_id = f"00000000-0000-4000-8000-00000000000{number + 1}"
            log.append(signed_entry(REGISTER, decision_bytes(record_id=record_id, title=title), ["department"]))
        # Both are signed, and cosigned by the same witnesses: they were deceived, or bribed.
        index = int(name == "two")
        proof = log.proof(index, 2, {"one": ACCEPTED + 1, "two": ACCEPTED + 2})
        (receipts / f"{name}.receipt").write_bytes(Receipt(log.data[index], proof).data())
        single = tmp_path / f"{name}-alone"
        run(
            "evidence", "--register", REGISTER, "--receipts", receipts, "--policy", POLICY,
            "--select", f"index={index}", "--out", single,
        )  # fmt: skip
        run("verify", single, "--policy", POLICY)
    error = run_json(
        "evidence", "--register", REGISTER, "--receipts", receipts, "--policy", POLICY,
        "--out", tmp_path / "both", status=1,
    )["error"]  # fmt: skip
    assert error["reason"] == "SPLIT_VIEW"
    assert not (tmp_path / "both").exists()


def test_the_page_of_a_pack_is_not_trusted_and_ones_own_can_be_had(copied: Packs, tmp_path: Path) -> None:
    """False if a page that is always green passed for ours, or a reader had no other page than the pack's."""
    (copied.folder / "verify.html").write_bytes(b"<h1>Verified</h1>\n")
    write_manifests(copied.folder)
    told = run_json("verify", copied.folder, "--policy", POLICY)
    assert not told["own_page"]
    assert (
        "verify.html is NOT the page of this version" in run("verify", copied.folder, "--policy", POLICY).stdout
    )
    own = run_json("verify", "--page", tmp_path / "own.html")
    assert (tmp_path / "own.html").read_bytes() == (copied.closed / "verify.html").read_bytes()
    assert own["sha256"] == hashlib.sha256((tmp_path / "own.html").read_bytes()).hexdigest()
    run("verify", "--page", tmp_path / "own.html", status=2)
    run("verify", status=2)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"What is not proved", b"What is proved too"),
        (b"06 January 2026", b"05 January 2026"),
        (b"DET-01", b"DET-02"),
    ],
)
def test_a_report_that_says_something_else_is_not_vouched_for(copied: Packs, old: bytes, new: bytes) -> None:
    """False if a packer's own words passed for what receipts prove."""
    edited("data/report.txt", old, new)(copied.folder)
    write_manifests(copied.folder)
    assert not run_json("verify", copied.folder, "--policy", POLICY)["own_report"]
    text = run("verify", copied.folder, "--policy", POLICY).stdout
    assert "report.txt is NOT what this version of Daybook finds here" in text


def test_a_signature_by_a_key_whose_name_steers_a_terminal_is_no_fine_signature(copied: Packs) -> None:
    """False if the name of a packer's key could hide what is printed."""
    key = SignerKey("packer\u202e\u009b2J", secret("stranger"))
    info = copied.folder / "bag-info.txt"
    info.write_text(f"{info.read_text()}Packed-By-Key: {key.verifier}\n")
    write_manifests(copied.folder)
    tags = {
        f"tagmanifest-{each}.txt": (copied.folder / f"tagmanifest-{each}.txt").read_bytes()
        for each in ALGORITHMS
    }
    identifier = check(copied.closed).identifier
    (copied.folder / "signature.note").write_bytes(sign_pack(identifier, "open", tags, key))
    result = run("verify", copied.folder, "--policy", POLICY, status=1)
    assert "bag-info.txt" in result.stderr
    assert "\x9b" not in result.stderr + result.stdout
