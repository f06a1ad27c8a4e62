"""Scores of many frames and cases as tables: means, deviations, and whether a difference is real.

Frames and slices of one heart are no independent samples, so methods are compared subject by
subject: each gives one pair, the means over the cases of their means over frames. Every table is a
list of plain rows, for CSV and JSON.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Float64
from scipy import stats

from kgmgt_jax.data.atomic import write_atomically
from kgmgt_jax.evaluation.tables import CaseScores, layout_of, pooled, summarise

__all__ = [
    "Comparison",
    "case_rows",
    "compare",
    "frame_rows",
    "mean_rows",
    "paired_wilcoxon",
    "smallest_p",
    "weighted_kappa",
    "write_csv",
]

Row = dict[str, Any]

_EXACT = 50  # pairs; of more, the sum of ranks is as good as normal
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how one begins
_ROUNDING = 2.0**-40
_SINGLE_ROUNDING = 2.0**-20  # relative, of scores of images in single precision


class Comparison(NamedTuple):
    """One metric of one method over all cases.

    Attributes:
        mean: over all frames, each counted once.
        std: over all frames, the population's.
        p: of the paired test against the main method, subject by subject; ``None`` for the main
            method itself and for fewer than two subjects.
        n_subjects: subjects, the pairs of the test.
        n_cases: their cases.
        n_scores: frames, or volumes where the preset scores those.
    """

    mean: float
    std: float
    p: float | None
    n_subjects: int
    n_cases: int
    n_scores: int


def paired_wilcoxon(
    first: Float[Array | np.ndarray, " n"], second: Float[Array | np.ndarray, " n"]
) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test on pairs.

    Pairs without a difference (both infinite, say) are left out, as Wilcoxon did; without any
    others p is 1. Exact for up to 50 pairs, with ties or without, of more by the normal
    distribution. Not corrected for several comparisons. Differences that only rounding tells apart
    are ties: 5/3 - 4/3 and 4/3 - 1, of three readers.

    Args:
        first: one score a subject.
        second: those of the other method, of the same subjects in the same order.

    Raises:
        ValueError: if lengths differ, there are no pairs, or a score is NaN.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.shape != second.shape or first.ndim != 1 or first.size == 0:
        raise ValueError(
            f"expected as many scores of both methods, one or more, got {first.shape=}, "
            f"{second.shape=}; pair them by subject"
        )
    if np.isnan(first).any() or np.isnan(second).any():
        raise ValueError(
            "expected scores without NaN to compare, got some; leave those subjects out"
        )
    difference = _rounded_difference(first, second)
    if not difference.any():
        return 1.0
    return _signed_rank_p(difference[difference != 0])


def _signed_rank_p(difference: Float64[np.ndarray, " n"]) -> float:
    """Two-sided p of the sum of positive differences' ranks, among all 2^n choices of signs.

    Ties share their mean rank, where the normal distribution is far off with few pairs: for 14
    equal differences, 11 of them of one sign, it gives 0.033 instead of 0.057.
    """
    if difference.size > _EXACT:
        result: Any = stats.wilcoxon(difference)
        return float(result.pvalue)
    ranks = (2 * stats.rankdata(np.abs(difference))).astype(int)  # twice, so that halves are whole
    choices = np.ones(1)  # of signs, by their sum of ranks
    for rank in ranks:
        choices = np.pad(choices, (0, rank)) + np.pad(choices, (rank, 0))
    found = ranks[difference > 0].sum()
    tail = min(choices[: found + 1].sum(), choices[found:].sum())
    return min(1.0, 2 * float(tail) / 2**difference.size)


def _rounded_difference(
    first: Float64[np.ndarray, " n"], second: Float64[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    """Differences, 0 between equal infinities, in steps of 2^-40 of the largest score."""
    scores = np.abs([first, second])
    step = _ROUNDING * np.max(scores, where=np.isfinite(scores), initial=0.0)
    difference = np.subtract(first, second, out=np.zeros_like(first), where=first != second)
    return np.round(difference / step) * step if step else difference


def smallest_p(n_pairs: int) -> float:
    """The least p-value that the two-sided test can give, ``2 / 2^n``, however clear the case."""
    return min(1.0, 2.0 ** (1 - n_pairs))


def weighted_kappa(
    first: Float[Array | np.ndarray, " n"], second: Float[Array | np.ndarray, " n"]
) -> float:
    """Cohen's kappa with quadratic weights: 1 where two raters agree, 0 where it is by chance.

    One minus their mean squared difference over that of scores paired at random (Cohen 1968).

    Args:
        first: one rater's scores, one an item.
        second: the other's, of the same items in the same order.

    Returns:
        Kappa; NaN where both gave all items one and the same score, which says nothing.

    Raises:
        ValueError: if lengths differ or there are no items.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.shape != second.shape or first.ndim != 1 or first.size == 0:
        raise ValueError(
            f"expected as many scores of both raters, one or more, got {first.shape=}, "
            f"{second.shape=}"
        )
    by_chance = np.mean((first[:, None] - second) ** 2)
    return float(1 - np.mean((first - second) ** 2) / by_chance) if by_chance else math.nan


