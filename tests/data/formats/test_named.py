"""Arrays of no known format: read once key and axes are named, refused with advice before."""

import h5py
import numpy as np
import pytest
import scipy.io

from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.formats import read_file
from kgmgt_jax.data.formats.axes import AxisOrder
from kgmgt_jax.data.matfile import write_mat
from tests.data.formats.writers import kspace, line_mask, maps


@pytest.mark.parametrize("text", ["kx,ky,coil", "x y c", "(kx, ky, n)", "W,H,COIL"])
def test_axes_go_by_several_names(text):
    assert AxisOrder.parse(text, "file").letters == "whn"


@pytest.mark.parametrize("text", ["", "kx,coil", "kx,ky,ky", "kx,ky,b"])
def test_axes_that_make_no_image_are_refused(text):
    with pytest.raises(DataError, match="each once"):
        AxisOrder.parse(text, "file")


def test_axes_in_any_order_read_to_ours(tmp_path):
    stored = kspace((8, 2, 9, 3))  # kx z ky t
    path = write_mat(tmp_path / "any.mat", "data", stored)
    file = read_file(path, key="data", axes="kx,z,ky,t")
    np.testing.assert_array_equal(file[1].kspace, stored[:, 1].transpose(2, 1, 0)[:, None])


def test_the_only_array_needs_no_key(tmp_path):
    path = write_mat(tmp_path / "any.mat", "data", kspace((9, 8)))
    assert read_file(path, axes="ky,kx")[0].shape == (1, 1, 9, 8)


def test_one_of_several_arrays_needs_its_key(tmp_path):
    with h5py.File(tmp_path / "any.h5", "w") as file:
        file["a"], file["b"] = kspace((9, 8)), kspace((9, 8))
    with pytest.raises(DataError, match=r"--key with the name of an array, got 'a' complex"):
        read_file(tmp_path / "any.h5", axes="ky,kx")


def test_kspace_of_four_axes_in_matlab_5_reads_once_they_are_named(tmp_path):
    path, stored = tmp_path / "any.mat", kspace((3, 4, 9, 8))
    scipy.io.savemat(path, {"kspace": stored.T})
    with pytest.raises(DataError, match=r"got shape \(3, 4, 9, 8\); name its axes with --axes"):
        read_file(path)
    for key in (None, "kspace"):
        case = read_file(path, key=key, axes="t,coil,ky,kx")[0]
        np.testing.assert_array_equal(case.kspace, stored)


def test_a_mask_file_decides_what_was_measured(tmp_path):
    path = write_mat(tmp_path / "any.mat", "data", kspace((9, 8)) * line_mask().astype(np.float32))
    np.save(tmp_path / "m.npy", np.ones(9))
    assert read_file(path, axes="ky,kx")[0].true_acceleration == pytest.approx(9 / 5)
    case = read_file(path, axes="ky,kx", mask=tmp_path / "m.npy")[0]
    assert case.true_acceleration == 1 and case.meta.mask_source.endswith("m.npy")


def test_a_mask_that_fits_two_ways_is_refused_for_that(tmp_path):
    path = write_mat(tmp_path / "any.mat", "data", kspace((9, 4, 9, 8)))
    np.save(tmp_path / "m.npy", np.ones((9, 9)))
    with pytest.raises(DataError, match=r"got \(9, 9\), which may be either"):
        read_file(path, axes="t,coil,ky,kx", mask=tmp_path / "m.npy")


@pytest.mark.parametrize("key", ["kdata", "kspace"])
def test_a_mask_in_the_file_decides_what_was_measured(tmp_path, key):
    stored = kspace((3, 4, 9, 8)) * line_mask().astype(np.float32)
    stored[:, :, 4, 4] = 0  # measured, and nothing there
    with h5py.File(tmp_path / "any.h5", "w") as file:
        file[key], file["mask"] = stored.swapaxes(-1, -2), line_mask().T
    case = read_file(tmp_path / "any.h5", key=key, axes="t,coil,kx,ky")[0]
    np.testing.assert_array_equal(case.mask, np.stack([line_mask()] * 3).astype(np.float32))
    assert case.meta.mask_source == str(tmp_path / "any.h5")
    np.save(tmp_path / "m.npy", np.ones((8, 9)))
    other = read_file(tmp_path / "any.h5", key=key, axes="t,coil,kx,ky", mask=tmp_path / "m.npy")
    assert other[0].mask.all()


@pytest.mark.parametrize("names", [["scan/mask"], ["mask"], ["scan/mask", "mask"]])
def test_a_mask_beside_kspace_in_a_group_is_its_mask(tmp_path, names):
    with h5py.File(tmp_path / "any.h5", "w") as file:
        file["scan/kdata"] = kspace((3, 4, 9, 8)) * line_mask().astype(np.float32)
        file["other/mask"] = np.zeros((9, 8))
        for value, name in enumerate(reversed(names), start=2 - len(names)):
            file[name] = np.full((9, 8), float(value))  # the first of the names is what counts
    case = read_file(tmp_path / "any.h5", key="scan/kdata", axes="t,coil,ky,kx")[0]
    assert case.true_acceleration == 1
    assert case.meta.mask_source == str(tmp_path / "any.h5")


