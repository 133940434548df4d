"""Following one register: its checkpoints are taken to the witnesses of one policy, in rounds.

A round takes the latest checkpoint to all witnesses at once; when the quorum is met the cosignatures are kept
and the checkpoint is shown as sealed, and the next round takes whatever is the latest by then. A witness that
is slow goes on with the round that it was asked in; one that is behind is caught up; one that fails is asked
again later and later. Nothing is sealed without a quorum.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

import aiohttp
import structlog

from ledger.add_checkpoint import AddCheckpoint
from ledger.errors import StorageFullError
from ledger.ledger import LedgerView
from ledger.notes import SignatureLine
from ledger.sealing import SealedCheckpoint, SealedReader
from ledger.store import NewCosignatures, Store, StoredNote
from ledger.witnessing import Policy, Witness
from services.asking import Answer, Granted, Holds, Refused, Unavailable, ask
from services.known_history import KnownHistory, LostState
from services.published import Published, SignedCheckpoint

TRIES: Final = 4
"""Requests in one go to a witness that names, each time, another size to go on from."""

FIRST_DELAY: Final = 0.25
"""Seconds after a first failure until a witness is asked again; twice as long after each further one."""

LAST_DELAY: Final = 30.0
"""Seconds after which a witness that keeps failing is asked again."""

FULL_DELAY: Final = 5.0
"""Seconds after which cosignatures for which there was no room are tried to be kept again."""

NOT_ASKED: Final = "not asked yet"
"""The trouble with a witness before its first answer."""

_log = structlog.get_logger()


class Growing(Protocol):
    """What may let registers grow: the sequencer."""

    def confirm(self, registers: Iterable[str]) -> None:
        """Allow these registers to grow."""
        ...

    def is_confirmed(self, register: str) -> bool:
        """Tell whether a register may grow."""
        ...


@dataclass(slots=True)
class Standing:
    """How one witness stands, over all registers: for people and for metrics.

    `troubles` says by register what was wrong with its last answer, where that was no cosignature;
    `cosigned_at` is the time, POSIX seconds, of its latest cosignature in this run.
    """

    name: str
    key: str
    troubles: dict[str, str] = field(default_factory=dict[str, str])
    cosigned_at: int | None = None

    @property
    def trouble(self) -> str | None:
        """What keeps it from cosigning, in a line; None where nothing does."""
        if not self.troubles:
            return NOT_ASKED if self.cosigned_at is None else None
        register, why = min(self.troubles.items())
        more = len(self.troubles) - 1
        return f"{register}: {why}" + (f"; and {more} more registers" if more else "")


_Outcome = Granted | Refused | Unavailable | LostState


class Observer(Protocol):
    """What is told of answers and seals, to count and measure them."""

    def answered(self, witness: str, answer: str) -> None:
        """Count an answer of a witness."""
        ...

    def kept(self, register: str, size: int, lines: Sequence[SignatureLine]) -> None:
        """Take note of cosignatures that were kept."""
        ...

    def sealed(self, seconds: float) -> None:
        """Measure a seal, in seconds since the witnesses were first asked for it."""
        ...


async def cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until they have ended, however they end."""
    held = list(tasks)
    for task in held:
        task.cancel()
    if held:
        # Not one by one: to await a task is not told from being cancelled oneself meanwhile.
        await asyncio.wait(held)
    for task in held:
        if not task.cancelled():
            task.exception()  # seen


class Keeper:
    """Keeps cosignatures in a thread of its own; whatever waits becomes one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[tuple[NewCosignatures, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "cosignatures")

    async def keep(self, new: NewCosignatures) -> None:
        """Return when `new` is durable. Raises what Store.keep_cosignatures raises."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((new, done))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        await asyncio.shield(done)

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            together, self._waiting = self._waiting, []
            batch = [new for new, _ in together]
            failure: Exception | None = None
            try:
                await loop.run_in_executor(self._thread, self._store.keep_cosignatures, batch)
            except Exception as error:
                failure = error
            for _, done in together:
                if failure is None:
                    done.set_result(None)
                else:
                    done.set_exception(failure)
                    done.exception()  # seen, even where whoever waited was cancelled

    async def close(self) -> None:
        """Wait for what is being written: the store may be closed only after it."""
        if self._writing is not None:
            await asyncio.wait([self._writing])
        self._thread.shutdown()


