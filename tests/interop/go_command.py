"""The Go command: whether it is here, and how it is run so that only what was committed is built."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest


def find_go(oldest: tuple[int, int]) -> str | None:
    """Return the path of the Go command, None where it is not installed or older than `oldest`."""
    command = shutil.which("go")
    if command is None:
        return None
    said = subprocess.run([command, "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout
    version = re.match(r"(?:go|devel go)(\d+)\.(\d+)", said)
    return command if version and (int(version[1]), int(version[2])) >= oldest else None


def no_go(oldest: tuple[int, int]) -> str:
    """Return what to say where there is no such Go."""
    major, minor = oldest
    return (
        f"needs Go {major}.{minor} or later, which is not installed: install the package golang, or Go itself "
        "from https://go.dev/dl/"
    )


def require_go(oldest: tuple[int, int], what: str) -> None:
    """Skip the test that asks where there is no such Go; where CI is set, fail it. `what` needs it."""
    if find_go(oldest) is None:
        end = pytest.fail if os.environ.get("CI") else pytest.skip
        end(f"{what} {no_go(oldest)}")


def run_go(folder: Path, oldest: tuple[int, int], *arguments: str, **environment: str) -> None:
    """Run the Go command in a module's folder.

    Raises FileNotFoundError without Go, CalledProcessError where it fails; what it says goes to stderr.
    """
    command = find_go(oldest)
    if command is None:
        raise FileNotFoundError(no_go(oldest))
    # -mod=readonly: go.mod and go.sum are what was committed, or the build fails. -buildvcs=false: it need
    # not be a git checkout.
    flags = {"GOFLAGS": "-mod=readonly -buildvcs=false", "GOWORK": "off", **environment}
    subprocess.run([command, *arguments], cwd=folder, env={**os.environ, **flags}, check=True)
