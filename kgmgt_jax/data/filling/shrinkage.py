"""Soft thresholding, as in ``kgmgt_jax.classical.proximal``, on the host."""

import numpy as np
from jaxtyping import Complex64, Complex128, Float64

__all__ = ["shrink", "shrink_singular_values", "singular_values"]


def shrink(
    values: Complex64[np.ndarray, "*d"], threshold: np.float32
) -> Complex64[np.ndarray, "*d"]:
    """Magnitudes less a threshold, 0 at least, phases kept."""
    return values * _share_left(np.abs(values), threshold)


def _share_left(sizes: np.ndarray, threshold: float | np.float32) -> np.ndarray:
    """What part of each size is left above a threshold; all of it where that is 0."""
    return 1 - threshold / np.maximum(sizes, threshold or 1.0)


def singular_values(
    matrices: Complex64[np.ndarray, "*b t p"],
) -> tuple[Float64[np.ndarray, "*b t"], Complex128[np.ndarray, "*b t t"]]:
    """Singular values, ascending, and left singular vectors of matrices, such as t frames."""
    products = (matrices @ _adjoint(matrices)).astype(np.complex128)
    values, vectors = np.linalg.eigh(products)
    return np.sqrt(np.maximum(values, 0)), vectors


def shrink_singular_values(
    matrices: Complex64[np.ndarray, "*b t p"], threshold: float | np.float32
) -> Complex64[np.ndarray, "*b t p"]:
    """The matrices with their singular values less a threshold, 0 at least."""
    values, vectors = singular_values(matrices)
    kept = vectors * _share_left(values, threshold)[..., None, :]
    projector = (kept @ _adjoint(vectors)).astype(np.complex64)
    return projector @ matrices


def _adjoint(matrices: np.ndarray) -> np.ndarray:
    return np.conj(np.swapaxes(matrices, -1, -2))
