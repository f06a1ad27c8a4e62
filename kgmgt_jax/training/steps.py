"""One update of the generator and one of the critic, as pure functions of state and batch."""

from collections.abc import Callable, Mapping
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
)
from kgmgt_jax.metrics import psnr
from kgmgt_jax.models.critic import Critic
from kgmgt_jax.models.kgmgt import KGMgT, Reconstruction
from kgmgt_jax.mri.fourier import to_channels
from kgmgt_jax.training.state import TrainState
from kgmgt_jax.types import ComplexImage, Measurement

__all__ = ["Batch", "Step", "apply_model", "make_critic_step", "make_generator_step"]

Batch = Mapping[str, Array]
Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]
PerceptualFeatures = Callable[[ComplexImage], dict[str, Array]]

_DROPOUT, _PENALTY, _CRITIC_DROPOUT = range(3)  # streams of a step's randomness


def apply_model(
    model: KGMgT, variables: Mapping[str, Any], batch: Batch, *, key: jax.Array | None = None
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


def make_generator_step(
    model: KGMgT,
    critic: Critic | None,
    optimizer: optax.GradientTransformation,
    features: PerceptualFeatures | None,
    *,
    perceptual_weight: float,
    adversarial_weight: float,
    mentor_weight: float,
    ema_decay: float,
) -> Step:
    """Builds the generator's step: ``L1 + a perceptual + b adversarial + c mentor L1``.

    Args:
        model: mentor and learner.
        critic: ``None`` leaves the adversarial term out.
        optimizer: the generator's.
        features: perceptual features of a complex image by layer; ``None`` leaves that term out.
        perceptual_weight: a.
        adversarial_weight: b.
        mentor_weight: c, weight of an L1 loss on the mentor's image.
        ema_decay: of the averaged parameters, warmed up as ``min(decay, (1 + k) / (10 + k))``.
    """

    def loss_terms(params, state: TrainState, batch: Batch):
        variables = {"params": params, **state.generator.model_state}
        output, model_state = apply_model(model, variables, batch, key=state.step_key(_DROPOUT))
        reference = batch["reference"]
        terms = {"l1": l1_loss(output.image, reference)}
        total = terms["l1"]
        if mentor_weight:
            terms["mentor"] = l1_loss(output.mentor, reference)
            total += mentor_weight * terms["mentor"]
        if features is not None:
            both = jnp.concatenate([output.image, jax.lax.stop_gradient(reference)])
            maps = features(both)
            n = reference.shape[0]
            terms["perceptual"] = perceptual_loss(
                {k: v[:n] for k, v in maps.items()}, {k: v[n:] for k, v in maps.items()}
            )
            total += perceptual_weight * terms["perceptual"]
        if critic is not None and state.critic is not None:
            score: Any = critic.apply(state.critic.variables, to_channels(output.image))
            terms["adversarial"] = adversarial_loss(score)
            total += adversarial_weight * terms["adversarial"]
        return total, (terms, output.image, model_state)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        gradient = jax.value_and_grad(loss_terms, has_aux=True)
        old = state.generator
        (total, (terms, image, model_state)), grads = gradient(old.params, state, batch)
        updates, opt_state = optimizer.update(grads, old.opt_state, old.params)
        params = optax.apply_updates(old.params, updates)
        count = state.step.astype(jnp.float32)
        decay = jnp.minimum(ema_decay, (1 + count) / (10 + count))
        state = state.replace(
            step=state.step + 1,
            generator=old.replace(params=params, model_state=model_state, opt_state=opt_state),
            ema_params=optax.incremental_update(params, state.ema_params, 1 - decay),
        )
        reference = jnp.abs(batch["reference"])
        score = psnr(reference, jnp.abs(image), jnp.max(reference, axis=(1, 2)))
        metrics = {"loss": total, "psnr": jnp.mean(score), **terms}
        return state, metrics | {"gradient_norm": optax.global_norm(grads)}

    return step


def make_critic_step(
    model: KGMgT,
    critic: Critic,
    optimizer: optax.GradientTransformation,
    *,
    penalty_weight: float,
) -> Step:
    """Builds the critic's step: ``mean D(fake) - mean D(real) + c gradient penalty``.

    Args:
        model: mentor and learner, whose reconstructions are the fakes.
        critic: D.
        optimizer: the critic's.
        penalty_weight: c.
    """

    def loss(params, model_state, key: Array, real: Array, fake: Array):
        def score(image):
            variables = {"params": params, **model_state}
            output: Any = critic.apply(variables, image, train=True, mutable=list(model_state))
            return output

        real_score, new_model_state = score(real)
        fake_score, _ = score(fake)
        alpha = jax.random.uniform(key, (real.shape[0],))
        penalty = gradient_penalty(lambda z: score(z)[0], real, fake, alpha)
        wasserstein = critic_loss(real_score, fake_score)
        return wasserstein + penalty_weight * penalty, (wasserstein, penalty, new_model_state)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        key = state.step_key(_CRITIC_DROPOUT)
        output, _ = apply_model(model, state.generator.variables, batch, key=key)
        real, fake = to_channels(batch["reference"]), to_channels(output.image)
        old = state.critic
        if old is None:
            raise ValueError("the state has no critic; create it with one")
        gradient = jax.value_and_grad(loss, has_aux=True)
        (total, (wasserstein, penalty, model_state)), grads = gradient(
            old.params,
            old.model_state,
            state.step_key(_PENALTY),
            real,
            jax.lax.stop_gradient(fake),
        )
        updates, opt_state = optimizer.update(grads, old.opt_state, old.params)
        critic_state = old.replace(
            params=optax.apply_updates(old.params, updates),
            model_state=model_state,
            opt_state=opt_state,
        )
        metrics = {"critic": total, "wasserstein": -wasserstein, "penalty": penalty}
        return state.replace(critic=critic_state), metrics

    return step
