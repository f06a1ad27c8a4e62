"""Where the heart is in a cine, told by its motion."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

__all__ = ["HeartLine", "heart_line", "heart_region"]

SMOOTHING, CLOSING = 48, 24  # parts of the longer side: standard deviation, radius
PERCENTILE, FRACTION = 99, 0.5


class HeartLine(NamedTuple):
    """Rows ``start .. stop - 1`` of image column ``column`` (an index along the readout)."""

    column: int
    start: int
    stop: int


def heart_region(magnitude: Float[np.ndarray, "t h w"]) -> Bool[np.ndarray, "h w"]:
    """The pixels of a cine that move, as one region without holes.

    With s(y, x) the temporal standard deviation, smoothed by a Gaussian of 1/48 of the longer
    side::

        moving = s > 0.5 P99(s)

    then gaps up to 1/12 of the longer side are closed, the connected part with the most motion
    Σ s is kept, and its holes are filled.

    Args:
        magnitude: frames of the reference, not negative.

    Returns:
        True where the heart is; nowhere in a cine without motion, one of a single frame, say.

    Raises:
        ValueError: if the cine is not ``(t, h, w)``.
    """
    magnitude = np.asarray(magnitude)
    if magnitude.ndim != 3:
        raise ValueError(f"expected a cine of shape (t, h, w), got {magnitude.shape=}")
    side = max(magnitude.shape[1:])
    spread = magnitude.std(axis=0, dtype=np.float64)
    spread = ndimage.gaussian_filter(spread, side / SMOOTHING, mode="constant")
    if not spread.max() > 1e-6 * magnitude.max():
        return np.zeros(spread.shape, bool)
    moving = spread > FRACTION * np.percentile(spread, PERCENTILE)
    parts = np.zeros(moving.shape, np.int32)
    ndimage.label(_closed(moving, round(side / CLOSING)), output=parts)
    motion = np.bincount(parts.ravel(), spread.ravel())
    motion[0] = 0  # that of the still pixels
    return np.asarray(ndimage.binary_fill_holes(parts == int(np.argmax(motion))), bool)


def heart_line(magnitude: Float[np.ndarray, "t h w"]) -> HeartLine:
    """The stretch of the phase-encoding axis that crosses the heart.

    With the centre (y0, x0) of `heart_region` and the standard deviation σ of its rows, the
    line is column round(x0), rows y0 ± max(3 σ, h / 6). A cine without motion (one frame, say)
    gives the middle column in full.

    Args:
        magnitude: frames, not negative.

    Returns:
        The line, inside the image.

    Raises:
        ValueError: if the cine is not ``(t, h, w)``.
    """
    rows, columns = np.nonzero(heart_region(magnitude))
    h, w = magnitude.shape[1:]
    if not rows.size:
        return HeartLine(w // 2, 0, h)
    half, middle = max(3 * rows.std(), h / 6), rows.mean()
    start, stop = max(math.floor(middle - half), 0), min(math.ceil(middle + half) + 1, h)
    return HeartLine(round(float(columns.mean())), start, stop)


def _closed(moving: Bool[np.ndarray, "h w"], radius: int) -> Bool[np.ndarray, "h w"]:
    """Morphological closing by a disc; what lies outside the image does not move."""
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    padded = ndimage.binary_closing(np.pad(moving, radius), x**2 + y**2 <= radius**2)
    return padded[radius : radius + moving.shape[0], radius : radius + moving.shape[1]]
