"""How every command ends: with a number for the shell, and one line on what is wrong."""

import os
import sys
from collections.abc import Callable

__all__ = ["DEBUG", "fail", "guarded"]

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
