"""What Triton, which Pallas compiles kernels for NVIDIA GPUs with, asks of their arrays."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

__all__ = ["SMALLEST_SIDE", "arange", "divide", "product", "triton_holds"]

SMALLEST_SIDE = 16  # of the factors of a matrix product
_OLDEST = 8  # compute capability of NVIDIA GPUs that Triton compiles for: Ampere


def triton_holds(*sides: int) -> bool:
    """Whether Triton can have arrays of these sides: powers of two.

    Not where JAX computes in 64 bits: the kernels' indices have 32. Nor where the GPU is older than
    those that Triton compiles for (such as a V100 or a T4).
    """
    powers = all(n & (n - 1) == 0 for n in sides)
    return powers and jnp.arange(1).dtype == jnp.int32 and not _too_old(jax.local_devices()[0])


def _too_old(device: Any) -> bool:
    major = str(getattr(device, "compute_capability", "")).partition(".")[0]
    return major.isdigit() and int(major) < _OLDEST


def divide(n: Array, by: int) -> tuple[Array, Array]:
    """``divmod`` of what is never negative: for signs, JAX's own has steps that Triton lacks."""
    return jax.lax.div(n, jnp.int32(by)), jax.lax.rem(n, jnp.int32(by))


def arange(n: int) -> Int[Array, "n"]:
    """``jnp.arange`` of 32 bits."""
    return jnp.arange(n, dtype=jnp.int32)


def product(
    a: Array, b: Array, dtype: Any, *, over: tuple[int, int] = (1, 0)
) -> Float[Array, "t s"]:
    """Matrix product of factors rounded to ``dtype``, in float32.

    Args:
        a, b: the factors.
        dtype: of the factors; float32 is multiplied in full.
        over: axis of each along which products are summed.
    """
    return jax.lax.dot_general(
        a.astype(dtype),
        b.astype(dtype),
        (((over[0],), (over[1],)), ((), ())),
        precision=jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None,
        preferred_element_type=jnp.float32,
    )
