"""One register as its single writer sees it: the right edge, and a draft of what the next commit adds.

Nothing here reads a clock or decides who may write; see `rules` and `governing` for that.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ledger.entries import Message, parse_entry
from ledger.errors import MalformedError, StoreError
from ledger.hashing import HASH_SIZE, Hash, leaf_hashes
from ledger.rules import Earlier, Header, Registered, read_header, record_keys
from ledger.store import EMPTY_HEAD, Batch, Head, RecordAt, Run, Store, StoredNote, StoredTile
from ledger.tiles import TILE_HEIGHT, TILE_WIDTH, node_in, tile_of
from ledger.tree import EMPTY, Extension, Frontier, TreeSize, compact_range, extend

_TILE_BYTES: Final = TILE_WIDTH * HASH_SIZE


@dataclass(frozen=True, slots=True)
class Edge:
    """All that appending needs to know of a register.

    `tails[level]` are the hashes of the last tile of a tile level while it is not full; `governing_size` is
    that of the latest entry with a submission, 0 when there is none.
    """

    head: Head
    frontier: Frontier
    tails: tuple[bytes, ...]
    governing_size: int


EMPTY_EDGE: Final = Edge(EMPTY_HEAD, EMPTY, (), 0)


def open_edge(store: Store, register: str, head: Head) -> Edge:
    """Read a register's right edge and verify it: the last entries against their leaves, all against the root.

    Raises StoreError when they do not agree: the store is damaged, see fsck.
    """
    size = head.size
    levels = (size.bit_length() + TILE_HEIGHT - 1) // TILE_HEIGHT
    wanted = [(level, (size >> TILE_HEIGHT * level) // TILE_WIDTH) for level in range(levels)]
    tails = [
        data[: (size >> TILE_HEIGHT * level) % TILE_WIDTH * HASH_SIZE]
        for (level, _), data in zip(wanted, store.tiles(register, wanted), strict=True)
    ]
    peaks = compact_range(0, size)
    places = [tile_of(node) for node in peaks]
    tiles = store.tiles(register, [(place.tile_level, place.tile_index) for place in places])
    try:
        hashes = tuple(
            node_in(data, place.first, place.width) for data, place in zip(tiles, places, strict=True)
        )
        frontier = Frontier(TreeSize(size), hashes)
        governing_size = _last_governing_size(store, register, size)
    except MalformedError as error:
        raise StoreError(f"{register}: the right edge at size {size} is damaged; run fsck: {error}") from error
    if frontier.root() != head.root:
        raise StoreError(f"{register}: the tiles at size {size} do not lead to the stored root; run fsck")
    _verify_last_entries(store, register, size)
    return Edge(head, frontier, tuple(tails), governing_size)


def _verify_last_entries(store: Store, register: str, size: int) -> None:
    last = max(0, size - 1) // TILE_WIDTH
    begin = last * TILE_WIDTH
    entries = store.entries(register, begin, size + 1)
    (leaves,) = store.tiles(register, [(0, last)])
    if b"".join(leaf_hashes(entries)) != leaves[: (size - begin) * HASH_SIZE]:
        raise StoreError(f"{register}: the entries from {begin} on are not those of the tree; run fsck")


def _last_governing_size(store: Store, register: str, size: int) -> int:
    """Return the governing_size of the latest entry with a submission; rejections in between carry none."""
    for end in range(size, 0, -64):
        for data in reversed(store.entries(register, max(0, end - 64), end)):
            entry = parse_entry(data)
            if entry.membership is not None:
                return entry.acceptance.governing_size
    return 0


class Draft:
    """What one commit will add to one register, in order. Used once."""

    def __init__(self, store: Store, register: str, edge: Edge | None) -> None:
        self._store = store
        self._register = register
        self._expected = edge.head if edge else None
        self._edge = edge or EMPTY_EDGE
        self._entries: list[bytes] = []
        self._submissions: dict[bytes, Run] = {}
        self._records: list[RecordAt] = []
        self._added: dict[str, dict[int, Earlier]] = {}
        self._stored: dict[str, dict[int, Earlier]] = {}
        self._known: dict[bytes, Run] = {}
        self._rejections: dict[bytes, int] = {}
        self.governing_size = self._edge.governing_size

    @property
    def size(self) -> int:
        """The size that the register will have."""
        return self._edge.head.size + len(self._entries)

    def grows(self, *, opened: bool) -> bool:
        """Tell whether there is anything to commit: entries, or a register that was just opened."""
        return bool(self._entries) or (opened and self._expected is None)

    def look_up(self, submission_ids: Collection[bytes], headers: Collection[Header]) -> None:
        """Read, in a few queries, what the store knows of these submissions and records."""
        if self._expected is None or not (submission_ids or headers):
            return
        there = self._store.look_up(self._register, list(submission_ids), record_keys(headers))
        self._known.update(there.runs)
        for record_id, versions in registered(self._store, self._register, headers, there.latest).items():
            self._stored.setdefault(record_id, {}).update(versions)

    def run_of(self, submission_id: bytes) -> Run | None:
        """Return where a submission stands, in the store or in this draft. It must have been looked up."""
        return self._submissions.get(submission_id) or self._known.get(submission_id)

    def registered(self, headers: Sequence[Header]) -> Registered:
        """Return, of the records named, the latest version and those that they are. They must be looked up."""
        found: dict[str, dict[int, Earlier]] = {}
        for header in headers:
            added = self._added.get(header.record_id)
            if added is None and header.record_id not in self._stored:
                continue
            known = found.get(header.record_id)
            if known is None:
                known = dict(self._stored.get(header.record_id, ()))
                if added:
                    # What is added follows what is stored, so that the last added is the latest.
                    last = next(reversed(added))
                    known[last] = added[last]
                if known:
                    found[header.record_id] = known
            if added and header.version in added:
                known[header.version] = added[header.version]
        return found

    def add(self, message: Message, headers: Sequence[Header]) -> Run:
        """Add the message's entries at the next indices. The rules must have been asked before."""
        run = Run(self.size, len(message.entries))
        self._entries.extend(message.entries)
        if message.submission is not None:
            self._submissions[bytes.fromhex(message.submission.submission_id)] = run
            self.governing_size = message.acceptance.governing_size
        each = zip(headers, record_keys(headers), message.records(), strict=True)
        for index, (header, key, record) in enumerate(each, run.first):
            added = self._added.setdefault(header.record_id, {})
            # A department may have taken the record_id of a rejection: which record that is stays as it was.
            if header.version not in added and header.version not in self._stored.get(header.record_id, ()):
                self._records.append(RecordAt(key, header.version, index))
                added[header.version] = Earlier(header, record, index)
        return run

    def is_ledger_written(self, index: int) -> bool:
        """Tell whether the entry at `index`, in the store or in this draft, belongs to no submission."""
        place = index - self._edge.head.size
        data = self._entries[place] if place >= 0 else _entry(self._store, self._register, index)
        return parse_entry(data).membership is None

    def note_rejection(self, submission_id: str, index: int) -> None:
        """Note that the entry at `index` rejects a submission, so that whoever sent it finds that."""
        self._rejections[bytes.fromhex(submission_id)] = index

    def finish(self, notes: Sequence[StoredNote]) -> tuple[Batch, Edge, Extension]:
        """Hash what was added: the batch to commit, the edge after it, and every node made on the way."""
        edge = self._edge
        extension = extend(edge.frontier, leaf_hashes(self._entries))
        tiles, tails = _grow(edge.tails, extension)
        after = Head(extension.after.size, extension.after.root())
        batch = Batch(
            self._register,
            self._expected,
            after,
            self._entries,
            tiles,
            self._submissions,
            self._records,
            notes,
            rejections=self._rejections,
        )
        return batch, Edge(after, extension.after, tails, self.governing_size), extension


