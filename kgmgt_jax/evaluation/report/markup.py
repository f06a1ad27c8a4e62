"""Tables and words of the report as HTML. Everything that comes from outside is escaped."""

import math
from collections.abc import Iterable, Mapping
from html import escape

import numpy as np

from kgmgt_jax.evaluation.regions import WHOLE
from kgmgt_jax.evaluation.report.boxplots import box_plot
from kgmgt_jax.evaluation.report.data import Efficiency, ReportData, ScoreSet
from kgmgt_jax.evaluation.statistics import Comparison, compare, smallest_p
from kgmgt_jax.metrics import PRESETS

__all__ = [
    "METRICS",
    "box_plots",
    "case_table",
    "efficiency_table",
    "score_table",
    "shown",
    "simulation_note",
    "view_label",
]

METRICS = {
    "psnr": ("PSNR (dB)", 2, "max"),
    "ssim": ("SSIM", 4, "max"),
    "nmse": ("NMSE", 5, "min"),
    "xt_ssim": ("x-t SSIM", 4, "max"),
}
"""Heading, decimals, and which end is best; other metrics are shown under their own names."""

_COSTS = {
    "parameters": "Parameters",
    "gflops": "GFLOPs / frame",
    "latency_ms": "Latency (ms / frame)",
    "peak_mib": "Peak memory (MiB)",
}

_NONE = '<span class="none">\N{EN DASH}</span>'


def shown(value: float, metric: str) -> str:
    """A score with the decimals of its metric."""
    decimals = _about(metric)[1]
    return "∞" if math.isinf(value) else f"{value:.{decimals}f}"


def view_label(view: ScoreSet) -> str:
    """What a set of scores is of: sampling and preset."""
    return f"{view.sampling.label}, preset {view.preset}"


def simulation_note(data: ReportData, cases: Iterable[str]) -> str:
    """How many of some cases are simulated, and how; empty if none is."""
    cases = list(cases)
    found = [how for how in map(data.simulation_of, cases) if how]
    if not found:
        return ""
    kinds = sorted({_kind_of_simulation(how) for how in found})
    some = "" if len(found) == len(cases) else f"{len(found)} of {len(cases)} cases "
    return some + " and ".join(kinds)


