"""Image quality where the heart moves, and how well the motion itself is kept.

A cardiac frame is mostly still: scores over the whole frame say little about the heart. Here the
moving pixels of the reference are found, and PSNR, SSIM and NMSE are taken over them alone, under
the same presets: images are normalised, and the data range is set, by the whole frame; only then
does the region count.
"""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float64

from kgmgt_jax.heart import heart_region
from kgmgt_jax.metrics import (
    PRESETS,
    WINDOW,
    check_magnitudes,
    check_preset,
    evaluate,
    ssim_map,
)

__all__ = ["HEART", "WHOLE", "region_scores", "score_frames", "score_regions"]

WHOLE, HEART = "whole frame", "heart region"

Cine = Float[Array | np.ndarray, "t h w"]
Scores = dict[str, Float64[np.ndarray, " n"]]

MARGIN = WINDOW // 2


def region_scores(
    reference: Cine,
    prediction: Cine,
    region: Bool[np.ndarray, "h w"],
    preset: str = "frame",
) -> Scores:
    """PSNR (dB), SSIM, NMSE and temporal fidelity of a cine inside a region.

    ``psnr`` and ``nmse`` take their sums over the region, ``ssim`` its mean over the 7x7 windows
    centred there. ``xt_ssim`` is the same similarity in planes of time and phase encoding: windows
    of 7 frames by 7 rows at one column, centred in the region. It falls where motion is smoothed
    over time or flickers, though every frame may look right. Time is continued periodically, as
    the heart beats, so that every frame counts and short cines have a score.

    Args:
        reference: magnitude frames of the fully sampled cine.
        prediction: magnitude frames of the reconstruction, on the same scale.
        region: True where it counts, as `heart.heart_region` gives it.
        preset: a key of `metrics.PRESETS`.

    Returns:
        ``{"psnr", "ssim", "nmse", "xt_ssim"}`` in float64, as many values as
        `metrics.evaluate` gives: one a frame, or one where the preset says so.

    Raises:
        ValueError: if the preset is unknown, shapes disagree, no window of SSIM is centred in the
            region, or the reference has no signal there.
        TypeError: if a cine is complex.
    """
    region = np.asarray(region, bool)
    _check(reference, prediction, region, preset)
    inner = region[MARGIN:-MARGIN, MARGIN:-MARGIN]
    if not inner.any():
        raise ValueError(
            f"expected a region with pixels {MARGIN} or more from the border, got "
            f"{int(region.sum())} pixels, all nearer; leave this cine's region out"
        )
    r, p, peak = _normalised(reference, prediction, preset)
    error, energy = (r - p)[:, region] ** 2, r[:, region] ** 2
    empty = np.flatnonzero(~(energy.sum(axis=1) > 0))
    if empty.size:
        raise ValueError(
            f"expected a reference with signal in the region in each frame, got none in frames "
            f"{empty.tolist()}; leave them out"
        )
    ssim, xt_ssim = (
        np.asarray(windows, np.float64)[:, inner].mean(axis=1)
        for windows in (ssim_map(r, p, peak), _temporal_ssim(r, p, peak))
    )
    peak = peak[:, 0, 0]
    if PRESETS[preset].per_volume:
        error, energy, peak = error.reshape(1, -1), energy.reshape(1, -1), peak[:1]
        ssim, xt_ssim = ssim.mean(keepdims=True), xt_ssim.mean(keepdims=True)
    with np.errstate(divide="ignore"):
        psnr = 20 * np.log10(peak) - 10 * np.log10(error.mean(axis=1))
    nmse = error.sum(axis=1) / energy.sum(axis=1)
    return {"psnr": psnr, "ssim": ssim, "nmse": nmse, "xt_ssim": xt_ssim}


def score_frames(
    reference: Cine, images: Mapping[str, Cine], preset: str = "frame"
) -> dict[str, Scores]:
    """Scores of several methods over the whole frame, ``{method: {metric: scores}}``, in order.

    Arguments and errors as for `score_regions`.
    """
    return {
        method: {
            name: np.asarray(values, np.float64)
            for name, values in evaluate(reference, image, preset).items()
        }
        for method, image in images.items()
    }


def score_regions(
    reference: Cine, images: Mapping[str, Cine], preset: str = "frame"
) -> dict[str, dict[str, Scores]]:
    """Scores of several methods over the whole frame and inside the heart region.

    Args:
        reference: magnitude frames of the fully sampled cine.
        images: ``{method: magnitude frames}``, on the same scale.
        preset: a key of `metrics.PRESETS`.

    Returns:
        ``{region: {method: {metric: scores}}}``; without the heart region where nothing moves.

    Raises:
        ValueError: as `metrics.evaluate`.
    """
    whole = score_frames(reference, images, preset)
    region = heart_region(np.asarray(reference))
    if not region[MARGIN:-MARGIN, MARGIN:-MARGIN].any():
        return {WHOLE: whole}
    heart = {
        method: region_scores(reference, image, region, preset) for method, image in images.items()
    }
    return {WHOLE: whole, HEART: heart}


def _check(reference: Cine, prediction: Cine, region: Bool[np.ndarray, "h w"], preset: str) -> None:
    check_preset(preset)
    check_magnitudes(reference, prediction)
    shapes = reference.shape, prediction.shape
    if reference.ndim != 3 or shapes[0] != shapes[1] or region.shape != reference.shape[1:]:
        raise ValueError(
            "expected cines of one shape (t, h, w) and a region (h, w), got "
            f"{reference.shape=}, {prediction.shape=}, {region.shape=}"
        )


def _normalised(
    reference: Cine, prediction: Cine, preset: str
) -> tuple[np.ndarray, np.ndarray, Float64[np.ndarray, "t 1 1"]]:
    """Both cines as the preset scores them, and the data range of each frame, in float64."""
    rule = PRESETS[preset]
    r, p = (
        np.asarray(rule.normalise(jnp.asarray(images, jnp.float32)), np.float64)
        for images in (reference, prediction)
    )
    peak = r.max(axis=(1, 2), keepdims=True)
    return r, p, np.full_like(peak, peak.max()) if rule.per_volume else peak


def _temporal_ssim(
    reference: np.ndarray, prediction: np.ndarray, peak: Float64[np.ndarray, "t 1 1"]
) -> Float[Array, "t y x"]:
    """SSIM of 7 frames by 7 rows around each pixel 3 or more from the border; time is periodic."""
    planes = (
        np.pad(images, ((MARGIN, MARGIN), (0, 0), (0, 0)), mode="wrap").transpose(2, 0, 1)
        for images in (reference, prediction)
    )
    windows = ssim_map(*planes, peak.reshape(1, -1, 1))  # w t y
    return windows.transpose(1, 2, 0)[:, :, MARGIN:-MARGIN]
