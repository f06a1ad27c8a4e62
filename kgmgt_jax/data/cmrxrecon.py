"""Reader for the CMRxRecon 2023 files: MATLAB v7.3, which is HDF5 with the axes reversed.

The layout, below ``{MultiCoil,SingleCoil}/Cine/<set>/{FullSample,AccFactor04,...}/P001/``:

======================  ==========================  =====================
file                    dataset                     axes as h5py sees them
======================  ==========================  =====================
``cine_sax.mat``        ``kspace_full``             (t, z, n, ky, kx)
``cine_sax.mat``        ``kspace_sub04/08/10``      (t, z, n, ky, kx)
``cine_sax.mat``        ``kspace_single_full``      (t, z, ky, kx)
``cine_sax.mat``        ``kspace_single_sub04/...`` (t, z, ky, kx)
``cine_sax_mask.mat``   ``mask04/08/10``            (ky, kx), one for all frames
======================  ==========================  =====================

Complex numbers are compounds of the floats ``real`` and ``imag``. Units are arbitrary, about 1e-2
at the centre of k-space. The number in a key is the nominal acceleration, which leaves the 24
central lines out. The "slices" of a long-axis file are different views, not a stack.

Source: the organisers' format description, CmrxRecon/CMRxRecon.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import overload

import h5py
import numpy as np
from jaxtyping import Complex64, Float32

from kgmgt_jax.data.case import CaseMeta, CineCase, DataError

__all__ = ["CineFile", "find_files", "read_file", "subject_of"]

FORMAT = "cmrxrecon2023"
_KSPACE_KEY = re.compile(r"kspace_(single_)?(full|sub(\d+))")
_MASK_KEY = re.compile(r"mask(\d*)")
_KSPACE_KEYS = "kspace_full, kspace_subNN, kspace_single_full or kspace_single_subNN"


def read_file(
    path: str | Path, *, mask: str | Path | None = None, key: str | None = None
) -> "CineFile":
    """Opens one cine file as a sequence of slices that are read when asked for.

    Args:
        path: A ``cine_*.mat`` file, fully sampled or undersampled.
        mask: File with the sampling mask of an undersampled file. By default the sibling
            ``cine_*_mask.mat``.
        key: Dataset that holds the k-space, where it is not one of the 2023 names. A name with
            ``single`` in it is read as (t, z, ky, kx), any other as (t, z, n, ky, kx); a name with
            ``full`` in it as fully sampled, any other as undersampled.

    Returns:
        The slices of the file; ``len()``, indexing and iteration give one ``CineCase`` each.

    Raises:
        DataError: If the file is missing, damaged or of another layout, or its mask is.
    """
    return CineFile(path, mask=mask, key=key)


def find_files(root: str | Path, *, fully_sampled: bool | None = None) -> list[Path]:
    """Lists the cine files (not the masks) below a directory, sorted by path.

    Args:
        root: A directory, searched to any depth, or one file, returned as it is.
        fully_sampled: Keep only fully sampled (``True``) or only undersampled files (``False``),
            told by the key inside each; ``None`` keeps both and opens none.

    Raises:
        DataError: If ``root`` does not exist or holds no such file.
    """
    root = Path(root)
    if not root.exists():
        raise DataError(root, "a directory or a .mat file", "nothing at that path")
    if root.is_file():
        return [root]
    files = sorted(p for p in root.rglob("cine_*.mat") if "_mask" not in p.stem and p.is_file())
    if not files:
        raise DataError(root, "cine_*.mat files at any depth", "none")
    if fully_sampled is not None:
        files = [p for p in files if _is_full(_find_kspace_key(p)) == fully_sampled]
        if not files:
            wanted = "fully sampled" if fully_sampled else "undersampled"
            raise DataError(root, f"{wanted} cine_*.mat files", "none of that kind")
    return files


def subject_of(path: str | Path) -> str:
    """Subject a file belongs to: the nearest directory named like ``P001``, else its parent."""
    parents = [parent.name for parent in Path(path).absolute().parents]
    return next((name for name in parents if re.fullmatch(r"P\d+", name)), parents[0])


class CineFile(Sequence[CineCase]):
    """The slices of one file, read from disk one at a time.

    Making it reads the shape and the mask, so a file of another layout is refused at once; the
    k-space stays on disk. It holds no open file and may be sent to another process.

    Attributes:
        path: The file.
        key: Dataset that holds the k-space.
        n_slices: Number of slices, equal to ``len()``.
        slice_shape: Shape of every slice, ``(t, n, h, w)``.
        fully_sampled: Whether every sample was acquired.
    """

    def __init__(
        self, path: str | Path, *, mask: str | Path | None = None, key: str | None = None
    ) -> None:
        self.path = Path(path)
        self.key = key or _find_kspace_key(self.path)
        self.fully_sampled = _is_full(self.key)
        t, self.n_slices, *n, h, w = _kspace_shape(self.path, self.key)
        self.slice_shape = (t, n[0] if n else 1, h, w)
        self._mask = self._find_mask(mask)

    def __len__(self) -> int:
        return self.n_slices

    @overload
    def __getitem__(self, index: int) -> CineCase: ...
    @overload
    def __getitem__(self, index: slice) -> list[CineCase]: ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[z] for z in range(*index.indices(len(self)))]
        z = range(len(self))[index]  # an IndexError beyond the last slice, as Sequence asks
        kspace = _read_slice(self.path, self.key, z)
        meta = CaseMeta(
            source=str(self.path),
            name=f"{subject_of(self.path)}/{self.path.stem}/slice{z}",
            key=self.key,
            slice_index=z,
            n_slices=self.n_slices,
            format=FORMAT,
            fully_sampled=self.fully_sampled,
            nominal_acceleration=1.0 if self.fully_sampled else _number_in(self.key),
        )
        return CineCase(kspace.reshape(self.slice_shape), self._mask.copy(), meta)

    def _find_mask(self, mask: str | Path | None) -> Float32[np.ndarray, "t h w"]:
        """Mask of every slice: all ones for a full file, else from the file beside it."""
        t, _, h, w = self.slice_shape
        if self.fully_sampled:
            if mask is not None:
                got = f"the fully sampled {self.key!r} together with mask={str(mask)!r}"
                raise DataError(self.path, "undersampled k-space to go with a mask", got)
            return np.ones((t, h, w), np.float32)
        path = Path(mask) if mask else self.path.with_name(f"{self.path.stem}_mask.mat")
        if not path.is_file():
            wanted = f"the sampling mask of {self.key!r} in {path}"
            fix = "put it there, or name the mask file with --mask (mask= in Python)"
            raise DataError(self.path, wanted, "no file", fix)
        array = _read_mask(path, _number_in(self.key))
        if array.shape not in ((h, w), (t, h, w)):
            wanted = f"a mask of shape (ky, kx) = {(h, w)} or (t, ky, kx) = {(t, h, w)}"
            raise DataError(path, f"{wanted} as {self.path.name} has", f"{array.shape}")
        return np.broadcast_to(array, (t, h, w)).astype(np.float32)


@contextmanager
def _open(path: Path) -> Iterator[h5py.File]:
    """Opens an HDF5 file; every failure of the HDF5 library inside becomes a `DataError`."""
    if not path.is_file():
        raise DataError(path, "a .mat file", "a directory" if path.is_dir() else "no file")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError) as error:
        fix = "copy it again, or save it from MATLAB with -v7.3"
        raise DataError(path, "a complete HDF5 file (MATLAB v7.3)", str(error), fix) from error


def _find_kspace_key(path: Path) -> str:
    with _open(path) as file:
        found = sorted(file)
    keys = [key for key in found if _KSPACE_KEY.fullmatch(key)]
    if len(keys) != 1:
        fix = "name the dataset with --key (key= in Python)"
        raise DataError(path, f"one dataset named {_KSPACE_KEYS}", f"the keys {found}", fix)
    return keys[0]


def _is_full(key: str) -> bool:
    return "full" in key


def _number_in(key: str) -> float | None:
    """Nominal acceleration written at the end of a key, e.g. 4.0 for ``kspace_sub04``."""
    digits = re.search(r"\d+$", key)
    return float(digits[0]) if digits else None


def _dataset(file: h5py.File, key: str) -> h5py.Dataset:
    dataset = file.get(key)
    if not isinstance(dataset, h5py.Dataset):
        raise DataError(file.filename, f"a dataset named {key!r}", f"the keys {sorted(file)}")
    return dataset


def _kspace_shape(path: Path, key: str) -> tuple[int, ...]:
    """Shape of the k-space dataset after checks of its presence, axes and dtype."""
    with _open(path) as file:
        dataset = _dataset(file, key)
        shape, dtype = dataset.shape or (), dataset.dtype
    axes = "(t, z, ky, kx)" if "single" in key else "(t, z, n, ky, kx)"
    if len(shape) != axes.count(",") + 1 or 0 in shape:
        raise DataError(path, f"{key!r} with non-empty axes {axes}", f"shape {shape}")
    if dtype.kind != "c" and dtype.names != ("real", "imag"):
        raise DataError(path, f"{key!r} as a compound of floats 'real' and 'imag'", f"{dtype}")
    return shape


def _read_slice(path: Path, key: str, z: int) -> Complex64[np.ndarray, "t ..."]:
    """Slice ``z`` over all frames as complex64."""
    with _open(path) as file:
        raw = np.asarray(_dataset(file, key)[:, z])
    if raw.dtype.names is None:
        return raw.astype(np.complex64)
    pairs = np.stack([raw["real"], raw["imag"]], axis=-1).astype(np.float32)
    return pairs.view(np.complex64)[..., 0]


def _read_mask(path: Path, acceleration: float | None) -> np.ndarray:
    """The one mask in a file, refused if its key names another acceleration than the k-space."""
    with _open(path) as file:
        found = sorted(file)
        keys = [key for key in found if _MASK_KEY.fullmatch(key)]
        if acceleration is not None:
            keys = [key for key in keys if _number_in(key) in (None, acceleration)]
        if len(keys) != 1:
            name = "maskNN" if acceleration is None else f"mask{acceleration:02.0f}"
            raise DataError(path, f"one dataset named {name!r} or 'mask'", f"the keys {found}")
        mask = np.asarray(_dataset(file, keys[0])[()])
    if mask.dtype.kind not in "fiub":
        raise DataError(path, f"{keys[0]!r} with real numbers", f"{mask.dtype}")
    return mask
