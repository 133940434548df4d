"""Writes the JSON Schemas of the record types into a folder.

Run from the root of the repository::

    python -m tests.support.write_schemas docs/schemas

Files of types that are no longer defined are removed.
"""

import json
import sys
from pathlib import Path

from ledger.schemas import schemas


def main(folder: Path) -> None:
    """Make `folder` hold every schema and nothing else that ends in .json."""
    folder.mkdir(parents=True, exist_ok=True)
    made = schemas()
    for stale in folder.glob("*.json"):
        if stale.name not in made:
            stale.unlink()
    for name, schema in made.items():
        (folder / name).write_text(text_of(schema), encoding="utf-8")


def text_of(schema: dict[str, object]) -> str:
    """Return a schema as its file holds it."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.support.write_schemas FOLDER")
    main(Path(sys.argv[1]))
