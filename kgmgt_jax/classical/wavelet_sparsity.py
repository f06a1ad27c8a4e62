"""Sparsity in an orthonormal wavelet basis, seen from several shifted grids."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from kgmgt_jax.classical.measurement import (
    check_counts,
    check_weights,
    scale_data,
)
from kgmgt_jax.classical.proximal import soft_threshold
from kgmgt_jax.classical.solvers import (
    MIN_WEIGHT,
    alternating_directions,
    quadratic_solver,
    zero_filled_image,
)
from kgmgt_jax.classical.wavelet_transform import Coefficients, decompose, recompose
from kgmgt_jax.mri.cine import check_cine
from kgmgt_jax.types import Scalar

__all__ = ["shifts", "wavelet"]

PENALTY = 5.0  # ρ per unit of weight: coefficients below 1/5 of a bright pixel become zero


def wavelet(
    kspace: Complex[Array, "t n h w"],
    mask: Float[Array, "t h w"],
    sens: Complex[Array, "*t n h w"] | None = None,
    *,
    weight: Scalar = 0.01,
    n_levels: int = 4,
    n_shifts: int = 4,
    tolerance: Scalar = 2e-3,
    max_iterations: int = 100,
) -> Complex[Array, "t h w"]:
    """Frames that are sparse in Daubechies' wavelets, averaged over shifts of their grid.

    ::

        min_x  1/2 ||E x - y||^2 + λ s / P sum_p ||W S_p x||_1

    W is the orthonormal transform of `wavelet_transform` and ``S_p`` one
    of P cyclic shifts, which suppress the blocks of a single grid. Our ``weight`` is λ, and s is
    the `data_scale`. Since the ``W S_p`` together are a
    tight frame, a step of alternating directions is solved directly in k-space (one unit coil) or
    by conjugate gradients (several).

    Args:
        kspace: measured k-space y; samples outside the mask are ignored.
        mask: 1 where measured.
        sens: sensitivity maps of unit sum of squares, of all frames or of each, or ``None`` for
            one unit coil.
        weight: λ >= 0.
        n_levels: levels of the transform, at least 1; fewer for images below 4 * 2^n pixels.
        n_shifts: P, at least 1.
        tolerance: relative change of the image at which to stop.
        max_iterations: at most this many iterations.

    Raises:
        ValueError: if shapes are not those of one cine, a weight or tolerance is negative, or
            another number is below 1.

    Source: the problem of ``bart pics -S -R W:3:0:λ``, which draws one shift an iteration; Lustig
    et al., Magn Reson Med 58:1182 (2007); Kamilov et al., IEEE Signal Process Lett 19:187 (2012),
    for consistency between shifts.
    """
    check_cine(kspace, mask, sens)
    check_weights(weight=weight, tolerance=tolerance)
    check_counts(max_iterations=max_iterations, n_levels=n_levels, n_shifts=n_shifts)
    return _wavelet(kspace, mask, sens, weight, tolerance, max_iterations, n_levels, n_shifts)


def shifts(n_levels: int, n_shifts: int) -> tuple[tuple[int, int], ...]:
    """Shifts in pixels along rows and columns, ``(5 i, 11 i)`` modulo the grid's period.

    Up to the period, no two are the same along either axis.

    Args:
        n_levels: the grid repeats after ``2^n_levels`` pixels.
        n_shifts: how many.
    """
    period = 2**n_levels
    return tuple((5 * i % period, 11 * i % period) for i in range(n_shifts))


@partial(jax.jit, static_argnames=("n_levels", "n_shifts"))
def _wavelet(
    kspace: Array,
    mask: Array,
    sens: Array | None,
    weight: Scalar,
    tolerance: Scalar,
    max_iterations: int,
    n_levels: int,
    n_shifts: int,
) -> Array:
    data = scale_data(kspace, mask, sens)
    penalty = PENALTY * jnp.maximum(weight, MIN_WEIGHT)
    measured = zero_filled_image(data)
    grids = shifts(n_levels, n_shifts)
    share = n_shifts**-0.5  # makes the shifted bases together a frame of norm 1

    def analyse(image: Array) -> tuple[Coefficients, ...]:
        return tuple(decompose(share * jnp.roll(image, grid, (-2, -1)), n_levels) for grid in grids)

    def synthesise(frames: tuple[Coefficients, ...]) -> Array:
        images = [
            jnp.roll(recompose(coefficients), (-rows, -columns), (-2, -1))
            for coefficients, (rows, columns) in zip(frames, grids, strict=True)
        ]
        return share * sum(images[1:], start=images[0])

    solve = quadratic_solver(
        data, lambda image: penalty * image, lambda rhs: rhs / (data.mask + penalty)
    )

    def update(target: tuple[Coefficients, ...], image: Array) -> tuple[Array, tuple]:
        image = solve(measured + penalty * synthesise(target), image)
        return image, analyse(image)

    def shrink(frames: tuple[Coefficients, ...]) -> tuple[Coefficients, ...]:
        return jax.tree.map(lambda band: soft_threshold(band, share * weight / penalty), frames)

    image = alternating_directions(
        update,
        shrink,
        (measured, analyse(measured)),
        tolerance=tolerance,
        max_iterations=max_iterations,
    )
    return data.scale * image
