"""The page that verifies a pack by itself, in a real Chromium without a network."""

from __future__ import annotations

import io
import random
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Browser, Page

from ledger import base64
from ledger.receipt_file import Receipt
from ledger.witnessing import Policy
from services.evidence.checked import exhibit_of
from services.evidence.page import verifier_page
from services.evidence.rendering import render
from tests.services.evidence.forgeries import FORGERIES
from tests.services.evidence.test_zip_reading import hide, made, streamed
from tests.support.chromium import assert_accessible
from tests.support.command import run
from tests.support.forged_ledger import ACCEPTED, Log, signed_entry
from tests.support.packs import POLICY, Packs, chosen_receipts, files_of, flip, make_packs, write_manifests
from tests.support.records import decision_bytes
from tests.support.story import REGISTER
from tests.support.vectors import VECTORS, load

_JUDGED: Final = "#result:not([data-verdict=working]):not([data-verdict=none])"

VERIFY: Final = """async ([receipt, policy, now]) => {
    const state = newState(await hasEd25519(), now);
    state.policy = await parsePolicy(unbase64(policy));
    try {
        const { index, bounds, anchored } = await verifyReceipt(state, unbase64(receipt));
        const number = (value) => (value === null ? null : Number(value));
        return [Number(index), number(bounds.notBefore), number(bounds.notAfter), anchored !== null];
    } catch (error) {
        if (!(error instanceof Fault)) throw error;
        return null;
    }
}"""


@pytest.fixture
def page(browser: Browser, packs: Packs) -> Iterator[Page]:
    """The page as it lies in the pack, opened from the disk; anything that it asks for fails the test."""
    yield from opened_page(browser, packs.folder / "verify.html")


def opened_page(browser: Browser, path: Path, script: str = "") -> Iterator[Page]:
    context = browser.new_context(offline=True)
    page = context.new_page()
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    if script:
        page.add_init_script(script)
    page.goto(path.as_uri())
    yield page
    assert asked == [path.as_uri()]
    assert errors == []
    context.close()


def choose(page: Page, pack: Path) -> tuple[str, str]:
    """Choose a pack; return the verdict, and what the page says first."""
    give(page, "#folder" if pack.is_dir() else "#zip", pack)
    return verdict(page)


def give(page: Page, chooser: str, path: Path) -> None:
    """Click a chooser and choose, as a reader does."""
    with page.expect_file_chooser() as choosing:
        page.click(chooser)
    choosing.value.set_files(path)


def verdict(page: Page) -> tuple[str, str]:
    page.wait_for_selector(_JUDGED)
    return page.get_attribute("#result", "data-verdict") or "", page.inner_text("#verdict")


def choose_policy(page: Page, policy: Path = POLICY) -> tuple[str, str]:
    give(page, "#policy", policy)
    page.wait_for_selector("#policy-said[data-policy=own]")
    return verdict(page)


@pytest.mark.parametrize("form", ["folder", "closed", "zip", "closed_zip"])
def test_a_good_pack_is_amber_until_the_reader_loads_their_own_policy(
    page: Page, packs: Packs, form: str
) -> None:
    """False if a pack could vouch for itself with keys that it brings along."""
    shade, said = choose(page, getattr(packs, form))
    assert shade == "amber"
    assert "Consistent with these keys" in said
    shade, said = choose_policy(page)
    assert shade == "green", page.inner_text("#faults")
    assert "4 exhibits" in said
    assert Policy.parse(POLICY.read_bytes()).fingerprint in page.inner_text("#policy-said")
    assert "all checkpoints are proved to be of one history" in page.inner_text("#facts")
    shown = page.inner_text("#exhibit-list")
    assert "by 2026-07-03T15:20:15Z, and not before 2026-01-06T10:00:02Z" in shown
    page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    text = page.inner_text("#exhibit-list")
    assert "channel: whatsapp" in text
    assert ("title: Approve purchase of 25 million gowns" in text) == ("closed" in form)


def test_one_flipped_bit_anywhere_is_red_and_names_the_exhibit(page: Page, copied: Packs) -> None:
    """False if the page passed a changed pack, or left a reader to search for the change."""
    choose(page, copied.closed)
    choose_policy(page)
    pick = random.Random(15)
    for name, data in files_of(copied.closed).items():
        position, bit = pick.randrange(len(data)), pick.randrange(8)
        flip(copied.closed / name, position, bit)
        shade, said = choose(page, copied.closed)
        assert shade == "red", (name, position, bit)
        told = page.inner_text("#fault-list")
        assert name in told
        label = exhibit_of(name)
        if label is not None:
            assert f"exhibit {label}" in said
            assert f"Exhibit {label}, {name}" in told
        flip(copied.closed / name, position, bit)
    assert choose(page, copied.closed)[0] == "green"


