"""XLA's convolution, with a faster gradient of its kernel on CPUs."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kgmgt_jax.models.chunks import items_at_once

__all__ = ["convolution"]

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_BLOCK_PIXELS = 1024

Padding = tuple[tuple[int, int], tuple[int, int]]


def convolution(x: Array, kernel: Array, strides: Any, padding: Any, **options: Any) -> Array:
    """As ``lax.conv_general_dilated`` of NHWC maps, for ``nn.Conv(conv_general_dilated=...)``.

    Strided, dilated and grouped convolutions are XLA's own. The gradient of the other kernels is,
    on a CPU, a sum of matrix products over blocks of rows that stay in the cache: XLA's own, a
    convolution with a kernel as large as the image, takes twice to five times as long there. It can
    be differentiated backwards as often as one likes, but not forwards (``jax.jvp``).
    """
    plain = tuple(strides) == (1, 1) and not isinstance(padding, str)
    dilations = (options.get("lhs_dilation"), options.get("rhs_dilation"))
    plain &= all(d is None or tuple(d) == (1, 1) for d in dilations)
    if not plain or options.get("feature_group_count", 1) != 1 or kernel.shape[:2] == (1, 1):
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)
    return _convolve(x, kernel, tuple(map(tuple, padding)))


def _xla(x: Array, kernel: Array, padding: Padding) -> Array:
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=_LAYOUT)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x: Array, kernel: Array, padding: Padding) -> Array:
    return _xla(x, kernel, padding)


def _forward(x, kernel, padding):
    return _xla(x, kernel, padding), (x, kernel)


def _backward(padding, args, grad):
    x, kernel = args
    (top, bottom), (left, right) = padding
    i, j = kernel.shape[0] - 1, kernel.shape[1] - 1
    g_x = _xla(grad, _turned(kernel), ((i - top, i - bottom), (j - left, j - right)))
    g_kernel = jax.lax.platform_dependent(
        x,
        kernel,
        grad,
        cpu=functools.partial(_kernel_gradient, padding=padding),
        default=lambda x, kernel, grad: jax.linear_transpose(
            lambda kernel: _xla(x, kernel, padding), kernel
        )(grad)[0],
    )
    return g_x, g_kernel


_convolve.defvjp(_forward, _backward)


def _turned(kernel: Float[Array, "i j c o"]) -> Float[Array, "i j o c"]:
    """The kernel of the transposed convolution.

    In memory: of a convolution that turns its kernel by itself, XLA finds the fast form outside of
    loops alone.
    """
    return jax.lax.optimization_barrier(jnp.swapaxes(kernel[::-1, ::-1], 2, 3))


def _kernel_gradient(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "i j c o"],
    grad: Float[Array, "b y z o"],
    *,
    padding: Padding,
) -> Float[Array, "i j c o"]:
    """``sum_{b,y,z} x[b, y + i, z + j, c] grad[b, y, z, o]``, a block of rows after the other.

    The batch stays an axis to the end, so that over devices one sum is exchanged, not one a block.
    """
    h, w, c = grad.shape[1], grad.shape[2], x.shape[-1]
    n_i, n_j, _, o = kernel.shape
    rows = items_at_once(h, w, _BLOCK_PIXELS)
    full = jnp.promote_types(x.dtype, jnp.float32)

    def one(x: Float[Array, "hp wp c"], grad: Float[Array, "y z o"]):
        def block(total: tuple[Array, ...], row: Array) -> tuple[tuple[Array, ...], None]:
            near = jax.lax.dynamic_slice_in_dim(x, row, rows + n_i - 1)
            g = jax.lax.dynamic_slice_in_dim(grad, row, rows).reshape(rows * w, o)
            g = jax.lax.optimization_barrier(g.T)  # turned once, where x would be once a tap
            parts = [
                g @ near[i : i + rows, j : j + w].reshape(rows * w, c)
                for i in range(n_i)
                for j in range(n_j)
            ]
            return tuple(a + b.astype(full) for a, b in zip(total, parts, strict=True)), None

        zeros = tuple(jnp.zeros((o, c), full) for _ in range(n_i * n_j))
        taps = jax.lax.scan(block, zeros, jnp.arange(0, h, rows))[0]
        return jnp.stack([tap.T for tap in taps])

    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    total = jnp.sum(jax.vmap(one)(padded, grad), axis=0)
    return total.reshape(kernel.shape).astype(kernel.dtype)
