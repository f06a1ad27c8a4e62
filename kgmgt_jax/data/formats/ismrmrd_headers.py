"""What the headers of an ISMRMRD file say: of k-space, and of each readout.

See `ocmr` for how readouts become frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import h5py
import numpy as np

from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.formats.arrays import get_dataset
from kgmgt_jax.data.formats.base import PARALLEL, refusing
from kgmgt_jax.data.sizes import check_size

__all__ = [
    "GROUP",
    "Encoding",
    "Readouts",
    "are_parallel",
    "check_counters",
    "flagged",
    "imaging_heads",
    "read_encoding",
    "sort_readouts",
]

GROUP = "dataset"
_CALIBRATION = "ACQ_IS_PARALLEL_CALIBRATION"
_SAME_SCAN = ("embedded", "interleaved")  # modes of calibration whose lines are the scan's own
_SKIPPED = (
    "ACQ_IS_NOISE_MEASUREMENT",
    "ACQ_IS_NAVIGATION_DATA",
    "ACQ_IS_PHASECORR_DATA",
    "ACQ_IS_HPFEEDBACK_DATA",
    "ACQ_IS_DUMMYSCAN_DATA",
    "ACQ_IS_RTFEEDBACK_DATA",
    "ACQ_IS_SURFACECOILCORRECTIONSCAN_DATA",
    "ACQ_IS_PHASE_STABILIZATION_REFERENCE",
    "ACQ_IS_PHASE_STABILIZATION",
)
_PILOT_TONE = (3, 1)  # samples in front and behind that OCMR's own scripts leave out for it


@dataclass(frozen=True, eq=False)
class Readouts:
    """Imaging readouts in the order of the file; every array has one entry a readout.

    Attributes:
        number: Position in the file.
        frame: Cardiac phase, or repetition where there is one phase only.
        line: ky.
        reverse: Whether it was sampled from the end of its line to the beginning.
        case: Which slice, set and repetition, counted from 0 in that order; but parallel slices
            that were numbered as they were acquired, in turns, are in order of position.
    """

    number: np.ndarray
    frame: np.ndarray
    line: np.ndarray
    reverse: np.ndarray
    case: np.ndarray


class Encoding(NamedTuple):
    """What a header says of k-space.

    Attributes:
        lines: Number of ky lines.
        first: The first of them that was to be acquired.
        samples: Of the readout of a full echo.
        centre: The central line.
        field_mm: Field of view along ky and kx, oversampling included; ``None`` if not positive.
        spoiled: Samples that a pilot tone spoils, at the beginning of every readout and at its end.
        skipped: Flags of readouts that are none of the cine.
    """

    lines: int
    first: int
    samples: int
    centre: int
    field_mm: tuple[float, float] | None
    spoiled: tuple[int, int]
    skipped: tuple[str, ...]


def read_encoding(path: Path, file: h5py.File, package: ModuleType) -> Encoding:
    """What the header says of the first encoding.

    Raises:
        DataError: If it is damaged, or not of single slices on a Cartesian grid.
    """
    xml = get_dataset(file, f"{GROUP}/xml")[0]
    with refusing(path, "a complete ISMRMRD header"):
        header = package.xsd.CreateFromDocument(xml)
        encodings, user = header.encoding, header.userParameters
        limits = encodings[0].encodingLimits.kspace_encoding_step_1
        matrix = encodings[0].encodedSpace.matrixSize
        lines, nx, nz = int(limits.maximum) + 1, int(matrix.x), int(matrix.z)
        first, centre = int(limits.minimum), int(limits.center)
        size = encodings[0].encodedSpace.fieldOfView_mm
        field = (float(size.y), float(size.x))
        told = {} if user is None else {each.name: each.value for each in user.userParameterLong}
        trajectory = _word(encodings[0].trajectory)
        parallel = encodings[0].parallelImaging
        calibration = "" if parallel is None else _word(parallel.calibrationMode)
    if trajectory != "cartesian" or nz > 1:
        got = f"a {trajectory} trajectory with nz = {nz}"
        raise DataError(path, "a Cartesian cine of single slices", got)
    spoiled = _PILOT_TONE if told.get("PilotTone") == 1 else (0, 0)
    skipped = _SKIPPED if calibration in _SAME_SCAN else (_CALIBRATION, *_SKIPPED)
    return Encoding(lines, first, nx, centre, field if min(field) > 0 else None, spoiled, skipped)


def _word(choice: Any) -> str:
    """One of a header's fixed words, which some versions of the package keep in enumerations."""
    return str(getattr(choice, "value", choice))


