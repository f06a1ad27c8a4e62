"""Several paths are one set; prepared sets stand alone."""

import os

import numpy as np
import pytest

from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.file_slices import FileSlices
from kgmgt_jax.data.formats.npy import NpyFile
from kgmgt_jax.data.matfile import write_mat
from kgmgt_jax.data.sources import open_slices
from kgmgt_jax.evaluation.cases import open_evaluation
from tests.data.formats import writers
from tests.data.small_files import write_file


def test_images_and_kspace_are_taken_together_where_both_are_named(tmp_path):
    stacks = writers.write_stacks(tmp_path / "images")
    measured = write_mat(tmp_path / "P001/cine_sax.mat", "kspace_full", writers.kspace())
    source = open_slices(f"{stacks},{measured}", split="train", acs=4)
    assert [info.simulated for info in source.slices] == [True, True, False, False]
    assert len(open_slices(stacks, split="train", acs=4).slices) == 2


def test_a_comma_in_a_name_is_no_separator(tmp_path):
    stacks = writers.write_stacks(tmp_path / "a,b")
    assert len(open_slices(stacks, split="train", acs=4).slices) == 2


def test_a_list_may_be_longer_than_any_path(tmp_path):
    stacks = writers.write_stacks(tmp_path)
    n_times = 1 + os.pathconf("/", "PC_PATH_MAX") // len(str(stacks))
    assert (
        len(open_slices(",".join([str(stacks)] * n_times), split="train", acs=4).slices)
        == 2 * n_times
    )


def test_a_missing_one_of_several_is_named(tmp_path):
    stacks = writers.write_stacks(tmp_path)
    with pytest.raises(DataError, match=r"other\.mat"):
        open_slices(f"{stacks},{tmp_path / 'other.mat'}", split="train", acs=4)


@pytest.mark.parametrize("around", ["{},", ",{}", "{},,{}", ""])
def test_an_empty_path_is_not_the_current_folder(tmp_path, around):
    stacks = writers.write_stacks(tmp_path)
    with pytest.raises(DataError, match="an empty path"):
        open_slices(around.format(stacks, stacks), split="train", acs=4)


def test_files_are_opened_as_asked(tmp_path):
    path = write_file(tmp_path, "P001", (3, 1, 3, 16, 12))
    options = {"acs": 4, "crop_rows": 8, "sens": "adaptive"}
    found = open_slices(path, split="train", sens_cache=tmp_path / "maps", **options).sens(0)
    np.testing.assert_array_equal(found, FileSlices([path], **options).sens(0))
    assert len(list((tmp_path / "maps").glob("*.npy"))) == 1


def test_folders_below_the_path_tell_who_was_scanned(tmp_path):
    for subject in ("sub-01", "sub-02"):
        folder = tmp_path / subject / "scan"
        folder.mkdir(parents=True)
        np.save(folder / "cine.npy", np.ones((3, 16, 12), np.float32))
    source = open_slices(tmp_path, split="train", acs=4)
    assert [info.subject for info in source.slices] == ["sub-01", "sub-02"]


@pytest.mark.parametrize("with_mask, times", [(False, 1), (True, 0)])
def test_a_file_is_read_once_to_see_whether_it_is_full(tmp_path, monkeypatch, with_mask, times):
    for name in ("P001", "P002"):
        np.save(tmp_path / f"{name}_kspace.npy", writers.kspace((4, 1, 16, 12)))
        if with_mask:
            np.save(tmp_path / f"{name}_mask.npy", np.ones((16, 12), np.float32))
    read, calls = NpyFile._read, []
    monkeypatch.setattr(NpyFile, "_read", lambda file, z: calls.append(z) or read(file, z))
    assert len(open_slices(tmp_path, split="train", acs=4).slices) == 2
    assert len(calls) == 2 * times
    calls.clear()
    assert len(open_evaluation(tmp_path, acs=4).slices) == 2
    assert len(calls) == 2 * times
