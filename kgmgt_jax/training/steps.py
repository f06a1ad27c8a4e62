"""One update of the generator and one of the critic, as pure functions of state and batch.

By themselves each reconstructs the batch; together they share one reconstruction.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from kgmgt_jax.models.registry import Network
from kgmgt_jax.mri.fourier import to_channels
from kgmgt_jax.training.accumulation import gradient_by_parts, map_by_parts
from kgmgt_jax.training.objectives import (
    Batch,
    CriticLoss,
    GeneratorLoss,
    HeldOutLoss,
    Metrics,
    PerceptualFeatures,
)
from kgmgt_jax.training.state import NetworkState, TrainState
from kgmgt_jax.types import Measurement, Reconstruction

__all__ = [
    "Batch",
    "GeneratorStep",
    "Step",
    "apply_model",
    "make_critic_step",
    "make_generator_step",
    "make_joint_step",
]

Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
GeneratorStep = Callable[..., tuple[TrainState, Metrics]]  # of state, batch, PerceptualFeatures
CriticUpdates = Callable[[NetworkState, Batch, jax.Array], tuple[NetworkState, Metrics]]

_DROPOUT, _PENALTY, _CRITIC_DROPOUT = range(3)  # streams of a step's randomness


def apply_model(
    model: Network, variables: Mapping[str, Any], batch: Batch, *, key: jax.Array | None = None
) -> tuple[Reconstruction, dict]:
    """Reconstructs a batch; with ``key`` as in training, returning the changed model state.

    Args:
        model: the network.
        variables: its variables.
        batch: ``target``, ``preceding``, ``succeeding`` (b h w), ``kspace`` (b n h w), ``mask``
            (b h w), and ``sens`` (b n h w) for several coils.
        key: randomness of stochastic depth; ``None`` for inference.
    """
    measurement = Measurement(batch["kspace"], batch["mask"], batch.get("sens"))
    frames = (batch["target"], batch["preceding"], batch["succeeding"])
    if key is None:
        output: Any = model.apply(variables, *frames, measurement)
        return output, {}
    rest = [name for name in variables if name != "params"]
    changed: Any = model.apply(
        variables, *frames, measurement, train=True, rngs={"dropout": key}, mutable=rest
    )
    return changed


def _apply_gradient(
    network: NetworkState, grads: Any, model_state: Any, optimizer: optax.GradientTransformation
) -> NetworkState:
    updates, opt_state = optimizer.update(grads, network.opt_state, network.params)
    return NetworkState(optax.apply_updates(network.params, updates), model_state, opt_state)


def _held(params: Mapping[str, Any], frozen: Sequence[str]) -> dict[str, Any]:
    """The parameters, those of the parts called ``frozen`` without gradient."""
    unknown = sorted(set(frozen) - set(params))
    if unknown:
        raise ValueError(f"frozen must name parts of the network {sorted(params)}, got {unknown}")
    return {k: jax.lax.stop_gradient(v) if k in frozen else v for k, v in params.items()}


def make_generator_step(
    model: Network,
    loss: GeneratorLoss | HeldOutLoss,
    optimizer: optax.GradientTransformation,
    *,
    ema_decay: float,
    frozen: Sequence[str] = (),
    n_parts: int = 1,
) -> GeneratorStep:
    """Builds the generator's step.

    The step takes perceptual features of a complex image by layer as well; without them that term
    is left out. They are an argument, since VGG19's weights in a closure would be constants of the
    compiled step. Of the critic, running statistics alone change, if it has any.

    Args:
        model: the network.
        loss: what it is trained for.
        optimizer: the generator's.
        ema_decay: of the averaged parameters, warmed up as ``min(decay, (1 + k) / (10 + k))``.
        frozen: parts of the network that stay as they are, by their parameters' names.
        n_parts: into how many parts the batch is split to take its gradient.
    """

    def step(
        state: TrainState, batch: Batch, features: PerceptualFeatures | None = None
    ) -> tuple[TrainState, Metrics]:
        judge, judge_state = _judge(state.critic)

        def of_part(params: Any, model_states: tuple[Any, Any], key: Array, batch: Batch):
            model_state, judge_state = model_states
            variables = {"params": _held(params, frozen), **model_state}
            output, model_state = apply_model(model, variables, batch, key=key)
            judged = judge, judge_state
            total, (metrics, judge_state) = loss(output, batch, judged, features)
            return total, (metrics, (model_state, judge_state))

        model_states = state.generator.model_state, judge_state
        grads, metrics, model_states = gradient_by_parts(of_part, n_parts)(
            state.generator.params, model_states, state.step_key(_DROPOUT), batch
        )
        state = _after_generator(state, grads, model_states, optimizer, frozen, ema_decay)
        return state, metrics | {"gradient_norm": optax.global_norm(grads)}

    return step


def _judge(critic: NetworkState | None) -> tuple[Any, Any]:
    return (None, {}) if critic is None else (critic.params, critic.model_state)


def _after_generator(
    state: TrainState,
    grads: Any,
    model_states: tuple[Any, Any],
    optimizer: optax.GradientTransformation,
    frozen: Sequence[str],
    ema_decay: float,
) -> TrainState:
    """The state after the generator's gradient, with new states of generator and critic."""
    old, (model_state, judge_state) = state.generator, model_states
    new = _apply_gradient(old, grads, model_state, optimizer)

    def held(new: Any, old: Any) -> dict[str, Any]:
        return {**new, **{name: old[name] for name in frozen if name in old}}

    # without gradient, but perhaps with moments of steps that trained them, or running statistics
    model_state = {name: held(part, old.model_state[name]) for name, part in model_state.items()}
    new = new.replace(params=held(new.params, old.params), model_state=model_state)
    count = state.step.astype(jnp.float32)
    decay = jnp.minimum(ema_decay, (1 + count) / (10 + count))
    mean = optax.incremental_update(new.params, state.ema_params, 1 - decay)
    judge = None if state.critic is None else state.critic.replace(model_state=judge_state)
    return state.replace(step=state.step + 1, generator=new, critic=judge, ema_params=mean)


