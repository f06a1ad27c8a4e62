"""SwinIR: one image through residual groups of shifted-window transformers."""

from flax import linen as nn

from kgmgt_jax.models.block_options import BlockOptions
from kgmgt_jax.models.enforcement import DataConsistency
from kgmgt_jax.models.layers import Layers
from kgmgt_jax.models.padding import crop_frame, pad_frame
from kgmgt_jax.models.transformer import TransformerBody
from kgmgt_jax.mri.fourier import to_channels, to_complex
from kgmgt_jax.types import ComplexImage, Measurement, Reconstruction

__all__ = ["SwinIR"]


class SwinIR(nn.Module):
    """Swin transformer for image restoration, then data consistency once.

    ``f = conv(x)``, ``x + conv(f + conv(body(f)))``: the body is KGMgT's with square windows alone,
    which makes its residual groups the original's RSTB. 11,500,922 parameters, and the step of the
    data consistency: the published 11.8 million of x2 super-resolution are 11.5 million with the
    layers that enlarge the image left out, as for denoising, and three channels for our two.

    Deviation: the data consistency at the end; the original knows no measurement.

    Attributes:
        width: channels of a token.
        n_heads: heads; twice their number must divide ``width``.
        window: side of the square windows, even.
        mlp_ratio: hidden width of a block's MLP over ``width``.
        n_groups: RSTBs.
        n_blocks: blocks of each, even.
        drop_path: largest stochastic depth rate.
        consistency: ``"hard"``, ``"soft"`` or ``"none"``.
        solver: ``"gradient"`` or ``"cg"``, for several coils.
        remat: recompute blocks in the backward pass.
        dtype: compute precision of convolutions and linear layers.
        weight_init: ``"he"`` or ``"normal"``.

    Source: Liang et al., SwinIR, ICCV Workshops 2021.
    """

    width: int = 180
    n_heads: int = 6
    window: int = 8
    mlp_ratio: int = 2
    n_groups: int = 6
    n_blocks: int = 6
    drop_path: float = 0.1
    consistency: str = "hard"
    solver: str = "gradient"
    remat: bool = True
    dtype: str | None = None
    weight_init: str = "he"

    def options(self) -> BlockOptions:
        """What a block looks like; raises ``ValueError`` as ``BlockOptions`` does."""
        return BlockOptions(
            width=self.width,
            n_heads=self.n_heads,
            window=self.window,
            rect_window=None,
            mlp_ratio=self.mlp_ratio,
            layers=Layers(self.dtype, self.weight_init),
        )

    @nn.compact
    def __call__(
        self,
        target: ComplexImage,
        preceding: ComplexImage,
        succeeding: ComplexImage,
        measurement: Measurement | None = None,
        *,
        train: bool = False,
    ) -> Reconstruction:
        """Reconstructs target frames of any size; the other two are not looked at.

        Args:
            target: zero-filled (coil-combined) target frames, about unit intensity.
            preceding: the frames before.
            succeeding: the frames after.
            measurement: the targets' own measured k-space, for data consistency.
            train: stochastic depth on (rng ``dropout``).
        """
        options = self.options()
        layers = options.layers
        body = TransformerBody(
            options, self.n_groups, self.n_blocks, self.drop_path, self.remat, name="body"
        )
        padded = to_channels(pad_frame(target, self.window))
        shallow = layers.conv(self.width, name="head")(padded)  # b hp wp width
        deep = layers.conv(self.width, name="after_body")(body(shallow, train=train))
        residual = layers.conv(2, scale=0.1, name="tail")(shallow + deep).astype(padded.dtype)
        image = target + to_complex(crop_frame(residual, *target.shape[-2:]))
        image = DataConsistency(self.consistency, self.solver, name="data")(image, measurement)
        return Reconstruction(image, image)
