"""Alignment of a reference to the target: flow pyramid, warp, deformable aggregation (ASA)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from kgmgt_jax.models.deformable import deformable_conv
from kgmgt_jax.models.initialisation import Initialiser, constant
from kgmgt_jax.models.layers import Layers
from kgmgt_jax.models.matching import Match, centred_flow, corner_flow, similarity_map

__all__ = [
    "Alignment",
    "DeformableAggregation",
    "align",
    "tap_flows",
    "upscale_flow",
    "warp",
]

MAX_OFFSET = 10.0  # learned offsets lie within +-10 pixels of the flow


class Alignment(NamedTuple):
    """The reference at one scale, with all that aligns it to the target.

    Attributes:
        reference: V_s, the reference's features.
        warped: W_s, the same moved onto the target by the flow alone.
        tap_flow: displacement (x, y) in pixels of this scale for each tap of a 3 x 3 kernel.
        similarity: cosine similarity of target and matched reference, 0 at the border.
    """

    reference: Float[Array, "b h w c"]
    warped: Float[Array, "b h w c"]
    tap_flow: Float[Array, "b h w 9 2"]
    similarity: Float[Array, "b h w 1"]


def upscale_flow(
    flow: Float[Array, "b h w 2"], factor: int, *, smooth: bool = False
) -> Float[Array, "b hf wf 2"]:
    """Flow on a grid ``factor`` times finer, in that grid's pixels.

    Args:
        flow: displacements (x, y).
        factor: ratio of the two grids.
        smooth: bilinear interpolation (soft matching); otherwise each value is repeated.
    """
    b, h, w, _ = flow.shape
    if smooth:
        return factor * jax.image.resize(flow, (b, h * factor, w * factor, 2), "bilinear")
    return factor * jnp.repeat(jnp.repeat(flow, factor, axis=1), factor, axis=2)


def tap_flows(flow: Float[Array, "b h w 2"], step: int) -> Float[Array, "b h w 9 2"]:
    """Nine copies of a corner-convention flow, copy ``3i + j`` moved by ``(i, j) * step`` pixels.

    Each of the nine patches that contain a pixel votes with its own flow. Rows and columns that
    come in at the top and left are zero.
    """
    h, w = flow.shape[1:3]
    padded = jnp.pad(flow, ((0, 0), (2 * step, 0), (2 * step, 0), (0, 0)))
    copies = [
        padded[:, (2 - i) * step : (2 - i) * step + h, (2 - j) * step : (2 - j) * step + w]
        for i in range(3)
        for j in range(3)
    ]
    return jnp.stack(copies, axis=3)


def _corners(
    y: Float[Array, "*s"], x: Float[Array, "*s"], h: int, w: int
) -> list[tuple[Int[Array, "*s"], Float[Array, "*s"]]]:
    """Pixel index and bilinear weight of the four neighbours; weight 0 outside the image."""
    y0, x0 = jnp.floor(y), jnp.floor(x)
    fy, fx = y - y0, x - x0
    y0, x0 = y0.astype(jnp.int32), x0.astype(jnp.int32)
    corners = []
    for yi, wy in ((y0, 1 - fy), (y0 + 1, fy)):
        for xi, wx in ((x0, 1 - fx), (x0 + 1, fx)):
            inside = (yi >= 0) & (yi < h) & (xi >= 0) & (xi < w)
            index = jnp.clip(yi, 0, h - 1) * w + jnp.clip(xi, 0, w - 1)
            corners.append((index, jnp.where(inside, wy * wx, 0.0)))
    return corners


def _scale_rows(value: Float[Array, "*s c"], weight: Float[Array, "*s"]) -> Float[Array, "*s c"]:
    """Each row of channels times its weight, as an einsum: its gradient is then a product of rows
    and not a sum over the last axis, for which XLA takes six times as long on a CPU.
    """
    weight = weight.astype(value.dtype)
    return jnp.einsum("...c,...->...c", value, weight, precision="highest")


def warp(
    image: Float[Array, "b h w c"], flow: Float[Array, "b h w 2"], *, integer: bool = False
) -> Float[Array, "b h w c"]:
    """Samples an image at each pixel plus its flow; bilinear, zero outside.

    Args:
        image: any number of channels.
        flow: displacement (x, y) in pixels.
        integer: the flow holds whole numbers, so one gather replaces four.
    """
    b, h, w, c = image.shape
    y = jnp.arange(h, dtype=flow.dtype)[None, :, None] + flow[..., 1]
    x = jnp.arange(w, dtype=flow.dtype)[None, None, :] + flow[..., 0]

    def one(table: Float[Array, "hw c"], y: Float[Array, "h w"], x: Float[Array, "h w"]):
        corners = _corners(y, x, h, w)[: 1 if integer else 4]
        image = jnp.zeros((h, w, c), table.dtype)
        for index, weight in corners:
            value = table.at[index].get(mode="promise_in_bounds")
            image += _scale_rows(value, weight)
        return image

    return jax.vmap(one)(image.reshape(b, h * w, c), y, x)


def align(
    match: Match,
    values: tuple[Float[Array, "b h w c1"], Float[Array, "b h2 w2 c2"], Float[Array, "b h4 w4 c3"]],
    *,
    warp_flow: str = "centred",
    smooth: bool = False,
) -> tuple[Alignment, Alignment, Alignment]:
    """Flow, warped features and tap displacements at full, half and quarter resolution.

    Args:
        match: displacements of the 3 x 3 patches at quarter resolution.
        values: V_1, V_2, V_3 of the reference.
        warp_flow: which patch a pixel's flow comes from for the warp: ``"centred"`` (the patch
            around it) or ``"corner"`` (the patch it is the top left corner of).
        smooth: the flow is fractional (soft matching).

    Deviation: the released code warps with the corner flow, half a patch away from the similarity.
    """
    if warp_flow not in ("centred", "corner"):
        raise ValueError(f"warp_flow must be 'centred' or 'corner', got {warp_flow!r}")
    corner = corner_flow(match.flow)
    plain = corner if warp_flow == "corner" else centred_flow(match.flow)
    similarity = similarity_map(match.similarity)
    aligned: list[Alignment] = []
    for value, factor in zip(values, (4, 2, 1), strict=True):
        flow = upscale_flow(plain, factor, smooth=smooth)
        aligned.append(
            Alignment(
                reference=value,
                warped=warp(value, flow, integer=not smooth),
                tap_flow=tap_flows(upscale_flow(corner, factor, smooth=smooth), factor),
                similarity=jnp.repeat(jnp.repeat(similarity, factor, axis=1), factor, axis=2),
            )
        )
    large, medium, small = aligned
    return large, medium, small


class DeformableAggregation(nn.Module):
    """Aggregates reference features where flow and learned offsets point (the paper's ASA).

    ``offset = 10 tanh(o) + flow of the tap``, ``mask = sigmoid(logit * similarity)``, with ``o``
    and ``logit`` from one convolution of the offset features; then ``deformable_conv``.

    Attributes:
        n_groups: channel groups with offsets of their own.
        zero_offsets: start the predictor of offsets and masks at zero.
        layers: precision and initialisation.
    """

    n_groups: int = 4
    zero_offsets: bool = True
    layers: Layers = Layers()

    @nn.compact
    def __call__(
        self, features: Float[Array, "b h w c"], alignment: Alignment
    ) -> Float[Array, "b h w c"]:
        """Args: features: what the offsets are read from; alignment: the reference."""
        b, h, w, c = alignment.reference.shape
        g = self.n_groups
        predictor = self.layers.conv(
            g * 27, scale=0.0 if self.zero_offsets else 1.0, name="conv_offset_mask"
        )
        prediction = predictor(features).astype(alignment.tap_flow.dtype)
        learned, logit = jnp.split(prediction, [g * 18], axis=-1)
        learned = MAX_OFFSET * jnp.tanh(learned.reshape(b, h, w, g, 9, 2))
        offset = learned + alignment.tap_flow[..., None, :, ::-1]  # (x, y) to (y, x)
        similarity = alignment.similarity[..., None]
        mask = jax.nn.sigmoid(logit.reshape(b, h, w, g, 9) * similarity)
        kernel = self.param("kernel", Initialiser("uniform", 1.0, per_fan_in=True), (3, 3, c, c))
        bias = self.param("bias", constant(0.0), (c,))
        arrays = (alignment.reference, offset, mask, kernel, bias)
        return deformable_conv(*arrays, pallas=self.layers.pallas)
