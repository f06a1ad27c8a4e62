"""Training data among what is scored is found, whatever its path."""

import contextlib
import filecmp
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from kgmgt_jax.data.prepared import PreparedSet, PrepareOptions
from kgmgt_jax.data.prepared.preparing import prepare
from kgmgt_jax.evaluation.cases import open_evaluation
from kgmgt_jax.evaluation.overlap import n_trained_on, same_file
from tests.data.formats.writers import edited_dicom, write_dicom
from tests.evaluation.small_set import FULL, write_phantoms


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("overlap"), n_subjects=3)


def test_the_same_files_and_copies_of_some_are_found(tree, tmp_path):
    scored = open_evaluation(tree, acs=8).slices
    assert n_trained_on(str(tree), scored) == 3
    copy = shutil.copy(tree / FULL / "P002" / "cine_sax.mat", tmp_path / "other.mat")
    assert n_trained_on(str(tmp_path), scored) == 1
    assert n_trained_on(f"{copy},{tree / FULL / 'P001'}", scored) == 2
    assert n_trained_on(str(tree), open_evaluation(copy, acs=8).slices) == 1


def test_other_files_of_the_same_size_and_time_are_not(tree, tmp_path):
    path = tmp_path / "other.mat"
    raw = bytearray((tree / FULL / "P001" / "cine_sax.mat").read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    shutil.copystat(tree / FULL / "P001" / "cine_sax.mat", path)
    assert n_trained_on(str(path), open_evaluation(tree, acs=8).slices) == 0


def test_training_files_below_linked_folders_are_found(tree, tmp_path):
    (tmp_path / "linked").symlink_to(tree, target_is_directory=True)
    scored = open_evaluation(tree, acs=8).slices
    assert n_trained_on(str(tmp_path), scored) == 3
    assert n_trained_on(str(tree), open_evaluation(tmp_path, acs=8).slices) == 3


def test_other_data_and_unknown_paths_are_not(tree, tmp_path):
    scored = open_evaluation(tree, acs=8).slices
    write_phantoms(tmp_path / "others", n_subjects=1, seeds_from=7)
    for path in ("", "/not/here", "/not/here,neither", str(tmp_path / "others")):
        assert n_trained_on(path, scored) == 0


def test_long_lists_of_paths_are_looked_through(tree):
    files = [str(tree / FULL / "P001" / "cine_sax.mat")] * (
        1 + os.pathconf("/", "PC_PATH_MAX") // 20
    )
    assert n_trained_on(",".join(files), open_evaluation(tree, acs=8).slices) == 1


def test_a_renamed_copy_of_a_file_in_a_prepared_set_is_found(tree, tmp_path):
    prepare(tree, tmp_path / "set", PrepareOptions(split=(1.0, 0.0, 0.0)))
    copy = shutil.copy(tree / FULL / "P002" / "cine_sax.mat", tmp_path / "other.mat")
    assert n_trained_on(str(tmp_path / "set"), open_evaluation(copy, acs=8).slices) == 1


def test_of_a_prepared_set_its_own_test_split_is_not(tree, tmp_path):
    prepare(tree, tmp_path / "set", PrepareOptions(split=(0.67, 0.0, 0.33)))
    path = str(tmp_path / "set")
    assert n_trained_on(path, PreparedSet(path, split="test").slices) == 0
    assert n_trained_on(path, PreparedSet(path, split="train").slices) == 2
    assert n_trained_on(path, open_evaluation(tree, acs=8).slices) == 2
    assert n_trained_on(path, PreparedSet(path, split="test").slices, "validation") == 0
    assert n_trained_on(path, PreparedSet(path, split="test").slices, "test") == 1
    first = PreparedSet(path, split="train").slices[0]
    same_file_of_another_split = replace(first, name=first.name.replace("slice0", "slice1"))
    assert n_trained_on(path, [same_file_of_another_split]) == 0


@pytest.mark.parametrize("how", ["itself", "copy", "link"])
def test_a_folder_of_dicom_is_known_by_any_path(tmp_path, how):
    series, other = write_dicom(tmp_path / "series"), tmp_path / "other"
    if how != "itself":
        shutil.copytree(series, other) if how == "copy" else other.symlink_to(series)
    scored = open_evaluation(series if how == "itself" else other, acs=4).slices
    assert n_trained_on(str(series), scored) == len(scored)
    with contextlib.chdir(tmp_path):
        assert same_file("series", scored[0].source)


def test_folders_of_other_images_are_not_the_same(tmp_path):
    one, other = write_dicom(tmp_path / "one"), write_dicom(tmp_path / "other")
    for image in edited_dicom(other):
        image.PixelData = bytes(len(image.PixelData))
    assert not same_file(one, other)
    (tmp_path / "empty").mkdir()
    (tmp_path / "none").mkdir()
    assert not same_file(tmp_path / "empty", tmp_path / "none")


def test_files_of_one_size_are_not_compared_pair_by_pair(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for name in "abcdefgh":  # an uncompressed format gives scans of one protocol one size
        np.save(tmp_path / f"{name}_kspace.npy", rng.normal(size=(2, 1, 16, 12)) + 0j)
    scored = open_evaluation(tmp_path, acs=8).slices
    training = tmp_path / "training"
    training.mkdir()
    for name in "ijklmnop":
        np.save(training / f"{name}_kspace.npy", rng.normal(size=(2, 1, 16, 12)) + 0j)
    shutil.copy(tmp_path / "c_kspace.npy", training / "renamed_kspace.npy")
    compared, compare = [], filecmp.cmp
    monkeypatch.setattr(filecmp, "cmp", lambda *a, **k: compared.append(a) or compare(*a, **k))
    assert n_trained_on(str(training), scored) == 1
    assert len(compared) == 1
