"""The event log of a ledger as the messages of a topic: what an embedded ledger's entries were made from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ledger.event_log import LogMessage
from ledger.export import MessageBlock, export_blocks
from ledger.store import Store
from ledger.stores.memory import MemoryStore
from services.distributed.partitions import partition_of
from tests.support.ledger_story import tell


def blocks_of(store: Store) -> list[MessageBlock]:
    """Return the messages that a store's entries were made from, `governing` first."""
    return [block for block in export_blocks(store, store.heads()) if isinstance(block, MessageBlock)]


def story(folder: Path) -> tuple[MemoryStore, list[MessageBlock]]:
    """Return a ledger in which everything has happened once, and its messages."""
    store = MemoryStore()
    tell(store, folder / "story.marks")
    return store, blocks_of(store)


def by_partition(blocks: Iterable[MessageBlock], partitions: int) -> dict[int, list[LogMessage]]:
    """Return what each partition of a topic holds of these messages, in their order."""
    found: dict[int, list[LogMessage]] = {number: [] for number in range(partitions)}
    for block in blocks:
        held = found[partition_of(block.register, partitions)]
        held.append(LogMessage(len(held), block.register.encode(), block.value))
    return found
