"""Looks again at the batch that ended a run: which of its values and loss terms are not finite."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kgmgt_jax.commands import aligned
from kgmgt_jax.training import parallel
from kgmgt_jax.training.checkpoint import Checkpoints
from kgmgt_jax.training.loop import build, open_devices
from kgmgt_jax.training.watch import SCORES, SavedBatch, load_batch
from kgmgt_jax.training.workdir import NOT_FINITE

__all__ = ["replay"]


def replay(config: Any, workdir: str | Path, file: str | Path | None = None) -> str:
    """Recomputes the loss terms of a kept batch from the last good checkpoint.

    The step draws the random numbers it drew in the run. A term that is finite here and was not
    there points at the parameters in between, not at the batch.

    Args:
        config: that of the run.
        workdir: that of the run.
        file: a batch that the run kept, or the part of one of its processes; ``None`` takes the
            newest.

    Returns:
        Lines to print: the batch's arrays that are not finite, then each term in the run and now.

    Raises:
        ValueError: if there is no such file or checkpoint, or they do not fit the configuration.
    """
    path = Path(file) if file else _newest(Path(workdir))
    saved = load_batch(path)
    mesh = open_devices(config)
    checkpoints = Checkpoints(workdir, read_only=True)
    try:
        checkpoints.check(config)
        _, state, update = build(config, mesh)
        state, _ = checkpoints.restore(state, config=config)
    finally:
        checkpoints.close()
    start = int(state.step)
    state = parallel.replicate(state.replace(step=jnp.asarray(saved.step - 1, jnp.int32)), mesh)
    index, count = parallel.data_share(mesh)
    mine = {name: np.split(array, count)[index] for name, array in saved.arrays.items()}
    _, metrics = update(state, parallel.put_batch(mine, mesh))
    again = {name: float(value) for name, value in jax.device_get(metrics).items()}
    return "\n".join([f"{path}: step {saved.step}", *_data(saved), *_terms(saved, again, start)])


def _newest(workdir: Path) -> Path:
    files = sorted((workdir / NOT_FINITE).glob("*.npz"), key=lambda path: path.stat().st_mtime)
    if not files:
        raise ValueError(
            f"{workdir}: expected a batch in {NOT_FINITE}/, got none; a run keeps one when a loss "
            "is not finite"
        )
    return files[-1]


def _data(saved: SavedBatch) -> list[str]:
    """What is wrong with the batch itself."""
    lines = []
    for name, array in saved.arrays.items():
        bad = ~np.isfinite(array)
        for i in np.flatnonzero(bad.any(axis=tuple(range(1, bad.ndim)))):
            which = f"example {i}" if saved.ids is None else f"example {i}, id {saved.ids[i]},"
            lines.append(f"{name}: {which} has {bad[i].sum()} values that are not finite")
    return lines or ["all values of the batch are finite"]


def _terms(saved: SavedBatch, again: dict[str, float], start: int) -> list[str]:
    """The table of terms, in the run and now."""
    rows = [("term", "in the run", f"from step {start}", "")]
    bad = {name for name, value in again.items() if not np.isfinite(value)} - SCORES
    for name, value in again.items():
        before = saved.metrics.get(name, float("nan"))
        word = "not finite" if name in bad else ""
        rows.append((name, f"{before:.6g}", f"{value:.6g}", word))
    lines = aligned(rows)
    if not bad:
        lines.append(f"all terms are finite: look for what the steps after {start} did")
    return lines
