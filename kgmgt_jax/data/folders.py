"""Files below a folder."""

import os
from pathlib import Path

__all__ = ["files_below"]


def files_below(root: Path) -> list[Path]:
    """All files below a folder to any depth, sorted by path, through links to folders, too.

    A folder that is reached twice counts once: where it lies, else by the first link to it.

    Args:
        root: The folder.
    """
    found: list[Path] = []
    seen: set[str] = set()
    tops = [root]
    while tops:
        links: list[Path] = []
        for top in tops:
            for folder, names, files in os.walk(top):  # lists links to folders, but stays outside
                real = os.path.realpath(folder)
                if real in seen:
                    names.clear()
                    continue
                seen.add(real)
                found += (Path(folder, name) for name in files)
                links += (Path(folder, name) for name in names if Path(folder, name).is_symlink())
        tops = sorted(links)
    return sorted(path for path in found if path.is_file())
