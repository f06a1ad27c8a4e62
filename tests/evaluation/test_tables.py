"""Scores become tables and JSON without losing the preset, the acceleration or a digit."""

import json
import math

import numpy as np
import pytest

from kgmgt_jax.evaluation.tables import (
    format_table,
    summarise,
    write_metrics_json,
)

RATES = {"nominal": 4, "true": 3.2}


SHOWN, ONE = ("psnr", "ssim"), {"mean": 1.0, "std": 0.0}


def _scores(psnr, ssim=(0.5, 0.7), nmse=(0.01, 0.03)) -> dict[str, np.ndarray]:
    values = {"psnr": psnr, "ssim": ssim, "nmse": nmse}
    return {name: np.array(value, np.float32) for name, value in values.items()}


def _case(zero_filled=(20, 22), ours=(30, 34)) -> dict[str, dict[str, np.ndarray]]:
    return {"zero_filled": _scores(zero_filled), "ours": _scores(ours)}


def test_summary_is_mean_and_population_deviation():
    assert summarise({"ours": {"psnr": np.array([30.0, 34.0])}}) == {
        "ours": {"psnr": {"mean": 32.0, "std": 2.0}}
    }


def test_one_frame_has_no_deviation():
    assert summarise({"ours": {"psnr": np.array([30.0])}})["ours"]["psnr"]["std"] == 0.0


def test_sums_are_formed_in_float64():
    scores = np.full(100_001, 0.1, np.float32)
    scores[0] = 0.2
    mean = summarise({"ours": {"ssim": scores}})["ours"]["ssim"]["mean"]
    assert mean == pytest.approx(np.mean(scores.astype(np.float64)), rel=1e-14)


@pytest.mark.parametrize(
    ("psnr", "std"), [([math.inf, math.inf], 0.0), ([math.inf, 30.0], math.inf)]
)
def test_perfect_frames_have_an_infinite_mean_and_no_nan(psnr, std):
    summary = summarise({"ours": {"psnr": np.array(psnr)}})["ours"]["psnr"]
    assert summary == {"mean": math.inf, "std": std}


@pytest.mark.parametrize("scores", [[1.0, np.nan], [], [[1.0]]])
def test_summary_refuses_what_has_no_mean(scores):
    with pytest.raises(ValueError, match=r"expected.*psnr of 'ours'"):
        summarise({"ours": {"psnr": np.array(scores)}})


def test_json_has_the_true_acceleration_under_its_plain_name(tmp_path):
    write_metrics_json(tmp_path / "m.json", {"a": _case()}, preset="frame", acceleration=RATES)
    record = json.loads((tmp_path / "m.json").read_text())
    assert (record["acceleration"], record["nominal_acceleration"]) == (3.2, 4.0)


def test_json_pools_frames_so_that_long_cases_count_more(tmp_path):
    cases = {"a": {"ours": _scores([30, 30, 30], [1] * 3, [0] * 3)}}
    cases["b"] = {"ours": _scores([34], [1], [0])}
    record = write_metrics_json(tmp_path / "m.json", cases, preset="frame", acceleration=RATES)
    assert record["methods"]["ours"]["psnr"]["mean"] == 31.0


def test_json_lists_the_means_of_each_case(tmp_path):
    cases = {"a": _case(), "b": _case(ours=(40, 41))}
    record = write_metrics_json(tmp_path / "m.json", cases, preset="frame", acceleration=RATES)
    means = [(c["name"], c["n_scores"], c["methods"]["ours"]["psnr"]) for c in record["cases"]]
    assert means == [("a", 2, 32.0), ("b", 2, 40.5)]


def test_what_is_returned_is_what_is_written(tmp_path):
    path = tmp_path / "new" / "m.json"
    extra = {"seed": np.int64(3), "mask": {"kind": "uniform", "lines": (1, 2)}, "data": tmp_path}
    case = {"a": _case(ours=(math.inf, 30))}
    record = write_metrics_json(path, case, preset="frame", acceleration=RATES, **extra)
    assert record == json.loads(path.read_text())
    assert record["mask"] == {"kind": "uniform", "lines": [1, 2]}


