"""The two steps of a configuration, and their alternation."""

import functools
import logging
from typing import Any

import jax
from jax.sharding import Mesh
from jax.tree_util import Partial

from kgmgt_jax.interop.vgg import load_vgg19
from kgmgt_jax.models.critic import Critic
from kgmgt_jax.models.encoder import deepest, vgg19_features
from kgmgt_jax.models.registry import Network
from kgmgt_jax.training import parallel
from kgmgt_jax.training.optimizer import Optimizers
from kgmgt_jax.training.state import TrainState
from kgmgt_jax.training.steps import (
    Batch,
    GeneratorStep,
    Step,
    make_critic_step,
    make_generator_step,
)

__all__ = ["make_steps", "make_update"]

_log = logging.getLogger(__name__)


def make_update(
    config: Any,
    model: Network,
    critic: Critic | None,
    optimizers: Optimizers,
    state: TrainState,
    mesh: Mesh,
) -> Step:
    """A critic step, where there is a critic, then a generator step, both compiled.

    Args:
        config: the run's configuration.
        model: the network.
        critic: ``None`` to train without one.
        optimizers: of generator and critic.
        state: the state, or its shapes.
        mesh: the devices.
    """
    features = parallel.replicate(_perceptual_features(config.loss), mesh)
    generator_step, critic_step = make_steps(config, model, critic, optimizers)
    generate = parallel.jit_step(generator_step, mesh, state, features)
    criticise = None if critic_step is None else parallel.jit_step(critic_step, mesh, state)

    def update(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        critic_metrics = {}
        if criticise is not None:
            state, critic_metrics = criticise(state, batch)
        state, metrics = generate(state, batch, features)
        return state, metrics | critic_metrics

    return update


def make_steps(
    config: Any, model: Network, critic: Critic | None, optimizers: Optimizers
) -> tuple[GeneratorStep, Step | None]:
    """The generator's step and the critic's, not compiled. Arguments as of ``make_update``."""
    loss, train = config.loss, config.train
    generator_step = make_generator_step(
        model,
        critic,
        optimizers[0],
        perceptual_weight=loss.perceptual,
        adversarial_weight=loss.adversarial,
        mentor_weight=loss.mentor,
        ema_decay=train.ema_decay,
        frozen=tuple(train.frozen),
        n_parts=train.accumulation,
    )
    if critic is None:
        return generator_step, None
    return generator_step, make_critic_step(
        model,
        critic,
        optimizers[1],
        penalty_weight=loss.gradient_penalty,
        n_updates=train.n_critic,
        n_parts=train.accumulation,
    )


def _perceptual_features(loss: Any) -> Partial | None:
    """VGG19 as a function of images that is a tree of its weights, too."""
    if not loss.perceptual:
        return None
    if not loss.vgg19:
        _log.warning(
            "perceptual loss off: set config.loss.vgg19 to a file with VGG19 weights "
            "(nothing is downloaded), or config.loss.perceptual=0.0 to silence this"
        )
        return None
    layers = tuple(loss.perceptual_layers)
    variables = load_vgg19(loss.vgg19, last=deepest(layers))
    return Partial(functools.partial(vgg19_features, layers=layers), variables)
