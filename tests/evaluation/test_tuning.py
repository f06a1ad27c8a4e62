"""Weights are chosen on training files, and only there."""

import shutil

import h5py
import numpy as np
import pytest

from kgmgt_jax.classical import METHODS
from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.formats import ReadOptions
from kgmgt_jax.data.matfile import write_mat
from kgmgt_jax.data.phantom import make_cine
from kgmgt_jax.data.prepared import PreparedSet, PrepareOptions
from kgmgt_jax.data.prepared.preparing import prepare
from kgmgt_jax.data.simulation import Simulation
from kgmgt_jax.data.transforms import ifft2c
from kgmgt_jax.data.validation import case_mask
from kgmgt_jax.evaluation.cases import Condition, open_evaluation
from kgmgt_jax.evaluation.tuning import tune_methods
from tests.data.formats.writers import write_dicom
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


def test_frames_without_any_signal_are_not_scored(tmp_path, monkeypatch):
    kspace = make_cine(1, shape=(24, 20), n_frames=3).kspace
    kspace[1] = 0
    path = tmp_path / "SingleCoil/Cine/TrainingSet/FullSample/P001/cine_sax.mat"
    path.parent.mkdir(parents=True)
    write_mat(path, "kspace_single_full", kspace)
    plain = METHODS["zero_filled"].reconstruct
    method = METHODS["wavelet"].__class__(lambda *a, weight: plain(*a), {"weight": 1}, GRID)
    monkeypatch.setitem(METHODS, "wavelet", method)
    found = tune_methods(["wavelet"], [path], CONDITIONS, test=(), n_slices=1)
    assert np.isfinite(found["wavelet"].score)


@pytest.mark.parametrize("circular", [True, False])
def test_methods_are_tuned_for_cines_that_have_ends_or_not(folders, scored, monkeypatch, circular):
    told = []

    def reconstruct(kspace, mask, sens, weight, circular=None):
        told.append(circular)
        return METHODS["zero_filled"].reconstruct(kspace, mask, sens)

    method = METHODS["temporal_tv"].__class__(reconstruct, {"weight": 1}, {"weight": (1,)}, True)
    monkeypatch.setitem(METHODS, "temporal_tv", method)
    options = {"test": scored, "n_slices": 1, "circular": circular}
    tune_methods(["temporal_tv"], [folders[0]], CONDITIONS[:1], **options)
    assert told == [circular]


def test_slices_of_training_images_are_spread_over_the_path_and_drawn_as_asked(
    tmp_path, scored, monkeypatch
):
    shapes, masks = [], []

    def reconstruct(kspace, mask, sens, weight):
        shapes.append(kspace.shape)
        masks.append(mask)
        return METHODS["zero_filled"].reconstruct(kspace, mask, sens)

    method = METHODS["wavelet"].__class__(reconstruct, {"weight": 1}, {"weight": (1,)})
    monkeypatch.setitem(METHODS, "wavelet", method)
    for t in (4, 5, 6):
        images = np.random.default_rng(t).random((t, 24, 16), np.float32)
        np.save(tmp_path / f"cine{t}.npy", images)
    options = {"test": scored, "n_slices": 2, "simulation": Simulation(n_coils=3), "seed": 5}
    tune_methods(["wavelet"], [tmp_path], CONDITIONS[:1], **options)
    tune_methods(["wavelet"], [tmp_path], CONDITIONS[:1], virtual_coils=2, **options)
    sizes = [(4, 3, 24, 16), (6, 3, 24, 16), (4, 2, 24, 16), (6, 2, 24, 16)]  # t n h w
    assert shapes == sizes
    expected = case_mask(CONDITIONS[0].masks, "cine4/slice0", (4, 24, 16), seed=5)
    np.testing.assert_array_equal(masks[0], expected)


@pytest.mark.parametrize("how", ["itself", "copy", "link"])
def test_test_files_are_refused(folders, scored, tmp_path, how):
    path = folders[1] / FULL / "P001" / "cine_sax.mat"
    if how != "itself":
        copy = tmp_path / "other.mat"
        shutil.copy(path, copy) if how == "copy" else copy.symlink_to(path)
        path = copy
    with pytest.raises(DataError, match=r"not scored.*other subjects"):
        tune_methods(["wavelet"], [path], CONDITIONS, test=scored)


@pytest.mark.parametrize("how", ["absolute", "copy"])
def test_test_folders_of_dicom_are_refused(tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    write_dicom(tmp_path / "series")
    scored = open_evaluation("series", acs=4).slices
    path = tmp_path / "series"
    path = path if how == "absolute" else shutil.copytree(path, tmp_path / "other")
    with pytest.raises(DataError, match=r"not scored.*other subjects"):
        tune_methods(["wavelet"], [path], [Condition("uniform", 2.0, 4)], test=scored)


def test_a_prepared_set_of_one_file_is_tuned_on_its_training_subjects(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "cines.h5", "w") as file:
        for subject in ("P1", "P2"):
            rng = np.random.default_rng(ord(subject[1]))
            file[subject] = rng.random((4, 24, 16), np.float32)
            file[subject].attrs["subject"] = subject
    simulated = ReadOptions(simulation=Simulation(n_coils=1))
    options = PrepareOptions(split=(0.5, 0.0, 0.5), read=simulated)
    prepare(tmp_path / "cines.h5", tmp_path / "set", options)
    (scored,) = open_evaluation(tmp_path / "set", acs=8).slices
    given = []

    def reconstruct(kspace, mask, sens, weight):
        given.append(kspace)
        return METHODS["zero_filled"].reconstruct(kspace, mask, sens)

    method = METHODS["wavelet"].__class__(reconstruct, {"weight": 1}, {"weight": (1,)})
    monkeypatch.setitem(METHODS, "wavelet", method)
    tune_methods(["wavelet"], [tmp_path / "set"], CONDITIONS[:1], test=[scored])
    images = PreparedSet(tmp_path / "set", split="train").images(0, range(4))
    np.testing.assert_allclose(ifft2c(np.asarray(*given)), images, atol=1e-5)
    with pytest.raises(DataError, match=r"not scored.*other subjects"):
        tune_methods(["wavelet"], [tmp_path / "cines.h5"], CONDITIONS[:1], test=[scored])