def test_json_writes_null_for_infinity_and_for_extra_nan(tmp_path):
    case = {"a": _case(ours=(math.inf, math.inf))}
    path = tmp_path / "m.json"
    write_metrics_json(path, case, preset="frame", acceleration=RATES, loss=np.nan)
    record = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert record["loss"] is record["methods"]["ours"]["psnr"]["mean"] is None


@pytest.mark.parametrize(
    "cases",
    [
        {},
        {"a": _case(), "b": {"ours": _scores((30, 31))}},
        {"a": {"zero_filled": _scores((20, 21)), "ours": _scores([30], [1], [0])}},
    ],
    ids=["none", "method missing", "frame missing"],
)
def test_json_refuses_an_unfair_comparison(tmp_path, cases):
    with pytest.raises(ValueError, match="expected"):
        write_metrics_json(tmp_path / "m.json", cases, preset="frame", acceleration=RATES)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"preset": "best"}, "cmrxrecon2023.*preset='best'"),
        ({"acceleration": {"nominal": 4}}, "true"),
        ({"acceleration": {"nominal": 4, "true": 0.25}}, ">= 1"),
        ({"methods": {}}, "methods"),
    ],
)
def test_json_refuses_a_wrong_description(tmp_path, changed, message):
    options = {"preset": "frame", "acceleration": RATES} | changed
    with pytest.raises(ValueError, match=message):
        write_metrics_json(tmp_path / "m.json", {"a": _case()}, **options)


def test_json_names_the_extra_entry_it_cannot_write(tmp_path):
    options = {"preset": "frame", "acceleration": RATES, "config": {"model": object()}}
    with pytest.raises(TypeError, match=r"metrics\.config\.model"):
        write_metrics_json(tmp_path / "m.json", {"a": _case()}, **options)


def _table(tmp_path, case, nominal: float | None = 4) -> list[str]:
    rates = {"nominal": nominal, "true": 3.2}
    metrics = write_metrics_json(
        tmp_path / "m.json", {"a": case}, preset="cmrxrecon2023", acceleration=rates
    )
    return format_table(metrics).splitlines()


def test_table_states_preset_and_both_accelerations(tmp_path):
    heading = _table(tmp_path, _case())[0]
    assert "preset cmrxrecon2023" in heading
    assert "acceleration 3.20 (nominal 4)" in heading


def test_table_leaves_an_unknown_nominal_acceleration_out(tmp_path):
    assert "nominal" not in _table(tmp_path, _case(), nominal=None)[0]


def test_table_has_mean_and_deviation_of_every_metric(tmp_path):
    ours = next(line for line in _table(tmp_path, _case()) if "ours" in line)
    expected = "* ours 32.00 ± 2.00 0.6000 ± 0.1000 0.02000 ± 0.01000"
    assert " ".join(ours.split()) == expected


def test_table_stars_only_the_best(tmp_path):
    starred = [line for line in _table(tmp_path, _case(ours=(1, 2))) if line.startswith("*")]
    assert len(starred) == 1
    assert "zero_filled" in starred[0]


def test_table_takes_a_perfect_method_for_the_best(tmp_path):
    rows = _table(tmp_path, _case(ours=(math.inf, math.inf)))
    assert next(row for row in rows if row.startswith("*")).split()[1:3] == ["ours", "inf"]


def test_table_columns_are_aligned(tmp_path):
    rows = _table(tmp_path, _case(ours=(3, 4)))[2:]
    assert len({len(row) for row in rows}) == 1


@pytest.mark.parametrize(
    "metrics",
    [
        {"methods": {"ours": {}}},
        {"preset": "frame", "acceleration": 3.2, "methods": {"ours": {"psnr": {"mean": 1.0}}}},
        {"preset": "frame", "acceleration": 3.2, "methods": {"ours": dict.fromkeys(SHOWN, ONE)}},
    ],
)
def test_table_says_what_is_missing(metrics):
    with pytest.raises(ValueError, match=r"missing=\['preset', 'acceleration'\]|of every method"):
        format_table(metrics)
