"""The report: one self-contained page of tables, cine players and plots."""

from kgmgt_jax.evaluation.report.data import (
    CineExample,
    Efficiency,
    ReportData,
    ScoreSet,
)
from kgmgt_jax.evaluation.report.markup import simulation_note
from kgmgt_jax.evaluation.report.page import write_report
from kgmgt_jax.evaluation.report.rows import write_score_files

__all__ = [
    "CineExample",
    "Efficiency",
    "ReportData",
    "ScoreSet",
    "simulation_note",
    "write_report",
    "write_score_files",
]
