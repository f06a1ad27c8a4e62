"""Weights to reconstruct with: written, found in a working directory, and read."""

import hashlib
import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import orbax.checkpoint as ocp

from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.sizes import check_size
from kgmgt_jax.models.registry import freeze
from kgmgt_jax.training.workdir import CHECKPOINTS

__all__ = [
    "FIXED_WEIGHTS",
    "METRIC",
    "PRETRAINED",
    "CheckpointError",
    "complete_checkpoints",
    "first_line",
    "load_config",
    "load_fixed_weights",
    "load_item",
    "load_weights",
    "metrics_file",
    "save_weights",
    "score",
]

FIXED_WEIGHTS = "fixed_weights"  # item: variables for masks that are the same in all frames
METRIC = "psnr"  # what the best checkpoint has most of, in dB; or another score of a validation
PRETRAINED = "pretrained"  # the checkpoint that comes with the package
_SHIPPED = Path(__file__).parents[1] / PRETRAINED
# What an item of a checkpoint is read with.
_ARRAYS = (ocp.args.StandardRestore, ocp.StandardCheckpointHandler)
_JSON = (ocp.args.JsonRestore, ocp.JsonCheckpointHandler)


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, or of another model."""


def score(metrics: Mapping[str, float]) -> float:
    """By which the best checkpoint is known; without a validation, or for NaN, the lowest."""
    found = float(metrics.get(METRIC, math.nan))
    return -math.inf if math.isnan(found) else found


def metrics_file(step: Path) -> Path:
    """Where the metrics of a checkpoint lie, as Orbax has it."""
    return step / "metrics" / "metrics"


def first_line(error: Exception) -> str:
    """What an error says, without what Orbax and TensorStore say over many lines."""
    return (str(error).splitlines() or [""])[0] or type(error).__name__


def complete_checkpoints(folder: Path) -> list[Path]:
    """Folders of complete checkpoints, one a step, without saves that were broken off."""
    return [p for p in folder.glob("*") if p.name.isdigit() and (p / "weights").is_dir()]


def _find(path: Path) -> Path:
    """The folder of one checkpoint: ``path`` itself, or the best, else the last, of a workdir."""
    if (path / "weights").is_dir():
        return path
    steps = complete_checkpoints(path / CHECKPOINTS if (path / CHECKPOINTS).is_dir() else path)
    if not steps:
        raise CheckpointError(f"{path}: expected a training workdir or a checkpoint, got neither")

    def rank(step: Path) -> tuple[float, int]:
        metrics = metrics_file(step)
        try:
            found = json.loads(metrics.read_text()) if metrics.is_file() else {}
            return score(found), int(step.name)
        except (AttributeError, RecursionError, TypeError, ValueError) as error:
            got = first_line(error)
            raise CheckpointError(f"{metrics}: expected a PSNR in JSON, got {got}") from error

    return max(steps, key=rank)


def load_weights(path: str | Path) -> tuple[Any, dict]:
    """Configuration and variables of a checkpoint, to reconstruct with.

    What was exported in a smaller floating type comes back as float32. Of weights for two kinds of
    mask these are for those that change from frame to frame; ``load_item(path, FIXED_WEIGHTS)``
    gives the others.

    Args:
        path: a training workdir (its best checkpoint is taken, else its last), one checkpoint, or
            ``"pretrained"`` for the one in the package (``"./pretrained"`` is a folder).

    Raises:
        CheckpointError: if there is none, or it cannot be read or is not finite.
    """
    folder = _located(path)
    restored = _restore(folder, {"weights": _ARRAYS, "config": _JSON})
    weights = _checked(folder, restored.weights)
    return ml_collections.ConfigDict(freeze(restored.config)), weights


def load_config(path: str | Path) -> Any:
    """The configuration of a checkpoint, without its arrays.

    Args:
        path: as for ``load_weights``.

    Raises:
        CheckpointError: as for ``load_weights``.
    """
    restored = _restore(_located(path), {"config": _JSON})
    return ml_collections.ConfigDict(freeze(restored.config))


def load_fixed_weights(path: str | Path) -> Any:
    """The weights for masks that are the same in all frames, or the only ones there are.

    Args:
        path: as for ``load_weights``.

    Raises:
        CheckpointError: as for ``load_weights``.
    """
    weights = load_item(path, FIXED_WEIGHTS)
    return load_weights(path)[1] if weights is None else weights


def _located(path: str | Path) -> Path:
    """The folder of one checkpoint, for whatever ``load_weights`` takes."""
    path = _shipped(_SHIPPED) if str(path) == PRETRAINED else Path(path).absolute()
    if not path.is_dir():
        raise CheckpointError(f"{path}: expected a training workdir or a checkpoint, got no folder")
    return _find(path)


def _shipped(folder: Path) -> Path:
    """The checkpoint in the package, if its files are those that ``SHA256SUMS`` lists."""
    fix = "install the package again"
    try:
        lines = (folder / "SHA256SUMS").read_text().splitlines()
        for expected, _, name in (line.partition("  ") for line in lines):
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != expected:
                raise CheckpointError(
                    f"{folder / name}: expected the pretrained weights as they were shipped, got "
                    f"a file with another content; {fix}"
                )
    except OSError as error:
        got = error.strerror or error
        raise CheckpointError(
            f"{error.filename}: expected a file of the pretrained weights, got {got!r}; {fix}"
        ) from error
    return folder / "weights"


def _checked(folder: Path, tree: Any) -> Any:
    """Arrays of a checkpoint, small floating types as float32, none with NaN or infinity."""

    def check(path: tuple, array: Any) -> Any:
        if not jnp.issubdtype(array.dtype, jnp.floating):
            return array
        array = array.astype(np.float32) if array.dtype.itemsize < 4 else array
        if not np.isfinite(array).all():
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            got = f"NaN or infinite values in {name}"
            raise CheckpointError(f"{folder}: expected finite weights, got {got}; use another one")
        return array

    return jax.tree.map_with_path(check, tree)


def load_item(path: str | Path, name: str) -> Any:
    """A further item that ``save_weights`` put into a checkpoint; ``None`` if there is none.

    Args:
        path: as for ``load_weights``.
        name: of the item.

    Raises:
        CheckpointError: as for ``load_weights``.
    """
    folder = _located(path)
    if not (folder / name).is_dir():
        return None
    return _checked(folder, _restore(folder, {name: _ARRAYS})[name])


def save_weights(
    path: str | Path,
    config: Mapping | ml_collections.ConfigDict,
    weights: Mapping,
    **items: Mapping,
) -> Path:
    """Writes one checkpoint to reconstruct with, whole or not at all; ``load_weights`` reads it.

    Args:
        path: the folder to be made.
        config: configuration, with the network under ``model``, and how it is used (``circular``,
            ``input_fill``, ``sens``, ``virtual_coils``) under ``data``.
        weights: variables of the network.
        **items: further trees of arrays, for ``load_item``.

    Raises:
        CheckpointError: if something is at ``path`` already, or it cannot be written.
    """
    path = Path(path).absolute()
    if path.exists():
        raise CheckpointError(f"{path}: expected a folder yet to be made, got one that is there")
    trees = {"weights": weights, **items}
    _check_room(path, trees)
    trees = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
    plain = config.to_dict() if isinstance(config, ml_collections.ConfigDict) else dict(config)
    arguments = ocp.args.Composite(config=ocp.args.JsonSave(plain), **trees)
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as writer:
            writer.save(path, args=arguments)
        for mark in path.rglob("commit_success.txt"):  # in which Orbax names the folder
            mark.write_text("")
    except Exception as error:  # OSError, or TensorStore's ValueError on a full disk
        got = first_line(error)
        raise CheckpointError(f"{path}: expected a writable folder, got {got}") from error
    return path


def _check_room(path: Path, trees: Any) -> None:
    """Refuses a disk without room: TensorStore would leave half of it behind, and tracebacks."""
    needed = sum(np.asarray(array).nbytes for array in jax.tree.leaves(trees))
    there = next(folder for folder in path.parents if folder.is_dir())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise CheckpointError(f"{path}: expected a disk with {needed} bytes free, got {free}")


def _restore(folder: Path, items: Mapping[str, Any]) -> Any:
    """Items of a checkpoint by name."""
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    for name, (restore, handler) in items.items():
        registry.add(name, restore, handler())
    arguments = ocp.args.Composite(**{name: restore() for name, (restore, _) in items.items()})
    try:
        for name, kind in items.items():
            if kind is _ARRAYS:
                _check_sizes(folder / name)
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler(handler_registry=registry)) as reader:
            return reader.restore(folder, args=arguments)
    except DataError as error:  # of sizes
        raise CheckpointError(str(error)) from error
    except Exception as error:  # Orbax and TensorStore raise many kinds for a damaged folder
        reason = first_line(error)
        raise CheckpointError(f"{folder}: expected a readable checkpoint, got {reason}") from error


def _check_sizes(folder: Path) -> None:
    """Refuses arrays that memory does not hold; TensorStore would end the process over them."""
    handler: Any = ocp.StandardCheckpointHandler()
    found = jax.tree.leaves(handler.metadata(folder).tree)
    kept = [(each.shape, each.storage.chunk_shape or (), each.dtype.itemsize) for each in found]
    largest = max((math.prod(chunk) * itemsize for _, chunk, itemsize in kept), default=0)
    n_bytes = largest + sum(math.prod(shape) * itemsize for shape, _, itemsize in kept)
    check_size(folder, n_bytes, n_bytes)
