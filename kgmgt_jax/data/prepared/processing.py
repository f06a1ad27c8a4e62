"""From a case to the coil images and sensitivities that a prepared set keeps."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Complex64

from kgmgt_jax.data.case import CineCase
from kgmgt_jax.data.prepared.acquired import bounds, measured_lines
from kgmgt_jax.data.prepared.options import PrepareOptions
from kgmgt_jax.data.sens_cache import cached_sens, central_sens, maps_of, measured_average
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
            ``acquired``: what the scanner took, see `bounds` and `measured_lines`.
    """

    images: Complex64[np.ndarray, "t n h w"]
    sens: Complex64[np.ndarray, "*t n h w"] | None
    scale: float
    meta: dict[str, Any]


def process(case: CineCase, options: PrepareOptions) -> ProcessedSlice:
    """Transforms a case to images, crops, calibrates and scales it.

    With k the k-space and C the crop along the readout, ``x = C F^H k / s``, where s is the 99th
    percentile of ``|sum_n conj(S_n) (C F^H k)_n|`` over all frames, rounded to single precision.
    The sensitivities S are estimated from the central lines of the time average of ``F C F^H k``;
    of an undersampled case, from all lines around the centre that some frame measured.

    Raises:
        DataError: If there are too few lines to calibrate several coils on, or an undersampled case
            did not measure whole lines.
    """
    width = case.shape[-1]
    window = central(width, min(options.readout or width, width))
    images = np.ascontiguousarray(ifft2c(case.kspace)[..., window])
    acquired = _acquired(case, images.shape[-1])
    sens, origin = None, "none: a single coil"
    if case.n_coils > 1 and case.sens is not None:
        sens, origin = np.ascontiguousarray(case.sens[..., window]), "the file"
    elif case.n_coils > 1:
        sens, origin = _estimate(images, case, window, options)
    combined = [coil_combine(x, of_frames(sens, t)) for t, x in enumerate(images)]
    scale = np.float32(intensity_scale(np.stack(combined)))
    images /= scale
    meta = dataclasses.asdict(case.meta) | {"sens": origin, "acquired": acquired}
    return ProcessedSlice(images, sens, float(scale), meta)


def _estimate(
    images: Complex64[np.ndarray, "t n h w"], case: CineCase, window: slice, options: PrepareOptions
) -> tuple[Complex64[np.ndarray, "n h w"], str]:
    """Maps of the cut images, and where they come from."""
    method = options.sens
    with maps_of(f"{case.meta.source} [{case.meta.name}]"):
        if case.meta.fully_sampled:
            acs = min(options.acs, case.shape[-2])
            average = fft2c(images.mean(axis=0))
            return central_sens(average, acs=acs, method=method), f"{method}, {acs} lines"
        average, measured = measured_average(case.kspace, case.mask)
        average = fft2c(np.ascontiguousarray(ifft2c(average)[..., window]))
        measured = measured[:, : average.shape[-1]]
        return cached_sens(average[None], measured[None], method=method), f"{method}, all lines"


def _acquired(case: CineCase, width: int) -> Any:
    """What the scanner took, after a cut to ``width`` columns."""
    if case.meta.fully_sampled:
        return bounds(np.min(case.mask, axis=0) > 0, width)
    return measured_lines(case.mask, width, f"{case.meta.source} [{case.meta.name}]")
