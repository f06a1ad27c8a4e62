"""DICOM series: which images are of one slice, in what order, and what is left out."""

import os
from types import SimpleNamespace

import numpy as np
import pytest

from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.formats import DataWarning, dicom_headers, dicom_images, find_files, read_file
from kgmgt_jax.data.formats.dicom import frame_seconds, slices_by_depth
from tests.data.formats import writers
from tests.data.formats.no_images import add_files_without_images


def test_dicom_is_sorted_by_position_and_trigger_time_and_rescaled(tmp_path):
    pytest.importorskip("pydicom")
    file = read_file(writers.write_dicom(tmp_path))
    for z in range(2):
        expected = 2.0 * writers.images((3, 2, 9, 8))[:, z] + 1
        np.testing.assert_allclose(np.abs(file[z].reference), expected, rtol=1e-6)
    meta = file[0].meta
    assert meta.orientation == "rows to P, columns to L"
    assert meta.pixel_mm == (1.25, 1.5) and meta.frame_seconds == pytest.approx(0.03)


@pytest.mark.parametrize(
    ("times", "seconds"),
    [((0.0, 20.0, 50.0), 0.025), ((0.0,), None), ((0.0, None, 50.0), None), ((5.0, 5.0), None)],
)
def test_time_between_frames_is_known_where_all_times_are(times, seconds):
    assert frame_seconds(times) == seconds


def test_planes_three_degrees_apart_are_not_parallel(tmp_path):
    pytest.importorskip("pydicom")
    file = read_file(writers.write_dicom(tmp_path, angles=(0.0, 3.0)))
    assert (len(file), file.slice_shape[0], file[0].meta.is_stack) == (2, 3, False)


def test_slices_a_twentieth_of_a_millimetre_apart_are_two():
    assert slices_by_depth([0.1, 0.0, 0.04]) == [[1, 2], [0]]


def test_radial_planes_keep_their_order_whatever_their_files_are_called(tmp_path):
    pytest.importorskip("pydicom")
    (tmp_path / "b").mkdir()
    for path in writers.write_dicom(tmp_path / "a", angles=(0.0, 60.0, 120.0)).iterdir():
        (tmp_path / "b" / f"{2 - int(path.stem[-1])}{path.name}").write_bytes(path.read_bytes())
    one, other = ([np.abs(c.reference) for c in read_file(tmp_path / name)] for name in "ab")
    np.testing.assert_allclose(one, other, rtol=1e-6)


