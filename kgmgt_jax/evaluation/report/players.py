"""What the cine players are given: one JSON object an example, pictures included."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from kgmgt_jax.evaluation.regions import WHOLE
from kgmgt_jax.evaluation.report.data import CineExample, ReportData, ScoreSet
from kgmgt_jax.evaluation.report.markup import shown, simulation_note
from kgmgt_jax.evaluation.report.sprites import sprite
from kgmgt_jax.figures import grey_window
from kgmgt_jax.heart import heart_line, heart_region

__all__ = ["HEADROOM", "Pictures", "example_payload", "pictures_of"]

Pictures = dict[str, dict[str, Any]]

HEADROOM = 1.25
"""Level 255 of the pictures, in units of the white level: error maps see what glares."""
MARGIN = 0.35
"""What is shown around the heart region, in units of its size."""


def pictures_of(cines: Mapping[str, Float[np.ndarray, "t h w"]]) -> Pictures:
    """A case's cines as the page has them, in a fraction of their memory.

    All share one grey window, white at the 99.5th percentile of all of them.

    Args:
        cines: ``{method: magnitudes}``; the reference may be one of them.

    Raises:
        ValueError: if a cine is too large.
    """
    window = grey_window(np.concatenate(list(cines.values())))
    return {method: sprite(cine, HEADROOM * window) for method, cine in cines.items()}


def example_payload(data: ReportData, example: CineExample) -> dict[str, Any]:
    """The players' data of one example, for JSON.

    All cines share one grey window: black at 0, white at the 99.5th percentile of the reference,
    or of the main method where there is none.
    """
    methods = [name for name in data.methods if name in example.images]
    main = example.images.get(data.main, example.images[methods[0]])
    truth = main if example.reference is None else example.reference
    white = grey_window(truth)
    top = HEADROOM * white
    line = heart_line(truth)
    return {
        "name": example.name,
        "sampling": example.sampling.label,
        "simulation": simulation_note(data, [example.name]),
        "aspect": example.aspect,
        "headroom": HEADROOM,
        "line": line._asdict(),
        "box": _box(heart_region(truth)),
        "reference": None if example.reference is None else sprite(example.reference, top),
        "mask": None if example.mask is None else sprite(example.mask, 1.0),
        "methods": [
            {
                "label": data.label(name),
                "main": name == data.main,
                "sprite": sprite(example.images[name], top),
            }
            for name in methods
        ],
        "scores": _scores(example, data.score_sets, methods),
    }


def _box(region: Bool[np.ndarray, "h w"]) -> list[int]:
    """Rows and columns [y0, y1, x0, x1] around the region with a margin; all where it is empty."""
    h, w = region.shape
    if not region.any():
        return [0, h, 0, w]
    box = []
    for size, inside in ((h, region.any(axis=1)), (w, region.any(axis=0))):
        where = np.flatnonzero(inside)
        margin = round(MARGIN * len(where))
        box += [max(int(where[0]) - margin, 0), min(int(where[-1]) + 1 + margin, size)]
    return box


def _scores(
    example: CineExample, views: Sequence[ScoreSet], methods: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """``{view: [{"psnr": [...], ...} for each method]}`` where the example is scored."""
    found = {}
    for number, view in enumerate(views):
        same = _family(view) == _family(example)
        case = view.scores.get(WHOLE, {}).get(example.name)
        if same and case is not None:
            found[str(number)] = [
                {
                    metric: [shown(value, metric) for value in np.asarray(scores)]
                    for metric, scores in case.get(method, {}).items()
                }
                for method in methods
            ]
    return found


def _family(item: CineExample | ScoreSet) -> tuple[str, float | None, int | None]:
    """The sampling without its true acceleration, which varies a little from case to case."""
    sampling = item.sampling
    return sampling.mask_kind, sampling.nominal_acceleration, sampling.acs
