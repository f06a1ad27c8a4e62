"""k-t FOCUSS: sparsity of temporal frequencies by repeated reweighting."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from kgmgt_jax.classical.measurement import (
    check_counts,
    check_weights,
    scale_data,
    temporal_mean,
)
from kgmgt_jax.classical.solvers import conjugate_gradients, iterate
from kgmgt_jax.mri.cine import check_cine
from kgmgt_jax.mri.consistency import adjoint, forward, normal
from kgmgt_jax.types import Scalar

__all__ = ["kt_focuss"]


def kt_focuss(
    kspace: Complex[Array, "t n h w"],
    mask: Float[Array, "t h w"],
    sens: Complex[Array, "*t n h w"] | None = None,
    *,
    weight: Scalar = 1e-3,
    power: Scalar = 0.5,
    tolerance: Scalar = 5e-3,
    max_iterations: int = 4,
    cg_tolerance: Scalar = 1e-2,
    max_cg_iterations: int = 15,
) -> Complex[Array, "t h w"]:
    """k-t FOCUSS with the temporal average as baseline and the Fourier transform in time.

    With the baseline b, the transform T along the frames, and what is sought, ``ρ = T (x - b)``::

        ρ = W q,   q = argmin_q  ||y - E (b + T^H W q)||^2 + λ ||q||^2
        W = |ρ|^p / max |ρ|^p   from the ρ before;   at first ρ = T E^H (y - E b)

    repeated until x settles. Our ``weight`` is λ and ``power`` p; both have no unit.

    Args:
        kspace: measured k-space y; samples outside the mask are ignored.
        mask: 1 where measured.
        sens: sensitivity maps of unit sum of squares, of all frames or of each, or ``None`` for
            one unit coil.
        weight: λ >= 0.
        power: p >= 0; 1/2 favours the smallest l1 norm.
        tolerance: relative change of the image at which to stop.
        max_iterations: at most this many weightings.
        cg_tolerance: part of its first residual at which the solution for q may stop.
        max_cg_iterations: at most this many conjugate gradient iterations for q.

    Raises:
        ValueError: if shapes are not those of one cine, or a weight, power or tolerance is
            negative, or a number of iterations is below 1.

    Source: Jung et al., Magn Reson Med 61:103 (2009).
    """
    check_cine(kspace, mask, sens)
    check_weights(weight=weight, power=power, tolerance=tolerance, cg_tolerance=cg_tolerance)
    check_counts(max_iterations=max_iterations, max_cg_iterations=max_cg_iterations)
    inner = (cg_tolerance, max_cg_iterations)
    return _kt_focuss(kspace, mask, sens, weight, power, tolerance, max_iterations, inner)


@jax.jit
def _kt_focuss(
    kspace: Array,
    mask: Array,
    sens: Array | None,
    weight: Scalar,
    power: Scalar,
    tolerance: Scalar,
    max_iterations: int,
    inner: tuple[Scalar, int],
) -> Array:
    data = scale_data(kspace, mask, sens)
    mean = jnp.broadcast_to(temporal_mean(data.kspace, data.mask), data.kspace.shape)
    baseline = adjoint(mean, jnp.ones_like(data.mask), data.sens)
    unexplained = data.kspace - forward(baseline, data.mask, data.sens)
    spectrum = _transform(adjoint(unexplained, data.mask, data.sens))

    def reweight(state: tuple[Array, Array]) -> tuple[Array, Array]:
        size = jnp.abs(state[1])
        peak = jnp.max(size)
        weights = (size / jnp.where(peak > 0, peak, 1.0)) ** power

        def operator(q: Array) -> Array:
            product = normal(_inverse(weights * q), data.mask, data.sens)
            return weights * _transform(product) + weight * q

        q = conjugate_gradients(
            operator, weights * spectrum, tolerance=inner[0], max_iterations=inner[1]
        )
        solution = weights * q
        return baseline + _inverse(solution), solution

    (image, _), _ = iterate(
        reweight, (baseline, spectrum), tolerance=tolerance, max_iterations=max_iterations
    )
    return data.scale * image


def _transform(cine: Array) -> Array:
    """The orthonormal Fourier transform over the frames."""
    return jnp.fft.fft(cine, axis=0, norm="ortho")


def _inverse(spectrum: Array) -> Array:
    return jnp.fft.ifft(spectrum, axis=0, norm="ortho")
