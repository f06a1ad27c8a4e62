"""Evaluation: every method on every case, then tables, pictures and a report of what was found."""

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from kgmgt_jax.commands import DEBUG
from kgmgt_jax.data.transforms import coil_combine, ifft2c
from kgmgt_jax.evaluation.cases import Condition, EvaluationCase, EvaluationSet
from kgmgt_jax.evaluation.classical_methods import ClassicalMethod
from kgmgt_jax.evaluation.collecting import Findings, Images
from kgmgt_jax.evaluation.efficiency import measure_efficiency
from kgmgt_jax.evaluation.keeping import (
    REFERENCE,
    RankingWriter,
    ReadingCases,
    write_scored,
    write_unscored,
)
from kgmgt_jax.evaluation.methods import ZERO_FILLED, Reconstructor
from kgmgt_jax.evaluation.outputs import check_outputs
from kgmgt_jax.evaluation.report import Efficiency
from kgmgt_jax.evaluation.summary import Outcome, write_summary
from kgmgt_jax.metrics import check_preset
from kgmgt_jax.training.stopping import stop_signals
from kgmgt_jax.training.weights import CheckpointError

__all__ = ["Options", "check_folders", "evaluate_set"]


@dataclass(frozen=True)
class Options:
    """What to evaluate, and what to write besides tables and report.

    Attributes:
        conditions: how fully sampled slices are undersampled, at least one way.
        presets: definitions of the metrics, keys of ``metrics.PRESETS``, at least one.
        seed: of the masks.
        ranking: folder for the files that CMRxRecon's organisers score; ``None`` writes none.
        reader_study: whether to write a blinded reading kit.
        reader_cases: most slices in it, spread over all, each with every method.
        save_images: whether to write the images that were scored.
        efficiency: whether to measure what methods cost.
        facts: what else the report shall state, by name.
    """

    conditions: Sequence[Condition]
    presets: Sequence[str] = ("frame",)
    seed: int = 0
    ranking: str | Path | None = None
    reader_study: bool = False
    reader_cases: int = 40
    save_images: bool = False
    efficiency: bool = True
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.conditions or not self.presets:
            raise ValueError(
                f"expected a sampling and a preset, got {self.conditions=}, {self.presets=}"
            )
        for preset in self.presets:
            check_preset(preset)


def evaluate_set(
    data: EvaluationSet,
    methods: Sequence[Reconstructor],
    out: str | Path,
    options: Options,
    title: str = "Evaluation",
) -> Outcome:
    """Reconstructs all cases by zero-filling and every method; scores those with a reference.

    What goes wrong in one case or one method is noted and stops nothing else. Ctrl-C and SIGTERM
    end it after the frame, the cine of a classical method or the measurement of costs in progress:
    what is scored until then is written, and what is missing counts as failed. See `write_summary`
    for what is written; images of cases without a reference go to ``unscored`` beside it.

    Args:
        data: the cases.
        methods: what reconstructs them; the first is what others are compared with.
        out: folder for what is written.
        options: how to undersample, score and report.
        title: heading of the report.

    Raises:
        CheckpointError: if weights are not those of their network.
        ValueError: if names of methods repeat, a condition is impossible, a folder cannot be
            written to, or nothing at all could be reconstructed.
        KeyboardInterrupt: if it was ended before the first case was done, or by a second Ctrl-C.
    """
    _check_names(methods)
    check_folders(data, out, options)
    out, findings = Path(out), Findings(options.conditions, options.presets)
    ranking = None if options.ranking is None else RankingWriter(options.ranking)
    reading = ReadingCases(data.spread(options.reader_cases)) if options.reader_study else None
    guarded = functools.partial(_guarded, findings.failed)
    first: EvaluationCase | None = None
    written: list[Path] = []
    with stop_signals() as stopped:
        try:
            for case, images in _reconstructed(data, methods, options, findings.failed, stopped):
                findings.add(case, images)
                first = first or case
                if ranking is not None:
                    guarded(f"ranking of {case.name}", ranking.add, case, images)
                if reading is not None:
                    guarded(f"reading kit, {case.name}", reading.add, case, images)
                place = f"images of {case.name}"
                if case.reference is None:
                    written += guarded(place, write_unscored, out / "unscored", case, images) or []
                elif options.save_images:
                    written += guarded(place, write_scored, out / "images", case, images) or []
        except _Stopped as stop:
            if first is None:
                raise
            findings.failed["evaluation"] = str(stop)
            options = replace(options, efficiency=False)
        findings.failed.update(data.failed)
        findings.failed.update(findings.incomplete)
        if ranking is not None:
            findings.failed.update(ranking.incomplete)
            written += ranking.written
        names = [ZERO_FILLED, *(method.name for method in methods)]
        if reading is not None:
            main = methods[0].name if methods else ZERO_FILLED
            written += guarded("reading kit", reading.write, out, names, main) or []
        costs = {}
        if options.efficiency and first:
            costs = _efficiency(methods, first, findings.failed, stopped)
        facts = {**{method.name: method.source for method in methods}, **options.facts}
        return write_summary(out, findings, names, data.unscored, costs, facts, title, written)