def test_a_mask_in_the_file_goes_with_a_named_key_of_official_axes(tmp_path):
    with h5py.File(tmp_path / "any.h5", "w") as file:
        file["kdata"] = kspace((3, 2, 4, 9, 8)) * line_mask().astype(np.float32)
        file["mask"] = line_mask()
    case = read_file(tmp_path / "any.h5", key="kdata")[0]
    np.testing.assert_array_equal(case.mask, np.stack([line_mask()] * 3).astype(np.float32))


def test_the_measured_frame_reads_with_key_and_axes(data_dir):
    path = data_dir / "real/cmrxrecon_underkslice.mat"
    case = read_file(path, key="underkspace", axes="kx,ky,coil")[0]
    assert case.shape == (1, 10, 162, 448)
    assert case.true_acceleration == pytest.approx(162 / 32) and case.acs == 20
    with h5py.File(path) as file:
        stored = file["underkspace"][()]
    expected = (stored["real"] + 1j * stored["imag"]).transpose(2, 1, 0)[None]
    np.testing.assert_allclose(case.kspace, expected, rtol=1e-6)


def test_the_measured_frame_is_refused_with_what_to_pass(data_dir):
    found = r"'underkspace' complex \(448, 162, 10\)"
    with pytest.raises(DataError, match=rf"got {found}; pass --key underkspace and --axes"):
        read_file(data_dir / "real/cmrxrecon_underkslice.mat")


@pytest.mark.parametrize("key", ["ksp", "data"])
def test_kspace_of_another_key_is_not_passed_over_for_images(tmp_path, key):
    with h5py.File(tmp_path / "any.h5", "w") as file:
        file["csm"] = maps((4, 9, 8))
        file[key] = kspace((3, 4, 9, 8))
        file["sampling"], file["picture"] = line_mask(9, 8)[None], np.ones((3, 9, 8))
    with pytest.raises(DataError, match=rf"pass --key {key} and --axes with its 4 axes"):
        read_file(tmp_path / "any.h5")
    assert read_file(tmp_path / "any.h5", key="picture").format == "images"


def test_maps_beside_images_leave_them_images(tmp_path):
    with h5py.File(tmp_path / "any.h5", "w") as file:
        file["csm"], file["picture"] = maps((4, 9, 8)), np.ones((3, 9, 8))
        file["sampling_pattern"] = np.ones((3, 9, 8), np.uint8)
    assert read_file(tmp_path / "any.h5").key == "picture"


def test_axes_that_contradict_the_array_are_refused(tmp_path):
    path = write_mat(tmp_path / "any.mat", "data", kspace((3, 9, 8)))
    with pytest.raises(DataError, match=r"axes \(kx, ky\), got shape \(3, 9, 8\)"):
        read_file(path, key="data", axes="kx,ky")
    with pytest.raises(DataError, match=r"an array named 'other', got 'data' complex"):
        read_file(path, key="other", axes="coil,ky,kx")


@pytest.mark.parametrize("size", [(9, 8), (8, 8)])
@pytest.mark.parametrize("in_time", [True, False])
def test_maps_and_mask_lie_as_the_named_axes_of_their_npy_kspace(tmp_path, size, in_time):
    k, sens = kspace((3, 4, *size)), maps((3, 4, *size) if in_time else (4, *size))
    mask = np.stack([np.roll(line_mask(*size), t, axis=0) for t in range(3)])
    np.save(tmp_path / "kspace.npy", (k * mask[:, None]).swapaxes(-1, -2))
    np.save(tmp_path / "sens.npy", sens.swapaxes(-1, -2))
    np.save(tmp_path / "mask.npy", mask.swapaxes(-1, -2))
    case = read_file(tmp_path / "kspace.npy", axes="t,coil,kx,ky")[0]
    np.testing.assert_array_equal(case.kspace, (k * mask[:, None]).astype(np.complex64))
    np.testing.assert_array_equal(case.sens, sens)
    np.testing.assert_array_equal(case.mask, mask.astype(np.float32))


def test_maps_and_masks_of_every_slice_go_with_it(tmp_path):
    k, sens = kspace((2, 3, 4, 9, 8)), maps((2, 4, 9, 8))  # z t coil ky kx
    mask = np.stack([line_mask(), line_mask()[::-1]])
    np.save(tmp_path / "kspace.npy", k * mask[:, None, None])
    np.save(tmp_path / "sens.npy", sens)
    np.save(tmp_path / "mask.npy", mask)
    for z, case in enumerate(read_file(tmp_path / "kspace.npy", axes="z,t,coil,ky,kx")):
        np.testing.assert_array_equal(case.sens, sens[z])
        np.testing.assert_array_equal(case.mask, np.stack([mask[z]] * 3).astype(np.float32))


