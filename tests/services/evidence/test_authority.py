"""That a key might sign, by the governing register in a pack; and packs that keep a revocation back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, Page

from ledger.errors import VerificationError
from services.evidence.governing import MAX_GOVERNING, MAX_GOVERNING_BYTES, collected
from services.evidence.layout import json_file
from services.evidence.page import verifier_page
from tests.services.evidence.test_checking import check
from tests.services.evidence.test_page import choose, choose_policy, opened_page
from tests.support.command import run, run_json
from tests.support.forged_ledger import Log
from tests.support.governed_packs import (
    AUTHORISED,
    Case,
    authorise,
    begun,
    both,
    govern,
    put_governing,
    revoke,
    take_governing_away,
)
from tests.support.packs import POLICY, write_manifests
from tests.support.story import REGISTER

N: Final = AUTHORISED + 1
"""The size of the story's governing register with its first key."""

CAME: Final = 1_783_092_000
"""When the decision of a `Case` was not yet there; 20 seconds later it was."""


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Iterator[Page]:
    (tmp_path / "verify.html").write_bytes(verifier_page())
    yield from opened_page(browser, tmp_path / "verify.html")


def never_revoked() -> Case:
    return Case(begun(), N)


def revoked(*, at: int, known: int | None = None, **more: Any) -> Case:
    """A decision whose key was revoked later: in by `at`, and not there yet at `known`."""
    log = begun()
    revoke(log, **more)
    return Case(log, N, governed_at=at, known=() if known is None else ((N, known),))


def unendorsed() -> Case:
    log = begun()
    authorise(log, "department second", ("governance one", "governance two"))
    return Case(log, N + 1, "department second")


def endorsed() -> Case:
    log = begun()
    authorise(log, "department second", ("governance one", "governance two", "department"))
    return Case(log, N + 1, "department second")


def closed() -> Case:
    log = begun()
    govern(log, "register.closed/1", name=REGISTER, size=0, reason="It ends.")
    return Case(log, N)


def judged_too_early() -> Case:
    log = begun()
    govern(log, "register.opened/1", name="a/b", title="Later than the decision")
    return Case(log, N + 1, known=((N, CAME + 21),))


SHOWN: Final[dict[str, tuple[Callable[[], Case], str, tuple[str, ...]]]] = {
    "never revoked": (never_revoked, f"not revoked up to governing size {N}; at 20", ()),
    "revoked afterwards": (
        lambda: revoked(at=CAME + 900, known=CAME + 21),
        f"REVOKED by governing entry {N}: the entry is provably from before that",
        (),
    ),
    "revoked at about that time": (
        lambda: revoked(at=CAME + 900, known=CAME + 19),
        "which of the two came first is not proved",
        (),
    ),
    "revoked, nobody knows how early": (
        lambda: revoked(at=CAME + 900),
        "which of the two came first is not proved",
        (),
    ),
    "accepted a minute after the revocation": (
        lambda: revoked(at=CAME - 61),
        "the entry came in more than 60 s AFTER that, on a stale view",
        (),
    ),
    "accepted within the grace": (
        lambda: revoked(at=CAME - 60),
        "which of the two came first is not proved",
        (),
    ),
    "compromised before": (
        lambda: revoked(at=CAME + 900, known=CAME + 21, reason="compromised", suspected_from="2026-07-01"),
        "provably from before that",
        ("compromised from 2026-07-01",),
    ),
    "a key that governance gave out alone": (
        unendorsed,
        "authorised by governing entry 6, and not revoked",
        ("without the signature of any current key",),
    ),
    "a key that the department asked for": (endorsed, "authorised by governing entry 6, and not revoked", ()),
    "beyond the end of the register": (closed, "not revoked up to", ("beyond its end",)),
    "judged by what was not there yet": (
        judged_too_early,
        "not revoked up to",
        ("which witnesses did not know yet at 2026-07-03T15:20:21Z",),
    ),
    "judged beyond what is here": (
        lambda: Case(begun(), N + 1),
        f"not proved: that the key was not revoked. The entry was judged at governing size {N + 1}",
        (),
    ),
}


@pytest.mark.parametrize("name", SHOWN)
def test_what_is_shown_of_a_key_is_what_the_governing_register_says(tmp_path: Path, name: str) -> None:
    """False if a pack said more of a key than its governing register does, or kept a revocation to itself."""
    make, said, remarks = SHOWN[name]
    out = make().pack(tmp_path / "pack")
    told = run_json("verify", out, "--policy", POLICY)
    (exhibit,) = told["exhibits"]
    assert said in exhibit["key"]["says"]
    assert exhibit["key"]["is_proved"] == (not said.startswith("not proved"))
    assert len(exhibit["key"]["remarks"]) == len(remarks)
    assert all(part in text for part, text in zip(remarks, exhibit["key"]["remarks"], strict=True))
    assert exhibit["key"]["says"] in run("verify", out, "--policy", POLICY).stdout
    assert exhibit["key"]["says"] in (out / "data/report.txt").read_text()
    assert told["own_report"]


