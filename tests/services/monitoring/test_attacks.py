"""Attacks on whoever relies on a ledger, each performed over HTTP: a monitor finds every one of them.

Where the log key is needed, the attacker has it: it is the operator.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ledger import base64
from ledger.admission import instant
from ledger.ed25519 import SecretKey
from ledger.entries import Acceptance, Signature, accept, form_ledger_entry, pae, submission_body
from ledger.governing import GOVERNING
from ledger.hashing import leaf_hash
from ledger.notes import ED25519, VerifierKey, split_note
from ledger.split_views import SplitView, verify_split_view
from ledger.stores.memory import MemoryStore
from ledger.tiles import encode_bundle
from services.monitoring.findings import EntryProof, Finding, Kind, check, keep
from services.monitoring.following import STRETCH
from services.monitoring.rounds import ANCHOR_WITHIN, Limits
from tests.support.ledger_story import SECOND
from tests.support.ledgers import (
    DEPARTMENT,
    DEPARTMENT_KEY,
    EPOCH,
    GOVERNANCE_KEY,
    POLICY,
    REGISTER,
    LedgerUnderTest,
    decision,
    governing_record,
    open_ledger,
    submission,
)
from tests.support.monitored import BEGAN, Monitored, monitored, sign
from tests.support.tiled_site import bomb, endless, status

CHECKPOINT = f"/logs/{REGISTER}/checkpoint"
STRANGER = SecretKey(b"\x0f" * 32)


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Monitored]:
    with monitored(tmp_path) as it:
        yield it


@pytest.fixture
def it(empty: Monitored) -> Monitored:
    empty.held.fill(300)
    empty.publish()
    return empty


async def one_finding(it: Monitored, kind: Kind, register: str = REGISTER) -> Finding:
    """Make a round that finds just this, and find it again in the next one."""
    made = await it.round()
    assert [(each.kind, each.register) for each in made.findings] == [(kind, register)], made
    again = await it.round()
    assert [each.kind for each in again.findings] == [kind], again
    return made.findings[0]


def proved(finding: Finding, tmp_path: Path) -> str:
    """Return what the evidence of a finding proves to a stranger who has nothing but the policy."""
    path = keep(tmp_path / "evidence", "ledger.test", finding, BEGAN)
    return check(path.read_bytes(), POLICY).proved


def other_history(folder: Path, numbers: Sequence[int]) -> LedgerUnderTest:
    """Return a ledger with the same keys whose register has other decisions."""
    held = open_ledger(MemoryStore(), folder / "other-marks")
    held.add(numbers)
    return held


def serve(it: Monitored, register: str, entries: Sequence[bytes]) -> None:
    """Serve a register of any entries, signed by the log key."""
    it.site.put(register, entries, sign(register, entries))


def later(number: int, key: SecretKey = DEPARTMENT_KEY, view: int = 3, register: str = REGISTER) -> bytes:
    """Return the entry of one decision, as the ledger would form it, whoever signed it."""
    signed = submission(register, [decision(number, register)], [key])
    (entry,) = accept(signed, Acceptance(instant(EPOCH + 500), "anonymous", view)).entries
    return entry


# Rollback and fork


async def test_an_older_copy_that_is_served_is_a_rollback(it: Monitored) -> None:
    """False if records could vanish by putting yesterday's copy back."""
    old = dict(it.site.files)
    it.held.fill(310)
    it.publish()
    assert (await it.round()).findings == []
    it.site.files = old
    finding = await one_finding(it, Kind.ROLLBACK)
    assert [split_note(note)[0].split(b"\n")[1] for note in finding.notes] == [b"310", b"300"]


