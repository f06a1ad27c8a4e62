"""How long does it take to fill the inputs of a slice, on one thread and on all cores?

    python benchmarks/filling.py

Noise of 12 frames; each measures a sixth of the lines, others than the frame before. The steps are
counted, so that time does not depend on the content.
"""

import argparse
import os
import time

import numpy as np
import scipy.fft

from kgmgt_jax.data.filling import fill_gaps

_FRAMES, _SPACING = 12, 6
_SIZES = ((1, 224, 64), (5, 224, 64), (10, 204, 448))


def _slice(n_coils: int, height: int, width: int) -> dict:
    """K-space, its mask and, for several coils, maps of unit sum of squares."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((2, _FRAMES + 1, n_coils, height, width), np.float32)
    *kspace, maps = noise[0] + 1j * noise[1]
    frame, line = np.ogrid[:_FRAMES, :height]
    lines = (line - frame) % _SPACING == 0
    mask = np.broadcast_to(lines[..., None], (_FRAMES, height, width)).astype(np.float32)
    sens = None if n_coils == 1 else maps / np.sqrt((np.abs(maps) ** 2).sum(axis=0))
    return {"kspace": np.stack(kspace), "mask": mask, "sens": sens}


def _seconds(arrays: dict, way: str, n_threads: int, rounds: int) -> float:
    taken = []
    with scipy.fft.set_workers(n_threads):
        for _ in range(rounds):
            start = time.perf_counter()
            fill_gaps(input_fill=way, **arrays)
            taken.append(time.perf_counter() - start)
    return float(np.median(taken))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="of each, of which the median counts")
    options = parser.parse_args()
    n_cores = os.cpu_count() or 1
    print(f"| coils | size | way | one thread | {n_cores} threads |")
    print("|---|---|---|---|---|")
    for size in _SIZES:
        arrays = _slice(*size)
        for way in ("low_rank", "blended", "locally_low_rank"):
            times = [_seconds(arrays, way, n, options.rounds) for n in (1, n_cores)]
            cells = " | ".join(f"{seconds:.2f} s" for seconds in times)
            print(f"| {size[0]} | {size[1]} x {size[2]} | `{way}` | {cells} |", flush=True)


if __name__ == "__main__":
    main()