def test_pixels_of_several_sizes_in_a_series_have_none_in_common(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    path = min(writers.write_dicom(tmp_path).iterdir())
    image = pydicom.dcmread(path)
    image.PixelSpacing = [1.25, 1.75]
    image.save_as(path)
    assert read_file(tmp_path).pixel_mm is None


def test_dicom_pixels_of_no_size_are_unknown(tmp_path):
    pytest.importorskip("pydicom")
    for image in writers.edited_dicom(writers.write_dicom(tmp_path)):
        image.PixelSpacing = [1.25, 0]
    assert read_file(tmp_path).pixel_mm is None


@pytest.mark.parametrize(
    ("sequence", "keyword", "seconds"),
    [
        ("CardiacSynchronizationSequence", "ActualCardiacTriggerDelayTime", 0.03),
        ("FrameContentSequence", "TemporalPositionIndex", None),
        ("UnassignedPerFrameConvertedAttributesSequence", "TriggerTime", 0.03),
    ],
)
def test_dicom_files_of_many_images_tell_their_times_in_several_ways(
    tmp_path, sequence, keyword, seconds
):
    """By `TemporalPositionIndex` the frames have an order, and no time."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    path = writers.write_enhanced_dicom(tmp_path)
    data = pydicom.dcmread(path)
    for group in data.PerFrameFunctionalGroupsSequence:
        time = group.CardiacSynchronizationSequence[0].NominalCardiacTriggerDelayTime
        del group.CardiacSynchronizationSequence
        inner = Dataset()
        setattr(inner, keyword, time if seconds else 1 + int(time // 30))
        setattr(group, sequence, Sequence([inner]))
    data.save_as(path)
    file = read_file(path)
    assert file.frame_seconds == seconds
    np.testing.assert_allclose(
        np.abs(file[0].reference), writers.images((3, 2, 9, 8))[:, 0], rtol=1e-6
    )


@pytest.mark.parametrize("part", ["REAL", "IMAGINARY", "PHASE", "MAGNITUDE"])
def test_parts_of_complex_images_are_no_magnitudes(part):
    pydicom = pytest.importorskip("pydicom")
    image = pydicom.Dataset()
    image.ComplexImageComponent = part
    assert dicom_headers.is_magnitude(image) == (part == "MAGNITUDE")


def test_dicom_images_of_nearly_one_place_are_one_slice(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    for number, path in enumerate(sorted(writers.write_dicom(tmp_path).iterdir())):
        image = pydicom.dcmread(path)
        image.ImagePositionPatient[2] += 0.002 * number
        image.ImageOrientationPatient[1] += 1e-4 * number
        image.save_as(path)
    assert read_file(tmp_path).slice_shape[0] == 3 and read_file(tmp_path)[0].meta.is_stack


def test_dicom_slices_keep_their_order_however_their_directions_round(tmp_path):
    """The last digits of 0.125 differ between slices, so that two decimals do, too."""
    pytest.importorskip("pydicom")
    for image in writers.edited_dicom(writers.write_dicom(tmp_path, angles=(0.0, 0.0, 0.0))):
        z = image.ImagePositionPatient[2] / 8
        tilt = 0.125 + (2e-6 if z != 1 else -2e-6)
        image.ImageOrientationPatient = [1, 0, 0, 0, (1 - tilt**2) ** 0.5, tilt]
    file = read_file(tmp_path)
    assert file[0].meta.is_stack and len(file) == 3
    for z in range(3):
        expected = 2.0 * writers.images((3, 3, 9, 8))[:, z] + 1
        np.testing.assert_allclose(np.abs(file[z].reference), expected, rtol=1e-6)


def test_copies_of_dicom_images_are_left_out(tmp_path):
    pytest.importorskip("pydicom")
    for path in sorted(writers.write_dicom(tmp_path).iterdir()):
        path.with_name("again_" + path.name).write_bytes(path.read_bytes())
    with pytest.warns(DataWarning, match="left out 6 copies of images"):
        file = read_file(tmp_path)
    assert file.slice_shape[0] == 3 and file.frame_seconds == 0.03


def test_dicom_files_without_images_are_left_out(tmp_path):
    pytest.importorskip("pydicom")
    add_files_without_images(writers.write_dicom(tmp_path))
    with pytest.warns(DataWarning, match="left out 1 DICOM files without images"):
        file = read_file(tmp_path)
    assert (len(file), file.slice_shape[0]) == (2, 3)
    assert file[0].meta.notes == ("left out 1 DICOM files without images",)


@pytest.mark.parametrize("in_meta", [True, False])
@pytest.mark.parametrize(
    ("kind", "holds"),
    [
        (None, True),
        ("1.2.840.10008.5.1.4.1.1.4", True),  # MR Image Storage
        ("1.2.840.10008.5.1.4.1.1.7", True),  # Secondary Capture Image Storage
        ("1.2.840.10008.5.1.4.1.1.66", False),  # Raw Data Storage
        ("1.2.840.10008.5.1.4.1.1.88.11", False),  # Basic Text SR Storage
        ("1.2.840.10008.5.1.4.1.1.4.99", True),  # of which nothing is known
        ("1.3.12.2.1107.5.9.1", False),  # private
    ],
)
def test_a_class_of_dicom_files_says_whether_they_hold_images(kind, holds, in_meta):
    pytest.importorskip("pydicom")
    from pydicom.dataset import Dataset, FileMetaDataset

    data = Dataset()
    data.file_meta = FileMetaDataset()
    if kind and in_meta:
        data.file_meta.MediaStorageSOPClassUID = kind
    elif kind:
        data.SOPClassUID = kind
    assert dicom_headers.holds_image(data) == holds
    data.Rows = 9
    assert dicom_headers.holds_image(data) == (holds or kind == "1.3.12.2.1107.5.9.1")


def test_a_folder_of_dicom_without_images_is_refused(tmp_path):
    pytest.importorskip("pydicom")
    with pytest.raises(DataError, match="expected DICOM images, got 1 files that hold none"):
        read_file(add_files_without_images(tmp_path))


def test_a_dicomdir_above_the_series_is_no_cine(tmp_path):
    pytest.importorskip("pydicom")
    add_files_without_images(tmp_path)
    (tmp_path / "report.dcm").unlink()
    writers.write_dicom(tmp_path / "series")
    assert find_files(tmp_path) == [tmp_path / "series"]


def test_files_whose_names_end_in_the_number_of_an_identifier_are_found(tmp_path):
    pytest.importorskip("pydicom")
    folder = writers.write_dicom(tmp_path / "series")
    for i, path in enumerate(sorted(folder.iterdir())):
        path.rename(folder / f"MR.1.2.840.113619.2.{i}")
    assert find_files(tmp_path) == [folder]


def test_images_of_one_identifier_at_other_places_are_no_copies(tmp_path):
    """As anonymising tools leave them that give all images the same."""
    pytest.importorskip("pydicom")
    for image in writers.edited_dicom(writers.write_dicom(tmp_path)):
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    assert (len(read_file(tmp_path)), read_file(tmp_path).slice_shape[0]) == (2, 3)


def test_a_folder_of_dicom_is_called_by_its_whole_name(tmp_path):
    pytest.importorskip("pydicom")
    assert read_file(writers.write_dicom(tmp_path / "1.2.840.7")).name == "1.2.840.7"


def test_two_acquisitions_of_a_slice_in_one_series_are_refused(tmp_path):
    pytest.importorskip("pydicom")
    writers.write_dicom(tmp_path, kinds={"M": [], "N": []})
    with pytest.raises(DataError, match=r"one image of a slice at a time, got several at 0 ms"):
        read_file(tmp_path)


def test_two_acquisitions_of_a_slice_whose_times_are_numbers_are_refused(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    path = writers.write_enhanced_dicom(tmp_path)
    data = pydicom.dcmread(path)
    for number, group in enumerate(data.PerFrameFunctionalGroupsSequence):
        content = Dataset()
        content.TemporalPositionIndex = 1 + number // 4
        group.FrameContentSequence = Sequence([content])
        del group.CardiacSynchronizationSequence
    data.save_as(path)
    with pytest.raises(DataError, match=r"one image of a slice at a time, got several at 1 in"):
        read_file(path)


def test_a_time_that_all_frames_have_says_nothing(tmp_path):
    pytest.importorskip("pydicom")
    for image in writers.edited_dicom(writers.write_dicom(tmp_path)):
        image.InstanceNumber, image.TriggerTime = 1 + image.TriggerTime, 0
    file = read_file(tmp_path)
    expected = 2.0 * writers.images((3, 2, 9, 8))[:, 0] + 1
    np.testing.assert_allclose(np.abs(file[0].reference), expected, rtol=1e-6)
    assert file.frame_seconds is None


def test_radial_dicom_planes_about_one_point_are_slices_of_their_own(tmp_path):
    pytest.importorskip("pydicom")
    file = read_file(writers.write_dicom(tmp_path, angles=(0.0, 60.0, 120.0)))
    found = [np.abs(case.reference) for case in file]
    expected = 2.0 * writers.images((3, 3, 9, 8)) + 1
    assert file.slice_shape[0] == len(found) == 3
    for z in range(3):
        assert any(np.allclose(images, expected[:, z], rtol=1e-6) for images in found)
    assert not file[0].meta.is_stack


def test_dicom_with_many_images_in_a_file_says_of_each_where_it_belongs(tmp_path):
    pytest.importorskip("pydicom")
    file = read_file(writers.write_enhanced_dicom(tmp_path))
    assert len(file) == 2 and file[0].meta.is_stack
    for z in range(2):
        expected = (z + 1.0) * writers.images((3, 2, 9, 8))[:, z]
        np.testing.assert_allclose(np.abs(file[z].reference), expected, rtol=1e-6)


def test_dicom_with_many_images_in_a_file_is_decoded_once_for_all_slices(tmp_path, monkeypatch):
    pytest.importorskip("pydicom")
    file, loaded, load = read_file(writers.write_enhanced_dicom(tmp_path)), [], dicom_images._load
    monkeypatch.setattr(dicom_images, "_load", lambda *a, **kw: loaded.append(a) or load(*a, **kw))
    assert len(list(file)) == 2 and len(loaded) == 1
    (path,) = tmp_path.iterdir()
    os.utime(path, (0, 0))
    file[0]
    assert len(loaded) == 2


PHASE = [["ORIGINAL", "PRIMARY", "P", "RETRO"], ["ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE"]]


@pytest.mark.parametrize("phase", PHASE)
def test_dicom_images_of_phase_in_a_series_are_left_out(tmp_path, phase):
    pytest.importorskip("pydicom")
    kinds = {"M": ["ORIGINAL", "PRIMARY", "M", "RETRO"], "P": phase}
    with pytest.warns(DataWarning, match="left out 6 images that are no magnitudes"):
        file = read_file(writers.write_dicom(tmp_path, kinds=kinds))
    for z in range(2):
        expected = 2.0 * writers.images((3, 2, 9, 8))[:, z] + 1
        np.testing.assert_allclose(np.abs(file[z].reference), expected, rtol=1e-6)
    assert file[0].meta.notes == ("left out 6 images that are no magnitudes",)


def test_dicom_images_of_phase_alone_are_refused(tmp_path):
    pytest.importorskip("pydicom")
    writers.write_dicom(tmp_path, kinds={"P": PHASE[0]})
    with pytest.raises(DataError, match="expected magnitude images, got 6 of phase"):
        read_file(tmp_path)


def test_each_image_of_a_dicom_file_may_say_that_it_is_phase(tmp_path):
    pytest.importorskip("pydicom")
    from pydicom import dcmread
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    path = writers.write_enhanced_dicom(tmp_path)
    data = dcmread(path)
    data.ComplexImageComponent = "MIXED"
    for number, group in enumerate(data.PerFrameFunctionalGroupsSequence):
        kind = Dataset()
        kind.ComplexImageComponent = "MAGNITUDE" if number in (0, 1, 3, 4) else "PHASE"
        group.MRImageFrameTypeSequence = Sequence([kind])
    data.save_as(path)
    with pytest.warns(DataWarning, match="left out 2 images"):
        assert read_file(path).slice_shape[0] == 2


def test_a_dicom_series_with_a_missing_image_is_refused(tmp_path):
    pytest.importorskip("pydicom")
    writers.write_dicom(tmp_path)
    sorted(tmp_path.iterdir())[0].unlink()
    with pytest.raises(DataError, match=r"as many frames .* got \[2, 3\] frames a slice"):
        read_file(tmp_path)


def test_a_series_that_no_package_here_decompresses_is_left_out_beside_another(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    writers.write_dicom(tmp_path / "cine")
    writers.write_dicom(tmp_path / "film")
    uid = pydicom.uid.generate_uid()
    for image in writers.edited_dicom(tmp_path / "film"):
        image.SeriesInstanceUID, image.SOPInstanceUID = uid, pydicom.uid.generate_uid()
        image.file_meta.TransferSyntaxUID = pydicom.uid.MPEG2MPML
        image.PixelData = pydicom.encaps.encapsulate([b"film"])
    for number, path in enumerate(sorted((tmp_path / "film").iterdir())):
        path.rename(tmp_path / "cine" / f"film{number}.dcm")
    with pytest.warns(DataWarning, match="left out .* images compressed by 'MPEG2"):
        assert len(read_file(tmp_path / "cine")) == 2


def test_pixels_that_no_package_here_decompresses_are_refused_with_one_that_does(
    tmp_path, monkeypatch
):
    pydicom = pytest.importorskip("pydicom")
    lossless = pydicom.uid.JPEGLosslessSV1
    for image in writers.edited_dicom(writers.write_dicom(tmp_path)):
        image.file_meta.TransferSyntaxUID = lossless
        image.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
    decoder = SimpleNamespace(is_available=False)
    monkeypatch.setattr(pydicom.pixels, "get_decoder", {lossless: decoder}.__getitem__)
    with pytest.raises(DataError, match=r"decompresses .*JPEG Lossless.*pip install 'pylibjpeg"):
        read_file(tmp_path)
    decoder.is_available = True  # but not of these samples
    with pytest.raises(DataError, match=r"grey images in DICOM.*pip install 'pylibjpeg"):
        read_file(tmp_path)[0]
