"""Weights are chosen on training files, and only there."""

import shutil

import h5py
import numpy as np
import pytest

from kgmgt_jax.classical import METHODS
from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.formats import ReadOptions
from kgmgt_jax.data.prepared import PrepareOptions
from kgmgt_jax.data.prepared.preparing import prepare
from kgmgt_jax.data.simulation import Simulation
from kgmgt_jax.evaluation.cases import Condition, open_evaluation
from kgmgt_jax.evaluation.tuning import tune_methods
from tests.evaluation.small_set import FULL, write_phantoms

CONDITIONS = [Condition("uniform", 4.0, 8), Condition("kt_uniform", 4.0, 8)]
GRID = {"weight": (0.01, 0.03, 0.5)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("tuning")
    write_phantoms(root / "train", n_subjects=2)
    write_phantoms(root / "test", n_subjects=1, seeds_from=7)
    return root / "train", root / "test"


@pytest.fixture(scope="module")
def scored(folders):
    return open_evaluation(folders[1], acs=8).slices


def test_best_weight_of_the_grid_is_found(folders, scored, monkeypatch):
    tried = []

    def reconstruct(kspace, mask, sens, weight):
        tried.append(len(kspace))
        return METHODS["zero_filled"].reconstruct(kspace, mask, sens) / (
            1 + 50 * abs(weight - 0.03)
        )

    monkeypatch.setitem(
        METHODS, "wavelet", METHODS["wavelet"].__class__(reconstruct, {"weight": 1}, GRID)
    )
    names = ["zero_filled", "wavelet"]
    found = tune_methods(names, [folders[0]], CONDITIONS, test=scored, n_slices=1)
    assert list(found) == ["wavelet"] and found["wavelet"].weights == {"weight": 0.03}
    assert len(tried) == len(GRID["weight"]) * len(CONDITIONS)


@pytest.mark.parametrize("how", ["itself", "copy", "link"])
def test_test_files_are_refused(folders, scored, tmp_path, how):
    path = folders[1] / FULL / "P001" / "cine_sax.mat"
    if how != "itself":
        copy = tmp_path / "other.mat"
        shutil.copy(path, copy) if how == "copy" else copy.symlink_to(path)
        path = copy
    with pytest.raises(DataError, match=r"not scored.*other subjects"):
        tune_methods(["wavelet"], [path], CONDITIONS, test=scored)


def test_a_prepared_set_of_one_file_is_tuned_on_its_training_subjects(tmp_path):
    with h5py.File(tmp_path / "cines.h5", "w") as file:
        for subject in ("P1", "P2"):
            rng = np.random.default_rng(ord(subject[1]))
            file[subject] = rng.random((4, 24, 16), np.float32)
            file[subject].attrs["subject"] = subject
    simulated = ReadOptions(simulation=Simulation(n_coils=1))
    options = PrepareOptions(split=(0.5, 0.0, 0.5), read=simulated)
    prepare(tmp_path / "cines.h5", tmp_path / "set", options)
    (scored,) = open_evaluation(tmp_path / "set", acs=8).slices
    found = tune_methods(["wavelet"], [tmp_path / "set"], CONDITIONS[:1], test=[scored])
    assert found["wavelet"].weights
    with pytest.raises(DataError, match=r"not scored.*other subjects"):
        tune_methods(["wavelet"], [tmp_path / "cines.h5"], CONDITIONS[:1], test=[scored])
