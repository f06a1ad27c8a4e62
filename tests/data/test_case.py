"""CineCase refuses what a reconstruction could not use, in one line that says what and where."""

import dataclasses
import pickle
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.data.case import CaseMeta, CineCase, DataError

META = CaseMeta(
    source="/data/P001/cine_sax.mat",
    name="P001/cine_sax/slice0",
    key="kspace_sub04",
    slice_index=0,
    n_slices=1,
    format="cmrxrecon2023",
    fully_sampled=False,
)


def _arrays(t: int = 3, n: int = 2, h: int = 5, w: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """K-space of random numbers and a mask that measures rows 0, 2 and 4."""
    rng = np.random.default_rng(0)
    mask = np.zeros((t, h, w), np.float32)
    mask[:, ::2] = 1
    kspace = rng.normal(size=(t, n, h, w)) + 1j * rng.normal(size=(t, n, h, w))
    return (kspace * mask[:, None]).astype(np.complex64), mask


def test_sizes_are_read_off_the_kspace():
    case = CineCase(*_arrays(), META)
    assert (case.n_frames, case.n_coils, case.shape) == (3, 2, (3, 2, 5, 4))


def test_a_case_prints_shapes_in_one_line():
    told = repr(CineCase(*_arrays(), META, reference=np.ones((3, 5, 2), np.float32)))
    shapes = "kspace (3, 2, 5, 4), mask (3, 5, 4), reference (3, 5, 2)"
    assert told == f"CineCase(P001/cine_sax/slice0: {shapes}, acceleration 1.67)"


def test_true_acceleration_is_all_over_measured():
    assert CineCase(*_arrays(), META).true_acceleration == pytest.approx(5 / 3)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1j * np.nan])
def test_values_that_are_not_finite_are_counted_by_frame(value):
    kspace, mask = _arrays()
    kspace[1, 0, 0, :3] = value
    kspace[2, 1, 2, 0] = value
    with pytest.raises(DataError, match=r"4 NaN or infinite samples in frames \[1, 2\]"):
        CineCase(kspace, mask, META)


def test_a_mask_of_another_size_is_refused_with_both_sizes():
    kspace, mask = _arrays()
    with pytest.raises(DataError, match=r"\(3, 5, 4\).*\(3, 5, 3\)"):
        CineCase(kspace, mask[..., :3].copy(), META)


def test_a_mask_between_zero_and_one_is_refused():
    kspace, mask = _arrays()
    with pytest.raises(DataError, match=r"zeros and ones, got 1 other values, 0\.5 to 0\.5"):
        CineCase(kspace, mask * np.float32(0.5), META)


def test_a_mask_that_measures_nothing_is_refused():
    kspace, mask = _arrays()
    with pytest.raises(DataError, match="a mask of zeros only"):
        CineCase(kspace, mask * 0, META)


@pytest.mark.parametrize("measured", [0, 1])  # without a mask file, zeros are not
def test_kspace_without_signal_is_refused(measured):
    kspace, mask = _arrays()
    with pytest.raises(DataError, match="with signal, got zeros only"):
        CineCase(kspace * 0, mask * np.float32(measured), META)


def test_three_axes_are_refused():
    kspace, mask = _arrays()
    with pytest.raises(DataError, match=r"four non-empty axes.*shape \(3, 5, 4\)"):
        CineCase(kspace[:, 0], mask, META)


@pytest.mark.parametrize(
    ("name", "dtype"), [("kspace", np.complex128), ("mask", np.bool_), ("sens", np.float32)]
)
def test_other_dtypes_are_refused(name, dtype):
    kspace, mask = _arrays()
    arrays = {"kspace": kspace, "mask": mask, "sens": kspace[0]}
    arrays[name] = np.ones(arrays[name].shape, dtype)
    with pytest.raises(DataError, match=f"{name} as a NumPy array .* got {np.dtype(dtype)}"):
        CineCase(**arrays, meta=META)


def test_arrays_of_another_library_are_called_by_their_name():
    kspace, mask = _arrays()
    with pytest.raises(DataError, match="complex64, got ArrayImpl complex64"):
        CineCase(jnp.asarray(kspace), mask, META)


def test_sensitivities_of_another_coil_count_are_refused():
    kspace, mask = _arrays()
    with pytest.raises(DataError, match=r"\(2, 5, 4\), got sens \(1, 5, 4\)"):
        CineCase(kspace, mask, META, sens=kspace[0, :1])


def test_sensitivities_that_are_not_finite_are_refused():
    kspace, mask = _arrays()
    sens = np.full_like(kspace[0], np.nan)
    with pytest.raises(DataError, match="finite sensitivities, got 40"):
        CineCase(kspace, mask, META, sens=sens)


