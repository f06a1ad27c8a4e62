"""MGwinT blocks in four passes over their map, for NVIDIA GPUs (Pallas).

XLA writes a block's tokens, queries, keys, values, logits and hidden layer to memory and reads them
back, many times the map itself. Here programs hold them in registers: the first kernel makes the
anchors, the second attends in square windows, the third in rectangular ones, the fourth adds up
what these give and applies the MLP. Each reads the map and normalises it anew, which costs less
than to keep the result, and a rolled map is a matter of addresses. ``models.transformer`` is the
reference, what runs on every other device, and the gradient.

Kernels have the weights of all blocks and are told which to take, so that one program serves all
and no weight is copied. One that attends has several windows of one head, and reads the position
bias for all of them once.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas
from jax.experimental.pallas import triton
from jaxtyping import Array, Float, Int

from kgmgt_jax.models import block_programs as programs
from kgmgt_jax.models.attend_kernel import MOST_LOGITS, windows_at_once
from kgmgt_jax.models.attention import AnchorStep, bypass_weights
from kgmgt_jax.models.block_options import BlockOptions
from kgmgt_jax.models.triton_arrays import triton_holds

__all__ = ["block_fits", "block_in_kernels", "block_weights"]

_MOST_CHANNELS = 2**6  # of a token's hidden layer; twice as many take XLA minutes to compile
_LOGITS_PER_WARP = 2**10

Params = Mapping[str, Any]


def block_fits(options: BlockOptions, shape: tuple[int, ...]) -> bool:
    """Whether the kernels can hold such a block of a map (b, h, w, c) that its windows divide."""
    rect, (_, h, w, _) = options.rect_window, shape
    if options.attention != "window" or not options.square_window or rect is None:
        return False
    t, s = options.window**2, rect[0] * rect[1]
    sides = (t, s, s // 4, options.width, options.mlp_ratio * options.width)
    return (
        all(h % n == 0 and w % m == 0 for n, m in ((options.window, options.window), rect))
        and h * w % (4 * programs.TOKENS) == 0
        and triton_holds(*sides)
        and min(sides) >= programs.HEAD >= options.width // options.n_heads
        and max(t * t, s * s // 4) <= MOST_LOGITS
        and options.mlp_ratio * options.width <= _MOST_CHANNELS
        and 0 < math.prod(shape) < 2**31  # no empty grid, and addresses of 32 bits
    )


def block_weights(options: BlockOptions, params: Params) -> dict[str, Array]:
    """A block's weights as the kernels want them; to be mapped over all blocks of a body.

    Args:
        options: of the block.
        params: its parameters, those of ``MGwinTBlock``.

    Raises:
        ValueError: for a block without rectangular windows.
    """
    rect, size = params["rect"], _rectangle(options)
    halved = (size[0] // 2, size[1] // 2)
    step = AnchorStep(options.n_heads, options.layers)
    gather: Any = step.apply({"params": rect["gather"]}, halved, size)
    spread: Any = step.apply({"params": rect["spread"]}, size, halved)
    bypass, bypass_bias, rect_out = bypass_weights(rect["qkv"], rect["out"])
    return {
        "depth": rect["anchor_depth"]["kernel"].reshape(9, -1),
        "depth_bias": rect["anchor_depth"]["bias"],
        "point": rect["anchor_point"]["kernel"],
        "point_bias": rect["anchor_point"]["bias"],
        "square_qkv": params["square"]["qkv"]["kernel"],
        "square_qkv_bias": params["square"]["qkv"]["bias"],
        "square_table": params["square"]["bias_table"],
        "rect_qkv": rect["qkv"]["kernel"],
        "rect_qkv_bias": rect["qkv"]["bias"],
        "gather_scale": gather[0],
        "gather": gather[1],
        "spread_scale": spread[0],
        "spread": spread[1],
        "square_out": params["square"]["out"]["kernel"],
        "rect_out": jnp.pad(rect_out, ((0, options.width - rect_out.shape[0]), (0, 0))),
        "bypass": bypass,
        "branch_bias": bypass_bias + params["square"]["out"]["bias"],
        "mlp1": params["mlp1"]["kernel"],
        "mlp1_bias": params["mlp1"]["bias"],
        "mlp2": params["mlp2"]["kernel"],
        "mlp2_bias": params["mlp2"]["bias"],
        "scale1": params["norm1"]["scale"],
        "offset1": params["norm1"]["bias"],
        "scale2": params["norm2"]["scale"],
        "offset2": params["norm2"]["bias"],
    }


def block_in_kernels(
    options: BlockOptions,
    weights: Mapping[str, Float[Array, "blocks ..."]],
    x: Float[Array, "b h w c"],
    turn: Int[Array, "2"],
    *,
    interpret: bool = False,
) -> Float[Array, "b h w c"]:
    """What ``MGwinTBlock`` gives at inference, with logits and sums in float32.

    XLA does not divide the kernels among devices: of a batch that is, each would do all.

    Args:
        options: of the block.
        weights: of all blocks, from `block_weights`.
        x: tokens on their grid, such that `block_fits` the block.
        turn: which block this is, and by how much its square windows are moved.
        interpret: run the kernels as ordinary JAX, on any device and slowly; for tests.

    Raises:
        ValueError: for a block without rectangular windows.
    """
    (_, h, w, c), heads = x.shape, options.n_heads
    dtype, rect = jnp.dtype(options.layers.dtype or x.dtype), _rectangle(options)
    tokens = x.reshape(-1, c)
    n = tokens.shape[0]

    def run(
        program: functools.partial,
        grid: tuple[int, ...],
        out: jax.ShapeDtypeStruct,
        *maps: Array,
        n_warps: int = 2,
    ) -> Array:
        return pallas.pallas_call(
            program,
            out_shape=out,
            grid=grid,
            compiler_params=triton.CompilerParams(num_warps=n_warps, num_stages=1),
            interpret=interpret,
            name=program.func.__name__,
        )(turn, dict(weights), tokens, *maps)

    def attend(
        program: Callable, window: tuple[int, int], width: int, keys: int, *maps: Array
    ) -> Array:
        n_windows = n // math.prod(window)
        at_once = windows_at_once(n_windows, heads)
        windows = programs.Windows(window, (h, w))
        program = functools.partial(program, windows=windows, at_once=at_once, d=width // heads)
        out = jax.ShapeDtypeStruct((n, width), dtype)
        n_warps = max(1, math.prod(window) * keys // _LOGITS_PER_WARP)
        return run(program, (n_windows // at_once, heads), out, *maps, n_warps=n_warps)

    make_anchors = functools.partial(programs.make_anchors, size=(h, w))
    half = jax.ShapeDtypeStruct((n // 4, c // 2), dtype)
    anchors = run(make_anchors, (n // 4 // programs.TOKENS,), half)
    square = (options.window, options.window)
    by_square = attend(programs.attend_in_squares, square, c, math.prod(square))
    by_rect = attend(programs.attend_in_rectangles, rect, c // 2, math.prod(rect) // 4, anchors)
    finish = functools.partial(programs.finish, dtype=dtype)
    whole = jax.ShapeDtypeStruct((n, c), x.dtype)
    return run(finish, (n // programs.TOKENS,), whole, by_square, by_rect).reshape(x.shape)


def _rectangle(options: BlockOptions) -> tuple[int, int]:
    if options.rect_window is None:
        raise ValueError("expected a block with rectangular windows, got none")
    return options.rect_window
