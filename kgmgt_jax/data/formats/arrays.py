"""Named arrays in HDF5, MATLAB 5 and npy files, read with care: none of them can be trusted.

A damaged header can claim any size, so each claim is held against the bytes on disk before memory
is asked for. Arrays come in NumPy's order of axes, which is MATLAB's reversed, and complex numbers
as complex64 however they are stored: complex, or compounds of ``real`` and ``imag``.
"""

import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import scipy.io

from kgmgt_jax.commands import one_line
from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.formats.base import refusing
from kgmgt_jax.data.formats.mat5 import is_mat5, readable_variables
from kgmgt_jax.data.sizes import check_size

__all__ = [
    "ArrayInfo",
    "attribute_text",
    "check_array",
    "describe",
    "file_state",
    "get_dataset",
    "list_arrays",
    "open_hdf5",
    "read_array",
    "read_attribute",
]

_MOST_ARRAYS, _DEEPEST = 20_000, 32
_LARGEST_CHUNK, _LONGEST_TEXT = 1 << 30, 500
_AGAIN = "copy it again, or save it with -v7.3 (MATLAB) or -v7 (Octave)"


class ArrayInfo(NamedTuple):
    """Shape and dtype of an array as it is stored."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def kind(self) -> str:
        """``"complex"``, ``"real"`` or, of anything else, the dtype."""
        return _kind(self.dtype)


def list_arrays(path: str | Path) -> dict[str, ArrayInfo]:
    """Name, shape and kind of every array in a file; of an npy file, one without a name.

    Raises:
        DataError: If the file is missing, damaged or none of the three kinds.
    """
    path = _existing(path)
    if _is_npy(path):
        array = _load_npy(path)
        return {"": ArrayInfo(array.shape, array.dtype)}
    if _is_mat5(path):
        return dict(_list_mat5(path, file_state(path)))
    with open_hdf5(path) as file:
        return {name: ArrayInfo(item.shape or (), _dtype(item)) for name, item in _datasets(file)}


def read_array(path: str | Path, key: str, index: Any = ()) -> np.ndarray:
    """Reads one array, or the part of it that ``index`` selects.

    Raises:
        DataError: If the file cannot be read, has no such array or claims more than it holds.
    """
    path = _existing(path)
    if _is_npy(path):
        return _plain(np.array(_load_npy(path)[index]))
    if _is_mat5(path):
        loaded = _load_mat5(path, file_state(path))
        if key not in loaded:
            raise DataError(path, f"an array named {key!r}", f"the keys {sorted(loaded)}")
        return _plain(np.array(loaded[key][index]))
    with open_hdf5(path) as file:
        dataset = get_dataset(file, key)
        _check_dataset(path, dataset)
        return _plain(np.asarray(dataset[index]))


def attribute_text(item: h5py.File | h5py.Dataset, name: str) -> str:
    """An attribute of an open HDF5 file or an array in it, as one line; empty if there is none."""
    value = item.attrs.get(name, "")
    if isinstance(value, np.ndarray | np.generic) and value.size == 1:
        value = value.item()
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return one_line(text)[:_LONGEST_TEXT]


def read_attribute(path: str | Path, key: str, name: str) -> str:
    """`attribute_text` of an array in a file; empty where the file is no HDF5.

    Raises:
        DataError: If the file is missing or damaged, or has no such array.
    """
    path = _existing(path)
    if _is_npy(path) or _is_mat5(path):
        return ""
    with open_hdf5(path) as file:
        return attribute_text(get_dataset(file, key), name)


@contextmanager
def open_hdf5(path: str | Path) -> Iterator[h5py.File]:
    """Opens an HDF5 file; what the HDF5 library raises on damaged ones becomes a `DataError`."""
    path = _existing(path)
    try:
        with h5py.File(path, "r") as file:
            yield file
    except DataError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        wanted = "a complete HDF5 file (MATLAB v7.3)"
        raise DataError(path, wanted, str(error) or type(error).__name__, _AGAIN) from error


def get_dataset(file: h5py.File, key: str) -> h5py.Dataset:
    """A dataset of an open file.

    Raises:
        DataError: If there is none of that name, or its numbers lie in files that nobody named.
    """
    dataset = file.get(key)
    if not isinstance(dataset, h5py.Dataset):
        raise DataError(file.filename, f"a dataset named {key!r}", f"the keys {sorted(file)}")
    if dataset.is_virtual or dataset.external is not None:
        wanted, fix = f"the numbers of {key!r} in the file itself", "copy them into it"
        raise DataError(file.filename, wanted, "a reference to other files", fix)
    return dataset


def check_array(path: Path, key: str) -> None:
    """Refuses, as `read_array` does, what cannot be read, before anything is made in its size."""
    if not (_is_npy(path) or _is_mat5(path)):  # these are checked whenever they are opened
        with open_hdf5(path) as file:
            _check_dataset(path, get_dataset(file, key))


def file_state(path: Path) -> tuple[int, int]:
    """Time of the last change of a file and its size, by which caches tell that it has changed.

    Raises:
        DataError: If there is no such file.
    """
    status = _existing(path).stat()
    return status.st_mtime_ns, status.st_size


def describe(arrays: dict[str, ArrayInfo]) -> str:
    """What a file holds, for error messages: keys, kinds and shapes of the first few arrays."""
    if not arrays:
        return "no arrays"
    shown = [
        f"{key!r} {info.kind} {info.shape}" if key else f"{info.kind} {info.shape}"
        for key, info in list(arrays.items())[:6]
    ]
    more = len(arrays) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        what = f"a {path.suffix} file" if path.suffix else "a file"
        raise DataError(path, what, "a directory" if path.is_dir() else "no file")
    return path


def _head(path: Path, n_bytes: int) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(n_bytes)
    except OSError as error:
        raise DataError(path, "a readable file", str(error)) from error


def _is_npy(path: Path) -> bool:
    return path.suffix == ".npy" or _head(path, 6) == b"\x93NUMPY"


def _is_mat5(path: Path) -> bool:
    return is_mat5(_head(path, 520))


def _kind(dtype: np.dtype) -> str:
    if dtype.kind == "c":
        return "complex"
    if dtype.names == ("real", "imag") and {dtype["real"].kind, dtype["imag"].kind} == {"f"}:
        return "complex"
    return "real" if dtype.kind in "fiub" else str(dtype)


def _plain(raw: np.ndarray) -> np.ndarray:
    """Complex numbers as complex64; everything else as it is."""
    if _kind(raw.dtype) != "complex":
        return raw
    with np.errstate(over="ignore", invalid="ignore"):  # infinities are refused by CineCase
        if raw.dtype.names is None:
            return raw.astype(np.complex64)
        pairs = np.stack([raw["real"], raw["imag"]], axis=-1).astype(np.float32)
    return pairs.view(np.complex64)[..., 0]


def _datasets(
    group: h5py.Group, prefix: str = "", met: list[str] | None = None
) -> Iterator[tuple[str, Any]]:
    """All datasets below a group by path, sorted; MATLAB's ``#refs#`` and links out left out."""
    met = [] if met is None else met
    if len(group) + len(met) > _MOST_ARRAYS or prefix.count("/") > _DEEPEST:
        raise DataError(group.file.filename, f"at most {_MOST_ARRAYS} arrays", "more, or a ring")
    names = list(group)
    met += names
    # h5py gives bytes that are no UTF-8
    if not all(isinstance(name, str) and name == one_line(name) for name in names):
        raise DataError(group.file.filename, "names of arrays as text", "other bytes", _AGAIN)
    for name in sorted(names):
        if name.startswith("#") or not isinstance(group.get(name, getlink=True), h5py.HardLink):
            continue
        item = group[name]
        if isinstance(item, h5py.Dataset):
            yield prefix + name, item
        elif isinstance(item, h5py.Group):
            yield from _datasets(item, f"{prefix}{name}/", met)


