"""Reader for cine series in DICOM, one file an image or all in one file, made into k-space.

Images of a series are sorted into slices by their position along the slice normal, and into frames
by trigger time, else by instance number. All slices need as many frames. See `images` for what is
made of them.
"""

import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Num

from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.formats.arrays import check_size
from kgmgt_jax.data.formats.base import import_optional, orientation
from kgmgt_jax.data.formats.images import ImageFile
from kgmgt_jax.data.simulation import Simulation

__all__ = ["DicomSeries", "is_dicom", "read_series"]

_LARGEST_SIDE = 1 << 14


class _Image(NamedTuple):
    """Where one image belongs."""

    path: Path
    series: str
    slice: float
    order: tuple[float, float]
    n_frames: int
    size: tuple[int, int]
    direction: str


def is_dicom(head: bytes) -> bool:
    """Whether these are the first bytes of a DICOM file."""
    return head[128:132] == b"DICM"


def read_series(paths: Sequence[Path], source: Path, simulation: Simulation) -> list["DicomSeries"]:
    """The series in some DICOM files, by their identifiers.

    Args:
        paths: DICOM files.
        source: Folder they lie in, or the one file.
        simulation: How k-space is made of them.

    Raises:
        DataError: If the package ``pydicom`` is missing, a file is damaged, or the images of a
            series do not make up slices of equal size and length.
    """
    series = defaultdict(list)
    for path in paths:
        image = _describe(path)
        series[image.series].append(image)
    several = len(series) > 1
    return [
        DicomSeries(source, source.stem + f"/series{i}" * several, images, simulation)
        for i, (_, images) in enumerate(sorted(series.items()))
    ]


class DicomSeries(ImageFile):
    """One series; see `ImageFile`."""

    def __init__(
        self, source: Path, name: str, images: Sequence[_Image], simulation: Simulation
    ) -> None:
        slices = defaultdict(list)
        for image in images:
            slices[image.slice].append(image)
        self._slices = [
            [image.path for image in sorted(slices[position], key=lambda image: image.order)]
            for position in sorted(slices)
        ]
        counts = sorted({sum(image.n_frames for image in group) for group in slices.values()})
        sizes = sorted({image.size for image in images})
        if len(counts) > 1 or len(sizes) > 1:
            got = f"{counts} frames a slice and sizes {sizes}"
            fix = "give the folder of one cine series"
            raise DataError(source, "as many frames of one size in every slice", got, fix)
        super().__init__(
            source,
            simulation=simulation,
            shape=(counts[0], *sizes[0]),
            format="dicom",
            key="",
            n_slices=len(slices),
            name=name,
        )
        self._orientation = images[0].direction

    def _read_images(self, z: int) -> Num[np.ndarray, "t h w"]:
        size = self.slice_shape[-2:]
        frames = [_pixels(path).reshape(-1, *size) for path in self._slices[z]]
        return np.concatenate(frames)


def _describe(path: Path) -> _Image:
    data = _load(path, pixels=False)
    try:
        size = (int(data.Rows), int(data.Columns))
        n_frames = int(data.get("NumberOfFrames", 1) or 1)
        if not all(0 < side < _LARGEST_SIDE for side in size) or not 0 < n_frames < _LARGEST_SIDE:
            raise ValueError(f"sizes {n_frames} x {size}")
        along = np.array([float(v) for v in data.get("ImageOrientationPatient") or ()])
        position = np.array([float(v) for v in data.get("ImagePositionPatient") or ()])
        known = along.size == 6 and position.size == 3
        depth = float(np.cross(along[:3], along[3:]) @ position) if known else 0.0
        number = float(data.get("InstanceNumber") or 0)
        trigger = data.get("TriggerTime")
        return _Image(
            path,
            series=str(data.get("SeriesInstanceUID", "")),
            slice=round(depth, 1),
            order=(float(trigger) if trigger is not None else number, number),
            n_frames=n_frames,
            size=size,
            direction=orientation(along[3:], along[:3]) if known else "rows y, columns x",
        )
    except DataError:
        raise
    except Exception as error:  # pydicom parses values when asked for them
        raise DataError(path, "the header of a DICOM image", str(error)) from error


def _pixels(path: Path) -> np.ndarray:
    """Images of a file after its rescaling."""
    data = _load(path, pixels=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pixels = data.pixel_array
            if int(data.get("SamplesPerPixel", 1)) != 1:
                raise ValueError("colour images")
            slope, intercept = data.get("RescaleSlope", 1), data.get("RescaleIntercept", 0)
            with np.errstate(all="ignore"):
                return (pixels * float(slope) + float(intercept)).astype(np.float32)
    except Exception as error:  # of any kind on damaged or compressed pixels
        raise DataError(path, "grey images in DICOM", str(error)) from error


def _load(path: Path, *, pixels: bool) -> Any:
    package = import_optional("pydicom", path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = package.dcmread(path, stop_before_pixels=not pixels)
            if pixels:
                claimed = int(data.Rows) * int(data.Columns) * int(data.get("NumberOfFrames", 1))
                check_size(path, claimed * 4, path.stat().st_size)
            return data
    except DataError:
        raise
    except Exception as error:  # pydicom raises many kinds on damaged files
        got = str(error) or type(error).__name__
        raise DataError(path, "a complete DICOM file", got, "copy it again") from error
