"""Blinded reading: what readers scored on the page of `reading_page`, without saying whose it is.

The page shows one cine after the other, cases and methods mixed at random, and saves the reader's
scores to a JSON file. What is what stands in a key file that readers do not get. From the files of
one or more readers and the key::

    python -m kgmgt_jax.evaluation.reading_kit FILES... --key KEY [--main METHOD] [--csv OUT]

prints mean and deviation of each method's scores, Wilcoxon's paired test against the main one, and
how well several readers agree.
"""

import argparse
import itertools
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kgmgt_jax.commands import aligned, guarded
from kgmgt_jax.data.case import DataError
from kgmgt_jax.evaluation.reading_page import CRITERIA, KEY_FORMAT, SCALE, SCORES_FORMAT
from kgmgt_jax.evaluation.statistics import (
    Comparison,
    compare,
    mean_rows,
    smallest_p,
    weighted_kappa,
    write_csv,
)

__all__ = ["agreement", "format_readings", "main", "pool_readings"]

Readings = dict[str, dict[str, dict[str, np.ndarray]]]


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


def agreement(readings: Readings) -> dict[str, float]:
    """How well readers agree: `weighted_kappa` of each criterion, the mean over pairs of readers.

    A pair is compared on the cines, of any method, that both scored.

    Args:
        readings: see `pool_readings`.

    Returns:
        ``{criterion: kappa}``, without those in which no pair has a kappa; empty for one reader.
    """
    scored: dict[str, dict[tuple[str, str], dict[str, np.ndarray]]] = {}
    for name, methods in readings.items():
        reader, _, case = name.rpartition(" / ")
        of_reader = scored.setdefault(reader, {})
        of_reader.update({(case, method): scores for method, scores in methods.items()})
    kappas: dict[str, list[float]] = {name: [] for name in CRITERIA}
    for pair in itertools.combinations(scored.values(), 2):
        both = [cine for cine in pair[0] if cine in pair[1]]
        for name, found in kappas.items():
            if both:
                one, other = (np.concatenate([of[cine][name] for cine in both]) for of in pair)
                kappa = weighted_kappa(one, other)
                found += [] if math.isnan(kappa) else [kappa]
    return {name: float(np.mean(found)) for name, found in kappas.items() if found}


def format_readings(
    readings: Readings, main: str, subjects: Mapping[str, str] | None = None
) -> str:
    """A text table: a method a row, mean ± std and p of each criterion; how well readers agree.

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
    kappas = [f"{CRITERIA[name][0]} {kappa:.2f}" for name, kappa in agreement(readings).items()]
    agreed = "agreement of readers, quadratically weighted kappa, mean over their pairs: "
    end = ["", agreed + ", ".join(kappas)] if kappas else []
    return "\n".join([heading, "", lines[0], "-" * max(map(len, lines)), *lines[1:], *end])


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; ends as ``commands.guarded`` says."""
    parser = argparse.ArgumentParser(
        prog="python -m kgmgt_jax.evaluation.reading_kit",
        description="Means, deviations, p-values and agreement of blinded scores.",
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
    except (FileNotFoundError, IsADirectoryError) as error:
        got = "a folder" if isinstance(error, IsADirectoryError) else "no such file"
        raise DataError(path, f"a file of the format {form!r}", got) from error
    except (RecursionError, ValueError) as error:
        raise DataError(path, f"JSON, a {form}", f"{error}", "copy it again") from error
    if not isinstance(record, dict) or record.get("format") != form:
        got = record.get("format") if isinstance(record, dict) else type(record).__name__
        raise DataError(path, f"a file of the format {form!r}", f"{got!r}")
    if missing := sorted(wanted - record.keys()):
        raise DataError(path, f"the entries {sorted(wanted)}", f"no {missing}", "copy it again")
    return record


def _cell(entry: Comparison) -> str:
    p = "" if entry.p is None else f"  p {'<0.001' if entry.p < 0.001 else f'{entry.p:.3f}'}"
    return f"{entry.mean:.2f} ± {entry.std:.2f}{p}"


if __name__ == "__main__":
    sys.exit(main())
