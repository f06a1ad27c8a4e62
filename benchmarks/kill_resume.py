"""Does a run that was killed end where an undisturbed one ends, bit for bit?

    python benchmarks/kill_resume.py

Trains `:tiny`, smaller still and with a critic, for 20 steps on 32 x 32 phantoms, undisturbed. Then
20 times: trains it anew, ends the process with `kill -9` at a random moment around step 10, every
second time while a checkpoint is being written; resumes in another process to step 20; and compares
both networks, optimisers, averaged parameters, random key and data position with those of the
undisturbed run. A process first resumes what the last one left and then begins the run it will be
killed in, so that there are 21 of them. The compiled step is kept between processes.
"""

import argparse
import concurrent.futures
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
N_STEPS, EVERY, AROUND = 20, 5, (7, 13)  # AROUND: steps after which a process is killed
POLL, PATIENCE = 0.001, 600.0  # seconds


class Kill(NamedTuple):
    """One kill and what came of it."""

    moment: str
    unfinished: str
    resumed: int
    differing: list[str]


def main(arguments: list[str] | None = None) -> int:
    """Runs everything and prints the table; 1 if any run ended elsewhere."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--jobs", type=int, default=2, help="kills tried side by side")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        return _work(options.worker)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with Worker(root) as worker:
            worker.train(root / "undisturbed")
            worker.finish()
        shares = [range(i, options.kills, options.jobs) for i in range(options.jobs)]
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            kills = list(pool.map(lambda share: _kills(root, share, options.seed), shares))
    kills = [kill for kill in itertools.chain(*itertools.zip_longest(*kills)) if kill]
    seconds = time.perf_counter() - start
    return _report(kills, seconds)


def _report(kills: list[Kill], seconds: float) -> int:
    titles = ("kill", "killed", "left unfinished", "resumed from", f"identical at {N_STEPS}")
    rows = [
        (str(number), kill.moment, kill.unfinished, str(kill.resumed), _same(kill.differing))
        for number, kill in enumerate(kills, 1)
    ]
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    for row in (titles, *rows):
        print("  ".join(map(str.ljust, row, widths)).rstrip())
    n_same = sum(not kill.differing for kill in kills)
    n_inside = sum(kill.unfinished != "none" for kill in kills)
    print(
        f"{n_same} of {len(kills)} identical, {n_inside} killed inside a save; {seconds:.0f} s on "
        f"{os.cpu_count()} cores"
    )
    return int(n_same < len(kills))


def _same(differing: list[str]) -> str:
    return f"NO: {len(differing)} arrays, {differing[0]}" if differing else "yes"


def _kills(root: Path, share: range, seed: int) -> list[Kill]:
    """Kills of one chain of processes."""
    kills: list[Kill] = []
    left: tuple[Path, str, str, int] | None = None
    for number in [*share, None]:
        with Worker(root) as worker:
            if left:
                workdir, moment, unfinished, resumed = left
                worker.train(workdir)
                kills.append(Kill(moment, unfinished, resumed, _differing(root, workdir)))
                shutil.rmtree(workdir)
            if number is None:
                worker.finish()
                break
            workdir = root / f"killed_{number}"
            moment = worker.kill_in(workdir, random.Random(f"{seed}, {number}"), number % 2 == 1)
        complete, unfinished = _checkpoints(workdir)
        left = workdir, moment, ", ".join(unfinished) or "none", max(complete)
    return kills


class Worker:
    """A process that trains in one working directory after another, compiling once."""

    def __init__(self, root: Path):
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "",
            "JAX_COMPILATION_CACHE_DIR": str(root / "xla"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        self._errors = (root / f"worker_{time.time_ns()}.log").open("w")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.kill_resume", "--worker", str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=ROOT,
            env=environment,
        )

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()
        self._errors.close()

    def begin(self, workdir: Path) -> None:
        """Sends the process off to train to the end."""
        self._process.stdin.write(f"{workdir}\n")
        self._process.stdin.flush()

    def train(self, workdir: Path) -> None:
        """Trains to the end, resuming what is there."""
        self.begin(workdir)
        if self._process.stdout.readline().strip() != str(workdir):
            self._broke_down()

    def finish(self) -> None:
        """Lets the process end by itself."""
        self._process.stdin.close()
        if self._process.wait():
            self._broke_down()

    def kill_in(self, workdir: Path, moments: random.Random, inside_save: bool) -> str:
        """Begins a run and kills the process in it; says when."""
        self.begin(workdir)
        step, part = moments.randint(*AROUND), moments.random()
        if inside_save:
            step = EVERY * round(step / EVERY)
            self._until(lambda: str(step) in _checkpoints(workdir)[1])
            delay = 0.02 * part
        else:
            began = self._until(lambda: _logged(workdir) >= step - 1)
            delay = part * (self._until(lambda: _logged(workdir) >= step) - began)
        time.sleep(delay)
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()
        moment = f"{1000 * delay:.0f} ms"
        return f"{moment} into the save of {step}" if inside_save else f"{moment} after step {step}"

    def _until(self, happened: Any) -> float:
        """Waits for a condition; the time at which it was met."""
        for _ in _clock():
            if self._process.poll() is not None:
                self._broke_down()
            if happened():
                return time.perf_counter()
        raise TimeoutError(f"waited {PATIENCE:.0f} s for a worker")

    def _broke_down(self) -> None:
        self._errors.flush()
        tail = Path(self._errors.name).read_text()[-2000:]
        raise RuntimeError(f"a worker ended by itself: {tail}")


def _clock() -> Iterator[None]:
    end = time.perf_counter() + PATIENCE
    while time.perf_counter() < end:
        yield
        time.sleep(POLL)


def _logged(workdir: Path) -> int:
    """The last step in a run's log."""
    log = workdir / "metrics.jsonl"
    return log.read_text().count("\n") if log.is_file() else 0


