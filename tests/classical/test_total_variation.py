"""Total variation: the minimum of the objective, for one coil and several."""

import numpy as np
import pytest

from kgmgt_jax.classical import METHODS
from tests.classical import reference
from tests.classical.reference import CONVERGED, IDENTITY, SHAPE, data_scale, problem

WEIGHT = 0.05


def _temporal(circular=True):
    frames = reference.difference_matrix(SHAPE[0], circular)
    return reference.cine_matrix(frames, *IDENTITY[1:]), 1


def _spatial():
    rows, columns = (reference.difference_matrix(size) for size in SHAPE[1:])
    return np.concatenate(
        [
            reference.cine_matrix(IDENTITY[0], rows, IDENTITY[2]),
            reference.cine_matrix(*IDENTITY[:2], columns),
        ]
    ), 2


ANALYSES = {
    "temporal_tv": (_temporal, {}),
    "temporal_tv, open": (lambda: _temporal(False), {"circular": False}),
    "spatial_tv": (_spatial, {}),
}


@pytest.mark.parametrize(
    ("name", "n_coils"),
    [
        ("temporal_tv", None),
        ("temporal_tv", 3),
        ("temporal_tv, open", None),
        ("spatial_tv", None),
        ("spatial_tv", 3),
    ],
)
def test_total_variation_reaches_the_minimum(name, n_coils):
    (analysis, n_groups), options = ANALYSES[name][0](), ANALYSES[name][1]
    kspace, mask, sens = problem(n_coils)
    method = METHODS[name.split(",")[0]].reconstruct
    image = method(kspace, mask, sens, weight=WEIGHT, **CONVERGED, **options)
    operator = reference.dense_operator(mask, sens)
    measured = np.asarray(kspace, np.complex128).ravel()
    task = (operator, measured, analysis, WEIGHT * float(data_scale(kspace, mask)), n_groups)
    best = reference.objective(reference.minimise(*task), *task)
    assert best < reference.objective(0 * image, *task) / 3
    np.testing.assert_allclose(reference.objective(image, *task), best, rtol=2e-4)
