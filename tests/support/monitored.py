"""A ledger that grows by the real turn, served as files to a monitor; its witnesses sign what a test says.

with monitored(tmp_path) as it:
    it.held.fill(300)
    it.publish(at=60)               # sealed 60 seconds after `BEGAN`
    made = await it.round(at=61)    # a round of the monitor whose clock says so
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ledger.admission import instant
from ledger.checkpoints import Checkpoint, sign_checkpoint
from ledger.ed25519 import SecretKey
from ledger.governing import GOVERNING
from ledger.hashing import leaf_hash
from ledger.ledger import Appended
from ledger.notes import SignerKey, format_note, split_note
from ledger.own_records import checkpoint_anchored
from ledger.stores.memory import MemoryStore
from ledger.tree import tree_root
from ledger.witnessing import Policy, cosign
from services.monitoring.fetching import Site
from services.monitoring.rounds import Limits, Monitor, Round
from services.monitoring.state import State, StateDirectory, open_mirror, open_seen
from tests.support.ledger_story import commit
from tests.support.ledgers import LOG_KEY, ORIGIN, POLICY, REGISTER, LedgerUnderTest, open_ledger
from tests.support.tiled_site import TiledSite

BEGAN: Final = 1_700_000_000
"""POSIX second from which tests count: before any that a real clock shows."""

WITNESSES: Final = {
    name: SignerKey(f"{name}.example/w", SecretKey(bytes([number]) * 32))
    for number, name in enumerate(("one", "two", "three"), 20)
}
"""The witnesses, by their names in the policy."""

WITNESSED: Final = Policy.parse(
    POLICY.text().removesuffix(b"quorum none\n")
    + b"".join(
        b"witness %b %b\n" % (name.encode(), str(key.cosigner).encode()) for name, key in WITNESSES.items()
    )
    + b"group two-of-three 2 one two three\nquorum two-of-three\n"
)
"""A policy that asks for two of them."""


def sign(register: str, entries: Sequence[bytes]) -> bytes:
    """Sign a register of these entries with the log key, whatever they are."""
    origin = f"{ORIGIN}/{register}"
    root = tree_root([leaf_hash(entry) for entry in entries])
    return sign_checkpoint(Checkpoint(origin, len(entries), root), SignerKey(origin, LOG_KEY))


def seal(note: bytes, at: int, witnesses: Iterable[str] = ("one", "two")) -> bytes:
    """Have a note cosigned, `at` seconds after `BEGAN`."""
    text, lines = split_note(note)
    checkpoint = Checkpoint.parse(text)
    return format_note(text, [*lines, *(cosign(checkpoint, WITNESSES[each], BEGAN + at) for each in witnesses)])


@dataclass(slots=True)
class Monitored:
    """A ledger, its site, and a monitor of it with the policy and the state in `folder`."""

    folder: Path
    held: LedgerUnderTest
    site: TiledSite
    policy: Policy = POLICY
    limits: Limits = field(default_factory=lambda: Limits(patience=0.0))
    notes: dict[str, bytes] = field(default_factory=dict[str, bytes])

    @property
    def state(self) -> Path:
        """The monitor's state directory."""
        return self.folder / "state"

    @property
    def policy_file(self) -> Path:
        """The policy, in a file."""
        path = self.folder / "policy"
        path.write_bytes(self.policy.text())
        return path

    def entries(self, register: str) -> list[bytes]:
        """Return what the ledger holds."""
        store = self.held.ledger.store
        return store.entries(register, 0, store.heads()[register].size)

    def publish(self, at: int = 0) -> None:
        """Serve everything as the ledger holds it; what has changed is sealed `at` seconds after `BEGAN`."""
        heads = self.held.ledger.heads()
        for register in heads:
            signed = self.held.published.latest(register).note
            if not self.notes.get(register, b"").startswith(signed.rpartition(b"\n\n")[0]):
                self.notes[register] = signed if self.policy is POLICY else seal(signed, at)
                self.site.put(register, self.entries(register), self.notes[register])
        self.site.list(heads)

    def refresh(self, register: str, at: int) -> None:
        """Serve a register's checkpoint cosigned anew."""
        self.notes[register] = seal(self.held.published.latest(register).note, at)
        self.site.files[f"/logs/{register}/checkpoint"] = self.notes[register]

    def anchor(self, register: str = REGISTER, note: bytes | None = None) -> int:
        """Anchor what is served of a register, or another note; return the index of the governing entry."""
        turn = self.held.ledger.turn()
        record = checkpoint_anchored(self.notes[register] if note is None else note)
        outcome = turn.append_ledger_written(GOVERNING, record, instant(BEGAN + self.held.turns))
        assert isinstance(outcome, Appended)
        commit(self.held, turn)
        return outcome.run.first

    async def round(self, at: int = 0, url: str | None = None) -> Round:
        """Make one round, with the clock `at` seconds after `BEGAN`."""
        async with Site(url or self.site.url, timeout=10) as site:
            with self.opened() as state:
                monitor = Monitor(
                    site,
                    state,
                    self.policy,
                    self.limits,
                    lambda *_: nullcontext(lambda _: None),
                    lambda: BEGAN + at,
                )
                return await monitor.round()

    @contextmanager
    def opened(self) -> Iterator[State]:
        """Open the monitor's state."""
        with open_seen(self.state) as seen:
            if seen.origin() is None:
                seen.begin(ORIGIN, BEGAN)
            with open_mirror(self.state, ORIGIN) as mirror:
                yield State(StateDirectory(self.state), mirror, seen)

    def mirrored(self) -> Mapping[str, list[bytes]]:
        """Return every entry of the mirror, by register."""
        with self.opened() as state:
            store = state.mirror.store
            return {name: store.entries(name, 0, head.size) for name, head in store.heads().items()}


@contextmanager
def monitored(folder: Path, policy: Policy = POLICY) -> Iterator[Monitored]:
    """Make a ledger with one open register, served from a free port."""
    with TiledSite() as site:
        yield Monitored(folder, open_ledger(MemoryStore(), folder / "marks"), site, policy)
