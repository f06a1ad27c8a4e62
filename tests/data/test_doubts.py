"""What looks wrong in a case is named, and nothing is where all is well."""

import contextlib
import dataclasses

import numpy as np
import pytest

from kgmgt_jax.data.case import CaseMeta, CineCase
from kgmgt_jax.data.doubts import doubts
from kgmgt_jax.data.phantom import make_cine
from kgmgt_jax.mri.coils import estimate_sens

META = CaseMeta("file.mat", "case", "", 0, 1, "npy", fully_sampled=False)
FULL = make_cine(0, shape=(32, 24), n_frames=3, n_coils=2, noise=0.0).kspace


def _case(mask=None, kspace=FULL, coils=slice(1)):
    mask = np.ones((3, 32, 24), np.float32) if mask is None else mask
    return CineCase(kspace[:, coils] * mask[:, None], mask, META)


def _lines(*chosen):
    mask = np.zeros((3, 32, 24), np.float32)
    mask[:, list(chosen)] = 1
    return mask


@pytest.mark.parametrize("coils", [slice(1), slice(2)])
def test_an_ordinary_case_raises_none(coils):
    assert doubts(_case(_lines(0, 8, 14, 15, 16, 17, 24), coils=coils)) == []
    assert doubts(_case(coils=coils)) == []


def test_zeros_that_count_as_measured_in_some_frame():
    kspace = FULL.copy()
    kspace[1, :, 5] = kspace[2, :, 9] = 0
    (doubt,) = doubts(_case(kspace=kspace))
    assert doubt == "file.mat [case]: 2 of 32 lines are zero though the mask says measured"


@pytest.mark.parametrize("told", [True, False])
def test_frames_without_any_signal(told):
    kspace, mask = FULL.copy(), np.ones((3, 32, 24), np.float32)
    kspace[1:] = 0
    mask[1:] = told  # whether the mask says measured
    (doubt,) = doubts(_case(mask, kspace))
    assert "case]: 2 of 3 frames have no signal at all, frame 1 the first of them" in doubt


@pytest.mark.parametrize("axes, named", [((-2, -1), "ky and kx"), (-2, "ky"), (-1, "kx")])
def test_kspace_that_is_not_centred(axes, named):
    (doubt,) = doubts(_case(kspace=np.fft.ifftshift(FULL, axes=axes)))
    assert f"the ends of {named} hold" in doubt and "fftshift" in doubt


def test_lines_along_the_wrong_axis():
    mask = np.zeros((3, 32, 24), np.float32)
    mask[..., [0, 6, 11, 12, 13, 18]] = 1
    (doubt,) = doubts(_case(mask))
    assert "along kx" in doubt


def test_a_partial_echo_is_no_doubt():
    mask = np.ones((3, 32, 24), np.float32)
    mask[..., :4] = 0
    assert doubts(_case(mask)) == []


def test_maps_of_the_file_need_no_lines():
    case = _case(_lines(0, 8, 16, 24), coils=slice(2))
    maps = np.full(case.shape[1:], 0.5**0.5, np.complex64)
    assert doubts(dataclasses.replace(case, sens=maps)) == []


@pytest.mark.parametrize(("rows", "enough"), [(slice(14, 18), True), (slice(15, 19), False)])
def test_what_coil_maps_are_estimated_from_is_what_counts(rows, enough):
    """As of radial masks, whose frames have a square of the centre; it lies around line 16."""
    mask = _lines(0, 8, 24)
    mask[:, rows, 8:16] = 1
    case = _case(mask, coils=slice(2))
    assert bool(doubts(case)) != enough
    with contextlib.nullcontext() if enough else pytest.raises(ValueError, match="complete lines"):
        estimate_sens(case.kspace, case.mask)


def test_too_few_lines_to_calibrate_several_coils():
    (doubt,) = doubts(_case(_lines(0, 8, 16, 24), coils=slice(2)))
    assert "coil maps" in doubt
