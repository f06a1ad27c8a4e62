"""Scores as numbers people read: summaries, a JSON record and a text table.

Every record carries the preset and the true acceleration, since a PSNR means nothing without them.
Numbers stay finite or infinite, never NaN; JSON has no infinity, so ``null`` stands for it there
(the PSNR of a prediction that equals its reference).
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from kgmgt_jax.commands import aligned
from kgmgt_jax.data.atomic import write_atomically
from kgmgt_jax.metrics import check_preset

__all__ = [
    "CaseScores",
    "Summary",
    "format_table",
    "layout_of",
    "metrics_record",
    "pooled",
    "summarise",
    "write_json",
    "write_metrics_json",
]

Scores = Mapping[str, Mapping[str, Float[Array | np.ndarray, " n"]]]
CaseScores = Mapping[str, Scores]
Summary = dict[str, dict[str, dict[str, float]]]

COLUMNS = {"psnr": ("PSNR (dB)", 2), "ssim": ("SSIM", 4), "nmse": ("NMSE", 5)}
"""Heading and decimals of each metric in the table."""
_RANKED_BY = ("psnr", "ssim")


def summarise(per_frame: Scores) -> Summary:
    """Mean and standard deviation of each metric of each method.

    Of scores s_1 .. s_n, in float64: ``mean = Σ s_i / n``, ``std = (Σ (s_i - mean)^2 / n)^½``, the
    population's, so that one frame has 0. Both are infinite where some, but not all, scores are.

    Args:
        per_frame: ``{method: {metric: scores}}``, scores as `metrics.evaluate`
            gives them, n >= 1 for every method.

    Returns:
        ``{method: {metric: {"mean", "std"}}}`` in plain floats, methods in the order given.

    Raises:
        ValueError: if there are no scores, they are not 1-D, or one is NaN.
    """
    return {
        method: {
            metric: _moments(scores, f"{metric} of {method!r}")
            for metric, scores in metrics.items()
        }
        for method, metrics in per_frame.items()
    }


def metrics_record(
    per_case: Mapping[str, Scores],
    *,
    preset: str,
    acceleration: Mapping[str, float | None],
    **extra: Any,
) -> dict[str, Any]:
    """The scores of a test set under one preset, as JSON holds them.

    The record has ``preset``; ``acceleration`` (the true one) and ``nominal_acceleration``;
    ``methods`` (`summarise` over all frames of all cases, each frame counted once); ``cases``
    (a list of ``name``, ``n_scores`` and ``methods``: ``{method: {metric: mean}}``); and ``extra``.

    Args:
        per_case: ``{case: {method: {metric: scores}}}``, the same methods and metrics in each case.
        preset: the key of `metrics.PRESETS` the scores were computed with.
        acceleration: ``{"nominal": R or None, "true": all samples / measured samples}``.
        **extra: further entries, of numbers, strings, paths, arrays, lists and dictionaries.

    Returns:
        The record in JSON's own types, ``None`` for what is not finite.

    Raises:
        ValueError: if the preset is unknown, an acceleration is missing or below 1, there are no
            cases, the cases differ in methods or metrics, the scores of a case in number, a score
            is NaN, or ``extra`` repeats a name.
        TypeError: if ``extra`` holds something JSON cannot.
    """
    check_preset(preset)
    cases = [_case(name, scores) for name, scores in per_case.items()]
    record = {
        "preset": preset,
        "acceleration": _acceleration(acceleration, "true"),
        "nominal_acceleration": _acceleration(acceleration, "nominal"),
        "methods": summarise(pooled(per_case)),
        "cases": cases,
    }
    repeated = sorted(record.keys() & extra.keys())
    if repeated:
        raise ValueError(f"expected extra entries with names of their own, got {repeated=}; rename")
    return _plain(record | extra, "metrics")


def write_metrics_json(
    path: str | Path,
    per_case: Mapping[str, Scores],
    *,
    preset: str,
    acceleration: Mapping[str, float | None],
    **extra: Any,
) -> dict[str, Any]:
    """Write `metrics_record` with `write_json`; arguments and errors as of these two.

    Returns:
        What reading the file gives back.
    """
    record = metrics_record(per_case, preset=preset, acceleration=acceleration, **extra)
    return write_json(path, record)


def write_json(path: str | Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Write a dictionary as one JSON file, whole or not at all; ``null`` for what is not finite.

    Args:
        path: file to write; its folder is made if need be.
        record: of numbers, strings, paths, arrays, lists and dictionaries.

    Returns:
        What reading the file gives back.

    Raises:
        TypeError: if it holds something JSON cannot.
    """
    text = json.dumps(_plain(record, "metrics"), indent=2, allow_nan=False)
    write_atomically(path, lambda file: file.write_text(text + "\n", encoding="utf-8"))
    return json.loads(text)


