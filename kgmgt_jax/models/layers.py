"""How convolutions, linear layers and normalisations are built, in one place.

Every module of the network takes a ``Layers`` value, so that compute precision and initialisation
are chosen once, in the configuration, and reach every parameter.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from kgmgt_jax.models.convolution import convolution
from kgmgt_jax.models.initialisation import Initialiser, constant

__all__ = [
    "LRELU_SLOPE",
    "STATISTICS",
    "BatchNorm",
    "DepthwiseConv",
    "Layers",
    "LinearWeights",
    "drop_path",
    "gelu",
    "leaky_relu",
    "pixel_shuffle",
]

LRELU_SLOPE = 0.2
STATISTICS = "statistics"  # of batch norm, for ``jax.checkpoint_policies.save_only_these_names``
INITIALISATIONS = ("he", "normal")


@dataclasses.dataclass(frozen=True)
class Layers:
    """Factory of convolutions and linear layers.

    Attributes:
        dtype: compute precision (``"float32"``, ``"bfloat16"``) of convolutions, linear layers,
            the products of attention, and what samples their results; parameters, residual sums
            and layer norms stay in float32 (with x64, in the precision of parameters and images).
        weight_init: ``"he"``: He-normal with the gain of LReLU(0.2) for convolutions and a normal
            truncated at two standard deviations of 0.02 for linear layers; ``"normal"``: N(0, 0.02)
            for both, as the released code.
        pallas: on NVIDIA GPUs, use the package's own kernels where they fit. XLA does not divide
            them: over several devices, each would do the whole batch.
    """

    dtype: str | None = None
    weight_init: str = "he"
    pallas: bool = False

    def __post_init__(self):
        if self.weight_init not in INITIALISATIONS:
            raise ValueError(
                f"weight_init must be one of {INITIALISATIONS}, got {self.weight_init!r}"
            )

    def conv_init(self, scale: float) -> Initialiser:
        """Distribution of a convolution's kernel: He's times ``scale``, or N(0, 0.02) unless 0."""
        if scale == 0.0:
            return constant(0.0)
        if self.weight_init == "normal":
            return Initialiser("normal", 0.02)
        gain = math.sqrt(2.0 / (1.0 + LRELU_SLOPE**2))
        return Initialiser("normal", gain * scale, per_fan_in=True)

    def conv(
        self,
        features: int,
        *,
        stride: int = 1,
        scale: float = 1.0,
        use_bias: bool = True,
        name: str | None = None,
    ) -> nn.Conv:
        """A zero-padded 3 x 3 convolution, padded as PyTorch pads (not as ``SAME``).

        Args:
            features: output channels.
            stride: step of the output grid.
            scale: factor on the He standard deviation; 0 starts the kernel at zero.
            use_bias: whether it has a bias.
            name: parameter name.
        """
        return nn.Conv(
            features,
            (3, 3),
            use_bias=use_bias,
            strides=(stride, stride),
            padding=((1, 1), (1, 1)),
            dtype=self.dtype,
            kernel_init=self.conv_init(scale),
            bias_init=constant(0.0),
            conv_general_dilated=convolution,
            name=name,
        )

    def dense(
        self,
        features: int,
        *,
        use_bias: bool = True,
        init: Initialiser | None = None,
        name: str | None = None,
    ) -> nn.Dense:
        """A linear layer over the last axis; its kernel starts from ``init``, if one is given."""
        return nn.Dense(
            features,
            use_bias=use_bias,
            dtype=self.dtype,
            kernel_init=init or self.linear_init(),
            bias_init=constant(0.0),
            name=name,
        )

    def linear_init(self) -> Initialiser:
        """Distribution of a linear layer's kernel."""
        kind = "normal" if self.weight_init == "normal" else "truncated_normal"
        return Initialiser(kind, 0.02)

    def linear(
        self, x: Float[Array, "*b c"], kernel: Float[Array, "c o"], bias: Float[Array, "o"] | None
    ) -> Float[Array, "*b o"]:
        """``x kernel + bias`` at compute precision, for weights that are not a layer's own."""
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = x @ kernel
        return y if bias is None else y + bias.reshape((1,) * (y.ndim - 1) + bias.shape)

    def pointwise(self, features: int, *, name: str | None = None) -> nn.Dense:
        """A 1 x 1 convolution: a linear layer over the last axis that starts as convolutions do."""
        return self.dense(features, init=self.conv_init(1.0), name=name)

    def compute(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        """Values at compute precision: once for all layers that take them, which would each."""
        return x if self.dtype is None else x.astype(self.dtype)

    def layer_norm(self, name: str | None = None) -> nn.LayerNorm:
        """Layer norm over channels, eps 1e-5, always at parameter precision."""
        return nn.LayerNorm(
            epsilon=1e-5,
            use_fast_variance=False,
            scale_init=constant(1.0),
            bias_init=constant(0.0),
            name=name,
        )


class LinearWeights(nn.Module):
    """Kernel and bias of a linear layer, for its user to combine before they are applied.

    The parameters are those of ``Layers.dense``.

    Attributes:
        shape: channels of input and output.
        layers: precision and initialisation.
    """

    shape: tuple[int, int]
    layers: Layers = Layers()

    @nn.compact
    def __call__(self) -> dict[str, Array]:
        """``kernel`` (c, o) and ``bias`` (o)."""
        kernel = self.param("kernel", self.layers.linear_init(), self.shape)
        return {"kernel": kernel, "bias": self.param("bias", constant(0.0), self.shape[1:])}


class BatchNorm(nn.Module):
    """Batch norm whose running variance is the *unbiased* batch variance, as PyTorch keeps it.

    ``y = (x - mean) / sqrt(var + eps) * scale + bias``; in training the running statistics move by
    ``momentum`` towards the batch's mean and ``n / (n - 1)`` times its variance. Flax's own keeps
    the biased variance, which does not reproduce a released checkpoint's statistics.

    Attributes:
        momentum: weight of the new batch in the running statistics.
        eps: added to the variance.
    """

    momentum: float = 0.1
    eps: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"], *, train: bool) -> Float[Array, "*b c"]:
        c = x.shape[-1]
        scale = self.param("scale", Initialiser("normal", 0.02, mean=1.0), (c,))
        bias = self.param("bias", constant(0.0), (c,))
        running_mean = self.variable("batch_stats", "mean", constant(0.0), None, (c,))
        running_var = self.variable("batch_stats", "var", constant(1.0), None, (c,))
        if train:
            flat = x.reshape(-1, c)
            mean, var = checkpoint_name((jnp.mean(flat, 0), jnp.var(flat, 0)), STATISTICS)
            if not self.is_initializing():
                n = flat.shape[0]
                m = self.momentum
                running_mean.value = (1 - m) * running_mean.value + m * mean
                running_var.value = (1 - m) * running_var.value + m * var * (n / max(n - 1, 1))
        else:
            mean, var = running_mean.value, running_var.value
        shape = (1,) * (x.ndim - 1) + (c,)
        normed = (x - mean.reshape(shape)) * jax.lax.rsqrt(var + self.eps).reshape(shape)
        return normed * scale.reshape(shape) + bias.reshape(shape)


class DepthwiseConv(nn.Module):
    """A 3 x 3 convolution of each channel by itself, stride 2, padding 1, with bias.

    Written as nine strided multiply-adds, which fuse: XLA's grouped convolution takes several times
    as long on a CPU, its gradient ten times. The parameters are those of ``nn.Conv``.

    Attributes:
        layers: precision and initialisation.
    """

    layers: Layers = Layers()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        _, h, w, c = x.shape
        kernel = self.param("kernel", self.layers.conv_init(1.0), (3, 3, 1, c))
        bias = self.param("bias", constant(0.0), (c,))
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.layers.dtype)
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        rows, columns = (h + 1) // 2, (w + 1) // 2
        y = bias.reshape(1, 1, 1, c)
        for i in range(3):
            for j in range(3):
                tap = padded[:, i : i + 2 * rows - 1 : 2, j : j + 2 * columns - 1 : 2]
                y = y + tap * kernel[i, j].reshape(1, 1, 1, c)
        return y


