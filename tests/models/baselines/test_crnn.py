"""CRNN: its size, its recurrences, and what it can learn."""

import jax
import jax.numpy as jnp

from configs.crnn import get_config
from kgmgt_jax.models.baselines.crnn import CRNN
from kgmgt_jax.training.steps import apply_model
from tests.models.baselines.fixtures import (
    influences,
    losses_by_heart,
    lost_measurement,
    n_parameters,
    phantom,
    start,
)

SMALL = CRNN(n_iterations=3, channels=8)


def test_parameters_of_five_layers_and_ten_steps():
    recurrent = 9 * 2 * 64 + 64 + 2 * (9 * 64 * 64 + 64)
    others = 3 * 2 * (9 * 64 * 64 + 64) + 9 * 64 * 2 + 2
    assert n_parameters(get_config()) == recurrent + others + 10 == 297_804


def test_hard_consistency_keeps_the_measurement():
    assert lost_measurement(SMALL) < 1e-5


def test_sees_both_neighbours():
    assert all(influence > 0 for influence in influences(SMALL))


def test_neighbours_arrive_through_the_recurrence_over_time_alone():
    model = CRNN(n_iterations=1, channels=8)
    variables = start(model)
    for name in ("kernel", "bias"):
        variables["params"]["in_time"][name] *= 0
    batch = phantom()

    @jax.jit
    def image(preceding):
        return apply_model(model, variables, batch | {"preceding": preceding})[0].image

    assert bool(jnp.all(image(batch["preceding"]) == image(2 * batch["preceding"])))


def test_both_directions_keep_the_order_of_frames():
    model = CRNN(n_iterations=1, channels=8)
    variables = start(model)
    for name in ("kernel", "bias"):
        variables["params"]["in_time"][name] *= 0
    drive = jax.random.normal(jax.random.key(0), (1, 3, 4, 4, 8))
    both = model.apply(variables, drive, method="_over_time")
    assert bool(jnp.allclose(both, 2 * jax.nn.relu(drive)))  # without what another frame says


def test_remembers_the_last_iteration():
    variables, batch = start(SMALL), phantom()

    @jax.jit
    def image(scale):
        params = variables["params"]
        kernel = scale * params["in_iterations_0"]["kernel"]
        changed = params | {"in_iterations_0": params["in_iterations_0"] | {"kernel": kernel}}
        return apply_model(SMALL, {"params": changed}, batch)[0].image

    assert float(jnp.max(jnp.abs(image(1.0) - image(0.0)))) > 1e-6


def test_learns_a_triplet_by_heart():
    before, after = losses_by_heart(SMALL, 120, 3e-3)
    assert after < 0.35 * before
