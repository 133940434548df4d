"""Bringing one register of the mirror up to a checkpoint that was verified.

Entries are read in stretches, so that memory is bounded and a death loses one stretch at the most. Each
stretch is replayed through the ledger's own append rules, and its new root compared with the signed one: at
the end directly, before it by a consistency proof from the tiles that are served. Only then is it committed.
So whatever the mirror holds, at any moment, is a beginning of a history that the ledger has signed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from hashlib import sha256
from itertools import islice
from typing import Final

from ledger.checkpoints import Checkpoint, OpenedCheckpoint
from ledger.errors import ProofError
from ledger.hashing import HASH_SIZE, leaf_hash
from ledger.ledger import FinishedTurn
from ledger.monitoring import Fault, Replayed, replay
from ledger.tiles import TILE_HEIGHT, TILE_WIDTH, Bundle, Tile, implied_width
from ledger.witnessing import Policy
from services.monitoring.diagnosis import Suspect, diagnose, forked, split_view
from services.monitoring.fetching import Site, together
from services.monitoring.findings import Finding, FoundError, Kind, shown
from services.monitoring.served import ServedTree
from services.monitoring.state import State

STRETCH: Final = 4_096
"""Entries after which a stretch takes no further bundle: more than the longest submission."""

BYTES: Final = 16 * 1024 * 1024
"""Bytes after which a stretch takes no further bundle."""

WINDOW: Final = 8
"""Bundles, or tiles, that are asked for at once: 128 MiB if each is as large as can be."""

TILES: Final = "tiles"
"""The position up to whose size the tiles that are served were compared with the mirror's."""

