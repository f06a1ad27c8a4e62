"""The training run, from a configuration to checkpoints; reads from top to bottom."""

import contextlib
import functools
import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from kgmgt_jax.data.augmentation import Augmentation
from kgmgt_jax.data.filling import same_in_all_frames
from kgmgt_jax.data.held_out import held_out_cases
from kgmgt_jax.data.mask_sampler import FIXED_KINDS, MaskSampler
from kgmgt_jax.data.pipeline import TripletOptions, make_training_loader
from kgmgt_jax.data.prepared import PreparedSet
from kgmgt_jax.data.simulation import Simulation
from kgmgt_jax.data.slices import SliceSource, fingerprint
from kgmgt_jax.data.sources import open_slices
from kgmgt_jax.data.validation import validation_cases
from kgmgt_jax.models.critic import Critic
from kgmgt_jax.models.registry import Network, build_model, freeze
from kgmgt_jax.training import parallel
from kgmgt_jax.training.checkpoint import Checkpoints
from kgmgt_jax.training.checks import check_config
from kgmgt_jax.training.feeding import DeviceFeed
from kgmgt_jax.training.optimizer import make_optimizers
from kgmgt_jax.training.profiling import Profile
from kgmgt_jax.training.starting import started_from, with_vgg_encoder
from kgmgt_jax.training.state import TrainState, create_state
from kgmgt_jax.training.steps import Step
from kgmgt_jax.training.stopping import stop_signals
from kgmgt_jax.training.update import make_update
from kgmgt_jax.training.validation import make_validator
from kgmgt_jax.training.watch import Watch, split_ids
from kgmgt_jax.training.workdir import PROFILE, claimed, open_workdir
from kgmgt_jax.training.writer import Writer

__all__ = ["build", "open_devices", "train"]

_log = logging.getLogger(__name__)


def train(config: Any, workdir: str | Path, *, stop_after: int | None = None) -> TrainState:
    """Trains until ``config.train.n_steps``, resuming whatever ``workdir`` holds.

    Ctrl-C and SIGTERM end the run after the step in progress, with a checkpoint; a validation that
    is due then is done when the run goes on. A loss that is NaN or infinite ends it too; its batch
    is kept for ``replay``.

    Args:
        config: a ``ConfigDict`` as ``configs/kgmgt.py`` makes it.
        workdir: checkpoints and logs go here.
        stop_after: end early, at this step, as an interruption there would; the schedule stays
            that of ``n_steps``.

    Raises:
        DataError, CheckpointError, ValueError: for unusable data, checkpoint, working directory
            or configuration.
        FloatingPointError: if a loss was not finite.
        KeyboardInterrupt: if the run was stopped.
    """
    mesh = open_devices(config)
    workdir = open_workdir(workdir)
    silent = parallel.process_share()[0] > 0
    with contextlib.ExitStack() as stack:
        if not silent:
            stack.enter_context(claimed(workdir))
        checkpoints = Checkpoints(workdir)
        stack.callback(checkpoints.close)
        checkpoints.check(config)
        sources = _sources(config.data)
        slices = {part: fingerprint(source.slices) for part, source in sources.items()}
        share = parallel.data_share(mesh)
        loader = _loader(sources["train"], config.data, config.train.seed, share)
        feed = DeviceFeed(loader, functools.partial(_put, mesh))
        stack.callback(feed.close)
        model, state, update = build(config, mesh)
        validate = make_validator(model, _validation(sources.get("validation"), config.data))

        scored = True
        if checkpoints.latest_step() is None:
            if config.train.start_from:
                fixed = _fixed_masks(sources["train"], config.data)
                state = started_from(config.train.start_from, state, fixed_masks=fixed)
            if config.train.vgg_encoder:
                state = with_vgg_encoder(config.train.vgg_encoder, state)
            checkpoints.save(state, config=config, data=feed.get_state(), slices=slices)
        else:
            scored = checkpoints.last_is_scored()
            state, position = checkpoints.restore(state, config=config, slices=slices)
            feed.set_state(position)

        done, every = int(state.step), config.train
        last = config.train.n_steps if stop_after is None else stop_after

        def due(step: int) -> bool:
            """Whether there is a validation after a step."""
            return step % every.eval_every == 0 or step == last

        missed = "validation" in sources and done > 0 and due(done) and not scored
        if done >= last and not missed:
            if not silent:
                told = "%s is already at step %d of %d, nothing is to do; see config.train.n_steps"
                _log.info(told, workdir, done, last)
            return state
        writer = Writer(
            workdir,
            n_steps=config.train.n_steps,
            first_step=done,
            batch_size=config.data.batch_size,
            tensorboard=config.train.tensorboard,
            silent=silent,
        )
        stack.callback(writer.close)
        writer.parameters(state)
        watch = Watch(workdir, checkpoints.describe_last)
        profile = Profile(workdir / PROFILE if config.profile else None, done + 1)
        stack.callback(profile.close)
        stopped = stack.enter_context(stop_signals())

        if missed and (score := validate(state)) is not None:  # a signal came when it was due
            writer.validation(done, score)
            checkpoints.score_last(score.score)
        for step in range(done + 1, last + 1):
            ids, batch = next(feed)
            with profile.step(step):
                state, metrics = update(state, batch)
            profile.after(step, metrics)
            watch.add(step, ids, batch, metrics)
            writer.advance()

            stopping, ending = stopped(step), step == last
            score = None
            if step % every.log_every == 0 or stopping or ending:
                writer.metrics(step, watch.check())
            if due(step) and not stopping:  # who stops us is urgent
                watch.check()
                score = validate(state)
                writer.validation(step, score)
            if step % every.checkpoint_every == 0 or score is not None or stopping or ending:
                watch.check()
                told = None if score is None else score.score
                position = feed.get_state()
                checkpoints.save(state, config=config, data=position, slices=slices, score=told)
            if stopping or ending:
                checkpoints.wait()
            if stopping and (not ending or "validation" in sources):  # which is still to be done
                writer.text(f"stopped after step {step}; run the same command to go on")
                raise KeyboardInterrupt
    return state


