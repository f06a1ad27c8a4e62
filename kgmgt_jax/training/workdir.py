"""The working directory of a run: what lies where in it, and whether it can be used."""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

__all__ = [
    "CHECKPOINTS",
    "COMPILED",
    "IMAGES",
    "METRICS",
    "NOT_FINITE",
    "PARAMETERS",
    "PROFILE",
    "TENSORBOARD",
    "claimed",
    "open_workdir",
]

CHECKPOINTS = "checkpoints"  # one folder a step
COMPILED = "xla_cache"  # compiled programs
IMAGES = "images"  # validation pictures
METRICS = "metrics.jsonl"  # one line a logged step
NOT_FINITE = "not_finite"  # batches that ended a run
PARAMETERS = "parameters.txt"  # shape of every parameter
PROFILE = "profile"  # traces of jax.profiler
TENSORBOARD = "tensorboard"  # event files

_OURS = {CHECKPOINTS, COMPILED, IMAGES, METRICS, NOT_FINITE, PARAMETERS, PROFILE, TENSORBOARD}
_LOGS = {".err", ".log", ".out", ".txt"}  # where schedulers and shells put a run's output
_LOCK = ".lock"
_UNFINISHED = ".orbax-checkpoint-tmp"
_SHOWN = 3


def open_workdir(workdir: str | Path) -> Path:
    """The working directory, made if need be, after a look at whether a run can live in it.

    Args:
        workdir: new, empty but for hidden and log files, or that of an earlier run.

    Returns:
        Its absolute path.

    Raises:
        ValueError: if it cannot be made or written to, or holds something else.
    """
    folder = Path(workdir).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"{workdir}: expected a writable folder, got {error}") from error
    foreign = _foreign(folder)
    if foreign:
        shown = ", ".join(foreign[:_SHOWN]) + (", ..." if len(foreign) > _SHOWN else "")
        raise ValueError(
            f"{workdir}: expected a new folder or that of an earlier run, got one with {shown}; "
            "choose another --workdir"
        )
    return folder


@contextlib.contextmanager
def claimed(workdir: Path) -> Iterator[None]:
    """Keeps other runs out of a working directory, until this one ends in whatever way.

    Two at once would remove each other's unfinished checkpoints, and both end. Where the file
    system has no locks, nothing is kept out.

    Raises:
        ValueError: if a run is at work in it.
    """
    path = workdir / _LOCK
    busy = ValueError(
        f"{workdir}: expected a folder that no run is at work in, got one where another is; wait "
        "for its end, or choose another --workdir"
    )
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise busy from error
        except OSError:
            pass
        if not _lies_at(path, lock):  # a run removed it as it ended, and a third may have begun
            raise busy
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _lies_at(path: Path, file: TextIO) -> bool:
    """Whether an open file is the one at a path."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _foreign(folder: Path) -> list[str]:
    """Names in a working directory without checkpoints that no run puts there, in order."""
    inside = folder / CHECKPOINTS
    names = [path.name for path in inside.iterdir()] if inside.is_dir() else []
    if any(name.isdigit() for name in names):
        return []  # a run's folder: what else people keep in it is theirs
    found = [f"{CHECKPOINTS}/{name}" for name in names if _UNFINISHED not in name]
    found += [
        path.name
        for path in folder.iterdir()
        if not (path.name in _OURS or path.name.startswith(".") or path.suffix in _LOGS)
    ]
    return sorted(found)
