"""Assembling the page: one file with style, scripts and pictures inside, nothing fetched."""

import json
from collections.abc import Mapping
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from kgmgt_jax.data.atomic import write_atomically
from kgmgt_jax.evaluation.report import markup
from kgmgt_jax.evaluation.report.data import ReportData
from kgmgt_jax.evaluation.report.players import example_payload

__all__ = ["fill_page", "json_block", "write_report"]

_PACKAGE = "kgmgt_jax.evaluation.report"


def write_report(path: str | Path, data: ReportData) -> Path:
    """Write the report as one HTML file that needs no network, whole or not at all.

    It states preset, mask family and true acceleration with every number, and which cases are
    simulated. Tables, box plots and words can be read without JavaScript; players and sorting
    need it. Pictures are lossless in 256 grey levels: see `sprites`.

    Args:
        path: the file; its folder is made if need be.
        data: what to show.

    Returns:
        ``path`` as a Path.

    Raises:
        ValueError: if scores of a set differ in methods, metrics or shapes, or a cine is too large.
    """
    blocks = [
        json_block(f"example-{number}", example_payload(data, example))
        for number, example in enumerate(data.examples)
    ]
    page = fill_page(
        "report.html",
        styles=("base.css", "report.css"),
        scripts=("cine.js", "tables.js", "players.js"),
        title=escape(data.title),
        warning=_warning(data),
        views=_view_options(data),
        scores=_per_view(data, markup.score_table),
        cases=_per_view(data, markup.case_table),
        plots=_per_view(data, markup.box_plots),
        efficiency=markup.efficiency_table(data) or "<p>Not measured.</p>",
        examples=_example_options(data),
        omissions=_omissions(data),
        facts=_list(data.facts),
        palette=json_block("inferno", _palette()),
        data="\n".join(blocks),
    )
    return write_atomically(path, lambda file: file.write_text(page, encoding="utf-8"))


def fill_page(
    template: str, *, styles: tuple[str, ...], scripts: tuple[str, ...], **parts: str
) -> str:
    """A template with its ``{{name}}`` replaced; style and scripts come from package files.

    Args:
        template: name of the HTML file among the package's assets.
        styles: style sheets, in order.
        scripts: scripts, in order.
        **parts: HTML for each further name.
    """
    parts |= {
        "style": "\n".join(map(_asset, styles)),
        "script": "\n".join(map(_asset, scripts)),
    }
    pieces = _asset(template).split("{{")
    page = [pieces[0]]
    for piece in pieces[1:]:
        name, rest = piece.split("}}", 1)
        page += [parts[name], rest]
    return "".join(page)


def json_block(name: str, value: Any) -> str:
    """A ``<script>`` element that holds JSON; nothing in it can close the element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="{escape(name, quote=True)}">{text}</script>'


def _asset(name: str) -> str:
    return resources.files(_PACKAGE).joinpath("assets", name).read_text(encoding="utf-8")


def _palette() -> str:
    """The error maps' 256 colours, as hexadecimal digits."""
    from matplotlib import colormaps

    colours = colormaps["inferno"](range(256), bytes=True)[:, :3]
    return colours.tobytes().hex()


def _per_view(data: ReportData, build) -> str:
    """One block a set of scores; the script shows the chosen one."""
    blocks = [
        f'<div class="view" data-view="{number}"><h3>{escape(markup.view_label(view))}</h3>'
        f"{build(data, view)}</div>"
        for number, view in enumerate(data.score_sets)
    ]
    return "\n".join(blocks) or "<p>No case has a reference, so nothing is scored.</p>"


def _view_options(data: ReportData) -> str:
    return "".join(
        f'<option value="{number}">{escape(markup.view_label(view))}</option>'
        for number, view in enumerate(data.score_sets)
    )


def _example_options(data: ReportData) -> str:
    return "".join(
        f'<option value="{number}">{escape(example.name)} — '
        f"{escape(example.sampling.label)}</option>"
        for number, example in enumerate(data.examples)
    )


def _warning(data: ReportData) -> str:
    parts = [
        f"{len(cases)} {'case' if len(cases) == 1 else 'cases'} {what}"
        for cases, what in ((data.failed, "failed"), (data.unscored, "without a score"))
        if cases
    ]
    if not parts:
        return ""
    return f'<p class="warning">{" and ".join(parts)}: see <a href="#notes">notes</a>.</p>'


def _omissions(data: ReportData) -> str:
    sections = (("Failed", data.failed), ("Reconstructed, not scored", data.unscored))
    return "".join(f"<h3>{title}</h3>{_list(cases)}" for title, cases in sections if cases)


def _list(items: Mapping[str, str]) -> str:
    rows = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>"
        for name, value in items.items()
    )
    return f"<dl>{rows}</dl>" if rows else ""
