"""How good are the pretrained weights next to classical methods, on cines that they never saw?

    python benchmarks/pretrained.py --data=val.h5 --tune=train.h5 [--methods=pretrained,spatial_tv]

``val.h5`` holds magnitude cines as ``group/cine``; k-space of one coil is simulated of them without
noise. Each group of cines is scored by itself: whole frames, preset ``frame``, mean over every
third frame and then over cines; the classical methods reconstruct all frames. Masks have 8 central
lines and a variable density at the true acceleration named: ``fixed``, the same lines in all
frames, or ``kt``, new ones in each. The weights of the classical methods are those that score best
on a few cines of ``--tune``, for either kind of mask.

Other data of the same cines: ``--coils=5``, with maps from the measured lines; ``--noise=0.02``,
the standard deviation in k-space over the 99th percentile of the images (references have none);
``--size=128,128``, at most so many rows and columns in the middle; ``--frames=30``, interpolated by
zeros in temporal frequency. ``--cines=2`` scores so many cines of each group. The cines to tune on
change likewise.
"""

import argparse
import functools
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import scipy.signal

from kgmgt_jax.classical import METHODS, tune
from kgmgt_jax.data.simulation import Simulation
from kgmgt_jax.data.slices import SliceSource
from kgmgt_jax.data.sources import open_slices
from kgmgt_jax.data.transforms import coil_combine, fft2c, ifft2c, triplets
from kgmgt_jax.data.validation import RetrospectiveCase, validation_cases
from kgmgt_jax.evaluation.cine import CineInput
from kgmgt_jax.evaluation.methods import Method
from kgmgt_jax.evaluation.symmetries import SYMMETRIES, Symmetry
from kgmgt_jax.figures import comparison_figure
from kgmgt_jax.metrics import evaluate
from kgmgt_jax.models.registry import Network
from kgmgt_jax.training.steps import apply_model

ACS = 8
NETWORK = "pretrained"
ALONE = "without_references"  # the network, given the target frame in the place of its neighbours
ENSEMBLE = "self_ensemble"  # the mean of what it makes of symmetric copies of a cine
MASK_KINDS = {"fixed": "variable_density_fixed", "kt": "variable_density"}
CLASSICAL = {
    "fixed": ("spatial_tv", "wavelet", "low_rank_plus_sparse", "locally_low_rank"),
    "kt": (
        "temporal_tv",
        "spatial_tv",
        "wavelet",
        "kt_focuss",
        "low_rank_plus_sparse",
        "locally_low_rank",
    ),
}
TUNING_ACCELERATION, TUNING_COLUMNS = 8.0, 64

Reconstruct = Callable[[RetrospectiveCase, int], np.ndarray]  # each n-th frame of a case


