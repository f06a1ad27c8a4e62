"""Magnitude cines in HDF5, npy, NIfTI and DICOM: their images come back as the reference."""

import os

import h5py
import numpy as np
import pytest

from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.formats import (
    DataWarning,
    ReadOptions,
    arrays,
    dicom,
    find_files,
    find_units,
    open_files,
    open_unit,
    read_file,
)
from kgmgt_jax.data.formats.dicom import frame_seconds
from kgmgt_jax.data.matfile import write_mat
from kgmgt_jax.data.simulation import Simulation
from tests.data.formats import writers


def _magnitude(case):
    return np.abs(case.reference)


def test_hdf5_stacks_at_any_depth_are_one_file_each(tmp_path):
    one, two = open_files(writers.write_stacks(tmp_path))
    np.testing.assert_allclose(_magnitude(one[0]), writers.images(), rtol=1e-6)
    np.testing.assert_allclose(_magnitude(two[0]), writers.images((4, 8, 9), "two"), rtol=1e-6)
    assert (one[0].meta.name, two[0].meta.name) == ("train/a/one/slice0", "train/two/slice0")


@pytest.mark.parametrize("n_stacks", [2, 9])
def test_a_file_is_listed_once_however_many_stacks_it_holds(tmp_path, monkeypatch, n_stacks):
    path, listed, datasets = tmp_path / "stacks.h5", [], arrays._datasets
    with h5py.File(path, "w") as file:
        for i in range(n_stacks):
            file[f"{i}"] = writers.images()
    (unit,) = find_units(path)
    monkeypatch.setattr(arrays, "_datasets", lambda file: listed.append(1) or datasets(file))
    assert len(open_unit(unit)) == n_stacks and len(listed) == 1


def test_a_stack_is_chosen_by_key(tmp_path):
    path = writers.write_stacks(tmp_path)
    with pytest.raises(DataError, match=r"expected one cine, got 2: 'a/one', 'two'.*--key"):
        read_file(path)
    assert read_file(path, key="two").slice_shape == (4, 8, 8, 9)


def test_axes_of_images_can_be_named(tmp_path):
    path = writers.write_image_npy(tmp_path)
    (file,) = open_files(path, ReadOptions(axes="z,y,x"))
    assert (len(file), file.slice_shape) == (3, (1, 8, 9, 8))
    np.testing.assert_allclose(_magnitude(file[2])[0], writers.images()[2], rtol=1e-6)


def test_nifti_axes_become_time_rows_columns(tmp_path):
    pytest.importorskip("nibabel")
    file = read_file(writers.write_nifti(tmp_path))
    for z in range(2):
        expected = writers.images((3, 2, 9, 8))[:, z]
        np.testing.assert_allclose(_magnitude(file[z]), expected, rtol=1e-6)
    meta = file[0].meta
    assert meta.orientation == "rows to P, columns to R"
    assert meta.pixel_mm == pytest.approx((1.25, 1.5))
    assert meta.frame_seconds == pytest.approx(0.04)


