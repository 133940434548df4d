"""The signer's high-water marks: it never goes back, whatever the store, a power cut or a full disk say."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.checkpoints import Checkpoint, open_checkpoint
from ledger.errors import SplitViewError, StorageFullError, StoreError
from ledger.hashing import EMPTY_ROOT, Hash, leaf_hash
from ledger.notes import ED25519, VerifierKey
from services.signing import CheckpointSigner, HighWaterMarks
from tests.support.ledgers import LOG_KEY
from tests.support.small_disk import SmallDisk, small_disk

SLOT = 512


def root(number: int) -> Hash:
    return leaf_hash(b"%d" % number)


def at(size: int, origin: str = "ledger.test/a", other: int = 0) -> Checkpoint:
    """Return a checkpoint; one with another `other` has another root."""
    return Checkpoint(origin, size, root(size + 1_000 * other) if size else EMPTY_ROOT)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "marks"


@pytest.fixture
def marks(path: Path) -> Iterator[HighWaterMarks]:
    """Marks that have seen sizes 1, 2 and 3 of one origin, and 7 of another."""
    made = HighWaterMarks(path)
    for size in (1, 2, 3):
        made.raise_to([at(size)])
    made.raise_to([at(7, "ledger.test/b")])
    yield made
    made.close()


def reopened(path: Path) -> HighWaterMarks:
    made = HighWaterMarks(path)
    made.close()
    return made


def test_marks_survive_reopening(marks: HighWaterMarks, path: Path) -> None:
    """False if a restart forgot what was signed. Nothing was closed: a killed process closes nothing."""
    again = reopened(path)
    assert again.latest("ledger.test/a") == at(3)
    assert again.latest("ledger.test/b") == at(7, "ledger.test/b")
    assert again.latest("ledger.test/c") is None


BACK = {
    "a smaller size": at(2),
    "size 0": at(0),
    "another root": at(3, other=1),
    "a smaller size with another root": at(2, other=1),
}


@pytest.mark.parametrize("back", BACK.values(), ids=BACK.keys())
@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
def test_a_store_that_went_back_is_not_signed(
    restarted: bool, back: Checkpoint, marks: HighWaterMarks, path: Path
) -> None:
    """False if a restored copy, or an altered store, made the operator sign a second history (P3)."""
    asked = HighWaterMarks(path) if restarted else marks
    signer = CheckpointSigner(LOG_KEY, asked)
    with pytest.raises(SplitViewError) as caught:
        signer.sign([at(8, "ledger.test/b"), back])
    assert (caught.value.first, caught.value.second) == (at(3).text(), back.text())
    # Of what was to be signed together nothing was.
    assert asked.latest("ledger.test/b") == at(7, "ledger.test/b")
    assert reopened(path).latest("ledger.test/b") == at(7, "ledger.test/b")
    assert signer.sign([at(4)])
    if restarted:
        asked.close()


def test_the_same_head_is_signed_again_with_the_same_bytes(marks: HighWaterMarks, path: Path) -> None:
    """False if a crash between commit and signature could not be repaired, or made a second note."""
    signer = CheckpointSigner(LOG_KEY, marks)
    (first,) = signer.sign([at(4)])
    before = path.read_bytes()
    (second,) = signer.sign([at(4)])
    assert first == second
    assert path.read_bytes() == before
    key = VerifierKey("ledger.test/a", ED25519, LOG_KEY.public)
    assert open_checkpoint(first, "ledger.test/a", [key]).checkpoint == at(4)


def test_every_origin_is_signed_under_its_own_name(marks: HighWaterMarks) -> None:
    """False if a note of one register verified as one of another (formats.md, section 11)."""
    signer = CheckpointSigner(LOG_KEY, marks)
    asked = [at(4), at(8, "ledger.test/b"), at(0, "ledger.test/c")]
    for checkpoint, note in zip(asked, signer.sign(asked), strict=True):
        key = VerifierKey(checkpoint.origin, ED25519, LOG_KEY.public)
        assert open_checkpoint(note, checkpoint.origin, [key]).checkpoint == checkpoint


@pytest.mark.parametrize("kept", [0, 1, 17, 60, 70])
def test_a_torn_write_leaves_the_mark_before(kept: int, marks: HighWaterMarks, path: Path) -> None:
    """False if a power cut in the middle of a write lost what had been signed before it."""
    before = path.read_bytes()
    marks.raise_to([at(4)])
    after = path.read_bytes()
    assert len(before) == len(after)
    (slot,) = (
        start
        for start in range(0, len(after), SLOT)
        if after[start : start + SLOT] != before[start : start + SLOT]
    )
    path.write_bytes(after[:slot] + after[slot : slot + kept] + before[slot + kept :])
    assert reopened(path).latest("ledger.test/a") == at(3)
    assert reopened(path).latest("ledger.test/b") == at(7, "ledger.test/b")


def test_any_flipped_bit_loses_at_most_the_last_mark(marks: HighWaterMarks, path: Path) -> None:
    """False if a damaged slot were read as a mark that was never made."""
    sound = path.read_bytes()
    for bit in range(0, len(sound) * 8, 41):
        damaged = bytearray(sound)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        again = reopened(path)
        assert again.latest("ledger.test/a") in {at(2), at(3)}
        assert again.latest("ledger.test/b") in {None, at(7, "ledger.test/b")}
    path.write_bytes(sound)


def test_origins_do_not_share_slots(path: Path) -> None:
    """False if one origin's mark were written over another's, before or after a restart."""
    names = [f"ledger.test/department-{number}/office" for number in range(40)]
    for size in range(1, 4):
        marks = HighWaterMarks(path)
        marks.raise_to([at(size, name) for name in names[: 20 * min(size, 2)]])
        marks.close()
    again = reopened(path)
    assert all(again.latest(name) == at(3, name) for name in names)
    assert path.stat().st_size == len(names) * 2 * SLOT


def test_the_longest_checkpoint_fits_its_slot(path: Path) -> None:
    """False if the longest origin and size that formats.md allows ran over into the next slot."""
    long = "x" * 80 + "/" + "y" * 100 + "/" + "z" * 100
    marks = HighWaterMarks(path)
    for size in (2**63 - 2, 2**63 - 1):
        marks.raise_to([Checkpoint(long, size, root(1)), at(size, "ledger.test/next")])
    marks.close()
    again = reopened(path)
    assert again.latest(long) == Checkpoint(long, 2**63 - 1, root(1))
    assert again.latest("ledger.test/next") == at(2**63 - 1, "ledger.test/next")


# Failures.


def test_a_mark_that_cannot_be_written_is_not_signed_and_not_remembered(marks: HighWaterMarks) -> None:
    """False if a checkpoint were signed although its mark may be lost."""
    signer = CheckpointSigner(LOG_KEY, marks)
    writable = marks._file
    reading = os.open(f"/proc/self/fd/{writable}", os.O_RDONLY)
    marks._file = reading
    with pytest.raises(StoreError):
        signer.sign([at(4)])
    assert marks.latest("ledger.test/a") == at(3)
    marks._file = writable
    os.close(reading)
    assert signer.sign([at(4)])
    assert marks.latest("ledger.test/a") == at(4)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A file system that can be filled."""
    with small_disk(tmp_path / "disk", 1) as small:
        yield small


