"""Everything that was scored as CSV files, each row with its conditions."""

from pathlib import Path
from typing import Any

from kgmgt_jax.evaluation.report.data import ReportData, ScoreSet
from kgmgt_jax.evaluation.report.markup import simulation_note
from kgmgt_jax.evaluation.statistics import case_rows, frame_rows, mean_rows, write_csv

__all__ = ["write_score_files"]


def write_score_files(folder: str | Path, data: ReportData) -> list[Path]:
    """Write ``scores_by_frame.csv``, ``scores_by_case.csv`` and ``scores_mean.csv``.

    The first columns are preset, mask family, both accelerations (the true one is the case's own,
    of means that of all cases together), region, and how k-space was simulated, if it was; then see
    `evaluation.statistics`.

    Args:
        folder: where they go; made if need be.
        data: what was scored, at least one set.

    Returns:
        The three files.

    Raises:
        ValueError: if there are no scores, or cases of a set differ in methods or metrics.
    """
    rows: dict[str, list[dict[str, Any]]] = {"by_frame": [], "by_case": [], "mean": []}
    for view in data.score_sets:
        for region, scores in view.scores.items():
            label = _labels(view, region) | {"simulation": simulation_note(data, scores)}
            own = {case: _own_labels(data, view, case) for case in scores}
            for name, make in (("by_frame", frame_rows), ("by_case", case_rows)):
                rows[name] += [
                    row | own[row["case"]] for row in make(scores, view.subjects, **label)
                ]
            rows["mean"] += mean_rows(scores, data.main, view.subjects, **label)
    return [write_csv(Path(folder) / f"scores_{name}.csv", table) for name, table in rows.items()]


def _labels(view: ScoreSet, region: str) -> dict[str, Any]:
    """What scores of a set are scores of."""
    return {
        "preset": view.preset,
        "mask_kind": view.sampling.mask_kind,
        "acceleration": view.sampling.true_acceleration,
        "nominal_acceleration": view.sampling.nominal_acceleration,
        "region": region,
    }


def _own_labels(data: ReportData, view: ScoreSet, case: str) -> dict[str, Any]:
    """What is so of one case, where `_labels` speak of all."""
    true = view.accelerations.get(case, view.sampling.true_acceleration)
    return {"acceleration": true, "simulation": data.simulation_of(case)}