def make_critic_step(
    model: Network,
    loss: CriticLoss,
    optimizer: optax.GradientTransformation,
    *,
    n_updates: int = 1,
    n_parts: int = 1,
) -> Step:
    """Builds the critic's step.

    Several updates share a batch and its fakes, which cost more than all the updates; each draws
    its own points between the pairs for the penalty. The metrics are those of the last.

    Args:
        model: the network, whose reconstructions are the fakes.
        loss: what the critic is trained for.
        optimizer: the critic's.
        n_updates: of the critic, in one step.
        n_parts: into how many parts the batch is split, for the fakes and for every gradient.

    Deviation: Gulrajani et al. (2017) draw a batch for each of the updates.
    """
    updates = _critic_updates(loss, optimizer, n_updates, n_parts)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        if state.critic is None:
            raise ValueError("the state has no critic; create it with one")

        def reconstruct(key: Array, batch: Batch) -> Array:
            output, _ = apply_model(model, state.generator.variables, batch, key=key)
            return to_channels(output.image)

        fake = map_by_parts(reconstruct, n_parts)(state.step_key(_CRITIC_DROPOUT), batch)
        pair = {"real": to_channels(batch["reference"]), "fake": fake}
        network, metrics = updates(state.critic, pair, state.step_key(_PENALTY))
        return state.replace(critic=network), metrics

    return step


def _critic_updates(
    loss: CriticLoss, optimizer: optax.GradientTransformation, n_updates: int, n_parts: int = 1
) -> CriticUpdates:
    """Updates of a critic on pairs of images, ``real`` and ``fake``."""
    gradient = gradient_by_parts(loss, n_parts)

    def updates(network: NetworkState, pair: Batch, key: Array) -> tuple[NetworkState, Metrics]:
        def update(network: NetworkState, key: Array) -> tuple[NetworkState, Metrics]:
            alpha = jax.random.uniform(key, pair["fake"].shape[:1], pair["fake"].dtype)
            grads, metrics, model_state = gradient(
                network.params, network.model_state, key, {**pair, "alpha": alpha}
            )
            return _apply_gradient(network, grads, model_state, optimizer), metrics

        keys = jax.random.split(key, n_updates)
        if n_updates == 1:
            return update(network, keys[0])
        network, metrics = jax.lax.scan(update, network, keys)
        return network, jax.tree.map(lambda m: m[-1], metrics)

    return updates


def make_joint_step(
    model: Network,
    losses: tuple[GeneratorLoss | HeldOutLoss, CriticLoss],
    optimizers: tuple[optax.GradientTransformation, optax.GradientTransformation],
    *,
    ema_decay: float,
    frozen: Sequence[str] = (),
    n_updates: int = 1,
) -> GeneratorStep:
    """Builds a step of the critic and then one of the generator, which reconstruct a batch once.

    What ``make_critic_step`` and then ``make_generator_step`` do, but that the fakes are the very
    images that the generator is updated for, with the same stochastic depth.

    Args:
        model: the network.
        losses: what generator and critic are trained for.
        optimizers: theirs.
        ema_decay, frozen: as of ``make_generator_step``.
        n_updates: of the critic, in one step.
    """
    loss, updates = losses[0], _critic_updates(losses[1], optimizers[1], n_updates)

    def step(
        state: TrainState, batch: Batch, features: PerceptualFeatures | None = None
    ) -> tuple[TrainState, Metrics]:
        if state.critic is None:
            raise ValueError("the state has no critic; create it with one")

        def reconstruct(params: Any) -> tuple[Reconstruction, Any]:
            variables = {"params": _held(params, frozen), **state.generator.model_state}
            return apply_model(model, variables, batch, key=state.step_key(_DROPOUT))

        output, pull_back, model_state = jax.vjp(reconstruct, state.generator.params, has_aux=True)
        pair = {"real": to_channels(batch["reference"]), "fake": to_channels(output.image)}
        critic, critic_metrics = updates(state.critic, pair, state.step_key(_PENALTY))
        g_output, (metrics, judge_state) = jax.grad(loss, has_aux=True)(
            output, batch, _judge(critic), features
        )
        (grads,) = pull_back(g_output)
        state = state.replace(critic=critic)
        model_states = model_state, judge_state
        state = _after_generator(state, grads, model_states, optimizers[0], frozen, ema_decay)
        return state, metrics | {"gradient_norm": optax.global_norm(grads)} | critic_metrics

    return step
