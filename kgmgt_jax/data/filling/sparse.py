"""Filling by sparsity in temporal frequency."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import scipy.fft

from kgmgt_jax.data.filling.averages import average
from kgmgt_jax.data.filling.encoding import Kspace, Mask
from kgmgt_jax.data.filling.shrinkage import shrink

__all__ = ["SHARES", "momenta", "sparse_in_time"]

SHARES = np.geomspace(0.2, 0.005, 10)  # thresholds, of the 99th percentile of the mean image


def sparse_in_time(kspace: Kspace, mask: Mask, axes: Sequence[int] = (-2, -1)) -> Kspace:
    """Fills gaps so that few temporal frequencies make up each pixel's course.

    From the mean of the frames that measured a sample, accelerated iterations of::

        x <- F_t^H soft(F_t x),    then the measured samples of F x put back

    with the DFTs F over space and F_t over time. The threshold of ``soft`` falls geometrically and
    spares the temporal mean. Each coil is filled by itself, but for the thresholds, which all coils
    share: a weak coil, or a further one, is filled otherwise beside others than alone.

    Args:
        kspace, mask, axes: See `fill_gaps`.

    Source: iterative soft thresholding with momentum, Beck and Teboulle, SIAM J. Imaging Sci. 2
    (2009); sparsity in x-f space, Lustig et al., Proc. ISMRM 14 (2006), 2420.
    """
    measured = mask[:, None] > 0
    filled = average(kspace, mask)
    old = image = np.asarray(scipy.fft.ifftn(filled, axes=axes, norm="ortho"))
    scale = np.percentile(np.abs(image.mean(axis=0)), 99.0)
    thresholds = (scale * SHARES).astype(np.float32)
    for threshold, momentum in zip(thresholds, momenta(), strict=True):
        spectrum = np.asarray(scipy.fft.fft(image, axis=0, norm="ortho"))
        spectrum[1:] = shrink(spectrum[1:], threshold)
        image = np.asarray(scipy.fft.ifft(spectrum, axis=0, norm="ortho", overwrite_x=True))
        filled = np.asarray(scipy.fft.fftn(image, axes=axes, norm="ortho", overwrite_x=True))
        np.copyto(filled, kspace, where=measured)
        new = np.asarray(scipy.fft.ifftn(filled, axes=axes, norm="ortho"))
        image, old = new + np.float32(momentum) * (new - old), new
    return filled


def momenta() -> list[float]:
    """How much further than to its result each iteration goes, in parts of its step."""
    times = [1.0]
    for _ in SHARES:
        times.append((1 + math.sqrt(1 + 4 * times[-1] ** 2)) / 2)
    return [(before - 1) / after for before, after in itertools.pairwise(times)]
