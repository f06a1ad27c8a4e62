"""From a case to the coil images and sensitivities that a prepared set keeps."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Complex64

from kgmgt_jax.data.case import CineCase
from kgmgt_jax.data.prepared.options import PrepareOptions
from kgmgt_jax.data.sens_cache import central_sens, maps_of
from kgmgt_jax.data.transforms import (
    central,
    coil_combine,
    fft2c,
    ifft2c,
    intensity_scale,
    of_frames,
)

__all__ = ["ProcessedSlice", "process"]


@dataclass(frozen=True, eq=False)
class ProcessedSlice:
    """What is kept of a slice.

    Attributes:
        images: Coil images, ``(t, n, h, w)``, of intensities about 1.
        sens: Sensitivities, ``(n, h, w)`` or ``(t, n, h, w)``; ``None`` for a single coil.
        scale: What the images were divided by.
        meta: The fields of ``CaseMeta``; ``sens``: where the sensitivities come from; and
            ``acquired``: the rows and columns ``(start, stop)`` of a partial scan's k-space that
            the scanner took, ``None`` for all.
    """

    images: Complex64[np.ndarray, "t n h w"]
    sens: Complex64[np.ndarray, "*t n h w"] | None
    scale: float
    meta: dict[str, Any]


def process(case: CineCase, options: PrepareOptions) -> ProcessedSlice:
    """Transforms a fully sampled case to images, crops, calibrates and scales it.

    With k the k-space and C the crop along the readout, ``x = C F^H k / s``, where s is the 99th
    percentile of ``|sum_n conj(S_n) (C F^H k)_n|`` over all frames, rounded to single precision.
    The sensitivities S are estimated from the central lines of the time average of ``F C F^H k``.

    Raises:
        DataError: If there are too few lines to calibrate several coils on.
    """
    width = case.shape[-1]
    window = central(width, min(options.readout or width, width))
    images = np.ascontiguousarray(ifft2c(case.kspace)[..., window])
    sens, origin = None, "none: a single coil"
    if case.n_coils > 1 and case.sens is not None:
        sens, origin = np.ascontiguousarray(case.sens[..., window]), "the file"
    elif case.n_coils > 1:
        acs = min(options.acs, case.shape[-2])
        sens, origin = _estimate(images, case, acs, options.sens), f"{options.sens}, {acs} lines"
    combined = [coil_combine(x, of_frames(sens, t)) for t, x in enumerate(images)]
    scale = np.float32(intensity_scale(np.stack(combined)))
    images /= scale
    acquired = _acquired(np.min(case.mask, axis=0) > 0, images.shape[-1])
    meta = dataclasses.asdict(case.meta) | {"sens": origin, "acquired": acquired}
    return ProcessedSlice(images, sens, float(scale), meta)


def _estimate(
    images: Complex64[np.ndarray, "t n h w"], case: CineCase, acs: int, method: str
) -> Complex64[np.ndarray, "n h w"]:
    with maps_of(f"{case.meta.source} [{case.meta.name}]"):
        return central_sens(fft2c(images.mean(axis=0)), acs=acs, method=method)


def _acquired(
    taken: Bool[np.ndarray, "h w"], width: int
) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Rows and columns that the scanner took, if not all, after a cut to ``width`` columns.

    A cut of the image spaces the columns of its k-space more widely over the same extent. Where
    they went to its edge, they still do.
    """
    if taken.all() or not taken.any():
        return None
    rows, columns = (np.flatnonzero(taken.any(axis=axis)) for axis in (1, 0))
    w = taken.shape[1]
    first, last = (columns[[0, -1]] - w // 2) * width / w + width // 2
    start = 0 if taken[:, 0].any() else math.ceil(first)
    stop = width if taken[:, -1].any() else math.floor(last) + 1
    return (int(rows[0]), int(rows[-1]) + 1), (start, stop)
