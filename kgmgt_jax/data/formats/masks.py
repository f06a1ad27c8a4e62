"""Sampling masks in files of their own."""

import re
from pathlib import Path

import numpy as np
from jaxtyping import Complex64, Float32

from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.formats.arrays import list_arrays, read_array
from kgmgt_jax.data.formats.base import FROM_SAMPLES, CineFile, measured_pattern

__all__ = ["MASK_KEY", "MaskedFile", "number_in", "read_mask"]

MASK_KEY = re.compile(r"mask(\d*)")


def number_in(text: str) -> float | None:
    """Acceleration written at the end of a name, e.g. 4.0 for ``"kspace_sub04"``."""
    digits = re.search(r"\d+$", text)
    return float(digits[0]) if digits else None


def read_mask(
    path: str | Path,
    shape: tuple[int, int, int],
    owner: str,
    acceleration: float | None = None,
) -> Float32[np.ndarray, "t h w"]:
    """The one mask in a file (HDF5, MATLAB 5 or npy), as float32 for every frame.

    Args:
        path: The file. Its array is called ``mask`` or ``maskNN``; the only one goes by any name.
        shape: ``(t, ky, kx)`` of the k-space. The mask may lack the frames, or be one value a
            ky line.
        owner: Name of the file with the k-space, for error messages.
        acceleration: Nominal acceleration of the k-space; a mask named for another is refused.

    Raises:
        DataError: If there is no such mask, or it is not of real numbers or of another shape.
    """
    arrays = list_arrays(path)
    keys = [key for key in arrays if MASK_KEY.fullmatch(key)]
    if acceleration is not None:
        keys = [key for key in keys if number_in(key) in (None, acceleration)]
    elif len(arrays) == 1:
        keys = list(arrays)
    if len(keys) != 1:
        name = "maskNN" if acceleration is None else f"mask{acceleration:02.0f}"
        raise DataError(path, f"one dataset named {name!r} or 'mask'", f"the keys {sorted(arrays)}")
    key = keys[0]
    if arrays[key].kind != "real":
        raise DataError(path, f"{key!r} with real numbers", f"{arrays[key].dtype}")
    t, h, w = shape
    found = arrays[key].shape
    if found not in ((h, w), (t, h, w), (h,)):
        wanted = f"a mask of shape (ky, kx) = {(h, w)} or (t, ky, kx) = {(t, h, w)} as {owner} has"
        raise DataError(path, wanted, f"{found}")
    mask = read_array(path, key)
    mask = mask[:, None] if mask.ndim == 1 else mask
    return np.broadcast_to(mask, shape).astype(np.float32)


class MaskedFile(CineFile):
    """A file of k-space whose mask is in another file, or is that of its samples that are not zero.

    ``_use_mask`` comes after ``CineFile.__init__``.
    """

    def _use_mask(self, mask: str | Path | None) -> None:
        """Takes the mask; without one every slice is read, to see whether all was measured."""
        t, _, h, w = self.slice_shape
        self._mask = None if mask is None else read_mask(mask, (t, h, w), self.path.name)
        self._mask_source = FROM_SAMPLES if mask is None else str(mask)
        masks = (case.mask for case in self) if self._mask is None else (self._mask,)
        self.fully_sampled = all(bool(each.all()) for each in masks)

    def _mask_of(self, kspace: Complex64[np.ndarray, "t n h w"]) -> Float32[np.ndarray, "t h w"]:
        return measured_pattern(kspace) if self._mask is None else self._mask.copy()
