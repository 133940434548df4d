"""How seldom Python's collector looks for cycles in a process that works through batches."""

from __future__ import annotations

import gc


def collect_seldom() -> None:
    """Keep what is here now, and look for cycles seldom from now on. For the whole process, and for good.

    Batches make many small objects that are garbage soon after, without cycles: to look through them at every
    700 costs more than anything found.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(300_000, 20, 50)
