"""Modulated deformable convolution, with a gradient of its own.

Where a sample falls, its four neighbours are read in one gather: the input is laid out once as a
table whose rows hold the 2 x 2 pixels at every corner, a channel group at a time, with a border of
zeros. Automatic differentiation would scatter four gradients a sample, and keep or recompute all
samples around it; here one loop over blocks of rows takes the samples again and adds each sample's
2 x 2 gradient to its row of the table.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from kgmgt_jax.models.chunks import chunk_limit, items_at_once
from kgmgt_jax.models.deformable_kernel import kernel_fits, sample_and_multiply

__all__ = ["deformable_conv"]

# Pixels x channels sampled at once: on a CPU what its cache holds, elsewhere what fills the device.
_BLOCK, _DEVICE_BLOCK = 2**16, 2**22
_TAP_Y, _TAP_X = np.divmod(np.arange(9), 3)


class _Places(NamedTuple):
    """Where the samples of a block of pixels lie: one entry a pixel, group and tap."""

    index: Int[Array, "p g 9"]  # row of the table
    fy: Float[Array, "p g 9"]  # distance from the upper pixels
    fx: Float[Array, "p g 9"]  # and from the left ones
    mask: Float[Array, "p g 9"]  # 0 where all four pixels lie outside
    inside: Bool[Array, "p g 9"]


def _corner_table(x: Float[Array, "h w c"], groups: int) -> Float[Array, "n c4"]:
    """Rows ``(y, x, group)`` of the pixels (y - 1, x - 1), (y - 1, x), (y, x - 1), (y, x)."""
    h, w, c = x.shape
    p = jnp.pad(x, ((1, 1), (1, 1), (0, 0))).reshape(h + 2, w + 2, groups, c // groups)
    table = jnp.stack([p[:-1, :-1], p[:-1, 1:], p[1:, :-1], p[1:, 1:]], axis=3)
    return table.reshape((h + 1) * (w + 1) * groups, 4 * (c // groups))


def _from_corner_table(
    table: Float[Array, "n c4"], shape: tuple[int, ...], groups: int
) -> Float[Array, "h w c"]:
    """Transpose of ``_corner_table``: every pixel's sum over the four rows that hold it."""
    h, w, c = shape
    corners = table.reshape(h + 1, w + 1, groups, 4, c // groups)
    top = corners[1:, 1:, :, 0] + corners[1:, :-1, :, 1]
    bottom = corners[:-1, 1:, :, 2] + corners[:-1, :-1, :, 3]
    return (top + bottom).reshape(h, w, c)


def _places(
    row: Int[Array, ""], offset: Array, mask: Array, size: tuple[int, int], dtype: jnp.dtype
) -> tuple[_Places, Float[Array, "n 4"]]:
    """Places of the samples of whole rows from ``row`` on, and their four weights.

    They are computed once, in memory: fused into the loops over channels, XLA would compute them
    again for each channel.
    """
    (h, w), groups = size, mask.shape[-2]
    pixel = jnp.arange(mask.shape[0])
    y = (row + pixel // w)[:, None, None] + (_TAP_Y - 1)[None, None] + offset[..., 0]
    x = (pixel % w)[:, None, None] + (_TAP_X - 1)[None, None] + offset[..., 1]
    y0, x0 = jnp.floor(y), jnp.floor(x)
    inside = (y0 >= -1) & (y0 < h) & (x0 >= -1) & (x0 < w)
    top, left = (jnp.clip(a, -1, n - 1).astype(jnp.int32) + 1 for a, n in ((y0, h), (x0, w)))
    index = (top * (w + 1) + left) * groups + jnp.arange(groups)[None, :, None]
    places = _Places(index, y - y0, x - x0, jnp.where(inside, mask, 0.0), inside)
    fy, fx = places.fy, places.fx
    corners = ((1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx)
    weights = jnp.stack([corner * places.mask for corner in corners], axis=-1)
    return jax.lax.optimization_barrier((places, weights.reshape(-1, 4).astype(dtype)))


def _sample(
    table: Float[Array, "n c4"], index: Int[Array, "p g 9"], weights: Float[Array, "m 4"]
) -> tuple[Float[Array, "m c4"], Float[Array, "p k"]]:
    """The 2 x 2 pixels of every sample, and the samples: a pixel's by group, tap and channel."""
    corners = table.at[index.reshape(-1)].get(mode="promise_in_bounds")
    corners = jax.lax.optimization_barrier(corners)
    c = table.shape[1] // 4
    samples = sum(corners[:, k * c : (k + 1) * c] * weights[:, k : k + 1] for k in range(4))
    return corners, jnp.reshape(samples, (index.shape[0], -1))


def _blocks(shape: tuple[int, ...], *arrays: Array) -> tuple[Array, ...]:
    """The first row of each block, and each array of rows and columns cut into blocks of pixels."""
    h, w, c = shape
    rows = items_at_once(h, w * c, chunk_limit(_BLOCK, _DEVICE_BLOCK))
    cut = (a.reshape(h // rows, rows * w, *a.shape[2:]) for a in arrays)
    return jnp.arange(0, h, rows), *cut


def _taps(kernel: Float[Array, "3 3 c o"], groups: int) -> Float[Array, "k o"]:
    """The kernel as a matrix, its rows by group, tap and channel."""
    _, _, c, o = kernel.shape
    return jnp.swapaxes(kernel.reshape(9, groups, c // groups, o), 0, 1).reshape(9 * c, o)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _convolve(x, offset, mask, kernel, pallas):
    """One image: x (h w c), offset (h w g 9 2), mask (h w g 9), kernel (3 3 c o) to (h w o)."""
    groups = mask.shape[-2]
    taps = _taps(jnp.asarray(kernel, x.dtype), groups)
    if not (pallas and kernel_fits(x.shape[-1], groups, kernel.shape[-1])):
        return _in_blocks(x, offset, mask, taps)
    choices = {"cuda": sample_and_multiply, "default": _in_blocks}
    return jax.lax.platform_dependent(x, offset, mask, taps, **choices)


def _in_blocks(x, offset, mask, taps):
    h, w, _ = x.shape
    table = _corner_table(x, mask.shape[-2])

    def block(args: tuple[Array, ...]) -> Float[Array, "p o"]:
        row, offset, mask = args
        places, weights = _places(row, offset, mask, (h, w), x.dtype)
        return _sample(table, places.index, weights)[1] @ taps

    return jax.lax.map(block, _blocks(x.shape, offset, mask)).reshape(h, w, taps.shape[-1])


def _forward(x, offset, mask, kernel, pallas):
    return _convolve(x, offset, mask, kernel, pallas), (x, offset, mask, kernel)


def _backward(pallas, args, grad):
    del pallas  # the gradient is one for both
    x, offset, mask, kernel = args
    h, w, c = x.shape
    groups = mask.shape[-2]
    table, taps = _corner_table(x, groups), _taps(jnp.asarray(kernel, x.dtype), groups)
    full = jnp.promote_types(x.dtype, jnp.float32)
    by_corner = jnp.asarray(np.repeat(np.eye(4), c // groups, axis=0), x.dtype)

    def block(sums: tuple[Array, Array], args: tuple[Array, ...]):
        row, offset, mask, grad = args
        places, weights = _places(row, offset, mask, (h, w), x.dtype)
        corners, samples = _sample(table, places.index, weights)
        g_samples = jax.lax.optimization_barrier((grad @ taps.T).reshape(-1, 1, c // groups))
        g_corners = (weights[:, :, None] * g_samples).reshape(corners.shape)
        index = places.index.reshape(-1)
        g_table = sums[0].at[index].add(g_corners.astype(full), mode="promise_in_bounds")
        g_taps = sums[1] + jnp.transpose(grad.T @ samples).astype(full)
        products = corners * jnp.tile(g_samples[:, 0], (1, 4))
        return (g_table, g_taps), _place_gradients(places, products @ by_corner, mask.dtype)

    sums = (jnp.zeros(table.shape, full), jnp.zeros(taps.shape, full))
    blocks = _blocks(x.shape, offset, mask, grad)
    (g_table, g_taps), (g_offset, g_mask) = jax.lax.scan(block, sums, blocks)
    g_x = _from_corner_table(g_table, x.shape, groups).astype(x.dtype)
    g_kernel = jnp.swapaxes(g_taps.reshape(groups, 9, c // groups, -1), 0, 1)
    g_kernel = g_kernel.reshape(kernel.shape).astype(kernel.dtype)
    return g_x, g_offset.reshape(offset.shape), g_mask.reshape(mask.shape), g_kernel


def _place_gradients(
    places: _Places, by_corner: Float[Array, "m 4"], dtype: jnp.dtype
) -> tuple[Float[Array, "p g 9 2"], Float[Array, "p g 9"]]:
    """Gradients of offsets and mask from ``<pixel, gradient of its sample>`` of the four pixels."""
    fy, fx = places.fy, places.fx
    corners = by_corner.astype(dtype).reshape(*fy.shape, 4)
    a, b, c, d = (corners[..., k] for k in range(4))
    g_y = (1 - fx) * (c - a) + fx * (d - b)
    g_x = (1 - fy) * (b - a) + fy * (d - c)
    upper, lower = (1 - fx) * a + fx * b, (1 - fx) * c + fx * d
    g_mask = jnp.where(places.inside, (1 - fy) * upper + fy * lower, 0.0)
    return jnp.stack([g_y, g_x], axis=-1) * places.mask[..., None], g_mask


_convolve.defvjp(_forward, _backward)


def deformable_conv(
    x: Float[Array, "b h w c"],
    offset: Float[Array, "b h w g 9 2"],
    mask: Float[Array, "b h w g 9"],
    kernel: Float[Array, "3 3 c o"],
    bias: Float[Array, "o"],
    *,
    pallas: bool = False,
) -> Float[Array, "b h w o"]:
    """Modulated deformable 3 x 3 convolution (stride 1, padding 1).

    ``y(p) = b + sum_{g, t} W[t, g] mask_{g,t}(p) bilinear(x_g, p + t - 1 + offset_{g,t}(p))`` with
    tap ``t = (t div 3, t mod 3)`` and channel groups g; each corner of a bilinear sample that lies
    outside counts as zero. At integer positions the gradient of an offset is the right-hand one.
    It can be differentiated backwards once.

    Args:
        x: input features; c divides into the g groups of ``offset``, contiguous.
        offset: displacement (y, x) in pixels from each tap's regular place.
        mask: weight of each sample.
        kernel: as ``nn.Conv`` keeps it.
        bias: added to every pixel.
        pallas: on an NVIDIA GPU, use the kernel of ``models.deformable_kernel`` where it fits. XLA
            does not divide it: over several devices, each would do the whole batch.

    Raises:
        ValueError: if the groups do not divide the channels.

    Source: Zhu et al., Deformable ConvNets v2, 2019.
    """
    c, groups = x.shape[-1], mask.shape[-2]
    if c % groups:
        raise ValueError(f"channels must divide into the deformable groups, got {c=} {groups=}")
    convolve = jax.vmap(lambda *image: _convolve(*image, kernel, pallas))
    return convolve(x, offset, mask) + bias.astype(x.dtype).reshape(1, 1, 1, -1)
