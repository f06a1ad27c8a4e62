"""Coil maps of any scale."""

import numpy as np
import pytest

from kgmgt_jax.data.formats.maps import unit_maps


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_maps_that_are_not_finite_stay_so_without_a_warning(value, scale):
    maps = np.full((2, 3, 4), scale / np.sqrt(2), np.complex64)
    maps[0, 1, 1] = value
    found, notes = unit_maps(maps)
    assert bool(notes) == (scale != 1 or value == np.inf)
    assert not np.isfinite(found[0, 1, 1]) and np.isfinite(found[:, 0]).all()
