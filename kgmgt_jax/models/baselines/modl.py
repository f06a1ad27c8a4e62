"""MoDL: a convolutional denoiser in turn with a regularised least-squares problem."""

import math

import jax.numpy as jnp
from flax import linen as nn

from kgmgt_jax.models.denoiser import Denoiser
from kgmgt_jax.models.initialisation import constant
from kgmgt_jax.models.layers import Layers
from kgmgt_jax.mri.consistency import cg_consistency
from kgmgt_jax.mri.fourier import to_channels, to_complex
from kgmgt_jax.types import ComplexImage, Measurement, Reconstruction

__all__ = ["MoDL"]

_INITIAL_WEIGHT = 0.05


class MoDL(nn.Module):
    """Model-based deep learning: unrolled alternation with one set of weights.

    ``z_k = x_k + D(x_k)``, ``x_{k+1} = argmin_x ||E x - y||^2 + lambda ||x - z_k||^2``, K times.
    D is the five-layer ``Denoiser``; lambda is learned, as its logarithm, and the minimisation is
    conjugate gradients. 113,155 parameters: five convolutions, 113,154, and lambda.

    Deviation: no batch norm, whose statistics are poor in batches of a few frames (the denoiser of
    KGMgT has none either), LReLU for ReLU, and all K iterations are trained from the start.

    Attributes:
        n_iterations: K.
        n_cg: conjugate gradient iterations of each.
        denoiser_channels: width of the denoiser.
        dtype: compute precision of convolutions.
        weight_init: ``"he"`` or ``"normal"``.

    Source: Aggarwal, Mani and Jacob, IEEE TMI 38:394 (2019).
    """

    n_iterations: int = 10
    n_cg: int = 10
    denoiser_channels: int = 64
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
        """Reconstructs target frames; the other two are not looked at.

        Args:
            target: zero-filled (coil-combined) target frames, about unit intensity.
            preceding: the frames before.
            succeeding: the frames after.
            measurement: the targets' own measured k-space.
            train: no difference.

        Raises:
            ValueError: without a measurement.
        """
        if measurement is None:
            raise ValueError("MoDL needs the measured k-space, got measurement=None")
        layers = Layers(self.dtype, self.weight_init)
        denoiser = Denoiser(self.denoiser_channels, layers=layers, name="denoiser")
        weight = jnp.exp(self.param("log_weight", constant(math.log(_INITIAL_WEIGHT)), ()))
        image = target
        for _ in range(self.n_iterations):
            image = image + to_complex(denoiser(to_channels(image), train=train))
            image = cg_consistency(image, *measurement, weight, n_iterations=self.n_cg)
        return Reconstruction(image, image)
