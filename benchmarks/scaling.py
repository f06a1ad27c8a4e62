"""How do time and memory grow with the size of the frames and the length of the cine?

    python benchmarks/scaling.py

1. One frame of a network with a search radius, random weights, float32, sizes from 64 to 384: time,
   peak memory, and the exponents p of ``time ~ pixels^p`` and ``memory ~ pixels^p`` (of what
   reconstructing adds to the process).
2. Cines of 1 to 60 frames, group by group as ``reconstruct.py`` does it.

Each line is a process of its own. Times are medians; memory is the peak resident set.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from processes import Side, in_process, measure, peak_mib, processor, spread

Row = tuple[int, float, float, float]  # size or length, seconds, MiB at the peak, MiB when idle


def main() -> None:
    """Runs every size and length and prints both tables; or, with ``--side``, is one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", default="base", help="of configs/kgmgt.py")
    parser.add_argument("--sizes", default="64,96,128,192,256,384", help="of square frames")
    parser.add_argument("--lengths", default="1,2,4,8,15,30,60", help="of cines")
    parser.add_argument("--cine_size", type=int, default=64, help="height and width of cines")
    parser.add_argument("--calls", type=int, default=3, help="timed calls a line")
    parser.add_argument("--figure", type=Path, help="picture of both tables to write")
    parser.add_argument("--side", choices=("line",), help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--length", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(_line(options)))
        return
    sizes = [_row(size, size, 1) for size in _integers(options.sizes)]
    print(f":{options.variant}, float32; {os.cpu_count()} cores, {processor()}")
    _print("size", sizes)
    pixels = np.array([row[0] ** 2 for row in sizes])
    time = _exponent(pixels, [row[1] for row in sizes])
    memory = _exponent(pixels, [row[2] - row[3] for row in sizes])
    print(f"time ~ pixels^{time:.2f}, added memory ~ pixels^{memory:.2f}")
    lengths = [_row(n, options.cine_size, n) for n in _integers(options.lengths)]
    print(f"cines of {options.cine_size} x {options.cine_size}")
    _print("frames", lengths)
    time = _exponent(np.array([row[0] for row in lengths]), [row[1] for row in lengths])
    more = lengths[-1][2] - lengths[0][2]
    print(f"time ~ frames^{time:.2f}; the longest takes {more:+.0f} MiB against the shortest")
    if options.figure:
        _draw(options.figure, sizes, lengths, options.cine_size)


def _integers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _row(name: int, size: int, length: int) -> Row:
    run = in_process("line", "--size", str(size), "--length", str(length))
    seconds, _, mib = spread([run])
    print(f"{size} x {size}, {length} frames: {run['seconds']} s", file=sys.stderr)
    return name, seconds, mib, run["idle_mib"]


def _print(what: str, rows: list[Row]) -> None:
    print(f"{what:>6}   time (median)   peak memory    when idle")
    for name, seconds, mib, idle in rows:
        print(f"{name:6} {seconds:13.3f} s {mib:9.0f} MiB {idle:8.0f} MiB")


def _exponent(x: np.ndarray, y: list[float]) -> float:
    """Slope of log y over log x, by least squares; NaN for a single line."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0]) if len(y) > 1 else float("nan")


def _draw(path: Path, sizes: list[Row], lengths: list[Row], cine_size: int) -> None:
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    for axes, rows, label in (
        (left, sizes, "height = width (pixels)"),
        (right, lengths, f"frames of {cine_size} x {cine_size}"),
    ):
        x, seconds, mib, _ = zip(*rows, strict=True)
        axes.loglog(x, seconds, "o-", color="C0")
        axes.set(xlabel=label, ylabel="time (s)", xticks=x, xticklabels=x)
        axes.minorticks_off()
        memory = axes.twinx()
        memory.plot(x, mib, "s--", color="C1")
        memory.set(ylabel="peak memory (MiB)", ylim=(0, None))
        axes.yaxis.label.set_color("C0")
        memory.yaxis.label.set_color("C1")
    left.set_title("one frame", fontsize=10)
    right.set_title("a cine", fontsize=10)
    figure.savefig(path, dpi=120)


def _line(options: argparse.Namespace) -> dict[str, Any]:
    import jax

    from configs.kgmgt import get_config
    from kgmgt_jax.evaluation.cine import CineInput
    from kgmgt_jax.evaluation.sequence import reconstruct_cine
    from kgmgt_jax.models.initialisation import initialise
    from kgmgt_jax.models.registry import build_model
    from kgmgt_jax.training.state import example_inputs
    from tests.training.small import random_batch

    config: Any = get_config(options.variant)
    model = build_model(config.model.to_dict() | {"dtype": "float32"})
    variables = jax.device_put(initialise(model, 0, *example_inputs()))
    batch = random_batch(options.length, options.size)
    cine = CineInput(batch["target"], batch["kspace"], batch["mask"])

    def call() -> None:
        frames = reconstruct_cine(model, variables, cine, progress=lambda n: None)
        jax.block_until_ready(frames)

    def make() -> Side:
        call()  # compiles
        return call, peak_mib, processor()

    return measure(make, options.calls)


if __name__ == "__main__":
    main()
