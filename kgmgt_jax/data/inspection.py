"""What a path holds: a table of files with format, cases, shapes, true acceleration, problems."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kgmgt_jax.commands import aligned, watched
from kgmgt_jax.data.case import CineCase, DataError
from kgmgt_jax.data.doubts import doubts
from kgmgt_jax.data.formats import CineFile, ReadOptions, Unit, find_units, open_files, open_unit
from kgmgt_jax.data.prepared import is_prepared

__all__ = ["Finding", "format_findings", "inspect_path", "open_case"]

_COLUMNS = ("file, key", "format", "cases", "t x ky x kx", "coils", "true R", "nominal", "acs")


@dataclass(frozen=True)
class Finding:
    """What one file, or one image stack in it, holds.

    Attributes:
        path: The file, or the folder of a DICOM series.
        key: The dataset in it, where it may hold several.
        format: Name of its layout.
        cases: Names of the slices that could be read.
        shape: ``(t, n, h, w)`` of each slice, ``None`` if the file cannot be opened.
        true_acceleration: Samples over measured samples, all cases together; ``None`` without any.
        nominal_acceleration: As the file says it.
        acs: Complete central lines, the fewest of any case.
        simulated: Whether the k-space is simulated from images.
        problems: One line each: why something cannot be read, or what a user should know.
    """

    path: Path
    format: str
    key: str = ""
    cases: tuple[str, ...] = ()
    shape: tuple[int, int, int, int] | None = None
    true_acceleration: float | None = None
    nominal_acceleration: float | None = None
    acs: int | None = None
    simulated: bool = False
    problems: tuple[str, ...] = ()


def inspect_path(path: str | Path, options: ReadOptions | None = None) -> Iterator[Finding]:
    """Reads every case below a path, one at a time, and reports on each file in order.

    Args:
        path: A file or a directory.
        options: What the user says about the files.

    Raises:
        DataError: If nothing exists at ``path``, or a directory holds nothing to read. Whatever
            is wrong with a file becomes one of its problems.
    """
    if is_prepared(path):
        fix = "python -m kgmgt_jax.data verify checks it"
        raise DataError(path, "files of cines", "a prepared set", fix)
    units = find_units(path)
    if not units:
        raise DataError(path, "cines in files of a known format", "none")
    for unit in watched(units, "inspect"):
        yield from _inspect_unit(unit, options)


def open_case(finding: Finding, options: ReadOptions | None = None) -> CineCase:
    """Reads the middle case of a finding again.

    Raises:
        DataError: If the finding has no case, or its file has changed since.
    """
    name = finding.cases[len(finding.cases) // 2] if finding.cases else ""
    with warnings.catch_warnings(action="ignore"):
        files = open_files(finding.path, options)
    for file in files:
        for z in range(len(file)):
            if file.slice_name(z) == name:
                return file[z]
    raise DataError(finding.path, f"the case {name!r}", "no such case")


def format_findings(findings: Sequence[Finding], root: str | Path) -> str:
    """The findings as a table, then their problems, then the sums."""
    rows = [_COLUMNS, *(_row(finding, Path(root)) for finding in findings)]
    lines = aligned(rows, n_left=len(_COLUMNS))
    lines.insert(1, "-" * max(map(len, lines)))
    problems = [problem for finding in findings for problem in finding.problems]
    if problems:
        lines += ["", "problems", *(f"  {problem}" for problem in problems)]
    n_cases = sum(len(finding.cases) for finding in findings)
    n_simulated = sum(len(finding.cases) for finding in findings if finding.simulated)
    sums = f"{len(findings)} files, {n_cases} cases ({n_simulated} simulated)"
    return "\n".join([*lines, "", f"{sums}, {len(problems)} problems"])


def _inspect_unit(unit: Unit, options: ReadOptions | None) -> Iterator[Finding]:
    try:
        with warnings.catch_warnings(action="ignore"):  # they are in the notes too
            files = open_unit(unit, options)
    except DataError as error:
        yield Finding(unit.path, unit.format, problems=(str(error),))
        return
    for file in files:
        yield _inspect_file(file)


def _inspect_file(file: CineFile) -> Finding:
    names, problems = [], [f"{file.path}: {note}" for note in file.notes]
    samples, measured, acs, last = 0, 0.0, None, None
    for z in range(len(file)):
        try:
            last = file[z]
        except DataError as error:
            problems.append(str(error))
            continue
        names.append(last.meta.name)
        samples, measured = samples + last.mask.size, measured + float(last.mask.sum())
        acs = last.acs if acs is None else min(acs, last.acs)
        problems += doubts(last)
    return Finding(
        path=file.path,
        format=file.format,
        key=file.key,
        cases=tuple(names),
        shape=file.slice_shape,
        true_acceleration=samples / measured if measured else None,
        nominal_acceleration=last.meta.nominal_acceleration if last else None,
        acs=acs,
        simulated=bool(last and last.meta.simulated),
        problems=tuple(problems),
    )


def _row(finding: Finding, root: Path) -> tuple[str, ...]:
    path = finding.path
    shown = str(path.relative_to(root)) if root in path.parents else path.name
    shown += f" {finding.key}" if finding.key else ""
    if finding.shape is None:
        return (shown, finding.format, "0", "-", "-", "-", "-", "-")
    t, n, h, w = finding.shape
    name = f"{finding.format}, simulated" if finding.simulated else finding.format
    true = "-" if finding.true_acceleration is None else f"{finding.true_acceleration:.2f}"
    numbers = (finding.nominal_acceleration, finding.acs)
    nominal, acs = ("-" if v is None else f"{v:.4g}" for v in numbers)
    return (shown, name, str(len(finding.cases)), f"{t} x {h} x {w}", str(n), true, nominal, acs)
