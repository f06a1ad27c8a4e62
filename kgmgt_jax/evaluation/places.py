"""Where the images of each cine of an evaluation go below a folder."""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

__all__ = ["Cine", "path_below", "places_of"]

Cine = tuple[str, str]  # path of its file, and its name without that of a slice


def path_below(root: Path, path: Path) -> Path | None:
    """A file's path below the root; ``None`` where it lies elsewhere."""
    found = root.is_dir() and path.is_relative_to(root)
    return path.relative_to(root) if found else None


def places_of(root: Path, cines: Mapping[Cine, str]) -> dict[Cine, Path]:
    """A place for each cine: its file's path below the root, without the suffix.

    With the suffix where another file would be there too; of several cines in one file, the cine's
    own name below that; of a prepared set, subject and name. It goes neither up nor to the root,
    whatever names a file has inside.

    Args:
        root: what is evaluated, a file or a folder.
        cines: who was scanned, by cine.
    """
    n_cines = Counter(path for path, _ in cines)
    places = (_place_of(root, cine, who, n_cines[cine[0]]) for cine, who in cines.items())
    short = dict(zip(cines, map(_downwards, places), strict=True))
    n_there = Counter(short.values())
    return {
        cine: place if n_there[place] == 1 else _downwards(path_below(root, Path(cine[0])) or place)
        for cine, place in short.items()
    }


def _downwards(path: Path) -> Path:
    return Path(*(part if part.strip("./") else "_" for part in path.parts))


def _place_of(root: Path, cine: Cine, subject: str, n_cines: int) -> Path:
    path, name = cine
    below = path_below(root, Path(path))
    if root.is_file() or below == Path():
        return Path(name)
    if below is None:
        parts = [re.sub(r"[^\w-]+", "_", part) for part in subject.split("/")]
        return Path(*parts, name)
    bare = below if Path(path).is_dir() else below.with_suffix("")
    return bare if n_cines == 1 else bare / name.removeprefix(f"{below.stem}/")
