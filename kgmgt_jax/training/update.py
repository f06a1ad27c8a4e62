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
from kgmgt_jax.training.objectives import CriticLoss, GeneratorLoss, HeldOutLoss
from kgmgt_jax.training.optimizer import Optimizers
from kgmgt_jax.training.state import TrainState
from kgmgt_jax.training.steps import (
    Batch,
    GeneratorStep,
    Step,
    make_critic_step,
    make_generator_step,
    make_joint_step,
)

__all__ = ["make_joint", "make_steps", "make_update"]

_log = logging.getLogger(__name__)


def make_update(
    config: Any,
    model: Network,
    critic: Critic | None,
    optimizers: Optimizers,
    state: TrainState,
    mesh: Mesh,
) -> Step:
    """A critic step, where there is a critic, and a generator step, compiled.

    They are one program, but for a batch in parts, whose fakes must all be there for the critic
    before the generator's gradient of the first part is: then the critic's step makes its own.

    Args:
        config: the run's configuration.
        model: the network.
        critic: ``None`` to train without one.
        optimizers: of generator and critic.
        state: the state, or its shapes.
        mesh: the devices.
    """
    features = parallel.replicate(_perceptual_features(config.loss), mesh)
    if critic is not None and config.train.accumulation == 1:
        generator_step, critic_step = make_joint(config, model, critic, optimizers), None
    else:
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
    train = config.train
    generator_step = make_generator_step(
        model,
        _generator_loss(config, critic),
        optimizers[0],
        ema_decay=train.ema_decay,
        frozen=tuple(train.frozen),
        n_parts=train.accumulation,
    )
    if critic is None:
        return generator_step, None
    return generator_step, make_critic_step(
        model,
        CriticLoss(critic, config.loss.gradient_penalty),
        optimizers[1],
        n_updates=train.n_critic,
        n_parts=train.accumulation,
    )


def make_joint(
    config: Any, model: Network, critic: Critic, optimizers: Optimizers
) -> GeneratorStep:
    """Both steps in one, not compiled. Arguments as of ``make_update``."""
    return make_joint_step(
        model,
        (_generator_loss(config, critic), CriticLoss(critic, config.loss.gradient_penalty)),
        optimizers,
        ema_decay=config.train.ema_decay,
        frozen=tuple(config.train.frozen),
        n_updates=config.train.n_critic,
    )


def _generator_loss(config: Any, critic: Critic | None) -> GeneratorLoss | HeldOutLoss:
    loss = config.loss
    if config.data.held_out:
        return HeldOutLoss(loss.kspace.to_dict(), loss.mentor)
    image = loss.image.to_dict()
    return GeneratorLoss(critic, loss.perceptual, loss.adversarial, loss.mentor, image)


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
