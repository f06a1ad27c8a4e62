"""The compiled update: what it is made of, and how it takes a batch."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.interop.state_files import write_state_dict
from kgmgt_jax.interop.vgg import load_vgg19
from kgmgt_jax.losses import perceptual_loss
from kgmgt_jax.models.encoder import vgg19_features
from kgmgt_jax.training import parallel
from kgmgt_jax.training.state import create_state
from kgmgt_jax.training.steps import apply_model
from kgmgt_jax.training.update import _perceptual_features, make_steps, make_update
from tests.training.small import random_batch
from tests.training.toy import Convolution, Score, sgd, toy_config

BATCH = random_batch(4)


def test_weights_of_vgg19_are_no_constants_of_the_compiled_step(tmp_path, monkeypatch):
    rng, arrays = np.random.default_rng(0), {}
    for name, n_in, n_out in (("conv1_1", 3, 64), ("conv1_2", 64, 64), ("conv2_1", 64, 128)):
        arrays[f"{name}.weight"] = 0.1 * rng.standard_normal((n_out, n_in, 3, 3), np.float32)
        arrays[f"{name}.bias"] = np.zeros(n_out, np.float32)
    path = str(write_state_dict(tmp_path / "vgg.npz", arrays))
    config, model, mesh = toy_config(), Convolution(), parallel.make_mesh(1)
    layers = ("relu1_1", "relu2_1")
    config.loss.update(vgg19=path, perceptual=0.3, perceptual_layers=layers, adversarial=0.0)
    state = create_state(model, None, sgd(), sgd(), seed=0)
    jit_step = mock.Mock(side_effect=parallel.jit_step)
    monkeypatch.setattr(parallel, "jit_step", jit_step)
    update = make_update(config, model, None, (sgd(), sgd()), state, mesh)
    step, _, _, *weights = jit_step.call_args.args
    compiled_in = jax.make_jaxpr(step)(state, BATCH, *weights).consts
    assert sum(map(np.size, compiled_in)) < 100 < sum(map(np.size, jax.tree.leaves(weights)))
    _, metrics = update(parallel.replicate(state, mesh), BATCH)
    output, _ = apply_model(model, state.generator.variables, BATCH)
    vgg19 = functools.partial(vgg19_features, load_vgg19(path, last="conv2_1"), layers=layers)
    expected = perceptual_loss(vgg19(output.image), vgg19(jnp.asarray(BATCH["reference"])))
    assert float(metrics["perceptual"]) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize(("weight", "said"), [(1e-4, True), (0.0, False)])
def test_perceptual_loss_without_weights_is_off_and_says_so(caplog, weight, said):
    config = toy_config()
    config.loss.update(vgg19="", perceptual=weight)
    assert _perceptual_features(config.loss) is None
    assert ("perceptual loss off: set config.loss.vgg19" in caplog.text) == said


def test_update_takes_a_batch_in_parts_one_part_after_the_other():
    """Batch norm tells: it sees each part of the batch by itself."""
    config, mesh = toy_config(accumulation=2), parallel.make_mesh(1)
    networks = Convolution(norm=True), Score()
    state = create_state(*networks, sgd(), sgd(), seed=0)
    update = make_update(config, *networks, (sgd(), sgd()), state, mesh)
    got, _ = update(parallel.replicate(state, mesh), parallel.put_batch(BATCH, mesh))
    generator_step, critic_step = make_steps(config, *networks, (sgd(), sgd()))
    want, _ = jax.jit(critic_step)(state, BATCH)
    want, _ = jax.jit(generator_step)(want, BATCH)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, got.generator.model_state, want.generator.model_state)
    jax.tree.map(close, got.critic.params, want.critic.params)