async def test_a_rollback_that_heals_within_the_patience_is_none(it: Monitored) -> None:
    """False if one stale answer of a cache were an integrity failure."""
    it.held.fill(310)
    it.publish()
    assert (await it.round()).findings == []
    new = it.site.files[CHECKPOINT]
    it.held.fill(310)
    it.site.files[CHECKPOINT] = sign(REGISTER, it.entries(REGISTER)[:300])
    answered = iter([it.site.files[CHECKPOINT]])

    def stale_once(handler: object) -> None:
        handler.reply(200, next(answered, new))  # type: ignore[attr-defined]

    it.site.answers[CHECKPOINT] = stale_once
    it.limits = Limits(patience=60)
    assert (await it.round()).findings == []


async def test_two_checkpoints_of_one_size_are_the_proof_of_a_fork(it: Monitored, tmp_path: Path) -> None:
    """False if an operator could exchange a record and sign again without being found out."""
    assert (await it.round()).findings == []
    serve(it, REGISTER, [*it.entries(REGISTER)[:-1], later(999)])
    finding = await one_finding(it, Kind.FORK)
    assert isinstance(finding.proof, SplitView)
    assert "300 entries" in proved(finding, tmp_path)
    assert set(finding.notes) == {it.notes[REGISTER], it.site.files[CHECKPOINT]}


@pytest.mark.parametrize("size", [1, 255, 256, 257, 512, 1_000, STRETCH + 300])
async def test_a_longer_history_that_is_another_is_proved_to_be_one(
    empty: Monitored, tmp_path: Path, size: int
) -> None:
    """False if a fork could hide behind growth, at any size."""
    it = empty
    it.held.fill(size)
    it.publish()
    assert (await it.round()).findings == []
    other = other_history(tmp_path, range(10_000, 11_000))
    for first in range(11_000, size + 10_010, 1_000):
        other.add(range(first, first + 1_000))
    entries = other.ledger.store.entries(REGISTER, 0, size + 900)
    # The same entries at the beginning, so that only the last one seen is another.
    entries[: size - 1] = it.entries(REGISTER)[: size - 1]
    serve(it, REGISTER, entries)
    finding = await one_finding(it, Kind.FORK)
    assert f"first {size} entries" in proved(finding, tmp_path)


async def test_a_smaller_checkpoint_of_another_history_is_proved_from_the_mirror(
    it: Monitored, tmp_path: Path
) -> None:
    """False if the proof were lost because the other history is the shorter one."""
    assert (await it.round()).findings == []
    serve(it, REGISTER, other_history(tmp_path, range(1_000)).ledger.store.entries(REGISTER, 0, 200))
    finding = await one_finding(it, Kind.FORK)
    assert "first 200 entries" in proved(finding, tmp_path)


async def test_a_checkpoint_whose_entries_were_never_served_binds_as_well(
    it: Monitored, tmp_path: Path
) -> None:
    """False if an operator could take back a checkpoint as long as nobody had read to its end."""
    honest = it.entries(REGISTER)
    serve(it, REGISTER, [*honest[:-1], later(999)])
    it.site.answers[f"/logs/{REGISTER}/tile/entries/001.p/44"] = status(403)
    assert (await it.round()).troubles
    it.site.answers.clear()
    it.held.fill(600)
    it.publish()
    finding = await one_finding(it, Kind.FORK)
    assert "first 300 entries" in proved(finding, tmp_path)


async def test_the_governing_register_can_be_forked_as_little(it: Monitored, tmp_path: Path) -> None:
    """False if who may write could be decided twice."""
    assert (await it.round()).findings == []
    entries = other_history(tmp_path, [1]).ledger.store.entries(GOVERNING, 0, 2)
    it.held.open_register(SECOND)
    it.publish()
    third = submission(
        GOVERNING,
        [governing_record(77, "register.opened/1", name=SECOND, title="Another")],
        [GOVERNANCE_KEY],
    )
    forged = accept(third, Acceptance(instant(EPOCH + 2), "anonymous", 2)).entries
    serve(it, GOVERNING, [*entries, *forged])
    finding = await one_finding(it, Kind.FORK, GOVERNING)
    assert "3 entries" in proved(finding, tmp_path)


# Alteration


