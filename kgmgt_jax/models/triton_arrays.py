"""What Triton, which Pallas compiles kernels for NVIDIA GPUs with, asks of their arrays."""

import jax.numpy as jnp

__all__ = ["triton_holds"]


def triton_holds(*sides: int) -> bool:
    """Whether Triton can have arrays of these sides: powers of two.

    Not where JAX computes in 64 bits: the kernels' indices have 32.
    """
    return all(n & (n - 1) == 0 for n in sides) and jnp.arange(1).dtype == jnp.int32
