"""Differences: adjoints, the symbol in k-space, the solver of chains."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.classical.differences import (
    chain_solver,
    spatial_adjoint,
    spatial_differences,
    spatial_symbol,
    temporal_adjoint,
    temporal_differences,
)
from tests.classical.reference import complex_array, difference_matrix, fft2c, ifft2c


@pytest.mark.parametrize("circular", [True, False])
def test_temporal_differences_and_adjoint_are_the_matrix(circular):
    cine = complex_array(np.random.default_rng(0), 4, 3, 2)
    matrix = difference_matrix(4, circular)
    forth, back = (np.tensordot(m, cine, 1) for m in (matrix, matrix.T))
    np.testing.assert_allclose(temporal_differences(cine, circular), forth, atol=1e-6)
    np.testing.assert_allclose(temporal_adjoint(cine, circular), back, atol=1e-6)


def test_spatial_adjoint_by_inner_products():
    rng = np.random.default_rng(0)
    images, differences = complex_array(rng, 3, 5, 4), complex_array(rng, 2, 3, 5, 4)
    left = jnp.vdot(differences, spatial_differences(images))
    np.testing.assert_allclose(left, jnp.vdot(spatial_adjoint(differences), images), rtol=1e-5)


@pytest.mark.parametrize("size", [(6, 5), (7, 8)])
def test_symbol_is_the_operator_in_kspace(size):
    images = complex_array(np.random.default_rng(0), 2, *size)
    expected = spatial_adjoint(spatial_differences(images))
    result = ifft2c(spatial_symbol(*size)[None] * fft2c(images))
    np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize("circular", [True, False])
@pytest.mark.parametrize("n_frames", [1, 2, 5])
def test_chain_solver_against_dense_systems(circular, n_frames):
    rng = np.random.default_rng(n_frames)
    diagonal = (rng.random((n_frames, 2, 3)) + 0.1).astype(np.float32)
    rhs = complex_array(rng, n_frames, 2, 3)
    result = jax.jit(lambda d, b: chain_solver(d, 0.7, circular)(b))(diagonal, rhs)
    matrix = difference_matrix(n_frames, circular)
    for y, x in np.ndindex(2, 3):
        system = np.diag(diagonal[:, y, x]) + 0.7 * matrix.T @ matrix
        expected = np.linalg.solve(system, rhs[:, y, x])
        np.testing.assert_allclose(result[:, y, x], expected, atol=2e-5)
