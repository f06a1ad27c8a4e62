"""Scale, temporal mean and the refusal of arrays that are not a cine."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.classical.measurement import (
    check_weights,
    scale_data,
    temporal_mean,
)
from tests.classical.reference import data_scale, forward, problem


def test_scale_of_a_flat_image_is_its_value():
    kspace = forward(jnp.full((3, 40, 36), 7.0 + 0j), jnp.ones((3, 40, 36)))
    np.testing.assert_allclose(data_scale(kspace, jnp.ones((3, 40, 36))), 7.0, rtol=1e-5)


def test_scale_is_the_peak_of_a_small_bright_spot():
    image = jnp.full((2, 32, 32), 0.1 + 0j).at[:, 16, 16].set(5.0)
    full = jnp.ones((2, 32, 32))
    np.testing.assert_allclose(data_scale(forward(image, full), full), 5.0, rtol=1e-5)


def test_scale_of_all_greys_alike_is_their_90th_percentile():
    greys = np.random.default_rng(0).permutation(np.linspace(0, 1, 1024)).reshape(1, 32, 32)
    full = jnp.ones((1, 32, 32))
    np.testing.assert_allclose(data_scale(forward(greys + 0j, full), full), 0.9, rtol=1e-5)


def test_scale_is_proportional_to_the_data():
    kspace, mask, _ = problem()
    ratio = data_scale(1000 * kspace, mask) / data_scale(kspace, mask)
    np.testing.assert_allclose(ratio, 1000, rtol=1e-5)


def test_scale_comes_of_samples_that_all_frames_measured():
    mask = jnp.ones((2, 8, 6)).at[1, 0].set(0)
    kspace = forward(jnp.full((2, 8, 6), 9.0 + 0j), mask)
    wave = kspace.at[0, 0, 0, 3].set(99.0)
    np.testing.assert_allclose(data_scale(wave, mask), data_scale(kspace, mask), rtol=1e-5)


def test_scale_without_samples_common_to_all_frames():
    mask = jnp.zeros((2, 8, 6)).at[0, ::2].set(1).at[1, 1::2].set(1)
    kspace = forward(jnp.full((2, 8, 6), 9.0 + 0j), mask)
    assert 1.8 < data_scale(kspace, mask) < 9.9


@pytest.mark.parametrize("place, counts", [(3, False), (4, True), (35, True), (36, False)])
def test_scale_comes_of_the_central_32_samples(place, counts):
    full, kspace = jnp.ones((1, 40, 40)), jnp.zeros((1, 1, 40, 40), complex)
    flat = kspace.at[..., 20, 20].set(40.0)
    for wave in (flat.at[..., place, 20].set(30.0), flat.at[..., 20, place].set(30.0)):
        assert (abs(data_scale(wave, full) - 1) > 0.1) == counts


def test_scale_of_nothing_is_one():
    assert data_scale(jnp.zeros((2, 1, 8, 8), complex), jnp.ones((2, 8, 8))) == 1


def test_scaled_data_has_no_samples_outside_the_mask():
    kspace, mask, _ = problem()
    polluted = jnp.where(mask[:, None] > 0, kspace, jnp.nan)
    data = jax.jit(scale_data)(polluted, mask, None)
    np.testing.assert_allclose(data.scale * data.kspace, kspace, atol=1e-6)


def test_temporal_mean_counts_measured_samples_only():
    kspace = jnp.asarray([2.0, 4.0, 9.0]).reshape(3, 1, 1, 1) + 0j
    mask = jnp.asarray([1.0, 1.0, 0.0]).reshape(3, 1, 1)
    assert temporal_mean(kspace, mask).item() == 3
    assert temporal_mean(kspace, 0 * mask).item() == 0


@pytest.mark.parametrize("value", [-1.0, float("nan")])
def test_negative_weights_are_refused(value):
    with pytest.raises(ValueError, match=r"expected weight >= 0, got weight="):
        check_weights(weight=value)


def test_traced_weights_are_let_through():
    def checked(weight):
        check_weights(weight=weight)
        return weight

    assert jax.jit(checked)(0.5) == 0.5
