"""Do the classical methods reach their public references, and how long do they take next to BART?

    python benchmarks/classical.py --data=../shared/data/anchor_cases.h5

For each case and mask of the file (simulated from magnitude images, one coil) prints PSNR and SSIM
(preset ``frame``, mean over the frames), the reference's, and seconds for a whole cine after
compilation. Where ``bart`` is on the PATH, it solves the same problem in turn with ours (temporal
total variation also stands beside k-t FOCUSS and L+S, which it lacks). Seconds are medians over
the repeats: of the clock, and of both cores' work, which other programs on the machine disturb
less. BART's include reading and writing its files.
"""

import argparse
import dataclasses
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import h5py
import jax
import jax.numpy as jnp
import numpy as np

from kgmgt_jax.classical import METHODS
from kgmgt_jax.metrics import evaluate
from kgmgt_jax.mri import forward

PIG, CENTRE3 = "pig_sax06", "Center003_Center003-P004__cine_sax__1"
# PSNR in dB and SSIM of: BART 0.8 (-i80) for total variation, wavelets and locally low rank; NumPy
# for the others.
REFERENCES = {
    (PIG, "kt", 6): {
        "zero_filled": (28.95, 0.837),
        "kt_focuss": (38.60, 0.924),
        "low_rank_plus_sparse": (39.75, 0.940),
        "temporal_tv": (40.62, 0.936),
        "locally_low_rank": (40.43, 0.940),
    },
    (PIG, "kt", 10): {
        "zero_filled": (28.07, 0.828),
        "kt_focuss": (36.05, 0.896),
        "low_rank_plus_sparse": (35.55, 0.911),
        "temporal_tv": (38.28, 0.913),
        "locally_low_rank": (37.74, 0.916),
    },
    (CENTRE3, "kt", 6): {
        "zero_filled": (18.45, 0.597),
        "kt_focuss": (28.33, 0.851),
        "low_rank_plus_sparse": (26.39, 0.842),
        "temporal_tv": (28.98, 0.859),
        "locally_low_rank": (31.93, 0.927),
    },
    (CENTRE3, "kt", 10): {
        "zero_filled": (17.73, 0.566),
        "kt_focuss": (24.22, 0.746),
        "low_rank_plus_sparse": (22.56, 0.739),
        "temporal_tv": (24.40, 0.750),
        "locally_low_rank": (27.75, 0.870),
    },
    (PIG, "fixed", 6): {
        "zero_filled": (29.21, 0.836),
        "spatial_tv": (36.08, 0.900),
        "wavelet": (34.89, 0.907),
    },
    (PIG, "fixed", 10): {
        "zero_filled": (28.16, 0.823),
        "spatial_tv": (32.80, 0.880),
        "wavelet": (31.03, 0.868),
    },
    (CENTRE3, "fixed", 6): {
        "zero_filled": (18.25, 0.584),
        "spatial_tv": (20.94, 0.715),
        "wavelet": (20.45, 0.706),
    },
    (CENTRE3, "fixed", 10): {
        "zero_filled": (17.48, 0.558),
        "spatial_tv": (19.11, 0.660),
        "wavelet": (18.62, 0.640),
    },
}
TEMPORAL_BART = "T:1024:0:0.01"
BART = {
    "kt_focuss": TEMPORAL_BART,
    "low_rank_plus_sparse": TEMPORAL_BART,
    "temporal_tv": TEMPORAL_BART,
    "locally_low_rank": "L:3:3:0.003",
    "spatial_tv": "T:3:0:0.03",
    "wavelet": "W:3:0:0.01",
}
BART_TIME_AXIS = 10


@dataclasses.dataclass
class Row:
    """One line of the table; seconds as (clock, cores), ``None`` where not measured."""

    case: str
    kind: str
    acceleration: int
    method: str
    psnr: float
    ssim: float
    reference_psnr: float
    reference_ssim: float
    seconds: tuple[float, float] | None
    bart_seconds: tuple[float, float] | None

    def __str__(self) -> str:
        return (
            f"{self.case[:9]:9s} {self.kind:5s} {self.acceleration:2d}x {self.method:20s} "
            f"{self.psnr:6.2f} / {self.ssim:.3f}   {self.reference_psnr:6.2f} / "
            f"{self.reference_ssim:.3f}   {self.psnr - self.reference_psnr:+6.2f}   "
            f"{_pair(self.seconds)}   {_pair(self.bart_seconds)}"
        )


