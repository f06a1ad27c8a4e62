"""The fully sampled file that a reconstruction is scored by."""

from pathlib import Path

import numpy as np
from jaxtyping import Float32

from kgmgt_jax.data.case import CineCase, DataError
from kgmgt_jax.data.formats import CineFile, read_file
from kgmgt_jax.data.transforms import ifft2c, rss
from kgmgt_jax.metrics import WINDOW

__all__ = ["read_references"]

_FIX = "leave out --reference (reference= in Python)"


def read_references(
    path: str | Path, file: CineFile, columns: slice, *, key: str | None, axes: str | None
) -> list[Float32[np.ndarray, "t h w"]]:
    """Magnitudes of a fully sampled file's slices, by each of which images can be scored.

    Args:
        path: the file.
        file: the undersampled one, of the same sizes.
        columns: those that are kept.
        key, axes: how ``file`` is laid out, as the user says; the reference is laid out alike, or
            of a known format.

    Raises:
        DataError: if it cannot be used, is undersampled or of other sizes, or if its images have a
            frame without signal or fewer pixels than SSIM's window.
    """
    return [_magnitude(case, columns) for case in _opened(path, file, key, axes)]


def _magnitude(case: CineCase, columns: slice) -> Float32[np.ndarray, "t h w"]:
    """Magnitudes of a slice: the file's own, where they are of the whole image."""
    if case.reference is not None and case.reference.shape == case.mask.shape:
        images = np.abs(case.reference)[..., columns]
    else:
        images = rss(ifft2c(case.kspace))[..., columns]
    where, (_, h, w) = f"{case.meta.source} [{case.meta.name}]", images.shape
    if min(h, w) < WINDOW:
        wanted = f"a reference of at least {WINDOW} x {WINDOW} pixels to score by"
        raise DataError(where, wanted, f"{h} x {w}", _FIX)
    empty = np.flatnonzero(~images.any(axis=(1, 2)))
    if empty.size:
        raise DataError(
            where, "a reference with signal in each frame", f"none in {empty.tolist()}", _FIX
        )
    return images


def _opened(path: str | Path, file: CineFile, key: str | None, axes: str | None) -> CineFile:
    """The fully sampled file: laid out as the user says the input is, else of a known format."""
    try:
        truth = read_file(path, key=key, axes=axes)
    except DataError as error:
        if key is None and axes is None:
            raise
        try:
            truth = read_file(path)
        except DataError:
            raise error from None
    if not truth.fully_sampled:
        raise DataError(path, "a fully sampled reference", f"undersampled {truth.key!r}")
    got, wanted = (len(truth), *truth.slice_shape), (len(file), *file.slice_shape)
    if got != wanted:
        raise DataError(path, f"slices and (t, n, ky, kx) = {wanted} as the input has", f"{got}")
    return truth
