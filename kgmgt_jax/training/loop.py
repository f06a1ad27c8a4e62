"""The training run, from a configuration to checkpoints; reads from top to bottom."""

import contextlib
import itertools
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from kgmgt_jax.data.augmentation import Augmentation
from kgmgt_jax.data.mask_sampler import MaskSampler
from kgmgt_jax.data.pipeline import TripletOptions, make_training_loader
from kgmgt_jax.data.sources import open_slices
from kgmgt_jax.data.validation import validation_batches
from kgmgt_jax.interop.vgg import load_vgg19
from kgmgt_jax.metrics import psnr
from kgmgt_jax.models.critic import Critic
from kgmgt_jax.models.encoder import vgg19_features
from kgmgt_jax.models.kgmgt import KGMgT
from kgmgt_jax.training import parallel
from kgmgt_jax.training.checkpoint import Checkpoints, build_model, freeze
from kgmgt_jax.training.state import TrainState, create_state, make_optimizer
from kgmgt_jax.training.steps import (
    Batch,
    PerceptualFeatures,
    Step,
    apply_model,
    make_critic_step,
    make_generator_step,
)
from kgmgt_jax.training.writer import Writer

__all__ = ["train"]

_log = logging.getLogger(__name__)


def train(config: Any, workdir: str | Path, *, stop_after: int | None = None) -> TrainState:
    """Trains until ``config.train.n_steps``, resuming whatever ``workdir`` holds.

    Ctrl-C and SIGTERM end the run after the step in progress, with a checkpoint.

    Args:
        config: a ``ConfigDict`` as ``configs/kgmgt.py`` makes it.
        workdir: checkpoints and logs go here.
        stop_after: end early, at this step, as an interruption there would; the schedule stays
            that of ``n_steps``.

    Raises:
        DataError, CheckpointError, ValueError: for unusable data, checkpoint or configuration.
        KeyboardInterrupt: if the run was stopped.
    """
    mesh = parallel.make_mesh()
    parallel.check_batch_size(config.data.batch_size, mesh)
    model = build_model(config.model)
    critic = Critic(**freeze(config.critic.to_dict())) if config.loss.adversarial else None
    optimizers = _optimizers(config)
    loader = _loader(config.data, config.train.seed)
    validate = _validator(model, _validation(config.data))

    checkpoints = Checkpoints(workdir)
    state = create_state(model, critic, *optimizers, seed=config.train.seed)
    state = parallel.replicate(state, mesh)
    if checkpoints.latest_step() is not None:
        state, position = checkpoints.restore(state, config=config)
        loader.set_state(position)
    else:
        checkpoints.save(state, config=config, data=loader.get_state())

    _print_sizes(state)
    update = _make_update(config.loss, model, critic, optimizers, config.train.ema_decay, mesh)
    first, last = int(state.step) + 1, stop_after or config.train.n_steps
    writer = Writer(workdir, n_steps=config.train.n_steps, first_step=first - 1)
    try:
        with _stop_signals() as stopped:
            for step in range(first, last + 1):
                state, metrics = update(state, parallel.put_batch(next(loader), mesh))
                writer.advance()
                ending = step == last or stopped.is_set()
                if step % config.train.log_every == 0 or ending:
                    writer.scalars(step, **_finite(metrics, step))
                if step % config.train.eval_every == 0 or ending:
                    score = validate(state)
                    if score is not None:
                        writer.scalars(step, val_psnr=score)
                    checkpoints.save(state, config=config, data=loader.get_state(), psnr=score)
                if stopped.is_set():
                    writer.text(f"stopped after step {step}; run the same command to go on")
                    raise KeyboardInterrupt
    finally:
        writer.close()
        checkpoints.close()
        loader.close()
    return state


