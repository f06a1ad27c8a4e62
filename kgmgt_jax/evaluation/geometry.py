"""Where reconstructed images lie in the patient, taken over from a DICOM series or a NIfTI file.

A template need not have the matrix of the reconstruction (scanners interpolate): both are taken to
cover the same field of view, so pixels are rescaled. Slice 0 of a reconstruction is the first of
the template along the slice normal, which is how DICOM series are read too, or the last, if so
asked for. Notes tell where this may be otherwise: an oversampled readout covers more, and a scanner
may have acquired the slices against the normal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.folders import files_below
from kgmgt_jax.data.formats.base import PARALLEL, import_optional, orientation, refusing
from kgmgt_jax.data.formats.dicom import frame_seconds, slices_by_depth
from kgmgt_jax.data.formats.dicom_headers import (
    holds_image,
    is_magnitude,
    moment,
    single_headers,
)
from kgmgt_jax.data.formats.dicom_images import is_dicom
from kgmgt_jax.data.formats.images import nifti_units

__all__ = ["Geometry", "read_geometry"]

Shape = tuple[int, int, int, int]
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_STRETCH = 1.2  # of pixels against the template's, by more than which a note is due
_UNSAID = 2  # NIfTI's code of positions in some space
_OFF_MM = 0.5  # of a slice from where equal steps put it, likewise


@dataclass(frozen=True)
class Geometry:
    """Geometry of a reconstruction.

    Attributes:
        affine: millimetres towards right, anterior and superior of the pixel (column, row, slice).
        frame_seconds: time between frames; ``None`` if unknown.
        source: the template.
        datasets: DICOM headers of the template by slice and frame; none for NIfTI.
        notes: what a user should know of the fit, one sentence each.
        space: NIfTI's code of what positions are counted from: 1, as of DICOM, is the scanner.
    """

    affine: Float64[np.ndarray, "4 4"]
    frame_seconds: float | None
    source: Path
    datasets: tuple[tuple[Any, ...], ...] = ()
    notes: tuple[str, ...] = ()
    space: int = 1

    @property
    def pixel_mm(self) -> tuple[float, float]:
        """Height and width of a pixel."""
        width, height = np.linalg.norm(self.affine[:3, :2], axis=0)
        return float(height), float(width)

    @property
    def orientation(self) -> str:
        """How rows and columns lie in the patient, in the words of `CaseMeta`."""
        columns, rows = (_LPS_TO_RAS[:3, :3] @ self.affine[:3, :2]).T
        return orientation(rows, columns)


def read_geometry(path: str | Path, shape: Shape, *, reverse: bool = False) -> Geometry:
    """Geometry that a template gives to images of a shape.

    Args:
        path: a DICOM file (of one slice, or Enhanced MR), a folder of one DICOM series, or of one
            a slice, or a NIfTI file.
        shape: ``(t, z, h, w)`` of the reconstruction.
        reverse: whether slice 0 of the reconstruction is the last of the template along the normal
            (DICOM) or the third axis (NIfTI).

    Raises:
        DataError: if the template is neither, lacks its package, is damaged, holds several series
            of a slice or slices that are not parallel, does not say where it lies or how large its
            pixels are, or has another number of slices.
    """
    if not str(path):  # which would be the current folder
        raise DataError("template", "a path", "an empty one")
    path = Path(path)
    if path.name.lower().endswith((".nii", ".nii.gz")):
        return _of_nifti(path, shape, reverse)
    files = files_below(path) if path.is_dir() else [path]
    files = [file for file in files if file.is_file() and is_dicom(_head(file))]
    if not files:
        raise DataError(path, "a DICOM file or folder, or a NIfTI file, as template", "none")
    with refusing(path, "a template whose headers are as DICOM has them"):
        return _of_dicom(path, files, shape, reverse)


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(600)


def _of_nifti(path: Path, shape: Shape, reverse: bool) -> Geometry:
    nibabel = import_optional("nibabel", path)
    with refusing(path, "a complete NIfTI file"):
        image = nibabel.load(path)
        size, zooms = image.shape, image.header.get_zooms()
        length, time = nifti_units(image.header)
        codes = [int(image.header[f"{form}_code"]) for form in ("sform", "qform")]
        affine = np.diag([*3 * [length], 1.0]) @ np.asarray(image.affine, np.float64)
    _check_slices(path, size[2] if len(size) > 2 else 1, shape)
    _check_sides(path, affine)
    known = len(zooms) > 3 and zooms[3] > 0
    step = float(zooms[3]) * time if known else None
    if step is not None and len(size) > 3:
        step *= size[3] / shape[0]
    mirrored = _mirrored(affine)
    if reverse:
        affine = affine @ np.array(
            [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, shape[1] - 1], [0, 0, 0, 1]]
        )
    size = (size[1], size[0])
    affine, notes = affine @ _resampling(size, shape), _stretched(size, shape) + mirrored
    return Geometry(affine, step, path, notes=notes, space=codes[0] or codes[1] or _UNSAID)


def _of_dicom(path: Path, files: Sequence[Path], shape: Shape, reverse: bool) -> Geometry:
    headers = _headers(path, files)
    along = np.array([_vector(header, "ImageOrientationPatient") for header in headers])
    if np.abs(along - along[0]).max() > PARALLEL:
        expected, fix = "a template of parallel slices", "give the series of one of them"
        raise DataError(path, expected, "slices of several orientations", fix)
    normal = _directions(headers[0])[2]  # one for all, as in `data.formats.dicom`
    depths = [float(normal @ _vector(header, "ImagePositionPatient")) for header in headers]
    slices = slices_by_depth(depths)[:: -1 if reverse else 1]
    _check_slices(path, len(slices), shape)
    ordered = [tuple(sorted((headers[i] for i in each), key=_order)) for each in slices]
    for images in ordered:
        series = {str(image.get("SeriesInstanceUID", "")) for image in images}
        if len(series) > 1:
            expected, got = "a template of one DICOM series, or of one a slice", len(series)
            raise DataError(path, expected, f"{got} series of a slice", "give the folder of one")
    first, last = ordered[0][0], ordered[-1][0]
    int(first.get("SeriesNumber") or 0)  # what derived images make theirs of, when all is done
    columns, rows, normal = _directions(first)
    height, width = (float(value) for value in first.PixelSpacing)
    position = _vector(first, "ImagePositionPatient")
    thickness = first.get("SpacingBetweenSlices") or first.get("SliceThickness") or 1.0
    step = normal * float(thickness)
    if len(ordered) > 1:
        step = (_vector(last, "ImagePositionPatient") - position) / (len(ordered) - 1)
    affine = np.eye(4)
    affine[:3] = np.stack([columns * width, rows * height, step, position], axis=1)
    _check_sides(path, affine)
    size = (int(first.Rows), int(first.Columns))
    affine = _LPS_TO_RAS @ affine @ _resampling(size, shape)
    times = [header.get("TriggerTime") for header in ordered[0]]
    seconds = frame_seconds([None if time is None else float(time) for time in times])
    if seconds is not None:
        seconds *= len(times) / shape[0]  # the same cycle
    notes = _stretched(size, shape) + _uneven(ordered, step) + _against_numbers(ordered, reverse)
    return Geometry(affine, seconds, path, tuple(ordered), notes)


def _headers(path: Path, files: Sequence[Path]) -> list[Any]:
    """Headers of magnitude images, as a series is read: each image once."""
    found = {_identity(header): header for file in files for header in _headers_in(file)}
    headers = list(filter(is_magnitude, found.values()))
    if not headers:
        parts = f"{len(found)} of phase or complex parts, by their ImageType"
        got = parts if found else f"{len(files)} DICOM files without images"
        raise DataError(path, "magnitude images as template", got)
    return headers


def _identity(header: Any) -> tuple:
    """What no two images share; not the UID alone, which anonymising may make equal."""
    uid = str(header.get("SOPInstanceUID") or header.filename)
    return uid, *_vector(header, "ImagePositionPatient"), *_order(header)


def _stretched(size: tuple[int, int], shape: Shape) -> tuple[str, ...]:
    """A note where pixels would have another shape than the template's."""
    stretch = size[0] / shape[2] / (size[1] / shape[3])
    if 1 / _STRETCH <= stretch <= _STRETCH:
        return ()
    matrices = f"{size[0]} x {size[1]} of the template and {shape[2]} x {shape[3]} here"
    return (
        f"the matrices {matrices} are taken to cover the same field of view, so that pixels are "
        "stretched; if the readout is oversampled, --readout crops it",
    )


