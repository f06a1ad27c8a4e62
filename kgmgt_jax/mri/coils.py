"""Receive coils: sensitivity maps, coil combination, and maps estimated from the data.

A coil image is the image times the coil's complex sensitivity, ``m_i = s_i m``. With maps of unit
sum of squares, ``sum_i |s_i|^2 = 1``, `sens_reduce` undoes `sens_expand`.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float

from kgmgt_jax.mri.cine import check_byte_order
from kgmgt_jax.mri.espirit import (
    MIN_CALIBRATION_LINES,
    espirit_maps,
    power_iterations,
    reference_phase,
    zero_fill,
)
from kgmgt_jax.mri.fourier import ifft2c
from kgmgt_jax.mri.sampling import centre_rank
from kgmgt_jax.numerics import square_root

__all__ = [
    "MIN_CALIBRATION_LINES",
    "SENS_OPTIONS",
    "adaptive_maps",
    "calibration_block",
    "calibration_kspace",
    "calibration_size",
    "estimate_sens",
    "rss",
    "sens_expand",
    "sens_from_block",
    "sens_options",
    "sens_reduce",
]

# Options of each method of estimate_sens and their defaults; a crop of 0 leaves no pixel without
# a map, so that a reconstruction loses nothing.
SENS_OPTIONS = {
    "espirit": {"kernel_size": 6, "threshold": 1e-3, "crop": 0.0, "n_iterations": 30},
    "adaptive": {"patch": 5, "n_iterations": 12},
}


def sens_expand(
    image: Complex[Array, "*b h w"], sens: Complex[Array, "*#b n h w"]
) -> Complex[Array, "*b n h w"]:
    """Coil images ``m_i = s_i m``.

    Args:
        image: complex images.
        sens: sensitivity maps; leading axes may be 1 where images share their maps.
    """
    return sens * jnp.expand_dims(image, -3)


def sens_reduce(
    coil_images: Complex[Array, "*b n h w"], sens: Complex[Array, "*#b n h w"]
) -> Complex[Array, "*b h w"]:
    """Combines coil images, ``m = sum_i conj(s_i) m_i``: the adjoint of `sens_expand`.

    Args:
        coil_images: one complex image a coil.
        sens: sensitivity maps; leading axes may be 1 where images share their maps.
    """
    return jnp.sum(jnp.conj(sens) * coil_images, axis=-3)


def rss(coil_images: Complex[Array, "..."], axis: int = -3) -> Float[Array, "..."]:
    """Root of the sum of squares over the coils, ``sqrt(sum_i |m_i|^2)``.

    The gradient is zero, not NaN, where all coils are zero.

    Args:
        coil_images: one complex image a coil.
        axis: the coil axis.
    """
    return square_root(jnp.sum(coil_images.real**2 + coil_images.imag**2, axis=axis))


def calibration_block(
    kspace: Complex[Array, "t n h w"], mask: Float[Array, "t h w"], acs: int | None = None
) -> Complex[Array, "n y x"]:
    """Time average of the measured samples in the largest complete block around the centre.

    ``k(n, y, x) = sum_t mask k / sum_t mask``. A sample counts as measured if any frame measured
    it, so masks that vary in time calibrate on most of k-space. The block has the largest area of
    all rectangles around the centre without a gap: whole lines for masks of lines, nearly a square
    for radial masks. Not for use under ``jax.jit``: the block depends on the mask's values.

    Args:
        kspace: measured k-space of a cine.
        mask: 1 where measured.
        acs: at most this many lines, if given.

    Raises:
        ValueError: if the mask has not the shape of a coil's k-space, fewer than four lines around
            the centre are complete, or as `check_byte_order`.
    """
    if kspace.ndim != 4 or mask.shape != (kspace.shape[0], *kspace.shape[2:]):
        raise ValueError(
            "expected k-space (t, n, h, w) and a mask (t, h, w), got "
            f"{kspace.shape=} and {mask.shape=}"
        )
    check_byte_order(kspace=kspace, mask=mask)
    if acs is not None and acs < 0:
        raise ValueError(f"expected a number of calibration lines, or None, got {acs=}")
    n_lines, n_columns = calibration_size(np.max(np.asarray(mask), axis=0) > 0, acs)
    if n_lines < MIN_CALIBRATION_LINES:
        raise ValueError(
            f"expected at least {MIN_CALIBRATION_LINES} complete lines around the centre of "
            f"k-space to calibrate the coils on, got {n_lines=} (limit {acs=}); measure more ACS "
            "lines, use a mask that varies in time, or supply sensitivity maps"
        )
    y, x = mask.shape[1] // 2 - n_lines // 2, mask.shape[2] // 2 - n_columns // 2
    rows, columns = slice(y, y + n_lines), slice(x, x + n_columns)
    mask = mask[:, rows, columns]
    measured = jnp.where(mask[:, None] > 0, kspace[:, :, rows, columns], 0)
    total = jnp.sum(measured, axis=0)
    return total / jnp.sum(mask, axis=0)[None]


def calibration_size(measured: Bool[np.ndarray, "h w"], acs: int | None = None) -> tuple[int, int]:
    """Lines and columns of the largest gapless rectangle at the centre, 0 if there is none.

    Of those too narrow to calibrate on, such as a single spoke, none counts.

    Args:
        measured: whether any frame measured a sample.
        acs: at most this many lines, if given.
    """
    row_rank, column_rank = (centre_rank(size) for size in measured.shape)
    outward = measured[np.argsort(row_rank)][:, np.argsort(column_rank)]
    run = np.cumprod(outward, axis=1).sum(axis=1)  # gapless samples of each line
    width = np.minimum.accumulate(run)[:acs]
    wide = width >= min(MIN_CALIBRATION_LINES, measured.shape[1])
    area = wide * width * np.arange(1, width.size + 1)
    n_lines = int(np.argmax(area)) + 1 if area.any() else 0
    return n_lines, int(width[n_lines - 1]) if n_lines else 0


def calibration_kspace(
    kspace: Complex[Array, "t n h w"], mask: Float[Array, "t h w"], acs: int | None = None
) -> Complex[Array, "n h w"]:
    """`calibration_block` at its place in k-space, 0 outside; same arguments and errors."""
    h, w = kspace.shape[-2:]
    return zero_fill(calibration_block(kspace, mask, acs), (h, w))


@partial(jax.jit, static_argnames=("patch", "n_iterations"))
def adaptive_maps(
    calibration: Complex[Array, "n h w"], *, patch: int = 5, n_iterations: int = 12
) -> Complex[Array, "n h w"]:
    """Sensitivity maps by adaptive combination of low-resolution coil images.

    With c the coil images of the Hann-weighted calibration k-space, the map at a pixel is the
    dominant eigenvector of the local coil covariance::

        R(y, x) = sum over the patch around (y, x) of c c^H,    s <- R s / ||R s||

    R is all but of rank one, so a few power iterations suffice. Phases are referenced to a virtual
    coil v, the dominant eigenvector of R summed over the image: ``v^H s`` is real and positive,
    which keeps the maps smooth across pixels.

    Args:
        calibration: central k-space, zero outside the calibration block.
        patch: side of the (periodic) patch in pixels, odd.
        n_iterations: power iterations.

    Returns:
        Maps with ``sum_i |s_i|^2 = 1`` at every pixel.

    Raises:
        ValueError: if ``patch`` is not a positive odd number or ``n_iterations`` is below 1.

    Source: Walsh et al., Magn Reson Med 43:682 (2000).
    """
    if patch < 1 or patch % 2 == 0 or n_iterations < 1:
        raise ValueError(
            f"expected an odd patch >= 1 and n_iterations >= 1, got {patch=}, {n_iterations=}"
        )
    images = ifft2c(calibration * _hann(calibration)[None])
    images = images / jnp.maximum(jnp.max(jnp.abs(images)), jnp.finfo(images.real.dtype).tiny)
    covariance = jax.lax.map(
        lambda image: _patch_sum(image[None] * jnp.conj(images), patch), images
    )  # n n h w
    virtual = _dominant(jnp.sum(covariance, axis=(-2, -1))[..., None, None], n_iterations=50)
    maps = _dominant(covariance, n_iterations=n_iterations, fallback=virtual)
    return reference_phase(maps, virtual[:, 0, 0])


def estimate_sens(
    kspace: Complex[Array, "t n h w"],
    mask: Float[Array, "t h w"],
    *,
    acs: int | None = None,
    method: str = "espirit",
    **options: float,
) -> Complex[Array, "n h w"]:
    """Sensitivity maps of a cine from its `calibration_block`, by one of two methods.

    ``"espirit"`` (`espirit_maps`, without its crop unless told) is the better one; ``"adaptive"``
    (`adaptive_maps`) is blurred by a small block, but follows the data pixel by pixel if all of
    k-space calibrates.

    Args:
        kspace: measured k-space of a cine.
        mask: 1 where measured.
        acs: calibrate on at most this many lines, if given.
        method: ``"espirit"`` or ``"adaptive"``.
        options: of the method; ``SENS_OPTIONS`` lists them.

    Returns:
        Maps with ``sum_i |s_i|^2 = 1`` at every pixel (that a crop keeps).

    Raises:
        ValueError: if fewer than four lines around the centre are complete, or if the method or
            an option is unknown or out of range.
    """
    sens_options(method, options)
    h, w = kspace.shape[-2:]
    return sens_from_block(calibration_block(kspace, mask, acs), (h, w), method, **options)


def sens_from_block(
    block: Complex[Array, "n y x"], shape: tuple[int, int], method: str, **options: float
) -> Complex[Array, "n h w"]:
    """What `estimate_sens` makes of a calibration block.

    Args:
        block: central k-space without gaps.
        shape: rows and columns of the maps.
        method: ``"espirit"`` or ``"adaptive"``.
        options: of the method.

    Raises:
        ValueError: if the method or an option is unknown or out of range, or the block too small.
    """
    known = sens_options(method, options)
    if method == "adaptive":
        return adaptive_maps(zero_fill(block, shape), **known)
    return espirit_maps(block, shape, **known)


def sens_options(method: str, options: dict[str, float]) -> dict[str, Any]:
    """All options of a method: those given and the defaults of the others.

    Args:
        method: ``"espirit"`` or ``"adaptive"``.
        options: the options given.

    Raises:
        ValueError: if the method or an option is unknown.
    """
    if method not in SENS_OPTIONS:
        raise ValueError(f"expected a method of {', '.join(SENS_OPTIONS)}, got {method=}")
    unknown = sorted(set(options) - set(SENS_OPTIONS[method]))
    if unknown:
        known = ", ".join(SENS_OPTIONS[method])
        raise ValueError(f"expected options of {method!r}: {known}; got {', '.join(unknown)}")
    return {**SENS_OPTIONS[method], **options}


def _hann(calibration: Complex[Array, "n h w"]) -> Float[Array, "h w"]:
    """Separable Hann window over the extent of the samples that are not zero."""
    support = jnp.any(calibration != 0, axis=0)

    def along(used: Array) -> Array:
        distance = jnp.abs(jnp.arange(used.size) - used.size // 2)
        extent = jnp.max(jnp.where(used, distance, 0)) + 1
        return jnp.where(distance < extent, jnp.cos(0.5 * jnp.pi * distance / extent) ** 2, 0.0)

    return along(support.any(axis=1))[:, None] * along(support.any(axis=0))[None, :]


def _patch_sum(images: Complex[Array, "*b h w"], patch: int) -> Complex[Array, "*b h w"]:
    """Sum over the square patch around each pixel, periodic as the Fourier images are."""
    for axis in (-2, -1):
        shifts = range(-(patch // 2), patch // 2 + 1)
        images = jnp.sum(jnp.stack([jnp.roll(images, i, axis=axis) for i in shifts]), axis=0)
    return images


def _dominant(
    covariance: Complex[Array, "n n h w"],
    *,
    n_iterations: int,
    fallback: Complex[Array, "n 1 1"] | None = None,
) -> Complex[Array, "n h w"]:
    """Unit dominant eigenvector at each pixel; ``fallback`` where the covariance is zero."""
    power = jnp.einsum("nnhw->nhw", covariance).real
    start = jnp.argmax(power, axis=0)  # its column already leans to the eigenvector
    vector = jnp.take_along_axis(covariance, start[None, None], axis=1)[:, 0]

    vector, _ = power_iterations(covariance, vector, n_iterations)
    if fallback is None:
        return vector
    return jnp.where(rss(vector)[None] > 0, vector, fallback)
