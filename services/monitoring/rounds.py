"""One round of a monitor: every register of a ledger, brought up to what is served, or found wrong.

First the governing register, since entries of the others name governing entries; then the others; then what
binds them together: the list, the anchors, and how long a checkpoint has been without one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from ledger import base64
from ledger.admission import moment
from ledger.entries import parse_entry
from ledger.errors import MalformedError, SignatureError
from ledger.governing import GOVERNING
from ledger.notes import VerifierKey
from ledger.tiles import TILE_WIDTH, Bundle, Tile, implied_width
from ledger.values import is_register
from ledger.witnessing import Policy
from services.monitoring.anchoring import AnchorCheck
from services.monitoring.fetching import (
    AbsentError,
    FetchError,
    Site,
    UnavailableError,
    UnfitError,
    together,
)
from services.monitoring.findings import Finding, FoundError, Kind, shown
from services.monitoring.following import Bar, Follower
from services.monitoring.judging import Judge, OtherLedgerError
from services.monitoring.state import Seen, State

ANCHOR_WITHIN: Final = 900
"""Seconds for which a sealed checkpoint may be without an anchor, unless said otherwise."""

PATIENCE: Final = 10.0
"""Seconds for which what may pass by itself is asked for again, unless said otherwise."""

REREAD: Final = 4
"""Old entry bundles that a round reads again, unless said otherwise."""

_REREAD_FROM: Final = "reread"

_PAUSE: Final = 0.5
_NAMES_SHOWN: Final = 100
_LOOKED_UP: Final = 8
_AT_ONCE: Final = 8
_MOST_WRONG: Final = 200
_LEFT: Final = f"it was left unread, since {_MOST_WRONG} findings or more were made before it"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a monitor allows. `anchor_within` and `patience` are in seconds.

    `anchor_within`: how long a sealed checkpoint may be without an anchor. `patience`: for how long what may
    pass by itself is asked for again. `reread`: how many old entry bundles are read again in a round.
    """

    anchor_within: int = ANCHOR_WITHIN
    patience: float = PATIENCE
    reread: int = REREAD


@dataclass(frozen=True, slots=True)
class Followed:
    """One register after a round: its size before it and now, and the root that was derived."""

    register: str
    before: int
    size: int
    root: str


@dataclass(frozen=True, slots=True)
class Trouble:
    """What could not be read, and so was not judged. `register` is empty for the ledger."""

    register: str
    why: str


@dataclass(slots=True)
class Round:
    """What one round came to. `is_first` where nothing had been seen before; `remarks` are sentences.

    `anchors` is how many anchors were compared, `reread` how many old entry bundles.
    """

    is_first: bool
    followed: list[Followed] = field(default_factory=list[Followed])
    findings: list[Finding] = field(default_factory=list[Finding])
    troubles: list[Trouble] = field(default_factory=list[Trouble])
    remarks: list[str] = field(default_factory=list[str])
    anchors: int = 0
    reread: int = 0

    def broken(self) -> set[str]:
        """Return the registers that could not be read, or were found wrong."""
        return {each.register for each in self.findings} | {each.register for each in self.troubles}


