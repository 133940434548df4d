"""The command `daybook`, with constants of its modules set to what a test needs: in a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Mapping


def daybook(constants: Mapping[str, object]) -> list[str]:
    """Return the words that run it; `constants` are named in full, as in ``services.module.NAME``."""
    lines = ["from services.cli import main"]
    for name, value in constants.items():
        # A constant that is not there any more fails here, rather than be set in vain.
        lines += [f"import {name.rpartition('.')[0]}", f"{name}", f"{name} = {value!r}"]
    return [sys.executable, "-c", "\n".join((*lines, "main()"))]
