"""Parts of the PyTorch oracle: matching, deformable aggregation, transformer body.

Written from the description of the released network alone; shares no code with the package and
none with the authors' release. Fast where plain PyTorch allows: channels-last memory, fused
attention, matching without unfolding, and a deformable convolution that reads its four weighted
corners with one ``embedding_bag``.

Axes are (b, c, h, w), except tokens and flows, (b, h, w, c). Flows are (x, y), offsets (y, x).
"""

import math
from collections import OrderedDict
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

CHANNELS, HEADS, WINDOW, SHIFT = 16, 4, 8, 4
ANCHOR = WINDOW // 2
TAPS = 9
GROUPS, BLOCKS = 2, 4
OFFSET_GROUPS = 4
MAX_OFFSET = 10.0
STRIP_PIXELS = 2048


def conv(n_in: int, n_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, 3, stride, 1)


# ---------------------------------------------------------------- matching


class Motion(NamedTuple):
    """Where the reference moved to, at one scale: flow, its nine shifted copies, similarity."""

    flow: Float[Tensor, "b h w 2"]
    copies: Float[Tensor, "b 9 h w 2"]
    similarity: Float[Tensor, "b 1 h w"]


def box_sum(x: Tensor, *dims: int) -> Tensor:
    """Sum over the displacements 0, 1, 2 common to all of ``dims``; each dim shrinks by two."""
    parts = [x, x, x]
    for dim in dims:
        parts = [p.narrow(dim, i, x.shape[dim] - 2) for i, p in enumerate(parts)]
    return parts[0] + parts[1] + parts[2]


def correspondence(
    target: Float[Tensor, "b c h w"], reference: Float[Tensor, "b c h w"]
) -> tuple[Int[Tensor, "b h-2 w-2"], Float[Tensor, "b h-2 w-2"]]:
    """Best reference patch of each target patch: index (row-major) and cosine similarity.

    Patches are 3x3 of pixels normalised to length 1. Their products are sums of nine pixel
    products at equal displacement, so no patch is built. The index carries no gradient.
    """
    b, _, h, w = target.shape
    t, r = (F.normalize(x, dim=1, eps=1e-12).flatten(2) for x in (target, reference))
    corr = (t.transpose(1, 2) @ r).view(b, h, w, h, w)  # target pixel, reference pixel
    corr = box_sum(box_sum(corr, 2, 4), 1, 3).flatten(3)
    t_norm, r_norm = (patch_norm(x.view(b, -1, h, w)) for x in (t, r))
    value, index = (corr / (r_norm.view(b, 1, 1, -1) + 1e-5)).max(-1)
    return index, value / (t_norm + 1e-5)


def patch_norm(x: Tensor) -> Tensor:
    """Norm of each 3x3 patch; the floor keeps the gradient of an empty patch finite."""
    return box_sum(box_sum(x.square().sum(1), 1), 2).clamp_min(1e-24).sqrt()


def flow_from_index(index: Int[Tensor, "b h-2 w-2"]) -> Int[Tensor, "b h w 2"]:
    """Displacement (x, y) to the best patch, zero-padded by two at the bottom and the right."""
    h, w = index.shape[1:]
    x = index % w - torch.arange(w, device=index.device)
    y = index // w - torch.arange(h, device=index.device)[:, None]
    return F.pad(torch.stack((x, y), -1), (0, 0, 0, 2, 0, 2))


def motion_at_scale(flow: Tensor, similarity: Tensor, factor: int) -> Motion:
    """Repeat quarter-resolution flow and similarity ``factor`` times and make the nine copies."""
    flow = (flow * factor).repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    sim = similarity.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    h, w = flow.shape[1:3]
    shifts = [(i * factor, j * factor) for i in range(3) for j in range(3)]
    copies = [F.pad(flow, (0, 0, j, 0, i, 0))[:, :h, :w] for i, j in shifts]
    return Motion(flow, torch.stack(copies, 1), sim)


