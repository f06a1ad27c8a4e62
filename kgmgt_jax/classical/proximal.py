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
    cine: Complex[Array, "t h w"], threshold: Scalar
) -> Complex[Array, "t h w"]:
    """``g = ||d||_*``: the singular values of the frames-by-pixels matrix shrink.

    With ``C = U Σ V^H`` the result is ``U max(Σ - τ, 0) V^H``, computed from the eigenvectors U of
    the small t x t matrix ``C C^H``: singular values below about 1e-3 of the largest are lost in
    rounding, far below any useful threshold.

    Args:
        cine: the frames, rows of C.
        threshold: τ >= 0.
    """
    matrix, values, vectors = _left_singular(cine)
    positive = jnp.where(values > 0, values, 1.0)
    kept = jnp.where(values > threshold, 1.0 - threshold / positive, 0.0)
    projector = _product(vectors * kept[None], vectors.conj().T)
    return _product(projector, matrix).reshape(cine.shape)


def largest_singular_value(cine: Complex[Array, "t h w"]) -> Float[Array, ""]:
    """Largest singular value of the frames-by-pixels matrix.

    Args:
        cine: the frames, rows of the matrix.
    """
    return _left_singular(cine)[1][-1]


def _left_singular(cine: Array) -> tuple[Array, Array, Array]:
    """The matrix of a cine, its singular values in rising order, its left singular vectors."""
    matrix = cine.reshape(cine.shape[0], -1)
    eigenvalues, vectors = jnp.linalg.eigh(_product(matrix, matrix.conj().T))
    return matrix, jnp.sqrt(jnp.maximum(eigenvalues, 0.0)), vectors


def _product(a: Array, b: Array) -> Array:
    """Matrix product in full precision, which accelerators do not use by themselves."""
    return jnp.matmul(a, b, precision="highest")
