"""MGwinT blocks in four passes over their map, for NVIDIA GPUs (Pallas).

XLA writes a block's tokens, queries, keys, values, logits and hidden layer to memory and reads them
back, many times the map itself. Here programs hold them in registers: the first kernel makes the
anchors, the second attends in square windows, the third in rectangular ones, the fourth adds up
what these give and applies the MLP. Each reads the map and normalises it anew, which costs less
than to keep the result, and a rolled map is a matter of addresses. ``models.transformer`` is the
reference, what runs on every other device, and the gradient.

Kernels have the weights of all blocks and are told which to take, so that one program serves all
and no weight is copied. A program that attends has one head, of fewer channels than a matrix unit
takes: the others are zeros. It has several windows, and reads the position bias for all of them
once.
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

from kgmgt_jax.models.attention import MASKED, SMALLEST_NORM, AnchorStep, straight
from kgmgt_jax.models.block_options import BlockOptions
from kgmgt_jax.models.triton_arrays import divide, triton_holds

__all__ = ["block_fits", "block_in_kernels", "block_weights"]

_HEAD = 16  # channels of a head, filled up: the smallest side of a matrix product in Triton
_MOST_LOGITS = 2**12  # of a window and head, in registers
_MOST_CHANNELS = 2**6  # of a token's hidden layer; twice as many take XLA minutes to compile
_LOGITS_PER_WARP = 2**10
_LEAST_PROGRAMS = 1024  # that fill a GPU
_AT_ONCE = (8, 4, 2, 1)  # of a program
_TOKENS = 64  # of a program of the first and the last kernel
# erf(x) = 1 - (a1 t + ... + a5 t^5) exp(-x^2), t = 1 / (1 + p x), to 1.5e-7 (Abramowitz and Stegun
# 7.1.26); Pallas has no erf for GPUs
_ERF_P, *_ERF_A = 0.3275911, 0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429

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
        and h * w % (4 * _TOKENS) == 0
        and triton_holds(*sides)
        and min(sides) >= _HEAD >= options.width // options.n_heads
        and max(t * t, s * s // 4) <= _MOST_LOGITS
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
    direct, direct_bias, rect_out = straight(rect["qkv"], rect["out"])
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
        "direct": direct,
        "branch_bias": direct_bias + params["square"]["out"]["bias"],
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
            name=program.func.__name__.strip("_"),
        )(turn, dict(weights), tokens, *maps)

    def attend(
        program: Callable, window: tuple[int, int], width: int, keys: int, *maps: Array
    ) -> Array:
        n_windows = n // math.prod(window)
        at_once = next(
            k
            for k in _AT_ONCE
            if k == 1 or (n_windows % k == 0 and n_windows * heads >= k * _LEAST_PROGRAMS)
        )
        windows = _Windows(window, (h, w))
        program = functools.partial(program, windows=windows, at_once=at_once, d=width // heads)
        out = jax.ShapeDtypeStruct((n, width), dtype)
        n_warps = max(1, math.prod(window) * keys // _LOGITS_PER_WARP)
        return run(program, (n_windows // at_once, heads), out, *maps, n_warps=n_warps)

    half = jax.ShapeDtypeStruct((n // 4, c // 2), dtype)
    anchors = run(functools.partial(_anchors, size=(h, w)), (n // 4 // _TOKENS,), half)
    square = (options.window, options.window)
    by_square = attend(_in_squares, square, c, math.prod(square))
    by_rect = attend(_in_rectangles, rect, c // 2, math.prod(rect) // 4, anchors)
    finish, out = functools.partial(_finish, dtype=dtype), jax.ShapeDtypeStruct((n, c), x.dtype)
    return run(finish, (n // _TOKENS,), out, by_square, by_rect).reshape(x.shape)


def _rectangle(options: BlockOptions) -> tuple[int, int]:
    if options.rect_window is None:
        raise ValueError("expected a block with rectangular windows, got none")
    return options.rect_window


class _Windows:
    """Where the tokens of a window lie in maps (h, w) that follow each other in memory."""

    def __init__(self, window: tuple[int, int], size: tuple[int, int]):
        self.window, self.size = window, size

    @property
    def halved(self) -> "_Windows":
        """That of the anchors."""
        (wh, ww), (h, w) = self.window, self.size
        return _Windows((wh // 2, ww // 2), (h // 2, w // 2))

    def tokens(self) -> tuple[Int[Array, "t"], Int[Array, "t"]]:
        """Rows and columns of a window's tokens, counted in the window."""
        return divide(_arange(math.prod(self.window)), self.window[1])

    def coordinates(self, index: Array) -> tuple[Array, Int[Array, "t"], Int[Array, "t"]]:
        """Image, rows and columns of a window's tokens."""
        (wh, ww), (h, w), (i, j) = self.window, self.size, self.tokens()
        image, place = divide(index, (h // wh) * (w // ww))
        y, x = divide(place, w // ww)
        return image, y * wh + i, x * ww + j

    def address(self, image: Array, row: Array, column: Array) -> Int[Array, "t"]:
        """Of tokens, from coordinates that may lie one map too far."""
        h, w = self.size
        return (image * h + divide(row, h)[1]) * w + divide(column, w)[1]

    def part(self, row: Array, column: Array, shift: Array) -> Int[Array, "t"]:
        """Which part of the image a token of a map rolled by ``-shift`` is from: `shift_mask`'s."""

        def of(place: Array, n: int, side: int) -> Array:
            return (place >= n - side).astype(jnp.int32) + (place >= n - shift).astype(jnp.int32)

        (h, w), (wh, ww) = self.size, self.window
        return 3 * of(row, h, wh) + of(column, w, ww)


def _anchors(turn, weights, x, out, *, size: tuple[int, int]) -> None:
    """Some anchors: a depthwise 3 x 3 convolution with stride 2, and a pointwise one."""
    (h, w), c, block = size, x.shape[1], turn[0]
    place = pallas.program_id(0) * _TOKENS + _arange(_TOKENS)
    image, inside = divide(place, (h // 2) * (w // 2))
    row, column = divide(inside, w // 2)
    norm = _norm(weights, block, 1)
    bias = weights["depth_bias"][block, :].astype(jnp.float32)
    total = jnp.broadcast_to(bias[None], (_TOKENS, c))
    for k in range(9):
        y, x_ = 2 * row + k // 3 - 1, 2 * column + k % 3 - 1
        there = (y >= 0) & (y < h) & (x_ >= 0) & (x_ < w)
        tap = norm(_rows(x, jnp.where(there, (image * h + y) * w + x_, 0)))
        weight = weights["depth"][block, k, :].astype(jnp.float32)
        total += jnp.where(there[:, None], tap * weight[None], 0.0)
    channel = _arange(_HEAD)
    for start in range(0, out.shape[1], _HEAD):
        at, known = start + channel, start + channel < out.shape[1]
        point = _tile(weights["point"], block, _arange(c), at, known)
        anchor = _dot(total, point, out.dtype) + _row(weights["point_bias"], block, at, known)
        known = jnp.broadcast_to(known[None], anchor.shape)
        triton.store(out.at[place[:, None], at[None]], anchor.astype(out.dtype), mask=known)


def _in_squares(turn, weights, x, out, *, windows: _Windows, at_once: int, d: int) -> None:
    """Some square windows of one head."""
    block, shift, head = turn[0], turn[1], pallas.program_id(1)
    project = _projection(weights, "square", block, head, d, out.dtype, scale=d**-0.5)
    norm, side = _norm(weights, block, 1), windows.window[0]
    i, j = windows.tokens()
    dy, dx = (a[:, None] - a[None, :] + side - 1 for a in (i, j))
    bias = triton.load(weights["square_table"].at[block, dy * (2 * side - 1) + dx, head])

    def attend_one(index: Array) -> None:
        image, row, column = windows.coordinates(index)
        address = windows.address(image, row + shift, column + shift)
        q, k, v = project(norm(_rows(x, address)))
        part = windows.part(row, column, shift)
        mask = jnp.where(part[:, None] != part[None, :], MASKED, 0.0)
        logits = _dot(q, k, out.dtype, by_row=True) + bias.astype(jnp.float32) + mask
        _store_head(out, address, head, d, _mean(logits, v, out.dtype))

    _for_each(at_once, attend_one)


def _in_rectangles(
    turn, weights, x, anchors, out, *, windows: _Windows, at_once: int, d: int
) -> None:
    """Some rectangular windows of one head."""
    block, head = turn[0], pallas.program_id(1)
    project = _projection(weights, "rect", block, head, d, out.dtype, start=3 * out.shape[1])
    norm, coarse = _norm(weights, block, 1), windows.halved
    gather, spread = (
        weights[name][block, head].astype(jnp.float32) for name in ("gather", "spread")
    )
    gather_scale, spread_scale = (weights[f"{n}_scale"][block, head] for n in ("gather", "spread"))

    def attend_one(index: Array) -> None:
        address = windows.address(*windows.coordinates(index))
        q, k, v = project(norm(_rows(x, address)))
        place, channel, known = _head_of(coarse.address(*coarse.coordinates(index)), head, d)
        anchor = _unit(triton.load(anchors.at[place, channel], mask=known, other=0.0))
        logits = _dot(gather_scale * anchor, _unit(k), out.dtype, by_row=True) + gather
        summary = _mean(logits, v, out.dtype)
        logits = _dot(spread_scale * _unit(q), anchor, out.dtype, by_row=True) + spread
        _store_head(out, address, head, d, _mean(logits, summary, out.dtype))

    _for_each(at_once, attend_one)


def _finish(turn, weights, x, by_square, by_rect, out, *, dtype: Any) -> None:
    """Some tokens: output layers of both attentions, their sum with the map, and the MLP."""
    block = turn[0]
    token = pallas.program_id(0) * _TOKENS + _arange(_TOKENS)
    channel = jnp.broadcast_to(_arange(x.shape[1])[None], (_TOKENS, x.shape[1]))
    known = channel < by_rect.shape[1]
    attended = triton.load(by_rect.at[token[:, None], channel], mask=known, other=0.0)
    matrix = lambda name: weights[name][block, :, :]  # noqa: E731
    vector = lambda name: weights[name][block, :].astype(jnp.float32)[None]  # noqa: E731
    before = _rows(x, token)
    branch = _dot(_rows(by_square, token), matrix("square_out"), dtype)
    branch += _dot(attended, matrix("rect_out"), dtype)
    branch += _dot(_norm(weights, block, 1)(before), matrix("direct"), dtype)
    mid = before + branch + vector("branch_bias")
    hidden = _dot(_norm(weights, block, 2)(mid), matrix("mlp1"), dtype) + vector("mlp1_bias")
    after = mid + _dot(_gelu(hidden), matrix("mlp2"), dtype) + vector("mlp2_bias")
    triton.store(out.at[token[:, None], channel], after.astype(out.dtype))


def _for_each(at_once: int, one: Callable[[Array], None]) -> None:
    first = pallas.program_id(0) * at_once
    turn = lambda j, _: one(first + j)  # noqa: E731
    jax.lax.fori_loop(jnp.int32(0), jnp.int32(at_once), turn, None)


def _arange(n: int) -> Int[Array, "n"]:
    return jnp.arange(n, dtype=jnp.int32)


def _rows(x: Any, address: Int[Array, "t"]) -> Float[Array, "t c"]:
    return triton.load(x.at[address[:, None], _arange(x.shape[1])[None]]).astype(jnp.float32)


def _tile(kernel: Any, block: Array, row: Array, column: Array, known: Array) -> Array:
    """Rows and columns of a block's matrix, zeros where a column is none of it."""
    known = jnp.broadcast_to(known[None], (row.shape[0], column.shape[0]))
    return triton.load(kernel.at[block, row[:, None], column[None]], mask=known, other=0.0)


def _row(vector: Any, block: Array, column: Array, known: Array) -> Float[Array, "1 c"]:
    return triton.load(vector.at[block, column], mask=known, other=0.0).astype(jnp.float32)[None]


def _projection(
    weights: Mapping[str, Any],
    branch: str,
    block: Array,
    head: Array,
    d: int,
    dtype: Any,
    *,
    start: int = 0,
    scale: float = 1.0,
) -> Callable[[Float[Array, "t c"]], list[Float[Array, "t d"]]]:
    """Linear layers to q, k and v of a head, whose columns begin at ``start``; q by ``scale``."""
    kernel, bias = weights[f"{branch}_qkv"], weights[f"{branch}_qkv_bias"]
    channel, layers = _arange(_HEAD), []
    each = (kernel.shape[2] - start) // 3
    for i in range(3):
        column = start + i * each + head * d + channel
        matrix = _tile(kernel, block, _arange(kernel.shape[1]), column, channel < d)
        layers.append((matrix, _row(bias, block, column, channel < d), scale if i == 0 else 1.0))
    return lambda n: [(_dot(n, a, dtype) + b) * factor for a, b, factor in layers]


def _head_of(address: Int[Array, "t"], head: Array, d: int) -> tuple[Array, Array, Array]:
    """Rows and columns of a head's channels, filled up, and which are the head's own."""
    channel = jnp.broadcast_to(_arange(_HEAD)[None], (address.shape[0], _HEAD))
    return address[:, None], head * d + channel, channel < d


def _store_head(out: Any, address: Array, head: Array, d: int, value: Array) -> None:
    place, channel, known = _head_of(address, head, d)
    triton.store(out.at[place, channel], value.astype(out.dtype), mask=known)


def _norm(weights: Mapping[str, Any], block: Array, which: int) -> Callable[[Array], Array]:
    """A layer norm of the block."""
    scale, offset = (
        weights[f"{name}{which}"][block, :].astype(jnp.float32)[None]
        for name in ("scale", "offset")
    )

    def norm(x: Float[Array, "t c"]) -> Float[Array, "t c"]:
        x = x - jnp.mean(x, axis=1, keepdims=True)
        variance = jnp.mean(jnp.square(x), axis=1, keepdims=True)
        return x * jax.lax.rsqrt(variance + 1e-5) * scale + offset

    return norm


def _unit(x: Float[Array, "t d"]) -> Float[Array, "t d"]:
    x = x.astype(jnp.float32)
    square = jnp.sum(jnp.square(x), axis=1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, SMALLEST_NORM**2))


def _mean(logits: Float[Array, "t s"], v: Float[Array, "s d"], dtype: Any) -> Float[Array, "t d"]:
    """``softmax(logits) v``."""
    weights = jnp.exp(logits - jnp.max(logits, axis=1, keepdims=True))
    return _dot(weights, v, dtype) / jnp.sum(weights, axis=1, keepdims=True)


def _gelu(x: Float[Array, "t c"]) -> Float[Array, "t c"]:
    z = jnp.abs(x) * math.sqrt(0.5)
    t, series = 1 / (1 + _ERF_P * z), jnp.zeros_like(z)
    for a in reversed(_ERF_A):
        series = (series + a) * t
    tail = 0.5 * series * jnp.exp(-z * z)  # of the normal distribution, beyond |x|
    return x * jnp.where(x < 0, tail, 1 - tail)


def _dot(a: Array, b: Array, dtype: Any, *, by_row: bool = False) -> Float[Array, "t s"]:
    """``a b``, or ``a`` times the transpose of ``b``, of factors rounded to ``dtype``."""
    return jax.lax.dot_general(
        a.astype(dtype),
        b.astype(dtype),
        (((1,), (1 if by_row else 0,)), ((), ())),
        precision=jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None,
        preferred_element_type=jnp.float32,
    )
