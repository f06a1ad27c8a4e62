"""How long do coil maps take, and how good are they?

    python benchmarks/coil_maps.py

A phantom of 208 x 256 pixels, 10 coils, calibrated on 24 lines. Prints for ESPIRiT and adaptive
maps the first call's time, the median of five more, and within the body the mean of |<s, truth>|
and, where `bart` is on the PATH, of |<s, s of bart ecalib -m1>|.

While other programs keep the cores busy, the threads of OpenBLAS wait for each other for seconds
in the one large eigenvalue problem of ESPIRiT: then set OPENBLAS_NUM_THREADS=1.
"""

import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex64

from kgmgt_jax.data.phantom import make_cine
from kgmgt_jax.mri.coils import calibration_block, sens_from_block
from kgmgt_jax.mri.espirit import zero_fill

SHAPE, N_COILS, N_LINES, N_RUNS = (208, 256), 10, 24, 5

Maps = Complex64[np.ndarray, "n h w"]


def main() -> None:
    """Makes the phantom, times both methods, prints the table."""
    cine = make_cine(3, shape=SHAPE, n_frames=2, n_coils=N_COILS)
    everything = jnp.ones((2, *SHAPE), jnp.float32)
    block = calibration_block(jnp.asarray(cine.kspace), everything, N_LINES)
    image = np.abs(cine.image[0])
    body = image > 0.1 * np.percentile(image, 99)
    bart = bart_maps(block, SHAPE) if shutil.which("bart") else None
    print(f"{N_COILS} coils, {SHAPE[0]} x {SHAPE[1]}, {N_LINES} lines, {jax.devices()[0]}")
    print("method     first call    median   |<s, truth>|   |<s, s_bart>|")
    for method in ("espirit", "adaptive"):
        first, median, maps = _timed(lambda method=method: sens_from_block(block, SHAPE, method))
        truth = f"{overlap(maps, cine.sens)[body].mean():.5f}"
        other = "no bart" if bart is None else f"{overlap(maps, bart)[body].mean():.5f}"
        print(f"{method:9} {first:9.2f} s {median:7.3f} s {truth:>14} {other:>15}")


def overlap(maps: Maps, others: Maps) -> np.ndarray:
    """``|<s, s'>|`` at every pixel: the cosine between unit vectors, (h, w)."""
    return np.abs(np.sum(np.conj(maps) * others, axis=0))


def bart_maps(block: Complex64[Array, "n y x"], shape: tuple[int, int], *options: str) -> Maps:
    """Maps of ``bart ecalib -m1`` on the same calibration data.

    Args:
        block: central k-space without gaps.
        shape: rows and columns of the maps.
        options: more options of ecalib.
    """
    h, w = shape
    _, n_rows, n_columns = block.shape
    data = np.asarray(zero_fill(block, shape)).astype(np.complex64)
    with tempfile.TemporaryDirectory() as folder:
        kspace, sens = Path(folder) / "kspace", Path(folder) / "sens"
        sizes = f"{w} {h} 1 {data.shape[0]}"
        kspace.with_suffix(".hdr").write_text(f"# Dimensions\n{sizes}{' 1' * 12}\n")
        data.tofile(kspace.with_suffix(".cfl"))  # C order read backwards: kx ky 1 coil
        region = f"{n_columns}:{n_rows}:1"
        command = ["bart", "ecalib", "-m1", "-r", region, *options, str(kspace), str(sens)]
        subprocess.run(command, check=True, capture_output=True)
        return np.fromfile(sens.with_suffix(".cfl"), np.complex64).reshape(data.shape)


def _timed(estimate: Callable[[], jax.Array]) -> tuple[float, float, Maps]:
    """Seconds of the first call, median seconds of the next, and the maps."""
    times = []
    for _ in range(1 + N_RUNS):
        start = time.perf_counter()
        maps = jax.block_until_ready(estimate())
        times.append(time.perf_counter() - start)
    return times[0], statistics.median(times[1:]), np.asarray(maps)


if __name__ == "__main__":
    main()
