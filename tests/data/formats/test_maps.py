"""Coil maps of any scale."""

import numpy as np
import pytest

from kgmgt_jax.data.formats.maps import unit_maps


@pytest.mark.parametrize(("norm", "kept"), [(1.0005, True), (1.01, False)])
def test_maps_are_scaled_unless_their_sum_of_squares_is_1_to_rounding(norm, kept):
    maps = np.full((2, 3, 4), norm / np.sqrt(2), np.complex64)
    found, notes = unit_maps(maps)
    assert bool(notes) != kept
    np.testing.assert_allclose(np.linalg.norm(found, axis=0), norm if kept else 1, rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_maps_that_are_not_finite_stay_so_without_a_warning(value, scale):
    maps = np.full((2, 3, 4), scale / np.sqrt(2), np.complex64)
    maps[0, 1, 1] = value
    found, notes = unit_maps(maps)
    assert bool(notes) == (scale != 1 or value == np.inf)
    assert not np.isfinite(found[0, 1, 1]) and np.isfinite(found[:, 0]).all()
