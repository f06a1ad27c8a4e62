"""The unrolled end of mentor and learner: a small denoiser in turn with data consistency."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from kgmgt_jax.models.initialisation import constant
from kgmgt_jax.models.layers import BatchNorm, Layers, leaky_relu
from kgmgt_jax.mri.consistency import (
    cg_consistency,
    gradient_consistency,
    hard_consistency,
    soft_consistency,
)
from kgmgt_jax.mri.fourier import to_channels, to_complex
from kgmgt_jax.types import ComplexImage, Measurement

__all__ = ["Denoiser", "UnrolledDenoiser"]

_INITIAL_NOISE_WEIGHT = 10.0
_CG_ITERATIONS = 8


class Denoiser(nn.Module):
    """Five 3 x 3 convolutions that predict a correction of the image.

    ``norm="none"``: LReLU(0.2) between the convolutions, the last one linear and started small.
    ``norm="batch"``: each of the five followed by batch norm and LReLU, as released.

    Attributes:
        channels: width of the hidden maps.
        norm: ``"none"`` or ``"batch"``.
        layers: precision and initialisation.
    """

    channels: int = 64
    norm: str = "none"
    layers: Layers = Layers()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 2"], *, train: bool) -> Float[Array, "b h w 2"]:
        if self.norm not in ("none", "batch"):
            raise ValueError(f"norm must be 'none' or 'batch', got {self.norm!r}")
        y = x
        for i in range(5):
            last = i == 4
            scale = 0.1 if last and self.norm == "none" else 1.0
            y = self.layers.conv(2 if last else self.channels, scale=scale, name=f"conv{i}")(y)
            if self.norm == "batch":
                y = BatchNorm(name=f"norm{i}")(y, train=train)
            if not last or self.norm == "batch":
                y = leaky_relu(y)
        return y.astype(x.dtype)


class UnrolledDenoiser(nn.Module):
    """``x <- DC(x + denoise(x))``, repeated with one denoiser.

    DC for one coil: ``"hard"`` puts the measured samples in place of the predicted ones;
    ``"soft"`` averages the two with the learned noise weight v_i of the iteration, ``(k + v k0) /
    (1 + v)``; ``"none"`` leaves the image. With several coils: ``solver="gradient"`` steps along
    the gradient of ``||E x - y||^2 / 2`` by a learned ``step`` (hard, 1 at the start, which is the
    replacement if there is one coil of unit sensitivity) or by ``v / (1 + v)`` (soft);
    ``solver="cg"`` solves ``(E^H E + 1/v) x = E^H y + z/v`` (soft only).

    Deviation: the released code calls no consistency here, and its own would have used the fully
    sampled image; ours sees the measured samples alone.

    Attributes:
        n_iterations: how often.
        consistency: ``"hard"``, ``"soft"`` or ``"none"``.
        solver: ``"gradient"`` or ``"cg"``, for several coils.
        channels: width of the denoiser.
        norm: ``"none"`` or ``"batch"``.
        layers: precision and initialisation.
    """

    n_iterations: int = 5
    consistency: str = "hard"
    solver: str = "gradient"
    channels: int = 64
    norm: str = "none"
    layers: Layers = Layers()

    def setup(self):
        if self.consistency not in ("hard", "soft", "none"):
            raise ValueError(
                f"consistency must be 'hard', 'soft' or 'none', got {self.consistency!r}"
            )
        if self.solver not in ("gradient", "cg"):
            raise ValueError(f"solver must be 'gradient' or 'cg', got {self.solver!r}")
        if self.solver == "cg" and self.consistency != "soft":
            raise ValueError(
                f"solver='cg' weighs the measurement, so it needs consistency='soft', "
                f"got {self.consistency!r}"
            )
        self.denoiser = Denoiser(self.channels, self.norm, self.layers)
        shape = (self.n_iterations,)
        if self.consistency == "soft":
            init = constant(math.log(_INITIAL_NOISE_WEIGHT))
            self.log_noise_weight = self.param("log_noise_weight", init, shape)
        elif self.consistency == "hard":
            self.step = self.param("step", constant(1.0), shape)

    def __call__(
        self, image: ComplexImage, measurement: Measurement | None, *, train: bool
    ) -> ComplexImage:
        """Refines an image of any size.

        Args:
            image: estimate of the target frame.
            measurement: the target's own; may be ``None`` for ``consistency="none"``.
            train: whether batch norm uses the batch's statistics.

        Raises:
            ValueError: if the consistency needs a measurement and there is none.
        """
        if measurement is None and self.consistency != "none":
            raise ValueError(f"consistency={self.consistency!r} needs the measured k-space")
        for i in range(self.n_iterations):
            image = image + to_complex(self.denoiser(to_channels(image), train=train))
            image = self._consistent(image, measurement, i)
        return image

    def _consistent(
        self, image: ComplexImage, measurement: Measurement | None, i: int
    ) -> ComplexImage:
        if self.consistency == "none" or measurement is None:
            return image
        kspace, mask, sens = measurement
        if self.consistency == "hard":
            if sens is None:
                return hard_consistency(image, kspace, mask)
            return gradient_consistency(image, kspace, mask, sens, self.step[i])
        noise_weight = jnp.exp(self.log_noise_weight[i])
        if sens is None:
            return soft_consistency(image, kspace, mask, noise_weight)
        if self.solver == "cg":
            return cg_consistency(
                image, kspace, mask, sens, 1 / noise_weight, n_iterations=_CG_ITERATIONS
            )
        step = jax.nn.sigmoid(self.log_noise_weight[i])  # v / (1 + v)
        return gradient_consistency(image, kspace, mask, sens, step)
