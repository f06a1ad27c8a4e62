"""fastMRI, BART and npy: written by their own libraries, read back equal or refused."""

import h5py
import numpy as np
import pytest

from kgmgt_jax.data.formats import base as base_module
from kgmgt_jax.data.formats import open_files, read_file
from kgmgt_jax.data.transforms import triplets
from tests.data.formats import writers
from tests.data.formats.refusals import refused

LINES = writers.line_mask().astype(np.float32)


# fastMRI


@pytest.mark.parametrize("masked", [True, False])
def test_fastmri_is_transposed_to_ky_rows(tmp_path, masked):
    file = read_file(writers.write_fastmri(tmp_path, masked=masked))
    expected = writers.kspace((2, 4, 8, 9)).transpose(0, 1, 3, 2)
    expected = expected * LINES if masked else expected
    for z in range(2):
        np.testing.assert_array_equal(file[z].kspace, expected[z][None])
    assert file.fully_sampled == (not masked)


def test_fastmri_keeps_the_reference_and_its_place(tmp_path):
    case = read_file(writers.write_fastmri(tmp_path))[1]
    expected = np.abs(writers.kspace((2, 4, 8, 9)))[1, 0, 1:7, 1:8].T[None]
    np.testing.assert_array_equal(case.reference, expected)
    assert case.meta.format == "fastmri" and "CORPD_FBK" in case.meta.notes[0]


def test_fastmri_of_one_emulated_coil_has_no_coil_axis_and_two_images(tmp_path):
    """Of which the one coil's is the reference, not that of all."""
    path = writers.write_fastmri(tmp_path, masked=False)
    with h5py.File(path, "r+") as file:
        data = file["kspace"][:, 0]
        del file["kspace"]
        file["kspace"] = data
        file["reconstruction_esc"] = np.abs(data[:, 1:7, 1:8]) + 1
    case = read_file(path)[1]
    assert case.shape == (1, 1, 9, 8)
    np.testing.assert_array_equal(case.reference[0].T, np.abs(data[1, 1:7, 1:8]) + 1)


def test_a_fastmri_mask_of_another_width_is_refused(tmp_path):
    path = writers.write_fastmri(tmp_path)
    with h5py.File(path, "r+") as file:
        del file["mask"]
        file["mask"] = np.ones(8, np.float32)
    with refused(r"one for each of W = 9, got float32 \(8,\)"):
        read_file(path)


# BART


def test_bart_axes_become_ours(tmp_path):
    file = read_file(writers.write_bart(tmp_path))
    for z in range(2):
        np.testing.assert_array_equal(file[z].kspace, writers.kspace()[:, z] * LINES)
        np.testing.assert_array_equal(file[z].mask, np.stack([LINES] * 3))


@pytest.mark.parametrize("name", ["ksp.cfl", "ksp.hdr"])
def test_either_file_of_a_bart_pair_names_it(tmp_path, name):
    writers.write_bart(tmp_path)
    assert len(read_file(tmp_path / name)) == 2


def test_a_bart_header_that_contradicts_the_numbers_is_refused(tmp_path):
    path = writers.write_bart(tmp_path)
    header = path.with_suffix(".hdr")
    header.write_text(header.read_text().replace("8 9", "8 10"))
    with refused(r"ksp.hdr: expected 15360 bytes for sizes .*, got 13824 bytes in ksp.cfl"):
        read_file(path)


@pytest.mark.parametrize("sizes", [" 1 3 1 2 ", " 3 2 1 1 "])
def test_bart_axes_that_no_cine_has_are_refused(tmp_path, sizes):
    path = writers.write_bart(tmp_path)
    header = path.with_suffix(".hdr")
    header.write_text(header.read_text().replace(" 3 1 1 2 ", sizes))
    with refused(r"sizes over 1 on axes \[11\]; .*bart transpose"):
        read_file(path)


