"""The field map: shimmed, and as strong as asked for."""

import numpy as np
from numpy.testing import assert_allclose

from kgmgt_jax.data.phantom.canvas import superellipse
from kgmgt_jax.data.phantom.field import field_map


def test_field_map_is_linear_free_and_has_the_peak_asked_for():
    y, x = np.mgrid[-32:32, -32:32] * 5.0
    matter = np.clip(superellipse(x, y, (110.0, 140.0)) / 5 + 0.5, 0, 1)
    field = field_map(np.random.default_rng(0), matter, (5.0, 5.0), 0.4, peak=80.0)
    assert_allclose(np.percentile(np.abs(field[matter > 0.5]), 98), 80.0, rtol=1e-6)
    assert abs((matter * field * x).sum()) < 1e-6 * (matter * np.abs(field * x)).sum()
