"""Comparisons stay paired whatever fails."""

import numpy as np

from kgmgt_jax.evaluation.collecting import paired_scores
from kgmgt_jax.evaluation.regions import HEART, WHOLE

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