def compare(
    scores: CaseScores, main: str, subjects: Mapping[str, str] | None = None
) -> dict[str, dict[str, Comparison]]:
    """Every metric of every method over all cases, tested against the main method.

    Scores of a subject that differ by no more than a millionth are a pair without a difference:
    that is the rounding of images in single precision.

    Args:
        scores: ``{case: {method: {metric: scores}}}``, the same methods and metrics in each case.
        main: the method that others are tested against.
        subjects: ``{case: who was scanned}``; a case left out is a subject of its own.

    Returns:
        ``{method: {metric: Comparison}}``, methods and metrics in the order of the first case.

    Raises:
        ValueError: if there are no cases, they differ in methods or metrics, a case has no scores
            or NaN, or the main method is missing.
    """
    layout = layout_of(scores)
    if main not in layout:
        raise ValueError(f"expected {main=} to be one of {', '.join(layout)}")
    cases_of: dict[str, list[str]] = {}
    for case in scores:
        cases_of.setdefault(_subject(case, subjects), []).append(case)

    def by_subject(method: str, metric: str) -> Float64[np.ndarray, " n"]:
        """One score a subject: the mean over its cases of their means over frames."""
        means = {case: _mean(scores[case][method][metric]) for case in scores}
        return np.array([_mean([means[case] for case in own]) for own in cases_of.values()])

    together = pooled(scores)
    table: dict[str, dict[str, Comparison]] = {}
    for method, metrics in summarise(together).items():
        table[method] = {}
        for metric, moments in metrics.items():
            p = None
            if method != main and metric in layout[main] and len(cases_of) > 1:
                first, second = by_subject(main, metric), by_subject(method, metric)
                same = np.isclose(first, second, rtol=_SINGLE_ROUNDING, atol=0.0)
                p = paired_wilcoxon(first, np.where(same, first, second))
            counts = len(cases_of), len(scores), len(together[method][metric])
            table[method][metric] = Comparison(moments["mean"], moments["std"], p, *counts)
    return table


def mean_rows(
    scores: CaseScores, main: str, subjects: Mapping[str, str] | None = None, **labels: Any
) -> list[Row]:
    """Rows of `compare`: labels, method, metric, mean, std, p, counts.

    Args:
        scores, main, subjects: see `compare`.
        **labels: columns that come first, the same in each row: preset, acceleration, region.
    """
    return [
        {**labels, "method": method, "metric": metric, **comparison._asdict()}
        for method, metrics in compare(scores, main, subjects).items()
        for metric, comparison in metrics.items()
    ]


def case_rows(
    scores: CaseScores, subjects: Mapping[str, str] | None = None, **labels: Any
) -> list[Row]:
    """Rows of labels, subject, case, method, mean and std of each metric over the case's frames.

    Arguments and errors as for `mean_rows`.
    """
    layout_of(scores)
    return [
        {**labels, "subject": _subject(case, subjects), "case": case, "method": method}
        | {f"{metric}_{key}": values[key] for metric, values in metrics.items() for key in values}
        for case, methods in scores.items()
        for method, metrics in summarise(methods).items()
    ]


def frame_rows(
    scores: CaseScores, subjects: Mapping[str, str] | None = None, **labels: Any
) -> list[Row]:
    """Rows of labels, subject, case, frame (from 0), method, and each metric of that frame.

    Arguments and errors as for `mean_rows`. Where the preset scores volumes, a row is one.
    """
    layout_of(scores)
    rows = []
    for case, methods in scores.items():
        start = {**labels, "subject": _subject(case, subjects), "case": case}
        for method, metrics in methods.items():
            columns = {name: np.asarray(values, np.float64) for name, values in metrics.items()}
            for frame, values in enumerate(zip(*columns.values(), strict=True)):
                row = {**start, "frame": frame, "method": method}
                rows.append(row | dict(zip(columns, map(float, values), strict=True)))
    return rows


def write_csv(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as CSV with a heading, whole or not at all.

    Columns stand in the order they first appear in; what a row lacks, and ``None``, is empty.
    Numbers keep all digits. A text that a spreadsheet would take for a formula, as the name of a
    file may be, has an apostrophe in front.

    Args:
        path: the file; its folder is made if need be.
        rows: one or more.

    Returns:
        ``path`` as a Path.

    Raises:
        ValueError: if there are no rows.
    """
    if not rows:
        raise ValueError(f"expected at least one row for {path}, got none")
    columns = list(dict.fromkeys(name for row in rows for name in row))

    def write(file: Path) -> None:
        with open(file, "w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows({name: _as_cell(v) for name, v in row.items()} for row in rows)

    return write_atomically(path, write)


def _as_cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _subject(case: str, subjects: Mapping[str, str] | None) -> str:
    return (subjects or {}).get(case, case)


def _mean(values: Float[Array | np.ndarray, " n"] | Sequence[float]) -> float:
    values = np.asarray(values, np.float64)
    return float(values.mean()) if np.isfinite(values).all() else math.inf
