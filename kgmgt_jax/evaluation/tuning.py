"""Weights of the classical methods, chosen on training cases, never on those that are scored."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from kgmgt_jax.classical import METHODS, Tuning, tune
from kgmgt_jax.classical.registry import Case
from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.prepared import is_prepared
from kgmgt_jax.data.prepared.layout import read_metadata
from kgmgt_jax.data.simulation import Simulation
from kgmgt_jax.data.slices import SliceInfo, SliceSource, spread
from kgmgt_jax.data.sources import open_slices
from kgmgt_jax.data.validation import retrospective_cases
from kgmgt_jax.evaluation.cases import Condition
from kgmgt_jax.evaluation.overlap import same_file
from kgmgt_jax.metrics import evaluate

__all__ = ["tune_methods"]


def tune_methods(
    names: Iterable[str],
    paths: Sequence[str | Path],
    conditions: Sequence[Condition],
    *,
    test: Sequence[SliceInfo],
    n_slices: int = 4,
    sens: str = "espirit",
    simulation: Simulation | None = None,
    virtual_coils: int = 0,
    circular: bool = True,
    seed: int = 0,
) -> dict[str, Tuning]:
    """Tries every method's grid of weights; the best mean PSNR (preset ``frame``) wins.

    One set of weights serves all conditions, as one network does. Of each path ``n_slices`` slices
    are used, spread evenly over it, undersampled in every condition. Frames without any signal are
    not scored.

    Args:
        names: keys of ``classical.METHODS``; those without weights are left out.
        paths: fully sampled files or folders of the training set, or prepared sets, of which the
            split ``train`` is taken.
        conditions: how slices are undersampled.
        test: the slices that will be scored.
        n_slices: most slices to use of a path, at least 1.
        sens: how coil maps are estimated.
        simulation: how k-space is made of magnitude images; its defaults if left out.
        virtual_coils: most coils of files; 0 for all.
        circular: whether the last frame of a cine is followed by the first.
        seed: of the masks.

    Raises:
        DataError: if a file is one of the test set, or a copy of one.
        ValueError: if ``n_slices`` is below 1, or a condition is impossible.
    """
    if n_slices < 1:
        raise ValueError(f"expected n_slices >= 1, got {n_slices=}")
    cases: list[Case] = []
    reading: Any = {"sens": sens, "simulation": simulation, "virtual_coils": virtual_coils}
    for path in paths:
        source = open_slices(path, split="train", acs=conditions[0].acs, cache_gib=0, **reading)
        apart = _other_splits(path)
        near = [each for each in test if (each.source, each.name) not in apart]
        for number in spread(len(source.slices), n_slices):
            _refuse_test_data(source.slices[number], near)
            cases += _cases(source, number, conditions, seed)
    tunable = [name for name in dict.fromkeys(names) if METHODS[name].grid]
    return {name: tune(name, cases, _mean_psnr, circular=circular) for name in tunable}


def _cases(
    source: SliceSource, number: int, conditions: Sequence[Condition], seed: int
) -> list[Case]:
    masks = [condition.masks for condition in conditions]
    return [
        (case.reference, *jax.tree.map(jnp.asarray, (case.kspace, case.mask, case.sens)))
        for case in retrospective_cases(source, number, masks, seed)
    ]


def _mean_psnr(reference: Array | np.ndarray, image: Array) -> float:
    lit = np.asarray(reference).any(axis=(1, 2))
    return float(jnp.mean(evaluate(reference[lit], image[lit])["psnr"]))


def _other_splits(path: str | Path) -> set[tuple[str, str]]:
    """File and name of the slices that a prepared set, split by subject, keeps from training."""
    slices = read_metadata(Path(path))["slices"] if is_prepared(path) else ()
    return {(each["source"], each["name"]) for each in slices if each["split"] != "train"}


def _refuse_test_data(training: SliceInfo, test: Sequence[SliceInfo]) -> None:
    """Raises where the file of a training slice is that of a test slice, or equal to it."""
    same_place = any(
        (training.source, training.name) == (other.source, other.name) for other in test
    )
    if same_place or any(same_file(training.source, other) for other in {s.source for s in test}):
        fix = "tune on other subjects"
        raise DataError(training.source, "a file that is not scored", "one of the test set", fix)
