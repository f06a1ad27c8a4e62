"""How long until `reconstruct.py` begins with the frames, compiling or with programs kept?

    python benchmarks/start_up.py

Runs the script as a user would, on a phantom of one coil, with random weights: first with an empty
compilation cache, then again. The frames' own time is taken off: by a cine of one frame, a frame
takes an eleventh of what eleven more frames add.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

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
        long, short = (_cine(folder / str(n), options.size, n) for n in (options.frames, 1))
        cold = _reconstruct(long, checkpoint, folder)
        warm = _reconstruct(long, checkpoint, folder)
        one = _reconstruct(short, checkpoint, folder)
    frames = options.frames * (warm - one) / (options.frames - 1)
    print(
        f":{options.variant}, {options.frames} frames of {options.size} x {options.size}, float32; "
        f"{os.cpu_count()} cores, {processor()}"
    )
    print("compiled programs   whole run   before and after the frames")
    for kept, seconds in (("none", cold), ("kept", warm)):
        print(f"{kept:17} {seconds:9.1f} s {seconds - frames:13.1f} s")
    print(f"a frame: {frames / options.frames:.2f} s")


def _random_weights(path: Path, variant: str) -> Path:
    import jax

    from configs.kgmgt import get_config
    from kgmgt_jax.models.initialisation import initialise
    from kgmgt_jax.training.checkpoint import build_model, save_weights
    from kgmgt_jax.training.state import example_inputs

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


def _reconstruct(path: Path, checkpoint: Path, folder: Path) -> float:
    """Seconds of one run of the script."""
    command = [sys.executable, ROOT / "reconstruct.py", path, f"--checkpoint={checkpoint}"]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")}
    start = time.perf_counter()
    subprocess.run(
        [*command, f"--out={folder / 'out'}"],
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
