"""What opened files take, of which a set has hundreds."""

import pickle
import tracemalloc

import h5py
import numpy as np
import pytest

from kgmgt_jax.data.formats import read_file
from kgmgt_jax.data.matfile import write_mat
from tests.data.formats import writers

T, H, W = 12, 48, 40
MASK_BYTES = T * H * W * np.dtype(np.float32).itemsize


def write_2023(folder):
    return write_mat(folder / "FullSample/P001/cine_sax.mat", "kspace_full", kspace())


def write_plain(folder):
    return write_mat(folder / "P001/cine_sax.mat", "kspace", kspace())


def write_fastmri(folder):
    with h5py.File(folder / "file.h5", "w") as file:
        file["kspace"] = writers.kspace((2, 2, 8 * W, 8 * H))
        file["ismrmrd_header"] = "<ismrmrdHeader/>"
    return folder / "file.h5"


def write_npy(folder):
    np.save(folder / "P1_kspace.npy", kspace()[:, 0])
    np.save(folder / "P1_mask.npy", np.ones((T, H, W), np.uint8))
    return folder / "P1_kspace.npy"


def kspace():
    return writers.kspace((T, 1, 2, H, W))


@pytest.mark.parametrize("write", [write_2023, write_plain, write_fastmri, write_npy])
def test_a_full_file_keeps_no_mask_and_sends_none_to_a_worker(tmp_path, write):
    file = read_file(write(tmp_path))
    assert file.fully_sampled and file[0].mask.all()
    assert len(pickle.dumps(file)) < MASK_BYTES // 8


def test_the_mask_of_an_undersampled_file_is_kept_once_for_all_frames(tmp_path):
    path = tmp_path / "cine_sax.mat"
    mask = writers.line_mask(H, W)
    write_mat(path.with_name("cine_sax_mask.mat"), "mask04", mask)
    write_mat(path, "kspace_sub04", kspace() * mask.astype(np.float32))
    read_file(path)  # what is imported and cached once
    tracemalloc.start()
    file = read_file(path)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < MASK_BYTES / 2
    np.testing.assert_array_equal(file[0].mask, np.broadcast_to(mask, (T, H, W)))
