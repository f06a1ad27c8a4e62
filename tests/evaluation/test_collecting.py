"""Comparisons stay paired whatever fails."""

from pathlib import Path

import numpy as np

from kgmgt_jax.evaluation.cases import Condition, EvaluationCase
from kgmgt_jax.evaluation.collecting import Findings, paired_scores
from kgmgt_jax.evaluation.regions import HEART, WHOLE
from kgmgt_jax.evaluation.sampling import Sampling
from tests.evaluation.cines import beating_disc

SCORES = {"psnr": np.array([1.0])}


def _cases(**methods):
    return {case: dict.fromkeys(names.split(), SCORES) for case, names in methods.items()}


def test_complete_scores_stay_as_they_are():
    regions = {WHOLE: _cases(a="x y", b="x y"), HEART: _cases(a="x y")}
    assert paired_scores(regions) == regions


def test_case_without_one_of_the_methods_is_left_out():
    regions = {WHOLE: _cases(a="x y", b="x"), HEART: _cases(a="x y", b="x")}
    assert paired_scores(regions) == {WHOLE: _cases(a="x y"), HEART: _cases(a="x y")}


def test_method_goes_where_no_case_would_be_left():
    regions = {WHOLE: _cases(a="x y", b="x z", c="x z")}
    assert paired_scores(regions) == {WHOLE: _cases(b="x z", c="x z")}


def test_region_without_a_case_left_is_left_out():
    assert list(paired_scores({WHOLE: _cases(a="x y", b="x"), HEART: _cases(b="x")})) == [WHOLE]


def test_found_scores_are_of_the_cases_with_all_methods():
    condition, images = Condition("uniform", 4.0, 8), beating_disc(t=2)
    kspace, mask = images[:, None].astype(np.complex64), np.ones(images.shape, np.float32)
    findings = Findings([condition], ["frame"])
    for name, methods in (("a", "x y"), ("b", "x")):
        told = (name, name, kspace, mask, None, images, Sampling("uniform", 2.0, 4.0, 8))
        case = EvaluationCase(*told, condition, "", Path(name), 0, 1)
        findings.add(case, dict.fromkeys(methods.split(), kspace[:, 0]))
    (found,) = findings.score_sets()
    assert {case: list(scores) for case, scores in found.scores[WHOLE].items()} == {"a": ["x", "y"]}


def test_slices_of_a_volume_wait_for_the_last_of_their_condition():
    conditions = [Condition("uniform", 4.0, 8), Condition("uniform", 8.0, 8)]
    images = beating_disc(t=2)
    kspace, mask = images[:, None].astype(np.complex64), np.ones(images.shape, np.float32)
    findings = Findings(conditions, ["fastmri"])
    for z, methods in enumerate(("x y", "x", "x y")):  # y fails on the second slice
        for condition in conditions:
            sampling = Sampling("uniform", 2.0, condition.acceleration, 8)
            told = (f"a/slice{z}", "a", kspace, mask, None, (1 + z) * images, sampling)
            case = EvaluationCase(*told, condition, "from images", Path("a"), z, 3)
            findings.add(case, dict.fromkeys(methods.split(), kspace[:, 0]))
    scores = [each.scores[WHOLE] for each in findings.score_sets()]
    assert [{case: list(found) for case, found in each.items()} for each in scores] == [
        {"a": ["x"]}
    ] * 2
    assert findings.simulation["a"] == "from images" and findings.incomplete == {}