def check_folders(data: EvaluationSet, out: str | Path, options: Options) -> None:
    """Refuses places that cannot be written to, before there are hours of work to lose.

    Raises:
        ValueError: in one line.
    """
    if options.ranking is not None:
        data.check_ranking()
    for folder in (out, options.ranking):
        if folder is not None:
            check_outputs(folder, ["mat"])


class _Stopped(KeyboardInterrupt):
    """By a signal, between two frames."""


def _reconstructed(
    data: EvaluationSet,
    methods: Sequence[Reconstructor],
    options: Options,
    failed: dict[str, str],
    stopped: Callable[[int], bool],
) -> Iterator[tuple[EvaluationCase, Images]]:
    """Every case with its images, and how far it is; a signal stops it after a frame."""
    total, done = data.n_frames(len(options.conditions)), 0
    shown: Any = {"desc": "evaluate", "unit": "frame", "dynamic_ncols": True, "mininterval": 1}
    with tqdm(total=len(methods) * total, **shown) as bar:

        def advance(n_frames: int) -> None:
            bar.update(n_frames)
            if stopped(0):  # one process need not count steps
                raise _Stopped(f"stopped after {done} of {total} frames; the rest has no scores")

        for case in data.cases(options.conditions, options.seed):
            advance(0)  # methods that fail, or do not tell, are stopped here
            yield case, _reconstruct(case, methods, failed, advance)
            done += len(case.kspace)


def _reconstruct(
    case: EvaluationCase,
    methods: Sequence[Reconstructor],
    failed: dict[str, str],
    progress: Callable[[int], Any],
) -> Images:
    """Images by zero-filling and by each method that did not fail."""
    images = {ZERO_FILLED: coil_combine(ifft2c(case.kspace), case.sens)}
    for method in methods:
        place = f"{case.name}, {case.sampling.label}, {method.name}"
        arguments = (case.kspace, case.mask, case.sens, progress)
        image = _guarded(failed, place, method.reconstruct, *arguments)
        if image is None:
            continue
        if np.shape(image) != case.mask.shape:
            got = np.shape(image)
            failed[place] = f"expected images of shape (t, h, w) = {case.mask.shape}, got {got}"
        elif np.isfinite(image).all():
            images[method.name] = image
        else:
            failed[place] = "expected finite images, got NaN or infinite pixels"
    return images


def _guarded(failed: dict[str, str], place: str, work: Callable, *arguments: Any) -> Any:
    """What the work returns; ``None`` where it fails, which is noted."""
    try:
        return work(*arguments)
    except CheckpointError:
        raise
    except Exception as error:  # whatever a method raises must not stop the others
        if os.environ.get(DEBUG):
            raise
        failed[place] = " ".join(f"{type(error).__name__}: {error}".split())[:500]
    return None


def _efficiency(
    methods: Sequence[Reconstructor],
    case: EvaluationCase,
    failed: dict[str, str],
    stopped: Callable[[int], bool],
) -> dict[str, Efficiency]:
    """What each method costs on one case."""
    costs = {}
    for method in [ClassicalMethod(ZERO_FILLED), *methods]:
        place = f"efficiency of {method.name}"
        if stopped(0):
            failed[place] = "stopped"
            continue
        arguments = (method, case.kspace, case.mask, case.sens)
        cost = _guarded(failed, place, measure_efficiency, *arguments)
        if cost is not None:
            costs[method.name] = cost
    return costs


def _check_names(methods: Sequence[Reconstructor]) -> None:
    names = [ZERO_FILLED, REFERENCE, *(method.name for method in methods)]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(
            f"expected methods with names of their own, got {repeated} twice "
            f"({ZERO_FILLED} and {REFERENCE} are there already)"
        )