def test_one_flipped_bit_anywhere_in_a_zip_file_is_red(page: Page, copied: Packs) -> None:
    """False if a ZIP file could be changed unseen by the page."""
    pick = random.Random(16)
    length = copied.zip.stat().st_size
    places = [length - 1 - 83 * place for place in range(30)] + [pick.randrange(length) for _ in range(20)]
    for position in places:
        flip(copied.zip, position, bit := pick.randrange(8))
        assert choose(page, copied.zip)[0] == "red", (position, bit)
        flip(copied.zip, position, bit)
    assert choose(page, copied.zip)[0] == "amber"


def test_a_forgery_with_manifests_to_match_is_red_here_too(page: Page, packs: Packs, tmp_path: Path) -> None:
    """False if the page checked less than the command does."""
    for number, (name, (forge, exhibit)) in enumerate(FORGERIES.items()):
        forged = tmp_path / f"pack-{number}"
        shutil.copytree(packs.closed, forged)
        forge(forged)
        write_manifests(forged)
        shade, _ = choose(page, forged)
        assert shade == "red", name
        if exhibit is not None:
            assert f"Exhibit {exhibit}, " in page.inner_text("#fault-list"), name


def test_without_ed25519_it_says_so_and_is_never_green(browser: Browser, packs: Packs) -> None:
    """False if signatures that nobody checked passed for good ones."""
    missing = """
        const real = crypto.subtle.importKey.bind(crypto.subtle);
        crypto.subtle.importKey = (format, data, algorithm, ...rest) =>
            algorithm.name === "Ed25519"
                ? Promise.reject(new DOMException("Unrecognized name", "NotSupportedError"))
                : real(format, data, algorithm, ...rest);
    """
    accepting = "crypto.subtle.verify = async () => true;"
    for script in (missing, accepting):
        for page in opened_page(browser, packs.folder / "verify.html", script):
            for _ in ("without", "with a policy"):
                shade, said = choose(page, packs.zip)
                assert shade == "amber"
                assert "no Ed25519" in said
                choose_policy(page)
            assert verdict(page)[0] == "amber"


def test_without_webcrypto_nothing_is_claimed(browser: Browser, packs: Packs) -> None:
    """False if the page were green, or silent, where it can check nothing."""
    script = "Object.defineProperty(crypto, 'subtle', { value: undefined });"
    for page in opened_page(browser, packs.folder / "verify.html", script):
        assert choose(page, packs.zip)[0] == "red"


def test_the_page_judges_each_vector_as_it_must(page: Page) -> None:
    """False if the second implementation passed a bad receipt, failed a good one, or bounded it otherwise."""
    policy = base64.encode(POLICY.read_bytes())
    for case in load("receipts.json")["cases"]:
        receipt = base64.encode((VECTORS / case["file"]).read_bytes())
        found = page.evaluate(VERIFY, [receipt, policy, 1_900_000_000])
        good = case["verdict"] == "verified"
        expected = [case["index"], case["not_before"], case["not_after"], case["anchored"]] if good else None
        assert found == expected, case["file"]


def test_two_histories_of_one_register_are_told_apart_from_a_good_pack(page: Page) -> None:
    """False if a ledger that signed two histories could have a record of each in one green pack."""
    receipts = []
    for title in ("The first story", "The second story"):
        log = Log(REGISTER)
        log.append(signed_entry(REGISTER, decision_bytes(title=title), ["department"]))
        proof = log.proof(0, 1, {"one": ACCEPTED + 1, "two": ACCEPTED + 2})
        receipts.append(base64.encode(Receipt(log.data[0], proof).data()))
    script = """async ([receipts, policy]) => {
        const state = newState(await hasEd25519(), 1900000000);
        state.policy = await parsePolicy(unbase64(policy));
        const told = [];
        for (const receipt of receipts) {
            await verifyReceipt(state, unbase64(receipt)).then(
                () => told.push("holds"),
                (fault) => told.push(fault.message),
            );
        }
        return told;
    }"""
    holds, fault = page.evaluate(script, [receipts, base64.encode(POLICY.read_bytes())])
    assert holds == "holds"
    assert "two histories" in fault


