"""The CMRxRecon 2023 reader: real layout files read right, every damaged one refused in a line."""

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from kgmgt_jax.data.formats import read_file
from kgmgt_jax.data.formats.cmrxrecon_tree import subject_of
from tests.data.formats.refusals import refused

SHAPE = (3, 2, 2, 6, 4)  # (t, z, n, ky, kx)
CHUNKS = (1, 1, 2, 6, 4)
COMPOUND = np.dtype([("real", "<f4"), ("imag", "<f4")])


def _kspace(shape: tuple[int, ...] = SHAPE, rows: slice = slice(None)) -> np.ndarray:
    """Random k-space that is zero outside ``rows``."""
    rng = np.random.default_rng(0)
    full = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)
    kspace = np.zeros_like(full)
    kspace[..., rows, :] = full[..., rows, :]
    return kspace


def _write(path: Path, **datasets: np.ndarray) -> Path:
    """Writes an HDF5 file; complex arrays become compounds of real and imag, as from MATLAB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for key, array in datasets.items():
            if np.iscomplexobj(array):
                compound = np.empty(array.shape, COMPOUND)
                compound["real"], compound["imag"] = array.real, array.imag
                array = compound
            chunks = CHUNKS if array.shape == SHAPE else None
            file.create_dataset(key, data=array, chunks=chunks, fletcher32=bool(chunks))
    return path


def _undersampled(folder: Path, **masks: np.ndarray) -> Path:
    """An undersampled file that measured every second row, and its mask file if masks are given."""
    if masks:
        _write(folder / "cine_sax_mask.mat", **masks)
    return _write(folder / "cine_sax.mat", kspace_sub04=_kspace(rows=slice(None, None, 2)))


def _mask() -> np.ndarray:
    mask = np.zeros(SHAPE[-2:])
    mask[::2] = 1
    return mask


# Files in the official layout


def _official(data_dir: Path, coils: str, sampling: str) -> Path:
    root = data_dir / "cmrxrecon/2023" / coils / "Cine/TrainingSet"
    return root / sampling / "P001/cine_sax.mat"


@pytest.mark.parametrize(("coils", "n_coils"), [("MultiCoil", 5), ("SingleCoil", 1)])
@pytest.mark.parametrize("sampling", ["FullSample", "AccFactor04", "AccFactor08", "AccFactor10"])
def test_official_files_give_one_case_a_slice(data_dir, coils, n_coils, sampling):
    file = read_file(_official(data_dir, coils, sampling))
    assert [case.shape for case in file] == [(8, n_coils, 132, 224)] * 2


@pytest.mark.parametrize(
    ("sampling", "rows"), [("AccFactor04", 51), ("AccFactor08", 38), ("AccFactor10", 36)]
)
def test_official_masks_measure_comb_and_calibration_lines(data_dir, sampling, rows):
    case = read_file(_official(data_dir, "MultiCoil", sampling))[0]
    assert case.true_acceleration == pytest.approx(132 / rows)


def test_undersampled_official_files_equal_the_full_ones_where_measured(data_dir):
    full = read_file(_official(data_dir, "SingleCoil", "FullSample"))[1]
    sub = read_file(_official(data_dir, "SingleCoil", "AccFactor08"))[1]
    np.testing.assert_array_equal(sub.kspace, full.kspace * sub.mask[:, None])


def test_what_a_case_says_about_itself(data_dir):
    path = _official(data_dir, "MultiCoil", "AccFactor10")
    meta = read_file(path)[1].meta
    assert (meta.source, meta.name) == (str(path), "P001/cine_sax/slice1")
    assert (meta.key, meta.slice_index, meta.n_slices) == ("kspace_sub10", 1, 2)
    assert (meta.fully_sampled, meta.nominal_acceleration) == (False, 10.0)


# Values and axes


def test_axes_keep_their_order(tmp_path):
    kspace = _kspace()
    file = read_file(_write(tmp_path / "cine_sax.mat", kspace_full=kspace))
    np.testing.assert_array_equal(file[1].kspace, kspace[:, 1])


def test_a_single_coil_gets_a_coil_axis(tmp_path):
    kspace = _kspace((3, 2, 6, 4))
    file = read_file(_write(tmp_path / "cine_sax.mat", kspace_single_full=kspace))
    np.testing.assert_array_equal(file[0].kspace, kspace[:, 0, None])


def test_double_precision_is_reduced_to_complex64(tmp_path):
    raw = np.ones((1, 1, 3, 3), [("real", "<f8"), ("imag", "<f8")])
    file = read_file(_write(tmp_path / "cine_sax.mat", kspace_single_full=raw))
    np.testing.assert_array_equal(file[0].kspace, np.full((1, 1, 3, 3), 1 + 1j, np.complex64))


@pytest.mark.parametrize("shape", [(1, 1, 7, 5), (1, 1, 1, 1), (2, 1, 1, 9)])
def test_odd_and_tiny_sizes_and_single_frames_are_read(tmp_path, shape):
    file = read_file(_write(tmp_path / "cine_lax.mat", kspace_single_full=_kspace(shape)))
    assert file[0].shape == (shape[0], 1, *shape[2:])


def test_negative_indices_and_ranges_select_slices(tmp_path):
    file = read_file(_write(tmp_path / "cine_sax.mat", kspace_full=_kspace()))
    assert file[-1].meta.slice_index == 1
    assert [case.meta.slice_index for case in file[::-1]] == [1, 0]


def test_a_file_object_can_go_to_another_process(tmp_path):
    file = read_file(_write(tmp_path / "cine_sax.mat", kspace_full=_kspace()))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(file))[0].kspace, file[0].kspace)


def test_another_key_can_be_named(tmp_path):
    path = _write(tmp_path / "cine_sax.mat", my_full_data=_kspace())
    assert read_file(path, key="my_full_data")[0].meta.fully_sampled


@pytest.mark.parametrize(
    ("path", "subject"),
    [("FullSample/P012/cine_sax.mat", "P012"), ("P3/extra/cine_sax.mat", "P3"), ("x/c.mat", "x")],
)
def test_the_subject_is_the_nearest_p_number(path, subject):
    assert subject_of(path) == subject


# Masks


def test_one_mask_serves_all_frames(tmp_path):
    case = read_file(_undersampled(tmp_path, mask04=_mask()))[0]
    np.testing.assert_array_equal(case.mask, np.stack([_mask()] * 3).astype(np.float32))


def test_a_mask_file_can_be_named(tmp_path):
    path = _undersampled(tmp_path)
    mask = np.stack([_mask()] * 3)
    assert read_file(path, mask=_write(tmp_path / "m.mat", mask=mask))[0].mask.shape == (3, 6, 4)
    np.save(tmp_path / "m.npy", mask)  # which has no name
    assert read_file(path, mask=tmp_path / "m.npy")[0].mask.shape == (3, 6, 4)


@pytest.mark.parametrize("key", ["kspace_sub04", "kspace"])
def test_a_mask_file_that_is_named_goes_before_a_mask_in_the_file(tmp_path, key):
    arrays = {key: _kspace(rows=slice(None, None, 2)), "mask": np.ones((6, 4))}
    file = read_file(
        _write(tmp_path / "cine_sax.mat", **arrays), mask=_write(tmp_path / "m.mat", mask=_mask())
    )
    np.testing.assert_array_equal(file[0].mask, np.broadcast_to(_mask(), (3, 6, 4)))


@pytest.mark.parametrize("shape", [(6,), (6, 1), (1, 6)])
def test_a_mask_of_lines_may_be_a_vector_of_matlab_s(tmp_path, shape):
    lines = _mask()[:, 0]
    scipy.io.savemat(tmp_path / "m.mat", {"mask": lines.reshape(shape)})
    case = read_file(_undersampled(tmp_path), mask=tmp_path / "m.mat")[0]
    np.testing.assert_array_equal(case.mask, np.broadcast_to(lines[:, None], (3, 6, 4)))


def test_a_full_file_has_a_mask_of_ones(tmp_path):
    assert read_file(_write(tmp_path / "cine_sax.mat", kspace_full=_kspace()))[0].mask.all()


def test_the_mask_and_not_the_zeros_says_what_was_measured(tmp_path):
    path = _write(tmp_path / "cine_sax.mat", kspace_sub04=_kspace(rows=slice(0, 2)))
    _write(tmp_path / "cine_sax_mask.mat", mask04=np.ones((6, 4)))
    assert read_file(path)[0].true_acceleration == 1


def test_an_undersampled_file_without_mask_names_the_missing_one(tmp_path):
    with refused(r"cine_sax_mask.mat, got no file; [^;]*--mask \(mask= in Python\)$"):
        read_file(_undersampled(tmp_path))
    other = _write(tmp_path / "other.mat", mine=_kspace(rows=slice(None, None, 2)))
    with refused(r"--mask .*'mine' is not of CMRxRecon, name its axes with --axes$"):
        read_file(other, key="mine")


def test_a_mask_of_another_size_is_refused_with_both_sizes(tmp_path):
    with refused(r"cine_sax_mask.mat: expected .*\(6, 4\).*, got \(4, 6\)"):
        read_file(_undersampled(tmp_path, mask04=_mask().T))


def test_a_mask_of_another_acceleration_is_refused(tmp_path):
    with refused(r"'mask04' or 'mask', got the keys \['mask08'\]"):
        read_file(_undersampled(tmp_path, mask08=_mask()))


def test_the_mask_of_the_right_acceleration_is_chosen(tmp_path):
    file = read_file(_undersampled(tmp_path, mask04=_mask(), mask08=1 - _mask()))
    assert file[0].mask[0, 0, 0] == 1


def test_a_complex_mask_is_refused(tmp_path):
    with refused("'mask04' with real numbers, got"):
        read_file(_undersampled(tmp_path, mask04=_mask() * 1j))
    np.save(tmp_path / "mask.npy", _mask() * 1j)
    with refused("mask.npy: expected a mask with real numbers, got complex128"):
        read_file(_undersampled(tmp_path), mask=tmp_path / "mask.npy")


def test_a_mask_that_misses_measured_samples_is_refused(tmp_path):
    with refused("24 samples outside the mask"):
        read_file(_undersampled(tmp_path, mask04=_mask() * (np.arange(6) < 4)[:, None]))[0]


def test_a_full_file_together_with_a_mask_is_refused(tmp_path):
    path = _write(tmp_path / "cine_sax.mat", kspace_full=_kspace())
    with refused("'kspace_full' together with mask='m.mat'"):
        read_file(path, mask="m.mat")


# A file of one's own whose k-space is called as that of 2025


def test_zeros_between_samples_of_plain_kspace_were_not_measured(tmp_path):
    data = _kspace()
    data[1, :, :, 2] = data[2, :, :, 4] = 0
    file = read_file(_write(tmp_path / "mine.h5", kspace=data))
    case = file[1]
    assert not file.fully_sampled and case.meta.nominal_acceleration is None
    np.testing.assert_array_equal(case.mask, (data[:, 1] != 0).any(axis=1))


def test_plain_kspace_without_gaps_is_full(tmp_path):
    data = _kspace(rows=slice(1, 5))  # zeros around it: another matrix
    file = read_file(_write(tmp_path / "mine.h5", kspace=data))
    assert file.fully_sampled and file[0].mask.all()


@pytest.mark.parametrize("inside", [True, False])
def test_a_mask_goes_before_the_zeros_of_plain_kspace(tmp_path, inside):
    mask = {"mask": _mask()}
    arrays = {"kspace": _kspace(rows=slice(0, None, 4))} | (mask if inside else {})
    path = _write(tmp_path / "mine.h5", **arrays)
    given = None if inside else _write(tmp_path / "other.h5", **mask)
    file = read_file(path, mask=given)
    assert not file.fully_sampled
    np.testing.assert_array_equal(file[0].mask, np.broadcast_to(_mask(), (3, 6, 4)))


def test_plain_kspace_in_the_organisers_folders_is_full_whatever_its_zeros(tmp_path):
    path = tmp_path / "MultiCoil/Cine/TrainingSet/FullSample/Center001/GE/P001/cine_sax.mat"
    file = read_file(_write(path, kspace=_kspace(rows=slice(0, None, 2))))
    assert file.fully_sampled and file.format == "cmrxrecon2025"


# Damaged and foreign files


def test_a_missing_key_is_refused_with_the_keys_found(tmp_path):
    path = _write(tmp_path / "cine_sax.mat", kspaces=_kspace(), other=np.ones(1))
    with refused(r"known format, got 'kspaces' complex \(3, 2, 2, 6, 4\), 'other'.*--key kspaces"):
        read_file(path)


def test_a_named_key_that_is_missing_is_refused(tmp_path):
    path = _write(tmp_path / "cine_sax.mat", kspace_full=_kspace())
    with refused(r"'kspace', got the keys \['kspace_full'\]"):
        read_file(path, key="kspace")


@pytest.mark.parametrize(
    ("key", "shape"), [("kspace_full", (3, 2, 6, 4)), ("kspace_single_full", SHAPE)]
)
def test_another_number_of_axes_is_refused(tmp_path, key, shape):
    path = _write(tmp_path / "cine_sax.mat", **{key: _kspace(shape)})
    with refused(r"axes \(t, z, .*ky, kx\), got shape \(3, 2"):
        read_file(path)


def test_real_numbers_are_refused(tmp_path):
    path = _write(tmp_path / "cine_sax.mat", kspace_full=np.abs(_kspace()))
    with refused("compound of floats 'real' and 'imag', got float32"):
        read_file(path)


def test_nan_is_refused_with_its_frame(tmp_path):
    kspace = _kspace()
    kspace[2, 0, 0, 0, 0] = np.nan
    path = _write(tmp_path / "cine_sax.mat", kspace_full=kspace)
    with refused(r"finite k-space, got 1 NaN or infinite samples in frames \[2\]"):
        read_file(path)[0]


def test_a_truncated_file_is_refused(tmp_path):
    path = _write(tmp_path / "cine_sax.mat", kspace_full=_kspace())
    path.write_bytes(path.read_bytes()[:-100])
    with refused("complete HDF5 file .*truncated"):
        read_file(path)


def test_damage_in_one_slice_is_refused_there_and_leaves_the_other_readable(tmp_path):
    path = _write(tmp_path / "cine_sax.mat", kspace_full=_kspace())
    with h5py.File(path) as file:
        chunk = file["kspace_full"].id.get_chunk_info_by_coord((0, 1, 0, 0, 0))
    damaged = bytearray(path.read_bytes())
    damaged[chunk.byte_offset : chunk.byte_offset + 8] = bytes(8)
    path.write_bytes(damaged)
    file = read_file(path)
    assert file[0].shape == (3, 2, 6, 4)
    with refused("complete HDF5 file"):
        file[1]


def test_a_file_that_is_no_hdf5_is_refused(tmp_path):
    path = tmp_path / "cine_sax.mat"
    path.write_text("MATLAB 5.0 MAT-file")
    with refused("MATLAB v7.3.*; .*-v7.3"):
        read_file(path)


def test_a_missing_file_is_refused(tmp_path):
    with refused("a .mat file, got no file"):
        read_file(tmp_path / "cine_sax.mat")


def test_an_empty_directory_in_place_of_a_file_is_refused(tmp_path):
    with refused("expected cines in files of a known format, got none"):
        read_file(tmp_path)
