"""What does each part of KGMgT bring, when all are trained for the same few steps?

    python benchmarks/ablations.py [--rows full no_rect --steps 220 --data DIR]

Trains every row of configs/ablations.py, in its tiny variant, on the phantoms of `make demo` (four
coils, 80 x 64) under a regular mask, nominally 4x, and prints its parameters, the mean PSNR on
unseen phantoms (range: maximum of the reference frame), and the difference from the first row.
A short run of a small network on phantoms: it shows that each switch works, and does not repeat
the paper's table. ``--data`` may name another folder with fully sampled files in ``train`` and
``test``.
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.phantom_runs import train_and_score, write_phantoms
from configs.ablations import ROWS, get_config


def main(arguments: list[str] | None = None) -> int:
    """Trains each row and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--steps", type=int, default=220)
    parser.add_argument("--data", type=Path, help="with train/ and test/; phantoms if not there")
    options = parser.parse_args(arguments)
    first = None
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or Path(folder) / "data"
        if not data.exists():
            write_phantoms(data)
        print("| row | parameters | PSNR (dB) | difference (dB) | seconds |")
        print("|---|---|---|---|---|")
        for name in options.rows:
            run = train_and_score(
                get_config(f"{name}:tiny"), data, Path(folder) / name, options.steps
            )
            first = run.psnr if first is None else first
            print(
                f"| {name} | {run.n_parameters:,} | {run.psnr:.2f} | {run.psnr - first:+.2f} | "
                f"{run.seconds:.0f} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
