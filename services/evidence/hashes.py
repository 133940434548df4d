"""The hash schedule: the SHA-256 of every file of every exhibit, as it is annexed to a statement."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from services.evidence.layout import disclosure_path, opened_path


def hash_schedule(index: Mapping[str, Any], sha256: Callable[[str], str]) -> bytes:
    """Return the schedule: label, digest and path of each file, two spaces between them, a line each.

    The lines below a label are what `sha256sum` prints for these files.
    """
    lines = []
    for listed in index["exhibits"]:
        paths = [listed["receipt"], listed["record"], listed["text"]]
        if listed["disclosed"]:
            paths += [disclosure_path(listed["label"]), opened_path(listed["label"])]
        lines += [f"{listed['label']}  {sha256(path)}  {path}\n" for path in paths]
    return "".join(lines).encode()
