"""Total variation in time, and in space."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from kgmgt_jax.classical.differences import (
    chain_solver,
    spatial_adjoint,
    spatial_differences,
    spatial_symbol,
    temporal_adjoint,
    temporal_differences,
)
from kgmgt_jax.classical.measurement import (
    ScaledData,
    average_filled,
    check_counts,
    check_weights,
    scale_data,
)
from kgmgt_jax.classical.proximal import soft_threshold
from kgmgt_jax.classical.solvers import (
    CG,
    MIN_WEIGHT,
    alternating_directions,
    quadratic_solver,
    zero_filled_image,
)
from kgmgt_jax.mri.cine import check_cine
from kgmgt_jax.types import Scalar

__all__ = ["minimise_temporal_variation", "spatial_tv", "temporal_tv"]

# Penalties ρ per unit of weight: differences below 1/60 (in time) or 1/15 (in space) of a bright
# pixel are set to zero in an iteration. They change the speed of convergence, not the result.
TEMPORAL_PENALTY, SPATIAL_PENALTY = 60.0, 15.0
# A proximal term of this part of ρ fixes what neither the data nor the differences do.
TEMPORAL_ANCHOR, SPATIAL_ANCHOR = 1e-2, 1e-3


def temporal_tv(
    kspace: Complex[Array, "t n h w"],
    mask: Float[Array, "t h w"],
    sens: Complex[Array, "*t n h w"] | None = None,
    *,
    weight: Scalar = 0.01,
    circular: bool = True,
    tolerance: Scalar = 1e-3,
    max_iterations: int = 100,
) -> Complex[Array, "t h w"]:
    """Total variation in time: pixels change in few, sharp steps.

    ::

        min_x  1/2 ||E x - y||^2 + λ s sum |x_{t+1} - x_t|

    Our ``weight`` is λ and s is the `data_scale`, so that λ
    does not depend on the data's units. Solved by alternating directions with a direct solver of
    the chains of frames in k-space (one unit coil) or conjugate gradients (several coils).

    Args:
        kspace: measured k-space y; samples outside the mask are ignored.
        mask: 1 where measured.
        sens: sensitivity maps of unit sum of squares, of all frames or of each, or ``None`` for
            one unit coil.
        weight: λ >= 0.
        circular: whether the last frame is followed by the first, as in a gated cine.
        tolerance: relative change of the image at which to stop.
        max_iterations: at most this many iterations.

    Raises:
        ValueError: if shapes are not those of one cine, a weight or tolerance is negative, or
            a number of iterations is below 1.

    Source: the problem of ``bart pics -S -R T:1024:0:λ``; Block et al., Magn Reson Med 57:1086
    (2007), for total variation; Goldstein and Osher, SIAM J Imaging Sci 2:323 (2009), for the
    splitting.
    """
    check_cine(kspace, mask, sens)
    check_weights(weight=weight, tolerance=tolerance)
    check_counts(max_iterations=max_iterations)
    return _temporal_tv(kspace, mask, sens, weight, tolerance, max_iterations, circular)


def spatial_tv(
    kspace: Complex[Array, "t n h w"],
    mask: Float[Array, "t h w"],
    sens: Complex[Array, "*t n h w"] | None = None,
    *,
    weight: Scalar = 0.03,
    tolerance: Scalar = 1e-3,
    max_iterations: int = 100,
) -> Complex[Array, "t h w"]:
    """Isotropic total variation in space: each frame is flat but for few edges.

    ::

        min_x  1/2 ||E x - y||^2 + λ s sum sqrt(|D_y x|^2 + |D_x x|^2)

    Symbols, solver, arguments and errors as `temporal_tv`, with ``weight`` λ; differences are
    periodic at the borders, and diagonal in k-space.

    Source: the problem of ``bart pics -S -R T:3:0:λ``; Lustig et al., Magn Reson Med 58:1182
    (2007).
    """
    check_cine(kspace, mask, sens)
    check_weights(weight=weight, tolerance=tolerance)
    check_counts(max_iterations=max_iterations)
    return _spatial_tv(kspace, mask, sens, weight, tolerance, max_iterations)


@partial(jax.jit, static_argnames="circular")
def _temporal_tv(
    kspace: Array,
    mask: Array,
    sens: Array | None,
    weight: Scalar,
    tolerance: Scalar,
    max_iterations: int,
    circular: bool,
) -> Array:
    data = scale_data(kspace, mask, sens)
    return data.scale * minimise_temporal_variation(
        data, weight, circular=circular, tolerance=tolerance, max_iterations=max_iterations
    )


def minimise_temporal_variation(
    data: ScaledData,
    weight: Scalar,
    *,
    circular: bool,
    tolerance: Scalar,
    max_iterations: Scalar,
    cg: tuple[Scalar, Scalar] = CG,
) -> Complex[Array, "t h w"]:
    """What `temporal_tv` does with a measurement that is divided by its scale.

    Args:
        data: the measurement.
        weight: λ.
        circular: see there.
        tolerance: see there.
        max_iterations: see there.
        cg: see `quadratic_solver`.
    """
    penalty = TEMPORAL_PENALTY * jnp.maximum(weight, MIN_WEIGHT)
    anchor = TEMPORAL_ANCHOR * penalty
    measured = zero_filled_image(data)

    def curvature(image: Array) -> Array:
        differences = temporal_differences(image, circular)
        return penalty * temporal_adjoint(differences, circular) + anchor * image

    chains = chain_solver(data.mask + anchor, penalty, circular)
    solve = quadratic_solver(data, curvature, chains, cg)

    def update(target: Array, image: Array) -> tuple[Array, Array]:
        rhs = measured + penalty * temporal_adjoint(target, circular) + anchor * image
        image = solve(rhs, image)
        return image, temporal_differences(image, circular)

    start = average_filled(data.kspace, data.mask, data.sens)
    return alternating_directions(
        update,
        lambda v: soft_threshold(v, weight / penalty),
        (start, temporal_differences(start, circular)),
        tolerance=tolerance,
        max_iterations=max_iterations,
    )


@jax.jit
def _spatial_tv(
    kspace: Array,
    mask: Array,
    sens: Array | None,
    weight: Scalar,
    tolerance: Scalar,
    max_iterations: int,
) -> Array:
    data = scale_data(kspace, mask, sens)
    penalty = SPATIAL_PENALTY * jnp.maximum(weight, MIN_WEIGHT)
    anchor = SPATIAL_ANCHOR * penalty
    measured = zero_filled_image(data)
    diagonal = data.mask + penalty * spatial_symbol(*mask.shape[1:])[None] + anchor
    solve = quadratic_solver(
        data,
        lambda image: penalty * spatial_adjoint(spatial_differences(image)) + anchor * image,
        lambda rhs: rhs / diagonal,
    )

    def update(target: Array, image: Array) -> tuple[Array, Array]:
        image = solve(measured + penalty * spatial_adjoint(target) + anchor * image, image)
        return image, spatial_differences(image)

    image = alternating_directions(
        update,
        lambda v: soft_threshold(v, weight / penalty, axis=0),
        (measured, spatial_differences(measured)),
        tolerance=tolerance,
        max_iterations=max_iterations,
    )
    return data.scale * image