def _dtype(dataset: h5py.Dataset) -> np.dtype:
    try:
        return dataset.dtype
    except TypeError as error:  # of a kind that NumPy has not, or damaged
        wanted = f"numbers in {dataset.name!r}"
        raise DataError(dataset.file.filename, wanted, str(error), _AGAIN) from error


def _check_dataset(path: Path, dataset: h5py.Dataset) -> None:
    """Refuses sizes that cannot be true."""
    itemsize = _dtype(dataset).itemsize
    n_bytes = math.prod(dataset.shape or ()) * itemsize
    check_size(path, n_bytes, min(dataset.id.get_storage_size(), path.stat().st_size))
    chunk = math.prod(dataset.chunks or ()) * itemsize
    if chunk > max(_LARGEST_CHUNK, n_bytes):
        raise DataError(path, "chunks no larger than the array", f"{chunk:.3g} bytes a chunk")


def _load_npy(path: Path) -> np.ndarray:
    """An npy file mapped into memory; pickled objects are never loaded."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged header is parsed as Python: any error may come
        raise DataError(path, "a complete npy file", str(error), "save it again") from error


@functools.lru_cache(maxsize=1 << 12)
def _list_mat5(path: Path, state: tuple[int, int]) -> dict[str, ArrayInfo]:
    """What `_load_mat5` finds; kept, for a file is listed several times before it is read."""
    loaded = _load_mat5(path, state)
    return {key: ArrayInfo(array.shape, array.dtype) for key, array in loaded.items()}


@functools.lru_cache(maxsize=1)
def _load_mat5(path: Path, state: tuple[int, int]) -> dict[str, np.ndarray]:
    """All numeric arrays of a MATLAB 5 file, named and with axes in the order of the HDF5 files.

    SciPy reads whole variables only, so the last file is kept for its other slices; ``state``
    tells when it has changed. Cells stay unread, but in structs, and so does what has control
    characters in its name.
    """
    with refusing(path, "a complete MATLAB 5 file", _AGAIN):
        claims = readable_variables(path)
        check_size(path, sum(map(math.prod, claims.values())), state[1])
        loaded = scipy.io.loadmat(path, variable_names=list(claims))
    found = (each for name in sorted(loaded) for each in _numeric(name, loaded[name]))
    return {key: array.T for key, array in found if key == one_line(key)}


def _numeric(name: str, value: Any, depth: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    """A variable of numbers, or those in the fields of a struct, named as in HDF5 files.

    Of a struct, numbers and vectors are left out: they tell of the arrays beside them.
    """
    if type(value) is not np.ndarray or depth > _DEEPEST:  # others are objects and functions
        return
    if value.dtype.kind in "fiubc":
        if depth == 0 or sum(side > 1 for side in value.shape) > 1:
            yield name, value
    elif value.dtype.names and value.size == 1:
        for field in sorted(value.dtype.names):
            yield from _numeric(f"{name}/{field}", value[field].item(), depth + 1)
