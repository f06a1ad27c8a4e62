"""Parts of the oracle of ``base``: frame encoder, alignment, transformer body.

Written from parts II and III of the architecture notes alone; of the package it knows the names and
layouts of the parameters, nothing else. Made to be read, not to be fast. The deformable convolution
is that of the released network. Where the notes leave something open, the package's choice is taken
and the docstring says "our choice".

Feature maps are (b, c, h, w), tokens and flows (b, h, w, c). Flows are (x, y).
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tests.oracles.torch_layers import MAX_OFFSET, TAPS, modulated_deform_conv

Parameters = Mapping[str, Any]
Fields = Mapping[str, Any]


def conv(p: Parameters, x: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
    """Zero-padded 3x3 convolution; kernels are stored (kh, kw, in, out)."""
    return F.conv2d(x, p["kernel"].permute(3, 2, 0, 1), p["bias"], stride, 1, groups=groups)


def linear(p: Parameters, x: Tensor) -> Tensor:
    return x @ p["kernel"] + p["bias"]


def layer_norm(p: Parameters, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], p["scale"], p["bias"], 1e-5)


def channels_last(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h w c"]:
    return x.permute(0, 2, 3, 1)


def channels_first(x: Float[Tensor, "b h w c"]) -> Float[Tensor, "b c h w"]:
    return x.permute(0, 3, 1, 2)


def places(h: int, w: int) -> Int[Tensor, "hw 2"]:
    """(y, x) of each pixel, row by row."""
    return torch.cartesian_prod(torch.arange(h), torch.arange(w))


# ---------------------------------------------------------------- frame encoder


def encode(p: Parameters, image: Float[Tensor, "b 2 h w"]) -> tuple[Tensor, list[Tensor]]:
    """Query (or key), before its activation, and the values V_1, V_2, V_3."""
    v1 = F.leaky_relu(conv(p["conv1_1"], image), 0.2)
    x = F.max_pool2d(F.leaky_relu(conv(p["conv1_2"], v1), 0.2), 2)
    v2 = F.leaky_relu(conv(p["conv2_1"], x), 0.2)
    x = F.max_pool2d(F.leaky_relu(conv(p["conv2_2"], v2), 0.2), 2)
    query = conv(p["conv3_1"], x)
    return query, [v1, v2, F.leaky_relu(query, 0.2)]


# ---------------------------------------------------------------- alignment


class Motion(NamedTuple):
    """At one scale: the flow that features are warped with, nine corner flows, similarity."""

    warp: Float[Tensor, "b h w 2"]
    taps: Float[Tensor, "b 9 h w 2"]
    similarity: Float[Tensor, "b 1 h w"]


def similarities(
    query: Float[Tensor, "b c h w"], key: Float[Tensor, "b c h w"], radius: int | None
) -> tuple[Float[Tensor, "b p q"], Float[Tensor, "p q 2"]]:
    """Cosine of target patch p and reference patch q, -1e9 out of reach; displacement q - p."""
    corner = places(query.shape[2] - 2, query.shape[3] - 2)
    move = corner[None] - corner[:, None]
    t, r = (F.unfold(F.normalize(x, dim=1, eps=1e-12), 3) for x in (query, key))
    t, r = (x / (x.norm(dim=1, keepdim=True) + 1e-5) for x in (t, r))
    cosine = t.transpose(1, 2) @ r
    if radius is not None:
        cosine = cosine.masked_fill((move.abs() > radius).any(-1), -1e9)
    return cosine, move.flip(-1).to(query)


def match(p: Parameters, query: Tensor, key: Tensor, fields: Fields) -> list[Motion]:
    """Motion at full, half and quarter resolution.

    Our choice: the similarity of a soft flow is expected under the same weights, and repeated.
    """
    cosine, move = similarities(query, key, fields["search_radius"])
    if fields["flow"] == "soft":
        weight = (p["log_inverse_temperature"].exp() * cosine).softmax(-1)
        flow = torch.einsum("bpq,pqi->bpi", weight, move)
        value = (weight * cosine).sum(-1)
    else:
        value, index = cosine.max(-1)  # the first on ties
        flow = move[torch.arange(len(move)), index]
    size = (query.shape[2] - 2, query.shape[3] - 2)
    flow, value = flow.unflatten(1, size), F.pad(value.unflatten(1, size), (1, 1, 1, 1))[:, None]
    corner, centred = (F.pad(flow, (0, 0, *p)) for p in ((0, 2, 0, 2), (1, 1, 1, 1)))
    warp_flow = centred if fields["warp_flow"] == "centred" else corner
    return [motion_at(f, corner, warp_flow, value, fields["flow"]) for f in (4, 2, 1)]


def motion_at(f: int, corner: Tensor, warp_flow: Tensor, value: Tensor, kind: str) -> Motion:
    """Motion ``f`` times as large; tap (i, j) has the flow of the patch at y - i f, x - j f."""
    corner, warp_flow = f * enlarge(corner, f, kind), f * enlarge(warp_flow, f, kind)
    h, w = corner.shape[1:3]
    taps = [F.pad(corner, (0, 0, j * f, 0, i * f, 0)) for i in range(3) for j in range(3)]
    value = value.repeat_interleave(f, 2).repeat_interleave(f, 3)
    return Motion(warp_flow, torch.stack([x[:, :h, :w] for x in taps], 1), value)


def enlarge(flow: Float[Tensor, "b h w 2"], f: int, kind: str) -> Tensor:
    """Whole flows are repeated, soft ones interpolated between the centres of cells."""
    if kind == "soft":
        return channels_last(F.interpolate(channels_first(flow), scale_factor=f, mode="bilinear"))
    return flow.repeat_interleave(f, 1).repeat_interleave(f, 2)


def warp(x: Float[Tensor, "b c h w"], flow: Float[Tensor, "b h w 2"]) -> Float[Tensor, "b c h w"]:
    """x at pixel + flow, bilinear, zero outside."""
    h, w = x.shape[2:]
    at = places(h, w).flip(-1).view(h, w, 2) + flow
    at = 2 * at / torch.tensor([w - 1, h - 1]) - 1  # grid_sample's: -1 to 1 between corner pixels
    return F.grid_sample(x, at, mode="bilinear", padding_mode="zeros", align_corners=True)


def align(p: Parameters, x: Tensor, value: Tensor, motion: Motion | None, groups: int) -> Tensor:
    """D: the reference's features aggregated along the motion, or convolved where they are."""
    if motion is None:
        return F.leaky_relu(conv(p["plain"], value), 0.2)
    feat = torch.cat((x, warp(value, motion.warp), value), 1)
    for name in ("offset_conv1", "offset_conv2"):
        feat = F.leaky_relu(conv(p[name], feat), 0.2)
    p = p["dyn_agg"]
    o = channels_last(conv(p["conv_offset_mask"], feat))
    moves, logits = o.split((2 * groups * TAPS, groups * TAPS), -1)
    taps = motion.taps.permute(0, 2, 3, 1, 4).flip(-1).unsqueeze(3)  # b h w 1 9 (y x)
    offset = MAX_OFFSET * moves.tanh().unflatten(-1, (groups, TAPS, 2)) + taps
    mask = (logits * channels_last(motion.similarity)).sigmoid().unflatten(-1, (groups, TAPS))
    kernel = p["kernel"].permute(3, 2, 0, 1)
    return F.leaky_relu(modulated_deform_conv(value, offset, mask, kernel, p["bias"]), 0.2)


