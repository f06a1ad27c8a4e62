"""Blinded reading: a page that collects scores of cines without saying whose they are.

The page shows one cine after the other, cases and methods mixed at random, and saves the reader's
scores to a JSON file. What is what stands in a key file that readers do not get. From the files of
one or more readers and the key::

    python -m kgmgt_jax.evaluation.reading_kit FILES... --key KEY [--main METHOD] [--csv OUT]

prints mean and deviation of each method's scores, and Wilcoxon's paired test against the main one.
"""

import argparse
import json
import secrets
import sys
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from kgmgt_jax.commands import aligned, guarded
from kgmgt_jax.data.atomic import write_atomically
from kgmgt_jax.data.case import DataError
from kgmgt_jax.evaluation.report.page import fill_page, json_block
from kgmgt_jax.evaluation.report.players import HEADROOM, Pictures
from kgmgt_jax.evaluation.statistics import Comparison, compare, mean_rows, smallest_p, write_csv

__all__ = ["CRITERIA", "format_readings", "main", "pool_readings", "write_reading_kit"]

CRITERIA = {
    "quality": ("General quality", "not diagnostic", "excellent"),
    "sharpness": ("Sharpness", "severely blurred", "sharp"),
    "artifacts": ("Artifacts", "severe", "none"),
}
"""What is scored: heading, and what 1 and 5 mean."""

SCALE = range(1, 6)
KEY_FORMAT, SCORES_FORMAT = "cine reading key", "cine reading scores"

Readings = dict[str, dict[str, dict[str, np.ndarray]]]


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


def pool_readings(
    files: Sequence[str | Path], key: str | Path
) -> tuple[Readings, dict[str, str], list[str]]:
    """Scores of all readers, by reading (one reader's look at one case).

    A reading counts when every method of the case has all its scores, so that each comparison is
    paired.

    Args:
        files: JSON files that readers saved.
        key: the key that was written with their page.

    Returns:
        ``{"reader / case": {method: {criterion: (1,)}}}``, ``{"reader / case": who was scanned}``,
        and what was left out, a line each.

    Raises:
        DataError: if a file is damaged, of another kit, by a reader who has one already, or holds a
            score outside 1 to 5.
    """
    truth = _read_key(key)
    readings: Readings = {}
    subjects: dict[str, str] = {}
    notes: list[str] = []
    readers: dict[str, Path] = {}
    items = truth["items"].values()
    n_methods = len({item["method"] for item in items})
    subject_of = {item["case"]: item.get("subject", item["case"]) for item in items}
    for path in map(Path, files):
        record = _read_json(path, SCORES_FORMAT)
        reader = str(record.get("reader", "")).strip() or path.stem
        if record["kit"] != truth["kit"]:
            raise DataError(path, f"scores of kit {truth['kit']!r}", f"of {record['kit']!r}")
        if reader in readers:
            raise DataError(path, "one file a reader", f"{reader!r} in {readers[reader]} too")
        readers[reader] = path
        found = _of_reader(path, record["scores"], truth["items"])
        for case, methods in found.items():
            if len(methods) == n_methods:
                readings[f"{reader} / {case}"] = methods
                subjects[f"{reader} / {case}"] = subject_of[case]
            else:
                notes.append(f"{reader} / {case}: {len(methods)} of {n_methods} methods scored")
        unseen = subject_of.keys() - found.keys()
        notes += [f"{reader} / {case}: not scored" for case in sorted(unseen)]
    if not readings:
        expected = "a case with all methods scored by a reader"
        raise DataError(", ".join(map(str, files)), expected, "none", "; ".join(notes))
    return readings, subjects, notes


