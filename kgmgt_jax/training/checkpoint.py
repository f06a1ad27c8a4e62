"""Checkpoints: the whole training state, the weights to evaluate with, and the configuration.

A working directory holds ``checkpoints/<step>/`` with five items: ``weights`` (what evaluation
needs), ``state`` (the rest that training resumes from), ``config``, ``data`` (which slices there
were, and the position of the data iterator) and ``metrics``. The best by validation score, the last
two, and step 0 are kept.
"""

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers as policies

from kgmgt_jax.data.atomic import write_atomically
from kgmgt_jax.models.registry import freeze
from kgmgt_jax.training.comparison import differing_arrays, differing_fields, not_finite
from kgmgt_jax.training.state import TrainState
from kgmgt_jax.training.weights import (
    METRIC,
    PRETRAINED,
    CheckpointError,
    complete_checkpoints,
    first_line,
    metrics_file,
    score,
)
from kgmgt_jax.training.workdir import CHECKPOINTS

__all__ = ["Checkpoints"]

_log = logging.getLogger(__name__)

_POSITION, _SLICES = "position", "slices"  # what the item ``data`` consists of
_BEGINNING = ("start_from", "vgg_encoder")  # fields of config.train that a new run begins with
_EARLIER = {  # fields of a run that is older than they are
    "loss": {"image": {"l1": 1.0, "l2": 0.0, "dssim": 0.0}, "kspace": {"l1": 0.0, "l2": 0.0}},
    "data": {"held_out": 0.0, "virtual_coils": 0},
}
_VALIDATION = (  # fields of config.data on which the score of a validation depends
    *("validation", "validation_frames", "validation_slices", "mask_kinds", "accelerations"),
    *("acs", "simulation", "sens", "virtual_coils", "input_fill", "held_out", "circular"),
)