def _pair(seconds: tuple[float, float] | None) -> str:
    return f"{'-':>6s} {'-':>6s}" if seconds is None else f"{seconds[0]:6.2f} {seconds[1]:6.2f}"


def main() -> None:
    """Prints the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="anchor_cases.h5")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each method")
    parser.add_argument("--nobart", action="store_true", help="do not run bart")
    arguments = parser.parse_args()
    bart = None if arguments.nobart else shutil.which("bart")
    print(f"{'case':9s} {'mask':5s} {'R':>3s} {'method':20s} {'PSNR / SSIM here':16s} ", end="")
    print(" reference        difference   s here (clock, cores)   s bart (clock, cores)")
    for row in rows(arguments.data, arguments.repeats, bart):
        print(row, flush=True)


def rows(data: Path, repeats: int, bart: str | None) -> Iterator[Row]:
    """Reconstructs and scores every case by every method that has a reference for it.

    Args:
        data: the file of cases.
        repeats: timed runs, ours and BART's in turn; none if 0.
        bart: the program, or ``None``.
    """
    for (case, kind, acceleration), references in REFERENCES.items():
        image, kspace, mask = load(data, case, kind, acceleration)
        runs = {name: partial(METHODS[name].reconstruct, kspace, mask) for name in references}
        found = {name: evaluate(np.abs(image), np.abs(run())) for name, run in runs.items()}
        seconds = _time(runs, kspace, repeats, bart)
        for method, reference in references.items():
            here = (float(found[method][score].mean()) for score in ("psnr", "ssim"))
            times = (seconds.get(method), seconds.get(BART.get(method, "")))
            yield Row(case, kind, acceleration, method, *here, *reference, *times)


def load(
    data: Path, case: str, kind: str, acceleration: int
) -> tuple[np.ndarray, jax.Array, jax.Array]:
    """The image, its measured k-space and the mask, with phase encoding along the rows."""
    with h5py.File(data) as file:
        group = file[case]
        image = group["image"][()]
        lines = group[f"mask_{kind}_{acceleration}x"][()].astype(np.float32)
        if group.attrs["phase_axis"] == "x":
            image = image.swapaxes(1, 2)
    mask = jnp.asarray(np.repeat(lines[:, :, None], image.shape[2], axis=2))
    return image, forward(jnp.asarray(image), mask), mask


def _time(
    runs: dict[str, Callable[[], jax.Array]], kspace: jax.Array, repeats: int, bart: str | None
) -> dict[str, tuple[float, float]]:
    """Median seconds of each method, and of each problem that BART solves for one of them."""
    measured: dict[str, list[tuple[float, float]]] = {}
    problems = {BART[name] for name in runs if name in BART} if bart else set()
    with tempfile.TemporaryDirectory() as folder:
        files = _write_bart_files(Path(folder), kspace)
        for _ in range(repeats):
            for name, run in runs.items():
                seconds = _seconds(lambda run=run: run().block_until_ready(), resource.RUSAGE_SELF)
                measured.setdefault(name, []).append(seconds)
            for problem in sorted(problems):
                command = [bart, "pics", "-S", "-d0", "-i80", "-R", problem, *files]
                seconds = _seconds(partial(_run, command), resource.RUSAGE_CHILDREN)
                measured.setdefault(problem, []).append(seconds)
    return {name: tuple(np.median(values, axis=0)) for name, values in measured.items()}


def _seconds(run: Callable[[], object], who: int) -> tuple[float, float]:
    """Seconds of the clock and of all cores."""
    before, start = resource.getrusage(who), time.perf_counter()
    run()
    clock, after = time.perf_counter() - start, resource.getrusage(who)
    return clock, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True)


def _write_bart_files(folder: Path, kspace: jax.Array) -> list[str]:
    """K-space and a coil of ones as BART's files: their names, and that of its image to be."""
    n_frames, _, height, width = kspace.shape
    _write_cfl(folder / "kspace", kspace[:, 0], {0: width, 1: height, BART_TIME_AXIS: n_frames})
    _write_cfl(folder / "sens", jnp.ones((height, width)), {0: width, 1: height})
    return [str(folder / name) for name in ("kspace", "sens", "image")]


def _write_cfl(path: Path, array: jax.Array, sizes: dict[int, int]) -> None:
    """BART's format: sizes in a text file, column-major complex64 beside it."""
    dimensions = " ".join(str(sizes.get(axis, 1)) for axis in range(16))
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{dimensions}\n")
    np.asarray(array, np.complex64).tofile(path.with_suffix(".cfl"))


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    main()
