"""How fast does data reach the training step, and does memory stay flat?

    python benchmarks/data_throughput.py

Makes phantoms of 256 x 256 pixels, 10 coils and 12 frames, prepares them once, and draws random
triplets two ways in turn: by the training pipeline from the prepared set, and by a loop that opens
the compressed .mat for every item and then does the same to it. Prints items a second of both, and
how much memory the pipeline's process gained from its 500th item to its last.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import jax
import numpy as np

from kgmgt_jax.data.augmentation import Augmentation
from kgmgt_jax.data.mask_sampler import MaskSampler
from kgmgt_jax.data.phantom import write_cmrxrecon2023
from kgmgt_jax.data.pipeline import TripletOptions, make_training_loader
from kgmgt_jax.data.prepared import PreparedSet
from kgmgt_jax.data.transforms import ifft2c, triplet_of_images

SIZE, N_COILS, N_FRAMES, N_SLICES = 256, 10, 12, 2
OPTIONS = TripletOptions(MaskSampler(("variable_density", "kt_gaussian"), (6.0, 10.0), 8))
WARM_UP = 500


def main() -> None:
    """Makes the data, runs both ways in turn, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=5000, help="items of the pipeline")
    parser.add_argument("--loop_items", type=int, default=20, help="items of the loop, each time")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--workers", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files, prepared = _make_data(Path(folder))
        before = _loop(files, prepared, arguments.loop_items)
        rate, growth, peak = _pipeline(prepared, arguments)
        after = _loop(files, prepared, arguments.loop_items)
    loop = (before + after) / 2
    print(f"{SIZE} x {SIZE}, {N_COILS} coils, triplets")
    print(f"pipeline, prepared set   {rate:8.1f} items/s   ({rate / loop:.1f} times the loop)")
    print(
        f"loop, compressed .mat    {loop:8.1f} items/s   ({before:.2f} before, {after:.2f} after)"
    )
    print(
        f"memory                   {growth:8.0f} MiB gained from item {WARM_UP} to item "
        f"{arguments.items}, peak {peak:.0f} MiB"
    )


def _make_data(folder: Path) -> tuple[list[Path], PreparedSet]:
    """Fully sampled files of two phantom patients, and the same prepared."""
    shape = {"shape": (SIZE, SIZE), "n_frames": N_FRAMES, "n_slices": N_SLICES}
    files = write_cmrxrecon2023(folder / "mat", [0, 1], accelerations=(), n_coils=N_COILS, **shape)
    out = folder / "prepared"
    command = ["prepare", str(folder / "mat"), "--out", str(out), "--split", "1,0,0"]
    subprocess.run([sys.executable, "-m", "kgmgt_jax.data", *command], check=True)
    return files, PreparedSet(out, split="train")


def _pipeline(source: PreparedSet, arguments: argparse.Namespace) -> tuple[float, float, float]:
    """Items a second, and MiB gained and held at most, of the training pipeline."""
    loader = make_training_loader(
        source, OPTIONS, batch_size=arguments.batch_size, worker_count=arguments.workers
    )
    n_batches, warm = arguments.items // arguments.batch_size, WARM_UP // arguments.batch_size
    start, memory = 0.0, 0.0
    for i in range(n_batches):
        if i == min(warm, n_batches // 2):
            start, memory, first = time.perf_counter(), _resident_mib(), i
        next(loader)
    rate = (n_batches - first) * arguments.batch_size / (time.perf_counter() - start)
    growth = _resident_mib() - memory
    loader.close()
    return rate, growth, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _loop(files: list[Path], prepared: PreparedSet, n_items: int) -> float:
    """Items a second of a loop over the files; the sensitivities are a present to it."""
    rng = np.random.default_rng(0)
    start = time.perf_counter()
    for _ in range(n_items):
        number, t = int(rng.integers(len(prepared.slices))), int(rng.integers(N_FRAMES))
        path, z = files[number // N_SLICES], number % N_SLICES
        frames = sorted({(t - 1) % N_FRAMES, t, (t + 1) % N_FRAMES})
        with h5py.File(path) as file:
            raw = file["kspace_full"][frames, z]
        images = ifft2c((raw["real"] + 1j * raw["imag"]).astype(np.complex64))
        images, sens = Augmentation().apply(images, prepared.sens(number), rng)
        mask = OPTIONS.masks.draw(rng, (N_FRAMES, SIZE, SIZE))[frames]
        before, target, after = (frames.index(i % N_FRAMES) for i in (t - 1, t, t + 1))
        triplet_of_images(images, mask, sens, (before, target, after))
    return n_items / (time.perf_counter() - start)


def _resident_mib() -> float:
    """Memory of this process that is in RAM now, of files that it has mapped too."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    main()
