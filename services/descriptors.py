"""As many descriptors as a process may have: connections must not take those that the store needs."""

from __future__ import annotations

import resource
from contextlib import suppress


def allow_descriptors() -> None:
    """Raise the limit on open files and connections to the most that the system allows this process."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # where the most is not a number that one may ask for
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
