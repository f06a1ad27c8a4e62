"""Reader for ISMRMRD files (HDF5, group ``dataset``), such as those of OCMR.

Readouts are sorted into (phase, coil, ky, kx) for each slice, set and, beside several cardiac
phases, repetition; with one phase the repetitions are the frames. Parallel slices that are numbered
as they were acquired, in turns, come in order of position. Averages of one line are averaged.
``ny = encodingLimits.kspace_encoding_step_1.maximum + 1``; lines below its ``minimum`` were never
acquired. Partial echoes (``center_sample``) and partial Fourier scans
(``kspace_encoding_step_1.center``, where most of the energy lies nearer to it than to the middle)
are padded with zeros, so that the centre of k-space lies in the middle; the mask says where.
Readouts that were sampled in reverse are turned round, and ``center_sample`` is that of the others.
Samples that any readout wants discarded (``discard_pre``, ``discard_post``) count as not measured,
as do the first three and the last of each readout where the header tells of a pilot tone.
Noise scans, readouts of other encodings than the first, and others that are no imaging data are
skipped; calibration lines count as measured where the header says that they are the scan's own
(``calibrationMode`` embedded or interleaved). Readouts are kept as long as they were sampled, in
OCMR twice the field of view.

Source: the ISMRMRD specification; the reading scripts of MRIOSU/OCMR for padding and pilot tone.
"""

import functools
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np

from kgmgt_jax.data.case import CineCase, DataError
from kgmgt_jax.data.formats.arrays import file_state, get_dataset, open_hdf5
from kgmgt_jax.data.formats.base import CineFile, DataWarning, import_optional, orientation
from kgmgt_jax.data.formats.ismrmrd_headers import (
    GROUP,
    are_parallel,
    check_counters,
    flagged,
    imaging_heads,
    read_encoding,
    sort_readouts,
)
from kgmgt_jax.data.sizes import check_size

__all__ = ["IsmrmrdFile", "is_ismrmrd"]

_PROBE = """
import sys, h5py
with h5py.File(sys.argv[1], "r") as file:
    group = file[sys.argv[2]]
    group["xml"][0]
    for start in range(0, len(group["data"]), 256):
        group["data"][start : start + 256]
"""
_PROBE_SECONDS, _BYTES_A_SECOND = 15, 20e6  # the least to wait for, and the slowest disk


def is_ismrmrd(arrays) -> bool:
    """Whether these are the arrays of an ISMRMRD file."""
    return {f"{GROUP}/data", f"{GROUP}/xml"} <= set(arrays)


