"""Checkpoints: text, signing, opening (C2SP tlog-checkpoint)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.checkpoints import (
    Checkpoint,
    open_checkpoint,
    parse_decimal,
    peek_origin,
    sign_checkpoint,
)
from ledger.errors import LedgerError, MalformedError, SignatureError
from ledger.hashing import EMPTY_ROOT, Hash
from ledger.notes import SignerKey, VerifierKey, cosignature_line, sign_note
from tests.support.story import LEDGER_ORIGIN, policy, secret, signer
from tests.support.vectors import VECTORS, load

ORIGIN = "daybook.example/register/dept-a"
LOG = SignerKey.parse(
    "PRIVATE+KEY+daybook.example/register/dept-a+374327f9+AcQQufOipZxrrZAEgfWpW6m6Qtm1wbEZ2vs2YtACRmuU"
)
SIZE_0 = (VECTORS / "c2sp" / "size-0.note").read_bytes()
SIZE_7 = (VECTORS / "c2sp" / "size-7.note").read_bytes()
ROOT_7 = "OM7OnG9RF29YgDR51xXIae7LpMW6bR3/crvsiE6kOIQ="

lines = st.text(st.characters(codec="utf-8", exclude_characters="\n"), min_size=1, max_size=30)
checkpoints = st.builds(
    Checkpoint,
    lines,
    st.integers(1, 2**63 - 1),
    st.binary(min_size=32, max_size=32).map(Hash),
    st.lists(lines, max_size=3).map(tuple),
)


@pytest.mark.parametrize(("note", "size"), [(SIZE_0, 0), (SIZE_7, 7)])
def test_the_checkpoints_of_the_specification_open_and_are_made_again(note: bytes, size: int) -> None:
    """Were this false, our checkpoints would not be those of C2SP."""
    opened = open_checkpoint(note, ORIGIN, [LOG.verifier])
    assert (opened.checkpoint.origin, opened.checkpoint.size) == (ORIGIN, size)
    assert sign_checkpoint(opened.checkpoint, LOG) == note


@pytest.mark.parametrize(
    "case", load("checkpoints.json"), ids=lambda case: f"{case['register']} {case['size']}"
)
def test_every_checkpoint_of_the_story_opens_and_is_made_again(case: dict[str, Any]) -> None:
    """Were this false, the ledger's own checkpoints would have other bytes than formats.md fixes."""
    origin = f"{LEDGER_ORIGIN}/{case['register']}"
    log = signer("ledger", origin)
    note = case["note"].encode()
    opened = open_checkpoint(note, origin, [log.verifier], [each.key for each in policy().witnesses])
    assert opened.checkpoint.size == case["size"]
    assert len(opened.note.verified) >= 3
    assert opened.note.unverified == ()
    assert note.startswith(sign_checkpoint(opened.checkpoint, log))


