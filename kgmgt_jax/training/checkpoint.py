"""Checkpoints: the whole training state, the weights to evaluate with, and the configuration.

A working directory holds ``checkpoints/<step>/`` with four items: ``weights`` (what evaluation
needs), ``state`` (the rest that training resumes from), ``config`` and ``data`` (the position of
the data iterator). The best by validation PSNR, the last two, and step 0 are kept.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from kgmgt_jax.models.kgmgt import KGMgT
from kgmgt_jax.training.state import TrainState

__all__ = [
    "CheckpointError",
    "Checkpoints",
    "build_model",
    "freeze",
    "load_item",
    "load_weights",
    "save_weights",
]

_FOLDER = "checkpoints"
_METRIC = "psnr"
# What an item of a checkpoint is read with.
_ARRAYS = (ocp.args.StandardRestore, ocp.StandardCheckpointHandler)
_JSON = (ocp.args.JsonRestore, ocp.JsonCheckpointHandler)


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, or of another model."""


def freeze(value: Any) -> Any:
    """Lists to tuples, all the way down: what JSON loses of a configuration."""
    if isinstance(value, Mapping):
        return {k: freeze(v) for k, v in value.items()}
    return tuple(freeze(v) for v in value) if isinstance(value, list | tuple) else value


def build_model(config: Mapping[str, Any]) -> KGMgT:
    """The network of a configuration's ``model`` section.

    Raises:
        ValueError: for a field the network does not have.
    """
    fields = freeze(config)
    unknown = set(fields) - set(KGMgT.__dataclass_fields__)
    if unknown:
        raise ValueError(f"unknown fields in config.model: {sorted(unknown)}")
    return KGMgT(**fields)