def test_the_page_shows_the_same_of_each_key(page: Page, tmp_path: Path) -> None:
    """False if a reader in a browser learned something else of a key than one with the command."""
    for number, (name, (make, said, remarks)) in enumerate(SHOWN.items()):
        choose(page, make().pack(tmp_path / f"pack-{number}"))
        assert choose_policy(page)[0] == "green", (name, page.inner_text("#faults"))
        shown = page.inner_text("#exhibit-list")
        assert all(part in shown for part in (said, *remarks)), (name, shown)


def test_without_the_governing_register_it_is_plainly_not_proved(page: Page, tmp_path: Path) -> None:
    """False if a pack whose maker left the key's history out passed for one that shows it."""
    out = revoked(at=CAME + 900).pack(tmp_path / "pack")
    take_governing_away(out)
    told = run_json("verify", out, "--policy", POLICY)
    assert told["governing"] is None
    assert not told["exhibits"][0]["key"]["is_proved"]
    assert "That the keys of all exhibits were not revoked: see each exhibit." in told["not_proved"]
    text = run("verify", out, "--policy", POLICY).stdout
    assert "the governing register is NOT here as a whole: that no key was revoked is not proved" in text
    choose(page, out)
    assert "that no key was revoked is not proved" in page.inner_text("#facts")
    assert "not proved: that the key was not revoked" in page.inner_text("#exhibit-list")


def test_a_pack_says_up_to_which_governing_size_and_time_it_knows(page: Page, tmp_path: Path) -> None:
    """False if an old governing register passed for one of today: a later revocation is not in it."""
    out = revoked(at=CAME + 900).pack(tmp_path / "pack")
    older = begun()
    put_governing(out, older, note=older.note(N, both(CAME - 5_000_000)))
    told = run_json("verify", out, "--policy", POLICY)
    says = told["exhibits"][0]["key"]["says"]
    assert f"not revoked up to governing size {N}; at 2026-05-06T18:26:40Z" in says
    assert f"That a key was not revoked after governing size {N}." in told["not_proved"]
    choose(page, out)
    assert f"up to governing size {N}; at 2026-05-06T18:26:40Z" in page.inner_text("#exhibit-list")


# What a ledger, its witnesses and a packer may try together


def revoked_before() -> Log:
    log = begun()
    revoke(log)
    return log


def without_quorum() -> Log:
    log = begun()
    govern(log, "register.opened/1", by=["governance one"], name="a/b", title="Of one alone")
    return log


def by_a_stranger() -> Log:
    log = begun()
    authorise(log, "stranger", ("department",))
    return log


def not_possessed() -> Log:
    log = begun()
    key = json.loads(log.data[AUTHORISED].partition(b"\n")[2])["key"].replace("A", "B", 1)
    govern(log, "key.authorised/1", department="a", key=key, label="of nobody")
    return log


def opened_twice() -> Log:
    log = begun()
    log.append(log.data[0])
    return log


def not_opened() -> Log:
    log = begun()
    log.data.pop(0)
    return log


def unsigned() -> Log:
    log = begun()
    envelope = (
        b'{"accepted_at":"2026-07-03T15:20:11.042Z","governing_size":6,"submitter":"ledger","type":"entry/1"}'
    )
    log.append(envelope + b"\n" + log.data[AUTHORISED].partition(b"\n")[2])
    return log


def other_department() -> Log:
    log = begun()
    log.data.pop(AUTHORISED)
    key = json.loads(begun().data[AUTHORISED].partition(b"\n")[2])["key"]
    govern(
        log, "key.authorised/1", by=("governance one", "governance two", "department"),
        department="another-one", key=key, label="x",
    )  # fmt: skip
    govern(log, "register.opened/1", name="a/b", title="After it")
    return log


def closed_before() -> Log:
    log = begun()
    govern(log, "register.closed/1", name=REGISTER, size=0, reason="It ends.")
    return log


LIES: Final[dict[str, tuple[Callable[[], Log], str | None, str]]] = {
    "the key was revoked before": (revoked_before, "DB/1", "revoked"),
    "the register was closed before": (closed_before, "DB/1", "closed"),
    "the key is of another department": (other_department, "DB/1", "department"),
    "too few of those who govern have signed": (without_quorum, None, "must sign"),
    "those who govern have not signed": (by_a_stranger, None, "must sign"),
    "a key without the signature of its holder": (not_possessed, None, "not signed by"),
    "the ledger is opened a second time": (opened_twice, None, "opens"),
    "the ledger is never opened": (not_opened, None, "governing entry 0"),
    "a key that the ledger authorises itself": (unsigned, None, f"governing entry {N}"),
}


