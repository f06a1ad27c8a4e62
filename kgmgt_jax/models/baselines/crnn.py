"""CRNN: convolutions that recur over time in both directions, and over the iterations."""

import einops
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from kgmgt_jax.models.enforcement import DataConsistency
from kgmgt_jax.models.layers import Layers, leaky_relu
from kgmgt_jax.mri.fourier import to_channels, to_complex
from kgmgt_jax.types import ComplexImage, Measurement, Reconstruction

__all__ = ["CRNN"]

Frames = Float[Array, "b t h w 2"]
Maps = Float[Array, "b t h w c"]

_N_RECURRENT = 3
_TARGET = 1  # the frame of the triplet that is reconstructed
_SCALE = 0.4  # of the He deviation: what recurs is added up, and would grow at 1


def _relu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    return leaky_relu(x, 0.0)


def _framewise(convolution: nn.Module, x: Float[Array, "b t h w k"]) -> Float[Array, "b t h w c"]:
    """A convolution of each frame by itself."""
    b = x.shape[0]
    y = convolution(einops.rearrange(x, "b t h w c -> (b t) h w c"))
    return einops.rearrange(y, "(b t) h w c -> b t h w c", b=b)


class CRNN(nn.Module):
    """Convolutional recurrent network: the frames before and after, and the last iteration, help.

    In iteration i, with layers l, frames t and convolutions W (one set for all i and t)::

        h_1    forward + backward, each  ReLU(W x_t + W_t h_{t -+ 1} + W_i h_1 of iteration i - 1)
        h_l    ReLU(W h_{l - 1} + W_i h_l of iteration i - 1)          l = 2, 3, 4
        x      DC(x + W h_4)

    297,794 parameters, and the steps of the data consistency: 75,072 of h_1, whose directions share
    weights, 73,856 of each further layer, 1,154 of the last convolution. That is what four
    layers of 64 channels add up to, with a bias in each convolution.

    Deviation: the sequence is a triplet (preceding, target, succeeding), and only the target is
    held to its measurement, since the others' is not at hand; the original sees whole cines.

    Attributes:
        n_iterations: how often.
        channels: width of the hidden maps.
        consistency: ``"hard"``, ``"soft"`` or ``"none"``.
        solver: ``"gradient"`` or ``"cg"``, for several coils.
        dtype: compute precision of convolutions.
        weight_init: ``"he"`` or ``"normal"``.

    Source: Qin et al., IEEE TMI 38:280 (2019).
    """

    n_iterations: int = 10
    channels: int = 64
    consistency: str = "hard"
    solver: str = "gradient"
    dtype: str | None = None
    weight_init: str = "he"

    def setup(self):
        layers = Layers(self.dtype, self.weight_init)

        def hidden() -> nn.Conv:
            return layers.conv(self.channels, scale=_SCALE)

        self.input, self.in_time, self.in_iteration = hidden(), hidden(), hidden()
        self.inputs = [hidden() for _ in range(_N_RECURRENT)]
        self.in_iterations = [hidden() for _ in range(_N_RECURRENT)]
        self.output = layers.conv(2, scale=0.1)
        self.data = [
            DataConsistency(self.consistency, self.solver) for _ in range(self.n_iterations)
        ]

    def __call__(
        self,
        target: ComplexImage,
        preceding: ComplexImage,
        succeeding: ComplexImage,
        measurement: Measurement | None = None,
        *,
        train: bool = False,
    ) -> Reconstruction:
        """Reconstructs target frames.

        Args:
            target: zero-filled (coil-combined) target frames, about unit intensity.
            preceding: the frames before, likewise undersampled.
            succeeding: the frames after.
            measurement: the targets' own measured k-space, for data consistency.
            train: no difference.
        """
        x = jnp.stack([to_channels(f) for f in (preceding, target, succeeding)], axis=1)
        shape = (*x.shape[:-1], self.channels)
        memory = [jnp.zeros(shape, x.dtype)] * (1 + _N_RECURRENT)
        for i in range(self.n_iterations):
            residual, memory = self._iterate(x, memory)
            x = x + residual
            image = self.data[i](to_complex(x[:, _TARGET]), measurement)
            x = x.at[:, _TARGET].set(to_channels(image))
        image = to_complex(x[:, _TARGET])
        return Reconstruction(image, image)

    def _iterate(self, x: Frames, memory: list[Maps]) -> tuple[Frames, list[Maps]]:
        """The correction of all frames, and the hidden maps of this iteration."""
        h = self._over_time(_framewise(self.input, x) + _framewise(self.in_iteration, memory[0]))
        maps = [h]
        for convolve, recur, before in zip(
            self.inputs, self.in_iterations, memory[1:], strict=True
        ):
            h = _relu(_framewise(convolve, h) + _framewise(recur, before))
            maps.append(h)
        return _framewise(self.output, h).astype(x.dtype), maps

    def _over_time(self, drive: Maps) -> Maps:
        """Sum of the recurrences in both directions, which start from zero at either end."""
        total = []
        for order in (1, -1):
            h, passed = jnp.zeros_like(drive[:, 0]), []
            for t in range(drive.shape[1])[::order]:
                h = _relu(drive[:, t] + self.in_time(h))
                passed.append(h)
            total.append(jnp.stack(passed[::order], axis=1))
        return total[0] + total[1]
