"""Proximal operators ``prox_{τ g}(v) = argmin_d τ g(d) + 1/2 ||d - v||^2`` of complex arrays."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from kgmgt_jax.types import Scalar

__all__ = ["largest_singular_value", "shrink_singular_values", "soft_threshold"]


def soft_threshold(
    values: Complex[Array, "*d"], threshold: Scalar, axis: int | None = None
) -> Complex[Array, "*d"]:
    """``g = ||d||_1``: magnitudes shrink by the threshold, to zero at least; phases stay.

    ::

        d = v max(1 - τ / |v|, 0)

    Args:
        values: v.
        threshold: τ >= 0.
        axis: if given, ``|v|`` is the Euclidean norm along this axis: entries shrink together.
    """
    power = values.real**2 + values.imag**2
    if axis is not None:
        power = jnp.sum(power, axis=axis, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.maximum(power, jnp.finfo(power.dtype).tiny))
    return values * jnp.maximum(1.0 - threshold * inverse, 0.0)


def shrink_singular_values(
    matrices: Complex[Array, "*b t p"], threshold: Scalar
) -> Complex[Array, "*b t p"]:
    """``g = ||d||_*``: the singular values of each matrix shrink.

    With ``C = U Σ V^H`` the result is ``U max(Σ - τ, 0) V^H``, computed from the eigenvectors U of
    the small t x t matrix ``C C^H``: singular values below about 1e-3 of the largest are lost in
    rounding, far below any useful threshold.

    Args:
        matrices: C, such as the pixels p of t frames.
        threshold: τ >= 0.
    """
    values, vectors = _left_singular(matrices)
    positive = jnp.where(values > 0, values, 1.0)
    kept = jnp.where(values > threshold, 1.0 - threshold / positive, 0.0)
    projector = _product(vectors * kept[..., None, :], _adjoint(vectors))
    return _product(projector, matrices)


def largest_singular_value(matrix: Complex[Array, "t p"]) -> Float[Array, ""]:
    """Largest singular value of a matrix, such as the pixels p of t frames."""
    return _left_singular(matrix)[0][-1]


def _left_singular(matrices: Array) -> tuple[Array, Array]:
    """Singular values of matrices in rising order, and their left singular vectors."""
    eigenvalues, vectors = jnp.linalg.eigh(_product(matrices, _adjoint(matrices)))
    return jnp.sqrt(jnp.maximum(eigenvalues, 0.0)), vectors


def _adjoint(matrices: Array) -> Array:
    return jnp.conj(jnp.swapaxes(matrices, -1, -2))


def _product(a: Array, b: Array) -> Array:
    """Matrix product in full precision, which accelerators do not use by themselves."""
    return jnp.matmul(a, b, precision="highest")
