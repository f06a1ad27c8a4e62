"""Means, deviations and p-values as by hand; tables that lose no digit."""

import csv
import math

import numpy as np
import pytest
from scipy import stats

from kgmgt_jax.evaluation.statistics import (
    case_rows,
    compare,
    frame_rows,
    mean_rows,
    paired_wilcoxon,
    smallest_p,
    weighted_kappa,
    write_csv,
)


def _scores(n_cases: int = 6, gain: float = 1.0) -> dict:
    """Two methods on cases of 2 or 3 frames; ours is better by about ``gain`` in every case."""
    rng = np.random.default_rng(0)
    scores = {}
    for case in range(n_cases):
        start = rng.normal(20, 3, 2 + case % 2)
        ours = start + gain * (1 + 0.1 * case)
        scores[f"P{case}"] = {
            "start": {"psnr": start, "ssim": start / 40},
            "ours": {"psnr": ours, "ssim": ours / 40},
        }
    return scores


def test_p_of_five_clear_pairs_by_hand():
    """All five differences have one sign: 2 of 2^5 assignments of signs are as extreme."""
    first = np.array([1.0, 2, 3, 4, 5])
    assert paired_wilcoxon(first, first - [0.1, 0.2, 0.3, 0.4, 0.5]) == pytest.approx(2 / 32)
    assert smallest_p(5) == 2 / 32


def test_p_with_one_reversed_pair_by_hand():
    """W = 1, the smallest difference reversed: sums of ranks 0 and 1 are as extreme, two-sided."""
    first = np.zeros(5)
    assert paired_wilcoxon(first, [-0.1, 0.2, 0.3, 0.4, 0.5]) == pytest.approx(4 / 32)


def test_p_of_fourteen_equal_differences_is_that_of_their_signs():
    """Readers' scores differ by one or not at all: 11 up and 3 down, as 14 tosses of a coin."""
    p = paired_wilcoxon(np.array([4.0] * 11 + [2.0] * 3), np.full(14, 3.0))
    assert p == pytest.approx(2 * (1 + 14 + 91 + 364) / 2**14, rel=1e-12)