def score_table(data: ReportData, view: ScoreSet) -> str:
    """Methods by metrics, whole frame and heart region: mean ± std, and p against the main method.

    Raises:
        ValueError: as `evaluation.statistics.compare`.
    """
    tables = {
        region: compare(cases, data.main, view.subjects) for region, cases in view.scores.items()
    }
    methods = list(dict.fromkeys(method for table in tables.values() for method in table))
    columns = [
        (region, metric)
        for region, table in tables.items()
        for metric in _in_order(name for metrics in table.values() for name in metrics)
    ]
    groups = "".join(
        f'<th scope="colgroup" colspan="{sum(r == region for r, _ in columns)}">'
        f"{escape(region)}</th>"
        for region in tables
    )
    heads = _head("Method", "text")
    for i, (region, metric) in enumerate(columns):
        heading, _, order = _about(metric)
        heads += _head(heading, order, group=bool(i and columns[i - 1][0] != region))
    best = {column: _best(tables[column[0]], column[1]) for column in columns}
    rows = []
    for method in methods:
        cells = [_method_cell(data, method)]
        for i, (region, metric) in enumerate(columns):
            entry = tables[region].get(method, {}).get(metric)
            group = bool(i and columns[i - 1][0] != region)
            cells.append(_score_cell(entry, metric, method in best[region, metric], group))
        kind = ' class="main"' if method == data.main else ""
        rows.append(f"<tr{kind}>{''.join(cells)}</tr>")
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Scores">'
        f'<table class="sortable scores"><caption>{_caption(data, view, tables)}</caption>'
        f"<thead><tr><td></td>{groups}</tr><tr>{heads}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def case_table(data: ReportData, view: ScoreSet) -> str:
    """Means over what is scored of each case: one row a case and method."""
    cells: dict[tuple[str, str], dict[tuple[str, str], float]] = {}
    for region, cases in view.scores.items():
        for case, methods in cases.items():
            for method, metrics in methods.items():
                row = cells.setdefault((case, method), {})
                row |= {(region, m): float(np.mean(np.asarray(v))) for m, v in metrics.items()}
    columns = [
        (region, metric)
        for region in view.scores
        for metric in _in_order(m for row in cells.values() for r, m in row if r == region)
    ]
    heads = _head("Case", "text") + _head("Method", "text")
    for region, metric in columns:
        heading, _, order = _about(metric)
        heads += _head(heading if region == WHOLE else f"{heading}, {region}", order)
    body = "".join(
        f'<tr><td class="text" data-value="{escape(case, quote=True)}">{escape(case)}</td>'
        + _method_cell(data, method)
        + "".join(_number_cell(row.get(column), column[1]) for column in columns)
        + "</tr>"
        for (case, method), row in cells.items()
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Scores by case">'
        f'<table class="sortable cases"><caption>{escape(view_label(view))}; means over the '
        f"{_scored(view)} of each case</caption>"
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def box_plots(data: ReportData, view: ScoreSet) -> str:
    """A box plot of every metric in every region."""
    labels = {method: data.label(method) for method in data.methods}
    figures = []
    for region, cases in view.scores.items():
        names = (
            name for methods in cases.values() for scores in methods.values() for name in scores
        )
        for metric in _in_order(names):
            values: dict[str, dict[str, np.ndarray]] = {}
            for case, methods in cases.items():
                for method, scores in methods.items():
                    if metric in scores:
                        values.setdefault(method, {})[case] = np.asarray(scores[metric])
            title = f"{_about(metric)[0]}, {region}"
            plot = box_plot(values, heading=title, labels=labels, main=data.main)
            if plot:
                figures.append(f"<figure><figcaption>{escape(title)}</figcaption>{plot}</figure>")
    return f'<div class="plots">{"".join(figures)}</div>'


def efficiency_table(data: ReportData) -> str:
    """What each method costs; empty where nothing is known."""
    if not data.efficiency:
        return ""
    heads = _head("Method", "text") + "".join(_head(heading, "min") for heading in _COSTS.values())
    rows = []
    for method, cost in data.efficiency.items():
        cells = [_method_cell(data, method)]
        for name in _COSTS:
            value = getattr(cost, name)
            text = _NONE if value is None else _quantity(value)
            cells.append(f'<td data-value="{"" if value is None else value}">{text}</td>')
        cells.append(f'<td class="text">{escape(_measured_on(cost))}</td>')
        kind = ' class="main"' if method == data.main else ""
        rows.append(f"<tr{kind}>{''.join(cells)}</tr>")
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Efficiency">'
        '<table class="sortable"><caption>On a cine of frames x coils x ky x kx. Arithmetic as XLA '
        "counts it, where the data do not decide how often a loop runs; the filling of a network's "
        "inputs is not in it. Latency from k-space to images in the host's memory, "
        "after compilation. Memory that the compiled program reserves: a network's for the "
        "frames it takes together (one unless asked for more), a classical method's for all."
        "</caption>"
        f"<thead><tr>{heads}{_head('Measured on', 'text')}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _measured_on(cost: Efficiency) -> str:
    """A cine's size and a device."""
    size = " x ".join(map(str, cost.shape))
    return f"{size}, {cost.device}" if size else cost.device


def _caption(
    data: ReportData, view: ScoreSet, tables: Mapping[str, Mapping[str, Mapping[str, Comparison]]]
) -> str:
    counts = {}
    n_subjects = 0
    for region, table in tables.items():
        entry = next(iter(next(iter(table.values())).values()))
        n_subjects = max(n_subjects, entry.n_subjects)
        numbers = (entry.n_subjects, "subject"), (entry.n_cases, "case"), (entry.n_scores, "score")
        counts[region] = ", ".join(_counted(*number) for number in numbers)
    if len(set(counts.values())) == 1:
        number = next(iter(counts.values()))
    else:
        number = "; ".join(f"{region}: {count}" for region, count in counts.items())
    test = "No test with a single subject"
    if n_subjects > 1:
        test = (
            f"P-values: Wilcoxon's signed-rank test against {data.label(data.main)}, paired by "
            f"subject, two-sided, uncorrected; with {n_subjects} subjects it cannot fall below "
            f"{smallest_p(n_subjects):.3g}"
        )
    note = simulation_note(data, dict.fromkeys(c for cases in view.scores.values() for c in cases))
    parts = [view_label(view), number, f"Mean ± standard deviation over {_scored(view)}", test]
    text = ". ".join(escape(part) for part in parts) + "."
    return text + (f' <strong class="simulated">{escape(note)}</strong>' if note else "")


def _scored(view: ScoreSet) -> str:
    """What has a score each."""
    return "volumes" if PRESETS[view.preset].per_volume else "frames"


def _in_order(metrics: Iterable[str]) -> list[str]:
    """Each metric once, known ones first and in their order."""
    found = dict.fromkeys(metrics)
    return [name for name in METRICS if name in found] + [m for m in found if m not in METRICS]


def _about(metric: str) -> tuple[str, int, str]:
    return METRICS.get(metric, (metric, 4, "max"))


def _head(heading: str, order: str, group: bool = False) -> str:
    """A column's head with the button that sorts by it, best first."""
    classes = ("text" if order == "text" else "") + (" group" if group else "")
    return (
        f'<th scope="col" class="{classes.strip()}" data-order="{order}" aria-sort="none">'
        f'<button type="button">{escape(heading)}</button></th>'
    )


def _method_cell(data: ReportData, method: str) -> str:
    label = escape(data.label(method))
    return f'<th scope="row" class="text" data-value="{label}">{label}</th>'


def _score_cell(entry: Comparison | None, metric: str, best: bool, group: bool) -> str:
    kind = ("best" if best else "") + (" group" if group else "")
    if entry is None:
        return f'<td class="{kind.strip()}" data-value="">{_NONE}</td>'
    std = f' <span class="std">± {shown(entry.std, metric)}</span>'
    std = "" if math.isinf(entry.mean) else std
    p = "" if entry.p is None else f'<span class="p">{_p_value(entry.p)}</span>'
    mean = f'<span class="mean">{shown(entry.mean, metric)}</span>'
    return f'<td class="{kind.strip()}" data-value="{_sort_value(entry.mean)}">{mean}{std}{p}</td>'


def _number_cell(value: float | None, metric: str) -> str:
    if value is None:
        return f'<td data-value="">{_NONE}</td>'
    return f'<td data-value="{_sort_value(value)}">{shown(value, metric)}</td>'


def _quantity(value: float) -> str:
    """Three digits at least, all of those before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _sort_value(value: float) -> str:
    """The number as JavaScript reads it."""
    return "Infinity" if value == math.inf else repr(value)


def _p_value(p: float) -> str:
    return "p &lt; 0.001" if p < 0.001 else f"p = {p:.3f}"


def _best(table: Mapping[str, Mapping[str, Comparison]], metric: str) -> set[str]:
    means = {method: metrics[metric].mean for method, metrics in table.items() if metric in metrics}
    top = (max if _about(metric)[2] == "max" else min)(means.values())
    return {method for method, mean in means.items() if mean == top}


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _kind_of_simulation(how: str) -> str:
    for images, kind in (("images", "magnitude images"), ("complex images", "complex images")):
        if how.startswith(f"simulated from {images}:"):
            return f"simulated from {kind}"
    return how
