"""Writing arrays as MATLAB v7.3 files, which are HDF5 with a header that MATLAB looks for."""

from pathlib import Path

import h5py
import numpy as np

from kgmgt_jax.data.atomic import write_hdf5

__all__ = ["write_mat"]

_COMPLEX = np.dtype([("real", "<f4"), ("imag", "<f4")])
_HEADER = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"


def write_mat(path: Path, name: str, array: np.ndarray, simulation: str = "") -> Path:
    """Writes one array as a MATLAB v7.3 file, whole or not at all; gzip, a frame a chunk.

    Args:
        path: the file; its folder is made if need be.
        name: the variable's name in MATLAB, which sees the axes in reverse order.
        array: float32, float64 or complex64 (stored as a compound of ``real`` and ``imag``).
        simulation: how it was simulated, kept as an attribute (UTF-8); empty for what was measured.
    """
    if np.iscomplexobj(array):
        array = np.ascontiguousarray(array, np.complex64).view(_COMPLEX)
    chunks = (1, 1, *array.shape[2:]) if array.ndim > 2 else array.shape

    def fill(file: h5py.File) -> None:
        options = {"chunks": chunks, "compression": "gzip", "compression_opts": 1}
        dataset = file.create_dataset(name, data=array, **options)
        kind = "double" if array.dtype == np.float64 else "single"
        dataset.attrs["MATLAB_class"] = np.bytes_(kind)
        if simulation:
            dataset.attrs["simulation"] = np.bytes_(simulation.encode())

    return write_hdf5(path, fill, header=_HEADER, userblock_size=512)
