"""Reader for cine series in DICOM, one file an image or many (Enhanced MR), made into k-space.

Images of a series are sorted into slices by their plane, planes of one orientation by their
position along the normal, and into frames by trigger time, else by number. All slices need as many
frames, no two of one time. Images of phase and real or imaginary parts, by their
``ComplexImageComponent`` or ``ImageType``, are left out, and so are copies of an image, files
without images, such as reports, and series that no package here decompresses, beside others. See
`formats.images` for what is made of the others.
"""

import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Num

from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.formats.arrays import file_state
from kgmgt_jax.data.formats.base import PARALLEL, DataWarning
from kgmgt_jax.data.formats.dicom_images import (
    DECOMPRESS,
    DicomImage,
    describe_images,
    read_pixels,
)
from kgmgt_jax.data.formats.images import ImageFile
from kgmgt_jax.data.simulation import Simulation

__all__ = [
    "DicomSeries",
    "frame_seconds",
    "read_series",
    "slices_by_depth",
]

_SAME_DEPTH = 0.05  # mm


def frame_seconds(times: Sequence[float | None]) -> float | None:
    """Mean time between frames of a slice.

    Args:
        times: Of each frame in order, in milliseconds; ``None`` where the file does not say.

    Returns:
        Seconds; ``None`` for one frame, where a time is missing, or where they do not grow.
    """
    known = [time for time in times if time is not None]
    if len(known) < max(len(times), 2) or known[-1] <= known[0]:
        return None
    return (known[-1] - known[0]) / (len(known) - 1) / 1000


def slices_by_depth(depths: Sequence[float]) -> list[list[int]]:
    """Indices of images by slice, in order of depth; within 0.05 mm of another they are of one.

    Args:
        depths: Position of each image along the slice normal in mm.
    """
    order = np.argsort(depths, kind="stable")
    apart = np.diff(np.asarray(depths)[order]) > _SAME_DEPTH
    return [part.tolist() for part in np.split(order, np.flatnonzero(apart) + 1)]


def read_series(paths: Sequence[Path], source: Path, simulation: Simulation) -> list["DicomSeries"]:
    """The series of magnitude images in some DICOM files, by their identifiers.

    Args:
        paths: DICOM files.
        source: Folder they lie in, or the one file.
        simulation: How k-space is made of them.

    Raises:
        DataError: If the package ``pydicom`` is missing, or one that decompresses any series, a
            file is damaged, no image is a magnitude, or those of a series do not make up slices of
            equal size and length.
    """
    each = [describe_images(path) for path in paths]
    described = [image for images in each for image in images]
    if not described:
        raise DataError(source, "DICOM images", f"{len(each)} files that hold none")
    n_without = sum(not images for images in each)
    found = list({_identity(image): image for image in described}.values())
    series = defaultdict(list)
    for image in found:
        if image.magnitude:
            series[image.series].append(image)
    n_copies, n_left_out = len(described) - len(found), len(found) - sum(map(len, series.values()))
    notes = [f"left out {n_without} DICOM files without images"] if n_without else []
    notes += [f"left out {n_copies} copies of images"] if n_copies else []
    notes += [f"left out {n_left_out} images that are no magnitudes"] if n_left_out else []
    if not series:
        got = f"{n_left_out} of phase or complex parts, by their ImageType"
        raise DataError(source, "magnitude images", got)
    series, packed = _decompressible(series, source)
    notes += packed
    for note in notes:
        warnings.warn(f"{source}: {note}", DataWarning, stacklevel=3)
    several = len(series) > 1
    name = source.name if source.is_dir() else source.stem  # folders may be called by UIDs
    return [
        DicomSeries(source, name + f"/series{i}" * several, images, simulation, notes)
        for i, (_, images) in enumerate(sorted(series.items()))
    ]


