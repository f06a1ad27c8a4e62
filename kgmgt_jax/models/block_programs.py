"""The four programs of ``models.block_kernel``: what each does with the tokens that it holds.

Their first arguments are those of every one: which block this is and by how much its square windows
are moved, the weights of all blocks by name, and the map as (tokens c); then come maps of further
kernels, and the result. A program that attends has one head, of fewer channels than a matrix unit
takes: the others are zeros.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas
from jax.experimental.pallas import triton
from jaxtyping import Array, Float, Int

from kgmgt_jax.models.attend_kernel import for_each_window, softmax_mean
from kgmgt_jax.models.attention import MASKED, SMALLEST_NORM
from kgmgt_jax.models.triton_arrays import SMALLEST_SIDE, arange, divide, product

__all__ = [
    "HEAD",
    "TOKENS",
    "Windows",
    "attend_in_rectangles",
    "attend_in_squares",
    "finish",
    "make_anchors",
]

HEAD = SMALLEST_SIDE  # channels of a head, filled up
TOKENS = 64  # of a program of the first and the last kernel
# erf(x) = 1 - (a1 t + ... + a5 t^5) exp(-x^2), t = 1 / (1 + p x), to 1.5e-7 (Abramowitz and Stegun
# 7.1.26); Pallas has no erf for GPUs
_ERF_P, *_ERF_A = 0.3275911, 0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429


class Windows:
    """Where the tokens of a window lie in maps (h, w) that follow each other in memory."""

    def __init__(self, window: tuple[int, int], size: tuple[int, int]):
        self.window, self.size = window, size

    @property
    def halved(self) -> "Windows":
        """That of the anchors."""
        (wh, ww), (h, w) = self.window, self.size
        return Windows((wh // 2, ww // 2), (h // 2, w // 2))

    def tokens(self) -> tuple[Int[Array, "t"], Int[Array, "t"]]:
        """Rows and columns of a window's tokens, counted in the window."""
        return divide(arange(math.prod(self.window)), self.window[1])

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


