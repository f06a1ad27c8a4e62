"""Soft thresholding, as in ``kgmgt_jax.classical.proximal``, on the host."""

import numpy as np
from jaxtyping import Complex64

from kgmgt_jax.data.filling.encoding import Images

__all__ = ["shrink", "shrink_singular_values", "singular_values"]


def shrink(
    values: Complex64[np.ndarray, "*d"], threshold: np.float32
) -> Complex64[np.ndarray, "*d"]:
    """Magnitudes less a threshold, 0 at least, phases kept."""
    return values * _share_left(np.abs(values), threshold)


def _share_left(sizes: np.ndarray, threshold: float | np.float32) -> np.ndarray:
    """What part of each size is left above a threshold; all of it where that is 0."""
    return 1 - threshold / np.maximum(sizes, threshold or 1.0)


def singular_values(image: Images) -> tuple[np.ndarray, np.ndarray]:
    """Of the frames-by-pixels matrix: singular values, ascending, and left singular vectors."""
    matrix = image.reshape(len(image), -1)
    values, vectors = np.linalg.eigh((matrix @ matrix.conj().T).astype(np.complex128))
    return np.sqrt(np.maximum(values, 0)), vectors


def shrink_singular_values(image: Images, threshold: float) -> Images:
    """The frames-by-pixels matrix with its singular values less a threshold, 0 at least."""
    values, vectors = singular_values(image)
    kept = vectors * _share_left(values, threshold)
    projector = (kept @ vectors.conj().T).astype(np.complex64)
    return np.tensordot(projector, image, axes=1)
