"""Magnitude images as a derived DICOM series, one image a file.

With a template each image is its slice's header with new identifiers, pixels and what belongs to
them, so patient, study, position and acquisition are kept, and the series lies on top of the
template in any viewer. Without one the series names no patient, and its position is made up: axial
slices 1 mm apart, of pixels of 1 mm where their size is unknown.
"""

import contextlib
import copy
import datetime
import errno
import io
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt16

from kgmgt_jax.data.atomic import beside, naming
from kgmgt_jax.evaluation.geometry import Geometry

__all__ = ["write_dicom"]

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
LEVELS = 65535
WINDOW_PERCENTILE = 99.5
DROPPED = (
    "DerivationCodeSequence",
    "DoubleFloatPixelData",
    "FloatPixelData",
    "IconImageSequence",
    "LargestImagePixelValue",
    "LargestPixelValueInSeries",
    "LossyImageCompression",
    "LossyImageCompressionMethod",
    "LossyImageCompressionRatio",
    "ModalityLUTSequence",
    "NumberOfFrames",
    "PaletteColorLookupTableUID",
    "PixelAspectRatio",
    "PixelPaddingRangeLimit",
    "PixelPaddingValue",
    "PlanarConfiguration",
    "RealWorldValueMappingSequence",
    "SmallestImagePixelValue",
    "SmallestPixelValueInSeries",
    "VOILUTSequence",
    "WindowCenterWidthExplanation",
)
"""What speaks of the template's pixels and would be wrong of ours."""
OF_FRAME = (
    "CardiacNumberOfImages",
    "NumberOfTemporalPositions",
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
)
"""What counts the template's frames, where there are more or fewer than ours."""


