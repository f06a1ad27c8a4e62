"""Random images and maps."""

import numpy as np


def random_complex(*shape: int, seed: int = 0) -> np.ndarray:
    """Normally distributed, in single precision."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def random_maps(n: int, h: int, w: int) -> np.ndarray:
    """Of ``n`` coils, their squares adding up to 1."""
    sens = random_complex(n, h, w, seed=1)
    return sens / np.sqrt(np.sum(np.abs(sens) ** 2, axis=0, keepdims=True))
