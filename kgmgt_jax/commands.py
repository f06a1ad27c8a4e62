"""How every command prints a table, and ends: a number for the shell, a line on what is wrong."""

import os
import sys
from collections.abc import Callable, Sequence

__all__ = ["DEBUG", "aligned", "fail", "guarded"]

DEBUG = "KGMGT_DEBUG"  # environment variable; not empty: tracebacks


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
        return work() or 0
    except (ValueError, FloatingPointError, OSError) as error:
        if os.environ.get(DEBUG):
            raise
        return fail(str(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


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
