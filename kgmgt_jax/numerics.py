"""Functions of numbers whose gradients are finite wherever their values are."""

import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["square_root"]


def square_root(x: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Square root of numbers >= 0, with gradient 0 at 0 instead of infinity; NaN stays NaN."""
    return jnp.where(x == 0, 0.0, jnp.sqrt(jnp.where(x == 0, 1.0, x)))
