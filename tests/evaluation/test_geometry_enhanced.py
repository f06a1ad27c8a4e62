"""An Enhanced MR file, one of many images, is the template that its images in files would be."""

from pathlib import Path

import numpy as np
import pytest

from kgmgt_jax.data.case import DataError
from kgmgt_jax.evaluation.dicom_output import write_dicom
from kgmgt_jax.evaluation.geometry import read_geometry

pydicom = pytest.importorskip("pydicom")

from tests.evaluation.test_geometry import write_template  # noqa: E402

SHAPE = (3, 2, 20, 30)
ENHANCED = "1.2.840.10008.5.1.4.1.1.4.1"
OF_EACH = {
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness"),
    "PlanePositionSequence": ("ImagePositionPatient",),
}
OF_ALL = "ImageOrientationPatient"


def _item(group, sequence: str, **values) -> None:
    inner = pydicom.Dataset()
    for keyword, value in values.items():
        setattr(inner, keyword, value)
    setattr(group, sequence, pydicom.Sequence([inner]))


def _enhanced(folder: Path, *, timed: bool = True, phases: bool = False) -> Path:
    """The images of a series in one file, in the order of their files' names, against that of time.

    Args:
        folder: Of the series.
        timed: Whether it says when each was taken, not only their order.
        phases: Whether each is followed by an image of its phase.
    """
    images = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
    data, groups = pydicom.dcmread(min(folder.iterdir())), []
    for image in images:
        for component in ("MAGNITUDE", "PHASE")[: 1 + phases]:
            group = pydicom.Dataset()
            for sequence, keywords in OF_EACH.items():
                _item(group, sequence, **{name: image[name].value for name in keywords})
            kind = {"ComplexImageComponent": component, "FrameType": ["ORIGINAL", "PRIMARY"]}
            _item(group, "MRImageFrameTypeSequence", **kind)
            time, frame = float(image.TriggerTime), (int(image.InstanceNumber) - 1) % 3
            if timed:
                time += 1 / 3  # more digits than decimal numbers of DICOM have
                cycle = {"NominalCardiacTriggerDelayTime": time}
                _item(group, "CardiacSynchronizationSequence", **cycle)
            _item(group, "FrameContentSequence", TemporalPositionIndex=1 + frame)
            _item(group, "MREchoSequence", EffectiveEchoTime=4 / 3)
            groups.append(group)
    shared = pydicom.Dataset()
    _item(shared, "PlaneOrientationSequence", **{OF_ALL: data[OF_ALL].value})
    data.SharedFunctionalGroupsSequence = pydicom.Sequence([shared])
    for keyword in ("TriggerTime", OF_ALL, *sum(OF_EACH.values(), ())):
        del data[keyword]
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = ENHANCED
    data.NumberOfFrames = len(groups)
    data.PerFrameFunctionalGroupsSequence = pydicom.Sequence(groups)
    _item(data, "DimensionIndexSequence", FunctionalGroupPointer=0x00209113)
    path = folder.with_suffix(".dcm")
    data.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("phases", [False, True])
def test_it_says_what_a_series_says(tmp_path, phases):
    folder = write_template(tmp_path / "series")
    series = read_geometry(folder, SHAPE)
    enhanced = read_geometry(_enhanced(folder, phases=phases), SHAPE)
    np.testing.assert_array_equal(enhanced.affine, series.affine)
    assert enhanced.frame_seconds == pytest.approx(series.frame_seconds)
    assert [len(frames) for frames in enhanced.datasets] == [3, 3]


def test_images_are_in_the_order_of_their_index_where_no_time_is_said(tmp_path):
    geometry = read_geometry(_enhanced(write_template(tmp_path / "t"), timed=False), SHAPE)
    assert geometry.frame_seconds is None
    found = [[frame.TemporalPositionIndex for frame in frames] for frames in geometry.datasets]
    assert found == [[1, 2, 3], [1, 2, 3]]


def test_a_derived_series_is_of_single_images_that_name_theirs(tmp_path):
    folder = write_template(tmp_path / "series")
    path = _enhanced(folder)
    magnitude = np.random.default_rng(0).random(SHAPE, np.float32)
    out = write_dicom(tmp_path / "o", magnitude, read_geometry(path, SHAPE), description="of it")
    source = pydicom.dcmread(path)
    for z, t in np.ndindex(2, 3):
        image = pydicom.dcmread(out / f"slice{z:02d}_frame{t:03d}.dcm")
        (named,) = image.SourceImageSequence
        assert named.ReferencedSOPClassUID == ENHANCED
        assert named.ReferencedSOPInstanceUID == source.SOPInstanceUID
        group = source.PerFrameFunctionalGroupsSequence[named.ReferencedFrameNumber - 1]
        place = group.PlanePositionSequence[0].ImagePositionPatient
        assert image.ImagePositionPatient == place
        time = group.CardiacSynchronizationSequence[0].NominalCardiacTriggerDelayTime
        assert float(image.TriggerTime) == pytest.approx(time)
        assert float(image.EchoTime) == pytest.approx(4 / 3)
        assert max(len(str(image[name].value)) for name in ("TriggerTime", "EchoTime")) <= 16
        assert image.PatientName == "Doe^Jane"
        left = {element.keyword for element in image if element.VR == "SQ"}
        assert left == {"SourceImageSequence"} and "NumberOfFrames" not in image


def test_a_file_that_does_not_tell_its_images_apart_is_refused(tmp_path):
    path = _enhanced(write_template(tmp_path / "series"))
    data = pydicom.dcmread(path)
    del data.PerFrameFunctionalGroupsSequence[-1]
    data.save_as(path)
    with pytest.raises(DataError, match="a multi-frame file that tells 5 of 6 images apart"):
        read_geometry(path, SHAPE)
