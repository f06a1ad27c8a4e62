"""MoDL: its size, one denoiser for all iterations, and what it can learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.modl import get_config
from kgmgt_jax.models.baselines.modl import MoDL
from kgmgt_jax.mri.consistency import cg_consistency
from kgmgt_jax.types import Measurement
from tests.models.baselines.fixtures import (
    influences,
    losses_by_heart,
    n_parameters,
    phantom,
    start,
)

SMALL = MoDL(n_iterations=3, n_cg=3, denoiser_channels=12)


def test_parameters_of_five_convolutions_and_lambda():
    assert n_parameters(get_config()) == 113_155


def test_weights_do_not_grow_with_the_iterations():
    assert jax.tree.map(jnp.shape, start(SMALL)) == jax.tree.map(
        jnp.shape, start(MoDL(n_iterations=1, n_cg=3, denoiser_channels=12))
    )


def test_without_a_denoiser_it_is_least_squares_from_the_last_estimate():
    batch, variables = phantom(), start(SMALL)
    last = variables["params"]["denoiser"]["conv4"]
    last.update(jax.tree.map(jnp.zeros_like, last))
    expected = 2 * batch["target"]  # which, unlike the target, the measurement contradicts
    measurement = (batch["kspace"], batch["mask"], None)
    image = SMALL.apply(variables, expected, expected, expected, Measurement(*measurement)).image
    for _ in range(3):
        expected = cg_consistency(expected, *measurement, 0.05, n_iterations=3)
    np.testing.assert_allclose(image, expected, atol=1e-6)


def test_sees_the_target_alone():
    target, preceding, succeeding = influences(SMALL)
    assert target > 0 and preceding == succeeding == 0


def test_learns_a_triplet_by_heart():
    before, after = losses_by_heart(SMALL, 120, 3e-3)
    assert after < 0.35 * before


def test_missing_measurement_is_refused():
    frame = phantom()["target"]
    with pytest.raises(ValueError, match="needs the measured k-space"):
        SMALL.apply(start(SMALL), frame, frame, frame)
