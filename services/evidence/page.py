"""The one HTML file by which a pack verifies itself: sources from `verifier/`, put together without change.

It may load nothing and connect to nothing: its security policy names the digests of its own script and style,
and forbids the rest.
"""

from __future__ import annotations

import html
from base64 import b64encode
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Final

from services.evidence.custody import tool
from services.evidence.report import LIMITS

SCRIPTS: Final = (
    "bytes.js",
    "hashing.js",
    "tree.js",
    "notes.js",
    "receipts.js",
    "governing.js",
    "rendering.js",
    "findings.js",
    "zip.js",
    "bag.js",
    "claims.js",
    "pack.js",
    "page.js",
)
"""The scripts, in the order in which they stand in the page."""

_SOURCES: Final = Path(__file__).parent / "verifier"


def verifier_script(names: tuple[str, ...] = SCRIPTS) -> str:
    """Return the scripts as one."""
    sources = [(_SOURCES / name).read_text(encoding="utf-8") for name in names]
    return '"use strict";\n' + "\n".join(
        f"// {name}\n{source}" for name, source in zip(names, sources, strict=True)
    )


@cache
def verifier_page() -> bytes:
    """Return the page, as UTF-8."""
    script = f"\n{verifier_script()}"
    style = "\n" + (_SOURCES / "page.css").read_text(encoding="utf-8")
    parts = {
        "@CSP@": _security_policy(script, style),
        "@STYLE@": style,
        "@LIMITS@": "\n".join(f"<li>{html.escape(sentence)}</li>" for sentence in LIMITS),
        "@TOOL@": html.escape(f"Written by {tool()}"),
        "@SCRIPT@": script,
    }
    page = (_SOURCES / "page.html").read_text(encoding="utf-8")
    for name, text in parts.items():
        page = page.replace(name, text)
    return page.encode()


def _security_policy(script: str, style: str) -> str:
    allowed = {"script-src": script, "style-src": style}
    sources = "; ".join(
        f"{kind} 'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
        for kind, text in allowed.items()
    )
    return f"default-src 'none'; {sources}; base-uri 'none'; form-action 'none'"