@pytest.mark.parametrize("n", [1, 4, 9, 15])
def test_p_with_ties_is_that_of_all_choices_of_signs(n):
    rng = np.random.default_rng(n)
    difference = rng.integers(1, 5, n) * rng.choice([-1, 1, 1], n) / 2
    ranks = stats.rankdata(np.abs(difference))
    signs = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    sums, found = signs @ ranks, ranks[difference > 0].sum()
    expected = min(1.0, 2 * min(np.mean(sums <= found), np.mean(sums >= found)))
    assert paired_wilcoxon(difference, np.zeros(n)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n", [6, 50, 51])
def test_p_without_ties_is_scipys(n):
    difference = np.random.default_rng(n).normal(0.3, 1, n)
    expected = stats.wilcoxon(difference).pvalue
    assert paired_wilcoxon(difference, np.zeros(n)) == pytest.approx(expected, rel=1e-9)


def test_kappa_is_that_of_the_table_of_both_raters_scores():
    rng = np.random.default_rng(0)
    first = rng.integers(1, 6, 60)
    second = np.clip(first + rng.integers(-1, 3, 60), 1, 5)
    observed = np.zeros((5, 5))
    np.add.at(observed, (first - 1, second - 1), 1 / 60)
    by_chance = np.outer(observed.sum(axis=1), observed.sum(axis=0))
    weight = np.subtract.outer(np.arange(5), np.arange(5)) ** 2 / 16
    expected = 1 - (weight * observed).sum() / (weight * by_chance).sum()
    assert weighted_kappa(first, second) == pytest.approx(expected, rel=1e-12)
    assert weighted_kappa(first, first) == 1


def test_kappa_where_it_says_nothing_and_of_scores_that_are_no_pairs():
    assert math.isnan(weighted_kappa([3, 3], [3, 3]))
    assert weighted_kappa([3, 3], [4, 4]) == 0
    for first, second in (([], []), ([1, 2], [1])):
        with pytest.raises(ValueError, match="as many scores of both raters"):
            weighted_kappa(first, second)


def test_cases_of_a_subject_are_one_pair():
    """Two of six cases each of three subjects: p cannot fall below 2 / 2^3."""
    scores = _scores(6)
    subjects = {"P0": "a", "P1": "a", "P2": "b", "P3": "b", "P4": "c", "P5": "c"}
    alone, grouped = compare(scores, "ours"), compare(scores, "ours", subjects)
    assert alone["start"]["psnr"].p == pytest.approx(2 / 64)
    entry = grouped["start"]["psnr"]
    assert entry.p == pytest.approx(2 / 8)
    assert (entry.n_subjects, entry.n_cases, entry.n_scores) == (3, 6, 15)
    assert entry.mean == alone["start"]["psnr"].mean  # over frames, as before


def test_a_pair_is_the_mean_over_the_cases_of_a_subject():
    def case(start, ours):
        return {"start": {"psnr": np.array([start])}, "ours": {"psnr": np.array([ours])}}

    scores = {"a": case(1.0, 2.0), "b": case(4.0, 3.0), "c": case(0.0, 1.0)}
    assert compare(scores, "ours", {"a": "x", "b": "x"})["start"]["psnr"].p == 1.0


def test_means_and_sums_of_three_readers_give_one_p():
    """Nine differences of one reader's point, seven up and two down, and one of none."""
    sums = np.array(
        [[14, 11, 10, 12, 12, 12, 14, 12, 12, 13], [13, 10, 9, 11, 11, 13, 15, 11, 12, 12]]
    )
    means = sums / 3
    expected = 2 * (1 + 9 + 36) / 2**9
    assert len(set(np.abs(means[0] - means[1]))) > 2  # which ranks would tell apart
    for scores in (sums, means, 1e-9 * means):
        assert paired_wilcoxon(*scores) == pytest.approx(expected, rel=1e-12)


def test_differences_in_the_sixth_decimal_are_no_rounding():
    scores = np.full(6, 30.0)
    assert paired_wilcoxon(scores + 1e-6 * np.arange(1, 7), scores) == 2 / 2**6


@pytest.mark.parametrize(("relative", "p"), [(1e-7, 1.0), (1e-5, 2 / 2**6)])
def test_scores_that_differ_by_single_precision_alone_are_no_different_methods(relative, p):
    rng = np.random.default_rng(0)
    main = {case: {"nmse": rng.uniform(0.01, 0.1, 2)} for case in "ABCDEF"}
    other = {case: {"nmse": (1 + relative) * each["nmse"]} for case, each in main.items()}
    scores = {case: {"main": main[case], "other": other[case]} for case in main}
    assert compare(scores, "main")["other"]["nmse"].p == p


def test_a_case_with_an_infinite_frame_ranks_above_all_others():
    main = {f"P{i}": np.array([30.0, 30.0]) for i in range(6)}
    other = {case: values + 1 + i for i, (case, values) in enumerate(main.items())}
    other["P5"] = np.array([30.0, np.inf])
    scores = {c: {"main": {"psnr": main[c]}, "other": {"psnr": other[c]}} for c in main}
    assert compare(scores, "main")["other"]["psnr"].p == 2 / 2**6


def test_infinite_scores_rank_above_all_others():
    first = np.array([math.inf, 3.0, 2.0, 1.0, 5.0])
    p = paired_wilcoxon(first, [1.0, 3.5, 1.0, 0.5, 5.3])
    assert p == paired_wilcoxon([100.0, *first[1:]], [1.0, 3.5, 1.0, 0.5, 5.3])


def test_p_is_scipys_for_many_pairs():
    rng = np.random.default_rng(1)
    first, second = rng.normal(0, 1, (2, 200))
    expected = stats.wilcoxon(first, second + 0.2).pvalue
    assert paired_wilcoxon(first, second + 0.2) == pytest.approx(expected, rel=1e-12)


def test_pairs_without_a_difference_say_nothing():
    first = np.array([1.0, 2, 3, math.inf, 7, 7])
    second = np.array([0.9, 1.8, 2.7, math.inf, 7, 7])
    assert paired_wilcoxon(first, second) == paired_wilcoxon(first[:3], second[:3])
    assert paired_wilcoxon(first, first) == 1.0


def test_perfect_case_is_the_largest_difference():
    first = np.array([math.inf, 3.0, 2.0, 2.0])
    assert paired_wilcoxon(first, [0.0, 2.0, 1.5, 1.75]) == pytest.approx(2 / 16)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([1.0], [1.0, 2.0], "as many"),
        ([], [], "one or more"),
        ([math.nan], [1.0], "NaN"),
        ([1.0], [math.nan], "NaN"),
    ],
)
def test_what_is_not_paired_is_refused(first, second, message):
    with pytest.raises(ValueError, match=message):
        paired_wilcoxon(np.array(first), np.array(second))


