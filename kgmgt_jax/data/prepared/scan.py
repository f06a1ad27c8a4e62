"""What there is to prepare below a path: fully sampled slices, and what is left out."""

import functools
import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import kgmgt_jax
from kgmgt_jax.data.case import CineCase, DataError
from kgmgt_jax.data.formats import CineFile, Unit, find_units, open_unit, undersampled_key
from kgmgt_jax.data.formats.recognise import IMAGES
from kgmgt_jax.data.formats.roles import companion
from kgmgt_jax.data.prepared.layout import VERSION
from kgmgt_jax.data.prepared.options import PrepareOptions
from kgmgt_jax.data.subjects import identify

__all__ = ["PlannedSlice", "Skipped", "SliceReader", "scan"]

_WITHOUT_EFFECT = ("views", "split", "seed", "subject")
"""Settings that choose and sort slices without changing any."""


class Skipped(NamedTuple):
    """A file or slice that is not in the set.

    Attributes:
        source: Path of the file.
        name: Of the slice; empty for a whole file.
        reason: Why, in one line.
        bad: Whether it could not be used, rather than was not meant to be.
    """

    source: str
    name: str
    reason: str
    bad: bool


@dataclass(frozen=True, eq=False)
class PlannedSlice:
    """A slice to prepare.

    It holds no open file, nor any array, for there may be thousands.

    Attributes:
        unit: What to open.
        number: Which file of those that the unit holds.
        index: Which slice of that file, of those that are not left out.
        path: Path of that file.
        name: Of the slice, for messages.
        subject: Who was scanned.
        view: Cardiac view; empty where unknown.
        id: 16 hexadecimal digits from its place in the source.
        key: The same from all that its images depend on: its place, the state of the file, the
            options and the version of this package.
    """

    unit: Unit
    number: int
    index: int
    path: Path
    name: str
    subject: str
    view: str
    id: str
    key: str

    @property
    def where(self) -> str:
        """File and slice, for messages."""
        return f"{self.path} [{self.name}]"


class SliceReader:
    """Reads planned slices; those of one file, one after the other, open it once.

    Args:
        options: What is done to the slices.
    """

    def __init__(self, options: PrepareOptions) -> None:
        self._open = functools.lru_cache(maxsize=1)(lambda unit: _open(unit, options))

    def read(self, planned: PlannedSlice) -> CineCase:
        """Reads one slice.

        Raises:
            DataError: If it is damaged, or its file has changed since it was planned.
        """
        files = self._open(planned.unit)
        if planned.number >= len(files) or planned.index >= len(files[planned.number]):
            raise DataError(planned.where, "the slice that was there before", "no such slice")
        return files[planned.number][planned.index]


def scan(
    root: Path, options: PrepareOptions, *, skip_bad: bool = False
) -> tuple[list[PlannedSlice], list[Skipped]]:
    """Opens every file below a path and lists its slices, in order, reading none of them.

    Undersampled files, files that hold no cine, views that are not asked for, and magnitude images
    where there is k-space are left out.

    Args:
        root: A file or a folder.
        options: What is done to the slices.
        skip_bad: Whether to leave out what cannot be opened as well.

    Raises:
        DataError: If a file cannot be opened, or nothing is left.
    """
    units = find_units(root)
    kspace = any(unit.error is None and unit.format not in IMAGES for unit in units)
    slices: list[PlannedSlice] = []
    skipped: list[Skipped] = []
    for unit in units:
        try:
            reason = _left_out(unit, options, only=len(units) == 1, beside_kspace=kspace)
            files = [] if reason else _open(unit, options)
            if reason:
                skipped.append(Skipped(str(unit.path), "", reason, bad=False))
            for number, file in enumerate(files):
                planned = _plan(unit, number, file, root, options)
                slices += planned if isinstance(planned, list) else []
                skipped += [planned] if isinstance(planned, Skipped) else []
        except (DataError, OSError) as error:
            if not skip_bad:
                raise
            skipped.append(Skipped(str(unit.path), "", str(error), bad=True))
    if not slices:
        got = f"none in {len(units)} files"
        got += f", such as {skipped[0].source}: {skipped[0].reason}" if skipped else ""
        raise DataError(root, "at least one fully sampled cine", got)
    return slices, skipped


def _left_out(
    unit: Unit, options: PrepareOptions, *, only: bool, beside_kspace: bool
) -> str | None:
    """Why a file is no reference for training though nothing is wrong with it, if so."""
    named = options.read.key is not None or options.read.axes is not None
    if unit.error is not None and unit.format != "damaged" and not only and not named:
        return str(unit.error)
    if unit.format in IMAGES and beside_kspace:
        return "magnitude images where there is k-space"
    if not named:
        key = undersampled_key(unit)
        return None if key is None else f"undersampled {key!r}"
    return None


def _open(unit: Unit, options: PrepareOptions) -> list[CineFile]:
    with warnings.catch_warnings(action="ignore"):  # they are in the notes of each slice too
        return open_unit(unit, options.read)


def _plan(
    unit: Unit, number: int, file: CineFile, root: Path, options: PrepareOptions
) -> list[PlannedSlice] | Skipped:
    """The slices of a file, or why none is wanted."""
    subject, view = identify(file, root, options.subject)
    views = options.views
    if not file.fully_sampled:
        what = repr(file.key) if file.key else "k-space"
        return Skipped(str(file.path), "", f"undersampled {what}", bad=False)
    if views and not any(view == kept or view.startswith(f"{kept}_") for kept in views):
        reason = f"view {view!r}, not one of {','.join(views)}"
        return Skipped(str(file.path), "", reason, bad=False)
    state = list(_state(file.path))
    settings = {k: v for k, v in options.settings().items() if k not in _WITHOUT_EFFECT}
    slices = []
    for index in range(len(file)):
        place = [os.path.relpath(file.path, root), file.key, file.name, index]
        made_of = [kgmgt_jax.__version__, VERSION, str(root), place, state, settings]
        slices.append(
            PlannedSlice(
                unit,
                number,
                index,
                file.path,
                file.slice_name(index),
                subject,
                view,
                id=_hashed(place),
                key=_hashed(made_of),
            )
        )
    return slices


def _hashed(values: Sequence) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def _state(path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of change of every file that a reader may look at.

    That is all of a folder for DICOM; for BART and npy, the file and its companions.
    """
    files = [path]
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.is_file())
    elif path.suffix in (".npy", ".cfl"):
        files += filter(None, (companion(path, role) for role in ("mask", "sens")))
        if path.suffix == ".cfl":
            files += [file.with_suffix(".hdr") for file in files]
    for file in files:
        status = file.stat()
        yield file.name, status.st_size, status.st_mtime_ns
