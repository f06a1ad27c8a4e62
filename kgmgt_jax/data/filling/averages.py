"""Samples of other frames in the place of those that a frame did not measure."""

import numpy as np
from jaxtyping import Float32, Int16

from kgmgt_jax.data.filling.encoding import Kspace, Mask

__all__ = ["average", "frame_distances", "nearest_in_time"]


def average(kspace: Kspace, mask: Mask) -> Kspace:
    """The mean of all frames that measured a sample, 0 where none did. Arguments as `fill_gaps`."""
    count = np.maximum(mask.sum(axis=0), 1)
    mean = kspace.sum(axis=0) / count[None]
    return np.where(mask[:, None] > 0, kspace, mean[None])


def nearest_in_time(kspace: Kspace, mask: Mask, circular: bool) -> Kspace:
    """The sample of the frame nearest in time that measured it, or the mean of two equally near.

    Arguments as `fill_gaps`.
    """
    before, after = (frames[:, None] for frames in _nearest(mask, circular))
    one = np.take_along_axis(kspace, np.broadcast_to(before, kspace.shape), axis=0)
    other = np.take_along_axis(kspace, np.broadcast_to(after, kspace.shape), axis=0)
    return np.where(mask[:, None] > 0, kspace, (one + other) / 2)


def _nearest(mask: Float32[np.ndarray, "t h w"], circular: bool) -> tuple[np.ndarray, np.ndarray]:
    """The first and the last frame of those nearest in time that measured each sample.

    They are the same frame unless two are equally near.
    """
    n_frames = len(mask)
    never = np.where(mask > 0, 0, n_frames).astype(np.int16)
    far = frame_distances(n_frames, circular)[:, :, None, None] + never[None]  # t s h w
    last = n_frames - 1 - np.argmin(far[:, ::-1], axis=1)
    return np.argmin(far, axis=1), last


def frame_distances(n_frames: int, circular: bool) -> Int16[np.ndarray, "t t"]:
    """How far frames are from each other, the shorter way round a circle."""
    frame = np.arange(n_frames, dtype=np.int16)
    distance = np.abs(frame[:, None] - frame[None, :])
    return np.minimum(distance, n_frames - distance) if circular else distance
