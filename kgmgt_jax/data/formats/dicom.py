"""Reader for cine series in DICOM, one file an image or many (Enhanced MR), made into k-space.

Images of a series are sorted into slices by their plane, planes of one orientation by their
position along the normal, and into frames by trigger time, else by number. All slices need as many
frames. Images of phase and real or imaginary parts, by their ``ComplexImageComponent`` or
``ImageType``, are left out. See `images` for what is made of the others.
"""

import functools
import re
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Num

from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.formats.arrays import check_size, file_state
from kgmgt_jax.data.formats.base import DataWarning, import_optional, orientation
from kgmgt_jax.data.formats.images import ImageFile
from kgmgt_jax.data.simulation import Simulation

__all__ = ["DicomSeries", "frame_seconds", "is_dicom", "read_series"]

_LARGEST_SIDE = 1 << 14
_NO_MAGNITUDE = re.compile(
    r"(P|R|I)(_\w+)?|PHASE|REAL|IMAGINARY|(PHASE|VELOCITY)( MAP)?"
)  # of the values of ImageType after the second
# Where an image says when it was taken; the first is for one image a file.
_TIMES = (
    ("", "TriggerTime"),
    ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
    ("CardiacSynchronizationSequence", "ActualCardiacTriggerDelayTime"),
    ("FrameContentSequence", "TemporalPositionIndex"),
)
_NO_TIMES = ("TemporalPositionIndex",)  # which say the order alone, the others are milliseconds


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


class _Image(NamedTuple):
    """Where one image belongs.

    Attributes:
        path: Its file.
        index: Its number in the file.
        series: Identifier of the series.
        plane: Direction of columns and rows, rounded, and depth along their normal in mm.
        order: What a slice's images are sorted by.
        time: Milliseconds in the cardiac cycle; ``None`` where the file does not say.
        size: Rows and columns.
        pixel_mm: Height and width of a pixel; ``None`` where the file does not say.
        direction: See `orientation`.
        magnitude: Whether it is one, as far as the file says.
    """

    path: Path
    index: int
    series: str
    plane: tuple[float, ...]
    order: tuple[float, ...]
    time: float | None
    size: tuple[int, int]
    pixel_mm: tuple[float, float] | None
    direction: str
    magnitude: bool


def is_dicom(head: bytes) -> bool:
    """Whether these are the first bytes of a DICOM file."""
    return head[128:132] == b"DICM"


def read_series(paths: Sequence[Path], source: Path, simulation: Simulation) -> list["DicomSeries"]:
    """The series of magnitude images in some DICOM files, by their identifiers.

    Args:
        paths: DICOM files.
        source: Folder they lie in, or the one file.
        simulation: How k-space is made of them.

    Raises:
        DataError: If the package ``pydicom`` is missing, a file is damaged, no image is a
            magnitude, or those of a series do not make up slices of equal size and length.
    """
    found = [image for path in paths for image in _describe(path)]
    series = defaultdict(list)
    for image in found:
        if image.magnitude:
            series[image.series].append(image)
    n_left_out = len(found) - sum(map(len, series.values()))
    notes = [f"left out {n_left_out} images that are no magnitudes"] if n_left_out else []
    if not series:
        got = f"{n_left_out} of phase or complex parts, by their ImageType"
        raise DataError(source, "magnitude images", got)
    if notes:
        warnings.warn(f"{source}: {notes[0]}", DataWarning, stacklevel=3)
    several = len(series) > 1
    return [
        DicomSeries(source, source.stem + f"/series{i}" * several, images, simulation, notes)
        for i, (_, images) in enumerate(sorted(series.items()))
    ]


class DicomSeries(ImageFile):
    """One series; see `ImageFile`."""

    def __init__(
        self,
        source: Path,
        name: str,
        images: Sequence[_Image],
        simulation: Simulation,
        notes: Sequence[str] = (),
    ) -> None:
        slices = defaultdict(list)
        for image in images:
            slices[image.plane].append(image)
        self._slices = [
            sorted(slices[plane], key=lambda image: image.order) for plane in sorted(slices)
        ]
        counts = sorted({len(group) for group in slices.values()})
        sizes = sorted({image.size for image in images})
        if len(counts) > 1 or len(sizes) > 1:
            got = f"{counts} frames a slice and sizes {sizes}"
            fix = "give the folder of one cine series"
            raise DataError(source, "as many frames of one size in every slice", got, fix)
        pixels = {image.pixel_mm for image in images}
        super().__init__(
            source,
            simulation=simulation,
            shape=(counts[0], *sizes[0]),
            format="dicom",
            key="",
            n_slices=len(slices),
            name=name,
            pixel_mm=pixels.pop() if len(pixels) == 1 else None,
            frame_seconds=frame_seconds([image.time for image in self._slices[0]]),
            notes=notes,
        )
        self._is_stack = len({plane[:-1] for plane in slices}) == 1

    def _read_images(self, z: int) -> Num[np.ndarray, "t h w"]:
        images = self._slices[z]
        paths = {image.path for image in images}
        pixels = {path: _pixels(path, file_state(path)) for path in paths}
        return np.stack([pixels[image.path][image.index] for image in images])

    def _place(self, z: int) -> dict[str, Any]:
        return {"orientation": self._slices[z][0].direction, "is_stack": self._is_stack}


