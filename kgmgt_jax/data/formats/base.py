"""What all readers share: a file as a sequence of slices, and what they say about files."""

import importlib
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import overload

import numpy as np
from jaxtyping import Complex64, Float32

from kgmgt_jax.data.case import CaseMeta, CineCase, DataError

__all__ = [
    "ALL_SAMPLES",
    "FROM_SAMPLES",
    "PARALLEL",
    "CineFile",
    "DataWarning",
    "import_optional",
    "measured_pattern",
    "orientation",
    "refusing",
]

ALL_SAMPLES, FROM_SAMPLES = "all samples", "the samples that are not zero"
"""Where a mask comes from that no file holds."""
PARALLEL = 0.01  # largest difference of directions of parallel slices, as unit vectors

_FILTERS = threading.RLock()  # those of warnings are the process's, not a thread's

Shape = tuple[int, int, int, int]
Vector = Sequence[float] | np.ndarray


class DataWarning(UserWarning):
    """Something about a file that a user should know though the file can be used."""


class CineFile(Sequence[CineCase], ABC):
    """Slices of equal shape in one file, read from disk one at a time.

    Making it reads what is needed to refuse an unusable file at once; the k-space stays on disk.
    It holds no open file and may be sent to another process. ``len()``, indexing and iteration
    give one `CineCase` each.

    Attributes:
        path: The file.
        format: Name of the layout.
        slice_shape: Shape of every slice, ``(t, n, h, w)``.
        n_slices: Slices in the file; equal to ``len()`` unless some are left out.
        key: Dataset that holds the data; empty where a file holds one only.
        name: Prefix of the names of the cases; that of the file if left out.
        fully_sampled: Whether every line was acquired; see `CaseMeta`.
        simulation: How the k-space is simulated; empty for measured k-space.
        pixel_mm: Height and width of a pixel, where the file says so; see `CaseMeta`.
        frame_seconds: Time between frames, where the file says so.
        notes: What else a user should know, one sentence each.
    """

    def __init__(
        self,
        path: Path,
        *,
        format: str,
        slice_shape: Shape,
        n_slices: int,
        key: str = "",
        name: str = "",
        fully_sampled: bool = False,
        simulation: str = "",
        pixel_mm: tuple[float, float] | None = None,
        frame_seconds: float | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.path, self.format, self.key = path, format, key
        self.slice_shape, self.n_slices = slice_shape, n_slices
        self.fully_sampled, self.name = fully_sampled, name or path.stem
        self.simulation = simulation
        self.pixel_mm, self.frame_seconds = pixel_mm, frame_seconds
        self.notes = tuple(notes)

    def __len__(self) -> int:
        return self.n_slices

    def __repr__(self) -> str:
        what = f"{self.n_slices} x (t, n, h, w) {self.slice_shape}"
        return f"{type(self).__name__}({str(self.path)!r}: {what}, {self.format})"

    @overload
    def __getitem__(self, index: int) -> CineCase: ...
    @overload
    def __getitem__(self, index: slice) -> list[CineCase]: ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[z] for z in range(*index.indices(len(self)))]
        return self._read(range(len(self))[index])  # an IndexError beyond the last slice

    def slice_index(self, z: int) -> int:
        """Position of slice ``z`` in the file, larger where slices before it are left out."""
        return z

    def slice_name(self, z: int) -> str:
        """Name of slice ``z``, as in ``CaseMeta.name``, by its position in the file."""
        return f"{self.name}/slice{self.slice_index(z)}"

    @abstractmethod
    def _read(self, z: int) -> CineCase:
        """Reads one slice, ``0 <= z < len(self)``."""

    def _meta(self, z: int, **more) -> CaseMeta:
        """What all slices of the file have in common, and ``more`` about slice ``z``."""
        return CaseMeta(
            source=str(self.path),
            name=self.slice_name(z),
            key=self.key,
            slice_index=self.slice_index(z),
            n_slices=self.n_slices,
            format=self.format,
            fully_sampled=self.fully_sampled,
            simulation=self.simulation,
            pixel_mm=self.pixel_mm,
            frame_seconds=self.frame_seconds,
            **{"notes": self.notes, **more},
        )


def measured_pattern(kspace: Complex64[np.ndarray, "t n h w"]) -> Float32[np.ndarray, "t h w"]:
    """Mask of the samples that are not exactly zero in every coil, for files without a mask."""
    with np.errstate(invalid="ignore"):  # signalling NaN; CineCase refuses them
        return (kspace != 0).any(axis=1).astype(np.float32)


def import_optional(package: str, path: str | Path) -> ModuleType:
    """Imports a package that only some formats need.

    Raises:
        DataError: If it is not installed; the line names ``path`` and the extra to install.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        fix = "pip install 'kgmgt-jax[formats]'"
        raise DataError(path, f"the package {package!r} to read it", str(error), fix) from error


@contextmanager
def refusing(path: str | Path, expected: str, fix: str = "") -> Iterator[None]:
    """Makes a `DataError` of whatever a package raises on a damaged file; drops its warnings.

    Args:
        path, expected, fix: See `DataError`.
    """
    try:
        with _FILTERS, warnings.catch_warnings(action="ignore"):
            yield
    except DataError:
        raise
    except Exception as error:
        raise DataError(path, expected, str(error) or type(error).__name__, fix) from error


def orientation(rows: Vector, columns: Vector) -> str:
    """Directions in the patient along which the row and the column index grow.

    Args:
        rows: Direction of a growing row index, (x, y, z) towards left, posterior and superior
            (DICOM's frame), any length.
        columns: The same for the column index.

    Returns:
        E.g. ``"rows to P, columns to L"``: the nearest of L, R, A, P, S, I. Oblique planes are
        named by their main direction. ``"unknown"`` where one is not finite, or zero, as in
        headers that do not say.
    """

    def letter(vector: Vector) -> str:
        axis = int(np.argmax(np.abs(vector)))
        return ("RL", "AP", "IS")[axis][int(vector[axis] > 0)]

    if not all(np.all(np.isfinite(vector)) and np.any(vector) for vector in (rows, columns)):
        return "unknown"
    return f"rows to {letter(rows)}, columns to {letter(columns)}"