def _decompressible(
    series: dict[str, list[DicomImage]], source: Path
) -> tuple[dict[str, list[DicomImage]], list[str]]:
    """The series whose pixels some package here decompresses, and notes of the others."""
    known, notes, how = {}, [], ""
    for key, images in series.items():
        packed = next((image.packed for image in images if image.packed), "")
        if not packed:
            known[key] = images
            continue
        how = repr(packed)
        notes.append(f"left out {len(images)} images compressed by {how}: {DECOMPRESS}")
    if not known:
        raise DataError(source, f"a package that decompresses DICOM's {how}", "none", DECOMPRESS)
    return known, notes


class DicomSeries(ImageFile):
    """One series; see `ImageFile`."""

    def __init__(
        self,
        source: Path,
        name: str,
        images: Sequence[DicomImage],
        simulation: Simulation,
        notes: Sequence[str] = (),
    ) -> None:
        groups = _by_orientation(images)
        slices = [each for group in groups for each in _slices_of(group)]
        self._slices = [sorted(each, key=lambda image: image.order) for each in slices]
        counts = sorted({len(each) for each in slices})
        sizes = sorted({image.size for image in images})
        if len(counts) > 1 or len(sizes) > 1:
            got = f"{counts} frames a slice and sizes {sizes}"
            fix = "give the folder of one cine series"
            raise DataError(source, "as many frames of one size in every slice", got, fix)
        _check_times(source, self._slices)
        pixels = {image.pixel_mm for image in images}
        super().__init__(
            source,
            simulation=simulation,
            shape=(counts[0], *sizes[0]),
            format="dicom",
            n_slices=len(slices),
            name=name,
            pixel_mm=pixels.pop() if len(pixels) == 1 else None,
            frame_seconds=frame_seconds([image.time for image in self._slices[0]]),
            notes=notes,
        )
        self._is_stack = len(groups) == 1

    def _read_images(self, z: int) -> Num[np.ndarray, "t h w"]:
        images = self._slices[z]
        paths = {image.path for image in images}
        pixels = {path: read_pixels(path, file_state(path)) for path in paths}
        return np.stack([pixels[image.path][image.index] for image in images])

    def _place(self, z: int) -> dict[str, Any]:
        return {"orientation": self._slices[z][0].direction, "is_stack": self._is_stack}


def _identity(image: DicomImage) -> tuple:
    """What no two images of a series share; not the UID alone, which anonymising may make equal."""
    return image.uid or image.path, image.index, image.position, image.along, image.order


def _by_orientation(images: Sequence[DicomImage]) -> list[list[DicomImage]]:
    """Images of parallel planes together; those that do not say where they lie, too."""
    groups: list[list[DicomImage]] = []
    for image in images:
        for group in groups:
            first = group[0].along
            if len(first) == len(image.along) and np.allclose(first, image.along, 0, PARALLEL):
                group.append(image)
                break
        else:
            groups.append([image])
    return sorted(groups, key=lambda group: np.round(group[0].along, 2).tolist())


def _slices_of(group: Sequence[DicomImage]) -> list[list[DicomImage]]:
    """Images of parallel planes by slice, in order along the normal."""
    depths = [0.0] * len(group)
    if group[0].along:
        normal = np.cross(group[0].along[:3], group[0].along[3:])
        depths = [float(normal @ image.position) for image in group]
    return [[group[index] for index in each] for each in slices_by_depth(depths)]


def _check_times(source: Path, slices: Sequence[Sequence[DicomImage]]) -> None:
    """Refuses two acquisitions of a slice in one series; a time that all frames have says nothing.

    Args:
        source: Folder or file, for the message.
        slices: Images of each slice, sorted.
    """
    for z, images in enumerate(slices):
        moments = Counter(image.moment for image in images if image.moment is not None)
        twice = sorted(moment for moment, n in moments.items() if n > 1)
        if twice and len(moments) > 1:
            at = f"{twice[0]:g}" + " ms" * (images[0].time is not None)
            got = f"several at {at} in slice {z}"
            fix = "give the folder of one acquisition"
            raise DataError(source, "one image of a slice at a time", got, fix)
