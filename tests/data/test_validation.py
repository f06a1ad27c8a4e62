"""Fixed undersampling: whole slices in order, masks that depend on the slice alone."""

from pathlib import Path

import numpy as np
import pytest

from kgmgt_jax.data.file_slices import FileSlices
from kgmgt_jax.data.formats import read_file
from kgmgt_jax.data.transforms import ifft2c
from kgmgt_jax.data.validation import validation_cases
from kgmgt_jax.mri.coils import estimate_sens
from tests.data.formats import writers
from tests.data.small_files import same, take, write_file

SETTINGS = {"mask_kind": "variable_density", "acceleration": 3.0, "acs": 4}


def _cases(files: list[Path], **options):
    return validation_cases(FileSlices(files, acs=4), **SETTINGS | options)


def _batches(files: list[Path]):
    return (case.frames() for case in _cases(files))


def test_batches_are_whole_slices_in_order(files):
    batches = list(_batches(files))
    assert [batch["target"].shape for batch in batches] == [(4, 16, 12)] * 4
    expected = ifft2c(read_file(files[0])[1].kspace)[:, 0]
    found = batches[1]["reference"] * batches[1]["scale"][:, None, None]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_batch_can_be_the_first_frames(files):
    case = next(_cases(files))
    assert same(case.frames(3), {k: v[:3] for k, v in case.frames().items()})


def test_a_choice_of_slices_is_spread_over_the_files(files):
    names = [case.name for case in _cases(files, n_slices=2)]
    assert names == ["P001/cine_sax/slice0", "P002/cine_sax/slice1"]
    assert len(list(_cases(files, n_slices=9))) == 4


def test_batches_repeat_exactly(files):
    assert all(map(same, *[list(_batches(files)) for _ in range(2)]))


def test_a_mask_does_not_depend_on_the_other_files(files):
    assert same(list(_batches(files))[2], next(_batches(files[1:])))


def test_another_seed_gives_other_masks(files):
    one, other = (next(_cases(files, seed=seed)).mask for seed in (0, 1))
    assert (one != other).any()


def test_slices_have_masks_of_their_own(files):
    one, other = take(_batches(files), 2)
    assert not np.array_equal(one["mask"], other["mask"])


def test_filled_inputs_keep_mask_and_reference(files):
    plain, filled = next(_batches(files)), next(_cases(files)).frames(input_fill="average")
    np.testing.assert_array_equal(filled["mask"], plain["mask"])
    references = [b["reference"] * b["scale"][:, None, None] for b in (plain, filled)]
    np.testing.assert_allclose(*references, rtol=1e-5)
    assert not np.allclose(filled["target"], plain["target"], atol=0.1)


def test_a_cine_with_ends_does_not_wrap_around(files):
    case = next(_cases(files))
    around, with_ends = (case.frames(circular=circular) for circular in (True, False))
    np.testing.assert_array_equal(around["preceding"][0], around["target"][-1])
    np.testing.assert_array_equal(with_ends["preceding"][0], with_ends["target"][0])


def test_cases_carry_everything_measured(files):
    case = next(_cases(files))
    np.testing.assert_allclose(case.kspace, read_file(files[0])[0].kspace, atol=1e-5)
    assert case.name == "P001/cine_sax/slice0" and case.sens is None


@pytest.mark.parametrize("kind", ["kt_uniform", "uniform"])
def test_several_coils_are_calibrated_on_what_the_mask_measures(tmp_path, kind):
    source = FileSlices([write_file(tmp_path, "P001", (6, 1, 3, 16, 12))], acs=4)
    case = next(validation_cases(source, **SETTINGS | {"mask_kind": kind}))
    measured = case.kspace * case.mask[:, None]
    np.testing.assert_array_equal(case.sens, estimate_sens(measured, case.mask))
    of_central_lines = np.allclose(case.sens, source.sens(0), atol=0.01)
    assert of_central_lines == (kind == "uniform")


def test_estimated_maps_are_kept_on_disk_where_a_folder_is_given(tmp_path):
    source = FileSlices([write_file(tmp_path, "P001", (6, 1, 3, 16, 12))], acs=4)
    options = SETTINGS | {"sens_cache": tmp_path / "maps"}
    first, again = (next(validation_cases(source, **options)) for _ in range(2))
    assert len(list((tmp_path / "maps").glob("*.npy"))) == 1
    np.testing.assert_array_equal(first.sens, again.sens)


def test_maps_of_the_file_are_kept(tmp_path):
    np.save(tmp_path / "kspace.npy", writers.kspace((4, 3, 16, 12)))
    np.save(tmp_path / "sens.npy", writers.maps((3, 16, 12)))
    case = next(validation_cases(FileSlices([tmp_path / "kspace.npy"], acs=4), **SETTINGS))
    np.testing.assert_array_equal(case.sens, writers.maps((3, 16, 12)))


def test_samples_that_the_scanner_left_out_do_not_count_as_measured(tmp_path):
    """An asymmetric echo: 2 of 8 samples of each readout were never taken."""
    pytest.importorskip("ismrmrd")
    source = FileSlices([writers.write_ismrmrd(tmp_path, late=2)], acs=4)
    case = next(validation_cases(source, **SETTINGS | {"mask_kind": "uniform"}))
    assert not case.mask[..., :2].any()
    lines = case.mask[..., 2:]
    assert (lines == lines[..., :1]).all() and 4 <= lines[0, :, 0].sum() < 9
    np.testing.assert_array_equal(case.sens, estimate_sens(case.kspace, case.mask))
    assert FileSlices([write_file(tmp_path, "P001")], acs=4).acquired(0) is None


def test_bad_settings_are_refused_at_once_and_not_at_the_first_case(files):
    with pytest.raises(ValueError, match="n_slices=0"):
        _cases(files, n_slices=0)
    with pytest.raises(ValueError, match="kind='spiral'"):
        _cases(files, mask_kind="spiral")
