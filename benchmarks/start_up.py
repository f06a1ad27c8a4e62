"""How long until `reconstruct.py` begins with the frames, compiling or with programs kept?

    python benchmarks/start_up.py

Runs the script as a user would, on a phantom of one coil, with random weights: first with an empty
compilation cache, then again. Its progress bar tells when frames are done: the time a frame takes
is that between the first and the last of them, and the time before the frames is what is left of
the first one's.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.processes import ROOT, processor


def main() -> None:
    """Makes weights and files, runs the script and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", default="base", help="of configs/kgmgt.py")
    parser.add_argument("--size", type=int, default=256, help="height and width")
    parser.add_argument("--frames", type=int, default=12)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = _random_weights(folder / "weights", options.variant)
        path = _cine(folder, options.size, options.frames)
        runs = {kept: _reconstruct(path, checkpoint, folder) for kept in ("none", "kept")}
    print(
        f":{options.variant}, {options.frames} frames of {options.size} x {options.size}, float32; "
        f"{os.cpu_count()} cores, {processor()}"
    )
    print("compiled programs   before the frames   a frame   whole run")
    for kept, run in runs.items():
        print(f"{kept:17} {run.before:17.1f} s {run.frame:7.2f} s {run.whole:9.1f} s")


class Run(NamedTuple):
    """Seconds: until the frames begin, for one frame, and for the whole script."""

    before: float
    frame: float
    whole: float


def _random_weights(path: Path, variant: str) -> Path:
    import jax

    from configs.kgmgt import get_config
    from kgmgt_jax.models.initialisation import initialise
    from kgmgt_jax.models.registry import build_model
    from kgmgt_jax.training.state import example_inputs
    from kgmgt_jax.training.weights import save_weights

    config: Any = get_config(variant)
    variables = initialise(build_model(config.model), 0, *example_inputs())
    return save_weights(path, config.to_dict(), jax.device_get(variables))


def _cine(folder: Path, size: int, n_frames: int) -> Path:
    """The path of an undersampled file."""
    from kgmgt_jax.data.phantom import write_cmrxrecon2023

    write_cmrxrecon2023(
        folder, [0], shape=(size, size), n_frames=n_frames, n_coils=1, n_slices=1, accelerations=[4]
    )
    (path,) = folder.rglob("AccFactor04/*/cine_sax.mat")
    return path


def _reconstruct(path: Path, checkpoint: Path, folder: Path) -> Run:
    """One run of the script."""
    command = [sys.executable, ROOT / "reconstruct.py", path, f"--checkpoint={checkpoint}"]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")}
    start = time.perf_counter()
    done: dict[int, float] = {}  # seconds by number of frames that the progress bar has shown
    with subprocess.Popen(
        [*command, f"--out={folder / 'out'}"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        while text := os.read(process.stderr.fileno(), 4096):
            for count in re.findall(rb"(\d+)/\d+ \[", text):
                done.setdefault(int(count), time.perf_counter() - start)
    whole = time.perf_counter() - start
    if process.returncode:
        raise RuntimeError(f"reconstruct.py ended with {process.returncode}")
    first, last = sorted(done)[1], max(done)  # after the empty bar
    frame = (done[last] - done[first]) / (last - first)
    return Run(done[first] - first * frame, frame, whole)


if __name__ == "__main__":
    main()