def main() -> None:
    """Prints a table for each kind of mask, a row for each group, acceleration and method."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="cines to score on")
    parser.add_argument("--tune", required=True, help="other cines, to choose weights on")
    parser.add_argument("--tuning_cines", type=int, default=3, help="how many of them")
    parser.add_argument("--checkpoint", default="pretrained", help="weights to score")
    parser.add_argument(
        "--compare", type=_checkpoints, default="", help="others, NAME=CHECKPOINT,NAME=CHECKPOINT"
    )
    methods = f"separated by commas; else all but {ALONE} and {ENSEMBLE}"
    parser.add_argument("--methods", type=_words, default="", help=methods)
    copies = f"copies that {ENSEMBLE} is the mean of, up to {len(SYMMETRIES)}"
    numbers = range(1, len(SYMMETRIES) + 1)
    parser.add_argument("--copies", type=int, default=4, choices=numbers, help=copies)
    parser.add_argument("--every", type=int, default=3, help="score each n-th frame")
    parser.add_argument(
        "--masks", type=_words, default=",".join(MASK_KINDS), help="separated by commas"
    )
    parser.add_argument("--accelerations", default="6,10", help="separated by commas")
    parser.add_argument("--figures", type=Path, help="folder for pictures of the worst cines")
    parser.add_argument("--coils", type=int, default=1, help="simulated coils")
    parser.add_argument("--noise", type=float, default=0.0, help="standard deviation over P99")
    parser.add_argument("--size", type=_size, help="rows,columns at most, in the middle")
    parser.add_argument("--frames", type=int, default=0, help="frames of each cine; else its own")
    parser.add_argument("--cines", type=int, default=0, help="cines of each group to score; or all")
    arguments = parser.parse_args()
    _check(parser, arguments)
    with tempfile.TemporaryDirectory() as folder:
        _run(arguments, Path(folder))


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(",") if word)


def _size(text: str) -> tuple[int, int]:
    sides = text.split(",")
    if len(sides) != 2 or not all(side.isdigit() and int(side) for side in sides):
        raise argparse.ArgumentTypeError(f"expected ROWS,COLUMNS, got {text!r}")
    return int(sides[0]), int(sides[1])


def _checkpoints(text: str) -> dict[str, str]:
    pairs = [word.partition("=") for word in _words(text)]
    found = {name: path for name, equals, path in pairs if equals}
    own = _own_methods({NETWORK: ""}).keys()
    if len(found) != len(pairs) or own & found:
        expected = f"NAME=CHECKPOINT with names other than {', '.join(own)}"
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
    return found


def _check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Ends with a message if a mask or a method is not known."""
    methods = {*_own_methods({NETWORK: ""} | arguments.compare), *CLASSICAL["kt"]}
    for given, known in ((arguments.masks, MASK_KINDS), (arguments.methods, methods)):
        unknown = sorted(set(given) - set(known))
        if unknown:
            parser.error(f"expected among {', '.join(sorted(known))}, got {', '.join(unknown)}")


def _run(arguments: argparse.Namespace, folder: Path) -> None:
    changed = functools.partial(_changed, size=arguments.size, n_frames=arguments.frames)
    data = changed(arguments.data, folder / "data", n_cines=arguments.cines)
    tuning = changed(arguments.tune, folder / "tune")
    simulation = Simulation(n_coils=arguments.coils, noise=arguments.noise)
    source, training = (
        open_slices(path, split="test", acs=ACS, simulation=simulation) for path in (data, tuning)
    )
    own = _own_methods({NETWORK: arguments.checkpoint} | arguments.compare, arguments.copies)
    for mask in arguments.masks:
        kind = MASK_KINDS[mask]
        names = [*own, *CLASSICAL[mask]]
        asked = arguments.methods or set(names) - {ALONE, ENSEMBLE}
        names = [name for name in names if name in asked]
        methods = {name: own[name] for name in names if name in own}
        wanted = [name for name in names if name not in own]
        if wanted:
            methods |= _tuned(wanted, _tuning_cases(training, kind, arguments.tuning_cines))
        print("\n| cines | mask | R | method | PSNR (dB) | SSIM |\n|---|---|---|---|---|---|")
        for acceleration in map(float, arguments.accelerations.split(",")):
            options = {"mask_kind": kind, "acceleration": acceleration, "acs": ACS}
            scores = _score(validation_cases(source, **options), methods, arguments.every)
            for group, method, psnr, ssim in scores.rows():
                start = f"| {group} | {mask} | {acceleration:g} | {method} |"
                print(f"{start} {psnr:.2f} | {ssim:.3f} |", flush=True)
            if arguments.figures:
                scores.draw_worst(arguments.figures, f"{mask}_{acceleration:g}x")


