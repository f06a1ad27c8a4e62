"""Image quality of reconstructed cines: PSNR, SSIM and NMSE, and the presets that fix their use.

The same images score 34 to 45 dB by the choice of normalisation and data range alone, so a score is
always reported with its preset:

============== ============================================= ============================ =========
preset         each image first                              data range L                 per
============== ============================================= ============================ =========
frame          unchanged                                     max of the reference frame   frame
cmrxrecon2023  divided by its own max                        the same (hence 1)           frame
cmrxrecon2024  z-scored by its own mean, standard deviation  the same, after that         frame
cmrxrecon2025  divided by its own 99.5th percentile          the same, after that         frame
fastmri        unchanged                                     max of the reference volume  volume
============== ============================================= ============================ =========

Presets that renormalise the prediction forgive a wrong scale, and fall apart on one hot pixel.

``psnr``, ``ssim`` and ``nmse`` can run under ``jax.jit`` and be differentiated; they work in
float32 to about 1e-7 of the float64 result, since no variance is formed as a difference of squares.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from kgmgt_jax.mri.cine import check_byte_order

__all__ = ["PRESETS", "Preset", "check_preset", "evaluate", "nmse", "psnr", "ssim", "ssim_map"]

WINDOW = 7
K1, K2 = 0.01, 0.03

Images = Float[Array | np.ndarray, "*b h w"]
DataRange = float | int | Float[Array | np.ndarray, "*#b"]


def _compiled(metric: Callable[..., Array]) -> Callable[..., Array]:
    """A function of two images, and perhaps their data range, under ``jax.jit``."""
    compiled = jax.jit(metric)

    @wraps(metric)
    def checked(reference, prediction, *data_range, **named):
        check_byte_order(reference=reference, prediction=prediction)
        return compiled(reference, prediction, *data_range, **named)

    return checked


@_compiled
def psnr(reference: Images, prediction: Images, data_range: DataRange) -> Float[Array, "*b"]:
    """Peak signal-to-noise ratio ``10 log10(L^2 / mean (r - p)^2)`` of each image, in dB.

    Args:
        reference: magnitude images r.
        prediction: magnitude images p.
        data_range: L > 0, one for all or one an image.

    Returns:
        dB; infinite for equal images, where its gradient is NaN.

    Raises:
        ValueError: if the shapes differ, or the byte order is not the machine's.
        TypeError: if an image is complex.
    """
    reference, prediction = _pair(reference, prediction)
    error = (reference - prediction) / _per_image(data_range, reference)
    return -10.0 * jnp.log10(jnp.mean(error**2, axis=(-2, -1)))


@_compiled
def ssim(reference: Images, prediction: Images, data_range: DataRange) -> Float[Array, "*b"]:
    """Structural similarity of each image: the mean of `ssim_map` over its windows.

    Args:
        reference: magnitude images r, at least 7x7.
        prediction: magnitude images p.
        data_range: L > 0, one for all or one an image.

    Raises:
        ValueError: if the shapes differ, or are smaller than the window, or the byte order is not
            the machine's.
        TypeError: if an image is complex.
    """
    reference, prediction = _pair(reference, prediction)
    windows = ssim_map(reference, prediction, _per_image(data_range, reference))
    return jnp.mean(windows, axis=(-2, -1))


@_compiled
def ssim_map(
    reference: Images,
    prediction: Images,
    data_range: float | int | Float[Array | np.ndarray, "..."],
) -> Float[Array, "*b y x"]:
    """Structural similarity in every window inside an image, scikit-image's default definition.

    Over uniform 7x7 windows with means μ, sample (n - 1) variances σ^2 and covariance σ_rp::

        S = (2 μ_r μ_p + C1)(2 σ_rp + C2) / ((μ_r^2 + μ_p^2 + C1)(σ_r^2 + σ_p^2 + C2))

    with C1 = (0.01 L)^2, C2 = (0.03 L)^2.

    Args:
        reference: magnitude images r, at least 7x7.
        prediction: magnitude images p.
        data_range: L > 0, one for all or an array that broadcasts to the map.

    Returns:
        The map: y = h - 6, x = w - 6; entry (0, 0) is of the window centred at pixel (3, 3).

    Raises:
        ValueError: if the shapes differ, or are smaller than the window, or the byte order is not
            the machine's.
        TypeError: if an image is complex.

    Source: Wang et al., IEEE Trans Image Process 13:600 (2004); ``skimage.metrics``.
    """
    reference, prediction = _pair(reference, prediction)
    if min(reference.shape[-2:]) < WINDOW:
        raise ValueError(
            f"expected images of at least {WINDOW}x{WINDOW} pixels for SSIM's window, got "
            f"{reference.shape=}"
        )
    *batch, h, w = reference.shape
    size = (*batch, h - WINDOW + 1, w - WINDOW + 1)
    ranges = jnp.broadcast_to(jnp.asarray(data_range, reference.dtype), size)
    scale = jnp.max(ranges, axis=(-2, -1), keepdims=True)
    (mean_r, mean_p), (var_r, var_p, cov) = _window_moments((reference, prediction), scale)
    c1, c2 = (k**2 * (ranges / scale) ** 2 for k in (K1, K2))
    luminance = (2 * mean_r * mean_p + c1) / (mean_r**2 + mean_p**2 + c1)
    structure = (2 * cov + c2) / (var_r + var_p + c2)
    return luminance * structure


@_compiled
def nmse(reference: Images, prediction: Images) -> Float[Array, "*b"]:
    """Normalised mean squared error ``sum (r - p)^2 / sum r^2`` of each image.

    Args:
        reference: magnitude images r, not all zero.
        prediction: magnitude images p.

    Raises:
        ValueError: if the shapes differ, or the byte order is not the machine's.
        TypeError: if an image is complex.
    """
    reference, prediction = _pair(reference, prediction)
    scale = jax.lax.stop_gradient(_positive(jnp.max(jnp.abs(reference), (-2, -1), keepdims=True)))
    error = ((reference - prediction) / scale) ** 2
    return jnp.sum(error, axis=(-2, -1)) / jnp.sum((reference / scale) ** 2, axis=(-2, -1))


def _unchanged(images: Float[Array, "t h w"]) -> Float[Array, "t h w"]:
    return images


def _by_own_max(images: Float[Array, "t h w"]) -> Float[Array, "t h w"]:
    return images / _positive(jnp.max(images, axis=(-2, -1), keepdims=True))


def _by_own_percentile(images: Float[Array, "t h w"]) -> Float[Array, "t h w"]:
    return images / _positive(jnp.percentile(images, 99.5, axis=(-2, -1), keepdims=True))


def _z_score(images: Float[Array, "t h w"]) -> Float[Array, "t h w"]:
    centred = images - jnp.mean(images, axis=(-2, -1), keepdims=True)
    centred = centred - jnp.mean(centred, axis=(-2, -1), keepdims=True)  # the mean's rounding error
    return centred / _positive(jnp.std(images, axis=(-2, -1), keepdims=True))


@dataclass(frozen=True)
class Preset:
    """What is done to reference and prediction, each by itself, before they are compared.

    Attributes:
        normalise: maps the frames of one cine to the frames that are scored.
        per_volume: all frames count as one image, with one data range; else each frame by itself.
    """

    normalise: Callable[[Array], Array]
    per_volume: bool = False


PRESETS: dict[str, Preset] = {
    "frame": Preset(_unchanged),
    "cmrxrecon2023": Preset(_by_own_max),
    "cmrxrecon2024": Preset(_z_score),
    "cmrxrecon2025": Preset(_by_own_percentile),
    "fastmri": Preset(_unchanged, per_volume=True),
}
"""By name; an entry of your own can be added."""


def check_preset(preset: str) -> None:
    """Raises ``ValueError`` unless there is a preset by that name."""
    if preset not in PRESETS:
        raise ValueError(f"expected preset to be one of {', '.join(PRESETS)}, got {preset=}")


def evaluate(
    reference: Float[Array | np.ndarray, "t h w"],
    prediction: Float[Array | np.ndarray, "t h w"],
    preset: str = "frame",
) -> dict[str, Float[Array, " n"]]:
    """PSNR (dB), SSIM and NMSE of a cine under a preset.

    Args:
        reference: magnitude frames of the fully sampled cine, at least 7x7 pixels.
        prediction: magnitude frames of the reconstruction, on the same scale.
        preset: a key of `PRESETS`.

    Returns:
        ``{"psnr", "ssim", "nmse"}``, one value a frame (n = t), or one a volume (n = 1) where the
        preset says so. A renormalising preset leaves a prediction that is all zero as it is.

    Raises:
        ValueError: if the preset is unknown, the shapes differ, are not ``(t, h, w)`` or too
            small, the byte order is not the machine's, or a frame of the reference is all zero
            (or, z-scored, constant).
        TypeError: if a cine is complex.
    """
    check_preset(preset)
    check_byte_order(reference=reference, prediction=prediction)
    reference, prediction = _pair(reference, prediction)
    if reference.ndim != 3:
        raise ValueError(f"expected cines of shape (t, h, w), got {reference.shape=}")
    scores, data_range = _scores(reference, prediction, PRESETS[preset])
    empty = np.flatnonzero(~(np.asarray(data_range) > 0))
    if empty.size:
        raise ValueError(
            f"expected a reference with some signal in each frame, got none in frames "
            f"{empty.tolist()} ({preset=}): all zero, constant or not finite; leave them out"
        )
    return scores


@partial(jax.jit, static_argnames="preset")
def _scores(reference: Array, prediction: Array, preset: Preset) -> tuple[dict[str, Array], Array]:
    """The scores, and the data range they used."""
    reference, prediction = preset.normalise(reference), preset.normalise(prediction)
    peak = jnp.max(reference, axis=(-2, -1))
    if not preset.per_volume:
        return {
            "psnr": psnr(reference, prediction, peak),
            "ssim": ssim(reference, prediction, peak),
            "nmse": nmse(reference, prediction),
        }, peak
    peak = jnp.max(peak, keepdims=True)
    volumes = [images.reshape(1, -1, images.shape[-1]) for images in (reference, prediction)]
    return {
        "psnr": psnr(*volumes, peak),
        "ssim": jnp.mean(ssim(reference, prediction, peak[0]), keepdims=True),
        "nmse": nmse(*volumes),
    }, peak


def _window_moments(
    images: tuple[Array, Array], scale: Array
) -> tuple[tuple[Array, Array], tuple[Array, Array, Array]]:
    """Means, sample variances and sample covariance, in units of ``scale``, over all 7x7 windows.

    One axis after the other, by the law of total covariance: the covariance of a window is the
    mean covariance of its rows plus the covariance of their means. Differences from the mean are
    formed before they are scaled and squared, and each image's own mean is set aside meanwhile,
    which keeps all digits in bright, flat windows.
    """
    level_r, level_p = (jnp.mean(image, axis=(-2, -1), keepdims=True) for image in images)
    mean_r, mean_p = images[0] - level_r, images[1] - level_p
    var_r = var_p = cov = jnp.zeros_like(mean_r)
    for axis in (-1, -2):
        runs_r, runs_p = _runs(mean_r, axis), _runs(mean_p, axis)
        mean_r, mean_p = jnp.mean(runs_r, axis=0), jnp.mean(runs_p, axis=0)
        r, p = (runs_r - mean_r[None]) / scale[None], (runs_p - mean_p[None]) / scale[None]
        var_r = jnp.mean(_runs(var_r, axis) + r * r, axis=0)
        var_p = jnp.mean(_runs(var_p, axis) + p * p, axis=0)
        cov = jnp.mean(_runs(cov, axis) + r * p, axis=0)
    sample = WINDOW**2 / (WINDOW**2 - 1)
    means = (mean_r + level_r) / scale, (mean_p + level_p) / scale
    return means, (sample * var_r, sample * var_p, sample * cov)


def _runs(images: Array, axis: int) -> Array:
    """The 7 members of each run of 7 neighbours along an axis, stacked first."""
    axis, n_runs = axis % images.ndim, images.shape[axis] - WINDOW + 1
    return jnp.stack(
        [jax.lax.slice_in_dim(images, i, i + n_runs, axis=axis) for i in range(WINDOW)]
    )


def _positive(scale: Array) -> Array:
    """The scale, or 1 where it is zero."""
    return jnp.where(scale > 0, scale, 1.0)


def _per_image(data_range: DataRange, images: Array) -> Array:
    value = jnp.asarray(data_range, images.dtype)
    return jnp.broadcast_to(value, images.shape[:-2])[..., None, None]


def check_magnitudes(reference: Images, prediction: Images) -> None:
    """Raises ``TypeError`` if any of two images is complex."""
    if jnp.iscomplexobj(reference) or jnp.iscomplexobj(prediction):
        raise TypeError(
            f"expected magnitude images, got {reference.dtype=}, {prediction.dtype=}; "
            "pass their absolute values"
        )


def _pair(reference: Images, prediction: Images) -> tuple[Array, Array]:
    """Both as JAX arrays of one floating type, checked."""
    reference, prediction = jnp.asarray(reference), jnp.asarray(prediction)
    if reference.shape != prediction.shape or reference.ndim < 2:
        raise ValueError(
            "expected reference and prediction of one shape (..., h, w), got "
            f"{reference.shape=}, {prediction.shape=}"
        )
    check_magnitudes(reference, prediction)
    dtype = jnp.promote_types(jnp.promote_types(reference.dtype, prediction.dtype), jnp.float32)
    return reference.astype(dtype), prediction.astype(dtype)
