"""CG-SENSE: the solution of its linear system, and where it stops on the way there."""

import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.classical import cg_sense, zero_filled
from tests.classical.reference import CONVERGED, SHAPE, adjoint, batched, dense_operator, problem


@pytest.mark.parametrize("n_coils", [None, 3])
@pytest.mark.parametrize("weight", [0.02, 0.5])
def test_the_linear_system_is_solved(n_coils, weight):
    kspace, mask, sens = problem(n_coils)
    operator = dense_operator(mask, sens)
    system = operator.conj().T @ operator + weight * np.eye(operator.shape[1])
    measured = operator.conj().T @ np.asarray(kspace, np.complex128).ravel()
    expected = np.linalg.solve(system, measured).reshape(SHAPE)
    image = cg_sense(kspace, mask, sens, weight=weight, **CONVERGED)
    assert np.linalg.norm(image - expected) < 1e-5 * np.linalg.norm(expected)


def test_one_coil_is_zero_filled_over_one_and_the_weight():
    kspace, mask, _ = problem()
    expected = zero_filled(kspace, mask) / 1.3
    np.testing.assert_allclose(cg_sense(kspace, mask, weight=0.3), expected, atol=1e-6)


def test_three_coils_find_what_half_of_the_samples_lack():
    """The image itself, without noise, where as many samples as pixels say so."""
    kspace, _, sens = problem(3)
    mask = jnp.zeros(SHAPE).at[:, ::2].set(1)
    rng = np.random.default_rng(0)
    image = (rng.normal(size=SHAPE) + 1j * rng.normal(size=SHAPE)).astype(np.complex64)
    operator = dense_operator(mask, sens)
    measured = jnp.asarray((operator @ image.ravel()).reshape(kspace.shape), jnp.complex64)
    found = cg_sense(measured, mask, sens, weight=0.0, **CONVERGED)
    assert np.linalg.norm(found - image) < 1e-3 * np.linalg.norm(image)
    assert np.linalg.norm(zero_filled(measured, mask, sens) - image) > 0.3 * np.linalg.norm(image)


def test_tolerance_and_maximum_stop_the_iterations():
    """The first step is along the gradient, as far as the energy falls."""
    kspace, mask, sens = problem(3)
    options = {"weight": 0.01, "tolerance": 0.0}
    one, two = (cg_sense(kspace, mask, sens, **options, max_iterations=n) for n in (1, 2))
    gradient = np.asarray(adjoint(kspace, mask, batched(sens))).ravel()
    operator = dense_operator(mask, sens)
    curvature = np.linalg.norm(operator @ gradient) ** 2 + 0.01 * np.linalg.norm(gradient) ** 2
    step = np.linalg.norm(gradient) ** 2 / curvature
    np.testing.assert_allclose(np.ravel(one), step * gradient, atol=1e-5)
    assert np.abs(two - one).max() > 1e-3
    loose = cg_sense(kspace, mask, sens, weight=0.01, tolerance=0.9, max_iterations=50)
    np.testing.assert_array_equal(loose, one)
    assert not cg_sense(kspace, mask, sens, tolerance=2.0).any()
