"""Random fields and ripples: variance, period and decay."""

import numpy as np
from numpy.testing import assert_allclose

from kgmgt_jax.data.phantom.texture import noise_field, ripple, tissue_grain


def test_noise_field_has_unit_variance_on_its_cells():
    y, x = np.mgrid[0:128, 0:128] * 5.0
    sampled = noise_field(np.random.default_rng(0), 10.0)(x, y)
    assert_allclose([sampled.mean(), sampled.std()], [0, 1], atol=0.06)


def test_noise_field_repeats_after_128_cells():
    x, y = np.random.default_rng(1).uniform(-300, 300, (2, 50))
    field = noise_field(np.random.default_rng(0), 10.0)
    assert_allclose(field(x + 640, y - 640), field(x, y), atol=1e-4)


def test_noise_field_is_correlated_over_its_scale_and_no_further():
    y, x = np.mgrid[0:128, 0:128] * 5.0
    field = noise_field(np.random.default_rng(0), 10.0)
    near, far = ((field(x, y) * field(x + shift, y)).mean() for shift in (10.0, 60.0))
    assert near > 0.6
    assert abs(far) < 0.15


def test_tissue_grain_varies_around_one():
    y, x = np.mgrid[0:256, 0:256] * 1.5
    factor = tissue_grain(np.random.default_rng(0), 0.05)(x, y)
    assert_allclose([factor.mean(), factor.std()], [1, 0.05 * np.sqrt(2)], atol=0.01)


def test_ripple_falls_with_the_order():
    rng = np.random.default_rng(0)
    rows = np.stack([ripple(rng, 0.1) for _ in range(4000)])
    assert_allclose(rows[..., 1].std(0), 0.1 * 2 / np.array([2, 3, 4, 5]), rtol=0.05)