def write_dicom(
    folder: str | Path,
    magnitude: Float32[np.ndarray, "t z h w"],
    geometry: Geometry | None = None,
    *,
    description: str,
    pixel_mm: tuple[float, float] | None = None,
    frame_seconds: float | None = None,
) -> Path:
    """Write a series, whole or not at all: ``sliceZZ_frameTTT.dcm``.

    Pixels are 16 bit with one rescale slope for all, so that stored value times slope is the
    magnitude in the units of the file to 1/65535 of its maximum.

    Args:
        folder: where files go; an earlier series there is replaced.
        magnitude: images, not negative.
        geometry: of a DICOM template with as many slices.
        description: what was done, one line.
        pixel_mm: height and width of a pixel without a template; 1 mm if unknown.
        frame_seconds: time between frames, where a template does not say; left out if unknown.

    Returns:
        ``folder`` as a Path.

    Raises:
        ValueError: if the folder holds anything but DICOM and hidden files.
        OSError: of the system, with the name of the folder.
    """
    from pydicom import dcmwrite

    folder = Path(folder)
    _check_folder(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = beside(folder)
    try:
        with naming(folder, instead_of=temporary):
            temporary.mkdir()  # for whom the umask says
            for (t, z), image in _series(magnitude, geometry, description, pixel_mm, frame_seconds):
                data = io.BytesIO()  # of a full disk pydicom would tell with a traceback
                dcmwrite(data, image, enforce_file_format=True)  # of a big-endian template, too
                path = temporary / f"slice{z:02d}_frame{t:03d}.dcm"
                path.write_bytes(data.getbuffer())
            _exchange(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _exchange(new: Path, folder: Path) -> None:
    """Moves a folder to its place, whatever other processes put there meanwhile."""
    old = new.with_name(new.name + ".old")
    while True:
        with contextlib.suppress(FileNotFoundError):
            os.replace(folder, old)
        try:
            os.replace(new, folder)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # it is no other process's
                with contextlib.suppress(OSError):
                    os.replace(old, folder)
                raise
        finally:
            shutil.rmtree(old, ignore_errors=True)  # only now that the new one is there


def _check_folder(folder: Path) -> None:
    found: list[Path] = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        found = list(folder.iterdir())
    # file browsers leave hidden files
    others = [p.name for p in found if p.suffix != ".dcm" and not _is_hidden_file(p)]
    if others or folder.is_file():
        raise ValueError(
            f"{folder}: expected a folder of DICOM files to replace, or none, got "
            f"{others[:3] or 'a file'}; give another folder"
        )


def _is_hidden_file(path: Path) -> bool:
    return path.name.startswith(".") and path.is_file()


def _series(magnitude, geometry, description, pixel_mm, frame_seconds):
    """Yields ((t, z), dataset) of every image."""
    from pydicom.uid import generate_uid

    peak = float(magnitude.max()) or 1.0
    slope = float(f"{peak / LEVELS:.9e}")
    white = float(np.percentile(magnitude, WINDOW_PERCENTILE)) or peak
    common = {"series": generate_uid(), "study": generate_uid(), "frame": generate_uid()}
    now = datetime.datetime.now()  # of all: a series has one time
    n_frames, n_slices = magnitude.shape[:2]
    seconds = (geometry and geometry.frame_seconds) or frame_seconds
    numbers = _numbers(geometry, n_frames, n_slices)
    for z in range(n_slices):
        for t in range(n_frames):
            if geometry is None:
                image = _without_template(common, z, pixel_mm or (1.0, 1.0))
            else:
                image = _from_template(geometry, z, t, n_frames)
                _complete(image, common)
                _place(image, geometry, z, magnitude.shape[2:])
            stored = np.round(magnitude[t, z].astype(np.float64) / slope)
            _set_pixels(image, stored.clip(0, LEVELS).astype(np.uint16), slope, white)
            _identify(image, common["series"], numbers[z][t], description, now)
            same_frames = geometry is not None and len(geometry.datasets[z]) == n_frames
            if not same_frames or "TriggerTime" not in image:
                _set_time(image, t, n_frames, seconds)
            yield (t, z), image


def _numbers(geometry: Geometry | None, n_frames: int, n_slices: int) -> list[list[int]]:
    """Instance numbers by slice and frame: the template's for as many frames, else frame by frame.

    Programs that stack images by number then make of ours what they make of it. Without such
    numbers, some (dcm2niix, of several manufacturers' images) take slices to count up first.
    """
    slices = () if geometry is None else geometry.datasets
    found = [[int(image.get("InstanceNumber") or 0) for image in frames] for frames in slices]
    same_frames = all(len(frames) == n_frames for frames in found)
    distinct = {number for frames in found for number in frames}
    if same_frames and len(distinct) == n_slices * n_frames:
        return found
    return [[1 + t * n_slices + z for t in range(n_frames)] for z in range(n_slices)]


def _set_time(image: Any, t: int, n_frames: int, seconds: float | None) -> None:
    """When in the cardiac cycle an image was taken; nothing where that is unknown."""
    if seconds is None:
        image.pop("TriggerTime", None)
        return
    image.TriggerTime = f"{1000 * seconds * t:.3f}"
    image.CardiacNumberOfImages = n_frames


def _from_template(geometry: Geometry, z: int, t: int, n_frames: int) -> Any:
    """The template's header of this slice, of the same frame where both have as many."""
    headers = geometry.datasets[z]
    source, dropped = headers[0], (*DROPPED, *OF_FRAME)
    if len(headers) == n_frames:
        source, dropped = headers[t], DROPPED
    image = copy.deepcopy(source)
    image.remove_private_tags()
    for element in list(image):
        if element.keyword in dropped or element.tag.group & 0xFF00 == 0x6000:  # overlays
            del image[element.tag]
    image.pop("SourceImageSequence", None)
    if source.get("SOPInstanceUID"):
        from pydicom.dataset import Dataset

        reference = Dataset()
        reference.ReferencedSOPClassUID = source.get("SOPClassUID", MR_IMAGE)
        reference.ReferencedSOPInstanceUID = source.SOPInstanceUID
        if int(source.get("NumberOfFrames", 1) or 1) > 1:
            reference.ReferencedFrameNumber = source.InstanceNumber
        image.SourceImageSequence = [reference]
    first = geometry.datasets[0][0]  # the template may have a series a slice, this is one of all
    image.SeriesNumber = 1000 + int(first.get("SeriesNumber") or 0)
    return image


def _without_template(common: dict[str, Any], z: int, pixel_mm: tuple[float, float]) -> Any:
    from pydicom.dataset import Dataset

    image = Dataset()
    image.PatientName = image.PatientID = image.PatientBirthDate = image.PatientSex = ""
    image.StudyDate = image.StudyTime = image.AccessionNumber = image.StudyID = ""
    image.ReferringPhysicianName = image.Manufacturer = ""
    image.StudyInstanceUID, image.FrameOfReferenceUID = common["study"], common["frame"]
    image.Modality, image.SeriesNumber = "MR", 1
    image.ScanningSequence, image.SequenceVariant, image.ScanOptions = "RM", "NONE", ""
    image.MRAcquisitionType, image.PatientPosition = "2D", ""
    image.SliceThickness = image.EchoTime = image.RepetitionTime = image.EchoTrainLength = None
    image.PixelSpacing = [f"{value:.8g}" for value in pixel_mm]
    image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    image.ImagePositionPatient = [0, 0, z]
    image.PositionReferenceIndicator = ""
    return image


def _complete(image: Any, common: dict[str, Any]) -> None:
    """Adds what an image must have and the template has not, as some that are anonymised."""
    for element in _without_template(common, 0, (1.0, 1.0)):
        if image.get(element.keyword) in (None, ""):
            image.add(element)


def _place(image: Any, geometry: Geometry, z: int, size: tuple[int, int]) -> None:
    """Pixel spacing and the position of the first pixel of a slice that covers the same field."""
    scale = np.array([image.Rows / size[0], image.Columns / size[1]])  # rows, columns
    spacing = np.array([float(value) for value in image.PixelSpacing])
    along = np.array([float(value) for value in image.ImageOrientationPatient])
    shift = (scale - 1) / 2 * spacing
    position = np.array([float(value) for value in image.ImagePositionPatient])
    position = position + shift[1] * along[:3] + shift[0] * along[3:]
    image.ImagePositionPatient = [f"{value:.8g}" for value in position]
    image.PixelSpacing = [f"{value:.8g}" for value in spacing * scale]


def _set_pixels(image: Any, stored: UInt16[np.ndarray, "h w"], slope: float, white: float) -> None:
    image.Rows, image.Columns = stored.shape
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit, image.PixelRepresentation = 15, 0
    image.RescaleSlope, image.RescaleIntercept, image.RescaleType = f"{slope:.9e}", "0", "US"
    image.WindowCenter, image.WindowWidth = f"{white / 2:.6g}", f"{white:.6g}"
    image.VOILUTFunction = "LINEAR_EXACT"  # the default wants a width of 1 or more
    image.add_new("PixelData", "OW", stored.astype("<u2").tobytes())


def _identify(
    image: Any, series: str, number: int, description: str, now: datetime.datetime
) -> None:
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

    image.SOPClassUID, image.SOPInstanceUID = MR_IMAGE, generate_uid()
    image.SeriesInstanceUID, image.InstanceNumber = series, number
    image.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    image.SeriesDescription, image.DerivationDescription = description[:64], description[:1024]
    image.SeriesDate = image.ContentDate = image.InstanceCreationDate = now.strftime("%Y%m%d")
    image.SeriesTime = image.ContentTime = image.InstanceCreationTime = now.strftime("%H%M%S")
    image.SpecificCharacterSet = "ISO_IR 192"
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = UID(MR_IMAGE)
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