@pytest.mark.parametrize("n_sets", [1, 2])
@pytest.mark.parametrize(("t", "z"), [(1, 1), (3, 2), (1, 2)])
def test_maps_beside_bart_kspace_are_its_maps(tmp_path, n_sets, t, z):
    path = writers.write_bart(tmp_path)
    maps = writers.kspace((n_sets, t, z, 4, 9, 8), "maps")
    writers.write_bart_array(tmp_path / "sens.cfl", maps)
    unit = maps[0] / np.linalg.norm(maps[0], axis=2, keepdims=True)
    file = read_file(path)
    for i, case in enumerate(file):
        expected = unit[:, i if z > 1 else 0]
        np.testing.assert_allclose(case.sens, expected if t > 1 else expected[0], rtol=1e-6)
        assert "coil maps brought to a sum of squares of 1" in case.meta.notes
        assert ("the first of 2 sets of coil maps is used" in case.meta.notes) == (n_sets > 1)


def test_bart_maps_of_other_coils_are_refused(tmp_path):
    path = writers.write_bart(tmp_path)
    writers.write_bart_array(tmp_path / "sens.cfl", writers.kspace((1, 1, 3, 9, 8)))
    with refused(r"sens.cfl: expected coil maps for sizes .*, got sizes \(8, 9, 1, 3, "):
        read_file(path)


# npy


@pytest.mark.parametrize("in_time", [True, False])
def test_npy_triples_read_back_equal(tmp_path, in_time):
    path = writers.write_npy(tmp_path, sens_in_time=in_time)
    case = read_file(path)[0]
    np.testing.assert_array_equal(case.kspace, np.load(path))
    np.testing.assert_array_equal(case.mask, np.load(tmp_path / "P1_mask.npy").astype(np.float32))
    np.testing.assert_array_equal(case.sens, np.load(tmp_path / "P1_sens.npy"))
    frames = triplets(case.kspace, case.mask, case.sens, [2, 0])
    expected = case.sens[[2, 0]] if in_time else np.stack([case.sens] * 2)
    np.testing.assert_array_equal(frames["sens"], expected)


@pytest.mark.parametrize("in_time", [True, False])
def test_npy_maps_get_a_sum_of_squares_of_one(tmp_path, in_time):
    path = writers.write_npy(tmp_path, sens_in_time=in_time)
    expected = np.load(tmp_path / "P1_sens.npy")
    given = 3 * expected
    given[..., 0, :] = 0  # outside the body
    np.save(tmp_path / "P1_sens.npy", given)
    case = read_file(path)[0]
    np.testing.assert_allclose(case.sens[..., 1:, :], expected[..., 1:, :], rtol=1e-5)
    assert not case.sens[..., 0, :].any()
    assert case.meta.notes == ("coil maps brought to a sum of squares of 1",)


def test_a_folder_of_npy_triples_gives_one_file_each(tmp_path):
    writers.write_npy(tmp_path / "a")
    writers.write_npy(tmp_path / "b")
    assert [file.format for file in open_files(tmp_path)] == ["npy", "npy"]


def test_without_a_mask_file_zeros_were_not_measured(tmp_path):
    path = writers.write_npy(tmp_path)
    expected = np.load(tmp_path / "P1_mask.npy")
    (tmp_path / "P1_mask.npy").unlink()
    case = read_file(path)[0]
    np.testing.assert_array_equal(case.mask, expected.astype(np.float32))
    assert case.meta.mask_source == "the samples that are not zero"


def test_an_npy_mask_of_another_shape_is_refused_with_both(tmp_path):
    path = writers.write_npy(tmp_path)
    np.save(tmp_path / "P1_mask.npy", np.ones((3, 8, 9)))
    with refused(r"P1_mask.npy: expected .*\(9, 8\).*, got \(3, 8, 9\)"):
        read_file(path)


def test_npy_maps_of_another_coil_count_are_refused(tmp_path):
    path = writers.write_npy(tmp_path)
    np.save(tmp_path / "P1_sens.npy", writers.kspace((3, 9, 8)))
    with refused(r"P1_sens.npy: expected complex maps"):
        read_file(path)


def test_pickled_objects_are_never_loaded(tmp_path):
    np.save(tmp_path / "kspace.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with refused("a complete npy file"):
        read_file(tmp_path / "kspace.npy")


# packages


def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    def missing(name):
        raise ImportError(f"No module named {name!r}")

    pytest.importorskip("ismrmrd")
    path = writers.write_ismrmrd(tmp_path)
    monkeypatch.setattr(base_module.importlib, "import_module", missing)
    with refused(r"the package 'ismrmrd'.*pip install 'kgmgt-jax\[formats\]'"):
        read_file(path)
