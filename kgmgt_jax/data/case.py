"""One cine slice in memory: the single interface that every file reader fills."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Complex64

from kgmgt_jax.commands import one_line
from kgmgt_jax.mri.coils import calibration_size

__all__ = ["CaseMeta", "CineCase", "DataError", "pixel_aspect"]

_NEGLIGIBLE = 1e-6
"""Samples outside the mask below this fraction of the largest sample count as rounding."""

_PEAK = (1e-15, 1e15)
"""The largest sample lies in between, so that single-precision squares stay finite and normal."""


class DataError(ValueError):
    """A file or array that cannot be used, told in one line: where, expected, found, remedy.

    Args:
        source: File, directory or case at fault.
        expected: What a usable input would have had there.
        got: What was found instead.
        fix: What the user can change; left out of the line when empty.
    """

    def __init__(self, source: str | Path, expected: str, got: str, fix: str = "") -> None:
        # All four reach `args`, so the error survives pickling out of a loader's worker process.
        super().__init__(str(source), expected, got, fix)

    def __str__(self) -> str:
        source, expected, got, fix = self.args
        line = f"{source}: expected {expected}, got {got}" + (f"; {fix}" if fix else "")
        return one_line(line)


def pixel_aspect(pixel_mm: tuple[float, float] | None) -> float:
    """Height / width of a pixel, by which pictures are drawn; 1 where they are not known."""
    return 1.0 if pixel_mm is None else pixel_mm[0] / pixel_mm[1]


@dataclass(frozen=True)
class CaseMeta:
    """Where a case comes from.

    Attributes:
        source: Path of the file that holds the k-space.
        name: Short unique name for tables and file names, e.g. ``"P001/cine_sax/slice0"``.
        key: Name of the dataset inside the file.
        slice_index: Position of this slice in the file, from 0.
        n_slices: Number of slices in the file.
        format: Name of the layout, e.g. ``"cmrxrecon2023"``.
        fully_sampled: Whether every line was acquired, so that the case can serve as reference. A
            partial echo or a partial Fourier scan counts, though its mask has zeros.
        nominal_acceleration: Acceleration as the file names it, which leaves the central lines
            out of the count; ``None`` where the file does not say. Compare
            ``CineCase.true_acceleration``.
        orientation: How rows (ky) and columns (kx) lie in the file, and in the patient where the
            file says so, e.g. ``"rows to P, columns to L"``.
        view: Cardiac view, e.g. ``"sax"`` or ``"lax_4ch"``; empty where the file does not say.
        is_stack: Whether the slices of the file are parallel; those of a long-axis file are
            different views.
        mask_source: Where the mask comes from: a path, or how it was told from the k-space.
        simulation: How the k-space was simulated; empty for measured k-space.
        pixel_mm: Height and width of a pixel of the image in mm; ``None`` where the file does not
            say.
        frame_seconds: Time between frames; ``None`` where the file does not say.
        notes: What else a user should know, one sentence each.
    """

    source: str
    name: str
    key: str
    slice_index: int
    n_slices: int
    format: str
    fully_sampled: bool
    nominal_acceleration: float | None = None
    orientation: str = "rows ky, columns kx"
    view: str = ""
    is_stack: bool = True
    mask_source: str = ""
    simulation: str = ""
    pixel_mm: tuple[float, float] | None = None
    frame_seconds: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def simulated(self) -> bool:
        """Whether the k-space was computed from images instead of measured."""
        return bool(self.simulation)


@dataclass(frozen=True, eq=False)
class CineCase:
    """K-space of one slice over time, checked when it is made.

    Attributes:
        kspace: complex64, centred k-space in the file's own units, ``(t, n, h, w)``, zero where not
            measured. Stray values outside the mask no larger than 1e-6 of the largest sample are
            set to zero; larger ones are an error.
        mask: float32, 1 where a sample was measured and 0 elsewhere, ``(t, h, w)``. The mask
            decides: a measured sample may be exactly zero.
        meta: Where the case comes from.
        sens: complex64, coil sensitivities ``(n, h, w)`` of unit sum of squares, or
            ``(t, n, h, w)`` where they change over time, or ``None`` where the file has none.
        reference: images to compare with, float32 magnitude or complex64, ``(t, h, w)`` or a
            smaller centred window of it, in the units of the k-space; ``None`` where there are
            none.

    Raises:
        DataError: If shapes disagree, a dtype is wrong, a value is NaN or infinite, the mask holds
            anything but 0 and 1, nothing was measured, all samples are zero, the largest one is
            below 1e-15 or above 1e15, or samples lie outside the mask.
    """

    kspace: np.ndarray  # complex64 (t, n, h, w); plain types, for the checks below are the judge
    mask: np.ndarray  # float32 (t, h, w)
    meta: CaseMeta
    sens: np.ndarray | None = None  # complex64 (n, h, w) or (t, n, h, w)
    reference: np.ndarray | None = None  # float32 or complex64 (t, h, w), or its centre

    def __post_init__(self) -> None:
        self._check_dtypes()
        self._check_shapes()
        self._check_values()
        object.__setattr__(self, "kspace", self._without_strays())

    def __repr__(self) -> str:
        """One line of shapes; the arrays would fill a notebook."""
        shapes = {
            name: array.shape
            for name in ("kspace", "mask", "sens", "reference")
            if (array := getattr(self, name)) is not None
        }
        told = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        return f"CineCase({self.meta.name}: {told}, acceleration {self.true_acceleration:.2f})"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Frames, coils, phase encodes and readout samples: ``(t, n, h, w)``."""
        return self.kspace.shape

    @property
    def n_frames(self) -> int:
        """Number of cardiac frames."""
        return self.kspace.shape[0]

    @property
    def n_coils(self) -> int:
        """Number of receive coils."""
        return self.kspace.shape[1]

    @property
    def true_acceleration(self) -> float:
        """All samples over measured samples, the central lines included."""
        return self.mask.size / float(self.mask.sum(dtype=np.float64))

    @property
    def acs(self) -> int:
        """Complete lines around the centre of k-space in every frame, 0 if there is none.

        Columns that no line has (of a partial echo) do not count.
        """
        columns = self.mask.any(axis=(0, 1))
        return _central_run(np.min(self.mask[..., columns], axis=(0, 2)) > 0)

    @property
    def calibration_lines(self) -> int:
        """Lines that coil maps can be estimated from; see `calibration_size`."""
        return calibration_size(np.max(self.mask, axis=0) > 0)[0]

    def _error(self, expected: str, got: str, fix: str = "") -> DataError:
        return DataError(f"{self.meta.source} [{self.meta.name}]", expected, got, fix)

    def _check_dtypes(self) -> None:
        wanted = {
            "kspace": "complex64",
            "mask": "float32",
            "sens": "complex64",
            "reference": "float32 or complex64",
        }
        for name, dtypes in wanted.items():
            array = getattr(self, name)
            if name in ("sens", "reference") and array is None:
                continue
            if not isinstance(array, np.ndarray) or str(array.dtype) not in dtypes.split():
                kind = "" if isinstance(array, np.ndarray) else type(array).__name__
                got = f"{kind} {getattr(array, 'dtype', '')}".strip()
                raise self._error(f"{name} as a NumPy array of {dtypes}", got)

    def _check_shapes(self) -> None:
        if self.kspace.ndim != 4 or 0 in self.kspace.shape:
            got = f"shape {self.kspace.shape}"
            raise self._error("k-space with four non-empty axes (t, n, ky, kx)", got)
        t, n, h, w = self.kspace.shape
        if self.mask.shape != (t, h, w):
            got = f"mask {self.mask.shape} beside k-space {self.kspace.shape}"
            raise self._error(f"a mask of shape (t, ky, kx) = {(t, h, w)}", got)
        if self.sens is not None and self.sens.shape not in ((n, h, w), (t, n, h, w)):
            got = f"sens {self.sens.shape} beside k-space {self.kspace.shape}"
            wanted = f"(t, n, ky, kx) = {(t, n, h, w)} or (n, ky, kx) = {(n, h, w)}"
            raise self._error(f"sensitivities of shape {wanted}", got)
        if self.reference is not None:
            size = self.reference.shape
            if len(size) != 3 or 0 in size or size[0] != t or size[1] > h or size[2] > w:
                got = f"reference {size} beside k-space {self.kspace.shape}"
                raise self._error(f"a reference of at most (t, ky, kx) = {(t, h, w)}", got)

    def _check_values(self) -> None:
        self._check_finite()
        if not np.isin(self.mask, (0, 1)).all():
            values = np.setdiff1d(self.mask, (0, 1))
            got = f"{values.size} other values, {values.min():g} to {values.max():g}"
            raise self._error("a mask of zeros and ones", got)
        if not self.kspace.any():
            raise self._error("k-space with signal", "zeros only")
        if not self.mask.any():
            raise self._error("a mask with measured samples", "a mask of zeros only")
        parts = np.real(self.kspace), np.imag(self.kspace)
        peak, (least, most) = max(float(np.abs(part).max()) for part in parts), _PEAK
        if not least <= peak <= most:
            fix = "bring the file to other units, or copy it again if it is damaged"
            raise self._error(f"k-space with a peak of {least:g} to {most:g}", f"{peak:.2g}", fix)

    def _check_finite(self) -> None:
        bad = ~np.isfinite(self.kspace)
        if bad.any():
            per_frame = bad.sum(axis=(1, 2, 3))
            frames = np.flatnonzero(per_frame).tolist()
            got = f"{per_frame.sum()} NaN or infinite samples in frames {frames}"
            raise self._error("finite k-space", got)
        for name in ("sens", "reference"):
            array = getattr(self, name)
            if array is not None and not np.isfinite(array).all():
                got = f"{np.count_nonzero(~np.isfinite(array))} NaN or infinite values"
                what = "sensitivities" if name == "sens" else "reference"
                raise self._error(f"finite {what}", got)

    def _without_strays(self) -> Complex64[np.ndarray, "t n h w"]:
        """K-space with rounding residue outside the mask removed, real samples there refused."""
        unmeasured = np.broadcast_to(self.mask[:, None] == 0, self.kspace.shape)
        strays = unmeasured & (self.kspace != 0)
        if not strays.any():
            return self.kspace
        peak, outside = np.abs(self.kspace).max(), np.abs(self.kspace[strays]).max()
        if outside > _NEGLIGIBLE * peak:
            got = f"{strays.sum()} samples outside the mask, up to {outside / peak:.1g} of the peak"
            raise self._error(
                "zeros wherever the mask is 0", got, "give the mask this file was acquired with"
            )
        return np.where(unmeasured, np.complex64(0), self.kspace)


def _central_run(lines: Bool[np.ndarray, " h"]) -> int:
    """How many lines in a row are true around the central one."""
    centre = lines.size // 2
    below, above = np.cumprod(lines[centre::-1]), np.cumprod(lines[centre:])
    return max(0, int(below.sum() + above.sum()) - 1)
