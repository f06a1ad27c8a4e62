"""VarNet: cascades that correct k-space by a measured residual and by a U-Net in the image."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Complex, Float

from kgmgt_jax.models.enforcement import as_precise_as
from kgmgt_jax.models.initialisation import constant
from kgmgt_jax.models.layers import Layers, leaky_relu, pixel_shuffle
from kgmgt_jax.models.padding import crop_frame, pad_zeros
from kgmgt_jax.mri.consistency import adjoint, forward
from kgmgt_jax.mri.fourier import to_channels, to_complex
from kgmgt_jax.numerics import square_root
from kgmgt_jax.types import ComplexImage, KSpace, Mask, Measurement, Reconstruction, Sens

__all__ = ["UNet", "VarNet"]

_EPS = 1e-5  # of instance norms


class _ConvBlock(nn.Module):
    """Twice a 3 x 3 convolution, instance norm and LReLU(0.2)."""

    features: int
    layers: Layers

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w o"]:
        for i in range(2):
            x = self.layers.conv(self.features, use_bias=False, name=f"conv{i}")(x)
            x = leaky_relu(_instance_norm(x))
        return x


class UNet(nn.Module):
    """Blocks of two convolutions at scales that halve, their features joined on the way back.

    Attributes:
        channels: width at full resolution; it doubles with each scale.
        n_pools: how often the scale halves; ``2**n_pools`` must divide both sides of the image.
        layers: precision and initialisation.

    Source: Ronneberger et al., MICCAI 2015; norms and layers as in Sriram et al., MICCAI 2020.
    """

    channels: int = 18
    n_pools: int = 4
    layers: Layers = Layers()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w 2"]:
        """A complex image, as two channels, from any number of channels."""
        skipped = []
        for i in range(self.n_pools):
            x = _ConvBlock(self.channels * 2**i, self.layers, name=f"down{i}")(x)
            skipped.append(x)
            x = nn.avg_pool(x, (2, 2), strides=(2, 2))
        x = _ConvBlock(self.channels * 2**self.n_pools, self.layers, name="bottom")(x)
        for i in reversed(range(self.n_pools)):
            width = self.channels * 2**i
            x = self._enlarged(x, width, f"enlarge{i}")
            x = _ConvBlock(width, self.layers, name=f"up{i}")(jnp.concatenate([x, skipped[i]], -1))
        return self.layers.dense(2, init=self.layers.conv_init(0.1), name="tail")(x)

    def _enlarged(self, x: Float[Array, "b h w c"], width: int, name: str) -> Array:
        """A transposed 2 x 2 convolution of stride 2, instance norm and LReLU(0.2)."""
        init = self.layers.conv_init(1.0)
        x = self.layers.dense(4 * width, use_bias=False, init=init, name=name)(x)
        return leaky_relu(_instance_norm(pixel_shuffle(x)))


class _Cascade(nn.Module):
    """``k <- k - step M (k - y) - F S U(images)``, the first of the images being S^H F^H k."""

    channels: int
    n_pools: int
    layers: Layers

    @nn.compact
    def __call__(
        self, kspace: KSpace, neighbours: Complex[Array, "b k h w"], measurement: Measurement
    ) -> KSpace:
        measured, mask, sens = measurement
        image = _combined(kspace, mask, sens)
        images = jnp.concatenate([image[:, None], neighbours], axis=1)
        correction = self._correction(images)
        step = self.param("step", constant(1.0), ())
        residual = mask[:, None] * (kspace - measured)
        return kspace - step * residual - forward(correction, jnp.ones_like(mask), sens)

    def _correction(self, images: Complex[Array, "b k h w"]) -> ComplexImage:
        """The U-Net on images of zero mean and unit deviation, brought back to where they were.

        Real and imaginary parts are normalised by themselves, all images together; sides grow to
        multiples of the coarsest pixel by zeros.
        """
        x = to_channels(images)  # b k h w 2
        mean = jnp.mean(x, (1, 2, 3), keepdims=True)
        deviation = square_root(jnp.var(x, (1, 2, 3), keepdims=True, ddof=1))
        x = jnp.moveaxis((x - mean) / jnp.where(deviation == 0, 1.0, deviation), 1, -1)
        b, h, w, _, k = x.shape
        x = pad_zeros(x.reshape(b, h, w, 2 * k), 2**self.n_pools)
        unet = UNet(self.channels, self.n_pools, self.layers, name="unet")
        y = crop_frame(unet(x).astype(x.dtype), h, w)
        return to_complex(y * deviation[:, 0] + mean[:, 0])


class VarNet(nn.Module):
    """Variational network: k-space cascades with a U-Net each.

    ``k_{i+1} = k_i - step_i M (k_i - y) - F S U_i(S^H F^H k_i)`` over all coils, from the measured
    k-space y (and, where the target image was filled, what that added to it); the image is
    ``S^H F^H k``. 29,452,068 parameters, those of fastMRI's without the network of its coil maps:
    twelve U-Nets and the steps.

    Deviation: coil maps are given, as to every network here, in place of learned ones, and combine
    the coils in the end, too, where the original takes their root sum of squares; the last layer of
    a U-Net starts small. The original sees one frame: ``neighbours`` gives the U-Nets the two
    others, as they came.

    Attributes:
        n_cascades: cascades, each with weights of its own.
        channels: width of the U-Nets at full resolution.
        n_pools: scales of the U-Nets below it.
        neighbours: whether the U-Nets see the preceding and succeeding frames.
        remat: recompute cascades in the backward pass.
        dtype: compute precision of convolutions and linear layers.
        weight_init: ``"he"`` or ``"normal"``.

    Source: Sriram et al., End-to-End Variational Networks, MICCAI 2020 (arXiv:2004.06688);
    ``fastmri.models.VarNet``. Neighbours: Xin et al., PromptMR, STACOM 2023 (arXiv:2309.13839).
    """

    n_cascades: int = 12
    channels: int = 18
    n_pools: int = 4
    neighbours: bool = False
    remat: bool = True
    dtype: str | None = None
    weight_init: str = "he"

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
        """Reconstructs target frames of any size.

        Args:
            target: zero-filled (coil-combined) target frames, about unit intensity.
            preceding: the frames before; not looked at without ``neighbours``.
            succeeding: the frames after; likewise.
            measurement: the targets' own measured k-space.
            train: no difference.

        Raises:
            ValueError: without a measurement.
        """
        if measurement is None:
            raise ValueError("VarNet needs the measured k-space, got measurement=None")
        measurement = as_precise_as(target, measurement)
        measured, mask, sens = measurement
        measured = jnp.where(mask[:, None] > 0, measured, 0)  # 0 times NaN is NaN
        measurement = Measurement(measured, mask, sens)
        others = jnp.stack([preceding, succeeding], axis=1)
        others = others if self.neighbours else others[:, :0]
        cascade = nn.remat(_Cascade) if self.remat else _Cascade
        filled = target - adjoint(measured, mask, sens)  # 0 where the target is zero-filled
        kspace = measured + forward(filled, 1 - mask, sens)
        layers = Layers(self.dtype, self.weight_init)
        for i in range(self.n_cascades):
            one = cascade(self.channels, self.n_pools, layers, name=f"cascade{i}")
            kspace = one(kspace, others, measurement)
        image = _combined(kspace, mask, sens)
        return Reconstruction(image, image)


def _combined(kspace: KSpace, mask: Mask, sens: Sens | None) -> ComplexImage:
    return adjoint(kspace, jnp.ones_like(mask), sens)


def _instance_norm(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Zero mean and unit variance of each channel of each image, at least in float32."""
    full = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean, variance = jnp.mean(full, (1, 2), keepdims=True), jnp.var(full, (1, 2), keepdims=True)
    return ((full - mean) * jax.lax.rsqrt(variance + _EPS)).astype(x.dtype)
