"""Reader for cine series in DICOM, one file an image or many (Enhanced MR), made into k-space.

Images of a series are sorted into slices by their plane, planes of one orientation by their
position along the normal, and into frames by trigger time, else by number. All slices need as many
frames, no two of one time. Images of phase and real or imaginary parts, by their
``ComplexImageComponent`` or ``ImageType``, are left out, and so are copies of an image. See
`images` for what is made of the others.
"""

import functools
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Num

from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.formats.arrays import check_size, file_state
from kgmgt_jax.data.formats.base import DataWarning, import_optional, orientation, refusing
from kgmgt_jax.data.formats.images import ImageFile
from kgmgt_jax.data.simulation import Simulation

__all__ = [
    "PARALLEL",
    "DicomSeries",
    "frame_seconds",
    "is_dicom",
    "is_magnitude",
    "read_series",
    "slices_by_depth",
]

PARALLEL = 0.01  # largest difference of directions of parallel slices, as unit vectors

_LARGEST_SIDE = 1 << 14
_SAME_DEPTH = 0.05  # mm
_NO_MAGNITUDE = re.compile(
    r"(P|R|I)(_\w+)?|PHASE|REAL|IMAGINARY|(PHASE|VELOCITY)( MAP)?"
)  # of the values of ImageType after the second
# Where an image says when it was taken; the first is for one image a file, the second for such
# images put into one.
_TIMES = (
    ("", "TriggerTime"),
    ("UnassignedPerFrameConvertedAttributesSequence", "TriggerTime"),
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


def slices_by_depth(depths: Sequence[float]) -> list[list[int]]:
    """Indices of images by slice, in order of depth; within 0.05 mm of another they are of one.

    Args:
        depths: Position of each image along the slice normal in mm.
    """
    order = np.argsort(depths, kind="stable")
    apart = np.diff(np.asarray(depths)[order]) > _SAME_DEPTH
    return [part.tolist() for part in np.split(order, np.flatnonzero(apart) + 1)]


class _Image(NamedTuple):
    """Where one image belongs.

    Attributes:
        path: Its file.
        index: Its number in the file.
        uid: Identifier of the file's content; empty where it does not say.
        series: Identifier of the series.
        along: Unit vectors along growing column and row index; empty where it does not say.
        position: Of the first pixel in mm; likewise.
        order: What a slice's images are sorted by.
        moment: When it was taken, by the first of `_TIMES`; ``None`` where the file does not say.
        time: The same in milliseconds of the cardiac cycle; ``None`` where it says the order alone.
        size: Rows and columns.
        pixel_mm: Height and width of a pixel; ``None`` where the file does not say.
        direction: See `orientation`.
        magnitude: Whether it is one, as far as the file says.
    """

    path: Path
    index: int
    uid: str
    series: str
    along: tuple[float, ...]
    position: tuple[float, ...]
    order: tuple[float, ...]
    moment: float | None
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
    described = [image for path in paths for image in _describe(path)]
    found = list({_identity(image): image for image in described}.values())
    series = defaultdict(list)
    for image in found:
        if image.magnitude:
            series[image.series].append(image)
    n_copies, n_left_out = len(described) - len(found), len(found) - sum(map(len, series.values()))
    notes = [f"left out {n_copies} copies of images"] if n_copies else []
    notes += [f"left out {n_left_out} images that are no magnitudes"] if n_left_out else []
    if not series:
        got = f"{n_left_out} of phase or complex parts, by their ImageType"
        raise DataError(source, "magnitude images", got)
    for note in notes:
        warnings.warn(f"{source}: {note}", DataWarning, stacklevel=3)
    several = len(series) > 1
    name = source.name if source.is_dir() else source.stem  # folders may be called by UIDs
    return [
        DicomSeries(source, name + f"/series{i}" * several, images, simulation, notes)
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
        pixels = {path: _pixels(path, file_state(path)) for path in paths}
        return np.stack([pixels[image.path][image.index] for image in images])

    def _place(self, z: int) -> dict[str, Any]:
        return {"orientation": self._slices[z][0].direction, "is_stack": self._is_stack}


def _identity(image: _Image) -> tuple:
    """What no two images of a series share; not the UID alone, which anonymising may make equal."""
    return image.uid or image.path, image.index, image.position, image.along, image.order


def _by_orientation(images: Sequence[_Image]) -> list[list[_Image]]:
    """Images of parallel planes together; those that do not say where they lie, too."""
    groups: list[list[_Image]] = []
    for image in images:
        for group in groups:
            first = group[0].along
            if len(first) == len(image.along) and np.allclose(first, image.along, 0, PARALLEL):
                group.append(image)
                break
        else:
            groups.append([image])
    return sorted(groups, key=lambda group: np.round(group[0].along, 2).tolist())


def _slices_of(group: Sequence[_Image]) -> list[list[_Image]]:
    """Images of parallel planes by slice, in order along the normal."""
    depths = [0.0] * len(group)
    if group[0].along:
        normal = np.cross(group[0].along[:3], group[0].along[3:])
        depths = [float(normal @ image.position) for image in group]
    return [[group[index] for index in each] for each in slices_by_depth(depths)]


def _check_times(source: Path, slices: Sequence[Sequence[_Image]]) -> None:
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


def _describe(path: Path) -> list[_Image]:
    """The images of a file."""
    data = _load(path, pixels=False)
    with refusing(path, "the header of a DICOM image"):  # pydicom parses values when asked for
        size = (int(data.Rows), int(data.Columns))
        n_images = int(data.get("NumberOfFrames", 1) or 1)
        if not all(0 < side < _LARGEST_SIDE for side in size) or not 0 < n_images < _LARGEST_SIDE:
            raise ValueError(f"sizes {n_images} x {size}")
        return [_describe_image(path, data, index, size) for index in range(n_images)]


def _describe_image(path: Path, data: Any, index: int, size: tuple[int, int]) -> _Image:
    def vector(sequence: str, keyword: str) -> np.ndarray:
        return np.array([float(v) for v in _value(data, index, sequence, keyword) or ()])

    along = vector("PlaneOrientationSequence", "ImageOrientationPatient")
    position = vector("PlanePositionSequence", "ImagePositionPatient")
    known = along.size == 6 and position.size == 3
    number = float(data.get("InstanceNumber") or 0)
    found = [(keyword, _value(data, index, sequence, keyword)) for sequence, keyword in _TIMES]
    keyword, time = next(((k, float(v)) for k, v in found if v is not None), ("", None))
    pixel = vector("PixelMeasuresSequence", "PixelSpacing")
    return _Image(
        path,
        index,
        uid=str(data.get("SOPInstanceUID", "")),
        series=str(data.get("SeriesInstanceUID", "")),
        along=tuple(along.tolist()) if known else (),
        position=tuple(position.tolist()) if known else (),
        order=(number if time is None else time, number, index),
        moment=time,
        time=None if keyword in _NO_TIMES else time,
        size=size,
        pixel_mm=(pixel[0], pixel[1]) if pixel.size == 2 and (pixel > 0).all() else None,
        direction=orientation(along[3:], along[:3]) if known else "rows y, columns x",
        magnitude=is_magnitude(data, index),
    )


def is_magnitude(data: Any, index: int = 0) -> bool:
    """Whether an image of a file is no phase and no part of a complex image, as far as it says.

    Args:
        data: Header of the file.
        index: Number of the image in it.
    """
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
    with refusing(path, "grey images in DICOM"):
        pixels = data.pixel_array.reshape(-1, int(data.Rows), int(data.Columns))
        if int(data.get("SamplesPerPixel", 1)) != 1:
            raise ValueError("colour images")
        return np.stack([_rescaled(image, data, i) for i, image in enumerate(pixels)])


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
    with refusing(path, "a complete DICOM file", "copy it again"):
        data = package.dcmread(path, stop_before_pixels=not pixels)
        if pixels:
            claimed = int(data.Rows) * int(data.Columns) * int(data.get("NumberOfFrames", 1))
            check_size(path, claimed * 4, path.stat().st_size)
        return data