def _mirrored(affine: Float64[np.ndarray, "4 4"]) -> tuple[str, ...]:
    """A note where columns, rows and slices are left-handed, as those of DICOM never are."""
    if np.linalg.det(affine[:3, :3]) >= 0:
        return ()
    return (
        "the template is mirrored against DICOM's order, as by dcm2niix, which turns rows upside "
        "down; images in DICOM's order fit the DICOM series as template, not this",
    )


def _uneven(ordered: Sequence[Sequence[Any]], step: Float64[np.ndarray, " 3"]) -> tuple[str, ...]:
    """A note where slices are not equally far apart, or not in line, which NIfTI cannot say."""
    positions = np.array([_vector(frames[0], "ImagePositionPatient") for frames in ordered])
    expected = positions[0] + np.arange(len(ordered))[:, None] * step
    off = float(np.linalg.norm(positions - expected, axis=1).max())
    if off <= _OFF_MM:
        return ()
    return (
        "the template's slices are not equally far apart, or not in line: NIfTI, which has one "
        f"step for all, puts them up to {off:.1f} mm off, DICOM in their places",
    )


def _against_numbers(ordered: Sequence[Sequence[Any]], reverse: bool) -> tuple[str, ...]:
    """A note where images are numbered from the last slice to the first."""
    numbers = [int(frames[0].get("InstanceNumber") or 0) for frames in ordered]
    if len(numbers) < 2 or numbers != sorted(set(numbers), reverse=True):
        return ()
    fix = "leave out --reverse_slices" if reverse else "turn them by --reverse_slices"
    return (
        "the template's images are numbered from the last slice here to the first; if the slices "
        f"were acquired in that order, {fix}",
    )


