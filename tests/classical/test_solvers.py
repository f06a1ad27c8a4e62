"""The loops stop when they should, and solve what they should."""

import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.classical.solvers import conjugate_gradients, iterate
from tests.classical.reference import complex_array


def _halve(state):
    return (state[0] / 2 + 1,)  # tends to 2


@pytest.mark.parametrize("tolerance", [1e-1, 1e-3])
def test_iteration_stops_at_the_first_small_relative_change(tolerance):
    image, expected = 10.0, 0
    while True:
        following, expected = image / 2 + 1, expected + 1
        if abs(following - image) <= tolerance * following:
            break
        image = following
    (result,), count = iterate(
        _halve, (jnp.full((2, 2), 10.0 + 0j),), tolerance=tolerance, max_iterations=100
    )
    assert count == expected
    np.testing.assert_allclose(result, following, rtol=1e-6)


@pytest.mark.parametrize("maximum", [0, 1, 5])
def test_iteration_stops_at_the_maximum(maximum):
    _, count = iterate(_halve, (jnp.full(2, 10.0 + 0j),), tolerance=0.0, max_iterations=maximum)
    assert count == maximum


def test_conjugate_gradients_solve_a_dense_system():
    rng = np.random.default_rng(0)
    factor = np.asarray(complex_array(rng, 6, 6))
    matrix = factor.conj().T @ factor + np.eye(6)
    rhs, start = complex_array(rng, 6), complex_array(rng, 6)
    expected = np.linalg.solve(matrix, rhs)
    for first in (None, start):
        result = conjugate_gradients(
            lambda x: jnp.asarray(matrix, rhs.dtype) @ x,
            rhs,
            first,
            tolerance=0.0,
            max_iterations=12,
        )
        np.testing.assert_allclose(result, expected, atol=1e-4)


def test_conjugate_gradients_without_tolerance_end_before_residuals_are_zero():
    values = jnp.asarray([1.0, 3.0])
    result = conjugate_gradients(
        lambda x: values * x, jnp.asarray([1 + 0j, 3j]), tolerance=0.0, max_iterations=200
    )
    np.testing.assert_allclose(result, [1, 1j], atol=1e-5)


def test_conjugate_gradients_stop_at_the_reduction():
    values = jnp.asarray([1.0, 2.0, 5.0, 9.0, 20.0])
    rhs = jnp.ones(5, complex)

    def residual(tolerance):
        x = conjugate_gradients(lambda x: values * x, rhs, tolerance=tolerance, max_iterations=20)
        return jnp.linalg.norm(values * x - rhs) / jnp.linalg.norm(rhs)

    assert 1e-4 < residual(0.3) < 0.3
    assert residual(1e-5) < 1e-5


def test_conjugate_gradients_of_nothing_are_nothing():
    zero = conjugate_gradients(lambda x: x, jnp.zeros(3, complex), tolerance=0.0, max_iterations=5)
    assert not zero.any()