def test_signatures_are_judged_as_libsodium_judges_them(page: Page) -> None:
    """False if a signature held in the browser and nowhere else."""
    script = """async ([key, message, signature]) => {
        try {
            await verifyEd25519({ ed25519: true }, unhex(key), unhex(message), unhex(signature), "vector");
            return true;
        } catch (error) {
            if (!(error instanceof Fault)) throw error;
            return false;
        }
    }"""
    for case in load("ed25519.json"):
        given = [case["public_hex"], case["message_hex"], case["signature_hex"]]
        assert page.evaluate(script, given) == case["valid"], case["name"]


def test_a_time_that_has_not_come_is_refused(page: Page) -> None:
    """False if a witness's clock far ahead proved anything."""
    receipt = (VECTORS / "receipts/minimal.receipt").read_bytes()
    given = [base64.encode(receipt), base64.encode(POLICY.read_bytes())]
    bound = 1_785_837_667
    assert page.evaluate(VERIFY, [*given, bound - 300]) is not None
    assert page.evaluate(VERIFY, [*given, bound - 302]) is None


HOSTILE: Final = (
    b'{"a":"\xe2\x80\xaeevil","b":"one\\ntwo: three","c":[{"d":true},{"e":false}],"f":9007199254740991}',
    b'{"a":"\xf3\xa0\x81\x81","title":"<img src=x onerror=alert(1)>"}',
    b'{"a":1.0}',
    b'{"a":-1}',
    b'{"a":-0}',
    b'{"a":9007199254740992}',
    b'{"a":null}',
    b'{"a":1,"a":1}',
    b'{"b":1,"a":1}',
    b'{"a": 1}',
    b'{"a":"\\ud800"}',
    b'{"a":"\\u0041"}',
    b'{"a":"\\u001b[31m","b":"\x7f"}',
    b'{"\xc3\xa9":1}',
    b'{"__proto__":1,"constructor":"x"}',
    b"[" * 20 + b"]" * 20,
    b'{"a":' * 17 + b"1" + b"}" * 17,
    b'{"a":[[],{}]}',
    b'"text"',
    b"\xff",
    b"",
    b'\xef\xbb\xbf{"a":1}',
    b'{"a":NaN}',
    '{"a":"\U0001f600 \ufffd \u00ad"}'.encode(),
)


def test_the_page_renders_records_byte_for_byte_as_the_pack_does(page: Page) -> None:
    """False if honest packs of odd records were red, or a record read otherwise in the browser."""
    script = "(record) => renderRecord(unbase64(record))"
    records = [*HOSTILE, *(path.read_bytes() for path in sorted((VECTORS / "records").glob("*.json")))]
    for record in records:
        assert page.evaluate(script, base64.encode(record)).encode() == render(record), record


def test_a_pack_that_was_packed_again_by_another_program_verifies(
    page: Page, packs: Packs, tmp_path: Path
) -> None:
    """False if only our own ZIP files could be checked."""
    again = Path(shutil.make_archive(str(tmp_path / "again"), "zip", packs.folder.parent, "pack"))
    with zipfile.ZipFile(again) as archive:
        assert any(each.compress_type == zipfile.ZIP_DEFLATED for each in archive.infolist())
    run("verify", again, "--policy", POLICY)
    assert choose(page, again)[0] == "amber"


def test_a_zip_file_that_two_programs_read_in_two_ways_is_red(page: Page, packs: Packs, tmp_path: Path) -> None:
    """False if the page passed a ZIP file from which something else may be unpacked than it has checked."""
    files = [(f"base/{name}", data) for name, data in files_of(packs.folder).items()]
    out = tmp_path / "pack.zip"
    for good in (streamed(*files), made(("base/", b""), ("base/data/", b""), *files)):
        out.write_bytes(good)
        assert choose(page, out)[0] == "amber", page.inner_text("#fault-list")
        run("verify", out, "--policy", POLICY)
    twice = made(*files, ("base/data/zzzzzz.txt", b"another report"))
    second_name = io.BytesIO()
    with zipfile.ZipFile(second_name, "w") as archive:
        for name, data in files:
            member = zipfile.ZipInfo(name)
            member.extra = b"up\x0c\0\1\0\0\0\0another" if name.endswith("report.txt") else b""
            archive.writestr(member, data)
    wrong_size = bytearray(streamed(*files))
    wrong_size[wrong_size.index(b"PK\x07\x08") + 12] ^= 1
    for number, data in enumerate(
        [
            twice.replace(b"zzzzzz.txt", b"report.txt"),
            made(*files, ("../out/", b"")),
            made(*files, ("base/bagit.txt/", b"")),
            hide(streamed(*files), made(("hidden", b"another"))),
            second_name.getvalue(),
            bytes(wrong_size),
        ]
    ):
        out.write_bytes(data)
        assert choose(page, out)[0] == "red", number
        run("verify", out, "--policy", POLICY, status=1)


