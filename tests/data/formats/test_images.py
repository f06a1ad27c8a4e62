"""Magnitude cines in HDF5, npy and NIfTI: their images come back as the reference."""

import warnings
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest

from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.formats import (
    DataWarning,
    ReadOptions,
    arrays,
    find_files,
    find_units,
    open_files,
    open_unit,
    read_file,
)
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


def test_a_case_tells_whose_phase_it_has(tmp_path):
    with h5py.File(tmp_path / "both.h5", "w") as file:
        file["a/image"] = writers.images() * np.complex64(1j)
        file["b/image"] = writers.images()
    options = ReadOptions(simulation=Simulation(n_coils=1))
    own, random = (file[0].meta.simulation for file in open_files(tmp_path / "both.h5", options))
    assert own.startswith("simulated from complex images: 1 coil, noise")
    assert "the images' own phase" in own
    assert random.startswith("simulated from images: 1 coil, noise")
    assert "smooth random phase" in random


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


def test_reading_in_threads_leaves_the_filters_of_warnings_as_they_are(tmp_path):
    pytest.importorskip("nibabel")
    file = read_file(writers.write_nifti(tmp_path))
    before = list(warnings.filters)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda i: file[i % 2], range(400)))
    assert warnings.filters == before


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
