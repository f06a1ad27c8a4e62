"""The loops: iterate until an image settles, conjugate gradients, alternating directions."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Int

from kgmgt_jax.classical.measurement import ScaledData
from kgmgt_jax.mri.consistency import adjoint, normal
from kgmgt_jax.mri.fourier import fft2c, ifft2c
from kgmgt_jax.types import Scalar

__all__ = [
    "CG",
    "MIN_WEIGHT",
    "OVER_RELAXATION",
    "alternating_directions",
    "conjugate_gradients",
    "iterate",
    "quadratic_solver",
    "zero_filled_image",
]

Tree = Any
State = TypeVar("State", bound=tuple)

OVER_RELAXATION = 1.6
MIN_WEIGHT = 1e-6  # for the penalty ρ, which is not 0 where the weight is
CG = 0.1, 10  # of a step of alternating directions with several coils; see `quadratic_solver`


def iterate(
    step: Callable[[State], State], start: State, *, tolerance: Scalar, max_iterations: Scalar
) -> tuple[State, Int[Array, ""]]:
    """Repeats a step until ``||x_new - x|| <= tolerance ||x_new||`` or the iterations are used up.

    Args:
        step: maps a state to the next; the state's first entry is the image x.
        start: the first state.
        tolerance: relative change at which to stop; 0 stops only where x stays as it is.
        max_iterations: at most this many steps.

    Returns:
        The last state and the number of steps.
    """

    def unsettled(carry: tuple) -> Array:
        _, change, size, count = carry
        return (count < max_iterations) & (change > tolerance**2 * size)

    def advance(carry: tuple) -> tuple:
        state, _, _, count = carry
        following = step(state)
        return following, _energy(following[0] - state[0]), _energy(following[0]), count + 1

    infinite = jnp.asarray(jnp.inf, start[0].real.dtype)
    carry = (start, infinite, jnp.ones_like(infinite), jnp.zeros((), jnp.int32))
    state, _, _, count = jax.lax.while_loop(unsettled, advance, carry)
    return state, count


def conjugate_gradients(
    operator: Callable[[Array], Array],
    rhs: Complex[Array, "*d"],
    start: Complex[Array, "*d"] | None = None,
    *,
    tolerance: Scalar,
    max_iterations: Scalar,
) -> Complex[Array, "*d"]:
    """Solves ``A x = b`` for a Hermitian positive definite operator A.

    Args:
        operator: A.
        rhs: b.
        start: first x; zero if ``None``.
        tolerance: stops when the residual has fallen to this part of its first norm, or to the
            rounding of that.
        max_iterations: at most this many applications of A (and one for ``start``).

    Source: Hestenes and Stiefel, J Res Natl Bur Stand 49:409 (1952).
    """
    residual = rhs if start is None else rhs - operator(start)
    # Below the rounding of the first residual its energy is noise, and then 0.
    least = jnp.maximum(tolerance, jnp.finfo(residual.dtype).eps) ** 2 * _energy(residual)

    def unsolved(carry: tuple) -> Array:
        *_, energy, count = carry
        return (count < max_iterations) & (energy > least)

    def advance(carry: tuple) -> tuple:
        solution, residual, direction, energy, count = carry
        product = operator(direction)
        length = energy / _inner(direction, product)
        solution = solution + length * direction
        residual = residual - length * product
        energy_next = _energy(residual)
        direction = residual + energy_next / energy * direction
        return solution, residual, direction, energy_next, count + 1

    solution = jnp.zeros_like(rhs) if start is None else start
    carry = (solution, residual, residual, _energy(residual), jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(unsolved, advance, carry)[0]


def quadratic_solver(
    data: ScaledData,
    curvature: Callable[[Array], Array],
    exact: Callable[[Array], Array],
    cg: tuple[Scalar, Scalar] = CG,
) -> Callable[[Array, Array], Array]:
    """How a method solves ``(E^H E + R) x = b``: directly for one coil, else by CG.

    For one coil of unit sensitivity and R a convolution, the matrix is simple in k-space.

    Args:
        data: the measurement, for E.
        curvature: R.
        exact: solves the system in k-space, from ``F b`` to ``F x``, for one unit coil.
        cg: part of the guess's residual at which CG stops, since the next call goes on from there,
            and its largest number of iterations.

    Returns:
        A function of b and a first guess of x, which only CG uses.
    """
    if data.sens is None:
        return lambda rhs, start: ifft2c(exact(fft2c(rhs)))
    return lambda rhs, start: conjugate_gradients(
        lambda image: normal(image, data.mask, data.sens) + curvature(image),
        rhs,
        start,
        tolerance=cg[0],
        max_iterations=cg[1],
    )


def alternating_directions(
    update: Callable[[Tree, Array], tuple[Array, Tree]],
    shrink: Callable[[Tree], Tree],
    start: tuple[Complex[Array, "t h w"], Tree],
    *,
    tolerance: Scalar,
    max_iterations: Scalar,
) -> Complex[Array, "t h w"]:
    """Minimises ``1/2 ||E x - y||^2 + g(K x)`` by the over-relaxed method of multipliers.

    With the split variable d = K x, its scaled multiplier u, the penalty ρ and one stored variable
    ``v = d + u``, an iteration is::

        d = prox_{g / ρ}(v)
        x = argmin_x 1/2 ||E x - y||^2 + ρ/2 ||K x - (2 d - v)||^2
        v <- v + α (K x - d),   α = 1.6

    Args:
        update: from ``2 d - v`` and the last image, x and ``K x``.
        shrink: the proximal operator of g / ρ.
        start: first image x and v.
        tolerance: relative change of x at which to stop.
        max_iterations: at most this many iterations.

    Returns:
        The image x.

    Source: Eckstein and Bertsekas, Math Program 55:293 (1992).
    """

    def step(state: tuple[Array, Tree]) -> tuple[Array, Tree]:
        image, v = state
        d = shrink(v)
        image, analysis = update(jax.tree.map(lambda d, v: 2 * d - v, d, v), image)
        v = jax.tree.map(lambda v, k, d: v + OVER_RELAXATION * (k - d), v, analysis, d)
        return image, v

    (image, _), _ = iterate(step, start, tolerance=tolerance, max_iterations=max_iterations)
    return image


def zero_filled_image(data: ScaledData) -> Complex[Array, "t h w"]:
    """``E^H y`` of a scaled measurement."""
    return adjoint(data.kspace, data.mask, data.sens)


def _inner(a: Array, b: Array) -> Array:
    """``Re <a, b>`` over all entries."""
    return jnp.sum(a.real * b.real + a.imag * b.imag)


def _energy(a: Array) -> Array:
    return _inner(a, a)