class Monitor:
    """Follows one ledger. `clock` gives POSIX seconds.

    Where `only` names registers, the entries of others are left unread, but for the governing register; their
    checkpoints are judged and kept all the same.
    """

    def __init__(
        self,
        site: Site,
        state: State,
        policy: Policy,
        limits: Limits,
        bar: Bar,
        clock: Callable[[], float] = time.time,
        only: Collection[str] | None = None,
    ) -> None:
        self._only = only
        self._site = site
        self._state = state
        self._policy = policy
        self._limits = limits
        self._clock = clock
        self._judge = Judge(state, policy, clock)
        self._follower = Follower(site, state, policy, bar)
        self._anchors = AnchorCheck(state, policy, self._judge, limits.anchor_within, clock)

    async def round(self) -> Round:
        """Make one round. Raises StoreError where the state fails, and nothing for what the ledger does.

        While all that is found may pass by itself, as when one register is sealed a moment before another,
        the ledger is asked again.
        """
        first = self._state.seen.latest(GOVERNING) is None
        before = {name: head.size for name, head in self._state.mirror.heads().items()}
        until = time.monotonic() + self._limits.patience
        while True:
            made = Round(first)
            await self._pass(made, before)
            may_pass = made.findings and all(each.kind.may_pass for each in made.findings)
            left = until - time.monotonic()
            if not may_pass or left <= 0:
                self._excuse_new(made)
                return made
            await asyncio.sleep(min(_PAUSE, left))

    async def _pass(self, made: Round, before: Mapping[str, int]) -> None:
        # The list before the governing register: whatever it names must be open in what is read later.
        listed = await self._listed(made)
        await self._advance(made, GOVERNING, before, await self._judged(made, [GOVERNING]))
        if GOVERNING in made.broken():
            return
        self._check_opening(made)
        registers = sorted(self._state.mirror.fold.registers)
        # All of them before any is read: entries that come meanwhile may name governing entries that do too.
        sound = await self._judged(made, registers)
        for register in registers:
            await self._advance(made, register, before, sound)
        if listed is not None:
            await self._check_list(made, listed)
        self._check_anchors(made, registers)
        await self._reread(made)

    def _excuse_new(self, made: Round) -> None:
        """Take a register that was opened a moment ago, and never served, for one that is still to come.

        Where witnesses are away its first checkpoint is not sealed yet, and so not shown.
        """
        for finding in made.findings[:]:
            if finding.kind is Kind.HIDDEN and self._is_new(finding.register):
                made.findings.remove(finding)
                made.troubles.append(Trouble(finding.register, f"{finding.what}; it was opened a moment ago"))

    def _is_new(self, register: str) -> bool:
        """Tell whether a register was never served, and opened no longer ago than an anchor may take."""
        state = self._state.mirror.fold.registers.get(register)
        if state is None or self._state.seen.latest(register) is not None:
            return False
        entry = parse_entry(self._state.mirror.reader(GOVERNING).entry(state.opened))
        first = self._state.seen.next_above(GOVERNING, state.opened)
        # The one is the ledger's claim; the other is not, but says nothing in a first round.
        opened = min(moment(entry.acceptance.accepted_at), first.at if first else 0)
        return self._clock() - opened <= self._limits.anchor_within

    async def _listed(self, made: Round) -> Mapping[str, int | None] | None:
        try:
            return await self._site.registers()
        except AbsentError:
            made.remarks.append("The ledger serves no list of registers, so none was compared.")
        except UnfitError as error:
            made.remarks.append(f"The list of registers cannot be read, and was not compared: {error}.")
        except UnavailableError as error:
            made.troubles.append(Trouble("", str(error)))
        return None

    async def _checkpoint(self, register: str) -> bytes | FetchError:
        try:
            return await self._site.checkpoint(register)
        except FetchError as error:
            return error

    async def _judged(self, made: Round, registers: Sequence[str]) -> set[str]:
        """Judge and keep what is served as the checkpoint of each register; return those of which it is sound.

        Few at a time, since each may be as large as a note can be. Where too much is wrong, the rest is left.
        """
        sound = set[str]()
        for begin in range(0, len(registers), _AT_ONCE):
            some = registers[begin : begin + _AT_ONCE]
            if len(made.findings) >= _MOST_WRONG:
                made.troubles += (Trouble(register, _LEFT) for register in registers[begin:])
                break
            served = await together(self._checkpoint(register) for register in some)
            for register, checkpoint in zip(some, served, strict=True):
                with _told(made, register):
                    self._judge_served(register, checkpoint)
                    sound.add(register)
        return sound

    async def _advance(
        self, made: Round, register: str, before: Mapping[str, int], sound: Collection[str]
    ) -> None:
        """Bring a register of a sound checkpoint up to it; add to the round what comes of that."""
        # So many more: those of unsound checkpoints keep no sound register from being read.
        if register in sound and len(made.findings) >= 2 * _MOST_WRONG:
            made.troubles.append(Trouble(register, _LEFT))
        elif register in sound:
            with _told(made, register):
                await self._follow(register)
        head = self._state.mirror.heads().get(register)
        if head is not None and self._reads(register):
            root = base64.encode(head.root)
            made.followed.append(Followed(register, before.get(register, 0), head.size, root))

    def _judge_served(self, register: str, served: bytes | FetchError) -> None:
        """Judge and keep what is served as a checkpoint. Raises FoundError, or FetchError where it is away."""
        if isinstance(served, AbsentError):
            if register == GOVERNING and self._state.seen.latest(GOVERNING) is None:
                raise UnavailableError(
                    served.url, f"{served.what}: no ledger is served here, or none that is sealed yet"
                )
            raise FoundError(_hidden(register, served, self._state.seen.latest(register)))
        if isinstance(served, FetchError):
            raise served
        self._judge.judge(register, served)

    async def _follow(self, register: str) -> None:
        if not self._reads(register):
            return
        kept = self._state.seen.latest(register)
        assert kept is not None  # noqa: S101 - it was judged, and is not smaller than any before it
        opened = self._judge.open(kept)
        governing_size = await self._follower.follow(register, opened)
        if governing_size is not None:
            index = self._state.size(register)
            raise FoundError(_ahead(register, index, governing_size, opened.note.trimmed()))

    def _reads(self, register: str) -> bool:
        return self._only is None or register in self._only or register == GOVERNING

    def _check_opening(self, made: Round) -> None:
        """Check that entry 0 opens this ledger under a key that the policy names."""
        opened, origin = self._state.mirror.fold.opened, self._state.mirror.origin
        if opened is None:
            return
        keys = self._policy.log_keys(f"{origin}/{GOVERNING}")
        if opened.origin == origin and VerifierKey.parse(opened.ledger_key) in keys:
            return
        made.findings.append(
            Finding(
                Kind.FORGED,
                GOVERNING,
                f"entry 0 opens the ledger {opened.origin} under the key {opened.ledger_key}",
                f"it opens {origin} under a key that the policy names",
                material={"entry": shown(self._state.mirror.reader(GOVERNING).entry(0))},
            )
        )

    async def _check_list(self, made: Round, listed: Mapping[str, int | None]) -> None:
        opened = self._state.mirror.fold.registers.keys()
        await self._check_unopened(made, listed, sorted(listed.keys() - opened - {GOVERNING}))
        if unlisted := sorted(opened - listed.keys()):
            made.findings.append(
                Finding(
                    Kind.HIDDEN,
                    unlisted[0] if len(unlisted) == 1 else "",
                    f"the list of registers leaves out {', '.join(unlisted[:_NAMES_SHOWN])}",
                    "every register that the governing register opens is listed",
                )
            )

    async def _check_unopened(
        self, made: Round, listed: Mapping[str, int | None], names: Sequence[str]
    ) -> None:
        """Judge registers that are listed and not opened.

        One that is said to be opened by governing entries that are still to come, and is not served, is to
        come as well: those entries are not sealed yet.
        """
        size = self._state.size(GOVERNING)
        some = names[:_LOOKED_UP]
        served = zip(some, await together(self._signed(name) for name in some), strict=True)
        notes = {name: note for name, note in served if note is not None}
        wrong = [name for name in names if name in notes or (listed[name] or 0) < size]
        if len(wrong) < len(names):
            made.remarks.append(f"{len(names) - len(wrong)} registers are listed that are still to be opened.")
        if not wrong:
            return
        signed = f"; checkpoints of {len(notes)} of them are signed by the ledger" if notes else ""
        made.findings.append(
            Finding(
                Kind.UNOPENED,
                wrong[0] if len(wrong) == 1 and is_register(wrong[0]) else "",
                f"the list of registers names {', '.join(map(ascii, wrong[:_NAMES_SHOWN]))}, which the first "
                f"{size} governing entries do not open{signed}",
                "registers are opened by entries of the governing register, and in no other way",
                tuple(notes.values()),
            )
        )

    async def _signed(self, name: str) -> bytes | None:
        """Return the checkpoint note that is served of a register, where the ledger has signed it."""
        served = await self._checkpoint(name) if is_register(name) else None
        if not isinstance(served, bytes):
            return None
        try:
            return self._policy.open(served, self._state.mirror.register_origin(name)).note.trimmed()
        except (MalformedError, SignatureError):
            return None

    def _check_anchors(self, made: Round, registers: list[str]) -> None:
        # Those of a register whose entries were not read are left to a round that reads them.
        left = {each for each in registers if not self._reads(each)}
        anchors = self._anchors.check(made.broken() | left)
        made.anchors = anchors.count
        made.findings += anchors.findings
        if anchors.unsealed and self._policy.quorum.root is not None:
            made.remarks.append(f"{anchors.unsealed} of the anchors compared do not meet your policy's quorum.")
        broken = made.broken() | left
        made.findings += self._anchors.overdue(each for each in registers if each not in broken)

    async def _reread(self, made: Round) -> None:
        """Read some old bundles and their tiles again, going round all of them in the long run."""
        if made.is_first:
            return  # all of them have just been read
        heads = self._state.mirror.heads()
        sizes = {register: heads[register].size for register in sorted(heads)}
        total = sum(-(-size // TILE_WIDTH) for size in sizes.values())
        if not total:
            return
        start = self._state.seen.position(_REREAD_FROM, "", 0) % total
        count = min(self._limits.reread, total)
        broken = made.broken()
        for number in range(start, start + count):
            register, bundle = _bundle_at(number % total, sizes)
            if register in broken:
                continue
            with _told(made, register):
                await self._follower.compare_bundle(register, bundle)
                await self._follower.compare_tile(register, Tile(0, bundle.index, bundle.width))
                made.reread += 1
            broken = made.broken()
        self._state.seen.set_position(_REREAD_FROM, "", (start + count) % total)


def _bundle_at(number: int, sizes: Mapping[str, int]) -> tuple[str, Bundle]:
    """Return the bundle with this number, from 0, of all registers in order."""
    for register, size in sizes.items():
        count = -(-size // TILE_WIDTH)
        if number < count:
            return register, Bundle(number, implied_width(0, number, size))
        number -= count
    raise ValueError(f"no bundle {number} beyond the last")


@contextmanager
def _told(made: Round, register: str) -> Iterator[None]:
    """Add to the round what ends the body, where it is the ledger's doing or the network's."""
    try:
        yield
    except FoundError as error:
        made.findings.append(error.finding)
    except (UnavailableError, OtherLedgerError) as error:
        made.troubles.append(Trouble(register, str(error)))
    except (AbsentError, UnfitError) as error:
        made.findings.append(_not_served(register, error))


def _hidden(register: str, error: AbsentError, before: Seen | None) -> Finding:
    return Finding(
        Kind.HIDDEN,
        register,
        f"{error.url} is not there (404)",
        "every register that the governing register opens is served",
        before=before.last if before else b"",
    )


def _not_served(register: str, error: FetchError) -> Finding:
    if isinstance(error, AbsentError):
        what = f"{error.url} is not there (404), though a signed checkpoint implies it"
        return Finding(Kind.MISSING, register, what, "all that a checkpoint implies is served")
    what = f"what is served at {error.url} cannot be it: {error.what}"
    return Finding(Kind.ALTERED, register, what, "it has the form of C2SP tlog-tiles")


def _ahead(register: str, index: int, governing_size: int, note: bytes) -> Finding:
    return Finding(
        Kind.AHEAD,
        register,
        f"entry {index} was judged against {governing_size} governing entries, more than are served",
        "entries are judged against governing entries that everybody can read",
        (note,),
    )
