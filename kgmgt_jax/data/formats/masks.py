"""Sampling masks in files of their own."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Complex64, Float32

from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.formats.arrays import list_arrays, read_array
from kgmgt_jax.data.formats.axes import AxisOrder
from kgmgt_jax.data.formats.base import FROM_SAMPLES, CineFile, measured_pattern

__all__ = ["MASK_KEY", "MaskedFile", "has_mask", "number_in", "read_mask"]

MASK_KEY = re.compile(r"mask(\d*)")


def has_mask(arrays: Iterable[str], group: str = "") -> bool:
    """Whether one of the arrays in a group of a file (``"scan/"``) is a mask, by its key."""
    return bool(_masks_among(arrays, group))


def _masks_among(arrays: Iterable[str], group: str) -> list[str]:
    inside = [key for key in arrays if key.startswith(group)]
    return [key for key in inside if MASK_KEY.fullmatch(key.removeprefix(group))]


def number_in(text: str) -> float | None:
    """Acceleration written at the end of a name, e.g. 4.0 for ``"kspace_sub04"``."""
    digits = re.search(r"\d+$", text)
    return float(digits[0]) if digits else None


def read_mask(
    path: str | Path,
    shape: tuple[int, int, int],
    owner: str,
    acceleration: float | None = None,
    order: str = "thw",
) -> Float32[np.ndarray, "t h w"]:
    """The one mask in a file (HDF5, MATLAB 5 or npy), as float32 for every frame, read-only.

    Args:
        path: The file. Its array is called ``mask`` or ``maskNN``; the only one goes by any name.
        shape: ``(t, ky, kx)`` of the k-space. The mask may lack the frames, or have one value a
            ky line: ``(ky,)``, in MATLAB's way ``(ky, 1)`` or ``(1, ky)``, or ``(t, ky)`` where
            that cannot be anything else.
        owner: Name of the file with the k-space, for error messages.
        acceleration: Nominal acceleration of the k-space; a mask named for another is refused.
        order: Letters of the axes that the mask shares with the k-space, as that is stored.

    Raises:
        DataError: If there is no such mask, or it is not of real numbers or of another shape.
    """
    sizes = [shape["thw".index(letter)] for letter in order]
    return _read_masks(path, AxisOrder(order), sizes, owner, acceleration)[0]


def _read_masks(
    path: str | Path,
    order: AxisOrder,
    shape: Sequence[int],
    owner: str,
    acceleration: float | None = None,
    group: str = "",
) -> Float32[np.ndarray, "z t h w"]:
    """As `read_mask`, for each slice or one for all, beside k-space of any order and its shape.

    ``group`` is that of an HDF5 file which the mask is in, with a slash at its end.
    """
    arrays = list_arrays(path)
    keys = _masks_among(arrays, group)
    if not keys and len(arrays) == 1:
        keys = list(arrays)
    elif acceleration is not None:
        keys = [key for key in keys if number_in(key) in (None, acceleration)]
    if len(keys) != 1:
        name = "maskNN" if acceleration is None else f"mask{acceleration:02.0f}"
        raise DataError(path, f"one dataset named {name!r} or 'mask'", f"the keys {sorted(arrays)}")
    key = keys[0]
    if arrays[key].kind != "real":
        named = repr(key) if key else "a mask"  # an npy file's array has no name
        raise DataError(path, f"{named} with real numbers", f"{arrays[key].dtype}")
    t, n_slices, h, w = (order.size(letter, shape) for letter in "tzhw")
    found = arrays[key].shape
    found = (h,) if sorted(found) == sorted((1, h)) else found  # a vector, as MATLAB stores it
    what = f"a mask for {owner}"
    lines = {"h": (h,), "th": (t, h), "ht": (h, t)}
    fits = [letters for letters, sizes in lines.items() if sizes == found]
    by_slice = len(found) == 2 and 1 < n_slices == t  # it may be (z, ky)
    if len(fits) == 1 and found not in ((h, w), (w, h)) and not by_slice:
        own = AxisOrder(fits[0])
    else:
        others = {str(AxisOrder(letters)): lines[letters] for letters in ("h", "th")}
        own = order.of_companion(found, shape, "n", path, what, others)
    stored = read_array(path, key).reshape(found)
    slices = range(n_slices if "z" in own.letters else 1)
    masks = np.stack([own.arrange(stored[own.index(z)], "thw") for z in slices])
    return np.broadcast_to(masks.astype(np.float32), (len(masks), t, h, w))


class MaskedFile(CineFile):
    """A file of k-space whose mask is in another file, or is that of its samples that are not zero.

    ``_use_mask`` comes after ``CineFile.__init__``.
    """

    def _use_mask(
        self, mask: str | Path | None, order: AxisOrder, shape: Sequence[int], group: str = ""
    ) -> None:
        """Takes the mask; without one every slice is read, to see whether all was measured.

        Args:
            mask: Its file. Its axes are in the order of the k-space, see `AxisOrder.of_companion`.
            order: Axes of the k-space as it is stored.
            shape: Their lengths.
            group: Of that file, in which the mask is.
        """
        self._masks, self._mask_source = None, FROM_SAMPLES
        if mask is not None:
            self._masks = _read_masks(mask, order, shape, self.path.name, group=group)
            self._mask_source = str(mask)
        masks = (case.mask for case in self) if self._masks is None else self._masks
        self.fully_sampled = all(bool(each.all()) for each in masks)
        if self._masks is not None and (self._masks == 1).all():
            self._masks = np.ones((1, 1, 1, 1), np.float32)  # there may be hundreds of files

    def _mask_of(
        self, kspace: Complex64[np.ndarray, "t n h w"], z: int
    ) -> Float32[np.ndarray, "t h w"]:
        if self._masks is None:
            return measured_pattern(kspace)
        t, _, h, w = self.slice_shape
        mask = self._masks[z if len(self._masks) > 1 else 0]
        return np.broadcast_to(mask, (t, h, w)).copy()