def _check_slices(path: Path, found: int, shape: Shape) -> None:
    if found != shape[1]:
        expected = f"a template of {shape[1]} slices, as the reconstruction has"
        raise DataError(path, expected, f"{found}", "give the series of this acquisition")


def _check_sides(path: Path, affine: Float64[np.ndarray, "4 4"]) -> None:
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    if not ((sides > 0) & (sides < np.inf)).all():
        expected, got = "a template whose pixels and slices have a size", np.round(sides, 3)
        raise DataError(path, expected, f"{got} mm", "write their spacing into it")


def _resampling(size: tuple[int, int], shape: Shape) -> Float64[np.ndarray, "4 4"]:
    """Pixels (column, row) of the reconstruction in those of the template, borders on borders."""
    y, x = size[0] / shape[2], size[1] / shape[3]
    matrix = np.diag([x, y, 1.0, 1.0])
    matrix[:2, 3] = (x - 1) / 2, (y - 1) / 2
    return matrix


def _headers_in(path: Path) -> list[Any]:
    """Header of each image of a file; none of one that holds other things, such as a report."""
    pydicom = import_optional("pydicom", path)
    expected = "a DICOM image, or many in Enhanced MR, that says where it lies in the patient"
    with refusing(path, expected):  # pydicom parses values when asked for
        data = pydicom.dcmread(path, stop_before_pixels=True)
        if not holds_image(data):
            return []
        headers = single_headers(data)
        for header in headers:
            _check_plane(header)
        return headers


def _check_plane(header: Any) -> None:
    plane = ("ImageOrientationPatient", "ImagePositionPatient")
    if [_vector(header, keyword).size for keyword in plane] != [6, 3]:
        raise ValueError("an image without a plane")
    if int(header.Rows) < 1 or int(header.Columns) < 1 or len(header.PixelSpacing) != 2:
        raise ValueError("an image without size")


def _vector(header: Any, keyword: str) -> Float64[np.ndarray, " n"]:
    return np.array([float(value) for value in getattr(header, keyword)])


def _directions(header: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors along growing column index, row index, and the slice normal (LPS)."""
    along = _vector(header, "ImageOrientationPatient")
    return along[:3], along[3:], np.cross(along[:3], along[3:])


def _order(header: Any) -> tuple[float, float]:
    number = float(header.get("InstanceNumber") or 0)
    taken, _ = moment(header, 0)
    return (number if taken is None else taken, number)