def text(*changed: tuple[str, str]) -> bytes:
    """Return the text of the checkpoint of size 7 with strings replaced."""
    plain = f"{ORIGIN}\n7\n{ROOT_7}\n"
    for old, new in changed:
        assert old in plain
        plain = plain.replace(old, new)
    return plain.encode()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(text(("\n7\n", f"\n{size}\n")), id=f"size {size!r}")
        for size in (
            "07",
            "+7",
            " 7",
            "7 ",
            "-7",
            "7_000",
            "",
            "0x7",
            "\u0667",
            "7.0",
            str(2**63),
            "9" * 5000,
        )
    ]
    + [
        pytest.param(text((ROOT_7, root)), id=f"root {root!r}")
        for root in ("", ROOT_7[:-1], ROOT_7[:-2] + "R=", ROOT_7 + " ", "AAAA", ROOT_7.replace("/", "_"))
    ]
    + [
        pytest.param(text((ORIGIN, "")), id="no origin"),
        pytest.param(text(("\n7\n", "\n0\n")), id="size 0 with another root"),
        pytest.param(text()[:-1], id="no last LF"),
        pytest.param(text() + b"\n", id="an empty extension line"),
        pytest.param(text() + b"extension\n\nextension\n", id="an empty line between extension lines"),
        pytest.param(text() + b"extension", id="an extension line without LF"),
        pytest.param(b"origin\n7\n", id="two lines"),
        pytest.param(b"\xff\n7\n" + ROOT_7.encode() + b"\n", id="not UTF-8"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_other_spellings_of_a_checkpoint_are_refused(data: bytes) -> None:
    """Were this false, one checkpoint would have two texts that could be signed."""
    with pytest.raises(MalformedError):
        Checkpoint.parse(data)
    if data.endswith(b"\n"):
        with pytest.raises(LedgerError):
            open_checkpoint(sign_note(data, [LOG]), ORIGIN, [LOG.verifier])


def test_extension_lines_are_kept_and_signed() -> None:
    """Were this false, we could not verify a log that writes extension lines."""
    data = text() + b"extension one\n\xe2\x80\x94 two\n"
    opened = open_checkpoint(sign_note(data, [LOG]), ORIGIN, [LOG.verifier])
    assert opened.checkpoint.extensions == ("extension one", "\N{EM DASH} two")
    assert opened.checkpoint.text() == data


@pytest.mark.parametrize(
    ("origin", "size", "root"),
    [
        ("", 1, bytes(32)),
        ("a\nb", 1, bytes(32)),
        ("a", -1, bytes(32)),
        ("a", 2**63, bytes(32)),
        ("a", 1, b""),
    ],
)
def test_a_checkpoint_that_cannot_be_written_cannot_be_made(origin: str, size: int, root: bytes) -> None:
    """Were this false, a wrong value would be found only once it is signed."""
    with pytest.raises(MalformedError):
        Checkpoint(origin, size, Hash(root))


def test_a_checkpoint_of_another_origin_is_refused() -> None:
    """Were this false, a log could pass one register's checkpoint off as another's."""
    # The very key signs another origin under the expected name: only the text tells.
    other = sign_note(text((ORIGIN, "daybook.example/register/dept-b")), [LOG])
    with pytest.raises(SignatureError, match="dept-b"):
        open_checkpoint(other, ORIGIN, [LOG.verifier])


def test_witnesses_alone_do_not_make_a_checkpoint() -> None:
    """Were this false, witnesses could speak for a log that never signed."""
    checkpoint = Checkpoint.parse(text())
    witness = SignerKey("w", secret("witness one"))
    line = cosignature_line(checkpoint.text(), witness, 5)
    note = checkpoint.text() + b"\n" + line.line
    with pytest.raises(SignatureError, match="no signature of the log"):
        open_checkpoint(note, ORIGIN, [LOG.verifier], [witness.cosigner])


def test_any_key_of_a_log_that_rotates_may_sign() -> None:
    """Were this false, a key rotation would make a ledger unreadable."""
    successor = SignerKey(ORIGIN, secret("stranger"))
    both = sign_note(text(), [LOG, successor])
    keys: list[VerifierKey] = [LOG.verifier, successor.verifier]
    for note in (both, SIZE_7, sign_note(text(), [successor])):
        assert open_checkpoint(note, ORIGIN, keys).checkpoint.size == 7


def test_only_the_log_itself_signs_its_checkpoint() -> None:
    """Were this false, a mixed-up key would publish a checkpoint that nobody can open."""
    with pytest.raises(ValueError, match="is not the log"):
        sign_checkpoint(Checkpoint("another", 0, EMPTY_ROOT), LOG)


def test_the_origin_can_be_read_before_anything_is_verified() -> None:
    """Were this false, a verifier could not find the keys to try."""
    assert peek_origin(SIZE_7) == ORIGIN
    for data in (b"", b"\n", b"origin", b"\xff\n"):
        with pytest.raises(MalformedError):
            peek_origin(data)


def test_numbers_have_one_spelling() -> None:
    """Were this false, int() would take spellings that other programs refuse."""
    assert [parse_decimal(number) for number in ("0", "10", str(2**63 - 1))] == [0, 10, 2**63 - 1]


@given(checkpoints)
def test_every_checkpoint_prints_and_parses(checkpoint: Checkpoint) -> None:
    """Were this false, some checkpoint could be signed and not be read again."""
    assert Checkpoint.parse(checkpoint.text()) == checkpoint


@given(st.binary(max_size=120))
def test_bytes_either_are_a_checkpoint_or_are_refused(data: bytes) -> None:
    """Were this false, some bytes would make the parser fail in a way that nobody catches."""
    for candidate in (data, text() + data, text()[:-5] + data, ORIGIN.encode() + b"\n" + data):
        try:
            checkpoint = Checkpoint.parse(candidate)
        except MalformedError:
            continue
        assert checkpoint.text() == candidate
