"""Why entries do not lead to the root that was signed: who must have done what.

Asked in an order in which each answer rests on the one before: do the tiles lead to the signed root at all?
Then they show the history that was signed. Is it the one that was seen before? Are the entries its leaves?
Only then is an entry itself to blame, and its place under the signed root the proof.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ledger import base64
from ledger.checkpoints import OpenedCheckpoint
from ledger.errors import MalformedError, ProofError, StoreError
from ledger.hashing import HASH_SIZE, Hash, leaf_hash
from ledger.monitoring import Fault
from ledger.split_views import SplitView, compare, nodes_to_compare
from ledger.tiles import TILE_WIDTH, Tile, implied_width
from ledger.tree import Node, compact_range, root_of
from ledger.witnessing import Policy
from services.monitoring.fetching import Site
from services.monitoring.findings import EntryProof, Finding, Kind, shown
from services.monitoring.served import ServedTree
from services.monitoring.state import State


@dataclass(frozen=True, slots=True)
class Suspect:
    """Entries that were served from index `first` on, under a checkpoint to which they do not lead.

    Or they do, and `fault` says which of them cannot stand there.
    """

    register: str
    opened: OpenedCheckpoint
    first: int
    entries: Sequence[bytes]
    fault: Fault | None = None


async def diagnose(site: Site, state: State, policy: Policy, suspect: Suspect) -> Finding:
    """Return the finding that explains what was served. Raises FetchError, StoreError."""
    signed = suspect.opened.checkpoint
    served = ServedTree(site, suspect.register, signed)
    note = suspect.opened.note.trimmed()
    if await served.root() != signed.root:
        return await _altered_tiles(state, served, note)
    try:
        return (
            await _fork(state, policy, suspect, served)
            or await _altered_entry(suspect, served)
            or await _forged_entry(suspect, served)
            or await _altered_tiles(state, served, note)
        )
    except ProofError:
        return await _altered_tiles(state, served, note)


async def _fork(state: State, policy: Policy, suspect: Suspect, served: ServedTree) -> Finding | None:
    """Tell whether another history was seen before than the one under this checkpoint."""
    register, opened = suspect.register, suspect.opened
    held = min(state.size(register), opened.checkpoint.size)
    before = state.seen.latest(register, held)
    if before is not None and before.size:
        earlier = policy.open(before.last, opened.checkpoint.origin)
        view = await split_view(earlier, opened, served)
        if view is not None:
            return forked(register, view)
    if not held:
        return None
    peaks = compact_range(0, held)
    nodes = await served.nodes(peaks)
    if root_of([nodes[node] for node in peaks]) == state.mirror.reader(register).root(held):
        return None
    # What was read beyond that note was read under a larger one, whose entries never came to an end.
    later = state.seen.next_above(register, held)
    notes = (opened.note.trimmed(), *([later.last] if later else []))
    return Finding(
        Kind.FORK,
        register,
        f"the first {held} entries that were read under an earlier checkpoint are not those under the "
        f"checkpoint of size {opened.checkpoint.size}",
        "every later checkpoint covers what was read under an earlier one",
        notes,
        before=later.last if later else b"",
    )


async def split_view(
    earlier: OpenedCheckpoint, later: OpenedCheckpoint, served: ServedTree
) -> SplitView | None:
    """Compare two checkpoints by the tiles served under the larger one. Raises ProofError, FetchError."""
    sizes = sorted((earlier.checkpoint.size, later.checkpoint.size))
    nodes: Mapping[Node, Hash] = await served.nodes(nodes_to_compare(*sizes) if sizes[0] else ())
    return compare(earlier, later, lambda _: nodes)


def forked(register: str, view: SplitView) -> Finding:
    """Return the finding of two signed histories."""
    sizes = [note.split(b"\n", 2)[1].decode() for note in (view.smaller, view.larger)]
    if view.root:
        what = (
            f"the checkpoints of size {sizes[0]} and of size {sizes[1]} are of two histories: under the "
            f"larger one the first {sizes[0]} entries have the root {base64.encode(view.root)}"
        )
    else:
        what = f"two checkpoints of size {sizes[0]} state different roots"
    return Finding(
        Kind.FORK,
        register,
        what,
        "a register has one history, and every checkpoint is of it",
        (view.smaller, view.larger),
        view,
    )


async def _altered_entry(suspect: Suspect, served: ServedTree) -> Finding | None:
    """Tell whether an entry that was served is another one than the leaf that was signed."""
    for offset, entry in enumerate(suspect.entries):
        index = suspect.first + offset
        leaves = await served.tile(0, index // TILE_WIDTH)
        place = index % TILE_WIDTH * HASH_SIZE
        leaf = Hash(leaves[place : place + HASH_SIZE])
        if leaf_hash(entry) == leaf:
            continue
        await served.inclusion(index, leaf)
        return Finding(
            Kind.ALTERED,
            suspect.register,
            f"entry {index} as served is not the one that was signed",
            f"its leaf hash is {leaf.hex()}, by the checkpoint of size {served.checkpoint.size}",
            (suspect.opened.note.trimmed(),),
            material={"entry as served": shown(entry), "leaf hash as served": leaf_hash(entry).hex()},
        )
    return None


async def _forged_entry(suspect: Suspect, served: ServedTree) -> Finding | None:
    """Return the proof that an entry which cannot stand there was signed."""
    if suspect.fault is None:
        return None
    index = suspect.fault.index
    entry = suspect.entries[index - suspect.first]
    note = suspect.opened.note.trimmed()
    proof = EntryProof(note, index, entry, await served.entry_proof(index, entry))
    return Finding(
        Kind.FORGED,
        suspect.register,
        f"entry {index} cannot have been registered: {suspect.fault.why}",
        "every entry is one that the governing register and the append rules admit",
        (note,),
        proof,
        {"entry": shown(entry)},
    )


async def _altered_tiles(state: State, served: ServedTree, note: bytes) -> Finding:
    """Return the finding that the tiles do not lead to the signed root, naming one where one is known."""
    return Finding(
        Kind.ALTERED,
        served.register,
        f"the hash tiles served do not lead to the root that was signed of size {served.checkpoint.size}"
        f"{await _first_other_tile(state, served)}",
        f"they lead to {base64.encode(served.checkpoint.root)}",
        (note,),
    )


async def _first_other_tile(state: State, served: ServedTree) -> str:
    """Return, in words, the first tile on the right edge that differs from what the mirror has of it."""
    held = state.size(served.register)
    level = 0
    while (held >> 8 * level) > 0:
        index = ((held >> 8 * level) - 1) // TILE_WIDTH
        width = implied_width(level, index, held)
        try:
            own = state.mirror.reader(served.register).tile(Tile(level, index, width))
            if (await served.tile(level, index))[: len(own)] != own:
                return f": tile {level}/{index} differs from what was read before"
        except (StoreError, MalformedError):
            return ""
        level += 1
    return ""
