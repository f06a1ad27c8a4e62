"""Between images and the k-space of coils, and least squares where that is no exact business."""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import scipy.fft
from jaxtyping import Complex64, Float32
from scipy.sparse.linalg import LinearOperator, cg

__all__ = ["Encoding", "Images", "Kspace", "Mask", "conjugate_gradients"]

Kspace = Complex64[np.ndarray, "t n h w"]
Images = Complex64[np.ndarray, "t h w"]
Mask = Float32[np.ndarray, "t #h #w"]


@dataclass(frozen=True, eq=False)
class Encoding:
    """F S and its adjoint, on the host.

    Attributes:
        axes: Which axes of the k-space are k-space, the others being image space already.
        sens: Sensitivities S in the places of the plain inverse DFT; ``None`` for a single coil.
        shifted: Axes along which images begin with their centre, as those of centred k-space do.
    """

    axes: Sequence[int]
    sens: Complex64[np.ndarray, "*t n h w"] | None = None
    shifted: Sequence[int] = ()

    def to_kspace(self, image: Images) -> Kspace:
        """All samples of all coils."""
        coil_images = image[:, None] if self.sens is None else self.sens * image[:, None]
        return np.asarray(scipy.fft.fftn(coil_images, axes=self.axes, norm="ortho"))

    def to_image(self, kspace: Kspace) -> Images:
        """The coil-combined image."""
        coil_images = np.asarray(scipy.fft.ifftn(kspace, axes=self.axes, norm="ortho"))
        if self.sens is None:
            return coil_images[:, 0]
        return (np.conj(self.sens) * coil_images).sum(axis=-3)

    def normal(
        self, image: Complex64[np.ndarray, "t h w"], mask: Float32[np.ndarray, "t #h #w"]
    ) -> Complex64[np.ndarray, "t h w"]:
        """``S^H F^H M F S x``: to the samples that were measured, and back.

        One coil of one frame after the other, which fit a processor's cache, where those of a whole
        cine do not; frames on as many threads as ``scipy.fft.set_workers`` allows.
        """
        one_coil = np.ones((1, 1, 1), np.complex64)
        sens = one_coil if self.sens is None else self.sens
        sens = np.broadcast_to(sens, (len(image), *sens.shape[-3:]))
        n_threads = scipy.fft.get_workers()
        each = map if n_threads == 1 else _threads(n_threads).map
        return np.stack(list(each(self._normal_of_frame, image, mask, sens)))

    def _normal_of_frame(
        self,
        image: Complex64[np.ndarray, "h w"],
        mask: Float32[np.ndarray, "#h #w"],
        sens: Complex64[np.ndarray, "n #h #w"],
    ) -> Complex64[np.ndarray, "h w"]:
        options = {"axes": self.axes, "norm": "ortho", "overwrite_x": True}
        conjugate, buffer = np.zeros_like(image), np.empty_like(image)
        for coil in sens:
            seen = np.asarray(scipy.fft.fftn(np.multiply(coil, image, out=buffer), **options))
            seen *= mask
            back = np.asarray(scipy.fft.ifftn(seen, **options))
            conjugate += np.multiply(coil, np.conj(back, out=back), out=back)
        return np.conj(conjugate)


@functools.cache
def _threads(n: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n)


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
