"""What the three scripts share: compilation cache, logging, and errors a user can act on."""

import contextlib
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from kgmgt_jax.commands import DEBUG, fail, guarded

__all__ = ["LESS_MEMORY", "define_config", "define_loading", "run"]

LESS_MEMORY = "--frames_at_once=1 and --dtype=bfloat16 need least"
"""Of scripts that reconstruct."""

flags.disclaim_key_flags()  # flags defined here are the script's own, which --help lists


def run(
    main: Callable[[list[str]], int | None],
    *,
    cache: Callable[[], str | Path] | None = None,
    takes_arguments: bool = False,
    less_memory: str = "",
) -> None:
    """Runs a script's ``main(argv)`` under absl.

    It ends as ``commands.guarded`` says; wrong flags end with one line and exit code 2, too.

    Args:
        main: the script.
        cache: names the folder of compiled programs, once flags are read; without it they are in
            the user's cache. ``JAX_COMPILATION_CACHE_DIR`` goes first.
        takes_arguments: whether ``argv`` may hold more than flags.
        less_memory: what a user can do where memory does not suffice.
    """

    def script(argv: list[str]) -> int:
        _quiet_libraries()
        _use_compilation_cache(cache)
        if argv[1:] and not takes_arguments:
            return fail(f"unexpected arguments: {' '.join(argv[1:])}")
        return guarded(lambda: main(argv), less_memory=less_memory)

    app.run(script, flags_parser=_parse_flags)


def define_config(default: str) -> flags.FlagHolder:
    """Defines ``--config=FILE[:variant]``, with ``--config.section.field=value`` for its fields.

    A field that the configuration does not have ends the script with one line and exit code 2.

    Args:
        default: the file taken without the flag.
    """
    with _exit_on_wrong_flags():  # ml_collections looks at the fields as it defines the flag
        return config_flags.DEFINE_config_file("config", default, "Configuration[:variant].")


def define_loading() -> Callable[[], dict[str, Any]]:
    """Defines what scripts that reconstruct let a user say of a checkpoint's network.

    Returns:
        What gives the flags' values as arguments of ``evaluation.methods.Method.load``.
    """
    as_trained = "As in training, if not given."
    circular = flags.DEFINE_boolean(
        "circular",
        None,
        "Whether the last frame precedes the first; --nocircular for real-time cines. "
        f"{as_trained}",
    )
    told = "Frames that the network reconstructs together: more fill a GPU, and take more memory."
    frames = flags.DEFINE_integer("frames_at_once", 1, told, lower_bound=1)
    copies = flags.DEFINE_integer(
        "self_ensemble",
        1,
        "How many mirrored and rephased copies of a cine, up to 8, the network reconstructs for "
        "the mean of their images; it takes so many times as long.",
        lower_bound=1,
        upper_bound=8,
    )
    coils = flags.DEFINE_integer(
        "virtual_coils",
        None,
        "Most coils, 2 or more: files that have more are compressed to so many as they are read; "
        f"0 leaves all. {as_trained}",
        lower_bound=0,
    )
    flags.register_validator(coils, lambda n: n != 1, "expected 2 or more, or 0 to leave all coils")
    dtype = flags.DEFINE_enum(
        "dtype", None, ["float32", "bfloat16"], f"Precision of the network. {as_trained}"
    )
    pallas = flags.DEFINE_boolean(
        "pallas",
        None,
        f"Whether KGMgT has the package's own kernels on an NVIDIA GPU. {as_trained}",
    )
    unroll = flags.DEFINE_boolean(
        "unroll", None, f"Whether KGMgT's blocks are compiled one by one, for GPUs. {as_trained}"
    )
    fields = {"dtype": dtype, "pallas": pallas, "unroll": unroll}
    return lambda: {
        "circular": circular.value,
        "frames_at_once": frames.value,
        "self_ensemble": copies.value,
        "virtual_coils": coils.value,
        "computing": {name: f.value for name, f in fields.items() if f.value is not None},
    }


def _parse_flags(argv: list[str]) -> list[str]:
    with _exit_on_wrong_flags():
        rest = flags.FLAGS(argv)
        if "config" in flags.FLAGS:
            getattr(flags.FLAGS["config"].value, "model", None)  # only this misses a missing file
        return rest


@contextlib.contextmanager
def _exit_on_wrong_flags() -> Iterator[None]:
    try:
        yield
    except (flags.Error, AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        if os.environ.get(DEBUG):
            raise
        sys.exit(fail(_about_flags(str(error))))
    except (NameError, SyntaxError) as error:  # a file of JSON or YAML, or of no code at all
        if os.environ.get(DEBUG):
            raise
        sys.exit(fail(f"--config: expected a configuration in Python, got {error}"))


def _about_flags(message: str) -> str:
    """One line: the last of a traceback, or the flag whose field ConfigDict only quotes."""
    if "Traceback" in message:
        return message.strip().splitlines()[-1].strip()
    text = " ".join(message.replace("\\n", " ").split())
    missing = re.search(r"No such file or directory: '(.+)'", text)
    if missing:
        return f"{missing[1]}: no such file"
    field = re.match(r"""["'\\]+(\w+)["'\\]+(.*)""", text)
    wrong = [a for a in sys.argv if field and field[1] in a.partition("=")[0].split(".")[1:]]
    if field and wrong:
        hint = field[2].strip(" '\"")
        return f"{wrong[0]}: the configuration has no field {field[1]!r}" + (hint and f"; {hint}")
    return text


def _quiet_libraries() -> None:
    """Our own messages at INFO, plain; those of Orbax, JAX and others from WARNING on.

    An error that they log and then raise is for the one line a script ends with: its tracebacks,
    and asyncio's hundreds for a full disk, are shown with ``KGMGT_DEBUG=1`` only.
    """
    absl_logging.set_verbosity(absl_logging.WARNING)
    if not os.environ.get(DEBUG):
        logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)
        absl_logging.get_absl_handler().addFilter(_without_traceback)
    ours = logging.getLogger("kgmgt_jax")
    ours.setLevel(logging.INFO)
    ours.propagate = False
    ours.addHandler(logging.StreamHandler())


def _without_traceback(record: logging.LogRecord) -> bool:
    record.exc_info = record.exc_text = None
    return True


def _use_compilation_cache(folder: Callable[[], str | Path] | None) -> None:
    if getattr(jax.config, "jax_compilation_cache_dir", None):
        return  # JAX_COMPILATION_CACHE_DIR
    if folder is None:
        with contextlib.suppress(RuntimeError):  # a user without a home, as in containers
            root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
            jax.config.update("jax_compilation_cache_dir", str(root / "kgmgt_jax" / "xla"))
    else:
        jax.config.update("jax_compilation_cache_dir", str(Path(folder()).absolute()))
