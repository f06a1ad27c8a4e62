"""Optimisers: Adam with a schedule, clipped gradients, and slower rates for offset layers."""

import logging
import re
from collections import Counter
from typing import Any

import jax
import optax

__all__ = ["SCHEDULES", "make_optimizer", "make_optimizers", "make_schedule", "offset_scale"]

SCHEDULES = ("constant", "cosine", "multistep")
_FINAL = 0.01  # of the rate, where the cosine ends
_SCALES = ("large", "medium", "small")  # full, half, quarter resolution
_log = logging.getLogger(__name__)

Optimizers = tuple[optax.GradientTransformation, optax.GradientTransformation]


def make_schedule(
    learning_rate: float,
    *,
    n_steps: int,
    schedule: str = "cosine",
    warmup: int = 0,
    milestones: tuple[float, ...] = (),
    decay: float = 0.1,
) -> optax.Schedule:
    """Learning rate by step: linear warm-up from 0, then one of

    - ``"constant"``: the rate itself;
    - ``"cosine"``: half a cosine from the rate to 1 % of it;
    - ``"multistep"``: the rate times ``decay`` for every milestone that has passed.

    Args:
        learning_rate: the rate after the warm-up.
        n_steps: length of the whole schedule, warm-up included.
        schedule: which of the three.
        warmup: steps from 0 to the rate.
        milestones: of ``"multistep"``, as shares of ``n_steps`` in (0, 1).
        decay: of ``"multistep"``.

    Raises:
        ValueError: for an unknown schedule.
    """
    rest = max(n_steps - warmup, 1)
    if schedule == "constant":
        after = optax.constant_schedule(learning_rate)
    elif schedule == "cosine":
        after = optax.cosine_decay_schedule(learning_rate, rest, _FINAL)
    elif schedule == "multistep":
        passed = Counter(round(share * n_steps) - warmup for share in milestones)
        steps = {step: decay**n for step, n in passed.items()}
        after = optax.piecewise_constant_schedule(learning_rate, steps)
    else:
        raise ValueError(f"schedule must be one of {SCHEDULES}, got {schedule!r}")
    if not warmup:
        return after
    return optax.join_schedules(
        [optax.linear_schedule(0.0, learning_rate, warmup), after], [warmup]
    )


def offset_scale(path: tuple[Any, ...]) -> int | None:
    """0, 1 or 2 (full, half, quarter resolution) for a layer that predicts offsets, else ``None``.

    Those are the two convolutions before a deformable aggregation and its predictor.

    Args:
        path: of a parameter, as ``jax.tree_util`` gives it.
    """
    name = jax.tree_util.keystr(path)
    stage = re.search(r"(?:down|up)_(large|medium|small)'", name)
    return _SCALES.index(stage[1]) if stage and "offset" in name else None


def _scale_offset_layers(factors: tuple[float, ...]) -> optax.GradientTransformation:
    """Multiplies the updates of offset layers by the factor of their resolution."""

    def update(updates: Any, params: Any = None) -> Any:
        def scaled(path: tuple[Any, ...], leaf: Any) -> Any:
            scale = offset_scale(path)
            return leaf if scale is None else factors[scale] * leaf

        return jax.tree_util.tree_map_with_path(scaled, updates)

    return optax.stateless(update)


def make_optimizer(
    learning_rate: float,
    *,
    clip_norm: float | None = None,
    offset_rates: tuple[float, ...] | None = None,
    **schedule: Any,
) -> optax.GradientTransformation:
    """Adam(0.9, 0.999) with a schedule.

    Args:
        learning_rate: see ``make_schedule``.
        clip_norm: largest norm of the whole gradient; ``None`` for no limit.
        offset_rates: learning rates of the layers that predict offsets at full, half and quarter
            resolution, in place of ``learning_rate`` and with its schedule; ``None``: the same.
        **schedule: the other arguments of ``make_schedule``.

    Raises:
        ValueError: for an unknown schedule.
    """
    rate = make_schedule(learning_rate, **schedule)
    chain: list[optax.GradientTransformation] = [optax.adam(rate, b1=0.9, b2=0.999)]
    if clip_norm is not None:
        chain.insert(0, optax.clip_by_global_norm(clip_norm))
    if offset_rates is not None:
        chain.append(_scale_offset_layers(tuple(r / learning_rate for r in offset_rates)))
    return optax.chain(*chain)


def make_optimizers(config: Any) -> Optimizers:
    """The generator's and the critic's, each with its own section of the configuration.

    The critic's schedule counts the critic's updates, of which there are ``train.n_critic`` a step.
    """
    n_steps, n_critic = config.train.n_steps, config.train.n_critic
    if 0 < n_steps <= config.optimizer.warmup:
        told = "optimizer.warmup=%d of n_steps=%d: the rate does not reach learning_rate"
        _log.warning(told, config.optimizer.warmup, n_steps)
    generator = make_optimizer(**config.optimizer, n_steps=n_steps)
    return generator, make_optimizer(**config.critic_optimizer, n_steps=n_steps * n_critic)
