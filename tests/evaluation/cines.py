"""Small beating cines for tests of what is scored, shown and written."""

import numpy as np

METHODS = {"zero_filled": 0.2, "modl": 0.1, "kgmgt": 0.03}
"""Methods and the size of their errors."""


def beating_disc(
    t: int = 6, h: int = 48, w: int = 40, centre: tuple[int, int] = (26, 16)
) -> np.ndarray:
    """A bright disc that beats on a dim, still background that is nowhere zero."""
    y, x = np.mgrid[:h, :w]
    radius = 7 + 2 * np.sin(2 * np.pi * np.arange(t) / t + 0.5)
    distance = np.hypot(y - centre[0], x - centre[1])
    still = 0.2 + 0.1 * (x > w // 2)
    return (still + np.clip(radius[:, None, None] - distance, 0, 1)).astype(np.float32)


def reconstructions(reference: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """The reference with noise, by method, the same for a seed."""
    rng = np.random.default_rng(seed)
    return {
        name: np.abs(reference + size * rng.standard_normal(reference.shape)).astype(np.float32)
        for name, size in METHODS.items()
    }
