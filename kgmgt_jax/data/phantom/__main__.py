"""Command line of the phantom: ``python -m kgmgt_jax.data.phantom --out DIR``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from kgmgt_jax.commands import guarded
from kgmgt_jax.data.phantom.cine import VIEWS
from kgmgt_jax.data.phantom.files import write_cmrxrecon2023

__all__ = ["main"]


def _integers(text: str) -> tuple[int, ...]:
    """``"4,8"`` as (4, 8); the empty string as ()."""
    try:
        return tuple(int(part) for part in text.split(",") if part)
    except ValueError as error:
        expected = "whole numbers such as 4,8"
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}") from error


def _extent(text: str) -> float | tuple[float, ...]:
    """``"340"`` as 340.0, ``"340,260"`` as (340.0, 260.0)."""
    try:
        return tuple(map(float, text.split(","))) if "," in text else float(text)
    except ValueError as error:
        expected = "a number such as 340, or two with a comma between"
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: write a data set and say what was written."""
    parser = argparse.ArgumentParser(
        prog="python -m kgmgt_jax.data.phantom",
        description="Write synthetic cardiac cines in the layout of CMRxRecon 2023.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write below")
    parser.add_argument("--n_subjects", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0, help="of the first subject")
    parser.add_argument("--shape", type=_integers, default=(128, 128), help="ky,kx")
    parser.add_argument(
        "--field_of_view_mm", type=_extent, default=340.0, help="of both axes, or ky,kx"
    )
    parser.add_argument("--n_frames", type=int, default=12)
    parser.add_argument("--n_slices", type=int, default=2)
    parser.add_argument("--n_coils", type=int, default=1, help="1 writes SingleCoil")
    parser.add_argument("--view", choices=VIEWS, default="sax")
    parser.add_argument("--split", default="TrainingSet")
    parser.add_argument("--accelerations", type=_integers, default=(4,), help="such as 4,8")
    parser.add_argument("--acs", type=int, default=24, help="central lines in every mask")
    parser.add_argument("--noise", type=float, default=0.005, help="relative standard deviation")
    options = vars(parser.parse_args(arguments))
    first, count = options.pop("seed"), options.pop("n_subjects")

    def work() -> None:
        if count < 1:
            raise ValueError(f"--n_subjects: expected 1 or more, got {count}")
        for path in write_cmrxrecon2023(options.pop("out"), range(first, first + count), **options):
            print(path)

    return guarded(work)


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")  # JAX would take most of a GPU's memory, for nothing
    sys.exit(main())
