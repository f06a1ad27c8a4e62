"""Phantom patients as files in the layout of CMRxRecon 2023, MATLAB v7.3 (which is HDF5)."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Complex, Float

from kgmgt_jax.data.matfile import write_mat
from kgmgt_jax.data.phantom.cine import is_count, make_cine
from kgmgt_jax.mri.sampling import uniform

__all__ = ["SIMULATION", "write_cmrxrecon2023"]

SIMULATION = "simulated phantom"
"""What the files say about themselves, in the attribute ``simulation`` of the k-space."""


def write_cmrxrecon2023(
    root: str | Path,
    seeds: Sequence[int],
    *,
    split: str = "TrainingSet",
    view: str = "sax",
    n_slices: int = 2,
    accelerations: Sequence[int] = (4,),
    acs: int = 24,
    n_coils: int = 1,
    **cine,
) -> list[Path]:
    """Write one patient per seed as the organisers of CMRxRecon 2023 lay out theirs.

    Below ``root``: ``{SingleCoil,MultiCoil}/Cine/<split>/FullSample/P001/cine_<view>.mat`` and,
    for each acceleration R, ``AccFactorRR`` with the k-space times the mask and the mask itself:
    every R-th line from the first and the ``acs`` central ones. Complex numbers are compounds of
    ``real`` and ``imag``, in h5py's order (t, z, coil, ky, kx), without the coil axis for one coil.
    Files appear under their names only once complete, and say that they are simulated. Patients are
    numbered from 1.

    Args:
        root: folder to write below; created as needed, existing files are replaced.
        seeds: one patient each.
        split: name of the set, such as ``"TrainingSet"`` or ``"ValidationSet"``.
        view: ``"sax"`` or ``"lax"``.
        n_slices: slices a patient, from apex to base in short axis.
        accelerations: nominal R of each undersampled copy, 1 to 99 and at most ny; may be empty.
        acs: central lines that every mask holds, 0 to ny.
        n_coils: 1 writes ``SingleCoil``, more ``MultiCoil``.
        **cine: ``shape``, ``n_frames``, ``noise``, ``field_of_view_mm`` of `make_cine`.

    Returns:
        The files written, in order.

    Raises:
        ValueError: an argument is out of range; the message names it.
    """
    if not is_count(n_slices, 1):
        raise ValueError(f"{n_slices=}: expected an integer >= 1")
    if not is_count(acs, 0):
        raise ValueError(f"{acs=}: expected an integer >= 0")
    if not all(is_count(r, 1) and r <= 99 for r in accelerations):
        raise ValueError(f"{accelerations=}: expected integers from 1 to 99")
    coils = "SingleCoil" if n_coils == 1 else "MultiCoil"
    top = Path(root) / coils / "Cine" / split
    written = []
    for number, seed in enumerate(seeds, start=1):
        kspace = _stack(seed, view, n_slices, n_coils, cine)
        written += _write_patient(top, f"P{number:03d}", view, kspace, accelerations, acs)
    return written


def _stack(
    seed: int, view: str, n_slices: int, n_coils: int, cine: dict
) -> Complex[np.ndarray, "..."]:
    """K-space of all slices of one patient, (t, z, n, ky, kx), or (t, z, ky, kx) for one coil."""
    levels = np.linspace(0.25, 0.85, n_slices) if n_slices > 1 else [0.55]
    slices = [
        make_cine(seed, view=view, level=level, n_coils=n_coils, **cine).kspace for level in levels
    ]
    kspace = np.stack(slices, axis=1)
    return kspace[:, :, 0] if n_coils == 1 else kspace


def _write_patient(
    top: Path,
    patient: str,
    view: str,
    kspace: Complex[np.ndarray, "..."],
    accelerations: Sequence[int],
    acs: int,
) -> list[Path]:
    """The fully sampled file of a patient, then an undersampled one and its mask for each R."""
    prefix = "kspace_single" if kspace.ndim == 4 else "kspace"
    masks = {r: _uniform_mask(kspace.shape[-2:], r, acs) for r in accelerations}
    full = top / "FullSample" / patient / f"cine_{view}.mat"
    written = [write_mat(full, f"{prefix}_full", kspace, SIMULATION)]
    for acceleration, mask in masks.items():
        folder = top / f"AccFactor{acceleration:02d}" / patient
        name, measured = f"{prefix}_sub{acceleration:02d}", kspace * mask.astype(np.float32)
        written.append(write_mat(folder / f"cine_{view}.mat", name, measured, SIMULATION))
        path = folder / f"cine_{view}_mask.mat"
        written.append(write_mat(path, f"mask{acceleration:02d}", mask))
    return written


def _uniform_mask(shape: tuple[int, int], acceleration: int, acs: int) -> Float[np.ndarray, "h w"]:
    """Every R-th line from the first and the ``acs`` central ones, as the doubles of the files."""
    key = jax.random.key(0)  # draws nothing, since the offset is given
    mask = uniform(key, (1, *shape), acceleration, acs=acs, offset=0).mask
    return np.asarray(mask[0], np.float64)
