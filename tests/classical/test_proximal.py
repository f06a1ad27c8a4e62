"""Proximal operators against their definition: nothing nearby has a lower value."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.classical.proximal import (
    largest_singular_value,
    shrink_singular_values,
    soft_threshold,
)
from tests.classical.reference import complex_array


def _l1(d):
    return np.abs(d).sum()


def _l21(d):
    return np.linalg.norm(d, axis=0).sum()


def _nuclear(d):
    return np.linalg.svd(d, compute_uv=False).sum()


OPERATORS = {
    "l1": (_l1, soft_threshold),
    "l21": (_l21, partial(soft_threshold, axis=0)),
    "nuclear": (_nuclear, shrink_singular_values),
}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("threshold", [0.3, 1.5])
def test_result_minimises_the_definition(name, threshold):
    function, operator = OPERATORS[name]
    rng = np.random.default_rng(0)
    v = np.asarray(complex_array(rng, 3, 4, 2), np.complex128)

    def value(d):
        return threshold * function(d) + 0.5 * np.sum(np.abs(d - v) ** 2)

    result = np.asarray(jax.jit(operator)(jnp.asarray(v, jnp.complex64), threshold), np.complex128)
    best = value(result)
    for size in (1.0, 0.1, 0.01):
        for _ in range(50):
            other = result + size * np.asarray(complex_array(rng, 3, 4, 2))
            assert value(other) > best - 1e-6
    for factor in (0.0, 0.95, 1.05):
        assert value(factor * result) >= best - 1e-6


def test_soft_threshold_by_hand():
    values = jnp.asarray([3.0 + 4.0j, 0.5j, 0.0])
    np.testing.assert_allclose(soft_threshold(values, 1.0), [2.4 + 3.2j, 0, 0], atol=1e-6)


def test_singular_values_shrink_as_those_of_the_svd():
    matrix = complex_array(np.random.default_rng(1), 4, 30)
    u, s, vh = np.linalg.svd(np.asarray(matrix), full_matrices=False)
    expected = (u * np.maximum(s - 6.8, 0)) @ vh
    assert 0 < np.sum(s > 6.8) < 4
    result = jax.jit(shrink_singular_values)(matrix, 6.8)
    np.testing.assert_allclose(result, expected, atol=1e-5)
    np.testing.assert_allclose(jax.jit(largest_singular_value)(matrix), s[0], rtol=1e-5)


def test_nothing_stays_nothing():
    assert not jax.jit(shrink_singular_values)(jnp.zeros((3, 2, 2), complex), 0.0).any()