async def test_one_byte_of_a_bundle_that_is_read_for_the_first_time_is_named(it: Monitored) -> None:
    """False if what is read had not to be what was signed."""
    path = f"/logs/{REGISTER}/tile/entries/001.p/44"
    entries = it.entries(REGISTER)[256:]
    entries[7] = entries[7].replace(b"Decision", b"Decisiom")
    it.site.files[path] = encode_bundle(entries)
    finding = await one_finding(it, Kind.ALTERED)
    assert "entry 263 " in finding.what
    assert leaf_hash(it.entries(REGISTER)[263]).hex() in finding.expected
    with it.opened() as state:
        assert state.size(REGISTER) == 0


async def test_one_byte_of_an_entry_seen_before_is_named(it: Monitored) -> None:
    """False if old pages could be exchanged because nobody reads them twice."""
    assert (await it.round()).findings == []
    path = f"/logs/{REGISTER}/tile/entries/000"
    it.site.files[path] = it.site.files[path].replace(b"Decision 17", b"Decision 71")
    finding = await one_finding(it, Kind.ALTERED)
    assert "entry 17 " in finding.what
    assert "Decision 71" in finding.material["entry as served"]


async def test_an_entry_seen_before_that_is_met_again_while_reading_on_is_named(it: Monitored) -> None:
    """False if the page that grows could change where it has been read."""
    it.limits = Limits(patience=0, reread=0)
    assert (await it.round()).findings == []
    it.held.fill(310)
    it.publish()
    path = f"/logs/{REGISTER}/tile/entries/001.p/54"
    it.site.files[path] = it.site.files[path].replace(b"Decision 290", b"Decision 902")
    finding = await one_finding(it, Kind.ALTERED)
    assert "entry 290 " in finding.what


@pytest.mark.parametrize("tile", ["0/000", "0/001.p/44", "1/000.p/1"])
@pytest.mark.parametrize("byte", [0, 17])
async def test_one_byte_of_any_tile_is_found(it: Monitored, tile: str, byte: int) -> None:
    """False if proofs made from what is served could fail while the monitor saw nothing wrong."""
    path = f"/logs/{REGISTER}/tile/{tile}"
    data = bytearray(it.site.files[path])
    data[byte] ^= 1
    it.site.files[path] = bytes(data)
    finding = await one_finding(it, Kind.ALTERED)
    assert "tile" in finding.what


async def test_a_page_and_its_tile_that_are_altered_together_do_not_accuse_the_ledger(it: Monitored) -> None:
    """False if somebody between ledger and monitor could make it look as if the ledger had signed that."""
    bundle, tile = f"/logs/{REGISTER}/tile/entries/000", f"/logs/{REGISTER}/tile/0/000"
    entries = it.entries(REGISTER)[:256]
    entries[7] = entries[7].replace(b"Decision", b"Decisiom")
    it.site.files[bundle] = encode_bundle(entries)
    it.site.files[tile] = b"".join(map(leaf_hash, entries))
    finding = await one_finding(it, Kind.ALTERED)
    assert "tiles" in finding.what
    # Nor does an altered tile hide what the ledger has signed.
    it.site.put(REGISTER, [*it.entries(REGISTER), b"none"], sign(REGISTER, [*it.entries(REGISTER), b"none"]))
    it.site.files[tile] = b"".join(map(leaf_hash, entries))
    assert (await one_finding(it, Kind.FORGED)).proof is not None


async def test_one_byte_of_a_tile_on_the_way_through_a_long_register_is_found(it: Monitored) -> None:
    """False if a proof between two stretches were believed, whatever it is made of."""
    it.held.fill(2 * STRETCH)
    it.publish()
    path = f"/logs/{REGISTER}/tile/1/000.p/32"
    data = bytearray(it.site.files[path])
    data[20 * 32] ^= 1
    it.site.files[path] = bytes(data)
    finding = await one_finding(it, Kind.ALTERED)
    assert "tiles" in finding.what
    assert (await it.round()).followed[1].size == 0


