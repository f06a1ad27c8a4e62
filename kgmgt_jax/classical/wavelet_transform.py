"""Daubechies' four-tap wavelets in two dimensions, orthonormal for images of any size.

One level along an axis splits an even number of samples x, taken as periodic, into halves::

    low_k = sum_i h_i x_{2k+i},   high_k = sum_i g_i x_{2k+i},   g_i = (-1)^i h_{3-i}

Of an odd number the last sample goes to the low half as it is, so that the transform of any size is
orthonormal: the adjoint is the inverse. A level transforms rows and columns; the next one
transforms its low-low quarter.

Source: Daubechies, Commun Pure Appl Math 41:909 (1988).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex

__all__ = ["Coefficients", "decompose", "recompose"]

_ROOT = 3.0**0.5
LOW = tuple(tap / (4.0 * 2.0**0.5) for tap in (1.0 + _ROOT, 3.0 + _ROOT, 3.0 - _ROOT, 1.0 - _ROOT))
HIGH = (LOW[3], -LOW[2], LOW[1], -LOW[0])
MIN_SIZE = 4  # pixels of the coarsest band

Band = Complex[Array, "*b _h _w"]


class Coefficients(NamedTuple):
    """Wavelet coefficients of images.

    Attributes:
        coarse: the low-low band of the last level.
        details: of each level, finest first, the bands (low, high), (high, low) and (high, high)
            along (rows, columns).
    """

    coarse: Band
    details: tuple[tuple[Band, Band, Band], ...]


def decompose(images: Complex[Array, "*b h w"], n_levels: int) -> Coefficients:
    """The transform of images.

    Args:
        images: any number of images, real or complex.
        n_levels: levels; fewer where the coarsest band would fall below four pixels.
    """
    details = []
    for _ in range(n_levels):
        if min(images.shape[-2:]) < 2 * MIN_SIZE:
            break
        low, high = _split(images, images.ndim - 2)
        images, low_high = _split(low, images.ndim - 1)
        high_low, high_high = _split(high, images.ndim - 1)
        details.append((low_high, high_low, high_high))
    return Coefficients(images, tuple(details))


def recompose(coefficients: Coefficients) -> Complex[Array, "*b h w"]:
    """The inverse, and the adjoint, of `decompose`.

    Args:
        coefficients: as `decompose` returns them.
    """
    images = coefficients.coarse
    for low_high, high_low, high_high in reversed(coefficients.details):
        low = _merge(images, low_high, images.ndim - 1)
        high = _merge(high_low, high_high, images.ndim - 1)
        images = _merge(low, high, images.ndim - 2)
    return images


# The barriers below keep XLA from fusing one step into the next, which would compute each sample
# many times over: they make the transform eight times faster on CPUs.


def _split(samples: Array, axis: int) -> tuple[Array, Array]:
    """Low and high half along an axis."""
    n_samples = samples.shape[axis]
    even = n_samples // 2 * 2
    first = jax.lax.slice_in_dim(samples, 0, 2, axis=axis)
    body = jax.lax.slice_in_dim(samples, 0, even, axis=axis)
    periodic = jax.lax.optimization_barrier(jnp.concatenate([body, first], axis))
    taps = [jax.lax.slice_in_dim(periodic, i, i + even - 1, stride=2, axis=axis) for i in range(4)]
    low, high = (_combination(filters, taps) for filters in (LOW, HIGH))
    if even < n_samples:
        last = jax.lax.slice_in_dim(samples, even, n_samples, axis=axis)
        low = jnp.concatenate([low, last], axis)
    return jax.lax.optimization_barrier((low, high))


def _merge(low: Array, high: Array, axis: int) -> Array:
    """The samples that `_split` split."""
    half = high.shape[axis]
    before, here = [], []
    for band in (jax.lax.slice_in_dim(low, 0, half, axis=axis), high):
        last = jax.lax.slice_in_dim(band, half - 1, half, axis=axis)
        periodic = jax.lax.optimization_barrier(jnp.concatenate([last, band], axis))
        before.append(jax.lax.slice_in_dim(periodic, 0, half, axis=axis))
        here.append(jax.lax.slice_in_dim(periodic, 1, half + 1, axis=axis))
    even, odd = jax.lax.optimization_barrier(
        tuple(
            _combination((LOW[i], HIGH[i], LOW[i + 2], HIGH[i + 2]), [*here, *before])
            for i in range(2)
        )
    )
    shape = (*low.shape[:axis], 2 * half, *low.shape[axis + 1 :])
    samples = jnp.stack([even, odd], axis + 1).reshape(shape)
    if low.shape[axis] > half:
        last = jax.lax.slice_in_dim(low, half, half + 1, axis=axis)
        samples = jnp.concatenate([samples, last], axis)
    return jax.lax.optimization_barrier(samples)


def _combination(factors: tuple[float, ...], arrays: list[Array]) -> Array:
    first, *others = (factor * array for factor, array in zip(factors, arrays, strict=True))
    return sum(others, start=first)
