"""Files below a folder."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["files_below", "named_paths"]


def named_paths(text: str | Path) -> list[str]:
    """The one path that a text is, if there is such a file or folder, else those between commas.

    Args:
        text: May be longer than a path can be.
    """
    return [str(text)] if os.path.exists(text) else str(text).split(",")


def files_below(root: Path, unreadable: Callable[[OSError], Any] | None = None) -> list[Path]:
    """All files below a folder to any depth, sorted by path, through links to folders, too.

    A folder that is reached twice counts once: where it lies, else by the first link to it. What
    may not be looked at, as in a folder that can be listed but not entered, counts as a file.

    Args:
        root: The folder.
        unreadable: Told of each folder that cannot be listed; without it such are passed over.
    """
    found: list[Path] = []
    seen: set[str] = set()
    tops = [root]
    while tops:
        links: list[Path] = []
        for top in tops:
            # it lists links to folders, but stays outside
            for folder, names, files in os.walk(top, onerror=unreadable):
                real = os.path.realpath(folder)
                if real in seen:
                    names.clear()
                    continue
                seen.add(real)
                found += (Path(folder, name) for name in files)
                paths = (os.path.join(folder, name) for name in names)
                links += (Path(path) for path in paths if os.path.islink(path))
        tops = sorted(links)
    return sorted(path for path in found if _may_be_a_file(path))


def _may_be_a_file(path: Path) -> bool:
    """Whether it is a file, or lies where nobody may look."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except PermissionError:
        return True
    except OSError:
        return False