@dataclass(frozen=True, slots=True)
class Ground:
    """What every follower of one ledger works on.

    An idle checkpoint is cosigned anew `refresh` seconds after the last time. `clock` gives POSIX seconds;
    `declared` the time, POSIX seconds, at which the operator has declared that a witness of this vkey was
    restored from an older copy, None where he has not; `signed_size` how many entries of a register are under a
    checkpoint that the ledger's signer remembers, which may be more than are published here.
    """

    ledger: LedgerView
    published: Published
    growing: Growing
    session: aiohttp.ClientSession
    refresh: float
    observer: Observer
    clock: Callable[[], float]
    declared: Callable[[str], int | None]
    keeper: Keeper
    standing: Callable[[Witness], Standing]
    addresses: Callable[[Witness], Sequence[str]]
    signed_size: Callable[[str], Awaitable[int]]


@dataclass(slots=True)
class _Round:
    """A checkpoint on its way to the witnesses: `lines` are those that came, `asked` the names still out.

    `kept` of the lines are kept; where there was no room for them, that is tried again at `keep_at`, the event
    loop's time.
    """

    target: SignedCheckpoint
    began: float
    lines: dict[str, SignatureLine] = field(default_factory=dict[str, SignatureLine])
    asked: set[str] = field(default_factory=set[str])
    kept: int = 0
    keep_at: float = 0.0
    sealed: bool = False


@dataclass(slots=True)
class _Delay:
    """When a witness is asked again for one register: the event loop's time, and the failures in a row."""

    until: float = 0.0
    failures: int = 0