Bar = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Shows progress: given a label and a total, it yields what is told how many more are done."""


class Follower:
    """Brings registers of a mirror up to checkpoints. Raises FetchError, StoreError, and FoundError."""

    def __init__(self, site: Site, state: State, policy: Policy, bar: Bar) -> None:
        self._site = site
        self._state = state
        self._policy = policy
        self._bar = bar

    async def follow(self, register: str, opened: OpenedCheckpoint) -> int | None:
        """Read up to a verified checkpoint that was kept as seen; return None once it is reached.

        Returns a governing size where the next entry was judged against it and the mirror's governing
        register is smaller: what stands before that entry is committed, and the rest waits.
        """
        size, target = self._state.size(register), opened.checkpoint.size
        served = ServedTree(self._site, register, opened.checkpoint)
        waiting: list[bytes] = []
        with self._bar(f"Reading {register}", target - size) as advance:
            while size < target:
                # What was signed before and not read to its end is a place to stop and compare.
                stop = self._next_seen(register, size)
                if size + len(waiting) < stop:
                    waiting += await self._read(opened, register, size, size + len(waiting), stop)
                replayed, finished = self._replay(register, waiting, size)
                if replayed == Replayed(size):
                    await self._compare_with_seen(opened, register, stop, served)
                    # A stretch is longer than any submission, so this one goes on beyond what was signed.
                    replayed = Replayed(
                        size, Fault(size, f"the checkpoint of size {stop} divides its submission")
                    )
                suspect = Suspect(register, opened, size, waiting, replayed.fault)
                if replayed.fault is not None:
                    raise await self._found(suspect)
                if replayed.end > size:
                    await self._commit(suspect, served, finished)
                    advance(replayed.end - size)
                    del waiting[: replayed.end - size]
                    size = replayed.end
                if replayed.waits_for is not None:
                    return replayed.waits_for
        await self._compare_tiles(register, opened.checkpoint)
        return None

    def _next_seen(self, register: str, size: int) -> int:
        later = self._state.seen.next_above(register, size)
        assert later is not None  # noqa: S101 - the target itself was kept
        return later.size

    async def _read(
        self, opened: OpenedCheckpoint, register: str, size: int, begin: int, stop: int
    ) -> list[bytes]:
        """Return a stretch of entries from `begin` on, `stop` at the most; the mirror has `size` of them."""
        entries: list[bytes] = []
        taken = 0
        first, last = begin // TILE_WIDTH, (stop + TILE_WIDTH - 1) // TILE_WIDTH
        for start in range(first, last, WINDOW):
            bundles = [
                Bundle(index, implied_width(0, index, opened.checkpoint.size))
                for index in range(start, min(start + WINDOW, last))
            ]
            read = await together(self._site.bundle(register, bundle) for bundle in bundles)
            for bundle, found in zip(bundles, read, strict=True):
                place = bundle.index * TILE_WIDTH
                other = self._first_other(register, place, found[: max(0, size - place)])
                if other is not None:
                    raise await self._found(Suspect(register, opened, other, [found[other - place]]))
                entries += found[max(0, begin - place) : stop - place]
                taken += sum(map(len, found))
            if len(entries) >= STRETCH or taken >= BYTES:
                break
        return entries

    def _first_other(self, register: str, begin: int, served: Sequence[bytes]) -> int | None:
        """Return the index of the first entry from `begin` on that the mirror has otherwise; None for none."""
        if not served:
            return None
        own = self._state.mirror.store.entries(register, begin, begin + len(served))
        return next(
            (begin + at for at, pair in enumerate(zip(own, served, strict=True)) if pair[0] != pair[1]), None
        )

    def _replay(self, register: str, entries: Sequence[bytes], size: int) -> tuple[Replayed, FinishedTurn]:
        mirror = self._state.mirror
        turn = mirror.turn()
        replayed = replay(turn, register, mirror.origin, entries, size)
        return replayed, turn.finish({})

    async def _commit(self, suspect: Suspect, served: ServedTree, finished: FinishedTurn) -> None:
        """Commit a stretch, its root being that of a beginning of everything that was signed."""
        head = finished.growths[suspect.register].head
        try:
            await served.verify_prefix(head)
        except ProofError:
            raise await self._found(suspect) from None
        seen = self._state.seen.at(suspect.register, head.size)
        if seen is not None and seen.checkpoint.root != head.root:
            earlier = self._policy.open(seen.last, suspect.opened.checkpoint.origin)
            view = await split_view(earlier, suspect.opened, served)
            assert view is not None  # noqa: S101 - the tiles have just led to this head
            raise FoundError(forked(suspect.register, view))
        # Above, nothing was kept. Below, what was kept is covered by a signature.
        finished.commit()

    async def _compare_with_seen(
        self, opened: OpenedCheckpoint, register: str, size: int, served: ServedTree
    ) -> None:
        """Raise FoundError where a checkpoint that was seen of `size` is of another history than this one.

        Raises FetchError as well. Tiles that lead nowhere decide nothing.
        """
        seen = self._state.seen.at(register, size)
        if seen is None or size == opened.checkpoint.size:
            return
        earlier = self._policy.open(seen.last, opened.checkpoint.origin)
        try:
            view = await split_view(earlier, opened, served)
        except ProofError:
            return
        if view is not None:
            raise FoundError(forked(register, view))

    async def _found(self, suspect: Suspect) -> FoundError:
        return FoundError(await diagnose(self._site, self._state, self._policy, suspect))

    async def _compare_tiles(self, register: str, checkpoint: Checkpoint) -> None:
        """Compare every tile that is served, and was not full when this was done last, with the mirror's."""
        compared = self._state.seen.position(TILES, register, 0)
        tiles = _tiles_between(compared, checkpoint.size)
        while window := list(islice(tiles, WINDOW)):
            await together(self.compare_tile(register, tile) for tile in window)
        if checkpoint.size > compared:
            self._state.seen.set_position(TILES, register, checkpoint.size)

    async def compare_tile(self, register: str, tile: Tile) -> None:
        """Compare a hash tile that is served with the mirror's."""
        served = await self._site.tile(register, tile)
        own = self._state.mirror.reader(register).tile(tile)
        if served == own:
            return
        at = next(at for at in range(tile.width) if _hash(served, at) != _hash(own, at))
        raise FoundError(
            Finding(
                Kind.ALTERED,
                register,
                f"{tile.path()} as served is not made of the entries that were signed: hash {at} differs",
                f"hash {at} is {_hash(own, at).hex()}",
                material={"hash as served": _hash(served, at).hex()},
            )
        )

    async def compare_bundle(self, register: str, bundle: Bundle) -> None:
        """Compare an entry bundle that is served with the mirror's entries."""
        served = await self._site.bundle(register, bundle)
        index = self._first_other(register, bundle.index * TILE_WIDTH, served)
        if index is None:
            return
        own = self._state.mirror.reader(register).entry(index)
        raise FoundError(
            Finding(
                Kind.ALTERED,
                register,
                f"entry {index} as served is not the one that was signed, and read before",
                f"its SHA-256 is {sha256(own).hexdigest()}, and its leaf hash {leaf_hash(own).hex()}",
                material={
                    "entry as served": shown(served[index - bundle.index * TILE_WIDTH]),
                    "entry as read before": shown(own),
                },
            )
        )


def _hash(hashes: bytes, at: int) -> bytes:
    return hashes[at * HASH_SIZE : (at + 1) * HASH_SIZE]


def _tiles_between(before: int, after: int) -> Iterator[Tile]:
    """Yield the tiles implied by size `after` that were not full at size `before`, level by level."""
    level = 0
    while count := after >> TILE_HEIGHT * level:
        for index in range((before >> TILE_HEIGHT * level) // TILE_WIDTH, -(-count // TILE_WIDTH)):
            yield Tile(level, index, implied_width(level, index, after))
        level += 1
