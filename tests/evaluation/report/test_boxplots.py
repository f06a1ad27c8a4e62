"""Box plots show the quartiles that NumPy computes, at the place the axis says."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from kgmgt_jax.evaluation.report.boxplots import LABEL, RIGHT, WIDTH, box_plot, nice_ticks


def _plot(values, **more):
    options = {"heading": "PSNR (dB)", "labels": {"a": "A & <b>"}, "main": "a"} | more
    return box_plot(values, **options)


def _value(svg: ET.Element, x: float) -> float:
    """What stands at an abscissa, by the axis's own labels."""
    ticks = [
        (float(t.get("x")), float(t.text)) for t in svg.iter("text") if t.get("class") == "tick"
    ]
    places, numbers = zip(*ticks, strict=True)
    return float(np.interp(x, places, numbers))


def test_box_median_whiskers_and_dots_are_where_they_belong():
    rng = np.random.default_rng(0)
    cases = {"P1": rng.normal(30, 1, 40), "P2": rng.normal(33, 2, 20)}
    svg = ET.fromstring(_plot({"a": cases}))
    pooled = np.concatenate(list(cases.values()))
    low, first, middle, third, high = np.percentile(pooled, (5, 25, 50, 75, 95))
    box = svg.find(".//rect")
    left, width = float(box.get("x")), float(box.get("width"))
    lines = {line.get("class"): line for line in svg.iter("line")}
    found = [
        float(lines["whisker"].get("x1")),
        left,
        float(lines["median"].get("x1")),
        left + width,
        float(lines["whisker"].get("x2")),
    ]
    values = [_value(svg, x) for x in found]
    np.testing.assert_allclose(values, [low, first, middle, third, high], atol=0.03)
    dots = [_value(svg, float(dot.get("cx"))) for dot in svg.iter("circle")]
    np.testing.assert_allclose(dots, [case.mean() for case in cases.values()], atol=0.03)


def test_everything_lies_inside_the_picture():
    svg = _plot({"a": {"P1": np.array([1e-4, 2e-4, 5e-3])}, "b": {"P1": np.array([4e-3])}})
    for x in map(float, re.findall(r' (?:x|x1|x2|cx)="([\d.]+)"', svg.split('class="row')[1])):
        assert LABEL - 10 <= x <= WIDTH - RIGHT


def test_names_are_escaped_and_medians_are_told():
    svg = _plot({"a": {"P1": np.array([1.0, 2.0, 4.0])}})
    assert "A &amp; &lt;b&gt;" in svg and "<b>" not in svg
    assert "A & <b> 2" in ET.fromstring(svg).get("aria-label")


def test_main_method_stands_out():
    svg = ET.fromstring(_plot({"a": {"P1": np.ones(3)}, "b": {"P1": np.zeros(3)}}))
    kinds = [g.get("class") for g in svg.iter("g") if g.get("class", "").startswith("row")]
    assert kinds == ["row main", "row"]


def test_infinite_scores_are_left_out():
    assert _plot({"a": {"P1": np.array([np.inf])}}) == ""
    svg = ET.fromstring(_plot({"a": {"P1": np.array([np.inf])}, "b": {"P1": np.array([1.0, 2])}}))
    assert len(list(svg.iter("rect"))) == 1


@pytest.mark.parametrize("scores", [[1e-15, 3e-15, 2e-15], [1 - 2e-16, 1.0], [1e-45, 0.0]])
def test_exact_images_whose_scores_are_rounding_have_a_plot(scores):
    svg = _plot({"a": {"P1": np.array(scores)}})
    assert "nan" not in svg and ET.fromstring(svg).find(".//rect") is not None


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (21.3, 39.0, [20, 25, 30, 35, 40]),
        (0.91, 0.998, [0.9, 0.925, 0.95, 0.975, 1.0]),
        (0.0, 0.0, [0, 0.25]),
        (-3, 5, [-4, -2, 0, 2, 4, 6]),
        (1e-15, 3e-15, [1e-15, 1.5e-15, 2e-15, 2.5e-15, 3e-15]),
        (1 - 1e-13, 1.0, [1.0, 1.25]),
    ],
)
def test_ticks_are_round_and_enclose(low, high, ticks):
    assert nice_ticks(low, high) == ticks
