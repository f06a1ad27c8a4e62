"""What there is to prepare below a path: slices of the kind wanted, and what is left out."""

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
from kgmgt_jax.commands import watched
from kgmgt_jax.data.case import CineCase, DataError
from kgmgt_jax.data.formats import CineFile, Unit, find_units, open_unit, undersampled_key
from kgmgt_jax.data.formats.recognise import IMAGES
from kgmgt_jax.data.formats.roles import companion
from kgmgt_jax.data.prepared.layout import VERSION
from kgmgt_jax.data.prepared.options import PrepareOptions
from kgmgt_jax.data.subjects import identify

__all__ = ["PlannedSlice", "Skipped", "SliceReader", "scan"]

# To be raised with every change of what is kept of the same slice, so that one kept by an earlier
# version is not taken for a finished one.
_KEPT = 2
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
            where = f"{planned.path} [{planned.name}]"
            raise DataError(where, "the slice that was there before", "no such slice")
        return files[planned.number][planned.index]


def scan(
    root: Path, options: PrepareOptions, *, skip_bad: bool = False
) -> tuple[list[PlannedSlice], list[Skipped]]:
    """Opens every file below a path and lists its slices, in order, reading none of them.

    Undersampled files (or fully sampled ones, if undersampled ones are asked for), files that hold
    no cine, views that are not asked for, and magnitude images where there is k-space are left out.

    Args:
        root: A file or a folder.
        options: What is done to the slices.
        skip_bad: Whether to leave out what cannot be opened as well.

    Raises:
        DataError: If a file cannot be opened, or nothing is left.
    """
    units = find_units(root)
    kspace = any(unit.error is None and unit.format not in IMAGES for unit in units)
    acting = {k: v for k, v in options.settings().items() if k not in _WITHOUT_EFFECT}
    settings = [kgmgt_jax.__version__, VERSION, _KEPT, str(root), acting]
    state_of = functools.lru_cache(maxsize=1)(_state)  # series of a folder share its thousands
    slices: list[PlannedSlice] = []
    skipped: list[Skipped] = []
    for unit in watched(units, "open"):
        try:
            reason = _left_out(unit, options, only=len(units) == 1, beside_kspace=kspace)
            files = [] if reason else _open(unit, options)
            if reason:
                skipped.append(Skipped(str(unit.path), "", reason, bad=False))
            for number, file in enumerate(files):
                subject, view = identify(file, root, options.subject)
                reason = _unwanted(file, view, options)
                if reason:
                    skipped.append(Skipped(str(file.path), "", reason, bad=False))
                else:
                    made_of = [*settings, state_of(file.path)]
                    slices += _plan(unit, number, file, (subject, view), root, made_of)
        except (DataError, OSError) as error:
            if not skip_bad:
                raise
            skipped.append(Skipped(str(unit.path), "", str(error), bad=True))
    if not slices:
        got = f"none in {len(units)} files"
        got += f", such as {skipped[0].source}: {skipped[0].reason}" if skipped else ""
        kind = "undersampled" if options.undersampled else "fully sampled"
        raise DataError(root, f"at least one {kind} cine", got)
    return slices, skipped


def _left_out(
    unit: Unit, options: PrepareOptions, *, only: bool, beside_kspace: bool
) -> str | None:
    """Why a file is not to be opened though nothing is wrong with it, if so."""
    named = options.read.key is not None or options.read.axes is not None
    if unit.error is not None and unit.format != "damaged" and not only and not named:
        return str(unit.error)
    if unit.format in IMAGES and beside_kspace:
        return "magnitude images where there is k-space"
    if not named and not options.undersampled:
        key = undersampled_key(unit)
        return None if key is None else f"undersampled {key!r}"
    return None


def _open(unit: Unit, options: PrepareOptions) -> list[CineFile]:
    with warnings.catch_warnings(action="ignore"):  # they are in the notes of each slice too
        return open_unit(unit, options.read)


def _unwanted(file: CineFile, view: str, options: PrepareOptions) -> str | None:
    """Why no slice of an open file is wanted, if so."""
    views = options.views
    if file.fully_sampled == options.undersampled:
        kind = "fully sampled" if file.fully_sampled else "undersampled"
        return f"{kind} {repr(file.key) if file.key else 'k-space'}"
    if views and not any(view == kept or view.startswith(f"{kept}_") for kept in views):
        return f"view {view!r}, not one of {','.join(views)}"
    return None


def _plan(
    unit: Unit,
    number: int,
    file: CineFile,
    who: tuple[str, str],
    root: Path,
    made_of: Sequence,
) -> Iterator[PlannedSlice]:
    """The slices of a file; ``made_of`` is what their images depend on besides their place."""
    for index in range(len(file)):
        place = [os.path.relpath(file.path, root), file.key, file.name, index]
        name = file.slice_name(index)
        yield PlannedSlice(
            unit,
            number,
            index,
            file.path,
            name,
            *who,
            id=_hashed(place),
            key=_hashed([place, *made_of]),
        )


def _hashed(values: Sequence) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def _state(path: Path) -> str:
    """What tells by name, size and time of change of every file that a reader may look at.

    That is all of a folder for DICOM; for BART and npy, the file and its companions.
    """
    files = [path]
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.is_file())
    elif path.suffix.lower() in (".npy", ".cfl"):
        files += filter(None, (companion(path, role) for role in ("mask", "sens")))
        if path.suffix == ".cfl":
            files += [file.with_suffix(".hdr") for file in files]
    states = [(file.name, file.stat()) for file in files]
    return _hashed([(name, state.st_size, state.st_mtime_ns) for name, state in states])
