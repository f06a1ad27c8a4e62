"""Random irregularity: fields of position, grain of tissues, ripples of contours."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy import ndimage

__all__ = ["Field", "noise_field", "ripple", "tissue_grain"]

Field = Callable[[np.ndarray, np.ndarray], np.ndarray]


def noise_field(rng: np.random.Generator, scale: float) -> Field:
    """A random function of position with unit variance and correlation length ``scale`` (mm).

    It repeats after 128 cells of ``scale / 2`` mm, so one field serves every image size.
    """
    tile = ndimage.gaussian_filter(rng.standard_normal((128, 128)), 2.0, mode="wrap")
    tile = (tile / tile.std()).astype(np.float32)

    def sample(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        position = [np.mod(2 * y / scale, 128), np.mod(2 * x / scale, 128)]
        return ndimage.map_coordinates(tile, position, order=1, mode="grid-wrap")

    return sample


def tissue_grain(rng: np.random.Generator, strength: float, scale: float = 3.0) -> Field:
    """Fine structure of a tissue, a factor on its signal: ``1 + strength (fine + coarse)``.

    Args:
        rng: random generator.
        strength: standard deviation of each of the two noise fields.
        scale: correlation length of the fine one in mm; the coarse one's is six times that.
    """
    fine, coarse = noise_field(rng, scale), noise_field(rng, 6 * scale)
    return lambda x, y: 1 + strength * (fine(x, y) + coarse(x, y))


def ripple(rng: np.random.Generator, amplitude: float) -> Float[np.ndarray, "k 3"]:
    """Random harmonics of a contour, rows ``(order, amplitude, phase)`` for ``superellipse``.

    Their orders, the periods around the contour, are 2 to 5.

    Args:
        rng: random generator.
        amplitude: standard deviation at the first order, relative to the radius; it falls as
            ``1 / order``.
    """
    orders = np.arange(2, 6)
    sizes = rng.normal(0, 1, len(orders)) * amplitude * orders[0] / orders
    return np.stack([orders, sizes, rng.uniform(0, 2 * np.pi, len(orders))], -1).astype(np.float32)