def test_nifti_axes_of_another_order_keep_their_sizes(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.nifti1.Nifti1Image(writers.images().T, np.diag([0.0015, 0.0025, 1, 1]))
    image.header.set_xyzt_units("meter")
    nibabel.save(image, tmp_path / "cine.nii")
    file = read_file(tmp_path / "cine.nii", axes="y,x,t")
    assert file.pixel_mm == pytest.approx((1.5, 2.5)) and file.frame_seconds is None


def test_nifti_axes_that_are_no_lengths_have_no_size(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    path = tmp_path / "cine.nii"
    nibabel.save(nibabel.nifti1.Nifti1Image(writers.images((3, 2, 9, 8)), np.eye(4)), path)
    file = read_file(path, axes="t,z,y,x")
    assert file.pixel_mm is None and file.slice_shape == (3, 8, 9, 8)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_nifti_pixels_of_no_size_are_unknown(tmp_path, value):
    """As of a header whose affine matrix nobody has filled in."""
    nibabel = pytest.importorskip("nibabel")
    path = tmp_path / "cine.nii"
    nibabel.save(nibabel.nifti1.Nifti1Image(writers.images((3, 2, 9, 8)).T, np.eye(4)), path)
    data = bytearray(path.read_bytes())
    data[252:256] = np.array([0, 1], "<i2").tobytes()  # qform_code, sform_code
    data[280:328] = np.full(12, value, "<f4").tobytes()
    path.write_bytes(data)
    assert read_file(path)[0].meta.pixel_mm is None


def test_three_nifti_axes_need_a_name(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    path = tmp_path / "cine.nii"
    nibabel.save(nibabel.nifti1.Nifti1Image(writers.images().T, np.eye(4)), path)
    with pytest.raises(DataError, match=r"\(x, y, z, t\), got shape \(8, 9, 3\); .*--axes x,y,t"):
        read_file(path)
    np.testing.assert_allclose(
        _magnitude(read_file(path, axes="x,y,t")[0]), writers.images(), rtol=1e-6
    )


def test_dicom_is_sorted_by_position_and_trigger_time_and_rescaled(tmp_path):
    pytest.importorskip("pydicom")
    file = read_file(writers.write_dicom(tmp_path))
    for z in range(2):
        expected = 2.0 * writers.images((3, 2, 9, 8))[:, z] + 1
        np.testing.assert_allclose(_magnitude(file[z]), expected, rtol=1e-6)
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
    assert dicom.slices_by_depth([0.1, 0.0, 0.04]) == [[1, 2], [0]]


def test_radial_planes_keep_their_order_whatever_their_files_are_called(tmp_path):
    pytest.importorskip("pydicom")
    (tmp_path / "b").mkdir()
    for path in writers.write_dicom(tmp_path / "a", angles=(0.0, 60.0, 120.0)).iterdir():
        (tmp_path / "b" / f"{2 - int(path.stem[-1])}{path.name}").write_bytes(path.read_bytes())
    one, other = ([_magnitude(c) for c in read_file(tmp_path / name)] for name in "ab")
    np.testing.assert_allclose(one, other, rtol=1e-6)


def test_pixels_of_several_sizes_in_a_series_have_none_in_common(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    path = min(writers.write_dicom(tmp_path).iterdir())
    image = pydicom.dcmread(path)
    image.PixelSpacing = [1.25, 1.75]
    image.save_as(path)
    assert read_file(tmp_path).pixel_mm is None


@pytest.mark.parametrize(
    ("sequence", "keyword", "seconds"),
    [
        ("CardiacSynchronizationSequence", "ActualCardiacTriggerDelayTime", 0.03),
        ("FrameContentSequence", "TemporalPositionIndex", None),
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
    np.testing.assert_allclose(_magnitude(file[0]), writers.images((3, 2, 9, 8))[:, 0], rtol=1e-6)


@pytest.mark.parametrize("part", ["REAL", "IMAGINARY", "PHASE", "MAGNITUDE"])
def test_parts_of_complex_images_are_no_magnitudes(part):
    pydicom = pytest.importorskip("pydicom")
    image = pydicom.Dataset()
    image.ComplexImageComponent = part
    assert dicom.is_magnitude(image) == (part == "MAGNITUDE")


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
    pydicom = pytest.importorskip("pydicom")
    for path in writers.write_dicom(tmp_path, angles=(0.0, 0.0, 0.0)).iterdir():
        image = pydicom.dcmread(path)
        z = image.ImagePositionPatient[2] / 8
        tilt = 0.125 + (2e-6 if z != 1 else -2e-6)
        image.ImageOrientationPatient = [1, 0, 0, 0, (1 - tilt**2) ** 0.5, tilt]
        image.save_as(path)
    file = read_file(tmp_path)
    assert file[0].meta.is_stack and len(file) == 3
    for z in range(3):
        expected = 2.0 * writers.images((3, 3, 9, 8))[:, z] + 1
        np.testing.assert_allclose(_magnitude(file[z]), expected, rtol=1e-6)


def test_copies_of_dicom_images_are_left_out(tmp_path):
    pytest.importorskip("pydicom")
    for path in sorted(writers.write_dicom(tmp_path).iterdir()):
        path.with_name("again_" + path.name).write_bytes(path.read_bytes())
    with pytest.warns(DataWarning, match="left out 6 copies of images"):
        file = read_file(tmp_path)
    assert file.slice_shape[0] == 3 and file.frame_seconds == 0.03


def test_images_of_one_identifier_at_other_places_are_no_copies(tmp_path):
    """As anonymising tools leave them that give all images the same."""
    pydicom = pytest.importorskip("pydicom")
    for path in writers.write_dicom(tmp_path).iterdir():
        image = pydicom.dcmread(path)
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
        image.save_as(path)
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
    pydicom = pytest.importorskip("pydicom")
    for path in writers.write_dicom(tmp_path).iterdir():
        image = pydicom.dcmread(path)
        image.InstanceNumber, image.TriggerTime = 1 + image.TriggerTime, 0
        image.save_as(path)
    file = read_file(tmp_path)
    expected = 2.0 * writers.images((3, 2, 9, 8))[:, 0] + 1
    np.testing.assert_allclose(_magnitude(file[0]), expected, rtol=1e-6)
    assert file.frame_seconds is None


def test_radial_dicom_planes_about_one_point_are_slices_of_their_own(tmp_path):
    pytest.importorskip("pydicom")
    file = read_file(writers.write_dicom(tmp_path, angles=(0.0, 60.0, 120.0)))
    found = [_magnitude(case) for case in file]
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
        np.testing.assert_allclose(_magnitude(file[z]), expected, rtol=1e-6)


def test_dicom_with_many_images_in_a_file_is_decoded_once_for_all_slices(tmp_path, monkeypatch):
    pytest.importorskip("pydicom")
    file, loaded, load = read_file(writers.write_enhanced_dicom(tmp_path)), [], dicom._load
    monkeypatch.setattr(dicom, "_load", lambda *a, **kw: loaded.append(a) or load(*a, **kw))
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
        np.testing.assert_allclose(_magnitude(file[z]), expected, rtol=1e-6)
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


def test_every_case_from_images_says_that_it_is_simulated(tmp_path):
    options = ReadOptions(simulation=Simulation(n_coils=3, noise=0.02, seed=5))
    (file,) = open_files(writers.write_image_npy(tmp_path), options)
    meta = file[0].meta
    assert meta.simulated and "3 coils, noise 0.02" in meta.simulation
    assert file[0].n_coils == 3 and file[0].sens is None


@pytest.mark.parametrize("bad, message", [(-1.0, "at least 0"), (np.nan, "finite"), (0.0, "zeros")])
def test_what_is_no_magnitude_is_refused(tmp_path, bad, message):
    np.save(tmp_path / "cine.npy", np.full((2, 5, 4), bad))
    with pytest.raises(DataError, match=message):
        read_file(tmp_path / "cine.npy")[0]


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32])
def test_zeros_and_ones_are_no_images(tmp_path, dtype):
    mask = np.stack([writers.line_mask()] * 3).astype(dtype)
    np.save(tmp_path / "lines.npy", mask)
    with pytest.raises(DataError, match="expected images, got zeros and ones, as of a mask"):
        read_file(tmp_path / "lines.npy")[0]


def test_images_beside_kspace_are_left_out_of_a_tree(tmp_path):
    writers.write_stacks(tmp_path / "images")
    assert [p.name for p in find_files(tmp_path)] == ["train.h5"]
    full = write_mat(tmp_path / "P001/cine_sax.mat", "kspace_full", writers.kspace())
    with pytest.warns(DataWarning, match=r"left out 1 files of images.*train\.h5"):
        assert find_files(tmp_path) == [full]


def test_previews_and_masks_are_not_images(tmp_path):
    writers.write_cmrxrecon(tmp_path / "P001")
    writers.write_stacks(tmp_path / "ImgSnapshot")
    assert [p.name for p in find_files(tmp_path)] == ["cine_sax.mat"]
    with pytest.raises(DataError, match="'mask04' real"):
        read_file(tmp_path / "P001/cine_sax_mask.mat")


def test_real_cines_are_read(data_dir):
    files = open_files(data_dir / "val.h5")
    assert len(files) == 11
    case = files[0][0]
    assert case.shape == (12, 8, 256, 198) and case.meta.simulated
