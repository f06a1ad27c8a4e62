"""How every command prints a table, and ends: a number for the shell, a line on what is wrong."""

import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

__all__ = ["DEBUG", "aligned", "fail", "guarded"]

DEBUG = "KGMGT_DEBUG"  # environment variable; not empty: tracebacks
_AGAIN = 0.1  # seconds


def guarded(work: Callable[[], int | None]) -> int:
    """Runs a command.

    Args:
        work: the command; returns its exit code, or ``None`` for 0.

    Returns:
        The exit code: 2 after bad input (``ValueError``, which data and checkpoint errors are,
        ``FloatingPointError``, ``OSError``) and one line about it, 130 after Ctrl-C.

    Raises:
        ValueError, FloatingPointError, OSError: with ``KGMGT_DEBUG=1``, for the traceback.
    """
    try:
        with _sure_to_be_interrupted():
            return work() or 0
    except (ValueError, FloatingPointError, OSError) as error:
        if os.environ.get(DEBUG):
            raise
        return fail(str(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


@contextlib.contextmanager
def _sure_to_be_interrupted() -> Iterator[None]:
    """Ctrl-C raises ``KeyboardInterrupt`` where somebody gets it.

    What is raised in a callback of the garbage collector is lost. JAX has one, which is most often
    the first Python code that runs after its own in C++.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        callbacks = {getattr(callback, "__code__", None) for callback in gc.callbacks}
        if frame is None or frame.f_code not in callbacks:
            raise KeyboardInterrupt
        again = threading.Timer(_AGAIN, signal.raise_signal, (number,))
        again.daemon = True
        again.start()

    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def fail(message: str) -> int:
    """Prints one line on what is wrong; returns the exit code for it."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def aligned(rows: Sequence[Sequence[str]], *, n_left: int = 1) -> list[str]:
    """Lines with the columns below each other: the first ``n_left`` to the left, others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def cell(i: int, text: str) -> str:
        return text.ljust(widths[i]) if i < n_left else text.rjust(widths[i])

    return ["   ".join(cell(i, text) for i, text in enumerate(row)).rstrip() for row in rows]