def test_companions_in_our_order_are_told_by_their_shape(tmp_path):
    np.save(tmp_path / "kspace.npy", kspace((8, 9, 4, 3)))  # kx ky coil t
    np.save(tmp_path / "sens.npy", maps((4, 9, 8)))
    np.save(tmp_path / "m.npy", np.ones((3, 9, 8)))
    path = tmp_path / "kspace.npy"
    case = read_file(path, axes="kx,ky,coil,t", mask=tmp_path / "m.npy")[0]
    np.testing.assert_array_equal(case.sens, np.load(tmp_path / "sens.npy"))
    assert case.mask.all()


@pytest.mark.parametrize("name, shape", [("sens", (3, 4, 9, 8)), ("mask", (3, 9, 8))])
def test_companions_of_each_frame_or_slice_are_refused(tmp_path, name, shape):
    np.save(tmp_path / "kspace.npy", kspace((3, 3, 4, 9, 8)))
    np.save(tmp_path / f"{name}.npy", maps(shape) if name == "sens" else np.ones(shape))
    with pytest.raises(DataError, match=rf"{name}.npy: expected .*, as many frames as slices"):
        read_file(tmp_path / "kspace.npy", axes="z,t,coil,ky,kx")


def test_a_mask_lies_as_the_named_axes_of_an_official_key(tmp_path):
    mask = np.stack([np.roll(line_mask(8, 8), t, axis=0) for t in range(3)])
    stored = (kspace((3, 1, 4, 8, 8)) * mask[:, None, None]).astype(np.complex64)
    path = write_mat(tmp_path / "any.mat", "kspace", stored.swapaxes(-1, -2))
    np.save(tmp_path / "m.npy", mask.swapaxes(-1, -2))
    case = read_file(path, axes="t,z,coil,kx,ky", mask=tmp_path / "m.npy")[0]
    np.testing.assert_array_equal(case.mask, mask.astype(np.float32))


@pytest.mark.parametrize("shape", [(3, 9), (9, 3)])
def test_a_mask_may_have_lines_of_each_frame(tmp_path, shape):
    lines = np.random.default_rng(0).integers(0, 2, (3, 9)) | (np.arange(9) % 4 == 0)
    path = write_mat(tmp_path / "any.mat", "data", kspace((3, 4, 9, 8)) * lines[:, None, :, None])
    np.save(tmp_path / "m.npy", lines if shape == (3, 9) else lines.T)
    case = read_file(path, axes="t,coil,ky,kx", mask=tmp_path / "m.npy")[0]
    np.testing.assert_array_equal(case.mask, np.repeat(lines[..., None], 8, axis=2))


def test_lines_that_may_be_of_slices_are_refused_with_what_is_taken(tmp_path):
    path = write_mat(tmp_path / "any.mat", "data", kspace((3, 3, 9, 8)))
    np.save(tmp_path / "m.npy", np.ones((3, 9)))
    shapes = r"\(ky\) = \(9,\) or \(t, ky\) = \(3, 9\) or \(ky, kx\) = \(9, 8\) or \(z, t, ky, kx\)"
    with pytest.raises(DataError, match=shapes):
        read_file(path, axes="z,t,ky,kx", mask=tmp_path / "m.npy")


def test_an_axis_without_samples_is_named_so(tmp_path):
    np.save(tmp_path / "kspace.npy", kspace((3, 4, 9, 8))[:0])
    with pytest.raises(DataError, match=r"\(0, 4, 9, 8\), of which an axis has length 0"):
        read_file(tmp_path / "kspace.npy")


@pytest.mark.parametrize(
    "shape, axes, told",
    [
        ((3, 4, 9, 8, 2), None, "looks like real and imaginary parts: store"),
        ((3, 4, 9, 8, 2), "t,coil,ky,kx", "looks like real and imaginary parts: store"),
        ((3, 4, 9, 8), "t,coil,ky,kx", "expected complex k-space, where coils are named"),
        ((3, 4, 9, 8), None, "no array is complex.*or read images with --axes, such as --axes t,z"),
    ],
)
def test_kspace_of_real_numbers_is_refused_with_what_to_store(tmp_path, shape, axes, told):
    np.save(tmp_path / "any.npy", np.ones(shape))
    with pytest.raises(DataError, match=told):
        read_file(tmp_path / "any.npy", axes=axes)


def test_a_key_of_another_layout_wants_its_axes_rather_than_a_mask(tmp_path):
    path = write_mat(tmp_path / "under.mat", "ksp", kspace((3, 2, 4, 9, 8)))
    with pytest.raises(DataError, match="'ksp' is not of CMRxRecon, name its axes with --axes"):
        read_file(path, key="ksp")
