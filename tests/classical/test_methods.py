"""What all iterative methods promise: limiting cases, units, stopping, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.classical import METHODS, temporal_tv
from tests.classical.reference import SHAPE, complex_array, fft2c, problem

ITERATIVE = [name for name, method in METHODS.items() if method.weights]


@pytest.mark.parametrize("name", ITERATIVE)
def test_a_unit_coil_beside_dead_ones_is_a_single_coil(name):
    """Three coils, as in other tests, which spares a compilation."""
    kspace, mask, _ = problem()
    unit = jnp.zeros((3, *SHAPE[1:]), jnp.complex64).at[0].set(1)
    padded = jnp.pad(kspace, ((0, 0), (0, 2), (0, 0), (0, 0)))
    options = {"tolerance": 1e-6, "max_iterations": 300 if name != "kt_focuss" else 3}
    alone = METHODS[name].reconstruct(kspace, mask, **options)
    with_maps = METHODS[name].reconstruct(padded, mask, unit, **options)
    assert np.linalg.norm(alone - with_maps) < 3e-3 * np.linalg.norm(alone)


@pytest.mark.parametrize("name", METHODS)
def test_maps_may_have_a_frame_axis(name):
    kspace, mask, sens = problem(3)
    shared = METHODS[name].reconstruct(kspace, mask, sens)
    repeated = METHODS[name].reconstruct(kspace, mask, jnp.repeat(sens[None], len(kspace), axis=0))
    np.testing.assert_allclose(repeated, shared, atol=1e-4 * np.abs(shared).max())


@pytest.mark.parametrize("name", ["zero_filled", "cg_sense", "spatial_tv", "wavelet"])
def test_frames_are_combined_by_their_own_maps(name):
    """Maps whose phase changes over time, and data to match, have the same image.

    The others start from an average over time of the k-space, whose phase changes.
    """
    kspace, mask, sens = problem(3)
    phase = jnp.exp(1j * jnp.arange(len(kspace)))[:, None, None, None]
    image = METHODS[name].reconstruct(kspace, mask, sens)
    turned = METHODS[name].reconstruct(phase * kspace, mask, phase * sens[None])
    np.testing.assert_allclose(turned, image, atol=1e-3 * np.abs(image).max())


@pytest.mark.parametrize("name", ITERATIVE)
def test_full_sampling_without_weight_returns_the_image(name):
    image = complex_array(np.random.default_rng(0), *SHAPE)
    options = dict.fromkeys(METHODS[name].weights, 0.0)
    if name == "kt_focuss":
        options |= {"cg_tolerance": 1e-6, "max_cg_iterations": 200}
    result = METHODS[name].reconstruct(fft2c(image)[:, None], jnp.ones(SHAPE), **options)
    assert np.linalg.norm(result - image) < 5e-3 * np.linalg.norm(image)


@pytest.mark.parametrize("name", ITERATIVE)
def test_small_weights_keep_measured_samples(name):
    kspace, mask, _ = problem()
    weights = dict.fromkeys(METHODS[name].weights, 1e-5)
    result = METHODS[name].reconstruct(kspace, mask, **weights)
    misfit = np.asarray(mask * fft2c(result) - kspace[:, 0])
    assert np.linalg.norm(misfit) < 0.01 * np.linalg.norm(kspace)


@pytest.mark.parametrize("name", METHODS)
def test_result_is_proportional_to_the_data(name):
    kspace, mask, _ = problem()
    result = METHODS[name].reconstruct(kspace, mask)
    scaled = METHODS[name].reconstruct(1e4 * kspace, mask) / 1e4
    np.testing.assert_allclose(scaled, result, atol=2e-3 * np.abs(result).max())


@pytest.mark.parametrize("value", [77.0, np.nan])
@pytest.mark.parametrize("name", METHODS)
def test_samples_outside_the_mask_are_ignored(name, value):
    kspace, mask, _ = problem()
    polluted = jnp.where(mask[:, None] > 0, kspace, value)
    clean, result = (METHODS[name].reconstruct(k, mask) for k in (kspace, polluted))
    np.testing.assert_array_equal(result, clean)


@pytest.mark.parametrize("name", METHODS)
def test_nothing_measured_gives_nothing(name):
    _, mask, _ = problem()
    result = METHODS[name].reconstruct(jnp.zeros((SHAPE[0], 1, *SHAPE[1:]), jnp.complex64), mask)
    assert result.shape == SHAPE and result.dtype == jnp.complex64 and not result.any()


@pytest.mark.parametrize("name", [name for name in ITERATIVE if name != "cg_sense"])
def test_tolerance_and_maximum_stop_the_iterations(name):
    kspace, mask, _ = problem()
    method = METHODS[name].reconstruct
    one = method(kspace, mask, max_iterations=1, tolerance=0.0)
    two = method(kspace, mask, max_iterations=2, tolerance=0.0)
    loose = method(kspace, mask, max_iterations=2, tolerance=100.0)
    np.testing.assert_array_equal(loose, one)
    assert np.abs(two - one).max() > 1e-4


@pytest.mark.parametrize("name", ITERATIVE)
def test_bad_arguments_are_refused_in_one_line(name):
    kspace, mask, _ = problem()
    method, weight = METHODS[name].reconstruct, next(iter(METHODS[name].weights))
    for options, message in (
        ({weight: -0.1}, f"expected {weight} >= 0"),
        ({"tolerance": -1.0}, "expected tolerance >= 0"),
        ({"max_iterations": 0}, "expected max_iterations >= 1"),
        ({"sens": jnp.ones((2, *SHAPE[1:]), complex)}, "expected sens of shape"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            method(kspace, mask, **options)
        assert "\n" not in str(caught.value)


def test_methods_run_under_jit_with_traced_weights():
    kspace, mask, _ = problem()
    compiled = jax.jit(lambda k, m, w: temporal_tv(k, m, weight=w))
    expected = temporal_tv(kspace, mask, weight=0.02)
    np.testing.assert_allclose(compiled(kspace, mask, 0.02), expected, atol=1e-5)
