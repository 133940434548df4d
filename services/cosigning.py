"""Cosigning: every signed checkpoint is taken to the witnesses, until a quorum has sealed it.

Each register is followed by a task of its own (`following`), under the witness policy in force.

The first that each witness is asked is the head that was stored when the process began: nothing is appended
to a register before a quorum has confirmed that it holds nothing larger or different (formats.md, 11). Those
who confirm are those who know the ledger: the witnesses of the latest policy under which the governing register
is sealed in this very store. And whom a new policy does not ask any more is asked until it holds the governing
checkpoint that says so: a copy from before the change is then refused by the witnesses that it knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import aiohttp

from ledger.governing import GOVERNING
from ledger.ledger import LedgerView
from ledger.sealing import SealedReader
from ledger.witnessing import Witness
from services.following import Follower, Ground, Growing, Keeper, Observer, Standing, cancel
from services.published import Published
from services.witness_policy import Asked


async def nothing_more(_register: str) -> int:
    """Return 0: where everything that is signed is published, nothing more is expected of a witness."""
    return 0


class Cosigner:
    """Follows every register of one ledger. `run` is its task; it ends when cancelled.

    `history` tells the witness policies whose time has come, in order; for the other arguments see `Ground`.
    Only for the event loop's thread.
    """

    def __init__(
        self,
        ledger: LedgerView,
        published: Published,
        growing: Growing,
        session: aiohttp.ClientSession,
        refresh: float,
        observer: Observer,
        clock: Callable[[], float],
        declared: Callable[[str], int | None],
        history: Callable[[], Sequence[Asked]],
        signed_size: Callable[[str], Awaitable[int]] = nothing_more,
    ) -> None:
        self.published = published
        self.handed_over = asyncio.Event()
        """Set while, as far as `run` knows, all who were ever asked hold what followed the policy that did."""
        self._history = history
        self._store = ledger.store
        self._growing = growing
        self._keeper = Keeper(ledger.store)
        self._ground = Ground(
            ledger,
            published,
            growing,
            session,
            refresh,
            observer,
            clock,
            declared,
            self._keeper,
            self.standing,
            self._addresses,
            signed_size,
        )
        self._confirming: Asked | None = None
        self._handed_over: set[int] = set()
        self._standings: dict[str, Standing] = {}

    def standings(self) -> list[Standing]:
        """Return how every witness of the policy in force stands."""
        policy = self.published.policy
        witnesses = policy.witnesses if policy else ()
        return [self.standing(witness) for witness in witnesses]

    def standing(self, witness: Witness) -> Standing:
        """Return how one witness stands."""
        vkey = str(witness.key)
        return self._standings.setdefault(vkey, Standing(witness.name, vkey))

    def _addresses(self, witness: Witness) -> list[str]:
        """Return every address at which governance has ever said that a witness is asked, the latest first."""
        held = [
            each.url
            for asked in reversed(self._history())
            for each in asked.policy.witnesses
            if each.key == witness.key and each.url is not None
        ]
        return list(dict.fromkeys(held))

    async def until_handed_over(self) -> None:
        """Wait until every witness that was ever asked holds the policy that followed its own."""
        if any(self._leaving(self._history())):
            # `run` has yet to come to a policy that was published just now.
            self.handed_over.clear()
        await self.handed_over.wait()

    async def run(self) -> None:
        """Follow every register. Raises SplitViewError where a witness knows a longer or another history.

        StoreError where cosignatures cannot be kept, and it is not for want of room.
        """
        followers: dict[tuple[int, str], asyncio.Task[None]] = {}
        failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._confirming = self._best_known()
        try:
            while True:
                # Registers and policies come with governing entries, and with nothing else.
                news = self.published.news_of(GOVERNING)
                wanted = self._wanted()
                await cancel([followers.pop(key) for key in followers.keys() - wanted.keys()])
                for key in wanted.keys() - followers.keys():
                    _, register = key
                    follower = Follower(
                        self._ground, register, wanted[key].policy, wanted[key] == self._confirming
                    )
                    followers[key] = asyncio.create_task(follower.run())
                    followers[key].add_done_callback(lambda ended: _fail(failed, ended))
                waiting: asyncio.Future[Any] = asyncio.ensure_future(news.wait())
                try:
                    # A policy whose time comes by itself is noticed within a second.
                    await asyncio.wait({waiting, failed}, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    waiting.cancel()
                if failed.done():
                    failed.result()
        finally:
            await cancel(followers.values())
            await self._keeper.close()

    def _best_known(self) -> Asked | None:
        """Return the policy whose witnesses know this ledger as the store holds it, and so can confirm it.

        That is the latest under which its governing register is sealed; where none is, the one in force.
        """
        history = [each for each in self._history() if each.policy.quorum.root is not None]
        for asked in reversed(history):
            if self._sealed_governing(asked) is not None:
                return asked
        return history[-1] if history else None

    def _sealed_governing(self, asked: Asked) -> int | None:
        """Return the largest size of the governing register that is sealed under a policy."""
        latest = self.published.registers().get(GOVERNING)
        if latest is None:
            return None
        sealed = SealedReader(self._store, asked.policy).last_up_to(GOVERNING, latest.size)
        return sealed.size if sealed else None

    def _wanted(self) -> dict[tuple[int, str], Asked]:
        """Return which registers are to be followed under which policies, by the policies' indices."""
        history = self._history()
        registers = self.published.registers()
        wanted: dict[tuple[int, str], Asked] = {}
        if history and history[-1].policy.quorum.root is not None:
            wanted = {(history[-1].index, register): history[-1] for register in registers}
            asked = self._confirming or history[-1]
            self._confirming = asked
            for register in registers:
                if not self._growing.is_confirmed(register):
                    wanted[asked.index, register] = asked
        else:
            self._growing.confirm(registers)
        leaving = [each for each in self._leaving(history) if each.index not in self._handed_over]
        wanted |= {(each.index, GOVERNING): each for each in leaving}
        if leaving:
            self.handed_over.clear()
        else:
            self.handed_over.set()
        return wanted

    def _leaving(self, history: Sequence[Asked]) -> Iterator[Asked]:
        """Yield the policies whose witnesses do not hold yet that another one followed, and note the others."""
        for before, after in pairwise(history):
            if before.policy.quorum.root is None or before.index in self._handed_over:
                continue
            sealed = self._sealed_governing(before)
            if sealed is None or sealed > after.index:
                # Whoever has never sealed anything of this ledger confirms no copy of it either.
                self._handed_over.add(before.index)
            else:
                yield before


def _fail(failed: asyncio.Future[Any], ended: asyncio.Task[None]) -> None:
    if not ended.cancelled() and (error := ended.exception()) is not None and not failed.done():
        failed.set_exception(error)


def unsealed(published: Published) -> Iterator[str]:
    """Yield the registers whose latest signed checkpoint is not sealed, where witnesses are asked."""
    if published.policy is None:
        return
    for register, latest in published.registers().items():
        sealed = published.sealed(register)
        if sealed is None or sealed.size < latest.size:
            yield register