def registered(
    store: Store, register: str, headers: Collection[Header], last: Sequence[RecordAt]
) -> Mapping[str, Mapping[int, Earlier]]:
    """Return, of the records named, their latest versions, which the store has told, and those that they are.

    A record may have any number of versions: what this costs does not depend on it.
    """
    if not last:
        return {}
    rows, keyed = list(last), list(zip(record_keys(headers), headers, strict=True))
    ids = {key: one.record_id for key, one in keyed}
    latest = {at.record_id: at.version for at in rows}
    earlier = [(key, one.version) for key, one in keyed if one.version < latest.get(key, 0)]
    if earlier:
        rows += store.versions(register, earlier)
    found: dict[str, dict[int, Earlier]] = {}
    entries = store.entries_at(register, [at.index for at in rows])
    for at in rows:
        if at.index not in entries:
            raise StoreError(f"{register}: entry {at.index} is missing")
        record = entries[at.index].partition(b"\n")[2]
        found.setdefault(ids[at.record_id], {})[at.version] = Earlier(read_header(record), record, at.index)
    return found


def _entry(store: Store, register: str, index: int) -> bytes:
    entries = store.entries(register, index, index + 1)
    if not entries:
        raise StoreError(f"{register}: entry {index} is missing")
    return entries[0]


def _grow(tails: tuple[bytes, ...], extension: Extension) -> tuple[list[StoredTile], tuple[bytes, ...]]:
    """Return the tiles that changed, and the new tails."""
    tiles: list[StoredTile] = []
    after = list(tails)
    for level, (first, hashes) in enumerate(extension.levels[::TILE_HEIGHT]):
        if level == len(after):
            after.append(b"")
        data = after[level] + b"".join(hashes)
        start = first // TILE_WIDTH
        full = len(data) // _TILE_BYTES
        tiles += (
            StoredTile(level, start + i, data[i * _TILE_BYTES : (i + 1) * _TILE_BYTES]) for i in range(full)
        )
        after[level] = data[full * _TILE_BYTES :]
        if after[level]:
            tiles.append(StoredTile(level, start + full, after[level]))
    return tiles, tuple(after)


def range_hashes(extension: Extension, begin: int, end: int) -> tuple[Hash, ...]:
    """Return the range proof of a run that `extension` appended, at its end (formats.md, section 14)."""
    nodes = (*compact_range(0, begin), *compact_range(end, extension.after.size))
    return tuple([extension.node(*node) for node in nodes])
