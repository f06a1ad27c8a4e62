"""Filling the gaps of undersampled k-space from other frames, before the network sees it.

A frame's unmeasured samples are zero, or taken from where the cine measured them at another time:

==============  ==================================================================
``input_fill``  an unmeasured sample is
==============  ==================================================================
``zero``        0
``neighbours``  that of the frame nearest in time that measured it; the mean of two
                that are equally near
``average``     the mean of all frames that measured it
``sparse``      that of a cine with few temporal frequencies; see `sparse_in_time`
==============  ==================================================================

Where no frame measured, it stays 0. The heart moves between frames, so filled samples are a guess:
they are the network's input, never what data consistency holds the result to.
"""

from collections.abc import Sequence

import numpy as np
import scipy.fft
from jaxtyping import Complex64, Float32

__all__ = ["INPUT_FILLS", "check_fill", "fill_gaps", "sparse_in_time"]

INPUT_FILLS = ("zero", "neighbours", "average", "sparse")
_N_ITERATIONS = 10
_FIRST_THRESHOLD, _LAST_THRESHOLD = 0.2, 0.005  # of the 99th percentile of the mean image


def check_fill(input_fill: str) -> None:
    """Raises ``ValueError`` unless there is a way of filling by that name."""
    if input_fill not in INPUT_FILLS:
        raise ValueError(f"input_fill must be one of {', '.join(INPUT_FILLS)}, got {input_fill!r}")


def fill_gaps(
    kspace: Complex64[np.ndarray, "t n h w"],
    mask: Float32[np.ndarray, "t #h #w"],
    input_fill: str,
    *,
    circular: bool = True,
    axes: Sequence[int] = (-2, -1),
) -> Complex64[np.ndarray, "t n h w"]:
    """Fills what a frame did not measure from the other frames of the cine.

    Args:
        kspace: Measured k-space, zero where the mask is; centred or not.
        mask: 1 where measured; an axis of length 1 stands for samples that are measured together.
        input_fill: See the table above.
        circular: Whether the last frame precedes the first.
        axes: Which axes of ``kspace`` are k-space, the others being image space already.

    Raises:
        ValueError: If ``input_fill`` is unknown.
    """
    check_fill(input_fill)
    if input_fill == "zero":
        return kspace
    if input_fill == "sparse":
        return sparse_in_time(kspace, mask, axes)
    gaps = mask[:, None] == 0
    if input_fill == "average":
        count = np.maximum(mask.sum(axis=0), 1)
        return np.where(gaps, (kspace.sum(axis=0) / count[None])[None], kspace)
    before, after = (frames[:, None] for frames in _nearest(mask, circular))
    one = np.take_along_axis(kspace, np.broadcast_to(before, kspace.shape), axis=0)
    other = np.take_along_axis(kspace, np.broadcast_to(after, kspace.shape), axis=0)
    return np.where(gaps, (one + other) / 2, kspace)


def sparse_in_time(
    kspace: Complex64[np.ndarray, "t n h w"],
    mask: Float32[np.ndarray, "t #h #w"],
    axes: Sequence[int] = (-2, -1),
) -> Complex64[np.ndarray, "t n h w"]:
    """Fills gaps so that few temporal frequencies make up each pixel's course.

    From the mean of the frames that measured a sample, accelerated iterations of::

        x <- F_t^H soft(F_t x),    then the measured samples of F x put back

    with the DFTs F over space and F_t over time. The threshold of ``soft`` falls geometrically and
    spares the temporal mean. Each coil is filled by itself. If all frames measured the same
    samples, time says nothing of the others and they stay 0.

    Args:
        kspace, mask, axes: See `fill_gaps`.

    Source: iterative soft thresholding with momentum, Beck and Teboulle, SIAM J. Imaging Sci. 2
    (2009); sparsity in x-f space, Lustig et al., Proc. ISMRM 14 (2006), 2420.
    """
    if (mask == mask[:1]).all():
        return kspace
    measured = mask[:, None] > 0
    filled = fill_gaps(kspace, mask, "average")
    old = image = np.asarray(scipy.fft.ifftn(filled, axes=axes, norm="ortho"))
    scale = np.percentile(np.abs(image.mean(axis=0)), 99.0)
    thresholds = scale * np.geomspace(_FIRST_THRESHOLD, _LAST_THRESHOLD, _N_ITERATIONS)
    momentum = 1.0
    for threshold in thresholds.astype(np.float32):
        spectrum = np.asarray(scipy.fft.fft(image, axis=0, norm="ortho"))
        size = np.abs(spectrum[1:])
        spectrum[1:] *= np.maximum(1 - threshold / np.maximum(size, threshold), 0)
        image = np.asarray(scipy.fft.ifft(spectrum, axis=0, norm="ortho", overwrite_x=True))
        filled = np.asarray(scipy.fft.fftn(image, axes=axes, norm="ortho", overwrite_x=True))
        np.copyto(filled, kspace, where=measured)
        new = np.asarray(scipy.fft.ifftn(filled, axes=axes, norm="ortho"))
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        image = new + np.float32((momentum - 1) / following) * (new - old)
        old, momentum = new, following
    return filled


def _nearest(mask: Float32[np.ndarray, "t h w"], circular: bool) -> tuple[np.ndarray, np.ndarray]:
    """The first and the last frame of those nearest in time that measured each sample.

    They are the same frame unless two are equally near.
    """
    n_frames = len(mask)
    distance = np.abs(np.arange(n_frames)[:, None] - np.arange(n_frames)[None, :])
    if circular:
        distance = np.minimum(distance, n_frames - distance)
    never = np.where(mask > 0, 0, n_frames).astype(np.int16)
    far = distance.astype(np.int16)[:, :, None, None] + never[None]  # t s h w
    last = n_frames - 1 - np.argmin(far[:, ::-1], axis=1)
    return np.argmin(far, axis=1), last