async def test_tiles_that_are_altered_after_an_interruption_are_not_taken_for_a_fork(it: Monitored) -> None:
    """False if tiles that lead nowhere could accuse the ledger of two histories."""
    it.held.fill(3 * STRETCH)
    it.publish()
    late = f"/logs/{REGISTER}/tile/entries/020"
    it.site.answers[late] = status(403)
    assert (await it.round()).findings == []
    with it.opened() as state:
        assert 0 < state.size(REGISTER) < 2 * STRETCH
    del it.site.answers[late]
    path = f"/logs/{REGISTER}/tile/1/000.p/48"
    data = bytearray(it.site.files[path])
    data[3 * 32] ^= 1
    it.site.files[path] = bytes(data)
    finding = await one_finding(it, Kind.ALTERED)
    assert "tiles" in finding.what


@pytest.mark.parametrize("answer", [endless, bomb], ids=["endless", "bomb"])
@pytest.mark.parametrize("place", ["tile/entries/000", "tile/0/000"])
async def test_a_body_that_cannot_be_it_is_an_alteration(it: Monitored, answer: object, place: str) -> None:
    """False if a hostile server could fill the monitor's memory, or keep it busy for ever."""
    it.site.answers[f"/logs/{REGISTER}/{place}"] = answer  # type: ignore[assignment]
    finding = await one_finding(it, Kind.ALTERED)
    assert "goes on beyond" in finding.what


@pytest.mark.parametrize("cut", [-1, -32, 1])
async def test_a_tile_of_another_width_is_an_alteration(it: Monitored, cut: int) -> None:
    """False if a tile that is short, or long, passed."""
    path = f"/logs/{REGISTER}/tile/0/001.p/44"
    data = it.site.files[path]
    it.site.files[path] = data[:cut] if cut < 0 else data + b"x"
    await one_finding(it, Kind.ALTERED)


async def test_entries_that_are_not_served_though_signed_are_missing(it: Monitored) -> None:
    """False if an operator could sign and then show nothing."""
    del it.site.files[f"/logs/{REGISTER}/tile/entries/001.p/44"]
    finding = await one_finding(it, Kind.MISSING)
    assert "001" in finding.what


# Registers


async def test_a_register_that_is_opened_and_not_served_is_hidden(it: Monitored) -> None:
    """False if a whole office could be left out."""
    assert (await it.round()).findings == []
    del it.site.files[CHECKPOINT]
    await one_finding(it, Kind.HIDDEN)


async def test_a_register_that_is_opened_and_not_listed_is_hidden(it: Monitored) -> None:
    """False if whoever goes by the list could be kept from a register."""
    it.site.list([GOVERNING])
    await one_finding(it, Kind.HIDDEN)


async def test_a_register_that_was_never_opened_is_found(it: Monitored) -> None:
    """False if a register could be kept beside those that governance knows of."""
    it.site.put(SECOND, [later(1, register=SECOND)], sign(SECOND, [later(1, register=SECOND)]))
    it.site.list([GOVERNING, REGISTER, SECOND])
    finding = await one_finding(it, Kind.UNOPENED, SECOND)
    assert "signed by the ledger" in finding.what
    assert finding.notes == (it.site.files[f"/logs/{SECOND}/checkpoint"],)


async def test_a_register_that_is_still_to_be_opened_is_not_accused(it: Monitored) -> None:
    """False if a ledger whose witnesses are away, so that an opening is not sealed yet, were accused of it."""
    stated: list[dict[str, object]] = [{"name": GOVERNING}, {"name": REGISTER, "opened_index": 1}]
    listing = {"registers": [*stated, {"name": SECOND, "opened_index": 3}]}
    it.site.files["/registers.json"] = json.dumps(listing).encode()
    made = await it.round()
    assert made.findings == []
    assert made.remarks == ["1 registers are listed that are still to be opened."]
    # But not where the governing entries that are served say otherwise, nor once it is served.
    listing = {"registers": [*stated, {"name": SECOND, "opened_index": 2}]}
    it.site.files["/registers.json"] = json.dumps(listing).encode()
    await one_finding(it, Kind.UNOPENED, SECOND)
    listing = {"registers": [*stated, {"name": SECOND, "opened_index": 3}]}
    it.site.files["/registers.json"] = json.dumps(listing).encode()
    it.site.put(SECOND, [], sign(SECOND, []))
    await one_finding(it, Kind.UNOPENED, SECOND)


