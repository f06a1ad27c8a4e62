"""Schedules and learning rates by group, against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.kgmgt import get_config
from kgmgt_jax.interop.torch_names import generator_entries
from kgmgt_jax.training.optimizer import (
    make_optimizer,
    make_optimizers,
    make_schedule,
    offset_scale,
)


def test_warm_up_is_linear_and_then_the_rate_is_constant():
    schedule = make_schedule(2.0, n_steps=100, schedule="constant", warmup=4)
    assert [float(schedule(k)) for k in (0, 1, 2, 4, 99)] == [0, 0.5, 1, 2, 2]


def test_cosine_ends_at_a_hundredth():
    schedule = make_schedule(1.0, n_steps=110, schedule="cosine", warmup=10)
    halfway = (1 + 0.01) / 2
    got = [float(schedule(k)) for k in (5, 10, 60, 110, 200)]
    assert got == pytest.approx([0.5, 1, halfway, 0.01, 0.01], abs=1e-6)


def test_multistep_falls_at_its_milestones():
    schedule = make_schedule(
        1.0, n_steps=100, schedule="multistep", warmup=10, milestones=(0.5, 0.8), decay=0.1
    )
    got = [float(schedule(k)) for k in (10, 49, 51, 79, 81)]
    assert got == pytest.approx([1, 1, 0.1, 0.1, 0.01])


@pytest.mark.parametrize(("n_steps", "told"), [(20, True), (21, False)])
def test_a_warm_up_as_long_as_the_run_is_told(caplog, n_steps, told):
    config = get_config("base")
    config.train.n_steps, config.optimizer.warmup = n_steps, 20
    make_optimizers(config)
    assert ("the rate does not reach learning_rate" in caplog.text) == told


def test_milestones_that_round_to_one_step_both_count():
    schedule = make_schedule(
        1.0, n_steps=10, schedule="multistep", warmup=0, milestones=(0.5, 0.54), decay=0.1
    )
    assert [float(schedule(k)) for k in (4, 6)] == pytest.approx([1, 0.01])


def test_unknown_schedule_is_refused():
    with pytest.raises(ValueError, match=r"constant.*got 'linear'"):
        make_schedule(1.0, n_steps=1, schedule="linear")


def _updates(optimizer, params, gradient, n=1):
    state, updates = optimizer.init(params), None
    for _ in range(n):
        updates, state = optimizer.update(gradient, state, params)
    return updates


def test_adam_s_first_step_is_the_rate_whatever_the_gradient():
    optimizer = make_optimizer(1e-4, n_steps=10, schedule="constant")
    updates = _updates(optimizer, jnp.zeros(2), jnp.array([3.0, -1e-3]))
    np.testing.assert_allclose(updates, [-1e-4, 1e-4], rtol=1e-4)


def test_adam_forgets_gradients_in_ten_steps_and_squares_in_a_thousand():
    """One gradient of 1 and 20 of 0, with both means corrected for their start at 0."""
    optimizer = make_optimizer(1e-4, n_steps=100, schedule="constant")
    params, state = jnp.zeros(()), optimizer.init(jnp.zeros(()))
    updates, state = optimizer.update(jnp.ones(()), state, params)
    for _ in range(20):
        updates, state = optimizer.update(jnp.zeros(()), state, params)
    mean = 0.1 * 0.9**20 / (1 - 0.9**21)
    square = 0.001 * 0.999**20 / (1 - 0.999**21)
    assert float(updates) == pytest.approx(-1e-4 * mean / square**0.5, rel=1e-3)


def test_clipping_bounds_the_norm_of_the_whole_gradient():
    """Adam forgets a constant factor, but not one step's: 1 then 100 clipped to 1 is 1 and 1."""
    params, rate = {"a": jnp.zeros(()), "b": jnp.zeros(())}, 1e-3
    small, large = {"a": 0.6, "b": 0.8}, {"a": 60.0, "b": 80.0}
    optimizer = make_optimizer(rate, n_steps=10, schedule="constant", clip_norm=1.0)
    state = optimizer.init(params)
    for gradient in (small, large):
        updates, state = optimizer.update(jax.tree.map(jnp.asarray, gradient), state, params)
        assert float(updates["a"]) == pytest.approx(-rate, rel=1e-4)


def test_groups_are_those_of_the_released_names():
    """There, "offset" in a parameter's name makes the difference, and the scale in it."""
    scales = {"large": 0, "medium": 1, "small": 2}
    found = set()
    for entry in generator_entries():
        path = tuple(jax.tree_util.DictKey(name) for name in entry.path)
        named = [scales[s] for s in scales if s in entry.key] if "offset" in entry.key else [None]
        assert [offset_scale(path)] == named, entry.key
        found.add(named[0])
    assert found == {None, 0, 1, 2}


def test_updates_scale_by_group():
    optimizer, critic = make_optimizers(get_config("released"))
    unit = {"conv_offset_mask": jnp.ones(()), "fuse": jnp.ones(())}
    stages = ("down_large", "up_medium", "up_small")
    params = {"mentor_net": {"unet": {stage: unit for stage in stages}}}
    updates = _updates(optimizer, params, params)["mentor_net"]["unet"]
    offsets = [-float(updates[stage]["conv_offset_mask"]) for stage in stages]
    assert offsets == pytest.approx([1e-3, 1e-5, 1e-6], rel=1e-4)
    assert [float(updates[stage]["fuse"]) for stage in stages] == pytest.approx(
        [-1e-3] * 3, rel=1e-4
    )
    assert float(_updates(critic, jnp.zeros(()), jnp.ones(()))) == pytest.approx(-1e-4, rel=1e-4)


def test_released_rates_fall_to_a_tenth_at_four_fifths():
    config = get_config("released")
    config.train.n_steps = 10
    for optimizer, rate in zip(make_optimizers(config), (1e-3, 1e-4), strict=True):
        before, after = (_updates(optimizer, jnp.zeros(()), jnp.ones(()), n) for n in (8, 10))
        assert [float(before), float(after)] == pytest.approx([-rate, -rate / 10], rel=1e-3)


def test_critic_s_schedule_counts_its_own_updates():
    config = get_config("base")
    config.train.update(n_steps=5, n_critic=4)
    _, critic = make_optimizers(config)
    last, beyond = (_updates(critic, jnp.zeros(()), jnp.ones(()), n) for n in (11, 21))
    assert float(last) == pytest.approx(-1e-4 * (1 + 0.01) / 2, rel=1e-3)
    assert float(beyond) == pytest.approx(-1e-6, rel=1e-3)
