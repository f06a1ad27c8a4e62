"""SENSE: what several coils tell of each frame by itself."""

import jax
from jaxtyping import Array, Complex, Float

from kgmgt_jax.classical.measurement import check_counts, check_weights, with_frames
from kgmgt_jax.classical.solvers import conjugate_gradients
from kgmgt_jax.mri.cine import check_cine
from kgmgt_jax.mri.consistency import adjoint, normal
from kgmgt_jax.types import Scalar

__all__ = ["cg_sense"]


def cg_sense(
    kspace: Complex[Array, "t n h w"],
    mask: Float[Array, "t h w"],
    sens: Complex[Array, "*t n h w"] | None = None,
    *,
    weight: Scalar = 0.01,
    tolerance: Scalar = 1e-4,
    max_iterations: int = 30,
) -> Complex[Array, "t h w"]:
    """The image of least squares and little energy, by conjugate gradients.

    ::

        min_x  1/2 ||E x - y||^2 + λ/2 ||x||^2

    Frames know nothing of each other. For one coil the solution is the zero-filled image over
    ``1 + λ``.

    Args:
        kspace: measured k-space y; samples outside the mask are ignored.
        mask: 1 where measured.
        sens: sensitivity maps of unit sum of squares, of all frames or of each, or ``None`` for
            one unit coil.
        weight: λ >= 0, which has no unit.
        tolerance: stops when the residual of the normal equations of all frames has fallen to this
            part of ``E^H y``.
        max_iterations: at most this many iterations; fewer leave less noise.

    Raises:
        ValueError: if shapes are not those of one cine, a weight or tolerance is negative, or the
            number of iterations is below 1.

    Source: Pruessmann et al., Magn Reson Med 46:638 (2001); the problem of ``bart pics -l2``.
    """
    check_cine(kspace, mask, sens)
    check_weights(weight=weight, tolerance=tolerance)
    check_counts(max_iterations=max_iterations)
    return _cg_sense(kspace, mask, sens, weight, tolerance, max_iterations)


@jax.jit
def _cg_sense(
    kspace: Array,
    mask: Array,
    sens: Array | None,
    weight: Scalar,
    tolerance: Scalar,
    max_iterations: int,
) -> Array:
    mask, maps = mask.astype(kspace.real.dtype), with_frames(sens)
    return conjugate_gradients(
        lambda image: normal(image, mask, maps) + weight * image,
        adjoint(kspace, mask, maps),
        tolerance=tolerance,
        max_iterations=max_iterations,
    )
