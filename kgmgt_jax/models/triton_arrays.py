"""What Triton, which Pallas compiles kernels for NVIDIA GPUs with, asks of their arrays."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

__all__ = ["divide", "triton_holds"]


def triton_holds(*sides: int) -> bool:
    """Whether Triton can have arrays of these sides: powers of two.

    Not where JAX computes in 64 bits: the kernels' indices have 32.
    """
    return all(n & (n - 1) == 0 for n in sides) and jnp.arange(1).dtype == jnp.int32


def divide(n: Array, by: int) -> tuple[Array, Array]:
    """``divmod`` of what is never negative: for signs, JAX's own has steps that Triton lacks."""
    return jax.lax.div(n, jnp.int32(by)), jax.lax.rem(n, jnp.int32(by))
