"""k-t FOCUSS against weighted least squares with dense matrices."""

import numpy as np
import pytest

from kgmgt_jax.classical import METHODS, kt_focuss
from tests.classical import reference
from tests.classical.reference import IDENTITY, SHAPE, problem


@pytest.mark.parametrize("n_coils", [None, 3])
def test_kt_focuss_is_repeated_weighted_least_squares(n_coils):
    kspace, mask, sens = problem(n_coils)
    options = {"max_iterations": 2, "tolerance": 0.0, "cg_tolerance": 1e-6}
    image = kt_focuss(kspace, mask, sens, weight=0.1, max_cg_iterations=200, **options)
    operator = reference.dense_operator(mask, sens)
    fourier = reference.cine_matrix(np.fft.fft(np.eye(SHAPE[0]), norm="ortho"), *IDENTITY[1:])
    k, m = np.asarray(kspace, np.complex128), np.asarray(mask)[:, None]
    mean = (k.sum(0) / np.maximum(m.sum(0), 1)).astype(np.complex64)
    coils = np.asarray(METHODS["zero_filled"].reconstruct(mean[None], 0 * mask[:1] + 1, sens))
    baseline = np.broadcast_to(coils, SHAPE).ravel()
    unexplained = k.ravel() - operator @ baseline
    system = operator @ fourier.conj().T
    solution = system.conj().T @ unexplained
    for _ in range(2):
        weights = np.sqrt(np.abs(solution) / np.abs(solution).max())
        weighted = system * weights
        gram = weighted.conj().T @ weighted + 0.1 * np.eye(len(weights))
        solution = weights * np.linalg.solve(gram, weighted.conj().T @ unexplained)
    expected = (baseline + fourier.conj().T @ solution).reshape(SHAPE)
    change = np.linalg.norm(expected - baseline.reshape(SHAPE))
    assert np.linalg.norm(image - expected) < 0.01 * change


@pytest.mark.parametrize("name", ["power", "cg_tolerance"])
def test_a_negative_power_or_tolerance_is_refused(name):
    kspace, mask, sens = problem()
    with pytest.raises(ValueError, match=f"expected {name} >= 0"):
        kt_focuss(kspace, mask, sens, **{name: -0.5})
