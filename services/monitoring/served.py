"""The hash tiles that a ledger serves under one checkpoint, read node by node, and the proofs made of them.

Nothing read here is believed by itself: a proof that is made of it either leads to the signed root, or the
tiles are wrong.
"""

from __future__ import annotations

from collections.abc import Iterable

from ledger.checkpoints import Checkpoint
from ledger.hashing import Hash, leaf_hash
from ledger.proofs import (
    Plan,
    compute,
    nodes_of,
    plan_consistency,
    plan_inclusion,
    verify_consistency,
    verify_inclusion,
)
from ledger.store import Head
from ledger.tiles import Tile, implied_width, node_in, tile_of
from ledger.tree import Node, compact_range, root_of
from services.monitoring.fetching import Site, together


class ServedTree:
    """What is served of the tree under one checkpoint of a register. Each tile is asked for once."""

    def __init__(self, site: Site, register: str, checkpoint: Checkpoint) -> None:
        self._site = site
        self.register = register
        self.checkpoint = checkpoint
        self._tiles: dict[tuple[int, int], bytes] = {}

    async def tile(self, level: int, index: int) -> bytes:
        """Return a tile as wide as the checkpoint implies. Raises FetchError."""
        held = self._tiles.get((level, index))
        if held is None:
            width = implied_width(level, index, self.checkpoint.size)
            held = await self._site.tile(self.register, Tile(level, index, width))
            self._tiles[level, index] = held
        return held

    async def nodes(self, nodes: Iterable[Node]) -> dict[Node, Hash]:
        """Return perfect nodes of the tree, as served. Raises FetchError."""
        places = {node: tile_of(node) for node in nodes}
        wanted = list(dict.fromkeys((place.tile_level, place.tile_index) for place in places.values()))
        found = dict(zip(wanted, await together(self.tile(*each) for each in wanted), strict=True))
        return {
            node: node_in(found[place.tile_level, place.tile_index], place.first, place.width)
            for node, place in places.items()
        }

    async def root(self) -> Hash:
        """Return the root to which the tiles lead, whatever the checkpoint states. Raises FetchError."""
        peaks = compact_range(0, self.checkpoint.size)
        nodes = await self.nodes(peaks)
        return root_of([nodes[node] for node in peaks])

    async def verify_prefix(self, head: Head) -> None:
        """Return when the checkpoint covers a tree of this size and root; raise ProofError otherwise.

        Raises FetchError as well. `head` has at least one entry, and no more than the checkpoint.
        """
        signed = self.checkpoint
        plan: Plan = () if head.size == signed.size else plan_consistency(head.size, signed.size)
        hashes = compute(plan, await self.nodes(nodes_of(plan)))
        verify_consistency(head.size, signed.size, head.root, signed.root, hashes)

    async def inclusion(self, index: int, leaf: Hash) -> tuple[Hash, ...]:
        """Return the inclusion proof of a leaf, verified. Raises ProofError, FetchError."""
        plan = plan_inclusion(index, self.checkpoint.size)
        hashes = compute(plan, await self.nodes(nodes_of(plan)))
        verify_inclusion(index, self.checkpoint.size, leaf, hashes, self.checkpoint.root)
        return hashes

    async def entry_proof(self, index: int, entry: bytes) -> tuple[Hash, ...]:
        """Return the inclusion proof of an entry, verified. Raises ProofError, FetchError."""
        return await self.inclusion(index, leaf_hash(entry))