@contextlib.contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, instead of breaking off a step half-way."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    old = {
        number: signal.signal(number, lambda *_: stopped.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stopped
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _optimizers(config: Any) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    """The generator's and the critic's."""
    n_steps = config.train.n_steps
    generator = make_optimizer(**config.optimizer, n_steps=n_steps)
    return generator, make_optimizer(config.optimizer.learning_rate, n_steps=n_steps)


def _make_update(
    loss: Any, model: KGMgT, critic: Critic | None, optimizers, ema_decay, mesh
) -> Step:
    """A critic step, where there is a critic, then a generator step, both compiled."""
    generator_step = parallel.jit_step(
        make_generator_step(
            model,
            critic,
            optimizers[0],
            _perceptual_features(loss),
            perceptual_weight=loss.perceptual,
            adversarial_weight=loss.adversarial,
            mentor_weight=loss.mentor,
            ema_decay=ema_decay,
        ),
        mesh,
    )
    if critic is None:
        return generator_step
    critic_step = parallel.jit_step(
        make_critic_step(model, critic, optimizers[1], penalty_weight=loss.gradient_penalty), mesh
    )

    def update(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        state, critic_metrics = critic_step(state, batch)
        state, metrics = generator_step(state, batch)
        return state, metrics | critic_metrics

    return update


def _loader(data: Any, seed: int):
    source = open_slices(
        data.train, split="train", acs=data.acs, crop_rows=data.crop[0], sens=data.sens
    )
    return make_training_loader(
        source,
        TripletOptions(
            MaskSampler(freeze(data.mask_kinds), freeze(data.accelerations), data.acs),
            Augmentation(crop=freeze(data.crop), **data.augmentation),
            input_fill=data.input_fill,
            circular=data.circular,
        ),
        batch_size=data.batch_size,
        n_buckets=data.n_buckets,
        seed=seed,
        worker_count=data.worker_count,
        process=(jax.process_index(), jax.process_count()),
    )


def _validation(data: Any) -> list[dict[str, np.ndarray]]:
    """The first frames of each validation slice, a mask fixed by its name."""
    if not data.validation:
        return []
    source = open_slices(data.validation, split="validation", acs=data.acs, sens=data.sens)
    batches = validation_batches(
        source,
        mask_kind=data.mask_kinds[0],
        acceleration=data.accelerations[0],
        acs=data.acs,
        batch_size=data.validation_frames,
        circular=data.circular,
        input_fill=data.input_fill,
    )
    return list(itertools.islice(batches, data.validation_batches))


def _validator(model: KGMgT, batches: list) -> Callable[[TrainState], float | None]:
    """Mean PSNR in dB of the averaged parameters over validation batches; ``None`` without."""

    @jax.jit
    def score(variables: Any, batch: dict) -> jax.Array:
        output, _ = apply_model(model, variables, batch)
        reference = jnp.abs(batch["reference"])
        return psnr(reference, jnp.abs(output.image), jnp.max(reference, axis=(1, 2)))

    def validate(state: TrainState) -> float | None:
        scores = [np.asarray(score(state.eval_variables, batch)) for batch in batches]
        return float(np.mean(np.concatenate(scores))) if scores else None

    return validate


def _perceptual_features(loss: Any) -> PerceptualFeatures | None:
    if not loss.perceptual:
        return None
    if not loss.vgg19:
        _log.warning(
            "perceptual loss off: set config.loss.vgg19 to a file with VGG19 weights "
            "(nothing is downloaded), or config.loss.perceptual=0.0 to silence this"
        )
        return None
    layers = freeze(loss.perceptual_layers)
    params = load_vgg19(loss.vgg19, last=layers[-1].replace("relu", "conv"))
    return lambda image: vgg19_features(params, image, layers)


def _finite(metrics: dict[str, jax.Array], step: int) -> dict[str, float]:
    """The metrics as numbers.

    Raises:
        FloatingPointError: if one is not finite.
    """
    values = {name: float(value) for name, value in metrics.items()}
    bad = {name: value for name, value in values.items() if not np.isfinite(value)}
    if bad:
        raise FloatingPointError(f"step {step}: not finite: {bad}")
    return values


def _print_sizes(state: TrainState) -> None:
    def count(tree) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(tree))

    parts = {name: count(tree) for name, tree in state.generator.params.items()}
    if state.critic is not None:
        parts["critic"] = count(state.critic.params)
    _log.info("parameters: %s", ", ".join(f"{name} {n:,}" for name, n in parts.items()))
