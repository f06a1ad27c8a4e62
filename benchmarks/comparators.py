"""How much do the networks that KGMgT is compared with gain, each for the same few steps?

    python benchmarks/comparators.py

Trains the `:tiny` variant of each on the phantoms of `make demo` (four coils, 80 x 64) under a
regular mask, nominally 4x (true 3.08x), and prints its parameters, the mean PSNR on unseen phantoms
(range: maximum of the reference frame), its gain over the zero-filled image, and the seconds of the
training with its compilation. Ends with 1 if some network gains less than 3 dB. It shows that each
network learns, not which is best: none is at its paper's size, or trained to the end.
"""

import argparse
import importlib
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.phantom_runs import train_and_score, write_phantoms

NETWORKS = ("kgmgt", "modl", "crnn", "swinir", "kigan", "varnet")
LEAST_GAIN = 3.0  # dB


def main(arguments: list[str] | None = None) -> int:
    """Trains each and prints the table; 1 if any gained too little."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--data", type=Path, help="folder of phantoms, made if need be and kept")
    options = parser.parse_args(arguments)
    gains = []
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or Path(folder) / "data"
        if not data.exists():
            write_phantoms(data)
        print("| network | parameters | zero-filled (dB) | PSNR (dB) | gain (dB) | seconds |")
        print("|---|---|---|---|---|---|")
        for name in options.networks:
            config = importlib.import_module(f"configs.{name}").get_config("tiny")
            run = train_and_score(config, data, Path(folder) / name, options.steps)
            gains.append(run.psnr - run.zero_filled)
            print(
                f"| {name} | {run.n_parameters:,} | {run.zero_filled:.2f} | {run.psnr:.2f} | "
                f"{gains[-1]:+.2f} | {run.seconds:.0f} |",
                flush=True,
            )
    return int(min(gains) < LEAST_GAIN)


if __name__ == "__main__":
    sys.exit(main())
