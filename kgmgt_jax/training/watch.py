"""Watches the loss terms of a run, and keeps the batch that made one of them NaN or infinite."""

import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from kgmgt_jax.data.atomic import write_atomically
from kgmgt_jax.training.workdir import NOT_FINITE

__all__ = ["SCORES", "SavedBatch", "Watch", "load_batch", "split_ids"]

_ID = "id"  # which examples of the data a batch holds
_FIRST = "first"  # where in the batch of all processes that of one begins
_PART = re.compile(r"(step_\d+_process_)\d+_of_(\d+)\.npz")
_BATCH, _METRIC = "batch/", "metric/"  # prefixes of names in the file
SCORES = {"psnr"}  # infinite for exact images, NaN without any signal; no part of the loss


class SavedBatch(NamedTuple):
    """A batch that ended a run.

    Attributes:
        step: the step that it was for.
        ids: places of its examples in the data, ``(b,)``; ``None`` if they are not known.
        arrays: the batch.
        metrics: what the step made of it.
    """

    step: int
    ids: np.ndarray | None
    arrays: dict[str, np.ndarray]
    metrics: dict[str, float]


def split_ids(batch: Mapping[str, Any]) -> tuple[np.ndarray | None, dict[str, Any]]:
    """The ids of a batch's examples, for people, and its arrays, for the device."""
    ids = batch.get(_ID)
    return None if ids is None else np.asarray(ids), {k: v for k, v in batch.items() if k != _ID}


class Watch:
    """Looks at every step's metrics one step late, so that the device never waits for it.

    Args:
        workdir: where a batch is kept that ended the run.
        last_good: describes the last checkpoint, for the message.
    """

    def __init__(self, workdir: Path, last_good: Callable[[], str]):
        self._folder, self._last_good = workdir / NOT_FINITE, last_good
        self._pending: tuple[int, np.ndarray | None, Mapping, Mapping] | None = None

    def add(
        self, step: int, ids: np.ndarray | None, batch: Mapping, metrics: Mapping[str, jax.Array]
    ) -> None:
        """Notes a step that was just sent to the device, and checks the one before.

        Args:
            step: its number.
            ids: its batch's ids, if known.
            batch: its batch, kept until the next call.
            metrics: what it returned.

        Raises:
            FloatingPointError: if the step before gave NaN or infinity.
        """
        self.check()
        self._pending = step, ids, batch, metrics

    def check(self) -> dict[str, float]:
        """The metrics of the last step noted, waiting for them; empty before the first.

        Raises:
            FloatingPointError: if one is not finite; the batch is on disk then.
        """
        if self._pending is None:
            return {}
        step, ids, batch, metrics = self._pending
        values = {name: float(value) for name, value in jax.device_get(dict(metrics)).items()}
        losses = {name: value for name, value in values.items() if name not in SCORES}
        bad = {name: value for name, value in losses.items() if not np.isfinite(value)}
        if not bad:
            return values
        path = _save_batch(self._folder, step, ids, batch, values)
        terms = ", ".join(f"{name} is {value}" for name, value in bad.items())
        whose = "" if ids is None else f" of ids {', '.join(map(str, ids))}"
        raise FloatingPointError(
            f"step {step}: not finite: {terms}; the batch{whose} is kept in {path}, the last good "
            f"checkpoint is {self._last_good()}; the same command with --replay shows each term"
        )


def _save_batch(
    folder: Path, step: int, ids: np.ndarray | None, batch: Mapping, metrics: Mapping[str, float]
) -> Path:
    index, count = jax.process_index(), jax.process_count()
    process = f"_process_{index}_of_{count}" if count > 1 else ""
    arrays: dict[str, Any] = {_BATCH + name: _local(array) for name, array in batch.items()}
    arrays |= {_METRIC + name: value for name, value in metrics.items()} | {"step": step}
    arrays[_FIRST] = min(map(_first, batch.values()), default=0)
    if ids is not None:
        arrays[_ID] = ids

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, **arrays)

    return write_atomically(folder / f"step_{step}{process}.npz", write)


def _local(array: Any) -> np.ndarray:
    """An array, or of one that is spread over processes the part that lies in this one."""
    if not isinstance(array, jax.Array) or array.is_fully_addressable:
        return np.asarray(array)
    shards = {_start(shard): shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(shards[start]) for start in sorted(shards)])


def _first(array: Any) -> int:
    """Where in a whole array the part of ``_local`` begins."""
    if not isinstance(array, jax.Array) or array.is_fully_addressable:
        return 0
    return min(map(_start, array.addressable_shards))


def _start(shard: Any) -> int:
    return shard.index[0].start or 0


def load_batch(path: str | Path) -> SavedBatch:
    """Reads what ``Watch`` kept; of several processes the parts of all, beside that of ``path``.

    Raises:
        ValueError: if a file is missing or none of its kind.
    """
    path = Path(path)
    part = _PART.fullmatch(path.name)
    if part is None:
        return _load(path)[1]
    paths = [path.with_name(f"{part[1]}{i}_of_{part[2]}.npz") for i in range(int(part[2]))]
    parts = dict(_load(each) for each in paths)  # those that share a network have the same
    saved = [parts[first] for first in sorted(parts)]
    ids = [each.ids for each in saved if each.ids is not None]
    names = saved[0].arrays
    return saved[0]._replace(
        ids=np.concatenate(ids) if ids else None,
        arrays={name: np.concatenate([each.arrays[name] for each in saved]) for name in names},
    )


def _load(path: Path) -> tuple[int, SavedBatch]:
    """One file, and where in the batch of all processes it begins."""
    try:
        with np.load(path) as file:
            items = dict(file.items())
        step, first = int(items["step"]), int(items.get(_FIRST, 0))
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: expected a batch that a run kept, got {error}") from error
    arrays = {k.removeprefix(_BATCH): v for k, v in items.items() if k.startswith(_BATCH)}
    metrics = {k.removeprefix(_METRIC): float(v) for k, v in items.items() if k.startswith(_METRIC)}
    return first, SavedBatch(step, items.get(_ID), arrays, metrics)