async def test_a_register_that_was_opened_a_moment_ago_may_be_still_to_come(it: Monitored) -> None:
    """False if a new register whose first checkpoint is not sealed yet were hidden, or were never missed."""
    del it.site.files[CHECKPOINT]
    made = await it.round(at=0)
    assert made.findings == []
    assert [each.register for each in made.troubles] == [REGISTER]
    assert "opened a moment ago" in made.troubles[0].why
    assert (await it.round(at=ANCHOR_WITHIN)).findings == []
    made = await it.round(at=ANCHOR_WITHIN + 1)
    assert [each.kind for each in made.findings] == [Kind.HIDDEN]
    # Somebody who comes later sees by the opening's own time that it was long ago.
    shutil.rmtree(it.state)
    made = await it.round(at=EPOCH - BEGAN + ANCHOR_WITHIN + 10)
    assert [each.kind for each in made.findings] == [Kind.HIDDEN]


async def test_names_on_a_list_lead_nowhere(it: Monitored, tmp_path: Path) -> None:
    """False if a name that the operator makes up could reach another page, or another file of the monitor."""
    it.site.list([GOVERNING, REGISTER, "../../x", "\x1b[2J", "a/b/../../../etc"])
    made = await it.round()
    (finding,) = made.findings
    assert finding.kind is Kind.UNOPENED
    own = ("/registers.json", "/logs/governing/", f"/logs/{REGISTER}/")
    assert all(path.startswith(own) for path in it.site.asked)
    path = keep(tmp_path / "evidence", "ledger.test", finding, BEGAN)
    assert path.parent == tmp_path / "evidence"
    assert "\x1b" not in finding.what


async def test_the_governing_register_that_vanishes_is_hidden(it: Monitored) -> None:
    """False if a ledger that was followed could disappear without a word."""
    assert (await it.round()).findings == []
    del it.site.files["/logs/governing/checkpoint"]
    await one_finding(it, Kind.HIDDEN, GOVERNING)


async def test_an_address_without_a_ledger_is_not_a_finding(tmp_path: Path) -> None:
    """False if a mistyped address were taken for a ledger that hides."""
    with monitored(tmp_path) as it:
        made = await it.round()
    assert made.findings == []
    assert "no ledger is served here" in made.troubles[-1].why


# Entries


def unsigned(record: bytes) -> bytes:
    return form_ledger_entry(record, instant(EPOCH + 500), 3)


def wrongly_signed(_: Monitored) -> bytes:
    record = decision(500)
    body = submission_body(f"ledger.test/{REGISTER}", 1, leaf_hash(record))
    other = decision(501)
    signed = submission(REGISTER, [other], [DEPARTMENT_KEY])
    signature = Signature(DEPARTMENT_KEY.public, DEPARTMENT_KEY.sign(pae(body) + b"x"))
    changed = replace(signed, records=(record,), signatures=(signature,))
    (entry,) = accept(changed, Acceptance(instant(EPOCH + 500), "anonymous", 3)).entries
    return entry