def imaging_heads(
    path: Path, file: h5py.File, package: ModuleType, skipped: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Positions of the imaging readouts in the file, and their headers.

    Only readouts of the first encoding count, without those of any flag that is to be skipped; a
    note says whether there were others.
    """
    data = get_dataset(file, f"{GROUP}/data")
    if len(data.shape) != 1:
        raise DataError(path, "a list of readouts", f"shape {data.shape}")
    check_size(path, len(data) * 340, path.stat().st_size)
    heads = np.asarray(data.fields("head")[()])
    imaging = ~flagged(heads, package, *skipped)
    numbers = np.flatnonzero(imaging & (heads["encoding_space_ref"] == 0))
    if not len(numbers):
        raise DataError(path, "imaging readouts", f"{len(heads)} readouts, none of that kind")
    others = int(imaging.sum()) - len(numbers)
    notes = [f"{others} readouts of other encodings left out"] if others else []
    return numbers, heads[numbers], notes


def flagged(heads: np.ndarray, package: ModuleType, *flags: str) -> np.ndarray:
    """Which readouts have any of some flags."""
    bits = sum(1 << (getattr(package, flag) - 1) for flag in flags)
    return (heads["flags"] & np.uint64(bits)) != 0


def check_counters(path: Path, heads: np.ndarray, lines: int) -> None:
    """Refuses readouts beyond the header's limits, in 3-D, or of several lengths."""
    last = heads["idx"]["kspace_encode_step_1"].max()
    if last >= lines:
        got = f"a readout of line {last}"
        raise DataError(path, f"lines 0 to {lines - 1} as its header says", got)
    if heads["idx"]["kspace_encode_step_2"].any() or heads["idx"]["contrast"].any():
        raise DataError(path, "one partition and one contrast", "several")
    for name in ("number_of_samples", "active_channels"):
        values = np.unique(heads[name])
        if len(values) != 1 or values[0] == 0:
            raise DataError(path, f"one {name} for all readouts", f"{values.tolist()[:6]}")


def sort_readouts(numbers: np.ndarray, reverse: np.ndarray, heads: np.ndarray) -> Readouts:
    """The readouts with the frame, line and case they belong to."""
    counters = heads["idx"]
    gated = bool(counters["phase"].max() > 0)
    frame = counters["phase" if gated else "repetition"].astype(int)
    others = ["slice", "set"] + ["repetition"] * gated
    grouped = np.stack([counters[name] for name in others])
    _, first, case = np.unique(grouped, axis=1, return_index=True, return_inverse=True)
    case = _by_position(heads[first])[case.ravel()]
    line = counters["kspace_encode_step_1"].astype(int)
    return Readouts(numbers, frame, line, reverse, case)


def _by_position(heads: np.ndarray) -> np.ndarray:
    """The new number of each case: its own, or its slice's place in a stack acquired in turns."""
    normal = np.cross(heads["read_dir"][0], heads["phase_dir"][0])
    _, first, of_slice = np.unique(heads["idx"]["slice"], return_index=True, return_inverse=True)
    depth = np.round(heads["position"][first] @ normal, 1)  # mm
    steps = np.diff(depth)
    in_turns = are_parallel(heads) and steps.size and steps.min() < 0 < steps.max()
    order = np.argsort(depth[of_slice], kind="stable") if in_turns else np.arange(len(heads))
    return np.argsort(order)


def are_parallel(heads: np.ndarray) -> bool:
    """Whether readouts are of parallel slices, whose rows and columns lie alike."""
    return all(
        np.abs(heads[name] - heads[name][:1]).max() < PARALLEL for name in ("read_dir", "phase_dir")
    )
