"""How every command prints a table, says how far it is, and ends.

It ends with a number for the shell and, if something is wrong, a line about it.
"""

import contextlib
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import jax
from tqdm import tqdm

__all__ = ["DEBUG", "aligned", "fail", "guarded", "one_line", "watched"]

T = TypeVar("T")

DEBUG = "KGMGT_DEBUG"  # environment variable; not empty: tracebacks
_AGAIN = 0.1  # seconds
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")  # and ends of lines


def guarded(work: Callable[[], int | None], *, less_memory: str = "") -> int:
    """Runs a command.

    Args:
        work: the command; returns its exit code, or ``None`` for 0.
        less_memory: what a user can do where memory, of the host or a device, does not suffice.

    Returns:
        The exit code: 2 after bad input (``ValueError``, which data and checkpoint errors are,
        ``FloatingPointError``, ``OSError``) and one line about it, 1 after one that memory does not
        suffice, 130 after Ctrl-C.

    Raises:
        ValueError, FloatingPointError, OSError, MemoryError, JaxRuntimeError: with
            ``KGMGT_DEBUG=1``, for the traceback.
    """
    _keep_cpu()
    try:
        with _no_interruption_lost():
            return work() or 0
    except (ValueError, FloatingPointError, OSError) as error:
        if os.environ.get(DEBUG):
            raise
        return fail(str(error))
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if os.environ.get(DEBUG) or not _of_memory(error):
            raise
        first = (str(error).splitlines() or ["out of memory"])[0].rstrip(".")  # of pages, on a GPU
        fail(f"{first}; {less_memory}" if less_memory else first)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _of_memory(error: MemoryError | jax.errors.JaxRuntimeError) -> bool:
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def _keep_cpu() -> None:
    """Lets JAX use the CPU, too, where ``JAX_PLATFORMS`` names an accelerator alone.

    Masks are drawn and coil maps estimated there. What was named first remains what is used.
    """
    platforms = getattr(jax.config, "jax_platforms", None)
    if platforms and "cpu" not in platforms.split(","):
        jax.config.update("jax_platforms", f"{platforms},cpu")


@contextlib.contextmanager
def _no_interruption_lost() -> Iterator[None]:
    """Sends Ctrl-C again where its ``KeyboardInterrupt`` was raised in vain.

    That is in finalisers and callbacks of the garbage collector. JAX has one, which is most often
    the first Python code that runs after its own in C++.
    """
    before = sys.unraisablehook

    def hook(lost: Any) -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            before(lost)
            return
        main = threading.main_thread().ident  # which the signal wakes, if it waits
        again = threading.Timer(_AGAIN, signal.pthread_kill, (main, signal.SIGINT))
        again.daemon = True
        again.start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def fail(message: str) -> int:
    """Prints one line on what is wrong; returns the exit code for it."""
    print(f"error: {' '.join(one_line(message).split())}", file=sys.stderr)
    return 2


def one_line(text: str) -> str:
    """A text from elsewhere without control characters, which terminals obey: with spaces there."""
    return _CONTROL.sub(" ", text)


def aligned(rows: Sequence[Sequence[str]], *, n_left: int = 1) -> list[str]:
    """Lines with the columns below each other: the first ``n_left`` to the left, others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def cell(i: int, text: str) -> str:
        return text.ljust(widths[i]) if i < n_left else text.rjust(widths[i])

    return ["   ".join(cell(i, text) for i, text in enumerate(row)).rstrip() for row in rows]


def watched(items: Iterable[T], doing: str, n_items: int | None = None) -> Iterable[T]:
    """Files as they are, one by one; a terminal shows how many are done once it takes a second.

    Args:
        items: one a file.
        doing: what is done to them, in a word or two.
        n_items: their number, where they do not tell it.
    """
    shown: Any = {"delay": 1, "leave": False, "dynamic_ncols": True, "disable": None}
    return tqdm(items, desc=doing, total=n_items, unit="file", **shown)
