"""A trace of a few steps, for TensorBoard's profiler or Perfetto."""

import contextlib
import logging
from pathlib import Path
from typing import Any

import jax

__all__ = ["Profile"]

_log = logging.getLogger(__name__)
_WARM_UP, _STEPS = 5, 3


class Profile:
    """Traces the sixth to eighth step of a run, when compiling and filling of queues are over.

    Args:
        folder: where ``jax.profiler`` writes; ``None`` traces nothing.
        first_step: the run's first step; a resumed run compiles again.
    """

    def __init__(self, folder: Path | None, first_step: int):
        self._folder = folder
        self._start = first_step + _WARM_UP
        self._tracing = False

    def step(self, step: int) -> contextlib.AbstractContextManager:
        """Marks a step, and begins the trace where it is due."""
        if self._folder is None:
            return contextlib.nullcontext()
        if step == self._start:
            jax.profiler.start_trace(self._folder)
            self._tracing = True
        return jax.profiler.StepTraceAnnotation("train", step_num=step)

    def after(self, step: int, results: Any) -> None:
        """Ends the trace after its last step, once that step's ``results`` are there."""
        if self._tracing and step == self._start + _STEPS - 1:
            jax.block_until_ready(results)
            self.close()

    def close(self) -> None:
        """Ends a trace that is still going on; says so if the run was too short for one."""
        if self._tracing:
            jax.profiler.stop_trace()
            _log.info("trace of the profiler: %s", self._folder)
            self._folder = None
        elif self._folder is not None:
            _log.warning("no trace: the run ended before step %d", self._start)
        self._tracing = False
