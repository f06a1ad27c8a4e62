"""What the place of a CMRxRecon file tells: its edition, subject, mask, and what is damaged.

See `cmrxrecon` for the layout.
"""

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kgmgt_jax.data.formats.base import DataWarning

__all__ = ["Damaged", "damaged_parts", "edition_of", "mask_paths", "set_folder", "subject_of"]

_YEARS = ("2023", "2024", "2025")


class Damaged(NamedTuple):
    """What is left out of a file: its last frames, and one slice."""

    n_frames: int
    slice_index: int | None


_KNOWN_BAD = {"P109": Damaged(3, None), "P100": Damaged(4, 1)}
"""Damaged ``cine_sax.mat`` in the training set of 2024, by subject."""
_NONE_BAD = Damaged(0, None)


def subject_of(path: str | Path) -> str:
    """Subject a file belongs to: the nearest directory named like ``P001``, else its parent.

    Numbers start anew in every centre of 2025, so centre and scanner are part of the name there:
    ``"Center001/GE_15T_Signa/P001"``.
    """
    parents = [parent.name for parent in Path(path).absolute().parents]
    number = next((i for i, name in enumerate(parents) if re.fullmatch(r"P\d+", name)), None)
    if number is None:
        return parents[0]
    centre = next((i for i, name in enumerate(parents) if re.fullmatch(r"Center\d+", name)), -1)
    return "/".join(parents[number : centre + 1][::-1]) if centre > number else parents[number]


def mask_paths(path: Path) -> Iterator[Path]:
    """Where the mask of an undersampled file may lie, the likeliest first."""
    if "_kus_" not in path.stem:
        yield path.with_name(f"{path.stem}_mask.mat")
        return
    name = path.name.replace("_kus_", "_mask_")
    folder = set_folder(path)
    if folder is not None:
        task, *inside = path.absolute().parent.relative_to(folder).parts
        likely = task.replace("UnderSample_", "Mask_")
        others = sorted(p for p in folder.parent.iterdir() if p.is_dir() and p != folder)
        for place in (folder, *others):
            tasks = sorted(p.name for p in place.glob("Mask_Task*") if p.name != likely)
            for mask_folder in (likely, *tasks):
                yield place.joinpath(mask_folder, *inside, name)
    yield path.with_name(name)


def set_folder(path: Path) -> Path | None:
    """``TrainingSet``, ``ValidationSet``, ...: the folder above the kind of sampling."""
    kinds = re.compile(r"FullSample|AccFactor\d+|(UnderSample|Mask)_Task\w+")
    above = (parent for parent in path.absolute().parents if kinds.fullmatch(parent.name))
    kind = next(above, None)
    return None if kind is None else kind.parent


def edition_of(path: Path, key: str) -> str:
    """Edition a file belongs to, by its key, the folders around it, and their names; or ``""``."""
    folder = set_folder(path)
    beside = {entry.name for entry in folder.iterdir()} if folder else set()
    parents = [parent.name for parent in path.absolute().parents]
    if "single" in key or "sub" in key or any(re.fullmatch(r"AccFactor\d+", p) for p in beside):
        return "2023"
    if key == "kspace" or any(name.endswith("TaskAll") for name in beside):
        return "2025"
    if any(re.fullmatch(r"Center\d+", name) for name in parents):
        return "2025"
    if any(re.fullmatch(r"(Mask|UnderSample)_Task[12]", name) for name in beside):
        return "2024"
    named = (re.fullmatch(r"\D*(20\d\d)", name) for name in parents)
    return next((match[1] for match in named if match and match[1] in _YEARS), "")


def damaged_parts(
    path: Path, year: str, n_frames: int, n_slices: int
) -> tuple[Damaged, tuple[str, ...]]:
    """What is left out of a file of 2024, and a warning; of one that may be, the warning alone."""
    other_set = {"ValidationSet", "TestSet"} & set(path.absolute().parts)
    bad = _KNOWN_BAD.get(subject_of(path))
    if bad is None or path.stem != "cine_sax" or other_set or year not in ("2024", ""):
        return _NONE_BAD, ()
    if n_frames <= bad.n_frames or (bad.slice_index is not None and n_slices == 1):
        return _NONE_BAD, ()
    damaged = f"the last {bad.n_frames} frames"
    damaged += "" if bad.slice_index is None else f" and slice {bad.slice_index}"
    note = f"left out {damaged}, which are damaged in this file as published"
    if not year:
        note = f"{damaged} are damaged as published if this file is of 2024"
        note += "; below a folder named 2024 they are left out"
    warnings.warn(f"{path}: {note}", DataWarning, stacklevel=4)
    return bad if year else _NONE_BAD, (note,)