class IsmrmrdFile(CineFile):
    """One ISMRMRD file; see `CineFile`.

    Args:
        path: The file.

    Raises:
        DataError: If the package ``ismrmrd`` is missing, the file is damaged, its header
            contradicts its readouts, or it is not a two-dimensional Cartesian cine.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        package = import_optional("ismrmrd", path)
        _probe(path, file_state(path))
        with open_hdf5(path) as file:
            encoding = read_encoding(path, file, package)
            numbers, heads, notes = imaging_heads(path, file, package, encoding.skipped)
        lines, nx, centre = encoding.lines, encoding.samples, encoding.centre
        reverse = flagged(heads, package, "ACQ_IS_REVERSE")
        head = heads[int(np.argmin(reverse))]  # that was not, if there is any
        check_counters(path, heads, lines)
        self._readouts = sort_readouts(numbers, reverse, heads)
        self._heads = heads[np.unique(self._readouts.case, return_index=True)[1]]
        if (np.diff(self._heads["idx"]["slice"].astype(int)) < 0).any():
            notes.append("slices are in order of position")
            warnings.warn(f"{path}: {notes[-1]}, not of their numbers", DataWarning, stacklevel=3)
        n_frames = int(self._readouts.frame.max()) + 1
        n_samples, n_coils = int(head["number_of_samples"]), int(head["active_channels"])
        self.path, self._acquired = path, (n_coils, lines, n_samples)
        self._kept = _kept_samples(path, heads, reverse, encoding.spoiled)
        n_bytes = 8 * n_frames * n_coils * lines * max(nx, n_samples)
        check_size(path, n_bytes, path.stat().st_size * 64)
        self._padding = (0, 0), _readout_padding(int(head["center_sample"]), n_samples, nx)
        if centre != lines // 2:
            if self._most_energy_near(centre):
                self._padding = _line_padding(centre, lines), self._padding[1]
                notes.append("partial Fourier, padded with zeros")
            else:
                middle = f"the energy lies around line {lines // 2}"
                notes.append(f"the header's centre of k-space is line {centre}, {middle}")
        first = min(encoding.first, int(self._readouts.line.min()))
        notes += [f"partial Fourier, without lines 0 to {first - 1}"] if first else []
        notes += ["asymmetric echo, padded with zeros"] if any(self._padding[1]) else []
        discarded = n_samples - len(range(n_samples)[self._kept])
        why = ", some for a pilot tone" if any(encoding.spoiled) else ""
        notes += [f"{discarded} samples of each readout discarded{why}"] if discarded else []
        h, w = (n + sum(added) for n, added in zip((lines, n_samples), self._padding, strict=True))
        field = encoding.field_mm  # any extent of k-space has the lines 1 / field of view apart
        super().__init__(
            path,
            format="ismrmrd",
            key=GROUP,
            slice_shape=(n_frames, n_coils, h, w),
            n_slices=int(self._readouts.case.max()) + 1,
            pixel_mm=None if field is None else (field[0] / h, field[1] / w),
            notes=notes,
        )
        wanted = self.n_slices * n_frames * (lines - first)
        r = self._readouts
        self.fully_sampled = len(set(zip(r.case, r.frame, r.line, strict=True))) == wanted

    def _read(self, z: int) -> CineCase:
        chosen = np.flatnonzero(self._readouts.case == z)
        frames, lines = self._readouts.frame[chosen], self._readouts.line[chosen]
        n_frames = self.slice_shape[0]
        n_coils, n_lines, n_samples = self._acquired
        total = np.zeros((n_frames, n_lines, n_coils, n_samples), np.complex64)
        count = np.zeros((n_frames, n_lines), np.float32)
        np.add.at(count, (frames, lines), 1)
        with np.errstate(over="ignore", invalid="ignore"):  # NaN is refused by CineCase
            np.add.at(total, (frames, lines), self._samples(chosen))
            total /= np.maximum(count, 1)[..., None, None]
        average = np.ascontiguousarray(total.transpose(0, 2, 1, 3))  # t n h w
        kspace = np.pad(average, [(0, 0), (0, 0), *self._padding])
        mask = np.zeros((n_frames, n_lines, n_samples), np.float32)
        mask[..., self._kept] = (count > 0)[..., None]
        mask = np.pad(mask, [(0, 0), *self._padding])
        meta = self._meta(
            z,
            orientation=orientation(self._heads["phase_dir"][z], self._heads["read_dir"][z]),
            is_stack=are_parallel(self._heads),
            mask_source="the readouts in the file",
            nominal_acceleration=1.0 if self.fully_sampled else None,
        )
        return CineCase(kspace, mask, meta)

    def _samples(self, chosen: np.ndarray) -> np.ndarray:
        """Some readouts from left to right, complex64 (readout, coil, sample), 0 if discarded."""
        numbers, reverse = self._readouts.number[chosen], self._readouts.reverse[chosen]
        n_coils, _, n_samples = self._acquired
        with open_hdf5(self.path) as file:
            raw = get_dataset(file, f"{GROUP}/data")[numbers]["data"]
            size = 2 * n_coils * n_samples
            sizes = {np.size(readout) for readout in raw}
            if sizes != {size}:
                got = f"sizes {sorted(sizes)}"
                raise DataError(self.path, f"readouts of {size} floats as their headers say", got)
            samples = np.stack([np.asarray(readout, np.float32) for readout in raw])
        samples = samples.view(np.complex64).reshape(len(numbers), n_coils, n_samples)
        samples[reverse] = samples[reverse, :, ::-1]
        samples[..., : self._kept.start] = samples[..., self._kept.stop :] = 0
        return samples

    def _most_energy_near(self, centre: int) -> bool:
        """Whether the strongest line is nearer to ``centre`` than to the middle."""
        chosen = np.flatnonzero(self._readouts.case == 0)
        lines, n_lines = self._readouts.line[chosen], self._acquired[1]
        size = np.abs(self._samples(chosen)).max(axis=(1, 2))
        strongest = np.zeros(n_lines, np.float32)
        np.maximum.at(strongest, lines, np.nan_to_num(size))
        peak = int(np.argmax(strongest))
        return abs(peak - centre) < abs(peak - n_lines // 2)


def _readout_padding(centre: int, n_samples: int, nx: int) -> tuple[int, int]:
    """Samples to add in front of an echo and behind, ``nx`` in all, for its centre to be there."""
    missing, front = nx - n_samples, nx // 2 - centre
    if missing <= 0 or centre == n_samples // 2:
        return 0, 0
    if not 0 <= front <= missing:
        front = missing if 2 * centre < nx else 0
    return front, missing - front


def _kept_samples(
    path: Path, heads: np.ndarray, reverse: np.ndarray, spoiled: tuple[int, int]
) -> slice:
    """The samples, from left to right, that no readout wants discarded and no tone spoils."""
    first, last = (
        np.maximum(heads[name].astype(int), n)
        for name, n in zip(("discard_pre", "discard_post"), spoiled, strict=True)
    )
    front, behind = np.where(reverse, last, first).max(), np.where(reverse, first, last).max()
    n_samples = int(heads["number_of_samples"][0])
    if front + behind >= n_samples:
        got = f"{front} in front and {behind} behind to discard"
        raise DataError(path, f"some of {n_samples} samples of a readout to be kept", got)
    return slice(int(front), n_samples - int(behind))


def _line_padding(centre: int, lines: int) -> tuple[int, int]:
    """The fewest lines to add in front or behind, for the centre to be the middle one."""
    return max(lines - 2 * centre, 0), max(2 * centre - lines, 0)


@functools.lru_cache(maxsize=1 << 12)  # of files that are whole; the others raise each time
def _probe(path: Path, state: tuple[int, int]) -> None:
    """Reads a file in a process of its own first.

    Readouts have variable length, and on damaged heaps of such the HDF5 library may loop forever
    or crash where no exception can stop it. ``state`` tells when a file has changed since.
    """
    limit = _PROBE_SECONDS + state[1] / _BYTES_A_SECOND
    command = [sys.executable, "-c", _PROBE, str(path), GROUP]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired as error:
        got = f"one that is not read within {limit:.0f} s"
        raise DataError(path, "a complete HDF5 file", got, "copy it again") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise DataError(path, "a complete HDF5 file", last, "copy it again")
