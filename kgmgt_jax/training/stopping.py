"""Ending a run where nothing is lost, on a person's or a scheduler's signal."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils

__all__ = ["stop_signals"]

_TOLD = b"\nstopping, what is done is kept; Ctrl-C again stops at once\n"


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[int], bool]]:
    """A function that tells, after a step, whether to stop there; SIGINT and SIGTERM make it so.

    A single process says that it got the signal, and stops after the step in progress. Of several,
    one may get its signal before the others, so they agree on the step through JAX's preemption
    service, which takes SIGTERM; it must be asked after every step.

    Raises:
        KeyboardInterrupt: at a SIGINT after another signal to a single process, wherever it is.
    """
    signalled = threading.Event()
    several = jax.process_count() > 1

    def handle(number: int, _) -> None:
        if several:
            signal.raise_signal(signal.SIGTERM)  # the preemption service's
        elif number == signal.SIGINT and signalled.is_set():
            raise KeyboardInterrupt
        elif not signalled.is_set():
            signalled.set()
            with contextlib.suppress(OSError):
                os.write(2, _TOLD)  # the signal may have come within a print

    def stopped(step: int) -> bool:
        return (
            multihost_utils.reached_preemption_sync_point(step) if several else signalled.is_set()
        )

    numbers = (signal.SIGINT,) if several else (signal.SIGINT, signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread():
        numbers = ()
    old = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield stopped
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
