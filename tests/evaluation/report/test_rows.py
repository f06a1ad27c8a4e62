"""CSV files hold every score once, with its preset, family and true acceleration."""

import csv
import dataclasses

import numpy as np
import pytest
from scipy import stats

from kgmgt_jax.evaluation.report import write_score_files
from tests.evaluation.report.example import SIMULATED, small_report


@pytest.fixture(scope="module")
def data():
    return small_report(presets=("frame", "fastmri"), nominal=(4.0,))


def _read(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_score_is_there_once(data, tmp_path):
    frames, cases, means = map(_read, write_score_files(tmp_path, data))
    n_frames, n_cases, n_methods, n_regions = 6, 3, 3, 2
    assert len(frames) == n_cases * n_methods * n_regions * (n_frames + 1)  # fastmri: a volume
    assert len(cases) == n_cases * n_methods * n_regions * 2
    assert len(means) == n_methods * (3 + 4) * 2
    row = next(
        r
        for r in frames
        if (r["preset"], r["region"], r["case"], r["method"], r["frame"])
        == ("frame", "heart region", "P003/sax", "modl", "2")
    )
    expected = data.score_sets[0].scores["heart region"]["P003/sax"]["modl"]["xt_ssim"][2]
    assert float(row["xt_ssim"]) == expected


def test_every_row_states_its_conditions(data, tmp_path):
    for path in write_score_files(tmp_path, data):
        for row in _read(path):
            assert row["preset"] in ("frame", "fastmri") and row["mask_kind"] == "uniform"
            assert (row["acceleration"], row["nominal_acceleration"]) == ("3.0", "4.0")


def test_every_row_says_what_is_simulated(data, tmp_path):
    frames, cases, means = map(_read, write_score_files(tmp_path, data))
    for row in frames + cases:
        assert row["simulation"] == ("" if "P002" in row["case"] else SIMULATED)
    note = "2 of 3 cases simulated from magnitude images"
    assert {row["simulation"] for row in means} == {note}


def test_p_values_follow_from_the_scores_by_case(data, tmp_path):
    """Two cases of one subject, whose mean over cases of means over frames is one of two pairs."""
    who = {"P001/sax": "P001", "P003/sax": "P001"}
    views = [dataclasses.replace(data.score_sets[0], subjects=who)]
    told = dataclasses.replace(data, score_sets=views)
    frames, cases, means = map(_read, write_score_files(tmp_path, told))
    assert {row["case"]: row["subject"] for row in frames} == who | {"P002/<i>lax": "P002/<i>lax"}
    scores: dict = {}
    for row in cases:
        if row["region"] == "whole frame":
            by_subject = scores.setdefault(row["method"], {})
            by_subject.setdefault(row["subject"], []).append(float(row["psnr_mean"]))
    pairs = {method: [np.mean(own) for own in found.values()] for method, found in scores.items()}
    mean = next(row for row in means if (row["method"], row["metric"]) == ("modl", "psnr"))
    assert float(mean["p"]) == stats.wilcoxon(pairs["modl"], pairs["kgmgt"]).pvalue == 0.5
    assert mean["n_subjects"] == "2"


def test_no_scores_are_refused(data, tmp_path):
    with pytest.raises(ValueError, match="at least one row"):
        write_score_files(tmp_path, dataclasses.replace(data, score_sets=[]))
    assert not list(tmp_path.iterdir())
