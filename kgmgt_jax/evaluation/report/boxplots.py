"""Box plots as inline SVG, coloured by the page's style sheet so that they follow its theme."""

import math
from collections.abc import Iterable, Mapping
from html import escape

import numpy as np
from jaxtyping import Array, Float

__all__ = ["box_plot", "nice_ticks"]

WIDTH, ROW, LABEL, RIGHT, TOP, AXIS = 420, 30, 128, 14, 6, 24  # pixels
BOX = 14  # height
INTERVALS = 4  # of the axis, about
LONGEST_LABEL = 20  # letters
STEPS = (1, 2, 2.5, 5, 10)
ROUNDING = 1e-9  # of values; a smaller span is none

Values = Float[Array | np.ndarray, " n"]


def box_plot(
    values: Mapping[str, Mapping[str, Values]],
    *,
    heading: str,
    labels: Mapping[str, str],
    main: str,
) -> str:
    """Distribution of one metric, one row a method.

    A box spans the quartiles of all scores with a line at the median, whiskers the 5th to the 95th
    percentile; a dot is the mean of a case. Infinite scores are left out, and so is a method that
    has no others.

    Args:
        values: ``{method: {case: scores}}``.
        heading: name and unit of the metric.
        labels: what to call the methods.
        main: the method to stand out.

    Returns:
        An ``<svg>`` element that says in its label what it shows; empty without finite scores.
    """
    finite = {method: _finite(cases.values()) for method, cases in values.items()}
    finite = {method: cases for method, cases in finite.items() if cases}
    if not finite:
        return ""
    pooled = {method: np.concatenate(cases) for method, cases in finite.items()}
    everything = np.concatenate(list(pooled.values()))
    ticks = nice_ticks(float(everything.min()), float(everything.max()))
    low, high = ticks[0], ticks[-1]

    def x(value: float) -> float:
        return LABEL + (WIDTH - LABEL - RIGHT) * (value - low) / (high - low)

    bottom = TOP + ROW * len(finite)
    parts = [_axis(ticks, x, bottom)]
    for row, (method, cases) in enumerate(finite.items()):
        y = TOP + ROW * (row + 0.5)
        shape = _box(pooled[method], [float(case.mean()) for case in cases], x, y)
        name = labels.get(method, method)
        shown = name if len(name) <= LONGEST_LABEL else name[: LONGEST_LABEL - 1] + "…"
        text = f'<text x="{LABEL - 10}" y="{y + 4:g}" class="name">{escape(shown)}</text>'
        kind = "row main" if method == main else "row"
        tip = f"<title>{escape(name)}: median {np.median(pooled[method]):.4g}</title>"
        parts.append(f'<g class="{kind}">{tip}{text}{shape}</g>')
    medians = ", ".join(
        f"{labels.get(method, method)} {np.median(scores):.4g}" for method, scores in pooled.items()
    )
    about = escape(f"Box plot of {heading}; medians: {medians}", quote=True)
    return (
        f'<svg class="boxplot" viewBox="0 0 {WIDTH} {bottom + AXIS}" role="img" '
        f'aria-label="{about}">{"".join(parts)}</svg>'
    )


def nice_ticks(low: float, high: float) -> list[float]:
    """Round numbers, evenly spaced, the first at or below ``low``, the last at or above ``high``.

    Args:
        low: smallest value.
        high: largest, at least ``low``.
    """
    largest = max(abs(low), abs(high))
    span = high - low if high - low > ROUNDING * largest else largest or 1.0
    power = 10.0 ** math.floor(math.log10(span / INTERVALS))
    step = next(s * power for s in STEPS if s * power * INTERVALS >= span * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    return [float(f"{k * step:.12g}") for k in range(first, last + 1)]


def _axis(ticks: list[float], x, bottom: float) -> str:
    lines = [
        f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{TOP}" y2="{bottom}"/>'
        f'<text class="tick" x="{x(tick):.1f}" y="{bottom + 16}">{tick:g}</text>'
        for tick in ticks
    ]
    return f'<g class="axis">{"".join(lines)}</g>'


def _box(values: np.ndarray, means: list[float], x, y: float) -> str:
    low, first, middle, third, high = (x(v) for v in np.percentile(values, (5, 25, 50, 75, 95)))
    half = BOX / 2
    dots = "".join(f'<circle cx="{x(mean):.1f}" cy="{y:g}" r="2.4"/>' for mean in means)
    return (
        f'<line class="whisker" x1="{low:.1f}" x2="{high:.1f}" y1="{y:g}" y2="{y:g}"/>'
        f'<rect x="{first:.1f}" y="{y - half:g}" width="{max(third - first, 1):.1f}" '
        f'height="{BOX}" rx="2"/>'
        f'<line class="median" x1="{middle:.1f}" x2="{middle:.1f}" '
        f'y1="{y - half:g}" y2="{y + half:g}"/>{dots}'
    )


def _finite(cases: Iterable[Values]) -> list[np.ndarray]:
    """Finite scores of each case that has some."""
    scores = (np.asarray(case, np.float64) for case in cases)
    return [each[np.isfinite(each)] for each in scores if np.isfinite(each).any()]