def match(
    target: Float[Tensor, "b 256 h w"], reference: Float[Tensor, "b 256 h w"]
) -> tuple[Motion, Motion, Motion]:
    """Motion at full, half and quarter resolution from dense features at quarter resolution."""
    index, value = correspondence(target, reference)
    flow = flow_from_index(index).to(target.dtype)
    similarity = F.pad(value, (1, 1, 1, 1))[:, None]
    full, half, quarter = (motion_at_scale(flow, similarity, f) for f in (4, 2, 1))
    return full, half, quarter


# ---------------------------------------------------------------- sampling


def warp(x: Float[Tensor, "b c h w"], flow: Float[Tensor, "b h w 2"]) -> Float[Tensor, "b c h w"]:
    """x at pixel + flow: flows are whole pixels and land inside, so it is a gather of rows."""
    b, c, h, w = x.shape
    step = flow.long()
    rows = torch.arange(b * h * w, device=x.device).view(b, h, w) + step[..., 1] * w + step[..., 0]
    out = x.permute(0, 2, 3, 1).reshape(-1, c).index_select(0, rows.flatten())
    return out.view(b, h, w, c).permute(0, 3, 1, 2)


def bilinear_rows(
    offset: Float[Tensor, "b s w g 9 2"], first: int, h: int
) -> tuple[Int[Tensor, "b s w g 9 4"], Tensor, Tensor]:
    """Where the taps of the image rows ``first``, ... sample: table rows of corners, fractions.

    The table holds (sample, y, x, group) of an image padded by one at the top and left and two at
    the bottom and right, so that far samples, held at -1 or ``h``, read zeros.
    """
    b, s, w, g = offset.shape[:4]
    whole = {"dtype": torch.int32, "device": offset.device}
    tap = torch.arange(TAPS, **whole)
    rows = torch.arange(first - 1, first - 1 + s, **whole).view(s, 1, 1, 1) + tap // 3
    columns = torch.arange(-1, w - 1, **whole).view(w, 1, 1) + tap % 3
    y, x = (offset[..., 0] + rows).clamp(-1, h), (offset[..., 1] + columns).clamp(-1, w)
    y0, x0 = y.detach().floor(), x.detach().floor()
    line, size = (w + 3) * g, (h + 3) * (w + 3) * g
    origin = torch.arange(b, **whole).view(b, 1, 1, 1, 1) * size + line + g
    origin = origin + torch.arange(g, **whole)[:, None]
    low = y0.int() * line + x0.int() * g + origin
    return low[..., None] + torch.tensor([0, g, line, line + g], **whole), y - y0, x - x0


