"""Files in the official layout: names, shapes, types, masks, and no half-written ones."""

import os

import h5py
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from kgmgt_jax.data.formats import read_file
from kgmgt_jax.data.phantom import files, make_cine, write_cmrxrecon2023

SMALL = {"shape": (48, 40), "n_frames": 3}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    options = {"shape": (36, 33), "n_frames": 2, "n_slices": 3, "accelerations": (4, 10)}
    paths = write_cmrxrecon2023(root, [5], n_coils=2, acs=6, **options)
    paths += write_cmrxrecon2023(root, [5, 6], acs=6, view="lax", **options)
    return root, paths


def test_slices_go_from_apex_to_base(tree):
    file = read_file(tree[0] / "MultiCoil/Cine/TrainingSet/FullSample/P001/cine_sax.mat")
    for z, level in ((0, 0.25), (2, 0.85)):
        cine = make_cine(5, shape=(36, 33), n_frames=2, n_coils=2, level=level)
        assert_array_equal(file[z].kspace, cine.kspace)


@pytest.mark.parametrize(
    ("path", "key", "shape"),
    [
        ("MultiCoil/Cine/TrainingSet/FullSample/P001/cine_sax.mat", "kspace_full", (2, 3, 2)),
        ("MultiCoil/Cine/TrainingSet/AccFactor04/P001/cine_sax.mat", "kspace_sub04", (2, 3, 2)),
        ("MultiCoil/Cine/TrainingSet/AccFactor10/P001/cine_sax.mat", "kspace_sub10", (2, 3, 2)),
        ("SingleCoil/Cine/TrainingSet/FullSample/P002/cine_lax.mat", "kspace_single_full", (2, 3)),
        (
            "SingleCoil/Cine/TrainingSet/AccFactor04/P001/cine_lax.mat",
            "kspace_single_sub04",
            (2, 3),
        ),
    ],
)
def test_kspace_files_have_the_official_layout(tree, path, key, shape):
    with h5py.File(tree[0] / path) as file:
        assert list(file) == [key]
        assert file[key].shape == (*shape, 36, 33)
        assert file[key].dtype == np.dtype([("real", "<f4"), ("imag", "<f4")])
        assert file[key].attrs["MATLAB_class"] == b"single"


def test_mask_files_have_the_official_layout(tree):
    folder = tree[0] / "MultiCoil/Cine/TrainingSet/AccFactor10/P001"
    with h5py.File(folder / "cine_sax_mask.mat") as file:
        mask = file["mask10"][:]
        assert list(file) == ["mask10"]
        assert file["mask10"].attrs["MATLAB_class"] == b"double"
    assert mask.dtype == np.float64
    assert mask.shape == (36, 33)
    assert_array_equal(np.flatnonzero(mask[:, 7]), [0, 10, 15, 16, 17, 18, 19, 20, 30])


def test_mask_is_that_of_the_official_files(data_dir):
    path = "2023/SingleCoil/Cine/TrainingSet/AccFactor08/P001/cine_sax_mask.mat"
    with h5py.File(data_dir / "cmrxrecon" / path) as file:
        official = file["mask08"][:]
    assert_array_equal(files._uniform_mask(official.shape, 8, 24), official)


def _read(path, key):
    with h5py.File(path) as file:
        return file[key]["real"] + 1j * file[key]["imag"]


def test_undersampled_files_are_the_masked_full_ones(tree):
    top = tree[0] / "MultiCoil/Cine/TrainingSet"
    full = _read(top / "FullSample/P001/cine_sax.mat", "kspace_full")
    sub = _read(top / "AccFactor04/P001/cine_sax.mat", "kspace_sub04")
    with h5py.File(top / "AccFactor04/P001/cine_sax_mask.mat") as file:
        mask = file["mask04"][:]
    assert_array_equal(sub, full * mask)


def test_files_hold_what_make_cine_returns(tree):
    path = tree[0] / "MultiCoil/Cine/TrainingSet/FullSample/P001/cine_sax.mat"
    cine = make_cine(5, shape=(36, 33), n_frames=2, n_coils=2, level=0.55)
    assert_array_equal(_read(path, "kspace_full")[:, 1], cine.kspace)


def test_nothing_but_the_files_reported_is_left(tree):
    root, paths = tree
    assert sorted(p for p in root.rglob("*") if p.is_file()) == sorted(paths)


def test_files_start_like_matlab_7_3(tree):
    header = tree[1][0].read_bytes()[:128]
    assert header.startswith(b"MATLAB 7.3 MAT-file")
    assert header.endswith(b"\x00\x02IM")


def test_kspace_files_say_that_they_are_simulated(tree):
    cases = [read_file(path)[0] for path in tree[1] if "_mask" not in path.name]
    assert {case.meta.simulation for case in cases} == {"simulated phantom"}


def test_a_failed_write_leaves_no_file(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_cmrxrecon2023(tmp_path, [0], n_slices=1, accelerations=(), **SMALL)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


@pytest.mark.parametrize(
    ("name", "value"), [("n_slices", 0), ("acs", -1), ("accelerations", (4, 100))]
)
def test_bad_file_arguments_are_named(tmp_path, name, value):
    with pytest.raises(ValueError, match=rf"^{name}=.*expected"):
        write_cmrxrecon2023(tmp_path, [0], **{name: value})


@pytest.mark.parametrize(("name", "value"), [("acs", 33), ("acceleration", 40)])
def test_masks_larger_than_the_matrix_are_named_before_anything_is_written(tmp_path, name, value):
    options = {"acs": 8, "accelerations": (4,)}
    options |= {"accelerations": (4, value)} if name == "acceleration" else {name: value}
    with pytest.raises(ValueError, match=rf"{name}={value}"):
        write_cmrxrecon2023(tmp_path, [0], n_slices=1, shape=(32, 36), n_frames=1, **options)
    assert not list(tmp_path.rglob("*.mat"))
