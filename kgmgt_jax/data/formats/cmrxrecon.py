"""Reader for CMRxRecon 2023, 2024 and 2025: MATLAB v7.3 (HDF5) or, in places, MATLAB 5.

Files lie below ``{MultiCoil,SingleCoil}/Cine/<set>/``:

====  ==================================  =========================================  ==============
year  k-space                             its mask                                   mask axes
====  ==================================  =========================================  ==============
2023  FullSample/P001/cine_sax.mat        none
2023  AccFactor04/P001/cine_sax.mat       cine_sax_mask.mat beside it                (ky, kx)
2024  FullSample/P001/cine_sax.mat        none
2024  UnderSample_Task1/P001/             Mask_Task1/P001/                           (ky, kx)
      cine_sax_kus_Uniform4.mat           cine_sax_mask_Uniform4.mat
2024  UnderSample_Task2/P001/             Mask_Task2/P001/                           (t, ky, kx)
      cine_sax_kus_ktGaussian8.mat        cine_sax_mask_ktGaussian8.mat
2025  as 2024, <centre>/<scanner>/P001    Mask_TaskAll/<centre>/<scanner>/P001       (t, ky, kx)
====  ==================================  =========================================  ==============

K-space is ``kspace_full``, ``kspace_subNN``, ``kspace`` or ``kus`` with axes (t, z, coil, ky, kx)
as h5py sees them, or ``kspace_single_full`` and ``kspace_single_subNN`` with (t, z, ky, kx). Units
are arbitrary, about 1e-2 at the centre of k-space. Accelerations in names are nominal: they leave
out the central lines, of which there are 24 in 2023, else 16 to 20. The "slices" of a long-axis
file are different views, not a stack.

Source: the organisers' format descriptions, CmrxRecon/CMRxRecon, CMRxRecon2024, CMRxRecon2025.
"""

import re
from pathlib import Path

import numpy as np
from jaxtyping import Complex64, Float32

from kgmgt_jax.data.case import CineCase, DataError
from kgmgt_jax.data.formats.arrays import ArrayInfo, check_array, list_arrays, read_attribute
from kgmgt_jax.data.formats.axes import AxisOrder
from kgmgt_jax.data.formats.base import (
    ALL_SAMPLES,
    FROM_SAMPLES,
    CineFile,
    measured_pattern,
)
from kgmgt_jax.data.formats.cmrxrecon_tree import (
    damaged_parts,
    edition_of,
    mask_paths,
    set_folder,
    subject_of,
)
from kgmgt_jax.data.formats.masks import has_mask, number_in, read_mask

__all__ = [
    "CmrxreconFile",
    "is_full_key",
    "is_told_by_samples",
    "kspace_key",
]

_KEY = re.compile(r"kspace|kus|kspace_(single_)?(full|sub\d+)")
_KEYS = "kspace_full, kspace_subNN, kspace_single_full, kspace_single_subNN, kspace or kus"


_PLAIN = "kspace"  # of the fully sampled files of 2025, and of many others


def kspace_key(arrays: dict[str, ArrayInfo]) -> str | None:
    """The one official k-space key in a file, or ``None`` if there is none or more than one."""
    keys = [key for key in arrays if _KEY.fullmatch(key)]
    return keys[0] if len(keys) == 1 else None


def is_full_key(key: str) -> bool:
    """Whether a key names fully sampled k-space, below a folder of the organisers' name."""
    return "full" in key or key == _PLAIN


def is_told_by_samples(path: Path, key: str) -> bool:
    """Whether ``key`` is a name that anyone uses, in a file that does not lie as the organisers'.

    What such a file has measured is told by a mask in it, or by its samples.
    """
    return key == _PLAIN and set_folder(path) is None


