"""What training carries from step to step, and how it begins."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, UInt32

from kgmgt_jax.models.critic import Critic
from kgmgt_jax.models.initialisation import initialise
from kgmgt_jax.models.registry import Network
from kgmgt_jax.types import Measurement

__all__ = ["NetworkState", "TrainState", "create_state", "example_inputs"]

# of random keys, whatever generator the process prefers: a run resumes where that is another, and
# draws the same on any number of devices
_GENERATOR = "threefry2x32"
_SMALL = 64  # parameters do not depend on the size of the image they are traced with


class NetworkState(struct.PyTreeNode):
    """One network and its optimiser.

    Attributes:
        params: trained parameters.
        model_state: other variables, batch norm's statistics; often empty.
        opt_state: the optimiser's.
    """

    params: Any
    model_state: Any
    opt_state: Any

    @property
    def variables(self) -> dict:
        """What ``module.apply`` takes."""
        return {"params": self.params, **self.model_state}


class TrainState(struct.PyTreeNode):
    """Everything that training resumes from.

    Attributes:
        step: generator updates done.
        generator: the network that reconstructs.
        critic: ``None`` without an adversarial loss.
        ema_params: running mean of the generator's parameters, used for evaluation.
        key: raw key data; step k draws from ``fold_in(key, k)``.
    """

    step: Array
    generator: NetworkState
    critic: NetworkState | None
    ema_params: Any
    key: UInt32[Array, "k"]

    @property
    def eval_variables(self) -> dict:
        """Variables to reconstruct with."""
        return {"params": self.ema_params, **self.generator.model_state}

    def step_key(self, stream: int) -> jax.Array:
        """The key of this step for one of several purposes."""
        key = jax.random.wrap_key_data(self.key, impl=_GENERATOR)
        return jax.random.fold_in(jax.random.fold_in(key, self.step), stream)


def _split(variables: dict, optimizer: optax.GradientTransformation) -> NetworkState:
    variables = jax.tree.map(jnp.asarray, variables)
    params = variables.pop("params")
    return NetworkState(params, variables, optimizer.init(params))


def example_inputs() -> tuple[Any, ...]:
    """Shapes of a batch of one single-coil triplet, by which networks are traced."""
    frame: Any = jax.ShapeDtypeStruct((1, _SMALL, _SMALL), np.complex64)
    kspace: Any = jax.ShapeDtypeStruct((1, 1, _SMALL, _SMALL), np.complex64)
    mask: Any = jax.ShapeDtypeStruct((1, _SMALL, _SMALL), np.float32)
    return frame, frame, frame, Measurement(kspace, mask)


def create_state(
    model: Network,
    critic: Critic | None,
    optimizer: optax.GradientTransformation,
    critic_optimizer: optax.GradientTransformation,
    *,
    seed: int,
) -> TrainState:
    """The state before the first step.

    Args:
        model: the generator.
        critic: ``None`` to train without one.
        optimizer: the generator's.
        critic_optimizer: the critic's.
        seed: of the parameters and of all randomness in the steps.
    """
    generator = _split(initialise(model, seed, *example_inputs()), optimizer)
    critic_state = None
    if critic is not None:
        image = jax.ShapeDtypeStruct((1, _SMALL, _SMALL, 2), np.float32)
        critic_state = _split(initialise(critic, seed + 1, image), critic_optimizer)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        generator=generator,
        critic=critic_state,
        ema_params=jax.tree.map(jnp.copy, generator.params),
        key=jax.random.key_data(jax.random.key(seed, impl=_GENERATOR)),
    )
