"""The two steps of a configuration, and their alternation."""

import functools
import logging
from typing import Any

import jax
import optax
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
    PerceptualFeatures,
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

    def generator_step(state: TrainState, batch: Batch, features: PerceptualFeatures | None):
        """With VGG19's weights as an argument: constants are compiled, and stored, each time."""
        return _generator_step(config, model, critic, optimizers[0], features)(state, batch)

    generate = parallel.jit_step(generator_step, mesh, state, features)
    critic_step = _critic_step(config, model, critic, optimizers[1])
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
) -> tuple[Step, Step | None]:
    """The generator's step and the critic's, not compiled. Arguments as of ``make_update``."""
    features = _perceptual_features(config.loss)
    generator_step = _generator_step(config, model, critic, optimizers[0], features)
    return generator_step, _critic_step(config, model, critic, optimizers[1])


def _generator_step(
    config: Any,
    model: Network,
    critic: Critic | None,
    optimizer: optax.GradientTransformation,
    features: PerceptualFeatures | None,
) -> Step:
    loss, train = config.loss, config.train
    return make_generator_step(
        model,
        critic,
        optimizer,
        features,
        perceptual_weight=loss.perceptual,
        adversarial_weight=loss.adversarial,
        mentor_weight=loss.mentor,
        ema_decay=train.ema_decay,
        frozen=tuple(train.frozen),
        n_parts=train.accumulation,
    )


def _critic_step(
    config: Any,
    model: Network,
    critic: Critic | None,
    optimizer: optax.GradientTransformation,
) -> Step | None:
    if critic is None:
        return None
    return make_critic_step(
        model,
        critic,
        optimizer,
        penalty_weight=config.loss.gradient_penalty,
        n_updates=config.train.n_critic,
        n_parts=config.train.accumulation,
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
