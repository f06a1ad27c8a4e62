"""Between images and the k-space of coils, and least squares where that is no exact business."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
from jaxtyping import Complex64
from scipy.sparse.linalg import LinearOperator, cg

__all__ = ["Encoding", "conjugate_gradients"]


@dataclass(frozen=True, eq=False)
class Encoding:
    """F S and its adjoint, on the host.

    Attributes:
        axes: Which axes of the k-space are k-space, the others being image space already.
        sens: Sensitivities S in the places of the plain inverse DFT; ``None`` for a single coil.
    """

    axes: Sequence[int]
    sens: Complex64[np.ndarray, "*t n h w"] | None = None

    def to_kspace(self, image: Complex64[np.ndarray, "t h w"]) -> Complex64[np.ndarray, "t n h w"]:
        """All samples of all coils."""
        coil_images = image[:, None] if self.sens is None else self.sens * image[:, None]
        return np.asarray(scipy.fft.fftn(coil_images, axes=self.axes, norm="ortho"))

    def to_image(self, kspace: Complex64[np.ndarray, "t n h w"]) -> Complex64[np.ndarray, "t h w"]:
        """The coil-combined image."""
        coil_images = np.asarray(scipy.fft.ifftn(kspace, axes=self.axes, norm="ortho"))
        if self.sens is None:
            return coil_images[:, 0]
        return (np.conj(self.sens) * coil_images).sum(axis=-3)


def conjugate_gradients(
    operator: Callable[[np.ndarray], np.ndarray],
    rhs: Complex64[np.ndarray, "*d"],
    start: Complex64[np.ndarray, "*d"],
    n_steps: int,
) -> Complex64[np.ndarray, "*d"]:
    """So many steps from ``start`` towards the solution of ``A x = b``.

    Args:
        operator: A, Hermitian and positive definite.
        rhs: b.
        start: First x.
        n_steps: How many.
    """

    def product(flat: np.ndarray) -> np.ndarray:
        return operator(flat.reshape(rhs.shape)).ravel()

    shape = (rhs.size, rhs.size)
    matrix = LinearOperator(shape, product, dtype=rhs.dtype)  # pyright: ignore[reportCallIssue]
    found, _ = cg(matrix, rhs.ravel(), start.ravel(), maxiter=n_steps)
    return found.reshape(rhs.shape)
