"""Trains a configuration on phantoms and scores it on others: what two of the benchmarks share."""

import logging
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kgmgt_jax.data.phantom.files import write_cmrxrecon2023
from kgmgt_jax.data.sources import open_slices
from kgmgt_jax.data.validation import validation_cases
from kgmgt_jax.metrics import psnr
from kgmgt_jax.models.registry import build_model
from kgmgt_jax.training.loop import train
from kgmgt_jax.training.steps import apply_model

_CINES = {
    "n_coils": 4,
    "shape": (80, 64),
    "field_of_view_mm": (440.0, 352.0),
    "n_frames": 8,
    "accelerations": (),
}
_UNSEEN = 2000  # seed of the first phantom to score on


class Run(NamedTuple):
    """A trained network's size, mean PSNR in dB on unseen frames, and the training's seconds."""

    n_parameters: int
    zero_filled: float
    psnr: float
    seconds: float


def write_phantoms(folder: Path, n_train: int = 24, n_test: int = 4) -> None:
    """The phantoms of ``make demo``: four coils, 80 x 64, to train on and to score on."""
    write_cmrxrecon2023(folder / "train", range(n_train), **_CINES)
    seeds = range(_UNSEEN, _UNSEEN + n_test)
    write_cmrxrecon2023(folder / "test", seeds, n_slices=1, split="TestSet", **_CINES)


def train_and_score(config: Any, data: Path, workdir: Path, n_steps: int) -> Run:
    """Trains for so many steps and scores every frame of the test phantoms.

    Args:
        config: a configuration; its data and length are set here.
        data: folder with ``train`` and ``test``.
        workdir: of the run.
        n_steps: generator updates, with the schedule fitted to them.
    """
    config.data.update(train=str(data / "train"), validation="")
    warmup = min(config.optimizer.warmup, n_steps // 10)
    config.optimizer.warmup = warmup
    config.train.update(n_steps=n_steps, checkpoint_every=n_steps, tensorboard=False)
    logging.getLogger("kgmgt_jax").setLevel(logging.WARNING)
    start = time.perf_counter()
    state = train(config, workdir)
    seconds = time.perf_counter() - start
    model, variables = build_model(config.model), state.eval_variables

    @jax.jit
    def scores(batch: dict) -> tuple[jax.Array, jax.Array]:
        image = apply_model(model, variables, batch)[0].image
        reference = jnp.abs(batch["reference"])
        peak = jnp.max(reference, axis=(1, 2))
        return tuple(psnr(reference, jnp.abs(x), peak) for x in (batch["target"], image))

    found = [scores(batch) for batch in _unseen(config.data, data / "test")]
    before, after = (float(np.concatenate(each).mean()) for each in zip(*found, strict=True))
    n_parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    return Run(n_parameters, before, after, seconds)


def _unseen(data: Any, folder: Path) -> list[dict]:
    cases = validation_cases(
        open_slices(folder, split="test", acs=data.acs, sens=data.sens),
        mask_kind=data.mask_kinds[0],
        acceleration=data.accelerations[0],
        acs=data.acs,
    )
    return [case.frames(input_fill=data.input_fill) for case in cases]