def make_anchors(turn, weights, x, out, *, size: tuple[int, int]) -> None:
    """Some anchors: a depthwise 3 x 3 convolution with stride 2, and a pointwise one."""
    (h, w), c, block = size, x.shape[1], turn[0]
    place = pallas.program_id(0) * TOKENS + arange(TOKENS)
    image, inside = divide(place, (h // 2) * (w // 2))
    row, column = divide(inside, w // 2)
    norm = _norm(weights, block, 1)
    bias = weights["depth_bias"][block, :].astype(jnp.float32)
    total = jnp.broadcast_to(bias[None], (TOKENS, c))
    for k in range(9):
        y, x_ = 2 * row + k // 3 - 1, 2 * column + k % 3 - 1
        there = (y >= 0) & (y < h) & (x_ >= 0) & (x_ < w)
        tap = norm(_rows(x, jnp.where(there, (image * h + y) * w + x_, 0)))
        weight = weights["depth"][block, k, :].astype(jnp.float32)
        total += jnp.where(there[:, None], tap * weight[None], 0.0)
    channel = arange(HEAD)
    for start in range(0, out.shape[1], HEAD):
        at, known = start + channel, start + channel < out.shape[1]
        point = _tile(weights["point"], block, arange(c), at, known)
        anchor = product(total, point, out.dtype) + _row(weights["point_bias"], block, at, known)
        known = jnp.broadcast_to(known[None], anchor.shape)
        triton.store(out.at[place[:, None], at[None]], anchor.astype(out.dtype), mask=known)


def attend_in_squares(turn, weights, x, out, *, windows: Windows, at_once: int, d: int) -> None:
    """Some square windows of one head."""
    block, shift, head = turn[0], turn[1], pallas.program_id(1)
    project = _projection(weights, "square", block, head, d, out.dtype, scale=d**-0.5)
    norm, side = _norm(weights, block, 1), windows.window[0]
    i, j = windows.tokens()
    dy, dx = (a[:, None] - a[None, :] + side - 1 for a in (i, j))
    bias = triton.load(weights["square_table"].at[block, dy * (2 * side - 1) + dx, head])

    def attend_one(index: Array, _: None) -> None:
        image, row, column = windows.coordinates(index)
        address = windows.address(image, row + shift, column + shift)
        q, k, v = project(norm(_rows(x, address)))
        part = windows.part(row, column, shift)
        mask = jnp.where(part[:, None] != part[None, :], MASKED, 0.0)
        logits = product(q, k, out.dtype, over=(1, 1)) + bias.astype(jnp.float32) + mask
        _store_head(out, address, head, d, softmax_mean(logits, v, out.dtype))

    for_each_window(at_once, attend_one, None)


def attend_in_rectangles(
    turn, weights, x, anchors, out, *, windows: Windows, at_once: int, d: int
) -> None:
    """Some rectangular windows of one head."""
    block, head = turn[0], pallas.program_id(1)
    project = _projection(weights, "rect", block, head, d, out.dtype, start=3 * out.shape[1])
    norm, coarse = _norm(weights, block, 1), windows.halved
    gather, spread = (
        weights[name][block, head].astype(jnp.float32) for name in ("gather", "spread")
    )
    gather_scale, spread_scale = (weights[f"{n}_scale"][block, head] for n in ("gather", "spread"))

    def attend_one(index: Array, _: None) -> None:
        address = windows.address(*windows.coordinates(index))
        q, k, v = project(norm(_rows(x, address)))
        place, channel, known = _head_of(coarse.address(*coarse.coordinates(index)), head, d)
        anchor = _unit(triton.load(anchors.at[place, channel], mask=known, other=0.0))
        logits = product(gather_scale * anchor, _unit(k), out.dtype, over=(1, 1)) + gather
        summary = softmax_mean(logits, v, out.dtype)
        logits = product(spread_scale * _unit(q), anchor, out.dtype, over=(1, 1)) + spread
        _store_head(out, address, head, d, softmax_mean(logits, summary, out.dtype))

    for_each_window(at_once, attend_one, None)


def finish(turn, weights, x, by_square, by_rect, out, *, dtype: Any) -> None:
    """Some tokens: output layers of both attentions, their sum with the map, and the MLP."""
    block = turn[0]
    token = pallas.program_id(0) * TOKENS + arange(TOKENS)
    channel = jnp.broadcast_to(arange(x.shape[1])[None], (TOKENS, x.shape[1]))
    known = channel < by_rect.shape[1]
    attended = triton.load(by_rect.at[token[:, None], channel], mask=known, other=0.0)
    matrix = lambda name: weights[name][block, :, :]  # noqa: E731
    vector = lambda name: weights[name][block, :].astype(jnp.float32)[None]  # noqa: E731
    before = _rows(x, token)
    branch = product(_rows(by_square, token), matrix("square_out"), dtype)
    branch += product(attended, matrix("rect_out"), dtype)
    branch += product(_norm(weights, block, 1)(before), matrix("bypass"), dtype)
    mid = before + branch + vector("branch_bias")
    hidden = product(_norm(weights, block, 2)(mid), matrix("mlp1"), dtype) + vector("mlp1_bias")
    after = mid + product(_gelu(hidden), matrix("mlp2"), dtype) + vector("mlp2_bias")
    triton.store(out.at[token[:, None], channel], after.astype(out.dtype))


def _rows(x: Any, address: Int[Array, "t"]) -> Float[Array, "t c"]:
    return triton.load(x.at[address[:, None], arange(x.shape[1])[None]]).astype(jnp.float32)


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
    channel, layers = arange(HEAD), []
    each = (kernel.shape[2] - start) // 3
    for i in range(3):
        column = start + i * each + head * d + channel
        matrix = _tile(kernel, block, arange(kernel.shape[1]), column, channel < d)
        layers.append((matrix, _row(bias, block, column, channel < d), scale if i == 0 else 1.0))
    return lambda n: [(product(n, a, dtype) + b) * factor for a, b, factor in layers]


def _head_of(address: Int[Array, "t"], head: Array, d: int) -> tuple[Array, Array, Array]:
    """Rows and columns of a head's channels, filled up, and which are the head's own."""
    channel = jnp.broadcast_to(arange(HEAD)[None], (address.shape[0], HEAD))
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


def _gelu(x: Float[Array, "t c"]) -> Float[Array, "t c"]:
    z = jnp.abs(x) * math.sqrt(0.5)
    t, series = 1 / (1 + _ERF_P * z), jnp.zeros_like(z)
    for a in reversed(_ERF_A):
        series = (series + a) * t
    tail = 0.5 * series * jnp.exp(-z * z)  # of the normal distribution, beyond |x|
    return x * jnp.where(x < 0, tail, 1 - tail)