def gelu(x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
    """``x Φ(x)``, exact, in float32 or better; ``jax.nn.gelu`` has the costlier erfc."""
    full = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return (0.5 * full * (1 + jax.lax.erf(full * math.sqrt(0.5)))).astype(x.dtype)


def leaky_relu(x: Float[Array, "..."], slope: float = LRELU_SLOPE) -> Float[Array, "..."]:
    """``max(x, slope x)``; slope 0 is ReLU."""
    return nn.leaky_relu(x, slope)


def pixel_shuffle(x: Float[Array, "b h w c4"]) -> Float[Array, "b h2 w2 c"]:
    """Trades channels for pixels: ``out[2y + i, 2x + j, c] = in[y, x, 4c + 2i + j]``."""
    b, h, w, c4 = x.shape
    x = x.reshape(b, h, w, c4 // 4, 2, 2).transpose(0, 1, 4, 2, 5, 3)  # b h i w j c
    return x.reshape(b, 2 * h, 2 * w, c4 // 4)


def drop_path(
    x: Float[Array, "b *rest"], rate: Float[Array, ""], key: jax.Array
) -> Float[Array, "b *rest"]:
    """Stochastic depth: drops a residual branch for whole samples, rescaling the kept ones.

    Args:
        x: a residual branch's output.
        rate: probability of dropping, in [0, 1).
        key: PRNG key.
    """
    keep = jax.random.bernoulli(key, 1 - rate, (x.shape[0],) + (1,) * (x.ndim - 1))
    return jnp.where(keep, x / jnp.asarray(1 - rate, x.dtype), jnp.zeros((), x.dtype))