def modulated_deform_conv(
    x: Float[Tensor, "b c h w"],
    offset: Float[Tensor, "b h w g 9 2"],
    mask: Float[Tensor, "b h w g 9"],
    weight: Float[Tensor, "o c 3 3"],
    bias: Float[Tensor, " o"],
) -> Float[Tensor, "b o h w"]:
    """out(p) = bias + sum over g, t of W[:, g, t] mask x_g(p - 1 + (t div 3, t mod 3) + offset).

    x_g is sampled bilinearly, each corner outside the image counting as zero: a bag of four table
    rows weighted by corner and mask. Inference takes strips of rows that stay in cache; training
    takes all rows at once, since each strip would return a gradient the size of the image.
    """
    b, c, h, w = x.shape
    g, o = mask.shape[3], weight.shape[0]
    table = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 2, 1, 2)).reshape(-1, c // g)
    kernel = weight.view(o, g, c // g, TAPS).permute(1, 3, 2, 0).reshape(-1, o)  # (g t c/g) o
    whole = torch.is_grad_enabled() or x.is_cuda
    step = h if whole else max(1, STRIP_PIXELS // (b * w))
    out = []
    for first in range(0, h, step):
        strip = slice(first, first + step)
        rows, fy, fx = bilinear_rows(offset[:, strip], first, h)
        low, high = (1 - fy) * mask[:, strip], fy * mask[:, strip]
        corners = torch.stack((low * (1 - fx), low * fx, high * (1 - fx), high * fx), -1)
        weights = corners.reshape(-1, 4).to(table.dtype)  # autocast may have left them in float32
        columns = F.embedding_bag(
            rows.reshape(-1, 4), table, mode="sum", per_sample_weights=weights
        )
        out.append(columns.view(b, -1, w, c * TAPS) @ kernel + bias)
    return torch.cat(out, 1).permute(0, 3, 1, 2)


class DynAgg(nn.Module):
    """Modulated deformable aggregation of ``x``: offsets and mask from ``feat`` and the motion."""

    def __init__(self, channels: int):
        super().__init__()
        bound = 1 / math.sqrt(TAPS * channels)
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.conv_offset_mask = conv(channels, 3 * OFFSET_GROUPS * TAPS)

    def sampling(self, feat: Tensor, copies: Tensor, similarity: Tensor) -> tuple[Tensor, Tensor]:
        """Offsets (b h w g 9 2), stored (y, x), and mask (b h w g 9)."""
        o = self.conv_offset_mask(feat).permute(0, 2, 3, 1)
        o = o.to(torch.promote_types(o.dtype, torch.float32))  # bfloat16 has no half pixels at 128
        moves, logits = o.split((2 * OFFSET_GROUPS * TAPS, OFFSET_GROUPS * TAPS), -1)
        pre = copies.permute(0, 2, 3, 1, 4).flip(-1).unsqueeze(3)  # b h w 1 9 2
        offset = MAX_OFFSET * moves.tanh().unflatten(-1, (OFFSET_GROUPS, TAPS, 2)) + pre
        mask = (logits * similarity.permute(0, 2, 3, 1)).sigmoid()
        return offset, mask.unflatten(-1, (OFFSET_GROUPS, TAPS))

    def forward(self, x: Tensor, feat: Tensor, copies: Tensor, similarity: Tensor) -> Tensor:
        offset, mask = self.sampling(feat, copies, similarity)
        return modulated_deform_conv(x, offset, mask, self.weight, self.bias)


# ---------------------------------------------------------------- transformer body


def to_windows(x: Float[Tensor, "b h w c"], size: int) -> Float[Tensor, "n t c"]:
    b, h, w, c = x.shape
    x = x.view(b, h // size, size, w // size, size, c).transpose(2, 3)
    return x.reshape(-1, size * size, c)


def from_windows(windows: Float[Tensor, "n t c"], size: int, h: int, w: int) -> Tensor:
    x = windows.view(-1, h // size, w // size, size, size, windows.shape[-1])
    return x.transpose(2, 3).reshape(-1, h, w, windows.shape[-1])


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> Tensor:
    """softmax(scale q k^T + bias) v; fused where no gradient to the bias is needed."""
    if torch.is_grad_enabled():
        return ((scale * q) @ k.transpose(-1, -2) + bias).softmax(-1) @ v
    return F.scaled_dot_product_attention(q, k, v, bias, scale=scale)


def grid(size: int) -> Tensor:
    """(y, x) of the tokens of a square window, row-major."""
    return torch.cartesian_prod(torch.arange(size), torch.arange(size))


def relative_index(query: Tensor, key: Tensor, shift: int, width: int) -> Tensor:
    """Row of a bias table for each (query, key): (dy + shift) width + (dx + shift)."""
    d = query[:, None] - key + shift
    return d[..., 0] * width + d[..., 1]


def shift_mask(h: int, w: int, device: torch.device | None = None) -> Float[Tensor, "n t t"]:
    """-100 between tokens of a window that the cyclic shift brought together, else 0."""

    def region(n: int) -> Tensor:
        i = torch.arange(n, device=device)
        return (i >= n - WINDOW).long() + (i >= n - SHIFT).long()

    label = to_windows((3 * region(h)[:, None] + region(w)).view(1, h, w, 1), WINDOW)[..., 0]
    return -100.0 * (label[:, None] != label[..., None]).float()


class WindowAttention(nn.Module):
    """Self-attention of 8x8 windows with a learned relative bias."""

    def __init__(self):
        super().__init__()
        table = torch.empty((2 * WINDOW - 1) ** 2, HEADS)
        self.relative_position_bias_table = nn.Parameter(nn.init.trunc_normal_(table, std=0.02))
        index = relative_index(grid(WINDOW), grid(WINDOW), WINDOW - 1, 2 * WINDOW - 1)
        self.register_buffer("relative_position_index", index)
        self.qkv = nn.Linear(CHANNELS, 3 * CHANNELS)
        self.proj = nn.Linear(CHANNELS, CHANNELS)

    def attend(self, x: Float[Tensor, "n t c"], bias: Tensor) -> Float[Tensor, "n t c"]:
        q, k, v = self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        y = attention(q, k, v, bias, (CHANNELS // HEADS) ** -0.5)
        return self.proj(y.transpose(1, 2).flatten(2))

    def forward(self, x: Float[Tensor, "n t c"], mask: Tensor | None) -> Float[Tensor, "n t c"]:
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        if mask is None:
            return self.attend(x, bias[None])
        n_images = len(x) // len(mask)
        if x.is_cuda:  # which would wait for the number of windows that are cut
            return self.attend(x, bias + mask.repeat(n_images, 1, 1)[:, None])
        cut = mask.flatten(1).any(1)  # the few windows at the lower and the right edge
        cut_bias = bias + mask[cut].repeat(n_images, 1, 1)[:, None]
        cut = cut.repeat(n_images)
        y = torch.empty_like(x)
        y[cut], y[~cut] = self.attend(x[cut], cut_bias), self.attend(x[~cut], bias[None])
        return y


class CosineAttention(nn.Module):
    """softmax(S cos(q, k) + B) v with a learned scale and a bias from log-spaced coordinates."""

    def __init__(self, query: int, key: int):
        super().__init__()
        self.logit_scale = nn.Parameter(torch.full((HEADS, 1, 1), math.log(10.0)))
        last = nn.Linear(512, HEADS, bias=False)
        self.cpb_mlp = nn.Sequential(nn.Linear(2, 512), nn.ReLU(), last)
        index = relative_index(grid(query), grid(key), key - 1, query + key - 1)
        self.register_buffer("index", index, persistent=False)

    def bias(self) -> Float[Tensor, "heads q k"]:
        half = (WINDOW + ANCHOR - 2) // 2
        like = self.logit_scale
        c = torch.arange(-half, half + 1, dtype=like.dtype, device=like.device) * (8 / half)
        c = c.sign() * (c.abs() + 1).log2() / 3
        table = self.cpb_mlp(torch.cartesian_prod(c, c))
        return 16 * table[self.index].permute(2, 0, 1).sigmoid()

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scale = self.logit_scale.clamp_max(math.log(100.0)).exp()
        q, k = F.normalize(q, dim=-1, eps=1e-12) * scale, F.normalize(k, dim=-1, eps=1e-12)
        return attention(q, k, v, self.bias()[None], 1.0)


class MixedAttention(nn.Module):
    """Anchored attention of 8x8 windows on half the channels; the other half passes by."""

    def __init__(self):
        super().__init__()
        depthwise = nn.Conv2d(CHANNELS, CHANNELS, 3, 2, 1, groups=CHANNELS)
        pointwise = nn.Conv2d(CHANNELS, CHANNELS // 2, 1)
        self.anchor = nn.ModuleDict({"body": nn.Sequential(nn.Sequential(depthwise, pointwise))})
        steps = {"attn_transform1": (ANCHOR, WINDOW), "attn_transform2": (WINDOW, ANCHOR)}
        self.stripe_attn = nn.ModuleDict({k: CosineAttention(*v) for k, v in steps.items()})
        self.qkv = nn.ModuleDict({"body": nn.Linear(CHANNELS, 3 * CHANNELS)})
        self.final = nn.Linear(2 * CHANNELS, CHANNELS)

    def forward(self, x: Float[Tensor, "b h w c"]) -> Float[Tensor, "b h w c"]:
        h, w = x.shape[1:3]
        anchor = self.anchor["body"](x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        passing, active = self.qkv["body"](x).chunk(2, -1)
        heads = (HEADS, CHANNELS // 2 // HEADS)
        q, k, v = to_windows(active, WINDOW).unflatten(-1, (3, *heads)).permute(2, 0, 3, 1, 4)
        a = to_windows(anchor, ANCHOR).unflatten(-1, heads).transpose(1, 2)
        gathered = self.stripe_attn["attn_transform1"](a, k, v)  # n heads 16 2
        y = self.stripe_attn["attn_transform2"](q, a, gathered)  # n heads 64 2
        y = from_windows(y.transpose(1, 2).flatten(2), WINDOW, h, w)
        return self.final(torch.cat((passing, y), -1))


class Block(nn.Module):
    """x + SQ(n) + MIX(n) with n = LN(x), then x + MLP(LN(x)); DropPath on both branches.

    The stored ``attn_mask`` belongs to the training size; the forward is given that of its input.
    """

    def __init__(self, shift: int, drop_path: float, train_size: int):
        super().__init__()
        self.shift, self.drop_path = shift, drop_path
        if shift:
            self.register_buffer("attn_mask", shift_mask(train_size, train_size))
        self.norm1 = nn.LayerNorm(CHANNELS)
        self.attn = WindowAttention()
        self.mixed_attn = MixedAttention()
        self.norm2 = nn.LayerNorm(CHANNELS)
        fc1, fc2 = nn.Linear(CHANNELS, 2 * CHANNELS), nn.Linear(2 * CHANNELS, CHANNELS)
        self.mlp = nn.Sequential(OrderedDict(fc1=fc1, act=nn.GELU(), fc2=fc2))

    def drop(self, x: Tensor) -> Tensor:
        """Drop the branch for whole samples in training, the survivors scaled up."""
        if not self.training or self.drop_path == 0:
            return x
        keep = 1 - self.drop_path
        return x * x.new_empty(len(x), 1, 1, 1).bernoulli_(keep) / keep

    def square(self, x: Tensor, mask: Tensor | None) -> Tensor:
        h, w = x.shape[1:3]
        s = self.shift
        x = x.roll((-s, -s), (1, 2)) if s else x
        x = from_windows(self.attn(to_windows(x, WINDOW), mask), WINDOW, h, w)
        return x.roll((s, s), (1, 2)) if s else x

    def forward(self, x: Float[Tensor, "b h w c"], mask: Tensor) -> Float[Tensor, "b h w c"]:
        n = self.norm1(x)
        x = x + self.drop(self.square(n, mask if self.shift else None) + self.mixed_attn(n))
        return x + self.drop(self.mlp(self.norm2(x)))


class ResidualGroup(nn.Module):
    """Four blocks, a convolution, and the input added."""

    def __init__(self, drop_path: list[float], train_size: int):
        super().__init__()
        blocks = [Block(SHIFT * (i % 2), p, train_size) for i, p in enumerate(drop_path)]
        self.residual_group = nn.ModuleDict({"blocks": nn.ModuleList(blocks)})
        self.conv = conv(CHANNELS, CHANNELS)

    def forward(self, x: Float[Tensor, "b h w c"], mask: Tensor) -> Float[Tensor, "b h w c"]:
        y = x
        for block in self.residual_group["blocks"]:
            y = block(y, mask)
        return self.conv(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1) + x


class Body(nn.Module):
    """LN, two residual groups, LN, on a feature map of 16 channels."""

    def __init__(self, train_size: int, drop_path: float = 0.1):
        super().__init__()
        rates = torch.linspace(0, drop_path, GROUPS * BLOCKS).tolist()
        self.patch_embed = nn.ModuleDict({"norm": nn.LayerNorm(CHANNELS)})
        groups = [rates[i : i + BLOCKS] for i in range(0, len(rates), BLOCKS)]
        self.layers = nn.ModuleList(ResidualGroup(g, train_size) for g in groups)
        self.norm = nn.LayerNorm(CHANNELS)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        mask = shift_mask(*x.shape[2:], x.device).to(x)
        x = self.patch_embed["norm"](x.permute(0, 2, 3, 1))
        for layer in self.layers:
            x = layer(x, mask)
        return self.norm(x).permute(0, 3, 1, 2)
