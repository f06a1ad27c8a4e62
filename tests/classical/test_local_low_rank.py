"""Locally low rank: the two ends, blocks of one pixel and of all, whose minimum no grid changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.classical import locally_low_rank, zero_filled
from kgmgt_jax.classical.local_low_rank import MOVES, _shrink_blocks
from tests.classical import reference
from tests.classical.reference import CONVERGED, SHAPE, complex_array, data_scale, problem


def _minimum(operator, measured, weight, shrink, n_steps=2000):
    """Of ``1/2 ||A x - y||^2 + w g(x)``, by accelerated proximal gradients with restart."""
    x = ahead = np.zeros((SHAPE[0], operator.shape[1] // SHAPE[0]), complex)
    t = 1.0
    for _ in range(n_steps):
        gradient = operator.conj().T @ (operator @ ahead.ravel() - measured)
        following = shrink(ahead - gradient.reshape(x.shape), weight)
        t_next = (1 + np.sqrt(1 + 4 * t * t)) / 2
        if np.vdot(ahead - following, following - x).real > 0:
            t, t_next = 1.0, 1.0
        ahead = following + (t - 1) / t_next * (following - x)
        x, t = following, t_next
    return x.reshape(SHAPE)


def _shrink_courses(x, threshold):
    """Of each pixel: its matrix has one singular value, the norm of its course."""
    size = np.linalg.norm(x, axis=0, keepdims=True)
    return x * np.maximum(1 - threshold / np.maximum(size, 1e-30), 0)


def _shrink_rank(x, threshold):
    u, s, vh = np.linalg.svd(x, full_matrices=False)
    return (u * np.maximum(s - threshold, 0)) @ vh


@pytest.mark.parametrize("n_coils", [None, 3])
@pytest.mark.parametrize("block, shrink", [(1, _shrink_courses), (6, _shrink_rank)])
def test_the_minimum_is_reached(block, shrink, n_coils):
    kspace, mask, sens = problem(n_coils)
    weight = 0.05
    image = locally_low_rank(kspace, mask, sens, weight=weight, block=block, **CONVERGED)
    threshold = weight * float(data_scale(kspace, mask)) * (block + np.sqrt(SHAPE[0]))
    operator = reference.dense_operator(mask, sens)
    measured = np.asarray(kspace, np.complex128).ravel()
    expected = _minimum(operator, measured, threshold, shrink)
    start = zero_filled(kspace, mask, sens)
    assert np.linalg.norm(start - expected) > 0.1 * np.linalg.norm(expected)
    assert np.linalg.norm(image - expected) < 2e-3 * np.linalg.norm(expected)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_each_block_shrinks_by_itself(count):
    """Against a loop over the blocks of a grid, of an image that is no whole number of them."""
    t, h, w, block = 3, 7, 10, 4
    cine = np.asarray(complex_array(np.random.default_rng(count), t, h, w))
    down, right = (int(block * (count * move % 1)) for move in MOVES)
    moved = np.roll(np.pad(cine, ((0, 0), (0, 1), (0, 2))), (down, right), (1, 2))
    for y in range(0, 8, block):
        for x in range(0, 12, block):
            part = moved[:, y : y + block, x : x + block]
            part[:] = _shrink_rank(part.reshape(t, -1), 1.5).reshape(part.shape)
    expected = np.roll(moved, (-down, -right), (1, 2))[:, :h, :w]
    shrink = jax.jit(_shrink_blocks, static_argnums=2)
    result = shrink(jnp.asarray(cine), 1.5, block, jnp.asarray(count))
    np.testing.assert_allclose(result, expected, atol=2e-5)
    assert np.abs(result - cine).max() > 0.1


def test_the_grids_of_an_iteration_are_all_over_a_block():
    """So that no border between blocks stays in one place."""
    steps = np.arange(60)[:, None] * np.array(MOVES) % 1
    places = {tuple(place) for place in np.floor(8 * steps).astype(int).tolist()}
    assert len(places) > 40


def test_an_impossible_block_is_refused():
    kspace, mask, _ = problem()
    with pytest.raises(ValueError, match="expected block >= 1, got block=0"):
        locally_low_rank(kspace, mask, block=0)
