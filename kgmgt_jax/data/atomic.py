"""Files that are there whole or not at all."""

import contextlib
import io
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

__all__ = ["beside", "naming", "save_array", "write_atomically", "write_hdf5"]

_KEPT = 50  # characters of a name, for one of its length and more would be too long


def write_atomically(path: str | Path, write: Callable[[Path], Any]) -> Path:
    """Let ``write`` fill a temporary file beside ``path``, then move it there in one step.

    A reader sees the old file or the new one, never half of it; a failure leaves the old one.

    Args:
        path: where the file shall be; its folder is made if need be.
        write: writes the whole file at the path it is given.

    Returns:
        ``path`` as a Path.

    Raises:
        OSError: of the system, with the name of the file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = beside(path)
    try:
        with naming(path, instead_of=temporary):
            write(temporary)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def beside(path: Path) -> Path:
    """A hidden name in the same folder that nothing else has."""
    return path.with_name(f".{path.name[:_KEPT]}.{uuid.uuid4().hex}")


@contextlib.contextmanager
def naming(path: str | Path, *, instead_of: Path | None = None) -> Iterator[None]:
    """Gives an ``OSError`` of the system the name of the file, where it has none or another's."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(instead_of)):
            error.filename = str(path)
        raise


def save_array(file: BinaryIO, array: np.ndarray) -> None:
    """What ``np.save`` does, which tells of a full disk without its name, or that of the file.

    Args:
        file: open for writing.
        array: of numbers.

    Raises:
        OSError: of the system.
    """
    array = np.asarray(array, order="C")
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
    file.write(array.data)


def write_hdf5(
    path: str | Path, fill: Callable[[h5py.File], Any], *, header: bytes = b"", **options: Any
) -> Path:
    """Writes an HDF5 file, whole or not at all.

    It is made in memory: HDF5 itself may end the process where the disk is full.

    Args:
        path: where the file shall be; its folder is made if need be.
        fill: puts everything into the open file.
        header: takes the place of the first bytes.
        **options: of ``h5py.File``, such as ``userblock_size``.

    Returns:
        ``path`` as a Path.

    Raises:
        OSError: if it cannot be written.
    """
    memory = io.BytesIO()
    with h5py.File(memory, "w", **options) as file:
        fill(file)
    memory.seek(0)
    memory.write(header)
    return write_atomically(path, lambda temporary: temporary.write_bytes(memory.getbuffer()))
