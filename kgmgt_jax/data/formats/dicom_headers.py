"""What the header of a DICOM file says of each of its images.

A file of one image says it itself, one of many (Enhanced MR) in groups, of all or of each.
"""

import copy
import re
from typing import Any

__all__ = ["holds_image", "is_magnitude", "moment", "single_headers", "value_of"]

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
_ORDER_ONLY = ("TemporalPositionIndex",)  # which is not in milliseconds, as the others are
# What a file of many images says of each in groups, and what a file of one calls it.
_OF_EACH = (
    ("PixelMeasuresSequence", "PixelSpacing", "PixelSpacing"),
    ("PixelMeasuresSequence", "SliceThickness", "SliceThickness"),
    ("PixelMeasuresSequence", "SpacingBetweenSlices", "SpacingBetweenSlices"),
    ("PlaneOrientationSequence", "ImageOrientationPatient", "ImageOrientationPatient"),
    ("PlanePositionSequence", "ImagePositionPatient", "ImagePositionPatient"),
    ("MRImageFrameTypeSequence", "FrameType", "ImageType"),
    ("MRImageFrameTypeSequence", "ComplexImageComponent", "ComplexImageComponent"),
    ("MRTimingAndRelatedParametersSequence", "RepetitionTime", "RepetitionTime"),
    ("MRTimingAndRelatedParametersSequence", "FlipAngle", "FlipAngle"),
    ("MREchoSequence", "EffectiveEchoTime", "EchoTime"),
    ("FrameContentSequence", "TemporalPositionIndex", "TemporalPositionIndex"),
)
_OF_ALL = (
    "ConcatenationFrameOffsetNumber",
    "ConcatenationUID",
    "DimensionIndexSequence",
    "DimensionOrganizationSequence",
    "DimensionOrganizationType",
    "InConcatenationNumber",
    "InConcatenationTotalNumber",
    "PerFrameFunctionalGroupsSequence",
    "SharedFunctionalGroupsSequence",
    "SOPInstanceUIDOfConcatenationSource",
)  # which says something of such a file only


def holds_image(data: Any) -> bool:
    """Whether a file is of images, or does not say that it is a report, a drawing or raw data.

    Args:
        data: Header of the file.
    """
    kind = data.file_meta.get("MediaStorageSOPClassUID") or data.get("SOPClassUID")
    if not kind:
        return True
    if kind.is_private:
        return "Rows" in data
    return "Image" in kind.name or not kind.name.endswith("Storage")


def single_headers(data: Any) -> list[Any]:
    """The header of each image of a file, as if each had a file of its own.

    Images of a file of many (Enhanced MR) are numbered from 1 (``InstanceNumber``).

    Args:
        data: Header of the file.

    Raises:
        ValueError: If a file of many images does not say where each of them lies.
    """
    n_images = int(data.get("NumberOfFrames", 1) or 1)
    groups = data.get("PerFrameFunctionalGroupsSequence") or []
    if n_images == 1 and not groups:
        return [data]
    if len(groups) != n_images:
        raise ValueError(f"a multi-frame file that tells {len(groups)} of {n_images} images apart")
    common = copy.deepcopy(data)
    for keyword in _OF_ALL:
        common.pop(keyword, None)
    return [_single_header(common, data, index) for index in range(n_images)]


def _single_header(common: Any, data: Any, index: int) -> Any:
    header = copy.deepcopy(common)
    header.InstanceNumber = index + 1
    found = {name: value_of(data, index, group, keyword) for group, keyword, name in _OF_EACH}
    time, is_time = moment(data, index)
    found["TriggerTime"] = time if is_time else None
    for name, value in found.items():
        if value is not None:  # decimal numbers of a file of one have 16 characters at most
            setattr(header, name, f"{value:.10g}" if isinstance(value, float) else value)
    return header


def is_magnitude(data: Any, index: int = 0) -> bool:
    """Whether an image of a file is no phase and no part of a complex image, as far as it says.

    Args:
        data: Header of the file.
        index: Number of the image in it.
    """
    component = value_of(data, index, "MRImageFrameTypeSequence", "ComplexImageComponent")
    if component in ("MAGNITUDE", "PHASE", "REAL", "IMAGINARY"):
        return component == "MAGNITUDE"
    kind = value_of(data, index, "MRImageFrameTypeSequence", "FrameType") or data.get("ImageType")
    values = [] if kind is None or isinstance(kind, str) else list(kind)[2:]
    return not any(_NO_MAGNITUDE.fullmatch(str(value)) for value in values)


def moment(data: Any, index: int) -> tuple[float | None, bool]:
    """When an image was taken, and whether that is in milliseconds of the cardiac cycle.

    It is ``None`` where the file does not say.

    Args:
        data: Header of the file.
        index: Number of the image in it.
    """
    for sequence, keyword in _TIMES:
        value = value_of(data, index, sequence, keyword)
        if value is not None:
            return float(value), keyword not in _ORDER_ONLY
    return None, False


def value_of(data: Any, index: int, sequence: str, keyword: str) -> Any:
    """What is said of one image of a file: of it alone, of all of them, or of the file.

    Args:
        data: Header of the file.
        index: Number of the image in it.
        sequence: Group of attributes that a file of many images has it in.
        keyword: Name of the attribute.
    """
    each = data.get("PerFrameFunctionalGroupsSequence") or []
    groups = [*each[index : index + 1], *(data.get("SharedFunctionalGroupsSequence") or [])]
    for group in groups:
        for item in group.get(sequence) or []:
            if item.get(keyword) is not None:
                return item.get(keyword)
    return data.get(keyword)