def test_a_full_disk_never_stands_between_commit_and_signature(disk: SmallDisk) -> None:
    """False if an origin that was reserved for could not be marked, or one that was not were committed."""
    marks = HighWaterMarks(disk.seen / "marks")
    marks.raise_to([at(1)])
    marks.reserve([f"ledger.test/{number}" for number in range(3)])
    disk.fill()
    for size in (2, 3, 4):
        marks.raise_to([at(size), *(at(size, f"ledger.test/{number}") for number in range(3))])
    with pytest.raises(StorageFullError):
        marks.reserve(f"ledger.test/{number}" for number in range(200))
    with pytest.raises(StorageFullError):
        marks.raise_to([at(5), *(at(1, f"ledger.test/more-{number}") for number in range(200))])
    assert marks.latest("ledger.test/a") == at(4)
    disk.free()
    marks.raise_to([at(5), *(at(1, f"ledger.test/more-{number}") for number in range(200))])
    marks.close()
    again = reopened(disk.seen / "marks")
    assert again.latest("ledger.test/a") == at(5)
    assert again.latest("ledger.test/more-199") == at(1, "ledger.test/more-199")


def test_the_file_is_for_its_owner_alone(path: Path) -> None:
    """False if others could read or write what holds the signer back."""
    reopened(path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_marks_of_which_neither_can_be_read_stop_the_signer(marks: HighWaterMarks, path: Path) -> None:
    """False if a signer whose memory was damaged took itself for one that has signed nothing."""
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    assert reopened(path).latest("ledger.test/a") is not None
    data[SLOT + 100] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match="damaged"):
        HighWaterMarks(path)
