"""What all methods do first: check the arrays, ignore unmeasured samples, fix the scale."""

from typing import NamedTuple

import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Complex, Float

from kgmgt_jax.mri.coils import rss
from kgmgt_jax.mri.consistency import adjoint
from kgmgt_jax.mri.fourier import ifft2c

__all__ = [
    "ScaledData",
    "average_filled",
    "check_counts",
    "check_weights",
    "data_scale",
    "scale_data",
    "temporal_mean",
    "with_frames",
]

CENTRE = 32  # samples along each axis that data_scale looks at


class ScaledData(NamedTuple):
    """A cine's measurement in units in which its image is of order one.

    Attributes:
        kspace: measured k-space divided by ``scale``, 0 where not measured.
        mask: 1 where measured.
        sens: sensitivity maps, of all frames or of each, or ``None`` for one coil of unit
            sensitivity.
        scale: the `data_scale`.
    """

    kspace: Complex[Array, "t n h w"]
    mask: Float[Array, "t h w"]
    sens: Complex[Array, "#t n h w"] | None
    scale: Float[Array, ""]


def check_weights(**weights: float | Array) -> None:
    """Refuses weights and tolerances that are negative or NaN; traced values are let through.

    Raises:
        ValueError: if a value is not >= 0.
    """
    for name, value in weights.items():
        if not isinstance(value, Tracer) and not float(value) >= 0:
            raise ValueError(f"expected {name} >= 0, got {name}={float(value)}")


def check_counts(**counts: int | Array) -> None:
    """Refuses numbers of iterations and the like below 1; traced values are let through.

    Raises:
        ValueError: if a value is below 1.
    """
    for name, value in counts.items():
        if not isinstance(value, Tracer) and value < 1:
            raise ValueError(f"expected {name} >= 1, got {name}={value}")


def scale_data(
    kspace: Complex[Array, "t n h w"],
    mask: Float[Array, "t h w"],
    sens: Complex[Array, "*t n h w"] | None,
) -> ScaledData:
    """The measured samples, divided by their `data_scale`. Arguments as any method's."""
    mask = mask.astype(kspace.real.dtype)
    measured = jnp.where(mask[:, None] > 0, kspace, 0)
    scale = data_scale(measured, mask)
    return ScaledData(measured / scale, mask, with_frames(sens), scale)


def with_frames(sens: Complex[Array, "*t n h w"] | None) -> Complex[Array, "#t n h w"] | None:
    """Maps with a frame axis, of length 1 where frames share them."""
    return sens[None] if sens is not None and sens.ndim == 3 else sens


def data_scale(kspace: Complex[Array, "t n h w"], mask: Float[Array, "t h w"]) -> Float[Array, ""]:
    """A typical bright pixel: the unit of intensity in which weights are given.

    From the low-resolution images of the central 32 x 32 samples, as far as all frames measured
    them (all measured ones, if there is none), coils combined by the root of their sum of squares.
    With the images' median m, 90th percentile p and maximum M over all frames, the scale is p if
    ``M - p < 2 (p - m)``, else M.

    Args:
        kspace: k-space, 0 where not measured.
        mask: 1 where measured.

    Returns:
        The scale; 1 for k-space that is all zero there.

    Source: the rule of ``bart pics`` (which looks at the calibration region of one frame only:
    scales differ by up to a quarter, and weights mean the same to that extent).
    """
    height, width = kspace.shape[-2:]
    rows, columns = (
        slice(max(size // 2 - CENTRE // 2, 0), size // 2 + (CENTRE + 1) // 2)
        for size in (height, width)
    )
    common = jnp.min(mask[:, rows, columns], axis=0)
    common = jnp.where(jnp.any(common > 0), common, 1.0)
    centre = kspace[:, :, rows, columns] * common[None, None]
    images = rss(ifft2c(centre)) * (common.size / (height * width)) ** 0.5
    median, high = jnp.percentile(images, jnp.asarray([50.0, 90.0]))
    peak = jnp.max(images)
    scale = jnp.where(peak - high < 2 * (high - median), high, peak)
    return jnp.where(scale > 0, scale, 1.0)


def temporal_mean(
    kspace: Complex[Array, "t n h w"], mask: Float[Array, "t h w"]
) -> Complex[Array, "n h w"]:
    """Mean over time of each sample's measured values, 0 where no frame measured it.

    Args:
        kspace: k-space; samples outside the mask are ignored.
        mask: 1 where measured.
    """
    count = jnp.sum(mask, axis=0)[None]
    measured = jnp.where(mask[:, None] > 0, kspace, 0)
    return jnp.sum(measured, axis=0) / jnp.maximum(count, 1.0)


def average_filled(
    kspace: Complex[Array, "t n h w"],
    mask: Float[Array, "t h w"],
    sens: Complex[Array, "*t n h w"] | None,
) -> Complex[Array, "t h w"]:
    """Image of each frame's measured samples, gaps filled by `temporal_mean`."""
    filled = jnp.where(mask[:, None] > 0, kspace, temporal_mean(kspace, mask)[None])
    return adjoint(filled, jnp.ones_like(mask), with_frames(sens))
