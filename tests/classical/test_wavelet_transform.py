"""The wavelet transform: orthonormal for any size, equal to its matrix, blind to what is smooth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.classical import wavelet_transform
from kgmgt_jax.classical.wavelet_transform import HIGH, LOW
from tests.classical.reference import complex_array, wavelet_matrix

decompose = jax.jit(wavelet_transform.decompose, static_argnums=1)
recompose = jax.jit(wavelet_transform.recompose)
SIZES = [(16, 8), (9, 22)]


@pytest.mark.parametrize("size", SIZES)
def test_reconstruction_is_perfect(size):
    images = complex_array(np.random.default_rng(0), 2, *size)
    np.testing.assert_allclose(recompose(decompose(images, 3)), images, atol=2e-6)


@pytest.mark.parametrize("size", SIZES)
def test_inner_products_are_kept(size):
    rng = np.random.default_rng(1)
    a, b = complex_array(rng, 2, *size), complex_array(rng, 2, *size)
    bands = zip(*(jax.tree.leaves(decompose(image, 3)) for image in (a, b)), strict=True)
    np.testing.assert_allclose(sum(jnp.vdot(p, q) for p, q in bands), jnp.vdot(a, b), rtol=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_as_many_coefficients_as_pixels(size):
    coefficients = jax.eval_shape(lambda x: decompose(x, 3), jnp.zeros((1, *size)))
    assert sum(band.size for band in jax.tree.leaves(coefficients)) == size[0] * size[1]


def test_one_level_is_the_matrix_along_both_axes():
    image = complex_array(np.random.default_rng(2), 9, 12)
    expected = wavelet_matrix(9) @ np.asarray(image) @ wavelet_matrix(12).T
    coarse, ((low_high, high_low, high_high),) = decompose(image, 1)
    result = jnp.block([[coarse, low_high], [high_low, high_high]])
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_next_level_transforms_the_coarse_band():
    image = complex_array(np.random.default_rng(3), 16, 17)
    twice, once = decompose(image, 2), decompose(image, 1)
    np.testing.assert_allclose(twice.coarse, decompose(once.coarse, 1).coarse, atol=1e-6)
    np.testing.assert_array_equal(twice.details[0][2], once.details[0][2])


def test_filters_annihilate_lines():
    taps = np.asarray(HIGH)
    assert abs(taps.sum()) < 1e-12 and abs(taps @ np.arange(4)) < 1e-12
    assert abs(np.sum(np.square(LOW)) - 1) < 1e-12


def test_small_images_have_fewer_levels():
    for size, n_levels in (((8, 16), 1), ((7, 16), 0)):
        coefficients = jax.eval_shape(lambda x: decompose(x, 5), jnp.zeros(size))
        assert len(coefficients.details) == n_levels
