"""What a person sees of a training run: a progress bar, a log, pictures, and TensorBoard."""

import contextlib
import json
import logging
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import imageio.v3 as iio
import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from kgmgt_jax.data.atomic import naming, write_atomically
from kgmgt_jax.figures import comparison_figure
from kgmgt_jax.training.state import TrainState
from kgmgt_jax.training.summary import parameter_list, parameter_table
from kgmgt_jax.training.validation import Validation
from kgmgt_jax.training.workdir import IMAGES, METRICS, PARAMETERS, TENSORBOARD

__all__ = ["Writer"]

_log = logging.getLogger(__name__)
_SPEED = "examples_per_second"
_ON_BAR = {name: name for name in ("loss", "psnr", "val_psnr", "val_held_out")} | {
    _SPEED: "examples/s"
}


class Writer:
    """Progress on the terminal; numbers and pictures in the working directory.

    Numbers go to ``metrics.jsonl``, one object a line with ``null`` for what is not finite (JSON
    has no infinity), and pictures to ``images/*.png``; with tensorboardX installed, both to
    TensorBoard's files too. What an earlier run logged of steps that are now run again is dropped.

    Args:
        workdir: where all this goes.
        n_steps: length of the run.
        first_step: steps done already.
        batch_size: examples a step.
        tensorboard: whether to write for TensorBoard.
        silent: write and show nothing, as all processes but one do.
    """

    def __init__(
        self,
        workdir: str | Path,
        *,
        n_steps: int,
        first_step: int = 0,
        batch_size: int = 1,
        tensorboard: bool = True,
        silent: bool = False,
    ):
        self._images, self._list = Path(workdir) / IMAGES, Path(workdir) / PARAMETERS
        self._log = None if silent else _open_log(Path(workdir) / METRICS, first_step)
        self._board = None
        if tensorboard and not silent:
            self._board = _open_board(Path(workdir) / TENSORBOARD, first_step)
        self._batch_size, self._n_done, self._since = batch_size, 0, 0.0
        self._shown: dict[str, str] = {}
        self._redirection = contextlib.ExitStack()  # our log's lines go above the bar
        self._redirection.enter_context(logging_redirect_tqdm([logging.getLogger("kgmgt_jax")]))
        self._bar = tqdm(
            total=n_steps,
            initial=first_step,
            desc="train",
            unit="step",
            dynamic_ncols=True,
            mininterval=1.0 if sys.stderr.isatty() else 15.0,
            disable=silent,
        )

    def advance(self) -> None:
        """One step done."""
        self._bar.update()
        if self._since:
            self._n_done += 1
        else:
            self.restart_clock()  # the first step was mostly compilation

    def restart_clock(self) -> None:
        """Counts examples a second anew, as after a validation, which is no training."""
        self._n_done, self._since = 0, time.perf_counter()

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Logs a training step's numbers, and the examples a second since the last call."""
        if self._n_done:
            seconds = time.perf_counter() - self._since
            values = values | {_SPEED: self._batch_size * self._n_done / seconds}
        self.scalars(step, **values)
        self.restart_clock()

    def scalars(self, step: int, **values: float) -> None:
        """Logs numbers; loss, scores and speed go to the bar too."""
        if self._log is None:
            return
        numbers = {name: float(np.asarray(value)) for name, value in values.items()}
        known = {name: n if math.isfinite(n) else None for name, n in numbers.items()}
        row = {"step": step, "time": time.time(), **known}
        with naming(self._log.name):
            self._log.write(json.dumps(row, allow_nan=False) + "\n")
            self._log.flush()
        for name, value in numbers.items():
            if name in _ON_BAR:
                self._shown[_ON_BAR[name]] = f"{value:.4g}"
        if self._board is not None:
            self._board.numbers(step, numbers)
        self._bar.set_postfix(self._shown, refresh=False)

    def validation(self, step: int, result: Validation | None) -> None:
        """Logs the score, and draws images, error maps, and a line through the heart over time."""
        if result is not None and self._log is not None:
            self.scalars(step, **{f"val_{result.metric}": result.score})
            self._draw(step, result)
        self.restart_clock()

    def _draw(self, step: int, result: Validation) -> None:
        path, title = self._images / f"validation_{step:08d}.png", f"validation, step {step}"
        try:
            comparison_figure(
                path,
                result.reconstruction,
                zero_filled=result.zero_filled,
                reference=result.reference,
                title=title,
            )
        except ValueError as error:  # frames too small or empty to be scored are no reason to stop
            self.text(f"no picture of step {step}: {error}")
            return
        if self._board is not None:
            self._board.image(step, "validation", iio.imread(path)[..., :3])

    def parameters(self, state: TrainState) -> None:
        """Shows the table of parameters, and keeps the list with their shapes."""
        if self._log is not None:
            _log.info("%s", parameter_table(state))
            write_atomically(self._list, lambda file: file.write_text(parameter_list(state)))

    def text(self, message: str) -> None:
        """Prints a line without breaking the bar."""
        if self._log is not None:
            self._bar.write(message, file=sys.stderr)

    def close(self) -> None:
        """Ends bar and logs."""
        self._bar.close()
        self._redirection.close()
        if self._log is not None:
            with naming(self._log.name):
                self._log.close()
        if self._board is not None:
            self._board.close()


def _open_log(path: Path, first_step: int) -> TextIO:
    """The log to append to, without lines of later steps or one that was broken off."""
    if path.is_file():
        lines = path.read_text().splitlines(keepends=True)
        kept = "".join(line for line in lines if _step(line) <= first_step)
        write_atomically(path, lambda file: file.write_text(kept))
    return path.open("a")


def _step(line: str) -> float:
    """The step a line of the log is of; infinity for a line that was broken off."""
    try:
        return json.loads(line)["step"] if line.endswith("\n") else math.inf
    except ValueError:
        return math.inf


class _Board:
    """TensorBoard's event file, written at once.

    tensorboardX's ``SummaryWriter`` has a thread that ends on a full disk, and waits for it then.

    Args:
        folder: of event files; made if need be.
        first_step: steps done already; TensorBoard forgets what was logged of later ones.

    Raises:
        ImportError: without tensorboardX.
    """

    def __init__(self, folder: Path, first_step: int):
        from tensorboardX import event_file_writer, summary
        from tensorboardX.proto import event_pb2

        proto: Any = event_pb2
        self._summary, self._event = summary, proto.Event
        folder.mkdir(parents=True, exist_ok=True)
        self._file = event_file_writer.EventsWriter(str(folder / "events"))
        start = proto.SessionLog(status=proto.SessionLog.START)
        self._write(first_step + 1, session_log=start)

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Writes numbers by name."""
        for name, value in values.items():
            self._write(step, summary=self._summary.scalar(name, value))
        self._file.flush()

    def image(self, step: int, name: str, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """Writes an image."""
        self._write(step, summary=self._summary.image(name, image, dataformats="HWC"))
        self._file.flush()

    def close(self) -> None:
        """Ends the file."""
        self._file.close()

    def _write(self, step: int, **content: Any) -> None:
        self._file.write_event(self._event(step=step, wall_time=time.time(), **content))


def _open_board(folder: Path, first_step: int) -> _Board | None:
    """A writer of TensorBoard's files, or ``None`` without tensorboardX."""
    try:
        return _Board(folder, first_step)
    except ImportError:
        _log.info(
            "no TensorBoard files: install tensorboardX (pip install 'kgmgt-jax[tensorboard]'), or "
            "set config.train.tensorboard=False; %s and %s/ hold the same",
            METRICS,
            IMAGES,
        )
        return None
