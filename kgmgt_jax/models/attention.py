"""Window attention: square (SW-MSA), anchored rectangular (RW-MSA), and global for comparison."""

import functools
import math
from collections.abc import Mapping
from typing import Any

import einops
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from kgmgt_jax.models.attend import attend
from kgmgt_jax.models.initialisation import Initialiser, constant
from kgmgt_jax.models.layers import DepthwiseConv, Layers, LinearWeights
from kgmgt_jax.models.windows import (
    merge_windows,
    pad_to_windows,
    padding_logits,
    partition_windows,
    relative_position_index,
    shift_mask,
)

__all__ = [
    "MASKED",
    "SMALLEST_NORM",
    "AnchorStep",
    "AnchoredAttention",
    "GlobalAttention",
    "SquareAttention",
    "anchored_attention",
    "bypass_weights",
    "square_attention",
]

MASKED = -100.0  # between parts of a shifted map, as in the released code
SMALLEST_NORM = 1e-12  # that a head is divided by
_QUERY_CHUNK = 1024
_BIAS_HIDDEN = 512


def square_attention(
    qkv: Float[Array, "b h w c3"],
    bias_table: Float[Array, "table heads"],
    mask: Float[Array, "windows q k"] | None = None,
    *,
    window: int,
    pallas: bool = False,
) -> Float[Array, "b h w c"]:
    """Multi-head self-attention inside square windows.

    Args:
        qkv: queries, keys and values, one after the other, each with heads major.
        bias_table: relative position bias, ``(2 window - 1)^2`` rows.
        mask: added to the logits of each window.
        window: side; must divide h and w.
        pallas: as of ``attend``.

    Source: Liu et al., Swin Transformer, 2021.
    """
    _, h, _, c3 = qkv.shape
    heads, size = bias_table.shape[-1], (window, window)
    q, k, v = (partition_windows(part, size, heads) for part in jnp.split(qkv, 3, axis=-1))
    bias = jnp.moveaxis(bias_table[relative_position_index(size, size)], -1, 0)  # heads q k
    out = attend(q * (c3 // 3 // heads) ** -0.5, k, v, bias, mask, pallas=pallas)
    return merge_windows(out, size, h)


def _normalise_heads(x: Float[Array, "b h w c"], heads: int) -> Float[Array, "b h w c"]:
    """``x / ||x||`` by head, finite with its gradient at zero.

    The sums over a head's two or four channels are a product with a constant matrix: along so short
    an axis, a CPU would add them up one by one.
    """
    n = x.shape[-1] // heads
    full = jnp.promote_types(x.dtype, jnp.float32)
    same_head = jnp.asarray(np.kron(np.eye(heads), np.ones((n, n))), full)
    square = jnp.matmul(jnp.square(x.astype(full)), same_head, precision="highest")
    square = jax.lax.optimization_barrier(square)
    return x * jax.lax.rsqrt(jnp.maximum(square, SMALLEST_NORM**2)).astype(x.dtype)


def anchored_attention(
    q: Float[Array, "b h w c"],
    k: Float[Array, "b h w c"],
    v: Float[Array, "b h w c"],
    anchor: Float[Array, "b h2 w2 c"],
    scales: tuple[Float[Array, "heads"], Float[Array, "heads"]],
    biases: tuple[Float[Array, "heads a t"], Float[Array, "heads t a"]],
    *,
    window: tuple[int, int],
    pallas: bool = False,
) -> Float[Array, "b h w c"]:
    """Attention in rectangular windows in two steps, by way of an anchor grid of half resolution.

    ``A = softmax(S1 cos(anchor, k) + B1) v``, ``out = softmax(S2 cos(q, anchor) + B2) A``: each
    token attends to its window at a quarter of the cost. Windows that reach over the edge of the
    map are padded, the padding masked, and the result cropped.

    Args:
        q, k, v: by token, heads major in the channels.
        anchor: summary of the map at half resolution.
        scales: S1, S2, inverse temperatures a head.
        biases: B1, B2, by position in anchor window (a) and window (t).
        window: height and width in tokens, both even.
        pallas: as of ``attend``.

    Source: Li et al., GRL, 2023 (anchored stripe attention).
    """
    _, h, w, _ = q.shape
    _, h2, w2, _ = anchor.shape
    heads = scales[0].shape[0]
    half = (window[0] // 2, window[1] // 2)
    q, k, anchor = (_normalise_heads(x, heads) for x in (q, k, anchor))
    q, k, v = (partition_windows(pad_to_windows(x, window), window, heads) for x in (q, k, v))
    anchors = partition_windows(pad_to_windows(anchor, half), half, heads)
    scale1, scale2 = (scale.reshape(1, 1, heads, 1, 1).astype(q.dtype) for scale in scales)
    padding, anchor_padding = padding_logits(h, w, window), padding_logits(h2, w2, half)
    summary = attend(scale1 * anchors, k, v, biases[0], padding, pallas=pallas)
    out = attend(scale2 * q, anchors, summary, biases[1], anchor_padding, pallas=pallas)
    return merge_windows(out, window, h + -h % window[0])[:, :h, :w]


class SquareAttention(nn.Module):
    """SW-MSA: linear to q, k, v; shifted square windows; linear out.

    Attributes:
        width: channels of a token.
        n_heads: heads; must divide ``width``.
        window: side b of a window.
        layers: precision and initialisation.
    """

    width: int
    n_heads: int
    window: int
    layers: Layers = Layers()

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], shifted: Bool[Array, ""] | bool = False
    ) -> Float[Array, "b h w c"]:
        """Attends; ``shifted`` says whether the windows are moved by half of their side."""
        _, h, w, _ = x.shape
        rows = (2 * self.window - 1) ** 2
        init = Initialiser("truncated_normal", 0.02)
        table = self.param("bias_table", init, (rows, self.n_heads))
        half = self.window // 2
        shift: Any = jnp.where(shifted, half, 0)
        rolled = jnp.roll(x, (-shift, -shift), axis=(1, 2))
        apart = shift_mask(h, w, self.window, half)
        mask = jnp.where(jnp.logical_and(shifted, apart), jnp.float32(MASKED), 0.0)
        qkv = self.layers.dense(3 * self.width, name="qkv")(rolled)
        out = square_attention(qkv, table, mask, window=self.window, pallas=self.layers.pallas)
        out = self.layers.dense(self.width, name="out")(out)
        return jnp.roll(out, (shift, shift), axis=(1, 2))


class AnchorStep(nn.Module):
    """Scale and position bias of one step of anchored attention.

    ``S = exp(min(logit_scale, ln 100))`` a head, ``B = 16 sigmoid(MLP(displacement))``; the MLP
    sees displacements c as ``sign(c') log2(|c'| + 1) / 3``, ``c' = 8 c / half-range``, by axis.

    Attributes:
        n_heads: heads.
        layers: initialisation; scale and bias are always at parameter precision.

    Source: Li et al., GRL, 2023 (anchored stripe attention).
    """

    n_heads: int
    layers: Layers = Layers()

    @nn.compact
    def __call__(
        self, query: tuple[int, int], key: tuple[int, int]
    ) -> tuple[Float[Array, "heads"], Float[Array, "heads q k"]]:
        """S and B.

        Args:
            query, key: height and width of the windows that queries and keys are from.
        """
        axes = []
        for n in (query[0] + key[0] - 1, query[1] + key[1] - 1):
            half = (n - 1) / 2
            c = 8 * (np.arange(n) - half) / half
            axes.append(np.sign(c) * np.log2(np.abs(c) + 1) / 3)
        table = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
        log_scale = self.param("logit_scale", constant(math.log(10)), (self.n_heads,))
        table = jnp.asarray(table, log_scale.dtype)
        full = Layers(weight_init=self.layers.weight_init)
        hidden = jax.nn.relu(full.dense(_BIAS_HIDDEN, name="hidden")(table))
        entries = full.dense(self.n_heads, use_bias=False, name="bias")(hidden)
        bias = jax.nn.sigmoid(entries[relative_position_index(query, key)]) * 16
        return jnp.exp(jnp.minimum(log_scale, math.log(100))), jnp.moveaxis(bias, -1, 0)


def bypass_weights(
    qkv: Mapping[str, Array], out: Mapping[str, Array]
) -> tuple[Float[Array, "c c"], Float[Array, "c"], Float[Array, "c2 c"]]:
    """What leads past the attention of `AnchoredAttention`, and the rest of its output layer.

    Args:
        qkv: kernel and bias of its first layer.
        out: kernel and bias of its last.

    Returns:
        Kernel and bias of the two as one, and the output layer's kernel for what attended.
    """
    n = qkv["bias"].shape[0] // 2
    kernel, rest = jnp.split(out["kernel"], [n])
    product = functools.partial(jnp.matmul, precision="highest")
    bias = product(qkv["bias"][:n], kernel) + out["bias"]
    return product(qkv["kernel"][:, :n], kernel), bias, rest


class AnchoredAttention(nn.Module):
    """RW-MSA: half of the channels bypass, half attend in rectangular windows through anchors.

    One linear layer gives three times ``width`` channels: the first half passes straight to the
    output layer, the second is q, k, v of ``width / 2``. Anchors: a depthwise 3 x 3 convolution
    with stride 2 and a pointwise one. Of the bypass, two linear layers with nothing between, the
    product of the kernels is applied.

    Attributes:
        width: channels of a token; ``n_heads`` must divide its half.
        n_heads: heads.
        window: height and width in tokens, both even.
        layers: precision and initialisation.

    Source: mixed attention of the released code. Deviation: its windows are 8 x 8 whatever the
    orientation asked for; here they are rectangles, as the paper says.
    """

    width: int
    n_heads: int
    window: tuple[int, int]
    layers: Layers = Layers()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        half, n_bypass = self.width // 2, 3 * self.width // 2
        anchor = DepthwiseConv(self.layers, name="anchor_depth")(x)
        anchor = self.layers.pointwise(half, name="anchor_point")(anchor)
        qkv = LinearWeights((self.width, 2 * n_bypass), self.layers, name="qkv")()
        out = LinearWeights((2 * self.width, self.width), self.layers, name="out")()
        mixed = self.layers.linear(x, qkv["kernel"][:, n_bypass:], qkv["bias"][n_bypass:])
        q, k, v = jnp.split(mixed, 3, axis=-1)
        anchors = (self.window[0] // 2, self.window[1] // 2)
        scale1, bias1 = AnchorStep(self.n_heads, self.layers, name="gather")(anchors, self.window)
        scale2, bias2 = AnchorStep(self.n_heads, self.layers, name="spread")(self.window, anchors)
        scales, biases, pallas = (scale1, scale2), (bias1, bias2), self.layers.pallas
        attended = anchored_attention(
            q, k, v, anchor, scales, biases, window=self.window, pallas=pallas
        )
        bypass, bias, rest = bypass_weights(qkv, out)
        return self.layers.linear(x, bypass, bias) + self.layers.linear(attended, rest, None)


class GlobalAttention(nn.Module):
    """Plain self-attention of every pixel to every pixel: the paper's "global MSA" comparison.

    Queries go through in blocks, so memory grows with the number of pixels, time with its square.

    Attributes:
        width: channels of a token.
        n_heads: heads; must divide ``width``.
        layers: precision and initialisation.
    """

    width: int
    n_heads: int
    layers: Layers = Layers()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        b, h, w, _ = x.shape
        qkv = self.layers.dense(3 * self.width, name="qkv")(x)
        q, k, v = (
            einops.rearrange(part, "b h w (k d) -> b 1 k (h w) d", k=self.n_heads)
            for part in jnp.split(qkv, 3, axis=-1)
        )
        q = q * (self.width // self.n_heads) ** -0.5
        chunk = math.gcd(h * w, _QUERY_CHUNK)

        def block(q: Float[Array, "b 1 heads q d"]) -> Float[Array, "b 1 heads q d"]:
            return attend(q, k, v)

        blocks = einops.rearrange(q, "b 1 k (n q) d -> n b 1 k q d", q=chunk)
        out = einops.rearrange(jax.lax.map(block, blocks), "n b 1 k q d -> b (n q) (k d)")
        return self.layers.dense(self.width, name="out")(out.reshape(b, h, w, self.width))
