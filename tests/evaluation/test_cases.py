"""What is found below a path: scored, unscored, failed."""

import h5py
import numpy as np
import pytest

from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.formats import CineFile, ReadOptions
from kgmgt_jax.data.matfile import write_mat
from kgmgt_jax.data.phantom import make_cine
from kgmgt_jax.data.prepared import PrepareOptions
from kgmgt_jax.data.prepared.preparing import prepare
from kgmgt_jax.data.simulation import Simulation
from kgmgt_jax.data.sources import open_slices
from kgmgt_jax.data.transforms import coil_combine, ifft2c
from kgmgt_jax.data.validation import validation_cases
from kgmgt_jax.evaluation.cases import Condition, open_evaluation
from kgmgt_jax.mri.coils import estimate_sens
from tests.data.formats import writers
from tests.evaluation.small_set import FULL, SHAPE, write_phantoms

UNIFORM, GAUSSIAN = Condition("uniform", 4.0, 8), Condition("kt_gaussian", 4.0, 8)
SPARSE = Condition("uniform", 2.0, 4)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Two subjects, fully sampled and undersampled."""
    return write_phantoms(tmp_path_factory.mktemp("tree"), accelerations=(4,))


def _without_reference(tree, tmp_path):
    """A copy of the tree in which the second subject has no fully sampled file."""
    copy = tmp_path / "copy"
    for path in tree.rglob("*.mat"):
        if path.parts[-3:-1] != ("FullSample", "P002"):
            target = copy / path.relative_to(tree)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return copy


def test_cases_are_those_of_validation(tree):
    found = list(open_evaluation(tree, acs=8).cases([UNIFORM], seed=3))
    source = open_slices(tree, split="test", acs=8)
    expected = list(validation_cases(source, mask_kind="uniform", acceleration=4.0, acs=8, seed=3))
    assert [case.name for case in found] == [case.name for case in expected]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours.mask, theirs.mask)
        np.testing.assert_allclose(
            ours.kspace, theirs.kspace * theirs.mask[:, None], rtol=0, atol=1e-6
        )
        assert ours.sampling.true_acceleration == theirs.mask.size / theirs.mask.sum()


def test_few_virtual_coils_have_maps_and_references_of_their_own(tmp_path):
    tree = write_phantoms(tmp_path, n_subjects=1, n_coils=6)
    all_coils, few = (
        next(open_evaluation(tree, acs=8, virtual_coils=n).cases([UNIFORM])) for n in (0, 3)
    )
    assert (all_coils.kspace.shape[1], few.kspace.shape[1]) == (6, 3)
    assert few.sens.shape[-3] == 3
    np.testing.assert_array_equal(few.mask, all_coils.mask)
    error = np.linalg.norm(few.reference - all_coils.reference)
    assert 0 < error < 0.2 * np.linalg.norm(all_coils.reference)


def test_a_prepared_set_has_the_coils_that_it_was_prepared_with(tmp_path):
    tree = write_phantoms(tmp_path / "tree", n_subjects=1, n_coils=6)
    options = PrepareOptions(split=(0.0, 0.0, 1.0), read=ReadOptions(virtual_coils=4))
    prepare(tree, tmp_path / "set", options)
    data = open_evaluation(tmp_path / "set", acs=8, virtual_coils=3)
    assert next(data.cases([UNIFORM])).kspace.shape[1] == 4
    assert data.virtual_coils == 0
    assert open_evaluation(tree, acs=8, virtual_coils=3).virtual_coils == 3


def test_several_coils_are_combined_by_the_maps_of_the_condition(tmp_path):
    data = open_evaluation(write_phantoms(tmp_path, n_subjects=1, n_coils=3), acs=8)
    fixed, changing = data.cases([UNIFORM, GAUSSIAN])
    kspace = next(
        validation_cases(
            open_slices(tmp_path, split="test", acs=8), mask_kind="uniform", acceleration=4, acs=8
        )
    ).kspace
    for case in (fixed, changing):
        np.testing.assert_array_equal(case.sens, estimate_sens(case.kspace, case.mask))
        np.testing.assert_allclose(
            case.reference, np.abs(coil_combine(ifft2c(kspace), case.sens)), atol=1e-5
        )
    assert not np.allclose(fixed.sens, changing.sens, atol=0.01)


def test_every_slice_comes_in_every_condition(tree):
    data = open_evaluation(tree, acs=8)
    cases = list(data.cases([UNIFORM, GAUSSIAN]))
    assert [c.condition for c in cases] == [UNIFORM, GAUSSIAN] * 2
    assert data.n_frames(2) == sum(len(case.kspace) for case in cases)
    assert {case.simulation for case in cases} == {"simulated phantom"}


def test_undersampled_file_without_lines_for_maps_stops_no_other(tmp_path):
    write_phantoms(tmp_path, n_subjects=1, n_coils=3, accelerations=(4,), acs=2)
    for path in tmp_path.rglob("FullSample/P001/*.mat"):
        path.unlink()
    write_phantoms(tmp_path / "more", n_subjects=1)
    data = open_evaluation(tmp_path, acs=8)
    assert [case.condition for case in data.cases([UNIFORM])] == [UNIFORM]
    (why,) = data.failed.values()
    assert "expected coil maps, or lines to estimate them from" in why and not data.unscored


def test_a_file_too_narrow_for_maps_stops_no_other(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "cine.npy", rng.random((4, 24, 16), np.float32))
    np.save(tmp_path / "picture.npy", rng.random((4, 24, 3), np.float32))  # red, green, blue
    data = open_evaluation(tmp_path, acs=8)
    assert [case.name for case in data.cases([UNIFORM])] == ["cine/slice0"]
    (why,) = data.failed.values()
    assert "picture.npy [picture/slice0]: expected coil maps, or lines to estimate them" in why


def test_undersampled_file_counts_only_without_its_reference(tree, tmp_path):
    data = open_evaluation(_without_reference(tree, tmp_path), acs=8)
    scored, alone = list(data.cases([UNIFORM]))
    assert scored.name == "P001/cine_sax/slice0" and scored.reference is not None
    assert alone.reference is None and alone.condition is None
    assert alone.sampling.nominal_acceleration == 4 and alone.kspace.shape[0] == SHAPE[0]
    assert list(data.unscored) == [alone.name] and "AccFactor04/P002" in alone.name
    assert alone.place.as_posix().endswith("AccFactor04/P002/cine_sax")


def test_an_undersampled_file_is_read_once_to_open_it(tmp_path, monkeypatch):
    kspace = make_cine(0, shape=(24, 20), n_frames=3).kspace
    kspace[:, :, ::2] = 0
    np.save(tmp_path / "kspace.npy", kspace)
    reads, read = [], CineFile.__getitem__
    monkeypatch.setattr(CineFile, "__getitem__", lambda *a: reads.append(a[1]) or read(*a))
    assert len(open_evaluation(tmp_path, acs=8).slices) == 0 and reads == [0]


def test_names_with_dots_are_other_scans(tmp_path):
    kspace = make_cine(0, shape=(24, 20), n_frames=3).kspace
    np.save(tmp_path / "scan.1_kspace.npy", kspace)
    measured = np.zeros((24, 1), np.float32)
    measured[::2] = measured[8:16] = 1
    np.save(tmp_path / "scan.2_kspace.npy", kspace * measured)
    names = [case.name for case in open_evaluation(tmp_path, acs=8).cases([UNIFORM])]
    assert ["scan.1" in name for name in names] == [True, False] and "scan.2" in names[1]


def test_cines_of_one_file_have_places_of_their_own(tmp_path):
    (tmp_path / "set").mkdir()
    with h5py.File(tmp_path / "set" / "a.h5", "w") as file:
        for name in ("one", "two"):
            file[name] = np.random.default_rng(0).random((4, 24, 16), np.float32)
    np.save(tmp_path / "set" / "b.npy", np.random.default_rng(1).random((4, 24, 16), np.float32))
    cases = open_evaluation(tmp_path, acs=8, simulation=Simulation(n_coils=1)).cases([UNIFORM])
    assert [case.place.as_posix() for case in cases] == ["set/a/one", "set/a/two", "set/b"]


def test_images_of_no_two_cines_go_to_one_place(tmp_path):
    """Keys with dots, files that differ in their suffix, and DICOM folders named by identifiers."""
    pytest.importorskip("pydicom")
    images = np.random.default_rng(0).random((4, 24, 16), np.float32)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["sub.1"] = file["sub.2"] = images
    np.save(tmp_path / "b.npy", images)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["cine"] = images
    for name in ("1.2.8", "1.2.9"):
        writers.write_dicom(tmp_path / name)
    cases = open_evaluation(tmp_path, acs=4, simulation=Simulation(n_coils=1)).cases([SPARSE])
    places = {case.place.as_posix() for case in cases}
    assert places == {"1.2.8", "1.2.9", "a/sub.1", "a/sub.2", "b.h5", "b.npy"}


def test_a_dicom_folder_lies_at_its_name(tmp_path):
    pytest.importorskip("pydicom")
    folder = writers.write_dicom(tmp_path / "series")
    cases = open_evaluation(folder, acs=4, simulation=Simulation(n_coils=1)).cases([SPARSE])
    assert {case.place.as_posix() for case in cases} == {"series"}


@pytest.mark.parametrize("cut", [0.5, 0.99])
def test_damaged_file_is_noted_and_the_rest_goes_on(tree, tmp_path, cut):
    copy = tmp_path / "copy"
    for subject in ("P001", "P002"):
        whole = (tree / FULL / subject / "cine_sax.mat").read_bytes()
        target = copy / subject / "cine_sax.mat"
        target.parent.mkdir(parents=True)
        target.write_bytes(whole if subject == "P001" else whole[: int(cut * len(whole))])
    data = open_evaluation(copy, acs=8)
    assert [case.name for case in data.cases([UNIFORM])] == ["P001/cine_sax/slice0"]
    (place,) = data.failed
    assert "P002" in place and "expected" in data.failed[place]


def test_nothing_to_evaluate_is_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="expected cines"):
        open_evaluation(tmp_path / "empty", acs=8)
    damaged = tmp_path / "damaged.mat"
    damaged.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(60))
    with pytest.raises(DataError, match=r"damaged\.mat"):
        open_evaluation(damaged, acs=8)


def test_impossible_condition_is_refused_before_the_first_case(tree):
    with pytest.raises(ValueError, match="acs"):
        open_evaluation(tree, acs=8).cases([Condition("uniform", 4.0, 400)])


def test_an_undersampled_file_has_the_maps_it_brings_or_those_asked_for(tmp_path):
    """Noise, which no estimate would find."""
    rng = np.random.default_rng(0)
    mask = np.zeros(24, np.float32)
    mask[::3] = mask[8:16] = 1
    kspace = (mask[:, None] * rng.normal(size=(2, 3, 24, 20))).astype(np.complex64)
    sens = rng.normal(size=(3, 24, 20)).astype(np.complex64)
    sens /= np.linalg.norm(sens, axis=0)
    for name, array in {"kspace": kspace, "mask": mask, "sens": sens}.items():
        np.save(tmp_path / f"{name}.npy", array)
    (case,) = open_evaluation(tmp_path, acs=8).cases([UNIFORM])
    np.testing.assert_array_equal(case.sens, sens)
    (tmp_path / "sens.npy").unlink()
    (case,) = open_evaluation(tmp_path, acs=8, sens="adaptive").cases([UNIFORM])
    np.testing.assert_array_equal(
        case.sens, estimate_sens(case.kspace, case.mask, method="adaptive")
    )


def test_maps_of_a_full_file_are_estimated_as_asked(tmp_path):
    np.save(tmp_path / "kspace.npy", writers.kspace((2, 3, 24, 20)))
    (case,) = open_evaluation(tmp_path, acs=8, sens="adaptive").cases([UNIFORM])
    expected = estimate_sens(case.kspace, case.mask, method="adaptive")
    np.testing.assert_array_equal(case.sens, expected)


def test_equal_names_are_told_apart_by_their_files(tree, tmp_path):
    for part in ("one", "two"):
        target = tmp_path / part / "P001" / "cine_sax.mat"
        target.parent.mkdir(parents=True)
        target.write_bytes((tree / FULL / "P001" / "cine_sax.mat").read_bytes())
    names = [case.name for case in open_evaluation(tmp_path, acs=8).cases([UNIFORM])]
    assert len(set(names)) == 2 and all("P001/cine_sax/slice0 (" in name for name in names)


@pytest.mark.parametrize("n_coils", [1, 3])
def test_images_are_simulated_as_asked(tmp_path, n_coils):
    images = np.random.default_rng(0).random((4, 48, 40), np.float32)
    np.save(tmp_path / "cine.npy", images)
    simulation = Simulation(n_coils=n_coils, noise=0.0)
    (case,) = open_evaluation(tmp_path, acs=16, simulation=simulation).cases([UNIFORM])
    assert case.kspace.shape == (4, n_coils, 48, 40)
    assert (case.sens is None) == (n_coils == 1)
    assert f"{n_coils} coil" in case.simulation and "noise 0 " in case.simulation
    if n_coils == 1:
        np.testing.assert_allclose(case.reference, images, atol=1e-5)


def test_cases_have_the_pixels_of_their_files(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    images = np.random.default_rng(0).random((20, 24, 1, 4), np.float32)
    nibabel.save(nibabel.Nifti1Image(images, np.diag([1.5, 2, 8, 1])), tmp_path / "cine.nii")
    (case,) = open_evaluation(tmp_path, acs=8).cases([UNIFORM])
    assert case.pixel_mm == pytest.approx((2, 1.5))


@pytest.fixture(scope="module")
def bright_and_dim(tmp_path_factory):
    """A cine of two slices, one four times as bright, as a file and as prepared sets."""
    root = tmp_path_factory.mktemp("scales")
    kspace = np.stack([factor * make_cine(0, shape=(24, 20)).kspace[:4] for factor in (4, 1)], 1)
    write_mat(root / "data" / "P001" / "cine_sax.mat", "kspace_single_full", kspace[:, :, 0])
    for name, readout in (("set", None), ("cut", 16)):
        options = PrepareOptions(split=(0.0, 0.0, 1.0), readout=readout)
        prepare(root / "data", root / name, options)
    return root


def test_slices_of_a_prepared_set_have_the_units_of_their_file(bright_and_dim):
    files, prepared = (
        list(open_evaluation(bright_and_dim / name, acs=8).cases([UNIFORM]))
        for name in ("data", "set")
    )
    for ours, theirs in zip(prepared, files, strict=True):
        np.testing.assert_array_equal(ours.mask, theirs.mask)
        scale = np.abs(theirs.kspace).max()
        np.testing.assert_allclose(ours.kspace, theirs.kspace, rtol=0, atol=1e-6 * scale)
        np.testing.assert_allclose(ours.reference, theirs.reference, rtol=0, atol=1e-6 * scale)


def test_a_split_of_a_prepared_set_is_chosen(tmp_path):
    write_phantoms(tmp_path / "data", n_subjects=3, n_slices=1)
    prepare(tmp_path / "data", tmp_path / "set", PrepareOptions(split=(0.67, 0.33, 0.0), acs=8))
    with pytest.raises(DataError, match="among train, validation, got 'test'; take one of these"):
        open_evaluation(tmp_path / "set", acs=8)
    found = {
        split: [
            info.subject for info in open_evaluation(tmp_path / "set", acs=8, split=split).slices
        ]
        for split in ("train", "validation")
    }
    assert len(found["train"]) == 2 and len(found["validation"]) == 1
    assert not set(found["train"]) & set(found["validation"])
    with pytest.raises(
        DataError, match="set, of which to take the split validation, got files; leave it out"
    ):
        open_evaluation(tmp_path / "data", acs=8, split="validation")


def test_maps_of_a_prepared_set_are_told_as_they_are_made(tmp_path):
    write_phantoms(tmp_path / "data", n_subjects=1, n_coils=3)
    options = PrepareOptions(sens="adaptive", split=(0.0, 0.0, 1.0), acs=8)
    prepare(tmp_path / "data", tmp_path / "set", options)
    data = open_evaluation(tmp_path / "set", acs=8, sens="espirit")
    (case,) = data.cases([UNIFORM])
    assert data.sens == "adaptive"
    expected = estimate_sens(case.kspace, case.mask, method=data.sens)
    np.testing.assert_allclose(case.sens, expected, atol=1e-2)


def test_a_set_that_was_not_wide_enough_to_cut_is_ranked(bright_and_dim, tmp_path):
    prepare(bright_and_dim / "data", tmp_path, PrepareOptions(split=(0, 0, 1), readout=64))
    open_evaluation(tmp_path, acs=8).check_ranking()


def test_a_set_with_cut_readouts_is_not_ranked(bright_and_dim):
    open_evaluation(bright_and_dim / "data", acs=8).check_ranking()
    open_evaluation(bright_and_dim / "set", acs=8).check_ranking()
    with pytest.raises(ValueError, match="a set cut to 16 columns"):
        open_evaluation(bright_and_dim / "cut", acs=8).check_ranking()


def test_a_single_file_lies_at_its_name(tmp_path):
    np.save(tmp_path / "scan.npy", np.random.default_rng(0).random((4, 24, 16), np.float32))
    (case,) = open_evaluation(tmp_path / "scan.npy", acs=8).cases([UNIFORM])
    assert case.place.as_posix() == "scan"