@dataclass
class Scores:
    """Scores by group of cines and method, and the network's worst cine of each group.

    Attributes:
        pairs: PSNR and SSIM of each cine, means over its frames.
        worst: name of the cine, its PSNR and its images: the network's, zero-filled, reference.
    """

    pairs: dict[tuple[str, str], list[tuple[float, float]]] = field(default_factory=dict)
    worst: dict[str, tuple[str, float, dict[str, np.ndarray]]] = field(default_factory=dict)

    def add(self, case: RetrospectiveCase, methods: dict[str, Reconstruct], every: int) -> None:
        """Reconstructs a case by all methods."""
        reference, group = case.reference[::every], case.name.split("/")[1]
        for name, reconstruct in methods.items():
            image = np.abs(reconstruct(case, every))
            found = evaluate(reference, image, "frame")
            psnr, ssim = float(found["psnr"].mean()), float(found["ssim"].mean())
            self.pairs.setdefault((group, name), []).append((psnr, ssim))
            if name == NETWORK and psnr < self.worst.get(group, ("", np.inf, {}))[1]:
                zero_filled = np.abs(_zero_filled(case, every))
                images = {"zero_filled": zero_filled, "reference": reference}
                self.worst[group] = (case.name, psnr, images | {"reconstruction": image})

    def rows(self) -> Iterator[tuple[str, str, float, float]]:
        """Group and how many cines it has, method, mean PSNR and SSIM."""
        for (group, name), pairs in sorted(self.pairs.items()):
            psnr, ssim = np.mean(pairs, axis=0)
            yield f"{group} ({len(pairs)})", name, float(psnr), float(ssim)

    def draw_worst(self, folder: Path, name: str) -> None:
        """A picture of the network's worst cine of each group."""
        for group, (case, _, images) in self.worst.items():
            title = f"{case}, {name.replace('_', ' ')}"
            comparison_figure(
                folder / f"{group}_{name}.png",
                images["reconstruction"],
                zero_filled=images["zero_filled"],
                reference=images["reference"],
                title=title,
            )


def _score(
    cases: Iterable[RetrospectiveCase], methods: dict[str, Reconstruct], every: int
) -> Scores:
    scores = Scores()
    for case in cases:
        scores.add(case, methods, every)
    return scores


def _changed(
    path: str, folder: Path, *, size: tuple[int, int] | None, n_frames: int, n_cines: int = 0
) -> Path:
    """The file, or another with its cines at other times, the middle of their images, or fewer.

    That file has the same name, which masks and phases depend on.
    """
    if not (size or n_frames or n_cines):
        return Path(path)
    folder.mkdir()
    out = folder / Path(path).name
    with h5py.File(path) as old, h5py.File(out, "w") as new:
        for cines in _cines_by_group(old).values():
            for cine in _spread(cines, n_cines or len(cines)):
                images = np.asarray(old[cine])
                if size:
                    rows, columns = map(_middle, images.shape[1:], size)
                    images = images[:, rows, columns]
                if n_frames:
                    course = scipy.signal.resample(images.astype(np.float32), n_frames, axis=0)
                    images = np.maximum(np.asarray(course), 0)
                new[cine] = images
    return out


def _cines_by_group(file: h5py.File) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            groups.setdefault(name.rpartition("/")[0], []).append(name)

    file.visititems(visit)
    return groups


def _middle(n: int, wanted: int) -> slice:
    """At most so many of n pixels, about the centre."""
    kept = min(n, wanted)
    start = n // 2 - kept // 2
    return slice(start, start + kept)