def open_devices(config: Any) -> Mesh:
    """The devices to train on, after a look at whether the configuration works on them.

    Raises:
        ValueError: for an impossible configuration.
    """
    check_config(config)
    parallel.check_platform(config.train.platform)
    mesh = parallel.make_mesh(n_model=config.train.model_parallel)
    parallel.check_batch_size(config.data.batch_size, mesh, config.train.accumulation)
    if mesh.size > 1 and config.model.get("pallas"):
        got = f"{mesh.size}, each of which would do the whole batch of the kernels"
        raise ValueError(f"config.model.pallas: expected False or one device, got {got}")
    return mesh


def build(config: Any, mesh: Mesh) -> tuple[Network, TrainState, Step]:
    """The network of a configuration, its first state, and the compiled update.

    Args:
        config: as for ``train``.
        mesh: devices to train on.

    Raises:
        ValueError: for a field that the network does not have.
    """
    model = build_model(config.model)
    critic = Critic(**freeze(config.critic.to_dict())) if config.loss.adversarial else None
    optimizers = make_optimizers(config)
    state = create_state(model, critic, *optimizers, seed=config.train.seed)
    update = make_update(config, model, critic, optimizers, state, mesh)
    return model, parallel.replicate(state, mesh), update


def _put(mesh: Mesh, batch: dict) -> tuple[np.ndarray | None, dict[str, jax.Array]]:
    """Starts a batch's transfer to the devices; its ids stay here."""
    ids, arrays = split_ids(batch)
    return ids, parallel.put_batch(arrays, mesh)


def _sources(data: Any) -> dict[str, SliceSource]:
    """Slices to train on and, if there are any, to validate on."""
    if not data.train:
        raise ValueError("config.data.train: expected a file or folder to train on, got none")
    reading = {
        "acs": data.calibration_lines or data.acs,
        "sens": data.sens,
        "sens_cache": data.sens_cache or None,
        "simulation": Simulation(**freeze(data.simulation)),
        "virtual_coils": data.virtual_coils,
        "undersampled": data.held_out > 0,
    }
    train = open_slices(data.train, split="train", crop_rows=data.crop[0], **reading)
    if isinstance(train, PreparedSet):
        _check_maps(train, data.sens)
    if not data.validation:
        return {"train": train}
    return {
        "train": train,
        "validation": open_slices(data.validation, split="validation", **reading),
    }


def _fixed_masks(source: SliceSource, data: Any) -> bool:
    """Whether masks are the same in all frames: those drawn, or that of the first scan."""
    acquired = source.acquired(0) if source.slices[0].undersampled else None
    if acquired is None:
        return FIXED_KINDS.issuperset(data.mask_kinds)
    return same_in_all_frames(acquired)


def _loader(source: SliceSource, data: Any, seed: int, process: tuple[int, int] = (0, 1)):
    return make_training_loader(
        source,
        TripletOptions(
            MaskSampler(freeze(data.mask_kinds), freeze(data.accelerations), data.acs),
            Augmentation(crop=freeze(data.crop), **data.augmentation),
            input_fill=data.input_fill,
            circular=data.circular,
            held_out=data.held_out,
        ),
        batch_size=data.batch_size,
        n_buckets=data.n_buckets,
        seed=seed,
        worker_count=data.worker_count,
        process=process,
    )


def _check_maps(source: PreparedSet, sens: str) -> None:
    """A reconstruction estimates maps as ``config.data.sens`` says, so it must be true."""
    for other in map(source.sens_method, range(len(source.slices))):
        if other in (None, sens):
            continue
        raise ValueError(
            f"config.data.sens: expected {other!r}, by which the prepared set has its coil maps, "
            f"got {sens!r}"
        )


def _validation(source: SliceSource | None, data: Any) -> list[dict[str, np.ndarray]]:
    """The first frames of slices spread over the validation set, a mask fixed by their names."""
    if source is None:
        return []
    options = {"circular": data.circular, "input_fill": data.input_fill}
    if any(info.undersampled for info in source.slices):
        cases = held_out_cases(source, data.held_out, acs=data.acs, n_slices=data.validation_slices)
        return [case.frames(data.validation_frames, **options) for case in cases]
    cases = validation_cases(
        source,
        mask_kind=data.mask_kinds[0],
        acceleration=data.accelerations[0],
        acs=data.acs,
        n_slices=data.validation_slices,
        sens_cache=data.sens_cache or None,
    )
    return [case.frames(data.validation_frames, **options) for case in cases]
