"""One update of generator and critic: what it changes, and that devices do not matter."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kgmgt_jax.models.critic import Critic
from kgmgt_jax.training import parallel
from kgmgt_jax.training.checkpoint import build_model
from kgmgt_jax.training.state import create_state, make_optimizer
from kgmgt_jax.training.steps import make_critic_step, make_generator_step
from tests.training.small import random_batch, small_config


@pytest.fixture(scope="module")
def setup():
    config = small_config()
    model, critic = build_model(config.model), Critic(**config.critic)
    optimizer = optax.sgd(1.0)  # updates are minus the gradients
    state = create_state(model, critic, optimizer, optimizer, seed=0)
    generator = make_generator_step(
        model,
        critic,
        optimizer,
        None,
        perceptual_weight=0.0,
        adversarial_weight=1e-2,
        mentor_weight=0.5,
        ema_decay=0.9,
    )
    critic_step = make_critic_step(model, critic, optimizer, penalty_weight=10.0)
    return state, generator, critic_step


def _run(setup, n_devices):
    state, generator, critic = setup
    mesh = parallel.make_mesh(n_devices)
    batch = parallel.put_batch(random_batch(4), mesh)
    state = parallel.replicate(jax.tree.map(jnp.copy, state), mesh)
    state, critic_metrics = parallel.jit_step(critic, mesh)(state, batch)
    state, metrics = parallel.jit_step(generator, mesh)(state, batch)
    return jax.device_get((state, metrics | critic_metrics))


@pytest.fixture(scope="module")
def results(setup):
    return {n: _run(setup, n) for n in (1, 4)}


@pytest.mark.parametrize("network", ["generator", "critic"])
def test_four_devices_take_the_step_of_one(setup, results, network):
    before = jax.tree.leaves(getattr(setup[0], network).params)
    one, four = (jax.tree.leaves(getattr(results[n][0], network).params) for n in (1, 4))
    gradients = [[b - a for a, b in zip(before, after, strict=True)] for after in (one, four)]
    norm = np.sqrt(sum(np.sum(g**2) for g in gradients[0]))
    error = np.sqrt(sum(np.sum((a - b) ** 2) for a, b in zip(*gradients, strict=True)))
    assert norm > 0
    assert error / norm < 1e-4


def test_losses_are_the_same_on_four_devices(results):
    for name, value in results[1][1].items():
        assert results[4][1][name] == pytest.approx(value, rel=1e-4), name


def test_generator_step_adds_its_terms(results):
    metrics = results[1][1]
    total = metrics["l1"] + 0.5 * metrics["mentor"] + 1e-2 * metrics["adversarial"]
    assert metrics["loss"] == pytest.approx(total, rel=1e-5)


def test_average_of_parameters_warms_up(setup, results):
    after = results[1][0]
    decay = 0.1  # (1 + 0) / (10 + 0)
    for start, end, mean in zip(
        jax.tree.leaves(setup[0].generator.params),
        jax.tree.leaves(after.generator.params),
        jax.tree.leaves(after.ema_params),
        strict=True,
    ):
        np.testing.assert_allclose(mean, decay * start + (1 - decay) * end, atol=1e-5)


def test_batch_must_divide_among_devices():
    with pytest.raises(ValueError, match="batch_size=6 n_devices=4"):
        parallel.check_batch_size(6, parallel.make_mesh(4))


def test_learning_rate_warms_up_and_decays():
    optimizer = make_optimizer(1e-2, n_steps=10, warmup=2)
    params = jnp.ones(())
    state, sizes = optimizer.init(params), []
    for _ in range(10):
        update, state = optimizer.update(jnp.ones(()), state, params)
        sizes.append(-float(update))
    assert sizes[0] == 0 and sizes[2] == pytest.approx(1e-2, rel=1e-3)
    assert sizes[-1] < 1e-3
