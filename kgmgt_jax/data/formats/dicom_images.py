"""Images in DICOM files one by one: what the header says of each, and its pixels.

See `dicom` for how they become slices and frames.
"""

import functools
import importlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.formats.base import import_optional, orientation, refusing
from kgmgt_jax.data.formats.dicom_headers import (
    holds_image,
    is_magnitude,
    moment,
    value_of,
)
from kgmgt_jax.data.sizes import check_size

__all__ = [
    "DECOMPRESS",
    "DicomImage",
    "describe_images",
    "is_dicom",
    "read_pixels",
]

_LARGEST_SIDE = 1 << 14
_DIRECTORY = b"1.2.840.10008.1.3.10"  # what a DICOMDIR says it is
DECOMPRESS = "pip install 'pylibjpeg[all]', or have the files decompressed"


def is_dicom(head: bytes) -> bool:
    """Whether these are the first bytes, 600 or more, of a DICOM file that is no DICOMDIR."""
    return head[128:132] == b"DICM" and _DIRECTORY not in head


class DicomImage(NamedTuple):
    """Where one image belongs.

    Attributes:
        path: Its file.
        index: Its number in the file.
        uid: Identifier of the file's content; empty where it does not say.
        series: Identifier of the series.
        along: Unit vectors along growing column and row index; empty where it does not say.
        position: Of the first pixel in mm; likewise.
        order: What a slice's images are sorted by.
        moment: When it was taken, see `dicom_headers.moment`; ``None`` where it does not say.
        time: The same in milliseconds of the cardiac cycle; ``None`` where it says the order alone.
        size: Rows and columns.
        pixel_mm: Height and width of a pixel; ``None`` where the file does not say.
        direction: See `base.orientation`.
        magnitude: Whether it is one, as far as the file says.
        packed: How its pixels are compressed if no package here decompresses them; else empty.
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
    packed: str


def describe_images(path: Path) -> list[DicomImage]:
    """The images of a file; none of one that holds other things, such as a report.

    Raises:
        DataError: If the package ``pydicom`` is missing, or the header is damaged.
    """
    data = _load(path, pixels=False)
    with refusing(path, "the header of a DICOM image"):  # pydicom parses values when asked for
        if not holds_image(data):
            return []
        size = (int(data.Rows), int(data.Columns))
        n_images = int(data.get("NumberOfFrames", 1) or 1)
        if not all(0 < side < _LARGEST_SIDE for side in size) or not 0 < n_images < _LARGEST_SIDE:
            raise ValueError(f"sizes {n_images} x {size}")
        packed = _without_decoder(data)
        return [_describe_image(path, data, index, size, packed) for index in range(n_images)]


def _without_decoder(data: Any) -> str:
    """How pixels are compressed if no package here decompresses them; else empty."""
    syntax = _compression(data)
    if syntax is None:
        return ""
    try:
        known = importlib.import_module("pydicom.pixels").get_decoder(syntax).is_available
    except NotImplementedError:  # of films
        known = False
    return "" if known else syntax.name


def _compression(data: Any) -> Any:
    """How pixels are compressed, as DICOM's transfer syntax; ``None`` if they are not."""
    syntax = data.file_meta.get("TransferSyntaxUID")
    if syntax is None or syntax.is_private or not syntax.is_encapsulated:
        return None
    return syntax


def _describe_image(
    path: Path, data: Any, index: int, size: tuple[int, int], packed: str
) -> DicomImage:
    def vector(sequence: str, keyword: str) -> np.ndarray:
        return np.array([float(v) for v in value_of(data, index, sequence, keyword) or ()])

    along = vector("PlaneOrientationSequence", "ImageOrientationPatient")
    position = vector("PlanePositionSequence", "ImagePositionPatient")
    known = along.size == 6 and position.size == 3
    number = float(data.get("InstanceNumber") or 0)
    taken, is_time = moment(data, index)
    pixel = vector("PixelMeasuresSequence", "PixelSpacing")
    return DicomImage(
        path,
        index,
        uid=str(data.get("SOPInstanceUID", "")),
        series=str(data.get("SeriesInstanceUID", "")),
        along=tuple(along.tolist()) if known else (),
        position=tuple(position.tolist()) if known else (),
        order=(number if taken is None else taken, number, index),
        moment=taken,
        time=taken if is_time else None,
        size=size,
        pixel_mm=(pixel[0], pixel[1]) if pixel.size == 2 and (pixel > 0).all() else None,
        direction=orientation(along[3:], along[:3]) if known else "rows y, columns x",
        magnitude=is_magnitude(data, index),
        packed=packed,
    )


@functools.lru_cache(maxsize=1)
def read_pixels(path: Path, state: tuple[int, int]) -> Float32[np.ndarray, "n h w"]:
    """Images of a file after their rescaling; of the last file they are kept for other slices.

    Args:
        path: The file.
        state: See `file_state`: kept images are those of the file as it was.

    Raises:
        DataError: If they are damaged, or in colour.
    """
    data = _load(path, pixels=True)
    expected = "grey images in DICOM"
    with refusing(path, expected, DECOMPRESS if _compression(data) else ""):
        if int(data.get("SamplesPerPixel", 1)) != 1:
            raise DataError(path, expected, "colour images")
        pixels = data.pixel_array.reshape(-1, int(data.Rows), int(data.Columns))
        return np.stack([_rescaled(image, data, i) for i, image in enumerate(pixels)])


def _rescaled(image: np.ndarray, data: Any, index: int) -> Float32[np.ndarray, "h w"]:
    slope, intercept = (
        value_of(data, index, "PixelValueTransformationSequence", keyword)
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
