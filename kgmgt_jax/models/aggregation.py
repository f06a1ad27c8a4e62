"""TdFA stages and the U-Net of them: target, prior and aligned reference features in one map."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from kgmgt_jax.models.block_options import BlockOptions
from kgmgt_jax.models.layers import Layers, leaky_relu, pixel_shuffle
from kgmgt_jax.models.motion import Alignment, DeformableAggregation
from kgmgt_jax.models.transformer import TransformerBody

__all__ = ["GuidedUNet", "Priors", "ReferenceAggregation", "TdFA"]

_FUSE_SLOPE = 0.1

Priors = tuple[Float[Array, "..."], ...]  # of the five stages


class ReferenceAggregation(nn.Module):
    """Reference features D, gathered where the target's features say they belong (ASA).

    Offsets are read from ``[z, W_s, V_s]`` by two convolutions; ``D = LReLU(DynAgg(V_s, ...))``.
    Without alignment, ``D = LReLU(conv(V_s))``.

    Attributes:
        channels: C of this scale.
        n_offset_groups: channel groups with offsets of their own.
        zero_offsets: start offset and mask predictions at zero.
        alignment: the ablation switch.
        layers: precision and initialisation.
    """

    channels: int
    n_offset_groups: int = 4
    zero_offsets: bool = True
    alignment: bool = True
    layers: Layers = Layers()

    @nn.compact
    def __call__(self, z: Float[Array, "b h w d"], reference: Alignment) -> Float[Array, "b h w c"]:
        if not self.alignment:
            return leaky_relu(self.layers.conv(self.channels, name="plain")(reference.reference))
        features = jnp.concatenate([z, reference.warped, reference.reference], axis=-1)
        for name in ("offset_conv1", "offset_conv2"):
            features = leaky_relu(self.layers.conv(self.channels, name=name)(features))
        aggregation = DeformableAggregation(
            self.n_offset_groups, self.zero_offsets, self.layers, name="dyn_agg"
        )
        return leaky_relu(aggregation(features, reference))


class TdFA(nn.Module):
    """Transformer-based dynamic feature aggregation: one stage of the U-Net.

    ``a = AG(x, prior) (+ skip)``, ``d = D(x)``, ``h = BODY(HD(a, d)) + x``, where AG and HD are a
    convolution of the two maps together followed by LReLU(0.1).

    Attributes:
        asa: what gathers the reference features D.
        body: BODY; its blocks' options say how wide the map is.
    """

    asa: ReferenceAggregation
    body: TransformerBody

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w d"],
        prior: Float[Array, "b h w c"],
        reference: Alignment,
        skip: Float[Array, "b h w d"] | None = None,
        *,
        train: bool,
    ) -> tuple[Float[Array, "b h w d"], Float[Array, "b h w c"]]:
        """Returns the transformed map and D, which is the prior of the next network."""
        options = self.body.options

        def fuse(a: Array, b: Array, name: str) -> Array:
            both = jnp.concatenate([a, b.astype(a.dtype)], axis=-1)
            return leaky_relu(options.layers.conv(options.width, name=name)(both), _FUSE_SLOPE)

        d = self.asa(x, reference)
        a = fuse(x, prior, "fuse_prior")
        if skip is not None:
            a = a + skip
        fused = fuse(a, d, "fuse_reference")
        return self.body(fused, train=train) + x, d


class GuidedUNet(nn.Module):
    """The U-Net of five TdFA stages that mentor and learner both are.

    Attributes:
        channels: C_1, C_2, C_3, the reference features' channels by scale.
        width: channels of the target's own features and tokens.
        n_heads, window, rect_window, square_window, attention, mlp_ratio: the MGwinT blocks;
            ``rect_window`` by scale, or ``None``.
        n_groups, n_blocks, drop_path, remat, unroll: the transformer bodies.
        n_offset_groups: channel groups of the deformable aggregation.
        zero_offsets: by scale, whether offset predictions start at zero.
        alignment: whether references are aligned.
        layers: precision and initialisation.

    Source: paper section 3 and the generator of the released code.
    """

    channels: tuple[int, int, int]
    width: int
    n_heads: int
    window: int
    rect_window: tuple[tuple[int, int], ...] | None
    square_window: bool
    attention: str
    mlp_ratio: int
    n_groups: int
    n_blocks: int
    drop_path: float
    remat: bool
    unroll: bool
    n_offset_groups: int
    zero_offsets: tuple[bool, bool, bool]
    alignment: bool
    layers: Layers

    @nn.compact
    def __call__(
        self,
        image: Float[Array, "b h w 2"],
        priors: Priors,
        references: tuple[Alignment, Alignment, Alignment],
        *,
        train: bool = False,
    ) -> tuple[Float[Array, "b h w 2"], Priors]:
        """Residual of an image whose sides are multiples of ``4 window``.

        Args:
            image: the target, real and imaginary.
            priors: FM^kg of the five stages (full, half, quarter, half, full resolution).
            references: the aligned reference at the three scales.
            train: whether stochastic depth is on.

        Returns:
            The residual, and d1..d5, the five aggregated reference maps.
        """
        conv, slope = self.layers.conv, _FUSE_SLOPE
        large, medium, small = references
        x0 = conv(self.width, name="head")(image).astype(image.dtype)  # b h w d

        h, d1 = self._stage(0, "down_large")(x0, priors[0], large, train=train)  # b h w d
        x1 = conv(self.width, stride=2, name="down_large_tail")(h).astype(h.dtype)
        h, d2 = self._stage(1, "down_medium")(x1, priors[1], medium, train=train)  # b h2 w2 d
        x2 = conv(self.width, stride=2, name="down_medium_tail")(h).astype(h.dtype)

        h, d3 = self._stage(2, "up_small")(x2, priors[2], small, train=train)  # b h4 w4 d
        x = leaky_relu(pixel_shuffle(conv(4 * self.width, name="up_small_tail")(h)), slope)
        h, d4 = self._stage(1, "up_medium")(x, priors[3], medium, x1, train=train)  # b h2 w2 d
        x = leaky_relu(pixel_shuffle(conv(4 * self.width, name="up_medium_tail")(h)), slope)
        h, d5 = self._stage(0, "up_large")(x, priors[4], large, x0, train=train)  # b h w d
        y = leaky_relu(conv(self.width // 2, name="up_large_tail1")(h), slope)
        y = conv(2, scale=0.01, name="up_large_tail2")(y).astype(image.dtype)  # b h w 2
        return y, (d1, d2, d3, d4, d5)

    def _stage(self, scale: int, name: str) -> TdFA:
        options = BlockOptions(
            width=self.width,
            n_heads=self.n_heads,
            window=self.window,
            rect_window=None if self.rect_window is None else self.rect_window[scale],
            square_window=self.square_window,
            attention=self.attention,
            mlp_ratio=self.mlp_ratio,
            layers=self.layers,
        )
        asa = ReferenceAggregation(
            channels=self.channels[scale],
            n_offset_groups=self.n_offset_groups,
            zero_offsets=self.zero_offsets[scale],
            alignment=self.alignment,
            layers=self.layers,
            parent=None,  # a part of the stage, as the body is
        )
        body = TransformerBody(
            options,
            n_groups=self.n_groups,
            n_blocks=self.n_blocks,
            drop_path=self.drop_path,
            remat=self.remat,
            unroll=self.unroll,
            parent=None,
        )
        return TdFA(asa, body, name=name)
