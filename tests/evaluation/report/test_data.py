"""What a report is made of is checked before a page is."""

import dataclasses

import numpy as np
import pytest

from kgmgt_jax.evaluation.report import CineExample, ReportData, ScoreSet
from kgmgt_jax.evaluation.sampling import Sampling
from tests.evaluation.cines import beating_disc
from tests.evaluation.report.example import small_report

SAMPLING = Sampling("uniform", 3.2, 4)
CINE = beating_disc()


def test_label_has_family_and_both_accelerations():
    assert Sampling("ktGaussian", 3.0799, 4, 8).label == (
        "ktGaussian, true 3.08× (nominal 4×), 8 central lines"  # noqa: RUF001
    )
    assert Sampling("file", 2.5).label == "file, true 2.50×"  # noqa: RUF001


def test_methods_are_those_of_scores_cines_and_costs():
    data = small_report(nominal=(4.0,))
    assert data.methods == ["zero_filled", "modl", "kgmgt"]
    assert data.label("modl") == "MoDL" and data.label("l_plus_s") == "l plus s"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sampling("uniform", 0.5), "true_acceleration >= 1"),
        (lambda: ScoreSet(SAMPLING, "best", {}), "cmrxrecon2023.*'best'"),
        (lambda: ScoreSet(SAMPLING, "frame", {"whole frame": {}}), "at least one case"),
        (lambda: CineExample("P1", SAMPLING, {}), "at least one method"),
        (lambda: CineExample("P1", SAMPLING, {"a": CINE}, CINE[:3]), r"one shape.*'P1'"),
        (lambda: CineExample("P1", SAMPLING, {"a": CINE * 1j}), "magnitudes.*'a' in 'P1'"),
        (lambda: CineExample("P1", SAMPLING, {"a": -CINE}), "not negative"),
        (lambda: CineExample("P1", SAMPLING, {"a": CINE * np.nan}), "finite"),
        (lambda: ReportData("x", "a", []), "neither"),
        (lambda: dataclasses.replace(small_report(), main="best"), "zero_filled, modl, kgmgt"),
    ],
)
def test_what_cannot_be_reported_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
