"""Low rank in small blocks of the image, whose grid moves from iteration to iteration."""

from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int

from kgmgt_jax.classical.measurement import (
    ScaledData,
    average_filled,
    check_counts,
    check_weights,
    scale_data,
)
from kgmgt_jax.classical.proximal import shrink_singular_values
from kgmgt_jax.classical.solvers import iterate, zero_filled_image
from kgmgt_jax.mri.cine import check_cine
from kgmgt_jax.mri.consistency import normal
from kgmgt_jax.types import Scalar

__all__ = [
    "MOVES",
    "cut_into_blocks",
    "join_blocks",
    "locally_low_rank",
    "minimise_locally_low_rank",
]

A = TypeVar("A", Array, np.ndarray)

# How far the grid moves an iteration, in blocks along rows and columns: multiples of these,
# modulo 1, fill the square evenly (the inverse of the plastic number, and its square).
MOVES = (0.7548776662, 0.5698402910)


def locally_low_rank(
    kspace: Complex[Array, "t n h w"],
    mask: Float[Array, "t h w"],
    sens: Complex[Array, "*t n h w"] | None = None,
    *,
    weight: Scalar = 0.003,
    block: int = 8,
    tolerance: Scalar = 1e-4,
    max_iterations: int = 60,
) -> Complex[Array, "t h w"]:
    """Few courses over time in every small block of the image.

    ::

        min_x  1/2 ||E x - y||^2 + λ s (sqrt(P) + sqrt(t)) sum_b ||R_b x||_*

    ``R_b x`` is the frames-by-pixels matrix of a block of P pixels, ``||.||_*`` the sum of its
    singular values; s is the `data_scale`. Noise of standard deviation ``λ s`` has singular values
    up to the threshold, so our ``weight`` λ is the noise that would go, in units of a bright pixel.
    Solved by accelerated proximal gradient steps from the `temporal_average`. Each has the blocks
    of a grid of its own, so that no grid shows; hence the image settles only to what a change of
    grids makes of it.

    Args:
        kspace: measured k-space y; samples outside the mask are ignored.
        mask: 1 where measured.
        sens: sensitivity maps of unit sum of squares, of all frames or of each, or ``None`` for
            one unit coil.
        weight: λ >= 0.
        block: side of a block in pixels, at least 1; zeros complete those at the border.
        tolerance: relative change of the image at which to stop.
        max_iterations: at most this many iterations.

    Raises:
        ValueError: if shapes are not those of one cine, a weight or tolerance is negative, or
            another number is below 1.

    Source: the problem of ``bart pics -R L``, whose grid moves at random; Trzasko and Manduca,
    Proc. ISMRM 19 (2011), 4371; Ong and Lustig, IEEE J Sel Top Signal Process 10:672 (2016), for
    the threshold; Beck and Teboulle, SIAM J Imaging Sci 2:183 (2009), for the steps.
    """
    check_cine(kspace, mask, sens)
    check_weights(weight=weight, tolerance=tolerance)
    check_counts(block=block, max_iterations=max_iterations)
    return _locally_low_rank(kspace, mask, sens, weight, tolerance, max_iterations, block)


@partial(jax.jit, static_argnames="block")
def _locally_low_rank(
    kspace: Array,
    mask: Array,
    sens: Array | None,
    weight: Scalar,
    tolerance: Scalar,
    max_iterations: int,
    block: int,
) -> Array:
    data = scale_data(kspace, mask, sens)
    start = average_filled(data.kspace, data.mask, data.sens)
    return data.scale * minimise_locally_low_rank(
        data, weight, start, block=block, tolerance=tolerance, max_iterations=max_iterations
    )


def minimise_locally_low_rank(
    data: ScaledData,
    weight: Scalar,
    start: Complex[Array, "t h w"],
    *,
    block: int,
    tolerance: Scalar,
    max_iterations: Scalar,
) -> Complex[Array, "t h w"]:
    """What `locally_low_rank` does with a measurement that is divided by its scale.

    Args:
        data: the measurement.
        weight: λ.
        start: first image.
        block: see there.
        tolerance: see there.
        max_iterations: see there.
    """
    measured = zero_filled_image(data)
    threshold = weight * (block + len(data.mask) ** 0.5)

    def step(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        image, ahead, count, momentum = state
        descended = ahead + measured - normal(ahead, data.mask, data.sens)
        following = _shrink_blocks(descended, threshold, block, count)
        momentum_next = (1 + jnp.sqrt(1 + 4 * momentum**2)) / 2
        ahead = following + (momentum - 1) / momentum_next * (following - image)
        return following, ahead, count + 1, momentum_next

    state = (start, start, jnp.zeros((), jnp.int32), jnp.ones((), start.real.dtype))
    (image, *_), _ = iterate(step, state, tolerance=tolerance, max_iterations=max_iterations)
    return image


def _shrink_blocks(
    cine: Complex[Array, "t h w"], threshold: Scalar, block: int, count: Int[Array, ""]
) -> Complex[Array, "t h w"]:
    """Shrinks the singular values of every block of the grid of an iteration."""
    _, h, w = cine.shape
    shift = jnp.floor(block * (count * jnp.asarray(MOVES) % 1.0)).astype(int)
    padded = jnp.pad(cine, ((0, 0), (0, -h % block), (0, -w % block)))
    blocks = cut_into_blocks(jnp.roll(padded, shift, (1, 2)), block)
    moved = join_blocks(shrink_singular_values(blocks, threshold), block)
    return jnp.roll(moved, -shift, (1, 2))[:, :h, :w]


def cut_into_blocks(cine: A, block: int) -> A:
    """Matrices (rows, columns, t, p) of a cine (t, h, w), JAX's or NumPy's, of whole blocks."""
    t, h, w = cine.shape
    blocks = cine.reshape(t, h // block, block, w // block, block).transpose(1, 3, 0, 2, 4)
    return blocks.reshape(h // block, w // block, t, block * block)


def join_blocks(matrices: A, block: int) -> A:
    """The inverse of `cut_into_blocks`."""
    rows, columns, t, _ = matrices.shape
    cine = matrices.reshape(rows, columns, t, block, block).transpose(2, 0, 3, 1, 4)
    return cine.reshape(t, rows * block, columns * block)
