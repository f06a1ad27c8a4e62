"""What opened files take, of which a set has hundreds."""

import os
import pickle
import subprocess
import tracemalloc

import h5py
import numpy as np
import pytest
import scipy.io

from kgmgt_jax.data.formats import find_full, open_files, read_file
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


def test_a_folder_of_many_scans_is_listed_a_few_times_and_not_for_each(tmp_path, monkeypatch):
    for i in range(9):
        np.save(tmp_path / f"P{i}_kspace.npy", writers.kspace((1, 1, 9, 8)))
        np.save(tmp_path / f"P{i}_mask.npy", np.ones((9, 8)))
    os.utime(tmp_path, (1e9, 1e9))  # nobody has written to it just now
    listed, listdir = [], os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: listed.append(path) or listdir(path))
    masks = [file[0].meta.mask_source for file in open_files(tmp_path)]
    assert masks == [str(tmp_path / f"P{i}_mask.npy") for i in range(9)]
    assert len(listed) == 1


def test_a_companion_that_has_just_come_is_found(tmp_path):
    np.save(tmp_path / "P1_kspace.npy", writers.kspace((1, 1, 9, 8)))
    assert read_file(tmp_path / "P1_kspace.npy").fully_sampled
    state = os.stat(tmp_path)
    np.save(tmp_path / "P1_mask.npy", np.ones((9, 8)))
    os.utime(tmp_path, ns=(state.st_atime_ns, state.st_mtime_ns))  # within the same tick
    file = read_file(tmp_path / "P1_kspace.npy")
    assert file[0].meta.mask_source == str(tmp_path / "P1_mask.npy")


def test_a_readout_file_is_probed_again_only_when_it_has_changed(tmp_path, monkeypatch):
    pytest.importorskip("ismrmrd")
    path = writers.write_ismrmrd(tmp_path)
    runs, run = [], subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: runs.append(a) or run(*a, **k))
    for _ in range(2):  # prepare opens a file to list its slices, then to read them
        assert len(read_file(path)) == 2
    assert len(runs) == 1
    path.write_bytes(path.read_bytes() + b"\0")
    read_file(path)
    assert len(runs) == 2


def test_files_of_matlab_5_are_loaded_once_to_be_opened(tmp_path, monkeypatch):
    for patient in ("P001", "P002", "P003"):
        writers.write_mat5(tmp_path / "FullSample" / patient)
    loads, loadmat = [], scipy.io.loadmat
    monkeypatch.setattr(scipy.io, "loadmat", lambda *a, **k: loads.append(a) or loadmat(*a, **k))
    assert len(find_full(tmp_path)) == 3
    assert len(loads) == 3