def test_the_page_shows_which_findings_are_about_which_exhibit(page: Page, packs: Packs) -> None:
    """False if a finding were shown as proved, with another exhibit, or as a part of the page."""
    choose(page, packs.folder)
    articles = page.locator("article")
    shown = [articles.nth(number).inner_text() for number in range(4)]
    assert ["Stated by F/1" in text for text in shown] == [True, False, False, False]
    assert ["Stated by F/2" in text for text in shown] == [False, True, False, True]
    assert "DET-12: A <b>burst</b>. (not a proof)" in shown[1]
    assert "2 are about these exhibits: statements of their author, and no proofs" in page.inner_text("#facts")
    assert page.locator("article b").count() == 0


def test_a_signed_pack_names_its_packers_key_and_fails_without_its_signature(
    page: Page, tmp_path: Path
) -> None:
    """False if a signature could be taken away, or made by another key."""
    run("keygen", tmp_path / "key", "--name", "packer.example")
    made = make_packs(tmp_path, chosen_receipts(tmp_path / "receipts"), "--sign", tmp_path / "key")
    assert choose(page, made.zip)[0] == "amber"
    assert (tmp_path / "key.pub").read_text().strip() in page.inner_text("#facts")
    flip(made.folder / "signature.note", 60)
    assert choose(page, made.folder)[0] == "red"
    (made.folder / "signature.note").unlink()
    assert choose(page, made.folder)[0] == "red"
    assert "signature.note" in page.inner_text("#fault-list")


def test_a_policy_of_another_ledger_is_red_and_a_file_that_is_none_is_told(
    page: Page, packs: Packs, tmp_path: Path
) -> None:
    """False if a reader's mistake were green."""
    choose(page, packs.zip)
    other = tmp_path / "policy"
    other.write_bytes((VECTORS / "c2sp/policy-both").read_bytes())
    assert choose_policy(page, other)[0] == "red"
    assert "names no key for the log" in page.inner_text("#fault-list")
    other.write_text("no policy\n")
    give(page, "#policy", other)
    page.wait_for_selector("#policy-said[data-policy=refused]")
    assert verdict(page)[0] == "amber"


def test_the_page_is_accessible_in_every_state(page: Page, packs: Packs, copied: Packs) -> None:
    """False if a reader with a screen reader, or without a mouse, could not use it."""
    assert_accessible(page)
    choose(page, packs.closed_zip)
    page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    assert_accessible(page)
    choose_policy(page)
    assert_accessible(page)
    flip(copied.closed_zip, 5_000)
    choose(page, copied.closed_zip)
    assert_accessible(page)


def test_the_page_is_worked_with_the_keyboard_alone(page: Page, packs: Packs) -> None:
    """False if a chooser could not be reached, or not be seen to be."""
    reached = []
    for _ in range(4):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
    assert reached[:3] == ["zip", "folder", "policy"]
    choose(page, packs.zip)
    page.focus("#policy")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    page.keyboard.press("Enter")
    assert page.locator("details[open]").count() == 1


def test_the_page_forbids_itself_every_connection(page: Page) -> None:
    """False if a script that got in could send anything out."""
    text = verifier_page().decode()
    assert "default-src 'none'" in text
    assert "innerHTML" not in text
    assert "http:" not in text.replace("http-equiv", "")
    assert "https:" not in text
    policy = page.get_attribute("meta[http-equiv=Content-Security-Policy]", "content") or ""
    kinds = [each.split()[0] for each in policy.split("; ")]
    assert kinds == ["default-src", "script-src", "style-src", "base-uri", "form-action"]
    assert "unsafe" not in policy


def test_a_connection_that_is_tried_is_refused_by_the_page_itself(browser: Browser, packs: Packs) -> None:
    """False if only the missing network kept what is in a pack from going out."""
    context = browser.new_context()
    page = context.new_page()
    page.goto((packs.folder / "verify.html").as_uri())
    tried = """() => new Promise((done) => {
        document.addEventListener("securitypolicyviolation", (event) => done(event.effectiveDirective));
        fetch("http://127.0.0.1:9/").catch(() => undefined);
    })"""
    assert page.evaluate(tried) == "connect-src"
    context.close()