def test_samples_outside_the_mask_are_refused():
    kspace, mask = _arrays()
    kspace[0, :, 1, :] = 1
    with pytest.raises(DataError, match="8 samples outside the mask"):
        CineCase(kspace, mask, META)


@pytest.mark.parametrize("unit", [1e-6, 1, 1e6])
def test_residue_above_rounding_is_refused(unit):
    kspace, mask = _arrays()
    kspace *= np.float32(unit)
    kspace[0, 0, 1, 0] = 1e-5 * np.abs(kspace).max()
    with pytest.raises(DataError, match="1 samples outside the mask, up to 1e-05 of the peak"):
        CineCase(kspace, mask, META)


@pytest.mark.parametrize("unit", [1e-6, 1, 1e6])
def test_rounding_residue_outside_the_mask_is_set_to_zero(unit):
    kspace, mask = _arrays()
    kspace *= np.float32(unit)
    clean = kspace.copy()
    kspace[0, 0, 1, 0] = 1e-7 * unit
    kspace.flags.writeable = False  # it stays as it was
    np.testing.assert_array_equal(CineCase(kspace, mask, META).kspace, clean)


def test_a_measured_sample_may_be_zero():
    kspace, mask = _arrays()
    kspace[0, 0, 0, 0] = 0
    assert CineCase(kspace, mask, META).mask[0, 0, 0] == 1


def test_an_error_names_file_and_case():
    kspace, mask = _arrays()
    with pytest.raises(DataError, match=r"^/data/P001/cine_sax.mat \[P001/cine_sax/slice0\]: "):
        CineCase(kspace * 0, mask, META)


def test_an_error_is_one_line():
    error = DataError(Path("a.mat"), "one thing", "another\nthing", "do this")
    assert str(error) == "a.mat: expected one thing, got another thing; do this"


def test_an_error_survives_pickling():
    error = DataError("a.mat", "one thing", "another")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_sensitivities_may_change_over_time():
    kspace, mask = _arrays()
    assert CineCase(kspace, mask, META, sens=kspace.copy()).sens.shape == (3, 2, 5, 4)


@pytest.mark.parametrize("peak", [1e-16, 1e16])
def test_kspace_that_single_precision_cannot_square_is_refused(peak):
    kspace, mask = _arrays()
    with pytest.raises(DataError, match="a peak of 1e-15 to 1e"):
        CineCase(kspace / np.abs(kspace).max() * np.float32(peak), mask, META)


@pytest.mark.parametrize("shape", [(2, 5, 4), (3, 6, 4), (3, 5)])
def test_a_reference_that_is_no_window_of_the_image_is_refused(shape):
    kspace, mask = _arrays()
    with pytest.raises(DataError, match=r"at most \(t, ky, kx\) = \(3, 5, 4\)"):
        CineCase(kspace, mask, META, reference=np.ones(shape, np.float32))


def test_a_reference_that_is_not_finite_is_refused():
    kspace, mask = _arrays()
    with pytest.raises(DataError, match="finite reference"):
        CineCase(kspace, mask, META, reference=np.full((3, 5, 4), np.nan, np.float32))


@pytest.mark.parametrize(
    ("lines", "expected"), [([2], 1), ([1, 2, 3], 3), ([0, 2, 3, 4], 3), ([1, 3], 0), (range(5), 5)]
)
def test_acs_counts_complete_lines_around_the_centre(lines, expected):
    kspace, mask = np.ones((2, 1, 5, 4), np.complex64), np.zeros((2, 5, 4), np.float32)
    mask[:, list(lines)] = 1
    assert CineCase(kspace * mask[:, None], mask, META).acs == expected


def test_acs_are_lines_of_every_frame_and_calibration_lines_those_of_any():
    kspace, mask = np.ones((2, 1, 7, 4), np.complex64), np.zeros((2, 7, 4), np.float32)
    mask[:, 3] = mask[0, 2] = mask[1, [1, 4]] = 1
    case = CineCase(kspace * mask[:, None], mask, META)
    assert (case.acs, case.calibration_lines) == (1, 4)


def test_lines_of_a_partial_echo_are_complete():
    kspace, mask = np.ones((2, 1, 5, 4), np.complex64), np.ones((2, 5, 4), np.float32)
    mask[..., 0] = 0
    assert CineCase(kspace * mask[:, None], mask, META).acs == 5


def test_a_case_is_simulated_if_it_says_how():
    assert not META.simulated
    assert dataclasses.replace(META, simulation="from images").simulated
