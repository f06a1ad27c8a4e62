"""What an array is for, by its name: k-space, coil maps, a sampling mask or images."""

import functools
import os
import re
import time
from pathlib import Path

from kgmgt_jax.data.case import DataError

__all__ = ["ROLES", "companion", "no_kspace", "role_of"]

ROLES = {
    "kspace": ("kspace", "ksp", "kdata"),
    "sens": (
        *("sens", "sensitivities", "sensmap", "sensmaps", "coilmaps"),
        *("maps", "smap", "smaps", "csm", "csmap", "csmaps"),
    ),
    "mask": ("mask", "masks"),
}
"""Words in a name that say what an array is; of several the last one does."""

_ROLE = {word: role for role, words in ROLES.items() for word in words}
_AT_THE_END = _ROLE | {
    **dict.fromkeys(("pattern", "sampling", "pat"), "mask"),
    **dict.fromkeys(("image", "images", "img", "magnitude"), "images"),
    **dict.fromkeys(("recon", "reconstruction", "reco"), "images"),
}
"""Those, and words that may be about something else unless they end a name."""

_TICK_NS = 3_000_000_000  # longer than any file system's, FAT's is 2 s
_WORDS = {"kspace": "k-space", "sens": "coil maps", "mask": "a sampling mask", "images": "images"}


@functools.lru_cache(maxsize=1 << 16)  # a folder may hold thousands of scans
def role_of(name: str) -> tuple[str, str]:
    """What a name says an array is, and the rest of the name, which its companions share.

    Args:
        name: Of a file, without its suffix, or of an array.

    Returns:
        ``"kspace"``, ``"sens"``, ``"mask"``, ``"images"`` or, where it does not say, ``""``; and
        the other words.
    """
    words = re.split(r"[_\-. ]", re.sub(r"k[-_ ]space", "kspace", name.lower()))
    last = words.pop() if words[-1] in _AT_THE_END else ""
    roles = [_ROLE[word] for word in words if word in _ROLE]
    rest = "_".join(word for word in words if word not in _ROLE)
    return _AT_THE_END[last] if last else roles[-1] if roles else "", rest


def companion(path: Path, role: str) -> Path | None:
    """The file beside ``path`` of the same kind and name but for another role, if there is one.

    Raises:
        DataError: If there are several.
    """
    folder, suffix = path.parent, path.suffix
    changed = os.stat(folder).st_mtime_ns
    settled = time.time_ns() - changed > _TICK_NS
    names = (_names_by_role if settled else _names_by_role.__wrapped__)(folder, suffix, changed)
    found = names.get((role, role_of(path.stem)[1]), [])
    if len(found) > 1:
        raise DataError(path, f"one {role} file beside it", f"{found}")
    return path.with_name(found[0]) if found else None


@functools.lru_cache(maxsize=4)
def _names_by_role(folder: Path, suffix: str, changed: int) -> dict[tuple[str, str], list[str]]:
    """Names of the files of one suffix in a folder, sorted, by what `role_of` says of them.

    ``changed`` tells when another listing is due. Two changes of a folder within a tick of the file
    system's clock have the same time, so a listing is kept only once that has passed.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(suffix):
            found.setdefault(role_of(name.removesuffix(suffix)), []).append(name)
    return found


def no_kspace(path: Path, role: str) -> DataError:
    """Why a file is not read as k-space whose name says that it is something else, or nothing."""
    got = f"{_WORDS[role]}, by its name" if role else "a name that does not say so"
    fix = f"rename it, e.g. to {path.stem}_kspace{path.suffix}, if it holds k-space"
    return DataError(path, "k-space", got, fix)
