"""A cine of low rank in small blocks of the image."""

import math

import numpy as np

from kgmgt_jax.classical.local_low_rank import MOVES, cut_into_blocks, join_blocks
from kgmgt_jax.data.filling.encoding import Encoding, Images, Kspace, Mask
from kgmgt_jax.data.filling.shrinkage import shrink_singular_values

__all__ = ["towards_local_low_rank"]

BLOCK, N_STEPS = 8, 12
WEIGHT = 0.003


def towards_local_low_rank(
    kspace: Kspace, mask: Mask, start: Images, estimate: Images, encoding: Encoding
) -> Images:
    """An estimate after some steps of `classical.local_low_rank`.

    Args:
        kspace, mask: See `fill_gaps`.
        start: The cine filled by its average, of which the 99th percentile of the mean frame is
            the unit of the threshold.
        estimate: Where the steps begin.
        encoding: From images to ``kspace``.
    """
    scale = np.percentile(np.abs(start.mean(axis=0)), 99.0)
    threshold = np.float32(WEIGHT * (BLOCK + math.sqrt(len(kspace))) * scale)
    measured = encoding.to_image(kspace)
    image = ahead = estimate
    momentum = 1.0
    for count in range(N_STEPS):
        descended = ahead + measured - encoding.normal(ahead, mask)
        upright = np.fft.fftshift(descended, encoding.shifted)  # as blocks are meant
        following = np.fft.ifftshift(_shrink_blocks(upright, threshold, count), encoding.shifted)
        momentum_next = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        ahead = following + np.float32((momentum - 1) / momentum_next) * (following - image)
        image, momentum = following, momentum_next
    return image


def _shrink_blocks(cine: Images, threshold: np.float32, count: int) -> Images:
    """Shrinks the singular values of every block of the grid of a step."""
    _, h, w = cine.shape
    shift = [math.floor(BLOCK * (count * move % 1.0)) for move in MOVES]
    padded = np.pad(cine, ((0, 0), (0, -h % BLOCK), (0, -w % BLOCK)))
    blocks = cut_into_blocks(np.roll(padded, shift, (1, 2)), BLOCK)
    moved = join_blocks(shrink_singular_values(blocks, threshold), BLOCK)
    return np.roll(moved, [-s for s in shift], (1, 2))[:, :h, :w]
