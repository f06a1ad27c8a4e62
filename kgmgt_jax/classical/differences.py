"""Finite differences in time and space, their adjoints, and solvers of the systems they lead to."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from kgmgt_jax.types import Scalar

__all__ = [
    "chain_solver",
    "spatial_adjoint",
    "spatial_differences",
    "spatial_symbol",
    "temporal_adjoint",
    "temporal_differences",
]


def temporal_differences(
    cine: Complex[Array, "t h w"], circular: bool = True
) -> Complex[Array, "t h w"]:
    """``(D_t x)_t = x_{t+1} - x_t``; the last frame's neighbour is the first, or itself.

    Args:
        cine: frames x.
        circular: whether the cine is periodic; else the last difference is zero.
    """
    following = jnp.concatenate([cine[1:], cine[:1] if circular else cine[-1:]])
    return following - cine


def temporal_adjoint(
    differences: Complex[Array, "t h w"], circular: bool = True
) -> Complex[Array, "t h w"]:
    """The adjoint of `temporal_differences`.

    Args:
        differences: one array a frame.
        circular: as there.
    """
    if not circular:
        differences = differences.at[-1].set(0)
    return jnp.roll(differences, 1, axis=0) - differences


def spatial_differences(images: Complex[Array, "*b h w"]) -> Complex[Array, "2 *b h w"]:
    """Differences to the next row and the next column, periodic at the borders.

    Args:
        images: any number of images.
    """
    return jnp.stack([jnp.roll(images, -1, axis) - images for axis in (-2, -1)])


def spatial_adjoint(differences: Complex[Array, "2 *b h w"]) -> Complex[Array, "*b h w"]:
    """The adjoint of `spatial_differences`.

    Args:
        differences: along the rows' axis and along the columns' axis.
    """
    rows, columns = differences
    return jnp.roll(rows, 1, -2) - rows + jnp.roll(columns, 1, -1) - columns


def spatial_symbol(height: int, width: int) -> Float[Array, "h w"]:
    """``D^H D`` of `spatial_differences` in centred k-space, where it is a product.

    ``4 sin^2(π k_y / h) + 4 sin^2(π k_x / w)`` with k counted from the centre.

    Args:
        height: h.
        width: w.
    """
    rows, columns = (
        4 * jnp.sin(jnp.pi * (jnp.arange(size) - size // 2) / size) ** 2 for size in (height, width)
    )
    return rows[:, None] + columns[None, :]


def chain_solver(
    diagonal: Float[Array, "t h w"], weight: Scalar, circular: bool = True
) -> Callable[[Complex[Array, "t h w"]], Complex[Array, "t h w"]]:
    """Solves ``(diag(a) + ρ D_t^H D_t) x = b`` exactly, at each position by itself.

    The frames form a chain, whose matrix T is tridiagonal: one sweep forth, one back. A periodic
    cine closes the chain by one more difference, a change of rank one: with c = (1, 0, ..., 0, -1)
    and ``q = T^-1 c``, ``x = z - q ρ (c·z) / (1 + ρ c·q)`` where ``z = T^-1 b``.

    Args:
        diagonal: a > 0.
        weight: ρ >= 0.
        circular: whether the cine is periodic.

    Returns:
        The map from b to x.

    Source: Sherman and Morrison, Ann Math Stat 21:124 (1950), for the closing difference.
    """
    n_frames = diagonal.shape[0]
    index = jnp.arange(n_frames)[:, None, None]
    neighbours = (index > 0).astype(diagonal.dtype) + (index < n_frames - 1)
    full = diagonal + weight * neighbours
    coupling = jnp.where(index > 0, weight, 0.0)

    def eliminate(previous: Array, frame: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        value, coupled = frame
        factor = coupled * previous
        inverse = 1.0 / (value - coupled * factor)
        return inverse, (factor, inverse)

    start = jnp.zeros_like(full[0])
    _, (factors, inverses) = jax.lax.scan(eliminate, start, (full, coupling))
    closing = (index == 0).astype(diagonal.dtype) - (index == n_frames - 1)
    closing = jnp.broadcast_to(closing, diagonal.shape)

    def open_chain(rhs: Array) -> Array:
        zero = jnp.zeros_like(rhs[0])

        def forth(previous: Array, frame: tuple[Array, Array]) -> tuple[Array, Array]:
            value = frame[0] + frame[1] * previous
            return value, value

        def back(following: Array, frame: tuple[Array, Array]) -> tuple[Array, Array]:
            value = (frame[0] + weight * following) * frame[1]
            return value, value

        reduced = jax.lax.scan(forth, zero, (rhs, factors))[1]
        return jax.lax.scan(back, zero, (reduced, inverses), reverse=True)[1]

    if not circular:
        return open_chain
    response = open_chain(closing)
    denominator = 1.0 + weight * (response[0] - response[-1])

    def closed_chain(rhs: Array) -> Array:
        solution = open_chain(rhs)
        jump = weight * (solution[0] - solution[-1]) / denominator
        return solution - response * jump[None]

    return closed_chain
