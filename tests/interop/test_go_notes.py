"""Go's own sumdb/note opens every checkpoint that we publish, and no changed one."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from ledger.errors import LedgerError
from ledger.governing import GOVERNING
from ledger.notes import VerifierKey, open_note, split_note
from tests.interop.programs import fetch
from tests.support.offices import SIZES, Served, office

pytestmark = [pytest.mark.journey, pytest.mark.timeout(1_200)]

BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
REGISTERS = (GOVERNING, *map(office, SIZES))


@dataclass(frozen=True, slots=True)
class Opener:
    """Go's sumdb/note, as a program."""

    program: Path

    def open(self, note: bytes, vkey: str) -> bytes | None:
        """Return the text that was signed, None where the note does not open."""
        done = subprocess.run([self.program, vkey], input=note, capture_output=True, timeout=60, check=False)
        assert done.returncode in (0, 1), done.stderr
        return done.stdout if done.returncode == 0 else None


@pytest.fixture
def opener(foreign: Path) -> Opener:
    return Opener(foreign / "opennote")


@pytest.mark.parametrize("register", REGISTERS)
def test_go_opens_the_checkpoint_of_every_register(opener: Opener, served: Served, register: str) -> None:
    """If false, a vkey that `daybook policy --register` prints, or a note we sign, is not what Go expects."""
    note = fetch(f"{served.url(register)}checkpoint")
    text, _ = split_note(note)
    assert opener.open(note, served.vkey(register)) == text


def test_go_opens_no_checkpoint_with_another_registers_key(opener: Opener, served: Served) -> None:
    """If false, one log key under every name would let one register's checkpoint pass for another's."""
    note = fetch(f"{served.url(office(1))}checkpoint")
    assert opener.open(note, served.vkey(office(257))) is None


def test_go_opens_no_checkpoint_with_a_changed_byte(opener: Opener, served: Served) -> None:
    """If false, Go or we take one of these bytes for a thing that it is not."""
    vkey = served.vkey(office(257))
    note = fetch(f"{served.url(office(257))}checkpoint")
    changed = {at: note[:at] + bytes([byte ^ 1]) + note[at + 1 :] for at, byte in enumerate(note)}
    del changed[spare(note)]
    assert [at for at, each in changed.items() if opener.open(each, vkey) is not None] == []
    assert [at for at, each in changed.items() if opens_here(each, vkey)] == []


def test_go_takes_a_second_spelling_of_a_signature_and_we_do_not(opener: Opener, served: Served) -> None:
    """If false, the one byte on which Go and we are known to differ is not where we think.

    The last character of a signature carries two bits that mean nothing, and Go does not look at them.
    """
    vkey = served.vkey(office(257))
    note = fetch(f"{served.url(office(257))}checkpoint")
    at = spare(note)
    other = BASE64[BASE64.index(note[at]) + 1]
    respelled = note[:at] + bytes([other]) + note[at + 1 :]
    assert opener.open(respelled, vkey) == split_note(note)[0]
    assert not opens_here(respelled, vkey)


def spare(note: bytes) -> int:
    """Return where the character stands of which only four bits count."""
    assert note.endswith(b"=\n")
    return len(note) - len(b"x=\n")


def opens_here(note: bytes, vkey: str) -> bool:
    """Tell whether our own code opens a note."""
    try:
        open_note(note, [VerifierKey.parse(vkey)])
    except LedgerError:
        return False
    return True
