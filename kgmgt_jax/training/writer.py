"""What a person sees of a training run: a progress bar, and one JSON object a line on disk."""

import json
import sys
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

__all__ = ["Writer"]


class Writer:
    """Progress on the terminal and ``metrics.jsonl`` in the working directory.

    Args:
        workdir: where the log goes; appended to when a run resumes.
        n_steps: length of the run.
        first_step: where it begins.
    """

    def __init__(self, workdir: str | Path, *, n_steps: int, first_step: int = 0):
        self._log = (Path(workdir) / "metrics.jsonl").open("a")
        self._bar = tqdm(
            total=n_steps,
            initial=first_step,
            desc="train",
            unit="step",
            dynamic_ncols=True,
            mininterval=1.0 if sys.stderr.isatty() else 15.0,
        )

    def advance(self) -> None:
        """One step done."""
        self._bar.update()

    def scalars(self, step: int, **values: float) -> None:
        """Logs numbers; those called loss and psnr (or beginning with val) go to the bar too."""
        numbers = {name: float(np.asarray(value)) for name, value in values.items()}
        self._log.write(json.dumps({"step": step, "time": time.time(), **numbers}) + "\n")
        self._log.flush()
        shown = {k: v for k, v in numbers.items() if k in ("loss", "psnr") or k.startswith("val")}
        self._bar.set_postfix({k: f"{v:.4g}" for k, v in shown.items()}, refresh=False)

    def text(self, message: str) -> None:
        """Prints a line without breaking the bar."""
        self._bar.write(message, file=sys.stderr)

    def close(self) -> None:
        """Ends bar and log."""
        self._bar.close()
        self._log.close()
