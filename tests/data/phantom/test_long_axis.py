"""The four-chamber view: the area of the cavity and the descent of the valve plane."""

import numpy as np
from numpy.testing import assert_allclose

from kgmgt_jax.data.phantom.heart import CAVITY


def test_cavity_area_in_the_long_axis_follows_radius_and_length(lax):
    area = (lax.labels == CAVITY).sum((1, 2))
    assert_allclose(area / area[0], np.sqrt(lax.lv_volume * lax.lv_length), atol=0.03)


def test_valve_plane_descends_in_the_long_axis(lax):
    def extent(frame):
        rows, columns = np.nonzero(lax.labels[frame] == CAVITY)
        return np.hypot(np.ptp(rows), np.ptp(columns))

    assert extent(int(lax.lv_volume.argmin())) < 0.96 * extent(0)
