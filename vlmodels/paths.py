"""Questions about paths that users type: also about names that no file can have, for which pathlib raises."""

from __future__ import annotations

import errno
import os
from pathlib import Path

IMPOSSIBLE = frozenset({errno.ENAMETOOLONG, errno.ELOOP})
"""Numbers of the errors of names that no file can have: too long, or a link that leads to itself."""


def is_there(path: str | Path) -> bool:
    """Return whether there is a file or folder; False also for names that no file can have."""
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises OSError for such names


def is_file(path: str | Path) -> bool:
    """Return whether there is a file; False also for names that no file can have."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises OSError for such names


def is_folder(path: str | Path) -> bool:
    """Return whether there is a folder; False also for names that no folder can have."""
    return os.path.isdir(path)  # noqa: PTH112 - Path.is_dir raises OSError for such names


def absolute(path: str | Path) -> Path:
    """Return the absolute path with links followed; a link that leads to itself stays, and its first use says so."""
    return Path(os.path.realpath(path))  # Path.resolve raises RuntimeError for such links
