"""A cine of low rank plus sparse in temporal frequency."""

import numpy as np
import scipy.fft

from kgmgt_jax.classical.low_rank import PENALTY
from kgmgt_jax.classical.solvers import OVER_RELAXATION
from kgmgt_jax.data.filling.encoding import Encoding, Images, Kspace, Mask, conjugate_gradients
from kgmgt_jax.data.filling.shrinkage import shrink, shrink_singular_values, singular_values

__all__ = ["low_rank_plus_sparse"]

# stopped early, which scores as well
N_DIRECTIONS, N_CG_STEPS = 25, 2
LOW_RANK_WEIGHT = SPARSE_WEIGHT = 0.02
_PENALTY = PENALTY * LOW_RANK_WEIGHT


def low_rank_plus_sparse(kspace: Kspace, mask: Mask, start: Images, encoding: Encoding) -> Images:
    """The sum of a cine of low rank and one with few temporal frequencies.

    The minimisation of `classical.low_rank`, a fixed number of steps of it.

    Args:
        kspace, mask: See `fill_gaps`.
        start: First estimate, whose largest singular value is the unit of one threshold.
        encoding: From images to ``kspace``.

    Source: L+S, Otazo et al., Magn Reson Med 73 (2015), 1125.
    """
    low_rank_threshold = (
        LOW_RANK_WEIGHT / _PENALTY * singular_values(start.reshape(len(start), -1))[0][-1]
    )
    measured = encoding.to_image(kspace)
    sparse_threshold = np.float32(SPARSE_WEIGHT / _PENALTY * np.abs(measured).max())
    half = np.float32(_PENALTY / 2)
    weight = 1 / (mask[:, None] + half)

    def closest(wanted: np.ndarray, image: np.ndarray) -> np.ndarray:
        """The image x of least ``||E x - y||^2 + half ||x - wanted||^2``.

        Exact without maps; with them some steps of conjugate gradients from ``image``.
        """
        if encoding.sens is None:
            return encoding.to_image(weight * (kspace + half * encoding.to_kspace(wanted)))

        def normal(x: np.ndarray) -> np.ndarray:
            return encoding.normal(x, mask) + half * x

        return conjugate_gradients(normal, measured + half * wanted, image, N_CG_STEPS)

    image = start
    low_rank = np.repeat(image.mean(axis=0, keepdims=True), len(image), axis=0)
    sparse = image - low_rank
    for _ in range(N_DIRECTIONS):
        frames = low_rank.reshape(len(low_rank), -1)
        settled = shrink_singular_values(frames, low_rank_threshold).reshape(low_rank.shape)
        spectrum = shrink(np.asarray(scipy.fft.fft(sparse, axis=0, norm="ortho")), sparse_threshold)
        moving = np.asarray(scipy.fft.ifft(spectrum, axis=0, norm="ortho", overwrite_x=True))
        wanted = 2 * (settled + moving) - low_rank - sparse
        image = closest(wanted, image)
        share = (image - wanted) / 2
        low_rank += OVER_RELAXATION * (settled - low_rank + share)
        sparse += OVER_RELAXATION * (moving - sparse + share)
    return image
