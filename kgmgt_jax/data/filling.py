"""Filling the gaps of undersampled k-space from other frames, before the network sees it.

A frame's unmeasured samples are zero, or taken from where the cine measured them at another time:

==============  ==================================================================
``input_fill``  an unmeasured sample is
==============  ==================================================================
``zero``        0
``neighbours``  that of the frame nearest in time that measured it; the mean of two
                that are equally near
``average``     the mean of all frames that measured it
==============  ==================================================================

Where no frame measured, it stays 0. The heart moves between frames, so filled samples are a guess:
they are the network's input, never what data consistency holds the result to.
"""

import numpy as np
from jaxtyping import Complex64, Float32

__all__ = ["INPUT_FILLS", "check_fill", "fill_gaps"]

INPUT_FILLS = ("zero", "neighbours", "average")


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
) -> Complex64[np.ndarray, "t n h w"]:
    """Fills what a frame did not measure from the other frames of the cine.

    Args:
        kspace: Measured k-space, zero where the mask is; centred or not.
        mask: 1 where measured; an axis of length 1 stands for samples that are measured together.
        input_fill: See the table above.
        circular: Whether the last frame precedes the first.

    Raises:
        ValueError: If ``input_fill`` is unknown.
    """
    check_fill(input_fill)
    if input_fill == "zero":
        return kspace
    gaps = mask[:, None] == 0
    if input_fill == "average":
        count = np.maximum(mask.sum(axis=0), 1)
        return np.where(gaps, (kspace.sum(axis=0) / count[None])[None], kspace)
    before, after = (frames[:, None] for frames in _nearest(mask, circular))
    one = np.take_along_axis(kspace, np.broadcast_to(before, kspace.shape), axis=0)
    other = np.take_along_axis(kspace, np.broadcast_to(after, kspace.shape), axis=0)
    return np.where(gaps, (one + other) / 2, kspace)


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
