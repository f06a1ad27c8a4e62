"""Command lines ``prepare`` and ``verify``."""

import argparse
from pathlib import Path

from kgmgt_jax.data.formats import ReadOptions
from kgmgt_jax.data.prepared.checksums import verify_checksums
from kgmgt_jax.data.prepared.layout import SKIPPED, read_metadata
from kgmgt_jax.data.prepared.options import SENS_METHODS, PrepareOptions
from kgmgt_jax.data.simulation import Simulation

__all__ = ["add_prepare", "add_verify"]

_SHOWN = 10


def add_prepare(commands) -> None:
    """Adds ``prepare`` to the sub-parsers of a command line."""
    parser = commands.add_parser("prepare", help="make a set for training of files")
    parser.add_argument("path", type=Path, help="a file or a folder")
    parser.add_argument("--out", type=Path, required=True, help="folder of the set")
    parser.add_argument("--readout", default="auto", help="central columns to keep; auto for all")
    parser.add_argument("--sens", choices=SENS_METHODS, default="espirit")
    parser.add_argument("--acs", type=int, default=24, help="central lines to calibrate coils on")
    parser.add_argument("--views", default="", help="to keep, e.g. sax,lax; empty for all")
    parser.add_argument(
        "--split", default="0.8,0.1,0.1", help="fractions of the subjects: train,validation,test"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the split and what is simulated")
    parser.add_argument(
        "--undersampled",
        action="store_true",
        help="keep undersampled scans, to train without references, in place of fully sampled ones",
    )
    parser.add_argument("--subject", help="regular expression that finds the subject in a path")
    parser.add_argument("--skip-bad", action="store_true", help="go on past what cannot be used")
    parser.add_argument("--key", help="array that holds the k-space or images")
    parser.add_argument("--axes", help="order of its axes as h5py sees them, e.g. kx,ky,coil")
    parser.add_argument(
        "--virtual-coils", type=int, default=0, help="most coils to keep; 0 for all"
    )
    parser.add_argument("--coils", type=int, default=8, help="coils simulated for images")
    parser.add_argument("--noise", type=float, default=0.005, help="noise simulated for images")
    parser.set_defaults(run=_prepare)


def add_verify(commands) -> None:
    """Adds ``verify`` to the sub-parsers of a command line."""
    parser = commands.add_parser("verify", help="hold a prepared set against its checksums")
    parser.add_argument("path", type=Path, help="folder of the set")
    parser.set_defaults(run=_verify)


def _prepare(options: argparse.Namespace) -> int:
    from kgmgt_jax.data.prepared.preparing import prepare  # TFDS takes a while to load

    chosen = PrepareOptions(
        readout=_readout(options.readout),
        sens=options.sens,
        acs=options.acs,
        views=tuple(view for view in map(str.strip, options.views.split(",")) if view),
        split=_fractions(options.split),
        seed=options.seed,
        subject=options.subject,
        undersampled=options.undersampled,
        read=ReadOptions(
            key=options.key,
            axes=options.axes,
            simulation=Simulation(options.coils, options.noise, options.seed),
            virtual_coils=options.virtual_coils,
        ),
    )
    outcome = prepare(options.path, options.out, chosen, skip_bad=options.skip_bad)
    bad = [each for each in outcome.skipped if each.bad]
    others = [each for each in outcome.skipped if not each.bad]
    for title, group in (("left out", others[:_SHOWN]), ("skipped", bad)):
        for each in group:
            print(f"{title}: {each.source} {each.name}".rstrip() + f": {each.reason}")
    if len(others) > _SHOWN:
        print(f"left out: {len(others) - _SHOWN} more, see {options.out / SKIPPED}")
    print(f"{'split':<12}{'slices':>8}{'subjects':>10}")
    for split, count in outcome.n_slices.items():
        print(f"{split:<12}{count:>8}{outcome.n_subjects[split]:>10}")
    n_slices = sum(outcome.n_slices.values())
    print(f"{options.out}: {n_slices} slices, {outcome.n_made} of them made now")
    if bad:
        print(f"{len(bad)} skipped, see {options.out / SKIPPED}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    read_metadata(options.path)
    verified = verify_checksums(options.path, again=True)
    size = f"{verified.n_bytes / 1e9:.3g} GB"
    print(f"{options.path}: {verified.n_files} files, {size}, each as it was prepared")
    return 0


def _readout(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal():
        raise ValueError(f"--readout must be a number of columns or auto, got {text!r}")
    return int(text)


def _fractions(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        wanted = "fractions such as 0.8,0.1,0.1"
        raise ValueError(f"--split must be {wanted}, got {text!r}") from error
