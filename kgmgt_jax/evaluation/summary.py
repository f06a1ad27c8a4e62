"""The files that an evaluation leaves, and what it prints."""

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kgmgt_jax.evaluation.collecting import Findings
from kgmgt_jax.evaluation.gif import cine_gif
from kgmgt_jax.evaluation.methods import ZERO_FILLED
from kgmgt_jax.evaluation.regions import WHOLE
from kgmgt_jax.evaluation.report import (
    CineExample,
    Efficiency,
    ReportData,
    ScoreSet,
    simulation_note,
    write_report,
    write_score_files,
)
from kgmgt_jax.evaluation.statistics import compare
from kgmgt_jax.evaluation.tables import format_table, metrics_record, write_json
from kgmgt_jax.figures import comparison_figure

__all__ = ["LABELS", "Outcome", "write_summary"]

LABELS = {
    "zero_filled": "zero-filled",
    "kgmgt": "KGMgT",
    "modl": "MoDL",
    "crnn": "CRNN",
    "swinir": "SwinIR",
    "kigan": "KIGAN",
    "varnet": "VarNet",
    "temporal_average": "temporal average",
    "cg_sense": "CG-SENSE",
    "temporal_tv": "temporal TV",
    "spatial_tv": "spatial TV",
    "kt_focuss": "k-t FOCUSS",
    "low_rank_plus_sparse": "L+S",
    "locally_low_rank": "local low rank",
}
"""Names that the report shows for methods, where not their keys."""

_LISTED = 12  # cases, and files of a folder, that are printed one by one
_OF_FIRST = ("preset", "acceleration", "nominal_acceleration", "methods")


@dataclass(frozen=True)
class Outcome:
    """What an evaluation came to.

    Attributes:
        text: tables, failures and files, to print.
        failed: ``{what: why}``.
        files: what was written.
    """

    text: str
    failed: Mapping[str, str]
    files: Sequence[Path]


def write_summary(
    out: Path,
    findings: Findings,
    methods: Sequence[str],
    unscored: Mapping[str, str],
    efficiency: Mapping[str, Efficiency],
    facts: Mapping[str, Any],
    title: str,
    written: Sequence[Path],
) -> Outcome:
    """Writes ``metrics.json``, ``report.html``, CSV tables, a figure and a GIF of the first case.

    ``metrics.json`` has a list, ``sets``, with the scores of each sampling and preset, and those of
    the first once more at its top: ``preset``, ``acceleration`` and ``methods``.

    Args:
        out: folder for what is written.
        findings: all cases.
        methods: their names, zero-filling first, the main one second.
        unscored: ``{case: why}``.
        efficiency: what methods cost.
        facts: what else to state.
        title: heading of the report.
        written: files of the evaluation that are there already.

    Raises:
        ValueError: if there is nothing to report.
    """
    if not findings.examples:
        reason = "; ".join(f"{what}: {why}" for what, why in findings.failed.items())
        raise ValueError(f"expected a case that can be reconstructed, got none: {reason}")
    sets = findings.score_sets()
    main = _main(methods, sets, findings.examples)
    report = ReportData(
        title=title,
        main=main,
        score_sets=sets,
        examples=findings.examples,
        efficiency=efficiency,
        labels=LABELS,
        simulation=findings.simulation,
        unscored=unscored,
        failed=findings.failed,
        facts={name: str(value) for name, value in facts.items()},
    )
    records = [_record(each, main, report) for each in sets]
    details = {
        **{name: records[0][name] for name in _OF_FIRST if records},
        "main": main,
        "sets": records,
        "unscored": dict(unscored),
        "failed": dict(findings.failed),
        "efficiency": {name: asdict(cost) for name, cost in efficiency.items()},
        "facts": dict(facts),
    }
    write_json(out / "metrics.json", details)
    files = [
        out / "metrics.json",
        *_draw(out, findings.examples[0], main),
        write_report(out / "report.html", report),
        *(write_score_files(out, report) if sets else ()),
    ]
    lines = [*_lines(sets, records, report), *map(str, files), *_listed(out, written)]
    return Outcome("\n".join(lines), dict(findings.failed), [*files, *written])


