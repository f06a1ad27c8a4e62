"""CMRxRecon 2024 and 2025: trees, masks by name, MATLAB 5, odd sizes, damaged cases."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.file_slices import FileSlices
from kgmgt_jax.data.formats import DataWarning, find_files, find_full, read_file
from kgmgt_jax.data.formats.cmrxrecon_tree import subject_of
from kgmgt_jax.data.matfile import write_mat
from kgmgt_jax.data.prepared import PreparedSet, PrepareOptions
from kgmgt_jax.data.prepared.preparing import prepare
from kgmgt_jax.evaluation.cases import Condition, open_evaluation
from tests.data.formats.writers import kspace, line_mask, write_mat5

SHAPES = {
    "2024/MultiCoil/Cine/TrainingSet/FullSample/P001/cine_lax.mat": (2, (8, 4, 120, 208)),
    "2024/MultiCoil/Cine/ValidationSet/UnderSample_Task2/P001/cine_lax_kus_ktGaussian8.mat": (
        2,
        (8, 4, 120, 208),
    ),
    "2025/MultiCoil/Cine/TrainingSet/FullSample/Center001/GE_15T_Signa/P001/cine_sax.mat": (
        1,
        (6, 4, 111, 192),
    ),
    "2025/MultiCoil/Cine/TrainingSet/FullSample/Center001/GE_15T_Signa/P002/cine_sax.mat": (
        1,
        (3, 4, 111, 192),
    ),
}
TASKS = {"Task1": "Uniform4", "Task2": "ktGaussian8", "TaskAll": "ktRadial16"}


def _kus(root: Path, task: str, mask: np.ndarray, *, mask_set: str = "ValidationSet") -> Path:
    """An undersampled file of 2024 or 2025, measured on ``line_mask()``, and its mask."""
    inside = "Center001/GE/P001" if task == "TaskAll" else "P001"
    top, pattern = root / "MultiCoil/Cine", TASKS[task]
    write_mat(top / mask_set / f"Mask_{task}" / inside / f"lvot_mask_{pattern}.mat", "mask", mask)
    path = top / "ValidationSet" / f"UnderSample_{task}" / inside / f"lvot_kus_{pattern}.mat"
    return write_mat(path, "kus", kspace() * line_mask().astype(np.float32))


def _full(
    root: Path,
    subject: str,
    shape=(6, 3, 2, 9, 8),
    *,
    task: str = "Mask_Task1",
    folder: str = "TrainingSet",
) -> Path:
    """A fully sampled file of 2024, known by the masks beside it."""
    top = root / "MultiCoil/Cine" / folder
    (top / task).mkdir(parents=True, exist_ok=True)
    return write_mat(top / "FullSample" / subject / "cine_sax.mat", "kspace_full", kspace(shape))


# Samples in the official layout


@pytest.mark.parametrize("path", SHAPES)
def test_official_files_read_to_their_shapes(data_dir, path):
    n_slices, shape = SHAPES[path]
    file = read_file(data_dir / "cmrxrecon" / path)
    assert [case.shape for case in file] == [shape] * n_slices
    assert file.format == f"cmrxrecon{path[:4]}"


def test_an_official_undersampled_file_is_the_full_one_on_its_mask(data_dir):
    paths = list(SHAPES)
    full, sub = (read_file(data_dir / "cmrxrecon" / path)[1] for path in paths[:2])
    np.testing.assert_array_equal(sub.kspace, full.kspace * sub.mask[:, None])
    assert (sub.meta.nominal_acceleration, sub.acs) == (8.0, 16)
    assert sub.true_acceleration == pytest.approx(4.267, abs=1e-3)
    assert (sub.meta.view, sub.meta.is_stack) == ("lax", False)
    assert len({tuple(lines) for lines in sub.mask[:, :, 0]}) == 8  # another pattern a frame


@pytest.mark.parametrize("folder", ["", "2024/MultiCoil/Cine/ValidationSet/UnderSample_Task2"])
def test_an_official_undersampled_file_may_be_named_from_where_one_is(
    data_dir, monkeypatch, folder
):
    path = data_dir / "cmrxrecon" / list(SHAPES)[1]
    here = data_dir / "cmrxrecon" / folder
    expected = read_file(path)[0]
    monkeypatch.chdir(here)
    case = read_file(path.relative_to(here))[0]
    np.testing.assert_array_equal(case.mask, expected.mask)


def test_the_whole_sample_tree_is_found(data_dir):
    assert len(find_files(data_dir / "cmrxrecon")) == 12
    assert len(find_full(data_dir / "cmrxrecon")) == 5


def test_names_of_all_official_cases_differ(data_dir):
    for year in ("2023/MultiCoil", "2024", "2025"):
        names = [case.meta.name for f in find_full(data_dir / "cmrxrecon" / year) for case in f]
        assert len(set(names)) == len(names)


# Masks


@pytest.mark.parametrize("task", TASKS)
def test_masks_are_found_by_task_and_pattern(tmp_path, task):
    mask = line_mask() if task == "Task1" else np.stack([line_mask()] * 3)
    case = read_file(_kus(tmp_path, task, mask))[0]
    np.testing.assert_array_equal(case.mask, np.stack([line_mask()] * 3).astype(np.float32))
    assert case.meta.nominal_acceleration == float("".join(filter(str.isdigit, TASKS[task])))
    assert case.meta.view == "lvot"


def test_a_mask_in_another_set_serves_if_it_fits_exactly(tmp_path):
    path = _kus(tmp_path, "Task1", line_mask(), mask_set="TrainingSet")
    assert read_file(path)[0].true_acceleration == pytest.approx(9 / 5)


def test_a_mask_in_another_set_that_only_covers_the_samples_is_refused(tmp_path):
    path = _kus(tmp_path, "Task1", np.ones((9, 8)), mask_set="TrainingSet")
    with pytest.raises(DataError, match=r"samples elsewhere than in .*TrainingSet.*--mask"):
        read_file(path)[0]
    (mask,) = tmp_path.rglob("*_mask_*")
    assert read_file(path, mask=mask)[0].mask.all()  # as the message says


def test_a_mask_of_the_same_set_says_what_was_measured(tmp_path):
    assert read_file(_kus(tmp_path, "Task1", np.ones((9, 8))))[0].mask.all()


def test_a_mask_of_the_same_set_goes_before_that_of_another(tmp_path):
    _kus(tmp_path, "Task1", np.ones((9, 8)), mask_set="TrainingSet")
    path = _kus(tmp_path, "Task1", line_mask())
    assert "ValidationSet" in read_file(path)[0].meta.mask_source


def test_a_mask_may_lie_beside_its_file(tmp_path):
    path = _kus(tmp_path / "official", "Task1", line_mask())
    alone = tmp_path / "lvot_kus_Uniform4.mat"
    shutil.copy(path, alone)
    with pytest.raises(DataError, match=r"lvot_mask_Uniform4.mat, got no file"):
        read_file(alone)
    (mask,) = (tmp_path / "official").rglob("*_mask_*")
    for file in (alone, path):
        mask = mask.rename(file.with_name("lvot_mask_Uniform4.mat"))
        assert read_file(file)[0].meta.mask_source == str(mask)


def test_a_missing_mask_names_the_place_for_it(tmp_path):
    path = _kus(tmp_path, "Task2", np.stack([line_mask()] * 3))
    for mask in tmp_path.rglob("*_mask_*"):
        mask.unlink()
    with pytest.raises(DataError, match=r"Mask_Task2/P001/lvot_mask_ktGaussian8.mat, got no file"):
        read_file(path)


# MATLAB 5, odd sizes, editions


def test_matlab_5_reads_like_hdf5(tmp_path):
    file = read_file(write_mat5(tmp_path))
    np.testing.assert_array_equal(file[1].kspace, kspace()[:, 1])
    assert (file.format, file.fully_sampled) == ("cmrxrecon2025", True)


def test_a_changed_matlab_5_file_is_read_anew(tmp_path):
    path = write_mat5(tmp_path)
    assert len(read_file(path)) == 2
    write_mat(path, "kspace", kspace((1, 1, 2, 3, 4)))
    assert len(read_file(path)) == 1


def test_numbers_of_one_centre_do_not_collide_with_anothers():
    inside = "MultiCoil/Cine/TrainingSet/FullSample/Center002/UIH_30T/P001/cine_sax.mat"
    assert subject_of(inside) == "Center002/UIH_30T/P001"


def test_dropped_singleton_axes_can_be_named(tmp_path):
    path = write_mat(tmp_path / "cine_sax.mat", "kspace_full", kspace((2, 4, 9, 8)))
    with pytest.raises(DataError, match=r"got shape \(2, 4, 9, 8\); .*--axes"):
        read_file(path)
    file = read_file(path, axes="z,coil,ky,kx")
    assert (len(file), file.slice_shape) == (2, (1, 4, 9, 8))


# Damaged cases of 2024


def test_p109_loses_its_last_three_frames_with_a_warning(tmp_path):
    path = _full(tmp_path, "P109")
    with pytest.warns(DataWarning, match="left out the last 3 frames"):
        file = read_file(path)
    assert len(file) == 3
    np.testing.assert_array_equal(file[2].kspace, kspace((6, 3, 2, 9, 8))[:3, 2])


def test_frames_that_an_undersampled_copy_keeps_have_their_masks(tmp_path):
    masks = np.float32(np.random.default_rng(0).random((6, 9, 8)) < 0.5)
    folder = tmp_path / "2024" / "P109"
    write_mat(folder / "cine_sax_mask.mat", "mask", masks)
    data = kspace((6, 1, 2, 9, 8)) * masks[:, None, None]
    path = write_mat(folder / "cine_sax.mat", "kus", data)
    with pytest.warns(DataWarning, match="left out the last 3 frames"):
        np.testing.assert_array_equal(read_file(path)[0].mask, masks[:3])


def test_p100_loses_four_frames_and_its_second_slice(tmp_path):
    path = _full(tmp_path, "P100")
    with pytest.warns(DataWarning, match="left out the last 4 frames and slice 1"):
        file = read_file(path)
    assert [case.meta.slice_index for case in file] == [0, 2]
    assert file[0].meta.notes and file[0].shape[0] == 2
    np.testing.assert_array_equal(file[1].kspace, kspace((6, 3, 2, 9, 8))[:2, 2])


@pytest.mark.filterwarnings("ignore:.*left out:kgmgt_jax.data.formats.DataWarning")
def test_a_slice_has_one_name_whoever_reads_it(tmp_path):
    path = _full(tmp_path / "2024", "P100", (6, 3, 1, 24, 20))
    names = [f"P100/cine_sax/slice{z}" for z in (0, 2)]
    assert [case.meta.name for case in read_file(path)] == names
    assert [info.name for info in FileSlices([path], acs=8).slices] == names
    prepare(path, tmp_path / "set", PrepareOptions(split=(0.0, 0.0, 1.0)))
    assert [info.name for info in PreparedSet(tmp_path / "set", split="test").slices] == names
    for data in (path, tmp_path / "set"):
        cases = list(open_evaluation(data, acs=8).cases([Condition("uniform", 2.0, 8)]))
        assert [(c.name, c.slice_index) for c in cases] == [(names[0], 0), (names[1], 2)]


@pytest.mark.parametrize("subject, task", [("P101", "Mask_Task1"), ("P109", "AccFactor04")])
def test_other_subjects_and_editions_keep_all_frames(tmp_path, subject, task):
    file = read_file(_full(tmp_path, subject, task=task))
    assert (len(file), file.slice_shape[0]) == (3, 6)


@pytest.mark.parametrize("folder", ["ValidationSet", "TestSet"])
def test_subjects_of_the_same_number_in_other_sets_keep_all_frames(tmp_path, folder):
    assert read_file(_full(tmp_path, "P109", folder=folder)).slice_shape[0] == 6


@pytest.mark.parametrize(
    "subject, damaged", [("P109", "the last 3 frames"), ("P100", "the last 4 frames and slice 1")]
)
def test_a_file_that_may_be_a_damaged_one_keeps_all_frames_with_a_warning(
    tmp_path, subject, damaged
):
    path = write_mat(tmp_path / subject / "cine_sax.mat", "kspace_full", kspace((6, 3, 2, 9, 8)))
    with pytest.warns(DataWarning, match=f"{damaged} are damaged as published if .* of 2024"):
        file = read_file(path)
    assert (len(file), file.slice_shape[0], file.format) == (3, 6, "cmrxrecon2023")
    assert "below a folder named 2024 they are left out" in file[0].meta.notes[0]
    told = shutil.copytree(path.parent, tmp_path / "2024" / subject) / path.name
    with pytest.warns(DataWarning, match=f"left out {damaged}"):
        assert read_file(told).slice_shape[0] < 6