FORGERIES: dict[str, tuple[Callable[[Monitored], bytes], str]] = {
    "by-a-key-that-was-never-authorised": (lambda _: later(500, STRANGER), "never authorised"),
    "with-a-signature-over-something-else": (wrongly_signed, "signature"),
    "unsigned-though-a-decision": (lambda _: unsigned(decision(500)), "cannot stand unsigned"),
    "a-part-of-a-submission": (lambda it: it.entries(REGISTER)[5], "does not go on"),
    "judged-against-an-older-view": (lambda _: later(500, view=2), "never authorised"),
    "not-an-entry": (lambda _: b"{}\n{}", "damaged"),
    "of-another-register": (lambda _: later(500, register=SECOND), "signature"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_an_entry_that_registration_cannot_have_made_is_proved_to_be_signed(
    it: Monitored, tmp_path: Path, forgery: str
) -> None:
    """False if whoever holds the log key could write what no department has signed."""
    assert (await it.round()).findings == []
    make, why = FORGERIES[forgery]
    entry = make(it)
    serve(it, REGISTER, [*it.entries(REGISTER), entry])
    finding = await one_finding(it, Kind.FORGED)
    assert "entry 300 " in finding.what
    assert why in finding.what
    assert isinstance(finding.proof, EntryProof)
    assert finding.proof.entry == entry
    assert "with this entry at 300" in proved(finding, tmp_path)
    with it.opened() as state:
        assert state.size(REGISTER) == 300


async def test_a_submission_that_is_appended_twice_is_a_forgery(it: Monitored) -> None:
    """False if what was sent once could stand in the register twice."""
    it.held.add([300])
    it.publish()
    assert (await it.round()).findings == []
    serve(it, REGISTER, [*it.entries(REGISTER), it.entries(REGISTER)[300]])
    finding = await one_finding(it, Kind.FORGED)
    assert "appended already, at index 300" in finding.what


async def test_a_record_that_is_registered_twice_is_a_forgery(it: Monitored) -> None:
    """False if two entries could both be the one version of a record."""
    assert (await it.round()).findings == []
    serve(it, REGISTER, [*it.entries(REGISTER), later(7)])
    finding = await one_finding(it, Kind.FORGED)
    assert "RECORD_ALREADY_REGISTERED" in finding.what


async def test_a_checkpoint_that_divides_a_submission_is_a_forgery(it: Monitored) -> None:
    """False if a ledger could sign half of what a department has sent."""
    assert (await it.round()).findings == []
    it.held.add(range(300, 310))
    serve(it, REGISTER, it.entries(REGISTER)[:305])
    finding = await one_finding(it, Kind.FORGED)
    assert "divides" in finding.what


async def test_a_governing_decision_that_nobody_signed_is_a_forgery(it: Monitored) -> None:
    """False if an operator could open registers and authorise keys alone."""
    assert (await it.round()).findings == []
    key = base64.encode(STRANGER.public)
    record = governing_record(9, "key.authorised/1", department=DEPARTMENT, key=key, label="Mine")
    signed = submission(GOVERNING, [record], [STRANGER])
    (entry,) = accept(signed, Acceptance(instant(EPOCH + 9), "anonymous", 3)).entries
    serve(it, GOVERNING, [*it.entries(GOVERNING), entry])
    finding = await one_finding(it, Kind.FORGED, GOVERNING)
    assert "GOVERNANCE_REFUSED" in finding.what


async def test_an_entry_judged_against_what_is_not_served_is_found(it: Monitored) -> None:
    """False if authorisations could be kept to oneself."""
    assert (await it.round()).findings == []
    serve(it, REGISTER, [*it.entries(REGISTER), later(500, view=9)])
    finding = await one_finding(it, Kind.AHEAD)
    assert "9 governing entries" in finding.what


async def test_entries_ahead_of_the_governing_register_are_waited_for(it: Monitored) -> None:
    """False if a register that is read a moment too early were accused."""
    old = it.site.files["/logs/governing/checkpoint"]
    it.held.open_register(SECOND)
    it.held.fill(301)
    it.publish()
    new = it.site.files["/logs/governing/checkpoint"]
    answered = iter([old])

    def late(handler: object) -> None:
        handler.reply(200, next(answered, new))  # type: ignore[attr-defined]

    it.site.answers["/logs/governing/checkpoint"] = late
    it.limits = Limits(patience=60)
    made = await it.round()
    assert made.findings == []
    assert {each.register: each.size for each in made.followed}[REGISTER] == 301


# Checkpoints


@pytest.mark.parametrize(
    "change",
    [
        lambda note: note.replace(b"\n300\n", b"\n301\n"),
        lambda note: note[:-10] + b"A" + note[-9:],
        lambda note: note.rpartition(b"\n\n")[0] + b"\n",
        lambda _: b"<html>Welcome</html>",
        lambda _: b"",
    ],
    ids=["size", "signature", "no-signature", "page", "empty"],
)
async def test_a_checkpoint_that_is_not_the_ledgers_is_found(
    it: Monitored, change: Callable[[bytes], bytes]
) -> None:
    """False if anybody between the ledger and the monitor could speak for it."""
    it.site.files[CHECKPOINT] = change(it.site.files[CHECKPOINT])
    finding = await one_finding(it, Kind.SIGNATURE)
    assert "checkpoint as served" in finding.material


async def test_a_checkpoint_of_another_register_is_not_this_ones(it: Monitored) -> None:
    """False if one register could be shown in place of another."""
    it.site.files[CHECKPOINT] = it.site.files["/logs/governing/checkpoint"]
    await one_finding(it, Kind.SIGNATURE)


async def test_a_ledger_that_opens_under_another_key_is_found(tmp_path: Path) -> None:
    """False if the governing register could name another key than the one that is trusted."""
    with monitored(tmp_path) as it:
        it.publish()
        entries = it.entries(GOVERNING)
        stated = json.loads(entries[0].partition(b"\n")[2])
        name, _, _ = stated["ledger_key"].partition("+")
        key = str(VerifierKey(name, ED25519, STRANGER.public))
        record = governing_record(
            0,
            "ledger.opened/1",
            **{k: v for k, v in stated.items() if k not in ("record_id", "register", "type", "version")}
            | {"ledger_key": key},
        )
        signed = submission(GOVERNING, [record], [GOVERNANCE_KEY])
        (entry,) = accept(signed, Acceptance(instant(EPOCH), "anonymous", 0)).entries
        it.site.put(GOVERNING, [entry], sign(GOVERNING, [entry]))
        it.site.list([GOVERNING])
        made = await it.round()
    assert [each.kind for each in made.findings] == [Kind.FORGED]
    assert key in made.findings[0].what


async def test_the_evidence_names_what_was_seen_and_how_to_check_it(it: Monitored, tmp_path: Path) -> None:
    """False if a file of evidence were of no use to whoever opens it in ten years."""
    assert (await it.round()).findings == []
    serve(it, REGISTER, [*it.entries(REGISTER)[:-1], later(999)])
    finding = await one_finding(it, Kind.FORK)
    path = keep(tmp_path / "evidence", "ledger.test", finding, BEGAN)
    members = json.loads(path.read_bytes())
    assert members["found_at"] == "2023-11-14T22:13:20Z"
    assert members["notes"] == [note.decode() for note in finding.notes]
    assert "--check" in members["how_to_check"]
    assert (members["ledger"], members["register"]) == ("ledger.test", REGISTER)
    before = path.read_bytes()
    assert keep(tmp_path / "evidence", "ledger.test", finding, BEGAN + 60) == path
    assert path.read_bytes() == before
    view = finding.proof
    assert isinstance(view, SplitView)
    assert verify_split_view(view, POLICY).size == 300


async def test_a_ledger_of_wrong_registers_only_costs_no_more_than_so_many(empty: Monitored) -> None:
    """False if whoever opens registers could fill a monitor's memory; or if the rest were taken for read."""
    names = [f"department/office-{number:03}" for number in range(230)]
    empty.held.turn([empty.held.govern_submission("register.opened/1", name=name, title="t") for name in names])
    empty.publish()
    for name in names:
        empty.site.files[f"/logs/{name}/checkpoint"] = b"x" * 1_000
    made = await empty.round()
    wrong = {each.register for each in made.findings}
    assert 200 <= len(wrong) < 210
    assert {each.register for each in made.troubles} == set(names) - wrong
    assert made.broken() == set(names)