class Checkpoints:
    """Saves and restores the states of one working directory.

    A checkpoint is written beside its place and moved there when it is complete, and older ones
    are removed only then: whatever breaks off a save, the last good checkpoint stays.

    Args:
        workdir: the working directory; made if need be.
        read_only: for reading; what an interrupted save left behind stays, it may be in progress.

    Raises:
        CheckpointError: if there is no such folder and none can be made.
    """

    def __init__(self, workdir: str | Path, *, read_only: bool = False):
        self.folder, self._read_only = Path(workdir).absolute() / CHECKPOINTS, read_only
        if read_only and not self.folder.is_dir():
            raise CheckpointError(f"{workdir}: expected a folder with {CHECKPOINTS}/, got none")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"{workdir}: expected a writable folder, got {error}") from error
        best = policies.BestN(get_metric_fn=score, n=1, keep_checkpoints_without_metrics=False)
        keep = [policies.LatestN(2), best, policies.CustomSteps([0])]
        # In an empty folder Orbax has nothing to clean up, and its thread would log an error if
        # ``close`` was faster: for wrong data, say.
        unclean = not read_only and any(self.folder.iterdir())
        options = ocp.CheckpointManagerOptions(
            best_fn=score,  # without one Orbax forgets the metrics when the process ends
            preservation_policy=policies.AnyPreservationPolicy(keep),
            cleanup_tmp_directories=unclean,
        )
        arrays, json_like = ocp.StandardCheckpointHandler, ocp.JsonCheckpointHandler
        handlers = {"weights": arrays(), "state": arrays(), "config": json_like()}
        try:
            self._manager = ocp.CheckpointManager(
                self.folder, options=options, item_handlers={**handlers, "data": json_like()}
            )
        except Exception as error:  # it reads the metrics of all, which may hold anything
            raise CheckpointError(
                f"{self.folder}: expected checkpoints with readable metrics, got "
                f"{first_line(error)}; remove the damaged one"
            ) from error

    def save(
        self,
        state: TrainState,
        *,
        config: Any,
        data: Mapping,
        slices: Mapping[str, str] | None = None,
        score: float | None = None,
    ) -> None:
        """Writes a state in the background; atomic, and a no-op if the step is there already.

        Args:
            state: what to resume from.
            config: the run's configuration.
            data: position of the data iterator.
            slices: fingerprints of the data by part, ``train`` and perhaps ``validation``.
            score: of a validation, in dB, by which the best is known.

        Raises:
            FloatingPointError: if the state has NaN or infinite values; it is not written.
            CheckpointError: if this or the previous save failed, as on a full disk.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        bad = not_finite(state)
        if bad:
            raise FloatingPointError(
                f"step {step}: not saved, because these hold NaN or infinite values: {bad}; the "
                f"last good checkpoint is {self.describe_last()}"
            )
        with self._writing():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    weights=ocp.args.StandardSave(_to_host(state.eval_variables)),
                    state=ocp.args.StandardSave(state.replace(ema_params=None)),
                    config=ocp.args.JsonSave(_as_stored(config)),
                    data=ocp.args.JsonSave(
                        json.loads(json.dumps({_POSITION: data, _SLICES: slices or {}}))
                    ),
                ),
                metrics={} if score is None else {METRIC: float(score)},
            )

    def last_is_scored(self) -> bool:
        """Whether the last checkpoint has a validation score."""
        step = self._manager.latest_step()
        return step is not None and METRIC in (self._manager.metrics(step) or {})

    def score_last(self, score: float) -> None:
        """Gives the last checkpoint the validation score that it was saved without.

        Raises:
            CheckpointError: as ``save``.
        """
        path = metrics_file(self.folder / str(self._manager.latest_step()))
        with self._writing():
            if not jax.process_index():
                text = json.dumps({METRIC: float(score)})
                write_atomically(path, lambda file: file.write_text(text))
            multihost_utils.sync_global_devices(f"score {path}")
            self._manager.reload()

    def latest_step(self) -> int | None:
        """The last step saved, or ``None``."""
        return self._manager.latest_step()

    def describe_last(self) -> str:
        """The last complete checkpoint on disk, for messages; waits for one being written."""
        with contextlib.suppress(Exception):  # whoever asks is reporting an error already
            self._manager.wait_until_finished()
        steps = [int(path.name) for path in complete_checkpoints(self.folder)]
        return f"that of step {max(steps)}" if steps else "none"

    def check(self, config: Any) -> None:
        """Compares a configuration's networks and beginning with those of the run, if there is one.

        Raises:
            CheckpointError: if the networks, the weights that the run began with, or the number of
                workers differ, or the checkpoint cannot be read.
        """
        steps = self._manager.all_steps()
        if not steps:
            return
        stored, own = self._config(max(steps)), _as_stored(config)
        for section in ("model", "critic") if config.loss.adversarial else ("model",):
            wanted = freeze(own[section])
            other = differing_fields(freeze(stored.get(section, wanted)), wanted)
            if other:
                raise CheckpointError(
                    f"{self.folder}: expected a checkpoint of this {section}, got one with {other}"
                )
        first = self._config(min(steps)).get("train", {})
        for name in _BEGINNING:
            began, wanted = first.get(name, ""), own["train"][name]
            if wanted and _whole_path(began) != wanted:
                raise CheckpointError(
                    f"{self.folder}: expected a run that began with train.{name}="
                    f"{config.train[name]!r}, got one with {began!r}; take another workdir"
                )
        n_workers = stored.get("data", {}).get("worker_count", config.data.worker_count)
        if n_workers != config.data.worker_count:
            raise CheckpointError(
                f"{self.folder}: expected data.worker_count={n_workers}, in whose terms the "
                f"position in the data was kept, got {config.data.worker_count}"
            )

    def restore(
        self, state: TrainState, *, config: Any, slices: Mapping[str, str] | None = None
    ) -> tuple[TrainState, dict]:
        """The last state saved and the data iterator's position; logs what else has changed.

        Args:
            state: a state of the same structure; the restored one lies on its devices, however
                many wrote the checkpoint.
            config: the run's configuration; its networks must be the checkpoint's.
            slices: as for ``save``.

        Raises:
            CheckpointError: if the checkpoint is of another model, has another structure, cannot
                be read, or there is none.
        """
        step = self._manager.latest_step()
        if step is None:
            raise CheckpointError(f"{self.folder}: expected a checkpoint to resume from, got none")
        self.check(config)
        if not self._read_only:
            self._tell_changes(step, config)
        with self._reading(step):
            stored = self._manager.item_metadata(step)["state"].tree
        other = differing_arrays(stored, state.replace(ema_params=None))
        if other:
            raise CheckpointError(
                f"{self.folder / str(step)}: expected a checkpoint of these networks and "
                f"optimisers, got {other}; go back to its configuration or take another workdir"
            )
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
        restored = self._restore(
            step,
            weights=ocp.args.StandardRestore(abstract.eval_variables),
            state=ocp.args.StandardRestore(abstract.replace(ema_params=None)),
            data=ocp.args.JsonRestore(),
        )
        data = restored.data
        if data.keys() == {_POSITION, _SLICES}:  # in earlier versions it was the position alone
            self._tell_other_slices(data[_SLICES], slices or {})
            data = data[_POSITION]
        return restored.state.replace(ema_params=restored.weights["params"]), data

    def _tell_other_slices(self, then: Mapping[str, str], now: Mapping[str, str]) -> None:
        for part in sorted(then.keys() & now.keys()):
            if then[part] != now[part] and not jax.process_index():
                told = "%s: data.%s is not what it was: %s then, %s now"
                _log.warning(told, self.folder, part, then[part], now[part])

    def _tell_changes(self, step: int, config: Any) -> None:
        stored = self._config(step)  # by every process, for Orbax lets them wait for each other
        own = _as_stored(config)
        if jax.process_index():
            return
        for section in ("loss", "data", "optimizer", "critic_optimizer", "train"):
            wanted = freeze(own[section])
            then = {**_EARLIER.get(section, {}), **freeze(stored.get(section, wanted))}
            other = differing_fields(wanted, then)  # now, not then
            if other:
                _log.warning("%s goes on with another %s: %s", self.folder, section, other)
        pair = [{**_EARLIER["data"], **freeze(each.get("data", {}))} for each in (own, stored)]
        now, then = ([data.get(name) for name in _VALIDATION] for data in pair)
        if now[0] and then[0] and now != then:
            _log.warning(
                "%s: scores of another validation do not tell which checkpoint is best; a new "
                "workdir with train.start_from has its own",
                self.folder,
            )

    def _config(self, step: int) -> Mapping[str, Any]:
        return self._restore(step, config=ocp.args.JsonRestore()).config

    def wait(self) -> None:
        """Blocks until everything is on disk; raises as ``save`` does."""
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then lets go of the folder, which goes if it is empty; raises as ``save`` does."""
        with self._writing():
            self._manager.close()
        if not self._read_only:
            with contextlib.suppress(OSError):  # it holds checkpoints
                self.folder.rmdir()

    def _restore(self, step: int, **items: Any) -> Any:
        with self._reading(step):
            return self._manager.restore(step, args=ocp.args.Composite(**items))

    @contextlib.contextmanager
    def _reading(self, step: int) -> Iterator[None]:
        """Whatever goes wrong while reading, as one ``CheckpointError``."""
        try:
            yield
        except Exception as error:  # Orbax and TensorStore raise many kinds for a damaged folder
            raise CheckpointError(
                f"{self.folder / str(step)}: expected a readable checkpoint, got "
                f"{first_line(error)}; remove it to go on from the one before"
            ) from error

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Whatever goes wrong while writing, as one ``CheckpointError``."""
        try:
            yield
        except Exception as error:  # TensorStore reports a full disk as ValueError, and so on
            raise CheckpointError(
                f"{self.folder}: a checkpoint could not be written, got {first_line(error)}; "
                f"the last good one is {self.describe_last()}; mend this and run the command again"
            ) from error


def _to_host(tree: Any) -> Any:
    """Host arrays, which any devices can read again."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def _as_stored(config: Any) -> dict[str, Any]:
    """A configuration as checkpoints keep it: plain, and true in any folder."""
    fields = json.loads(config.to_json())
    for name in _BEGINNING:
        fields["train"][name] = _whole_path(config.train[name])
    for part in ("train", "validation"):
        paths = config.data[part]
        each = [paths] if os.path.exists(paths) else paths.split(",")  # as ``open_slices`` has it
        fields["data"][part] = ",".join(path and os.path.abspath(path) for path in each)
    return fields


def _whole_path(path: str) -> str:
    """Where weights came from, in one spelling."""
    return path if path in ("", PRETRAINED) else os.path.abspath(path)