# ---------------------------------------------------------------- transformer body


def cut(
    x: Float[Tensor, "b h w c"], size: tuple[int, int]
) -> tuple[Float[Tensor, "b n t c"], Bool[Tensor, "n t"]]:
    """Windows of a map padded at the bottom and right, and which tokens the map itself has."""
    pad = (0, 0, 0, -x.shape[2] % size[1], 0, -x.shape[1] % size[0])
    pattern = "b (n i) (m j) c -> b (n m) (i j) c"
    x, known = (
        rearrange(F.pad(y, pad), pattern, i=size[0], j=size[1])
        for y in (x, torch.ones_like(x[:1, :, :, :1]))
    )
    return x, known[0, :, :, 0] > 0


def paste(x: Float[Tensor, "b n t c"], size: tuple[int, int], h: int, w: int) -> Tensor:
    """Inverse of ``cut`` for a map of h x w."""
    pattern = "b (n m) (i j) c -> b (n i) (m j) c"
    return rearrange(x, pattern, n=-(-h // size[0]), i=size[0], j=size[1])[:, :h, :w]


def split_heads(x: Float[Tensor, "b n t c"], heads: int) -> Float[Tensor, "b n heads t d"]:
    return rearrange(x, "b n t (heads d) -> b n heads t d", heads=heads)


def join_heads(x: Float[Tensor, "b n heads t d"]) -> Float[Tensor, "b n t c"]:
    return rearrange(x, "b n heads t d -> b n t (heads d)")


def bias_index(query: tuple[int, int], key: tuple[int, int]) -> Int[Tensor, "s t"]:
    """Row of a bias table for each query and key: by query minus key, y slow."""
    d = places(*query)[:, None] - places(*key) + torch.tensor(key) - 1
    return d[..., 0] * (query[1] + key[1] - 1) + d[..., 1]


def apart(h: int, w: int, size: int, shift: int) -> Bool[Tensor, "n t t"]:
    """Pairs in windows of a rolled map that were not side by side before."""
    rows, columns = (sum(torch.arange(n) >= n - cut for cut in (size, shift)) for n in (h, w))
    region = 3 * rows[:, None] + columns
    region = cut(region[None, ..., None], (size, size))[0][0, ..., 0]
    return region[:, :, None] != region[:, None]


def square(
    p: Parameters, x: Float[Tensor, "b h w c"], size: int, shift: int, heads: int
) -> Float[Tensor, "b h w c"]:
    """SW-MSA: self-attention in square windows of the map rolled by ``shift``."""
    h, w, c = x.shape[1:]
    window = (size, size)
    tokens, _ = cut(linear(p["qkv"], x.roll((-shift, -shift), (1, 2))), window)
    q, k, v = (split_heads(y, heads) for y in tokens.chunk(3, -1))
    logits = q @ k.transpose(-1, -2) * (c // heads) ** -0.5
    logits = logits + p["bias_table"][bias_index(window, window)].permute(2, 0, 1)
    if shift:
        logits = logits - 100.0 * apart(h, w, size, shift)[:, None].to(x)
    y = paste(join_heads(logits.softmax(-1) @ v), window, h, w)
    return linear(p["out"], y.roll((shift, shift), (1, 2)))


def log_table(window: tuple[int, int]) -> Float[Tensor, "rows 2"]:
    """Log-spaced (y, x) from tokens of a window to its anchors, of which there are half as many.

    Our choice: an even number of them lies at half-integers.
    """

    def axis(n: int) -> Tensor:
        half = (n + n // 2 - 2) / 2
        c = torch.linspace(-half, half, n + n // 2 - 1, dtype=torch.float64) * 8 / half
        return c.sign() * (c.abs() + 1).log2() / 3

    return torch.cartesian_prod(*map(axis, window))


def cosine_attention(
    p: Parameters,
    q: Float[Tensor, "b n heads s d"],
    k: Float[Tensor, "b n heads t d"],
    v: Float[Tensor, "b n heads t d"],
    known: Bool[Tensor, "n t"],
    query: tuple[int, int],
    key: tuple[int, int],
) -> Float[Tensor, "b n heads s d"]:
    """softmax(S cos(q, k) + B) v over the known keys; ``query`` and ``key`` are window sizes."""
    hidden = F.relu(linear(p["hidden"], log_table(max(query, key)).to(q)))
    bias = 16 * (hidden @ p["bias"]["kernel"])[bias_index(query, key)].permute(2, 0, 1).sigmoid()
    scale = p["logit_scale"].clamp_max(math.log(100)).exp()[:, None, None]
    cosine = F.normalize(q, dim=-1, eps=1e-12) @ F.normalize(k, dim=-1, eps=1e-12).mT
    logits = (scale * cosine + bias).masked_fill(~known[:, None, None], -torch.inf)
    return logits.softmax(-1) @ v


def rectangular(
    p: Parameters, x: Float[Tensor, "b h w c"], window: tuple[int, int], heads: int
) -> Float[Tensor, "b h w c"]:
    """RW-MSA: half of the channels attend by way of their window's anchors, half pass by."""
    h, w, c = x.shape[1:]
    small = (window[0] // 2, window[1] // 2)
    anchor = channels_last(conv(p["anchor_depth"], channels_first(x), 2, groups=c))
    anchors, marked = cut(linear(p["anchor_point"], anchor), small)
    passing, active = linear(p["qkv"], x).chunk(2, -1)
    tokens, known = cut(active, window)
    q, k, v = (split_heads(y, heads) for y in tokens.chunk(3, -1))
    a = split_heads(anchors, heads)
    gathered = cosine_attention(p["gather"], a, k, v, known, small, window)
    y = cosine_attention(p["spread"], q, a, gathered, marked, window, small)
    return linear(p["out"], torch.cat((passing, paste(join_heads(y), window, h, w)), -1))


def everywhere(p: Parameters, x: Float[Tensor, "b h w c"], heads: int) -> Float[Tensor, "b h w c"]:
    """Self-attention of the whole map, without a bias (our choice)."""
    h, w, c = x.shape[1:]
    tokens = linear(p["qkv"], x.flatten(1, 2))[:, None]
    q, k, v = (split_heads(y, heads) for y in tokens.chunk(3, -1))
    y = (q @ k.mT * (c // heads) ** -0.5).softmax(-1) @ v
    return linear(p["out"], join_heads(y).view(-1, h, w, c))


def block(
    p: Parameters, x: Float[Tensor, "b h w c"], shift: int, scale: int, fields: Fields
) -> Float[Tensor, "b h w c"]:
    n, heads = layer_norm(p["norm1"], x), fields["n_heads"]
    if fields["attention"] == "global":
        x = x + everywhere(p["attention"], n, heads)
    else:
        if fields["square_window"]:
            x = x + square(p["square"], n, fields["window"], shift, heads)
        if fields["rect_window"] is not None:
            x = x + rectangular(p["rect"], n, fields["rect_window"][scale], heads)
    return x + linear(p["mlp2"], F.gelu(linear(p["mlp1"], layer_norm(p["norm2"], x))))


def entry(p: Parameters, *index: int) -> Parameters:
    """Parameters of one of the stacked groups or blocks."""
    return {k: entry(v, *index) if isinstance(v, Mapping) else v[index] for k, v in p.items()}


def body(p: Parameters, x: Float[Tensor, "b c h w"], scale: int, fields: Fields) -> Tensor:
    x = layer_norm(p["norm_in"], channels_last(x))
    for g in range(fields["n_groups"]):
        y = x
        for i in range(fields["n_blocks"]):
            shift = fields["window"] // 2 if i % 2 else 0
            y = block(entry(p["groups"]["blocks"], g, i), y, shift, scale, fields)
        x = x + channels_last(conv(entry(p["groups"]["conv"], g), channels_first(y)))
    return channels_first(layer_norm(p["norm_out"], x))