class CmrxreconFile(CineFile):
    """One ``.mat`` file of CMRxRecon; see `CineFile`.

    Args:
        path: A ``cine_*.mat`` file, fully sampled or undersampled.
        mask: File with the sampling mask of an undersampled file. By default it is looked for
            in the file, then where the organisers put it.
        key: Dataset that holds the k-space, where it has none of the official names. A name with
            ``full`` in it is read as fully sampled, any other as undersampled; ``kspace`` outside
            the organisers' folders as the dataset ``mask`` in the same file or its zeros say.
        axes: Order of the axes, where it is not the official one.

    Raises:
        DataError: If the file is missing, damaged or of another layout, or its mask is.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        mask: str | Path | None = None,
        key: str | None = None,
        axes: str | None = None,
    ) -> None:
        path = Path(path)
        arrays = list_arrays(path)
        key, info = _find_kspace(path, arrays, key)
        inside = path if has_mask(arrays) else None
        default = "t,z,ky,kx" if "single" in key else "t,z,coil,ky,kx"
        self._axes = AxisOrder.parse(axes or default, path)
        self._axes.check(info.shape, path, key)
        check_array(path, key)
        t, n_slices, n, h, w = (self._axes.size(letter, info.shape) for letter in "tznhw")
        year = edition_of(path, key)
        bad, notes = damaged_parts(path, year, t, n_slices)
        self._mask_order = "".join(letter for letter in self._axes.letters if letter in "thw")
        self._stored_frames = t
        self._kept = [z for z in range(n_slices) if z != bad.slice_index]
        super().__init__(
            path,
            format=f"cmrxrecon{year or '2023'}",
            key=key,
            name=f"{subject_of(path)}/{path.stem}",
            slice_shape=(t - bad.n_frames, n, h, w),
            n_slices=n_slices,
            fully_sampled=is_full_key(key),
            simulation=read_attribute(path, key, "simulation"),
            notes=notes,
        )
        self._view = path.stem.split("_kus_")[0].removeprefix("cine_")
        self._mask_is_foreign = False
        if is_told_by_samples(path, key):
            self._mask, self._mask_source = self._told_by_samples(mask or inside)
        else:
            self._mask, self._mask_source = self._find_mask(mask, inside)

    def __len__(self) -> int:
        return len(self._kept)

    def slice_index(self, z: int) -> int:
        """See `CineFile.slice_index`."""
        return self._kept[z]

    def _read(self, z: int) -> CineCase:
        kspace = self._stored(self.slice_index(z))[: self.slice_shape[0]]
        meta = self._meta(
            z,
            nominal_acceleration=self._nominal(),
            view=self._view,
            is_stack=not self._view.startswith("lax"),
            mask_source=self._mask_source,
        )
        case = CineCase(kspace, self._mask_of(kspace), meta)
        if self._mask_is_foreign and not np.array_equal(case.mask, measured_pattern(case.kspace)):
            fix = "give the mask this file was acquired with by --mask (mask= in Python)"
            got = f"samples elsewhere than in {self._mask_source}, of another set"
            raise DataError(self.path, "k-space sampled as its mask says", got, fix)
        return case

    def _mask_of(self, kspace: Complex64[np.ndarray, "t n h w"]) -> Float32[np.ndarray, "t h w"]:
        if self._mask is not None:
            return self._mask.copy()
        everything = np.ones_like(kspace[:, 0], np.float32)
        return everything if self.fully_sampled else measured_pattern(kspace)

    def _stored(self, z: int) -> Complex64[np.ndarray, "t n h w"]:
        """All frames of a slice, by its position in the file."""
        return self._axes.read(self.path, self.key, z, "tnhw")

    def _told_by_samples(
        self, mask: str | Path | None
    ) -> tuple[Float32[np.ndarray, "t h w"] | None, str]:
        """The mask that is given or in the file; ``None`` for all, or where zeros tell.

        Zeros around the measured samples, the same in all frames, are padding of a full file.
        """
        t, _, h, w = self.slice_shape
        self.fully_sampled = False
        if mask is not None:
            read = read_mask(mask, (t, h, w), self.path.name, order=self._mask_order)
            self.fully_sampled = bool(read.all())
            return None if (read == 1).all() else read, str(mask)
        patterns = (measured_pattern(self._stored(z)) for z in self._kept)
        self.fully_sampled = not any(map(_has_gaps, patterns))
        return None, ALL_SAMPLES if self.fully_sampled else FROM_SAMPLES

    def _nominal(self) -> float | None:
        if self.fully_sampled:
            return 1.0
        if self.key == _PLAIN:
            return None
        return number_in(self.path.stem if "_kus_" in self.path.stem else self.key)

    def _find_mask(
        self, mask: str | Path | None, inside: Path | None
    ) -> tuple[Float32[np.ndarray, "t h w"] | None, str]:
        """Mask of every slice and where it comes from; ``None`` for a full file."""
        t, _, h, w = self.slice_shape
        if self.fully_sampled:
            if mask is not None:
                got = f"the fully sampled {self.key!r} together with mask={str(mask)!r}"
                raise DataError(self.path, "undersampled k-space to go with a mask", got)
            return None, ALL_SAMPLES
        given = mask or inside
        candidates = [Path(given)] if given else list(mask_paths(self.path))
        path = next((path for path in candidates if path.is_file()), None)
        if path is None:
            wanted = f"the sampling mask of {self.key!r} in {candidates[0]}"
            fix = "put it there, or name the mask file with --mask (mask= in Python)"
            if not _KEY.fullmatch(self.key):
                fix += f"; where {self.key!r} is not of CMRxRecon, name its axes with --axes"
            raise DataError(self.path, wanted, "no file", fix)
        self._mask_is_foreign = not given and set_folder(path) != set_folder(self.path)
        shape = (self._stored_frames, h, w)
        read = read_mask(path, shape, self.path.name, self._nominal(), self._mask_order)
        return read[:t], str(path)


def _has_gaps(pattern: Float32[np.ndarray, "t h w"]) -> bool:
    """Whether samples are missing between others, in any frame."""
    rows, columns = (np.flatnonzero(pattern.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    if not rows.size:
        return True
    inner = pattern[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return not inner.all()


def _find_kspace(
    path: Path, arrays: dict[str, ArrayInfo], key: str | None
) -> tuple[str, ArrayInfo]:
    """The dataset of the k-space, by its official name unless ``key`` gives another."""
    key = key or kspace_key(arrays)
    if key is None or key not in arrays:
        wanted = f"one dataset named {_KEYS}" if key is None else f"a dataset named {key!r}"
        fix = "name the dataset with --key (key= in Python)"
        raise DataError(path, wanted, f"the keys {sorted(arrays)}", fix)
    if arrays[key].kind != "complex":
        wanted = f"{key!r} as a compound of floats 'real' and 'imag'"
        raise DataError(path, wanted, f"{arrays[key].dtype}")
    return key, arrays[key]