def format_readings(
    readings: Readings, main: str, subjects: Mapping[str, str] | None = None
) -> str:
    """A text table: a method a row, mean ± std and p of each criterion.

    Args:
        readings: see `pool_readings`.
        main: the method the others are tested against.
        subjects: who was scanned, see `pool_readings`; a pair of the test is the mean over
            all readings of a subject.

    Raises:
        ValueError: if it is none of the methods.
    """
    table = compare(readings, main, subjects)
    rows = [["method", *(heading for heading, _, _ in CRITERIA.values())]]
    rows += [
        [f"{'*' if method == main else ' '} {method}", *(_cell(scores[name]) for name in CRITERIA)]
        for method, scores in table.items()
    ]
    lines = aligned(rows, n_left=len(rows[0]))
    n_subjects = next(iter(table[main].values())).n_subjects
    heading = (
        f"{len(readings)} readings (reader and case) of {n_subjects} subjects · 1 to 5, more is "
        f"better · mean ± std · p of Wilcoxon's test against * {main}, paired by subject, two-"
        f"sided, uncorrected, at least {smallest_p(n_subjects):.3g}"
    )
    return "\n".join([heading, "", lines[0], "-" * max(map(len, lines)), *lines[1:]])


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; ends as ``commands.guarded`` says."""
    parser = argparse.ArgumentParser(
        prog="python -m kgmgt_jax.evaluation.reading_kit",
        description="Means, deviations and p-values of blinded scores.",
    )
    parser.add_argument("files", nargs="+", type=Path, help="JSON files that readers saved")
    parser.add_argument("--key", required=True, type=Path, help="key written with their page")
    parser.add_argument("--main", help="method to compare with, where not the key's")
    parser.add_argument("--csv", type=Path, help="CSV file of the table to write")
    options = parser.parse_args(arguments)

    def work() -> None:
        readings, subjects, notes = pool_readings(options.files, options.key)
        truth = _read_key(options.key)
        chosen = options.main or truth["main"]
        table = format_readings(readings, chosen, subjects)
        about = [truth["note"]] if truth.get("note") else []
        print("\n".join([table, *about, *(f"left out: {n}" for n in notes)]))
        if options.csv is not None:
            print(write_csv(options.csv, mean_rows(readings, chosen, subjects)))

    return guarded(work)


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


def _of_reader(
    path: Path, scores: Mapping[str, Any], items: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """``{case: {method: {criterion: (1,)}}}`` of the cines with all their scores."""
    found: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    if not isinstance(scores, dict) or not all(isinstance(v, dict) for v in scores.values()):
        raise DataError(path, "scores by cine and criterion", "others", "save them again")
    unknown = sorted(scores.keys() - items.keys())
    if unknown:
        raise DataError(path, "cines of the key", f"others, {unknown[:3]}", "give their key")
    for name, item in items.items():
        given = {c: scores.get(name, {}).get(c) for c in CRITERIA}
        wrong = {c: v for c, v in given.items() if v is not None and not _on_scale(v)}
        if wrong:
            raise DataError(path, "scores from 1 to 5", f"{wrong} of {name!r}")
        if None not in given.values():
            values = {c: np.array([v], np.float64) for c, v in given.items()}
            found.setdefault(item["case"], {})[item["method"]] = values
    return found


def _on_scale(value: Any) -> bool:
    return type(value) is int and value in SCALE  # True is an int, and no score


def _read_key(path: str | Path) -> dict[str, Any]:
    record = _read_json(path, KEY_FORMAT)
    try:
        told = [record["main"], record.get("note", "")]
        for item in record["items"].values():
            told += [item["case"], item["method"], item.get("subject", "")]
    except (AttributeError, KeyError, TypeError):
        told = [None]
    if not all(isinstance(name, str) for name in told):
        expected = "names: main, and a case, subject and method a cine"
        raise DataError(path, expected, "others", "copy it again")
    return record


def _read_json(path: str | Path, form: str) -> dict[str, Any]:
    wanted = {"kit", "items" if form == KEY_FORMAT else "scores"}
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(path, f"a file of the format {form!r}", "no such file") from error
    except (RecursionError, ValueError) as error:
        raise DataError(path, f"JSON, a {form}", f"{error}", "copy it again") from error
    if not isinstance(record, dict) or record.get("format") != form or wanted - record.keys():
        got = record.get("format") if isinstance(record, dict) else type(record).__name__
        raise DataError(path, f"a file of the format {form!r}", f"{got!r}")
    return record


def _cell(entry: Comparison) -> str:
    p = "" if entry.p is None else f"  p {'<0.001' if entry.p < 0.001 else f'{entry.p:.3f}'}"
    return f"{entry.mean:.2f} ± {entry.std:.2f}{p}"


if __name__ == "__main__":
    sys.exit(main())
