"""What the three scripts share: compilation cache, logging, and errors a user can act on."""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import jax
from absl import app
from absl import logging as absl_logging

__all__ = ["run"]


def run(main: Callable[[list[str]], int | None]) -> None:
    """Runs a script's ``main(argv)`` under absl.

    Bad input (``ValueError``, which data and checkpoint errors are, ``FloatingPointError``,
    ``OSError``) ends with one line and exit code 2, Ctrl-C with 130; ``KGMGT_DEBUG=1`` shows the
    traceback.
    """

    def guarded(argv: list[str]) -> int | None:
        _quiet_libraries()
        _use_compilation_cache()
        if argv[1:] and not getattr(main, "takes_arguments", False):
            return _fail(f"unexpected arguments: {' '.join(argv[1:])}")
        try:
            return main(argv)
        except (ValueError, FloatingPointError, OSError) as error:
            if os.environ.get("KGMGT_DEBUG"):
                raise
            return _fail(" ".join(str(error).split()))
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130

    app.run(guarded)


def _quiet_libraries() -> None:
    """Our own messages at INFO, plain; those of Orbax, JAX and others from WARNING on."""
    absl_logging.set_verbosity(absl_logging.WARNING)
    ours = logging.getLogger("kgmgt_jax")
    ours.setLevel(logging.INFO)
    ours.propagate = False
    ours.addHandler(logging.StreamHandler())


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


def _use_compilation_cache() -> None:
    """Keeps compiled programs in JAX_COMPILATION_CACHE_DIR, by default in the user's cache."""
    if not getattr(jax.config, "jax_compilation_cache_dir", None):
        root = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", str(root / "kgmgt_jax" / "xla"))