class Checkpoints:
    """Saves and restores the states of one working directory.

    Args:
        workdir: the working directory; made if need be.
    """

    def __init__(self, workdir: str | Path):
        folder = Path(workdir).absolute() / _FOLDER
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"{workdir}: expected a writable folder, got {error}") from error
        keep = policies.AnyPreservationPolicy(
            [
                policies.LatestN(2),
                policies.BestN(
                    get_metric_fn=lambda m: m[_METRIC], n=1, keep_checkpoints_without_metrics=False
                ),
                policies.CustomSteps([0]),
            ]
        )
        options = ocp.CheckpointManagerOptions(preservation_policy=keep)
        self._manager = ocp.CheckpointManager(folder, options=options)

    def save(
        self,
        state: TrainState,
        *,
        config: Any,
        data: Mapping,
        psnr: float | None = None,
    ) -> None:
        """Writes a state in the background; atomic, and a no-op if the step is there already.

        Args:
            state: what to resume from.
            config: the run's configuration.
            data: position of the data iterator.
            psnr: validation PSNR in dB, by which the best is known.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        weights = jax.device_get(state.eval_variables)  # host arrays: any devices can read them
        self._manager.save(
            step,
            args=ocp.args.Composite(
                weights=ocp.args.StandardSave(weights),
                state=ocp.args.StandardSave(state.replace(ema_params=None)),
                config=ocp.args.JsonSave(json.loads(config.to_json())),
                data=ocp.args.JsonSave(dict(data)),
            ),
            metrics=None if psnr is None else {_METRIC: float(psnr)},
        )

    def latest_step(self) -> int | None:
        """The last step saved, or ``None``."""
        return self._manager.latest_step()

    def restore(self, state: TrainState, *, config: Any) -> tuple[TrainState, dict]:
        """The last state saved and the data iterator's position.

        Args:
            state: a state of the same structure.
            config: the run's configuration; its model must be the checkpoint's.

        Raises:
            CheckpointError: if the checkpoint is of another model.
        """
        step = self._manager.latest_step()
        stored: Any = self._manager.restore(
            step, args=ocp.args.Composite(config=ocp.args.JsonRestore())
        )
        _check_same_model(
            freeze(stored.config["model"]), freeze(config.model.to_dict()), self.folder
        )
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
        restored: Any = self._manager.restore(
            step,
            args=ocp.args.Composite(
                weights=ocp.args.StandardRestore(abstract.eval_variables),
                state=ocp.args.StandardRestore(abstract.replace(ema_params=None)),
                data=ocp.args.JsonRestore(),
            ),
        )
        return restored.state.replace(ema_params=restored.weights["params"]), restored.data

    @property
    def folder(self) -> Path:
        """Where the checkpoints are."""
        return Path(self._manager.directory)

    def wait(self) -> None:
        """Blocks until everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then lets go of the folder."""
        self._manager.close()


def _check_same_model(stored: Mapping, wanted: Mapping, where: Path) -> None:
    names = sorted(set(stored) | set(wanted))
    differing = [n for n in names if stored.get(n) != wanted.get(n)]
    if differing:
        rows = ", ".join(f"{n}={stored.get(n)!r} not {wanted.get(n)!r}" for n in differing)
        raise CheckpointError(f"{where}: expected a checkpoint of this model, got one with {rows}")


def _find(path: Path) -> Path:
    """The folder of one checkpoint: ``path`` itself, or the best, else the last, of a workdir."""
    if (path / "weights").is_dir():
        return path
    folder = path / _FOLDER if (path / _FOLDER).is_dir() else path
    steps = [p for p in folder.glob("*") if p.name.isdigit() and (p / "weights").is_dir()]
    if not steps:
        raise CheckpointError(f"{path}: expected a training workdir or a checkpoint, got neither")

    def rank(step: Path) -> tuple[float, int]:
        metrics = step / "metrics" / "metrics"
        psnr = json.loads(metrics.read_text()).get(_METRIC) if metrics.is_file() else None
        return (float("-inf") if psnr is None else psnr, int(step.name))

    return max(steps, key=rank)


def load_weights(path: str | Path) -> tuple[Any, dict]:
    """Configuration and variables of a checkpoint, to reconstruct with.

    Args:
        path: a training workdir (its best checkpoint is taken, else its last) or one checkpoint.

    Raises:
        CheckpointError: if there is none, or it cannot be read.
    """
    restored = _restore(path, {"weights": _ARRAYS, "config": _JSON})
    return ml_collections.ConfigDict(freeze(restored.config)), restored.weights


def load_item(path: str | Path, name: str) -> Any:
    """A further item that ``save_weights`` put into a checkpoint; ``None`` if there is none.

    Raises:
        CheckpointError: as for ``load_weights``.
    """
    folder = _find(Path(path).absolute())
    return _restore(folder, {name: _ARRAYS})[name] if (folder / name).is_dir() else None


def save_weights(path: str | Path, config: Mapping, weights: Mapping, **items: Mapping) -> Path:
    """Writes one checkpoint to reconstruct with, whole or not at all; ``load_weights`` reads it.

    Args:
        path: the folder to be made.
        config: configuration, with the network under ``model``.
        weights: variables of the network.
        **items: further trees of arrays, for ``load_item``.

    Raises:
        CheckpointError: if something is at ``path`` already, or it cannot be written.
    """
    path = Path(path).absolute()
    if path.exists():
        raise CheckpointError(f"{path}: expected a folder yet to be made, got one that is there")
    trees = {"weights": weights, **items}
    trees = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
    arguments = ocp.args.Composite(config=ocp.args.JsonSave(dict(config)), **trees)
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as writer:
            writer.save(path, args=arguments)
    except OSError as error:
        raise CheckpointError(f"{path}: expected a writable folder, got {error}") from error
    return path


def _restore(path: str | Path, items: Mapping[str, Any]) -> Any:
    """Items of a checkpoint by name."""
    path = Path(path).absolute()
    if not path.is_dir():
        raise CheckpointError(f"{path}: expected a training workdir or a checkpoint, got no folder")
    folder = _find(path)
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    for name, (restore, handler) in items.items():
        registry.add(name, restore, handler())
    arguments = ocp.args.Composite(**{name: restore() for name, (restore, _) in items.items()})
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler(handler_registry=registry)) as reader:
            return reader.restore(folder, args=arguments)
    except Exception as error:  # Orbax and TensorStore raise many kinds for a damaged folder
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{folder}: expected a readable checkpoint, got {reason}") from error