def _spread(items: Sequence, n: int) -> list:
    """So many items spread over a sequence; all if there are not as many."""
    every = max(len(items) // n, 1)
    return list(items)[every // 2 :: every][:n]


def _zero_filled(case: RetrospectiveCase, every: int) -> np.ndarray:
    return coil_combine(ifft2c((case.kspace * case.mask[:, None])[::every]), case.sens)


def _own_methods(checkpoints: dict[str, str], n_copies: int = 1) -> dict[str, Reconstruct]:
    """Zero-filled images, what the networks are given, and what they make of that."""
    load = functools.cache(lambda name: Method.load(name, checkpoints[name]))
    last: dict[tuple, tuple[RetrospectiveCase, dict[str, np.ndarray]]] = {}  # by way of filling

    def frames(method: Method, case: RetrospectiveCase, every: int) -> dict[str, np.ndarray]:
        way = method.circular, method.input_fill
        if way not in last or last[way][0] is not case:
            targets, arrays = range(0, len(case.kspace), every), (case.kspace, case.mask, case.sens)
            last[way] = case, triplets(*arrays, targets, circular=way[0], input_fill=way[1])
        return last[way][1]

    def filled(case: RetrospectiveCase, every: int) -> np.ndarray:
        batch = frames(load(NETWORK), case, every)
        return batch["target"] * batch["scale"][:, None, None]

    def refined(
        name: str,
        case: RetrospectiveCase,
        every: int,
        alone: bool = False,
        symmetry: Symmetry = SYMMETRIES[0],
    ) -> np.ndarray:
        method = load(name)
        batch = frames(method, case, every)
        if alone:
            batch = batch | {"preceding": batch["target"], "succeeding": batch["target"]}
        batch, scale = _copied(batch, symmetry), batch["scale"]
        singles = [{k: v[i : i + 1] for k, v in batch.items()} for i in range(len(scale))]
        variables = method.variables_for(case.mask)
        images = [_frame(method.model, variables, single) for single in singles]
        images = symmetry.undone(jnp.concatenate(images))
        return np.asarray(images) * scale[:, None, None]

    def ensemble(case: RetrospectiveCase, every: int) -> np.ndarray:
        copies = [refined(NETWORK, case, every, symmetry=s) for s in SYMMETRIES[:n_copies]]
        return np.mean(copies, axis=0)

    trained = {name: functools.partial(refined, name) for name in checkpoints}
    trained[ALONE] = functools.partial(refined, NETWORK, alone=True)
    return {"zero_filled": _zero_filled, "input": filled, **trained, ENSEMBLE: ensemble}


def _copied(batch: dict[str, np.ndarray], symmetry: Symmetry) -> dict[str, Any]:
    """A symmetric copy of target frames, of their neighbours and of what was measured."""

    def copy(images: np.ndarray) -> CineInput:
        return symmetry.of_cine(
            CineInput(images, batch["kspace"], batch["mask"], batch.get("sens"))
        )

    target = copy(batch["target"])
    copies = {name: copy(batch[name]).images for name in ("preceding", "succeeding")}
    copies |= {"target": target.images, "kspace": target.kspace, "mask": target.mask}
    return copies if target.sens is None else copies | {"sens": target.sens}


@functools.partial(jax.jit, static_argnums=0)
def _frame(model: Network, variables: Any, frame: dict) -> jax.Array:
    return apply_model(model, variables, frame)[0].image


def _tuning_cases(source: SliceSource, kind: str, n_cines: int) -> list[RetrospectiveCase]:
    """The middle columns of cines spread over a set; masks of lines leave columns independent."""
    cases = validation_cases(source, mask_kind=kind, acceleration=TUNING_ACCELERATION, acs=ACS)
    chosen = _spread(range(len(source.slices)), n_cines)
    return [_narrow(case) for i, case in enumerate(cases) if i in chosen]


def _narrow(case: RetrospectiveCase) -> RetrospectiveCase:
    columns = _middle(case.mask.shape[-1], TUNING_COLUMNS)
    sens = None if case.sens is None else case.sens[..., columns]
    kspace = fft2c(ifft2c(case.kspace)[..., columns])
    return case._replace(kspace=kspace, mask=case.mask[..., columns], sens=sens)


def _tuned(names: Sequence[str], cases: Sequence[RetrospectiveCase]) -> dict[str, Reconstruct]:
    """Classical methods with the weights that score best."""
    arrays = [(case.reference, *_measured(case)) for case in cases]
    found = {}
    for name in names:
        weights = tune(name, arrays, _mean_psnr).weights
        print(f"{name}: {weights}", flush=True)
        found[name] = functools.partial(_classical, name, weights)
    return found


def _mean_psnr(reference: jax.Array | np.ndarray, image: jax.Array) -> float:
    found = evaluate(np.asarray(reference), np.asarray(image), "frame")
    return float(found["psnr"].mean())


def _measured(case: RetrospectiveCase) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    sens = None if case.sens is None else jnp.asarray(case.sens)
    return jnp.asarray(case.kspace * case.mask[:, None]), jnp.asarray(case.mask), sens


def _classical(
    name: str, weights: dict[str, float], case: RetrospectiveCase, every: int
) -> np.ndarray:
    return np.asarray(METHODS[name].reconstruct(*_measured(case), **weights))[::every]


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    main()