class Follower:
    """Follows one register under one policy, whose witnesses confirm the stored head where it `confirms`."""

    def __init__(self, ground: Ground, register: str, policy: Policy, confirms: bool) -> None:
        self._confirms = confirms
        self._ground = ground
        self._register = register
        self._policy = policy
        self._reader = SealedReader(ground.ledger.store, policy)
        self._history = KnownHistory(
            ground.ledger,
            ground.published,
            ground.session,
            ground.declared,
            register,
            policy,
            ground.signed_size,
        )
        # The first that a witness is asked is the stored head, as if it knew that.
        self._stored = ground.published.latest(register).size
        self._held: dict[str, int] = {}
        self._address: dict[str, int] = {}
        self._confirmed_by: set[str] = set()
        self._tasks: dict[str, asyncio.Task[tuple[SignedCheckpoint, _Outcome]]] = {}
        self._delays = {witness.name: _Delay() for witness in policy.witnesses}
        self._round: _Round | None = None
        self._asked_last: tuple[int, int, AddCheckpoint] | None = None
        self._refresh_at = 0.0
        self._stirred = asyncio.Event()

    async def run(self) -> None:
        """Make one round after the other, for ever."""
        try:
            with self._ground.published.stirring(self._register, self._stirred):
                while True:
                    self._begin_round()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(self._ask_all()):
                            await self._stirred.wait()
                    # Before anything is taken in: what happens meanwhile is seen the next time round.
                    self._stirred.clear()
                    await self._collect()
        finally:
            await cancel(self._tasks.values())

    def _begin_round(self) -> None:
        """Take the latest checkpoint, where the round before is over and there is a reason for another."""
        latest = self._ground.published.latest(self._register)
        now = _loop_time()
        held = self._round
        if held is not None and not held.sealed and (held.asked or held.target.size == latest.size):
            return  # still under way, or it can only go on with the same
        if held is None or held.target.size != latest.size or now >= self._refresh_at:
            self._round = _Round(latest, now)
            self._refresh_at = now + self._ground.refresh

    def _ask_all(self) -> float | None:
        """Ask whoever can be asked in this round; return after how many seconds there is more to do.

        Also who is not needed any more: a witness should hold the latest that there is. None where only an
        answer or news can bring more to do.
        """
        now = _loop_time()
        held = self._round
        if held is None:
            return None
        pause = held.keep_at - now if held.keep_at > now else None
        if held.sealed:
            pause = max(0.0, self._refresh_at - now)
        for witness in self._policy.witnesses:
            if witness.name in self._tasks or witness.name in held.lines:
                continue
            delay = self._delays[witness.name]
            if delay.until > now:
                pause = min(delay.until - now, LAST_DELAY if pause is None else pause)
                continue
            held.asked.add(witness.name)
            task = self._tasks[witness.name] = asyncio.create_task(self._ask(witness, held.target))
            task.add_done_callback(lambda _: self._stirred.set())
        return pause

    async def _collect(self) -> None:
        """Take in what has come: keep cosignatures, and show the checkpoint as sealed where they suffice."""
        late: dict[int, tuple[SignedCheckpoint, list[SignatureLine]]] = {}
        for witness in self._policy.witnesses:
            task = self._tasks.get(witness.name)
            if task is None or not task.done():
                continue
            del self._tasks[witness.name]
            target, outcome = task.result()
            held = self._round
            of_round = held is not None and held.target is target
            if held is not None and of_round:
                held.asked.discard(witness.name)
            self._note(witness, outcome)
            if isinstance(outcome, Granted):
                if held is not None and of_round:
                    held.lines[witness.name] = outcome.line
                if held is None or not of_round or held.sealed:
                    late.setdefault(target.size, (target, []))[1].append(outcome.line)
        if not late:
            await self._judge_round()
            return
        # Together: they share one transaction, and nobody's late line holds up the round.
        await asyncio.gather(self._judge_round(), *(self._keep(*one) for one in late.values()))

    async def _judge_round(self) -> None:
        """Keep what the round has brought: when it is enough, or nobody is out who could make it so."""
        held = self._round
        if held is None or held.sealed or held.keep_at > _loop_time():
            return
        enough = self._policy.quorum.is_met_by(held.lines)
        if not enough and (held.asked or held.kept == len(held.lines)):
            return
        # What is not enough so far is kept all the same: with others it may make a bound.
        lines = list(held.lines.values())
        before = self._ground.published.sealed(self._register)
        if not await self._keep(held.target, lines):
            held.keep_at = _loop_time() + FULL_DELAY
            return
        held.kept, held.sealed = len(lines), enough
        if enough and (before is None or before.size < held.target.size):
            self._ground.observer.sealed(_loop_time() - held.began)

    async def _keep(self, target: SignedCheckpoint, lines: list[SignatureLine]) -> bool:
        """Make cosignatures durable, then show what they seal. False where there was no room."""
        stored = StoredNote(target.size, target.note)
        try:
            await self._ground.keeper.keep(NewCosignatures(self._register, stored, lines))
        except StorageFullError:
            _log.warning("storage full: cosignatures were not kept", register=self._register)
            return False
        self._ground.observer.kept(self._register, target.size, lines)
        sealed = self._sealed(stored, lines)
        if sealed is not None:
            self._ground.published.seal(self._register, sealed, self._policy)
        return True

    def _sealed(self, stored: StoredNote, lines: list[SignatureLine]) -> SealedCheckpoint | None:
        """Return the checkpoint of a note with all that is kept of it, where that seals it."""
        before = self._ground.published.sealed(self._register)
        fresh = self._reader.sealed(stored, lines)
        enough = self._policy.quorum.is_met_by({each.witness for each in fresh.cosignatures})
        if enough and (before is None or before.size < stored.size):
            # Whoever cosigned before the quorum was met is among these lines: nothing else is to be looked up.
            return fresh
        kept = self._reader.last_up_to(self._register, stored.size)
        return kept if kept is not None and kept.size == stored.size else None

    def _note(self, witness: Witness, outcome: _Outcome) -> None:
        """Remember how the witness stands, and when to ask it again."""
        standing = self._ground.standing(witness)
        delay = self._delays[witness.name]
        self._ground.observer.answered(witness.name, type(outcome).__name__.lower())
        if isinstance(outcome, Granted):
            if standing.troubles.pop(self._register, None) is not None:
                _log.info("witness cosigns", witness=witness.name, register=self._register)
            standing.cosigned_at = outcome.time
            delay.failures, delay.until = 0, 0.0
            return
        trouble = _trouble(outcome)
        if trouble != standing.troubles.get(self._register):
            _log.warning("no cosignature", witness=witness.name, register=self._register, why=trouble)
        standing.troubles[self._register] = trouble
        wait = min(LAST_DELAY, FIRST_DELAY * 2**delay.failures)
        if isinstance(outcome, Unavailable) and outcome.retry_after is not None:
            wait = max(wait, outcome.retry_after)
        delay.failures = min(delay.failures + 1, 10)
        delay.until = _loop_time() + wait

    # Asking one witness

    async def _ask(self, witness: Witness, target: SignedCheckpoint) -> tuple[SignedCheckpoint, _Outcome]:
        return target, await self._asked(witness, target)

    async def _asked(self, witness: Witness, target: SignedCheckpoint) -> _Outcome:
        # A witness is known by its key: where it does not answer at the address in force, one from an earlier
        # policy will do.
        addresses = self._ground.addresses(witness)
        if not addresses:
            return Unavailable("the witness policy names no URL for it")
        at = self._address.get(witness.name, 0) % len(addresses)
        outcome = await self._asked_at(addresses[at], witness, target)
        if isinstance(outcome, Unavailable) and outcome.retry_after is None:
            self._address[witness.name] = at + 1
        return outcome

    async def _asked_at(self, url: str, witness: Witness, target: SignedCheckpoint) -> _Outcome:
        old = min(self._held.get(witness.name, self._stored), target.size)
        confirmed = self._ground.growing.is_confirmed(self._register)
        said: LostState | None = None
        for _ in range(TRIES):
            answer = await self._ask_from(url, witness, old, target)
            match answer:
                case Granted():
                    self._held[witness.name] = target.size
                    self._confirm(witness)
                    return answer
                case Holds(size):
                    lost = await self._history.judge(witness, size)
                    if lost is not None and lost == said:
                        return lost
                    if lost is not None:
                        # Not believed before it is said twice: the answer may be older than a cosignature that
                        # the follower of another policy has had since.
                        said = lost
                        continue
                    if size < target.size:
                        self._confirm(witness)
                    if size == old:
                        return Unavailable(f"answered 409 with the size {old} that was sent")
                    self._held[witness.name] = size
                    if size > target.size:
                        return Unavailable("knows a newer checkpoint of ours already", 0.0)
                    old = size
                case Refused(status, text, disputes=True):
                    if not confirmed:
                        # Its word is enough to stop, whoever else has confirmed the head meanwhile.
                        raise await self._history.split_view(
                            witness, f"knows another history ({status}: {text})"
                        )
                    await self._history.investigate(witness)
                    return answer
                case _:
                    return answer
        return Unavailable(f"named another size to go on from {TRIES} times")

    def _request(self, old: int, target: SignedCheckpoint) -> AddCheckpoint:
        """Return what to ask of a witness that holds `old`: mostly they all hold the same."""
        if self._asked_last is None or self._asked_last[:2] != (old, target.size):
            reader = self._ground.ledger.reader(self._register)
            proof = reader.consistency(old, target.size) if 0 < old < target.size else ()
            self._asked_last = (old, target.size, AddCheckpoint(old, proof, target.note))
        return self._asked_last[2]

    async def _ask_from(self, url: str, witness: Witness, old: int, target: SignedCheckpoint) -> Answer:
        request = self._request(old, target)
        return await ask(self._ground.session, replace(witness, url=url), request, int(self._ground.clock()))

    def _confirm(self, witness: Witness) -> None:
        """Count a witness that holds nothing larger or different than what was stored when we began."""
        if not self._confirms or self._ground.growing.is_confirmed(self._register):
            return
        self._confirmed_by.add(witness.name)
        if self._policy.quorum.is_met_by(self._confirmed_by):
            self._ground.growing.confirm([self._register])


def _trouble(outcome: Refused | Unavailable | LostState) -> str:
    match outcome:
        case Refused(status, text):
            return f"refuses ({status}): {text}"
        case LostState(size, cosigned):
            return (
                f"has lost its state: holds {size} entries, and had cosigned {cosigned}. Refused until its "
                "restoration is declared"
            )
        case Unavailable(text):
            return text


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