def _describe(path: Path) -> list[_Image]:
    """The images of a file."""
    data = _load(path, pixels=False)
    try:
        size = (int(data.Rows), int(data.Columns))
        n_images = int(data.get("NumberOfFrames", 1) or 1)
        if not all(0 < side < _LARGEST_SIDE for side in size) or not 0 < n_images < _LARGEST_SIDE:
            raise ValueError(f"sizes {n_images} x {size}")
        return [_describe_image(path, data, index, size) for index in range(n_images)]
    except DataError:
        raise
    except Exception as error:  # pydicom parses values when asked for them
        raise DataError(path, "the header of a DICOM image", str(error)) from error


def _describe_image(path: Path, data: Any, index: int, size: tuple[int, int]) -> _Image:
    def vector(sequence: str, keyword: str) -> np.ndarray:
        return np.array([float(v) for v in _value(data, index, sequence, keyword) or ()])

    along = vector("PlaneOrientationSequence", "ImageOrientationPatient")
    position = vector("PlanePositionSequence", "ImagePositionPatient")
    known = along.size == 6 and position.size == 3
    directions = tuple((along.round(2) + 0.0).tolist()) if known else ()  # + 0.0: no -0.0
    depth = float(np.cross(along[:3], along[3:]) @ position) if known else 0.0
    number = float(data.get("InstanceNumber") or 0)
    found = [(keyword, _value(data, index, sequence, keyword)) for sequence, keyword in _TIMES]
    keyword, time = next(((k, float(v)) for k, v in found if v is not None), ("", None))
    pixel = vector("PixelMeasuresSequence", "PixelSpacing")
    return _Image(
        path,
        index,
        series=str(data.get("SeriesInstanceUID", "")),
        plane=(*directions, round(depth, 1)),
        order=(number if time is None else time, number, index),
        time=None if keyword in _NO_TIMES else time,
        size=size,
        pixel_mm=(pixel[0], pixel[1]) if pixel.size == 2 and (pixel > 0).all() else None,
        direction=orientation(along[3:], along[:3]) if known else "rows y, columns x",
        magnitude=_is_magnitude(data, index),
    )


def _is_magnitude(data: Any, index: int) -> bool:
    """Whether an image of a file is no phase and no part of a complex image, as far as it says."""
    component = _value(data, index, "MRImageFrameTypeSequence", "ComplexImageComponent")
    if component in ("MAGNITUDE", "PHASE", "REAL", "IMAGINARY"):
        return component == "MAGNITUDE"
    kind = _value(data, index, "MRImageFrameTypeSequence", "FrameType") or data.get("ImageType")
    values = [] if kind is None or isinstance(kind, str) else list(kind)[2:]
    return not any(_NO_MAGNITUDE.fullmatch(str(value)) for value in values)


def _value(data: Any, index: int, sequence: str, keyword: str) -> Any:
    """What is said of one image of a file: of it alone, of all of them, or of the file."""
    each = data.get("PerFrameFunctionalGroupsSequence") or []
    groups = [*each[index : index + 1], *(data.get("SharedFunctionalGroupsSequence") or [])]
    for group in groups:
        for item in group.get(sequence) or []:
            if item.get(keyword) is not None:
                return item.get(keyword)
    return data.get(keyword)


@functools.lru_cache(maxsize=1)
def _pixels(path: Path, state: tuple[int, int]) -> Float32[np.ndarray, "n h w"]:
    """Images of a file after their rescaling; of the last file they are kept for other slices."""
    data = _load(path, pixels=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pixels = data.pixel_array.reshape(-1, int(data.Rows), int(data.Columns))
            if int(data.get("SamplesPerPixel", 1)) != 1:
                raise ValueError("colour images")
            return np.stack([_rescaled(image, data, i) for i, image in enumerate(pixels)])
    except Exception as error:  # of any kind on damaged or compressed pixels
        raise DataError(path, "grey images in DICOM", str(error)) from error


def _rescaled(image: np.ndarray, data: Any, index: int) -> Float32[np.ndarray, "h w"]:
    slope, intercept = (
        _value(data, index, "PixelValueTransformationSequence", keyword)
        for keyword in ("RescaleSlope", "RescaleIntercept")
    )
    slope, intercept = 1 if slope is None else slope, intercept or 0
    with np.errstate(all="ignore"):
        return (image * float(slope) + float(intercept)).astype(np.float32)


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