def lying(tmp_path: Path, name: str) -> Path:
    """A pack that was honest, with another governing register in it: ledger and witnesses agree to the lie."""
    log = begun()
    govern(log, "register.opened/1", name="a/b", title="Nothing to do with it")
    out = Case(log, N + 1).pack(tmp_path / "pack")
    assert not check(out).faults
    put_governing(out, LIES[name][0]())
    return out


@pytest.mark.parametrize("name", LIES)
def test_a_governing_register_that_breaks_its_rules_is_found(tmp_path: Path, name: str) -> None:
    """False if a key could be made good by entries that those who govern never signed, or after its end."""
    _, exhibit, said = LIES[name]
    faults = check(lying(tmp_path, name)).faults
    assert [(fault.exhibit, said in fault.description) for fault in faults] == [(exhibit, True)], faults


def test_the_page_finds_it_too(page: Page, tmp_path: Path) -> None:
    """False if the page folded less strictly than the command."""
    for name, (_, exhibit, said) in LIES.items():
        (tmp_path / name).mkdir()
        assert choose(page, lying(tmp_path / name, name))[0] == "red", name
        told = page.inner_text("#fault-list")
        assert said in told, (name, told)
        assert ("Exhibit DB/1" in told) == (exhibit is not None), (name, told)


@pytest.mark.parametrize("name", LIES)
def test_such_a_ledger_is_not_packed(tmp_path: Path, name: str) -> None:
    """False if a pack lent its weight to a key that might not sign."""
    with pytest.raises(VerificationError):
        Case(LIES[name][0](), N + 1).pack(tmp_path / "pack")
    assert not (tmp_path / "pack").exists()


def test_a_revocation_left_out_of_the_governing_register_is_found(page: Page, tmp_path: Path) -> None:
    """False if a packer could take one entry out, or put two histories into one pack."""
    log = begun()
    revoke(log)
    govern(log, "register.opened/1", name="a/b", title="After it")
    whole = Case(log, N, with_key=True).pack(tmp_path / "whole")
    left_out, swapped = Log("governing", log.data[:-1]), Log("governing", log.data[:-2])
    swapped.append(log.data[-1])
    for number, (other, size, note) in enumerate(
        [
            (log, N, None),  # fewer entries than the note has
            (left_out, None, log.note(len(log.data), both(CAME))),
            (swapped, None, log.note(N + 1, both(CAME))),  # as many, one of them another
        ]
    ):
        put_governing(whole, other, size=size, note=note)
        faults = check(whole).faults
        assert [fault.file for fault in faults] == ["data/governing.entries"], (number, faults)
        assert choose(page, whole)[0] == "red"
        assert "data/governing.entries" in page.inner_text("#fault-list")


def test_a_governing_register_of_another_history_than_the_key_is_found(page: Page, tmp_path: Path) -> None:
    """False if the key's receipt and the governing register could be of two histories."""
    other = begun()
    other.data[AUTHORISED - 1] = other.data[1]
    out = Case(begun(), N, with_key=True).pack(tmp_path / "pack")
    for _ in ("of the same size", "of a larger one"):
        put_governing(out, other)
        (fault,) = check(out).faults
        assert "two histories" in fault.description
        assert choose(page, out)[0] == "red"
        assert "two histories" in page.inner_text("#fault-list")
        govern(other, "register.opened/1", name="a/b", title="One more")


def test_a_governing_checkpoint_that_no_quorum_knows_is_refused(page: Page, tmp_path: Path) -> None:
    """False if a ledger alone could vouch for its governing register."""
    out = never_revoked().pack(tmp_path / "pack")
    put_governing(out, begun(), note=begun().note(N, {"one": CAME}))
    faults = check(out).faults
    assert any(fault.file == "data/governing.entries" and "quorum" in fault.description for fault in faults)
    assert choose(page, out)[0] == "red"


def test_a_governing_register_of_another_length_than_stated_is_found(page: Page, tmp_path: Path) -> None:
    """False if the index could say up to which size the keys were judged, and mean another."""
    out = never_revoked().pack(tmp_path / "pack")
    index = json.loads((out / "data/index.json").read_bytes())
    index["governing"]["size"] += 1
    (out / "data/index.json").write_bytes(json_file(index))
    write_manifests(out)
    assert [fault.file for fault in check(out).faults] == ["data/governing.entries"]
    assert choose(page, out)[0] == "red"


def test_a_governing_register_that_is_too_large_is_left_out() -> None:
    """False if a pack could grow without bound, or held half a register for a whole one."""
    small = collected(b"note", [b"x"] * MAX_GOVERNING)
    assert small is not None
    assert len(small.entries) == MAX_GOVERNING
    assert collected(b"note", [b"x"] * (MAX_GOVERNING + 1)) is None
    assert collected(b"note", [bytes(65_535)] * (MAX_GOVERNING_BYTES // 65_535 + 1)) is None
    assert collected(b"note", []) is None
