"""Whether what is scored was trained on, or validated on."""

import filecmp
import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.folders import files_below, named_paths
from kgmgt_jax.data.prepared import PreparedSet, is_prepared
from kgmgt_jax.data.slices import SliceInfo

__all__ = ["n_trained_on", "same_file"]

_PART = 4096  # bytes at the beginning, in the middle and at the end of a file


def n_trained_on(path: str, scored: Sequence[SliceInfo], split: str = "train") -> int:
    """How many slices to score are among those that a network was trained on, or validated on.

    Their file or folder of DICOM is one of those of the training or equal to one. Of a prepared
    set, whose splits may share a file, their names in it are also those of its split. No samples
    are read, but of files of the same size.

    Args:
        path: What it was trained on, as ``open_slices`` takes it. What does not exist, as for a
            checkpoint from elsewhere, or cannot be read counts for nothing.
        scored: The slices to score.
        split: Of prepared sets, ``train`` or ``validation``.
    """
    try:
        training = _training_files(path, split)
        sources = {info.source: Path(info.source).resolve() for info in scored if training}
        sizes = {_size(own) for own in sources.values()}
        alike = defaultdict(list)
        for file in training:
            if _size(file) in sizes:
                alike[_look(file)].append(file)
        equal = {}
        for source, own in sources.items():
            equal[source] = [f for f in alike[_look(own)] if f == own or same_file(f, own)]
    except (DataError, OSError):
        return 0
    return sum(
        any(
            not training[f] or _name_in_file(info) in training[f]
            for f in equal.get(info.source, ())
        )
        for info in scored
    )


def _training_files(path: str, split: str) -> dict[Path, set[str]]:
    """Files and the names of the slices in them that are trained on; no name stands for all."""
    training: dict[Path, set[str]] = defaultdict(set)
    for part in named_paths(path):
        root = Path(part).resolve()
        if not part or not root.exists():
            continue
        if is_prepared(root):
            for info in PreparedSet(root, split=split, verify=False).slices:
                training[Path(info.source)].add(_name_in_file(info))
        else:
            files = [file.resolve() for file in files_below(root)]  # through links, as read
            folders = [path.parent for path in files]  # of DICOM
            training.update((place, set()) for place in [root, *files, *folders])
    return training


def same_file(one: str | Path, other: str | Path) -> bool:
    """Whether two paths are of one file, or of two that are equal; or of such folders, of DICOM."""
    a, b = Path(one), Path(other)
    if not (a.exists() and b.exists()):
        return False
    if a.samefile(b):
        return True
    if a.is_dir() and b.is_dir():
        names = [file.name for file in _files_in(a)]
        return names == [file.name for file in _files_in(b)] != [] and all(
            filecmp.cmp(a / name, b / name, shallow=False) for name in names
        )
    return a.is_file() and b.is_file() and filecmp.cmp(a, b, shallow=False)


def _files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def _look(path: Path) -> tuple[int, bytes]:
    """What equal files, or folders, share with few others: size, and some bytes of the first."""
    files = _files_in(path) if path.is_dir() else [path]
    parts = []
    for first in files[:1] if path.exists() else []:
        size = _size(first)
        with open(first, "rb") as file:
            for start in (0, size // 2, max(size - _PART, 0)):
                file.seek(start)
                parts.append(file.read(_PART))
    return _size(path), hashlib.sha256(b"".join(parts)).digest()


def _size(path: Path) -> int:
    """That of a file, or of all files in a folder; 0 if there is neither."""
    files = _files_in(path) if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _name_in_file(info: SliceInfo) -> str:
    """What the name of a slice says beyond its file's."""
    return info.name.rpartition(Path(info.source).name.partition(".")[0])[2]
