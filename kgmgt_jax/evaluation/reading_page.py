"""The page on which readers score cines without knowing whose they are, and the key to it."""

import json
import secrets
from collections.abc import Mapping
from html import escape
from pathlib import Path

import numpy as np

from kgmgt_jax.data.atomic import write_atomically
from kgmgt_jax.evaluation.report.page import fill_page, json_block
from kgmgt_jax.evaluation.report.players import HEADROOM, Pictures

__all__ = ["CRITERIA", "KEY_FORMAT", "SCALE", "SCORES_FORMAT", "write_reading_kit"]

CRITERIA = {
    "quality": ("General quality", "not diagnostic", "excellent"),
    "sharpness": ("Sharpness", "severely blurred", "sharp"),
    "artifacts": ("Artifacts", "severe", "none"),
}
"""What is scored: heading, and what 1 and 5 mean."""

SCALE = range(1, 6)
KEY_FORMAT, SCORES_FORMAT = "cine reading key", "cine reading scores"


def write_reading_kit(
    page: str | Path,
    key: str | Path,
    cases: Mapping[str, Pictures],
    *,
    main: str,
    note: str = "",
    aspects: Mapping[str, float] | None = None,
    subjects: Mapping[str, str] | None = None,
    seed: int | None = None,
) -> tuple[Path, Path]:
    """Write the page for readers and, apart from it, the key.

    The page holds cines under random names, in an order that is random for each reader, and nothing
    that tells methods or cases.

    Args:
        page: HTML file for the readers.
        key: JSON file with the case and method of every cine; not for the readers.
        cases: pictures of each case, the same methods in each; see `pictures_of`.
        main: the method that others are compared with, for the key.
        note: what readers should know, such as that cines are simulated from magnitude images; for
            the key, too, so that it stands below their scores.
        aspects: height / width of a pixel by case, where it is not 1.
        subjects: ``{case: who was scanned}``, for the key; a case left out is its own.
        seed: of names and order; drawn anew if left out.

    Returns:
        Both paths.

    Raises:
        ValueError: if there are no cases, they differ in methods, the main one is missing, or page
            and key are one file.
    """
    page, key = Path(page), Path(key)
    _check_cases(cases, main)
    if page.resolve() == key.resolve():
        raise ValueError(f"expected different files for page and key, got {page} for both")
    rng = np.random.default_rng(secrets.randbits(128) if seed is None else seed)
    kit = rng.bytes(6).hex()
    pairs = [(case, method) for case, methods in cases.items() for method in methods]
    items, blocks = {}, []
    for number, index in enumerate(rng.permutation(len(pairs))):
        case, method = pairs[int(index)]
        name = rng.bytes(6).hex()
        subject = (subjects or {}).get(case, case)
        items[name] = {"case": case, "subject": subject, "method": method}
        aspect = (aspects or {}).get(case, 1.0)
        entry = {"item": name, "cine": cases[case][method], "aspect": aspect}
        blocks.append(json_block(f"item-{number}", entry))
    text = fill_page(
        "reading.html",
        styles=("base.css", "reading.css"),
        scripts=("cine.js", "reading.js"),
        note=escape(note),
        criteria="".join(_criterion(name) for name in CRITERIA),
        kit=json_block(
            "kit", {"kit": kit, "format": SCORES_FORMAT, "headroom": HEADROOM, "n": len(items)}
        ),
        data="\n".join(blocks),
    )
    record = {"format": KEY_FORMAT, "kit": kit, "main": main, "note": note, "items": items}
    write_atomically(page, lambda file: file.write_text(text, encoding="utf-8"))
    write_atomically(key, lambda file: file.write_text(json.dumps(record, indent=2) + "\n"))
    return page, key


def _check_cases(cases: Mapping[str, Pictures], main: str) -> None:
    methods = [set(images) for images in cases.values()]
    if not methods or not methods[0] or any(names != methods[0] for names in methods):
        raise ValueError(
            "expected cines of the same methods in every case, one case or more, got "
            f"{ {case: list(images) for case, images in cases.items()} }"
        )
    if main not in methods[0]:
        raise ValueError(f"expected {main=} to be one of {', '.join(sorted(methods[0]))}")


def _criterion(name: str) -> str:
    """The five buttons of a criterion, a radio group with its ends explained."""
    heading, worst, best = CRITERIA[name]
    choices = "".join(
        f'<label><input type="radio" name="{name}" value="{score}"><span>{score}</span></label>'
        for score in SCALE
    )
    return (
        f'<fieldset data-criterion="{name}"><legend>{escape(heading)}</legend>'
        f'<div class="choices">{choices}</div>'
        f'<div class="ends"><span>1 {escape(worst)}</span><span>5 {escape(best)}</span></div>'
        "</fieldset>"
    )
