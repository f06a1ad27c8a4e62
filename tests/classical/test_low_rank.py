"""L+S: the minimum of the objective, for one coil and several."""

import numpy as np
import pytest

from kgmgt_jax.classical import METHODS, low_rank_plus_sparse
from tests.classical import reference
from tests.classical.reference import CONVERGED, SHAPE, problem


def _low_rank_reference(operator, measured, low_rank_weight, sparse_weight, n_steps=500):
    """L and S, concatenated, by accelerated proximal gradients with restart."""
    frames, back = SHAPE[0], operator.conj().T
    fourier = np.fft.fft(np.eye(frames), norm="ortho")
    parts = momentum = np.zeros((2, frames, operator.shape[1] // frames), complex)
    t = 1.0
    for _ in range(n_steps):
        gradient = (back @ (operator @ momentum.sum(0).ravel() - measured)).reshape(frames, -1)
        low_rank, sparse = momentum - gradient / 2
        u, s, vh = np.linalg.svd(low_rank, full_matrices=False)
        low_rank = (u * np.maximum(s - low_rank_weight / 2, 0)) @ vh
        spectrum = fourier @ sparse
        size = np.maximum(np.abs(spectrum), 1e-30)
        sparse = fourier.conj().T @ (spectrum * np.maximum(1 - sparse_weight / 2 / size, 0))
        following = np.stack([low_rank, sparse])
        t_next = (1 + np.sqrt(1 + 4 * t * t)) / 2
        if np.vdot(momentum - following, following - parts).real > 0:
            t, t_next = 1.0, 1.0
        momentum = following + (t - 1) / t_next * (following - parts)
        parts, t = following, t_next
    return parts.sum(0).reshape(SHAPE)


@pytest.mark.parametrize("n_coils", [None, 3])
def test_low_rank_plus_sparse_reaches_the_minimum(n_coils):
    kspace, mask, sens = problem(n_coils)
    image = low_rank_plus_sparse(
        kspace, mask, sens, low_rank_weight=0.03, sparse_weight=0.05, **CONVERGED
    )
    filled = METHODS["temporal_average"].reconstruct(kspace, mask, sens)
    largest = np.linalg.norm(np.asarray(filled).reshape(SHAPE[0], -1), 2)
    peak = np.abs(METHODS["zero_filled"].reconstruct(kspace, mask, sens)).max()
    operator = reference.dense_operator(mask, sens)
    measured = np.asarray(kspace, np.complex128).ravel()
    expected = _low_rank_reference(operator, measured, 0.03 * largest, 0.05 * peak)
    assert np.linalg.norm(filled - expected) > 0.03 * np.linalg.norm(expected)
    assert np.linalg.norm(image - expected) < 2e-3 * np.linalg.norm(expected)
