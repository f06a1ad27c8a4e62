"""Prepares a set again and again, killed each time at another step, then to the end.

Run as a program: ``python -m tests.data.prepared.interrupted SOURCE FOLDER STRIDE``. Steps are the
changes that Python makes to files (opened for writing, renamed, linked, made, removed), counted by
an audit hook; each run is a fork that ends itself by SIGKILL just before its step: every one of
``STRIDE``, and all that move the finished set to its place. Prints JSON: the digest of every file
of the uninterrupted set, what differed from it after a kill and a resumption, how many slices were
processed in both together, and whether anything opened a socket or looked for TensorFlow, also
while the finished set was read.
"""

import hashlib
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from kgmgt_jax.data.prepared import PreparedSet, preparing
from tests.data.prepared.conftest import OPTIONS

CHANGES = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of all files below a folder."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def run(source: Path, out: Path, log: Path, last_step: int | None) -> int:
    """Prepares in a fork that may do ``last_step`` steps; its exit status, negative for a signal.

    ``log`` gets a ``p`` for each slice processed, an ``m`` for each move to the place where the set
    shall be, and an ``s`` for each other step.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        _prepare(source, out, log, last_step)
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr)
    finally:
        os._exit(1)


def _prepare(source: Path, out: Path, log: Path, last_step: int | None) -> None:
    notes = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    process, state = preparing.process, {"steps": 0}

    def counted(*args):
        os.write(notes, b"p")
        return process(*args)

    def watch(event, args):
        writes = event == "open" and str(args[0]).startswith(str(out)) and (args[2] or 0) & 3
        if event.startswith("socket.") or (event == "import" and args[0] == "tensorflow"):
            os.write(notes, b"!")
        if writes or event in CHANGES:
            state["steps"] += 1
            moved = event == "os.rename" and Path(args[1]).parent == out
            os.write(notes, b"m" if moved else b"s")
            if state["steps"] - 1 == last_step:
                os.kill(os.getpid(), signal.SIGKILL)

    preparing.process = counted
    sys.addaudithook(watch)
    preparing.prepare(source, out, OPTIONS)
    dataset = tfds.builder_from_directory(out / "cine_frames/1.0.0").as_data_source("train")
    if not np.array_equal(PreparedSet(out).images(0, [0])[0].ravel(), _first(dataset)):
        raise ValueError("TFDS and PreparedSet read different images")


def _first(dataset) -> np.ndarray:
    return np.frombuffer(dataset[0]["images"], np.complex64)


def main(source: Path, folder: Path, stride: int) -> dict:
    """Everything there is to tell."""
    whole, log = folder / "whole", folder / "log"
    code = run(source, whole, log, None)
    first, expected = log.read_text(), digests(whole)
    steps = [i for i in first if i in "ms"]
    n_steps, n_slices = len(steps), first.count("p")
    told = {"exit": code, "n_steps": n_steps, "n_slices": n_slices, "expected": expected}
    told |= {"asked": "!" in first, "differ": [], "processed": [], "looked_finished": []}
    moves = [i for i, kind in enumerate(steps) if kind == "m"]
    for step in sorted({*moves, *range(stride // 2, n_steps, stride)}):
        out, log = folder / f"killed{step}", folder / f"log{step}"
        killed = run(source, out, log, step)
        finished = (out / "checksums.txt").exists()
        if killed != -signal.SIGKILL or (finished and not expected.items() <= digests(out).items()):
            told["looked_finished"].append(step)
        if run(source, out, log, None) != 0 or digests(out) != expected:
            told["differ"].append(step)
        told["processed"].append(log.read_text().count("p"))
    return told


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))))
