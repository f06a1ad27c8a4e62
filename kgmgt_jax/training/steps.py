"""One update of the generator and one of the critic, as pure functions of state and batch."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from kgmgt_jax.losses import (
    adversarial_loss,
    critic_loss,
    gradient_penalty,
    l1_loss,
    perceptual_loss,
    points_between,
)
from kgmgt_jax.metrics import psnr
from kgmgt_jax.models.critic import Critic
from kgmgt_jax.models.registry import Network
from kgmgt_jax.mri.fourier import to_channels
from kgmgt_jax.training.accumulation import gradient_by_parts, map_by_parts
from kgmgt_jax.training.state import NetworkState, TrainState
from kgmgt_jax.types import ComplexImage, Measurement, Reconstruction

__all__ = [
    "Batch",
    "GeneratorStep",
    "Step",
    "apply_model",
    "make_critic_step",
    "make_generator_step",
]

Batch = Mapping[str, Array]
Metrics = dict[str, Array]
Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
PerceptualFeatures = Callable[[ComplexImage], dict[str, Array]]
GeneratorStep = Callable[..., tuple[TrainState, Metrics]]  # of state, batch, PerceptualFeatures

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


def _update(
    network: NetworkState, grads: Any, model_state: Any, optimizer: optax.GradientTransformation
) -> NetworkState:
    updates, opt_state = optimizer.update(grads, network.opt_state, network.params)
    return NetworkState(optax.apply_updates(network.params, updates), model_state, opt_state)


def _score(critic: Critic, params: Any, model_state: Any, image: Array) -> tuple[Array, Any]:
    """Scores of the critic as in training, and its new model state."""
    variables = {"params": params, **model_state}
    scored: Any = critic.apply(variables, image, train=True, mutable=list(model_state))
    return scored


def _held(params: Mapping[str, Any], frozen: Sequence[str]) -> dict[str, Any]:
    """The parameters, those of the parts called ``frozen`` without gradient."""
    unknown = sorted(set(frozen) - set(params))
    if unknown:
        raise ValueError(f"frozen must name parts of the network {sorted(params)}, got {unknown}")
    return {k: jax.lax.stop_gradient(v) if k in frozen else v for k, v in params.items()}


def _perceptual(features: PerceptualFeatures, image: ComplexImage, reference: ComplexImage):
    """The perceptual loss, features of both images in one pass."""
    n = reference.shape[0]
    maps = features(jnp.concatenate([image, reference]))
    first, second = ({k: v[part] for k, v in maps.items()} for part in (slice(n), slice(n, None)))
    return perceptual_loss(first, second)


def make_generator_step(
    model: Network,
    critic: Critic | None,
    optimizer: optax.GradientTransformation,
    *,
    perceptual_weight: float,
    adversarial_weight: float,
    mentor_weight: float,
    ema_decay: float,
    frozen: Sequence[str] = (),
    n_parts: int = 1,
) -> GeneratorStep:
    """Builds the generator's step: ``L1 + a perceptual + b adversarial + c mentor L1``.

    The step takes perceptual features of a complex image by layer as well; without them that term
    is left out. They are an argument, since VGG19's weights in a closure would be constants of the
    compiled step. Of the critic, running statistics alone change, if it has any.

    Args:
        model: the network.
        critic: ``None`` leaves the adversarial term out.
        optimizer: the generator's.
        perceptual_weight: a.
        adversarial_weight: b.
        mentor_weight: c, weight of an L1 loss on the mentor's image.
        ema_decay: of the averaged parameters, warmed up as ``min(decay, (1 + k) / (10 + k))``.
        frozen: parts of the network that stay as they are, by their parameters' names.
        n_parts: into how many parts the batch is split to take its gradient.
    """

    def loss(
        judge: NetworkState | None,
        features: PerceptualFeatures | None,
        params: Any,
        model_states: tuple[Any, Any],
        key: Array,
        batch: Batch,
    ):
        model_state, judge_state = model_states
        variables = {"params": _held(params, frozen), **model_state}
        output, model_state = apply_model(model, variables, batch, key=key)
        reference = batch["reference"]
        terms = {"l1": l1_loss(output.image, reference)}
        total = terms["l1"]
        if mentor_weight:
            terms["mentor"] = l1_loss(output.mentor, reference)
            total += mentor_weight * terms["mentor"]
        if features is not None:
            terms["perceptual"] = _perceptual(features, output.image, reference)
            total += perceptual_weight * terms["perceptual"]
        if critic is not None and judge is not None:
            image = to_channels(output.image)
            score, judge_state = _score(critic, judge.params, judge_state, image)
            terms["adversarial"] = adversarial_loss(score)
            total += adversarial_weight * terms["adversarial"]
        magnitude = jnp.abs(reference)
        score = psnr(magnitude, jnp.abs(output.image), jnp.max(magnitude, axis=(1, 2)))
        metrics = {"loss": total, "psnr": jnp.mean(score), **terms}
        return total, (metrics, (model_state, judge_state))

    def step(
        state: TrainState, batch: Batch, features: PerceptualFeatures | None = None
    ) -> tuple[TrainState, Metrics]:
        old, judge = state.generator, state.critic
        model_states = old.model_state, {} if judge is None else judge.model_state
        gradient = gradient_by_parts(functools.partial(loss, judge, features), n_parts)
        grads, metrics, (model_state, judge_state) = gradient(
            old.params, model_states, state.step_key(_DROPOUT), batch
        )
        new = _update(old, grads, model_state, optimizer)
        # without gradient, but perhaps with moments of steps that trained them
        held = {name: old.params[name] for name in frozen}
        new = new.replace(params={**new.params, **held})
        count = state.step.astype(jnp.float32)
        decay = jnp.minimum(ema_decay, (1 + count) / (10 + count))
        mean = optax.incremental_update(new.params, state.ema_params, 1 - decay)
        judge = None if judge is None else judge.replace(model_state=judge_state)
        state = state.replace(step=state.step + 1, generator=new, critic=judge, ema_params=mean)
        return state, metrics | {"gradient_norm": optax.global_norm(grads)}

    return step


def make_critic_step(
    model: Network,
    critic: Critic,
    optimizer: optax.GradientTransformation,
    *,
    penalty_weight: float,
    n_updates: int = 1,
    n_parts: int = 1,
) -> Step:
    """Builds the critic's step: ``mean D(fake) - mean D(real) + c gradient penalty``.

    Several updates share a batch and its fakes, which cost more than all the updates; each draws
    its own points between the pairs for the penalty. The metrics are those of the last.

    Args:
        model: the network, whose reconstructions are the fakes.
        critic: D.
        optimizer: the critic's.
        penalty_weight: c.
        n_updates: of the critic, in one step.
        n_parts: into how many parts the batch is split, for the fakes and for every gradient.

    Deviation: Gulrajani et al. (2017) draw a batch for each of the updates.
    """

    def loss(params, model_state, _: Array, batch: Batch):
        score = functools.partial(_score, critic, params)
        pair = batch["real"], batch["fake"]
        real_score, model_state = score(model_state, pair[0])
        fake_score, model_state = score(model_state, pair[1])
        penalty = gradient_penalty(lambda z: score(model_state, z)[0], *pair, batch["alpha"])
        if model_state:  # which the penalty's pass changes, too
            _, model_state = score(model_state, points_between(*pair, batch["alpha"]))
        wasserstein = critic_loss(real_score, fake_score)
        total = wasserstein + penalty_weight * penalty
        metrics = {"critic": total, "wasserstein": -wasserstein, "penalty": penalty}
        return total, (metrics, model_state)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        if state.critic is None:
            raise ValueError("the state has no critic; create it with one")

        def reconstruct(key: Array, batch: Batch) -> Array:
            output, _ = apply_model(model, state.generator.variables, batch, key=key)
            return to_channels(output.image)

        fake = map_by_parts(reconstruct, n_parts)(state.step_key(_CRITIC_DROPOUT), batch)
        pair = {"real": to_channels(batch["reference"]), "fake": fake}

        def update(network: NetworkState, key: Array) -> tuple[NetworkState, Metrics]:
            alpha = jax.random.uniform(key, (fake.shape[0],))
            grads, metrics, model_state = gradient_by_parts(loss, n_parts)(
                network.params, network.model_state, key, pair | {"alpha": alpha}
            )
            return _update(network, grads, model_state, optimizer), metrics

        keys = jax.random.split(state.step_key(_PENALTY), n_updates)
        if n_updates == 1:
            network, metrics = update(state.critic, keys[0])
        else:
            network, all_metrics = jax.lax.scan(update, state.critic, keys)
            metrics = jax.tree.map(lambda m: m[-1], all_metrics)
        return state.replace(critic=network), metrics

    return step