def _main(methods: Sequence[str], sets: Sequence[ScoreSet], examples: Sequence[CineExample]) -> str:
    """The first method, zero-filling last, that every set has scores of."""
    named = [set(next(iter(each.scores[WHOLE].values()))) for each in sets]
    named = named or [set(examples[0].images)]
    candidates = [name for name in methods if name != ZERO_FILLED]
    return next((n for n in candidates if all(n in names for names in named)), ZERO_FILLED)


def _record(scores: ScoreSet, main: str, report: ReportData) -> dict[str, Any]:
    """A set of scores as JSON holds it; its region of the whole frame is that of the tables."""
    sampling = scores.sampling
    regions = {
        region: {
            method: {metric: found._asdict() for metric, found in metrics.items()}
            for method, metrics in compare(cases, main, scores.subjects).items()
        }
        for region, cases in scores.scores.items()
    }
    whole = scores.scores[WHOLE]
    return metrics_record(
        whole,
        preset=scores.preset,
        acceleration={
            "nominal": sampling.nominal_acceleration,
            "true": sampling.true_acceleration,
        },
        mask={"kind": sampling.mask_kind, "acs": sampling.acs},
        simulation=simulation_note(report, whole),
        regions=regions,
    )


def _lines(
    sets: Sequence[ScoreSet], records: Sequence[Mapping[str, Any]], report: ReportData
) -> list[str]:
    """Tables, then what has no score, then what failed."""
    lines = []
    for each, record in zip(sets, records, strict=True):
        number = len(each.scores[WHOLE])
        note = f" · {record['simulation']}" if record["simulation"] else ""
        lines.append(f"{each.sampling.mask_kind} · {number} case{'s' * (number != 1)}{note}")
        lines += [format_table(record), ""]
    return lines + _named("not scored", report.unscored) + _named("failed", report.failed)


def _named(what: str, cases: Mapping[str, str]) -> list[str]:
    """Cases a line each, the first few; the report has all."""
    lines = [f"{what}: {case}: {why}" for case, why in itertools.islice(cases.items(), _LISTED)]
    more = len(cases) - len(lines)
    return [*lines, f"{what}: {more} more, see report.html"] if more else lines


def _listed(out: Path, written: Sequence[Path]) -> list[str]:
    """Files a line each, but of a folder that has many how many they are."""
    below: dict[Path, list[Path]] = {}
    for path in written:
        inside = path.is_relative_to(out)
        top = out / path.relative_to(out).parts[0] if inside else Path(path.anchor)
        below.setdefault(top, []).append(path)
    lines = []
    for paths in below.values():
        many = f"{os.path.commonpath(paths)}: {len(paths)} files"
        lines += [many] if len(paths) > _LISTED else map(str, paths)
    return lines


def _draw(out: Path, example: CineExample, name: str) -> list[Path]:
    """The figure and the GIF of a case by one method, zero-filling where it has none."""
    name = name if name in example.images else ZERO_FILLED
    zero_filled, image = example.images[ZERO_FILLED], example.images[name]
    sampling = example.sampling
    sampled = f"{sampling.mask_kind} {sampling.true_acceleration:.2f}x"
    simulated = ", simulated k-space" if example.simulation else ""
    figure = comparison_figure(
        out / "figure.png",
        image,
        zero_filled=zero_filled,
        reference=example.reference,
        title=f"{example.name}, {sampled}, {LABELS.get(name, name)}{simulated}",
        aspect=example.aspect,
    )
    panels = {} if example.reference is None else {"reference": example.reference}
    panels |= {"zero-filled": zero_filled, LABELS.get(name, name): image}
    return [figure, cine_gif(out / "cine.gif", panels, aspect=example.aspect)]
