"""Many coils compressed to few virtual ones, slice by slice as a file is read."""

import dataclasses

import numpy as np
from jaxtyping import Complex, Complex64

from kgmgt_jax.data.case import CineCase
from kgmgt_jax.data.formats.base import CineFile
from kgmgt_jax.data.formats.maps import unit_maps

__all__ = [
    "CompressedFile",
    "check_virtual_coils",
    "compress_case",
    "compression_matrix",
    "with_virtual_coils",
]


def compression_matrix(
    kspace: Complex64[np.ndarray, "t n h w"], n_virtual: int
) -> tuple[Complex[np.ndarray, "v n"], float]:
    """The combinations of coils that keep most of the energy of the samples.

    With K the samples of all coils as columns, they are the leading eigenvectors of ``K K^H``, or
    the left singular vectors of K: of all sets of so many combinations, none leaves less behind.
    Noise is not whitened first, so a coil that is loud of noise may win a place.

    Args:
        kspace: Measured k-space of a cine, zero elsewhere.
        n_virtual: How many, at most as many as coils.

    Returns:
        A complex128 matrix with orthonormal rows, that of most energy first, and the share of the
        energy that they keep.

    Source: Huang et al., Magn Reson Imaging 26:133 (2008); Buehrer et al., Magn Reson Med 57:1131
    (2007).
    """
    n_coils = kspace.shape[1]
    gram = np.zeros((n_coils, n_coils), np.complex128)
    for frame in kspace.reshape(len(kspace), n_coils, -1):
        gram += frame @ np.conj(frame.T)
    energies, vectors = np.linalg.eigh(gram)  # ascending
    kept = vectors[:, ::-1][:, :n_virtual]
    return np.conj(kept.T), float(energies[::-1][:n_virtual].sum() / energies.sum())


def compress_case(case: CineCase, n_virtual: int) -> CineCase:
    """A slice of so many virtual coils; as it is, if it has no more than that.

    Maps that the file brings are combined as the coils are, and then of unit sum of squares again.
    A note says what share of the energy is kept. All samples of the case decide, so of a fully
    sampled one also those that a mask leaves out later.

    Args:
        case: A slice of several coils.
        n_virtual: How many coils it shall have.
    """
    if case.n_coils <= n_virtual:
        return case
    matrix, kept = compression_matrix(case.kspace, n_virtual)
    matrix = matrix.astype(np.complex64)
    sens = None if case.sens is None else unit_maps(_combined(case.sens, matrix))[0]
    note = f"{case.n_coils} coils compressed to {n_virtual} virtual ones"
    notes = (*case.meta.notes, f"{note}, which hold {100 * kept:.2f} % of the energy")
    return dataclasses.replace(
        case,
        kspace=_combined(case.kspace, matrix),
        sens=sens,
        meta=dataclasses.replace(case.meta, notes=notes),
    )


class CompressedFile(CineFile):
    """A file whose slices are read through `compress_case`.

    Args:
        file: The file as it is.
        n_virtual: Coils to compress its slices to, fewer than they have.
    """

    def __init__(self, file: CineFile, n_virtual: int) -> None:
        t, _, h, w = file.slice_shape
        super().__init__(
            file.path,
            format=file.format,
            slice_shape=(t, n_virtual, h, w),
            n_slices=file.n_slices,
            key=file.key,
            name=file.name,
            fully_sampled=file.fully_sampled,
            simulation=file.simulation,
            pixel_mm=file.pixel_mm,
            frame_seconds=file.frame_seconds,
            notes=file.notes,
        )
        self._file = file

    def __len__(self) -> int:
        return len(self._file)

    def slice_index(self, z: int) -> int:
        """Position of slice ``z`` in the file; see `CineFile`."""
        return self._file.slice_index(z)

    def _read(self, z: int) -> CineCase:
        return compress_case(self._file[z], self.slice_shape[1])


def with_virtual_coils(file: CineFile, n_virtual: int) -> CineFile:
    """The file, compressed to so many coils if its slices have more.

    Args:
        file: An opened file.
        n_virtual: Most coils to be left, 0 for all.

    Raises:
        ValueError: As `check_virtual_coils`.
    """
    check_virtual_coils(n_virtual)
    return CompressedFile(file, n_virtual) if 0 < n_virtual < file.slice_shape[1] else file


def check_virtual_coils(n_virtual: int) -> None:
    """Refuses a number of virtual coils other than 2 or more, or 0 for all coils.

    Raises:
        ValueError: If it is one.
    """
    if n_virtual < 0 or n_virtual == 1:
        expected = "virtual coils, 2 or more, or 0 to leave all coils"
        raise ValueError(f"expected a number of {expected}, got {n_virtual}")


def _combined(
    coils: Complex64[np.ndarray, "*t n h w"], matrix: Complex64[np.ndarray, "v n"]
) -> Complex64[np.ndarray, "*t v h w"]:
    """Combinations of coils, of k-space or of maps."""
    *t, n, h, w = coils.shape
    return (matrix @ coils.reshape(*t, n, h * w)).reshape(*t, len(matrix), h, w)
