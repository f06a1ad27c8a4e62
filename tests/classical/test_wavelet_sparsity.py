"""Wavelets: the minimum of the objective over shifted grids."""

import numpy as np
import pytest

from kgmgt_jax.classical.wavelet_sparsity import shifts, wavelet
from tests.classical import reference
from tests.classical.reference import CONVERGED, data_scale, problem

WEIGHT = 0.05


def test_wavelet_reaches_the_minimum():
    shape = (1, 9, 8)  # the smallest images that have a level
    kspace, mask, sens = problem(None, shape)
    image = wavelet(kspace, mask, sens, weight=WEIGHT, n_levels=1, n_shifts=2, **CONVERGED)
    grids = [
        np.kron(np.roll(np.eye(9), rows, 0), np.roll(np.eye(8), columns, 0))
        for rows, columns in shifts(1, 2)
    ]
    transform = np.kron(reference.wavelet_matrix(9), reference.wavelet_matrix(8))
    analysis = np.concatenate([transform @ grid for grid in grids]) / 2
    operator = reference.dense_operator(mask, sens)
    measured = np.asarray(kspace, np.complex128).ravel()
    task = (operator, measured, analysis, WEIGHT * float(data_scale(kspace, mask)))
    best = reference.objective(reference.minimise(*task), *task)
    assert best < reference.objective(0 * image, *task) / 3
    np.testing.assert_allclose(reference.objective(image, *task), best, rtol=2e-4)


def test_shifts_visit_every_row_and_column_of_the_grid_once():
    assert shifts(2, 4) == ((0, 0), (1, 3), (2, 2), (3, 1))
    rows, columns = zip(*shifts(4, 16), strict=True)
    assert sorted(rows) == sorted(columns) == list(range(16))


def test_wavelet_needs_a_level_and_a_shift():
    kspace, mask, _ = problem()
    with pytest.raises(ValueError, match="n_shifts=0"):
        wavelet(kspace, mask, n_shifts=0)
