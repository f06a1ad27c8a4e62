"""Deformable samples and their product with the kernel in one pass, for NVIDIA GPUs (Pallas).

XLA writes all samples to memory, nine times the input, and reads them back for a matrix product.
Here a program takes a block of pixels and adds up, tap after tap, the product of what it has just
sampled: only the input and the result touch memory. ``models.deformable`` is the reference, what
runs on every other device, and the gradient.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas
from jax.experimental.pallas import triton
from jaxtyping import Array, Float

from kgmgt_jax.models.triton_arrays import SMALLEST_SIDE, arange, divide, triton_holds

__all__ = ["kernel_fits", "sample_and_multiply"]

_PIXELS = 64  # of a block
_WARPS = 8  # with four, 256 channels do not fit the registers of an H100
# Numbers of a tap, its weights and its samples, of which the smallest shared memory (99 KiB, of
# cards for desktops) can hold one; and bytes of which it can fetch another ahead.
_MOST_OF_TAP, _MOST_AHEAD = 3 * 2**13, 5 * 2**13
_LARGEST = 256  # side of a matrix product that registers hold


def kernel_fits(c: int, groups: int, o: int) -> bool:
    """Whether Triton can hold the channels of a group and of the output, and multiply by them."""
    sides = (c // groups, o)
    held = (
        min(sides) >= SMALLEST_SIDE and max(sides) <= _LARGEST and _of_tap(*sides) <= _MOST_OF_TAP
    )
    return held and triton_holds(*sides)


def _of_tap(c: int, o: int) -> int:
    return c * (_PIXELS + o)


def sample_and_multiply(
    x: Float[Array, "h w c"],
    offset: Float[Array, "h w g 9 2"],
    mask: Float[Array, "h w g 9"],
    taps: Float[Array, "k o"],
    *,
    interpret: bool = False,
) -> Float[Array, "h w o"]:
    """The sum of ``models.deformable.deformable_conv``, of one image and without the bias.

    Args:
        x: input features.
        offset: displacement (y, x) in pixels from each tap's regular place.
        mask: weight of each sample.
        taps: the kernel as a matrix, its rows by group, tap and channel.
        interpret: run the kernel as ordinary JAX, on any device and slowly; for tests.
    """
    h, w, c = x.shape
    groups, (_, o), n = mask.shape[-2], taps.shape, h * w
    n_stages = 2 if _of_tap(c // groups, o) * x.dtype.itemsize <= _MOST_AHEAD else 1
    by_tap = lambda a: jnp.swapaxes(a.reshape(n, groups * 9), 0, 1)  # noqa: E731
    program = pallas.pallas_call(
        functools.partial(_program, h=h, w=w),
        out_shape=jax.ShapeDtypeStruct((n, o), x.dtype),
        grid=(pallas.cdiv(n, _PIXELS),),
        compiler_params=triton.CompilerParams(num_warps=_WARPS, num_stages=n_stages),
        interpret=interpret,
        name="deformable",
    )
    places = by_tap(offset[..., 0]), by_tap(offset[..., 1]), by_tap(mask)
    taps = taps.reshape(groups * 9, c // groups, o)
    return program(x.reshape(n, c), *places, taps).reshape(h, w, o)


def _program(x, dy, dx, mask, taps, out, *, h: int, w: int) -> None:
    """A block of pixels: x (hw c), dy, dx and mask (taps hw), taps (taps c/g o) to out (hw o)."""
    n_taps, c, o = taps.shape
    block = pallas.ds(pallas.program_id(0) * _PIXELS, _PIXELS)
    pixel = pallas.program_id(0) * _PIXELS + arange(_PIXELS)
    here = pixel < h * w
    full = jnp.promote_types(x.dtype, jnp.float32)
    row, column = divide(pixel, w)

    def add_tap(k: Array, total: Float[Array, "p o"]) -> Float[Array, "p o"]:
        group, tap = divide(k, 9)
        i, j = divide(tap, 3)
        y_off, x_off, weight = (
            triton.load(a.at[k, block], mask=here, other=0.0) for a in (dy, dx, mask)
        )
        y, y_part = _split((row + i - 1).astype(y_off.dtype) + y_off, h)
        x_, x_part = _split((column + j - 1).astype(x_off.dtype) + x_off, w)
        channel = group * c + arange(c)
        sample = jnp.zeros((_PIXELS, c), full)
        for yi, wy in ((y, 1 - y_part), (y + 1, y_part)):
            for xi, wx in ((x_, 1 - x_part), (x_ + 1, x_part)):
                inside = here & (yi >= 0) & (yi < h) & (xi >= 0) & (xi < w)
                place = jnp.where(inside, yi * w + xi, 0)
                inside = jnp.broadcast_to(inside[:, None], sample.shape)
                value = triton.load(x.at[place[:, None], channel[None]], mask=inside, other=0.0)
                sample += value.astype(full) * (wy * wx * weight)[:, None].astype(full)
        return total + jnp.dot(sample.astype(x.dtype), taps[k], preferred_element_type=full)

    zeros = jnp.zeros((_PIXELS, o), full)
    total = jax.lax.fori_loop(jnp.int32(0), jnp.int32(n_taps), add_tap, zeros)
    there = jnp.broadcast_to(here[:, None], zeros.shape)
    triton.store(out.at[block, :], total.astype(out.dtype), mask=there)


def _split(position: Float[Array, "p"], n: int) -> tuple[Array, Float[Array, "p"]]:
    """Whole part, as an integer no further out than the first pixel outside, and the rest."""
    whole = jnp.floor(position)
    return jnp.clip(whole, -2, n).astype(jnp.int32), position - whole
