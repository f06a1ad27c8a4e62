"""What an evaluation finds, gathered case by case: scores, cines to show, images to write."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Complex64, Float32

from kgmgt_jax.data.case import pixel_aspect
from kgmgt_jax.evaluation.cases import Condition, EvaluationCase
from kgmgt_jax.evaluation.regions import WHOLE, score_frames, score_regions
from kgmgt_jax.evaluation.report import CineExample, ScoreSet
from kgmgt_jax.evaluation.sampling import Sampling
from kgmgt_jax.metrics import PRESETS

__all__ = ["Findings", "paired_scores"]

N_SHOWN = 12  # cines on the page, at most; at least one of each condition

Images = Mapping[str, Complex64[np.ndarray, "t h w"]]
CaseScores = dict[str, dict[str, dict[str, np.ndarray]]]


class _Slice(NamedTuple):
    """Magnitudes of a slice of a volume, by method, and of its reference; its acceleration."""

    reference: Float32[np.ndarray, "t h w"]
    images: Mapping[str, Float32[np.ndarray, "t h w"]]
    acceleration: float


@dataclass(eq=False)
class Findings:
    """Everything found so far.

    A preset that scores volumes takes all slices of a file as one, in the whole frame only; of a
    file of one slice, its cine.

    Attributes:
        conditions: how slices are undersampled.
        presets: definitions of the metrics.
        scores: ``{(condition, preset): {region: {case: {method: {metric: scores}}}}}``.
        examples: cines to show.
        simulation: ``{case: how it was simulated}``.
        subjects: ``{case: who was scanned}``.
        accelerations: ``{condition: {case: its true one}}``.
        failed: ``{what: why}``.
    """

    conditions: Sequence[Condition]
    presets: Sequence[str]
    scores: dict[tuple[Condition, str], dict[str, CaseScores]] = field(default_factory=dict)
    examples: list[CineExample] = field(default_factory=list)
    simulation: dict[str, str] = field(default_factory=dict)
    subjects: dict[str, str] = field(default_factory=dict)
    accelerations: dict[Condition, dict[str, float]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    _samples: dict[Condition, list[float]] = field(default_factory=dict)
    _volumes: dict[tuple[Condition, str], list[_Slice]] = field(default_factory=dict)

    def add(self, case: EvaluationCase, images: Images) -> None:
        """Scores the images of a case, if it has a reference, and keeps it to be shown.

        A case that cannot be scored counts as failed.
        """
        magnitudes = {name: np.abs(image) for name, image in images.items()}
        self.subjects[case.name] = case.subject
        if case.simulation:
            self.simulation[case.name] = case.simulation
        if case.condition is not None and case.reference is not None:
            whole = [p for p in self.presets if PRESETS[p].per_volume and case.n_slices > 1]
            apart = [p for p in self.presets if p not in whole]
            try:
                found = {p: score_regions(case.reference, magnitudes, p) for p in apart}
                if whole:
                    piece = _Slice(case.reference, magnitudes, case.sampling.true_acceleration)
                    self._add_slice(case, case.condition, piece, whole)
            except ValueError as error:
                self.failed[f"{case.name}, {case.sampling.label}"] = str(error)
                return
            own = self.accelerations.setdefault(case.condition, {})
            own[case.name] = case.sampling.true_acceleration
            for preset, regions in found.items():
                place = self.scores.setdefault((case.condition, preset), {})
                for region, methods in regions.items():
                    place.setdefault(region, {})[case.name] = methods
            measured = self._samples.setdefault(case.condition, [0.0, 0.0])
            measured[0] += float(case.mask.sum())
            measured[1] += case.mask.size
        self._show(case, magnitudes)

    def _add_slice(
        self, case: EvaluationCase, condition: Condition, piece: _Slice, presets: Sequence[str]
    ) -> None:
        """Keeps a slice of a volume, and scores the volume once it is whole."""
        # its file may follow in brackets, below folders of any name
        volume = re.sub(rf"/slice{case.slice_index}(?= \(|$)", "", case.name, count=1)
        slices = self._volumes.setdefault((condition, volume), [])
        slices.append(piece)
        if len(slices) < case.n_slices:
            return
        del self._volumes[condition, volume]
        reference = np.concatenate([each.reference for each in slices])
        names = [n for n in piece.images if all(n in each.images for each in slices)]
        stacked = {name: np.concatenate([each.images[name] for each in slices]) for name in names}
        self.subjects[volume] = case.subject
        measured = sum(1 / each.acceleration for each in slices)  # of slices of one size
        self.accelerations.setdefault(condition, {})[volume] = len(slices) / measured
        if case.simulation:
            self.simulation[volume] = case.simulation
        for preset in presets:
            place = self.scores.setdefault((condition, preset), {}).setdefault(WHOLE, {})
            place[volume] = score_frames(reference, stacked, preset)

    @property
    def incomplete(self) -> dict[str, str]:
        """``{volume: why}`` of those that have no score because slices are missing."""
        missing = "a slice of it is missing"
        return {
            f"volume {name}, {condition.mask_kind} {condition.acceleration:g}x": missing
            for condition, name in self._volumes
        }

    def _show(
        self, case: EvaluationCase, magnitudes: Mapping[str, Float32[np.ndarray, "t h w"]]
    ) -> None:
        most = max(1, min(4, N_SHOWN // max(len(self.conditions), 1)))
        kind = case.sampling.mask_kind, case.sampling.nominal_acceleration
        shown = [(e.sampling.mask_kind, e.sampling.nominal_acceleration) for e in self.examples]
        if shown.count(kind) < most:
            arguments = (case.name, case.sampling, magnitudes, case.reference, case.mask)
            told = {"simulation": case.simulation, "aspect": pixel_aspect(case.pixel_mm)}
            self.examples.append(CineExample(*arguments, **told))

    def sampling(self, condition: Condition) -> Sampling:
        """A condition with the true acceleration over all its cases."""
        measured, samples = self._samples[condition]
        kind, nominal, acs = condition
        return Sampling(kind, samples / measured, nominal, acs)

    def score_sets(self) -> list[ScoreSet]:
        """The scores, one set a condition and preset, each case with the same methods."""
        return [
            ScoreSet(
                self.sampling(condition),
                preset,
                paired_scores(regions),
                self.subjects,
                self.accelerations[condition],
            )
            for (condition, preset), regions in self.scores.items()
        ]


def paired_scores(regions: Mapping[str, CaseScores]) -> dict[str, CaseScores]:
    """Scores in which every case has every method, so that each comparison is paired.

    A case that lacks a method is left out; if none were left, the method with the fewest cases goes
    first, as often as need be.

    Args:
        regions: ``{region: {case: {method: scores}}}``.

    Returns:
        The same, with fewer methods or cases; regions without a case left are left out.
    """
    cases = regions[WHOLE]
    methods = Counter(name for found in cases.values() for name in found)
    while not (complete := [c for c, found in cases.items() if methods.keys() <= found.keys()]):
        del methods[min(methods, key=lambda name: methods[name])]
    kept = {
        region: {c: {m: found[c][m] for m in methods} for c in complete if c in found}
        for region, found in regions.items()
    }
    return {region: rows for region, rows in kept.items() if rows}