def format_table(metrics: Mapping[str, Any]) -> str:
    """An aligned text table: a method a row, mean ± std of PSNR, SSIM and NMSE.

    A star marks the method of highest mean PSNR (of equal ones, that of highest SSIM, then the
    first).

    Args:
        metrics: what `write_metrics_json` returned or wrote.

    Returns:
        Lines without a newline at the end; the first states preset and acceleration.

    Raises:
        ValueError: if an entry or a metric is missing.
    """
    missing = [key for key in ("preset", "acceleration", "methods") if not metrics.get(key)]
    if missing:
        raise ValueError(
            f"expected the metrics that write_metrics_json writes, got none of {missing=}"
        )
    methods = metrics["methods"]
    for name, found in methods.items():
        if not found.keys() >= COLUMNS.keys():
            raise ValueError(
                f"expected psnr, ssim and nmse of every method, got {list(found)} for {name!r}"
            )
    best = max(methods, key=lambda name: [_number(methods[name][m]["mean"]) for m in _RANKED_BY])
    rows = [["  method", *(heading for heading, _ in COLUMNS.values())]]
    for name in methods:
        cells = (_cell(methods[name][metric], COLUMNS[metric][1]) for metric in COLUMNS)
        rows.append([f"{'*' if name == best else ' '} {name}", *cells])
    lines = aligned(rows)
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join([_heading(metrics), "", *lines])


def _moments(scores: Float[Array | np.ndarray, " n"], label: str) -> dict[str, float]:
    values = np.asarray(scores, np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"expected at least one score in a 1-D array, {label} has {values.shape=}")
    if np.isnan(values).any():
        frames = np.flatnonzero(np.isnan(values)).tolist()
        raise ValueError(
            f"expected scores without NaN, {label} has NaN at {frames}; leave them out"
        )
    if (values == values[0]).all():
        return {"mean": float(values[0]), "std": 0.0}
    if np.isinf(values).any():
        return {"mean": float(values.sum()), "std": math.inf}
    return {"mean": float(values.mean()), "std": float(values.std())}


def layout_of(scores: CaseScores) -> dict[str, list[str]]:
    """Methods and their metrics.

    Raises:
        ValueError: if there are no cases, or they are not the same in every case.
    """
    if not scores:
        raise ValueError("expected the scores of at least one case, got none")
    layouts = {
        case: {method: list(metrics) for method, metrics in methods.items()}
        for case, methods in scores.items()
    }
    first, *others = layouts
    for case in others:
        sets = [{m: set(names) for m, names in layouts[c].items()} for c in (first, case)]
        if sets[0] != sets[1]:
            raise ValueError(
                f"expected the same methods and metrics in every case, {layouts[first]} in "
                f"{first!r}, got {layouts[case]} in {case!r}; score every method on every case"
            )
    return layouts[first]


def pooled(scores: CaseScores) -> Scores:
    """All cases' scores end to end, by method and metric; errors as `layout_of`."""
    return {
        method: {
            metric: np.concatenate(
                [np.asarray(case[method][metric], np.float64) for case in scores.values()]
            )
            for metric in metrics
        }
        for method, metrics in layout_of(scores).items()
    }


def _n_scores(name: str, scores: Scores) -> int:
    counts = {np.shape(values) for metrics in scores.values() for values in metrics.values()}
    if len(counts) != 1 or len(shape := counts.pop()) != 1:
        raise ValueError(
            "expected 1-D scores, as many for every method and metric of a case, got scores of "
            f"several shapes or ranks in case {name!r}; score the same frames with all methods"
        )
    return shape[0]


def _case(name: str, scores: Scores) -> dict[str, Any]:
    n_scores = _n_scores(name, scores)
    means = {
        method: {metric: summary["mean"] for metric, summary in metrics.items()}
        for method, metrics in summarise(scores).items()
    }
    return {"name": name, "n_scores": n_scores, "methods": means}


def _acceleration(acceleration: Mapping[str, float | None], kind: str) -> float | None:
    """One of the two accelerations; only the nominal one may be unknown."""
    value = acceleration.get(kind)
    if value is None and kind in acceleration and kind == "nominal":
        return None
    if value is None or not 1 <= float(value) < math.inf:
        raise ValueError(
            'expected acceleration={"nominal": R or None, "true": R} with finite R >= 1, got '
            f"{dict(acceleration)}"
        )
    return float(value)


def _plain(value: Any, where: str) -> Any:
    """The value in JSON's own types, with null for what is not finite."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, np.ndarray | np.generic | Array):
        return _plain(np.asarray(value).tolist(), where)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, str | int):
        return value
    raise TypeError(
        f"expected numbers, strings, paths, arrays, lists or dictionaries, got {type(value)=} at "
        f"{where}; convert it first"
    )


def _number(value: float | None) -> float:
    """The number that JSON held, where null stands for infinity."""
    return math.inf if value is None else value


def _cell(summary: Mapping[str, float | None], decimals: int) -> str:
    """``mean ± std``; ``inf`` alone where the mean is."""
    mean, std = (_number(summary[key]) for key in ("mean", "std"))
    return "inf" if math.isinf(mean) else f"{mean:.{decimals}f} ± {std:.{decimals}f}"


def _heading(metrics: Mapping[str, Any]) -> str:
    nominal = metrics.get("nominal_acceleration")
    note = "" if nominal is None else f" (nominal {nominal:g})"
    return (
        f"preset {metrics['preset']} · acceleration {metrics['acceleration']:.2f}{note} · "
        "mean ± std · * best PSNR"
    )
