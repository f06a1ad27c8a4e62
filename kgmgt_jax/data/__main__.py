"""Command line of the data: ``python -m kgmgt_jax.data inspect|prepare|verify PATH``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from kgmgt_jax.commands import guarded
from kgmgt_jax.data.formats import ReadOptions
from kgmgt_jax.data.inspection import Finding, format_findings, inspect_path, open_case
from kgmgt_jax.data.prepared.command import add_prepare, add_verify
from kgmgt_jax.data.simulation import Simulation

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; ends as ``commands.guarded`` says."""
    parser = argparse.ArgumentParser(prog="python -m kgmgt_jax.data", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_inspect(commands)
    add_prepare(commands)
    add_verify(commands)
    options = parser.parse_args(arguments)
    return guarded(lambda: options.run(options))


def _add_inspect(commands) -> None:
    parser = commands.add_parser("inspect", help="say what a file or a folder holds")
    parser.add_argument("path", type=Path, help="a file or a folder")
    parser.add_argument("--key", help="array that holds the k-space or images")
    parser.add_argument("--axes", help="order of its axes as h5py sees them, e.g. kx,ky,coil")
    parser.add_argument("--mask", type=Path, help="file with the sampling mask")
    parser.add_argument("--figure", type=Path, help="PNG of the first readable file to write")
    parser.add_argument("--coils", type=int, default=8, help="coils simulated for images")
    parser.add_argument("--noise", type=float, default=0.005, help="noise simulated for images")
    parser.add_argument("--seed", type=int, default=0, help="seed of what is simulated")
    parser.set_defaults(run=_inspect)


def _inspect(options: argparse.Namespace) -> int:
    simulation = Simulation(options.coils, options.noise, options.seed)
    read = ReadOptions(options.mask, options.key, options.axes, simulation)
    findings = list(inspect_path(options.path, read))
    print(format_findings(findings, options.path))
    if options.figure is not None:
        _draw(findings, options.figure, read)
    return 0 if any(finding.cases for finding in findings) else 1


def _draw(findings: Sequence[Finding], out: Path, read: ReadOptions) -> None:
    """Draws the middle case of the first file that could be read."""
    from kgmgt_jax.data.pictures import case_figure  # Matplotlib takes a second to load

    finding = next((finding for finding in findings if finding.cases), None)
    if finding is None:
        print(f"no case to draw, so {out} was not written")
        return
    print(case_figure(out, open_case(finding, read)))


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")  # JAX would take most of a GPU's memory, for nothing
    sys.exit(main())