def test_comparison_pools_frames_and_pairs_cases():
    scores = _scores()
    table = compare(scores, "ours")
    frames = np.concatenate([case["start"]["psnr"] for case in scores.values()])
    entry = table["start"]["psnr"]
    assert (entry.mean, entry.std) == pytest.approx((frames.mean(), frames.std()), rel=1e-12)
    assert (entry.n_cases, entry.n_scores) == (6, 15)
    assert entry.p == pytest.approx(2 / 64)  # six cases, not fifteen frames


def test_main_method_and_single_cases_have_no_p():
    assert compare(_scores(), "ours")["ours"]["psnr"].p is None
    assert compare(_scores(n_cases=1), "ours")["start"]["psnr"].p is None
    assert compare(_scores(), "ours", dict.fromkeys(_scores(), "a"))["start"]["psnr"].p is None


def test_means_over_frames_decide_not_single_frames():
    """First and last frames differ either way; their mean is higher in every case."""
    scores = {}
    for case in range(5):
        swing = 20 * (-1) ** case
        theirs = 10 + np.array([swing, 1 + case - swing])
        scores[f"P{case}"] = {"a": {"psnr": np.array([10.0, 10])}, "b": {"psnr": theirs}}
    assert compare(scores, "a")["b"]["psnr"].p == pytest.approx(2 / 32)


@pytest.mark.parametrize(
    ("scores", "main", "message"),
    [
        ({}, "ours", "at least one case"),
        (_scores(), "theirs", "start, ours"),
        (_scores(2) | {"P9": {"ours": {"psnr": np.ones(2)}}}, "ours", "P9"),
        ({"P0": {"ours": {"psnr": np.array([np.nan])}}}, "ours", "NaN"),
    ],
)
def test_unfair_comparisons_are_refused(scores, main, message):
    with pytest.raises(ValueError, match=message):
        compare(scores, main)


def test_order_of_methods_does_not_matter():
    scores = _scores(2)
    scores["P1"] = dict(reversed(scores["P1"].items()))
    assert compare(scores, "ours")["ours"]["psnr"].n_cases == 2


def test_rows_carry_labels_and_every_number():
    scores = _scores(3)
    rows = frame_rows(scores, preset="frame", region="heart region")
    assert len(rows) == 2 * (2 + 3 + 2)
    assert rows[1] == {
        "preset": "frame",
        "region": "heart region",
        "subject": "P0",
        "case": "P0",
        "frame": 1,
        "method": "start",
        "psnr": scores["P0"]["start"]["psnr"][1],
        "ssim": scores["P0"]["start"]["ssim"][1],
    }
    row = case_rows(scores, preset="frame")[3]
    assert (row["case"], row["method"]) == ("P1", "ours")
    assert row["psnr_std"] == pytest.approx(scores["P1"]["ours"]["psnr"].std())
    assert [r["method"] for r in mean_rows(scores, "ours")] == ["start", "start", "ours", "ours"]


@pytest.mark.parametrize("rows", [frame_rows, case_rows])
def test_rows_of_cases_with_other_methods_are_refused(rows):
    with pytest.raises(ValueError, match=r"same methods and metrics in every case.*'P9'"):
        rows(_scores(2) | {"P9": {"ours": {"psnr": np.ones(2)}}})


def test_csv_keeps_digits_and_leaves_blanks(tmp_path):
    path = write_csv(tmp_path / "new" / "m.csv", mean_rows(_scores(), "ours", preset="frame"))
    with open(path, newline="") as stream:
        rows = list(csv.DictReader(stream))
    expected = compare(_scores(), "ours")
    assert float(rows[0]["mean"]) == expected["start"]["psnr"].mean
    assert rows[-1]["p"] == "" and rows[0]["preset"] == "frame"


def test_csv_has_all_columns_of_all_rows(tmp_path):
    path = write_csv(tmp_path / "m.csv", [{"a": 1}, {"b": "x, y", "a": math.inf}])
    assert path.read_text() == 'a,b\n1,\ninf,"x, y"\n'
    with pytest.raises(ValueError, match="at least one row"):
        write_csv(tmp_path / "none.csv", [])


@pytest.mark.parametrize("name", ["=cmd()", "+1", "-1", "@x", "\t=1"])
def test_no_name_is_a_formula(tmp_path, name):
    path = write_csv(tmp_path / "m.csv", [{"case": name, "psnr": -1.5}])
    assert path.read_text() == f"case,psnr\n'{name},-1.5\n"