def _checkpoints(workdir: Path) -> tuple[list[int], list[str]]:
    """Steps of complete checkpoints, and of saves that are not complete."""
    folder = workdir / "checkpoints"
    names = os.listdir(folder) if folder.is_dir() else []
    unfinished = [name.split(".")[0] for name in names if "tmp" in name]
    return [int(name) for name in names if name.isdigit()], unfinished


def _differing(root: Path, workdir: Path) -> list[str]:
    """What of two runs' last checkpoints is not the same bit for bit."""
    import jax
    import numpy as np

    from kgmgt_jax.training.weights import load_item

    trees = []
    for run in (root / "undisturbed", workdir):
        last = run / "checkpoints" / str(N_STEPS)
        tree = {name: jax.device_get(load_item(last, name)) for name in ("weights", "state")}
        position = next(path for path in (last / "data").iterdir() if path.is_file())
        flat = jax.tree_util.tree_leaves_with_path(tree)
        arrays = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in flat}
        trees.append({name: (x.dtype, x.shape, x.tobytes()) for name, x in arrays.items()})
        trees[-1]["data position"] = json.loads(position.read_text())
    return [n for n in {**trees[0], **trees[1]} if trees[0].get(n) != trees[1].get(n)]


def _work(root: Path) -> int:
    """A worker's side: trains in each directory it reads, and writes its name when done."""
    from configs.kgmgt import get_config
    from kgmgt_jax.data.phantom import write_cmrxrecon2023
    from kgmgt_jax.training import loop

    data = root / "data"
    if not data.is_dir():
        size: Any = {"shape": (32, 32), "n_frames": 4, "n_slices": 1, "acs": 8}
        write_cmrxrecon2023(data, range(4), accelerations=(), **size)
    config = get_config("tiny")
    config.model.update(channels=(4, 4, 4), width=4, denoiser_channels=4, n_iterations=1)
    config.model.update(rect_window=None, alignment=False, tie_weights=True, drop_path=0.1)
    config.critic.update(width=2, hidden=4)
    config.loss.adversarial = 1e-3
    config.data.update(train=str(data), crop=(32, 32), acs=4)
    config.train.update(
        n_steps=N_STEPS, log_every=1, checkpoint_every=EVERY, eval_every=N_STEPS, tensorboard=False
    )
    build, updates = loop.build, []

    def build_once(*arguments):
        model, state, update = build(*arguments)
        updates.append(update)
        return model, state, updates[0]

    loop.build = build_once
    for line in sys.stdin:
        loop.train(config, line.strip())
        print(line.strip(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
