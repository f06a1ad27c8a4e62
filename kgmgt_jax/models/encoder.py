"""The VGG-shaped encoder: one pass gives query, key and multi-scale value features of a frame."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from kgmgt_jax.models.layers import LRELU_SLOPE, Layers, leaky_relu
from kgmgt_jax.types import ComplexImage

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "VGG",
    "VGG19_LAYERS",
    "Features",
    "FrameEncoder",
    "deepest",
    "imagenet_input",
    "vgg19_features",
]

VGG19_LAYERS = (
    *("conv1_1", "conv1_2", "conv2_1", "conv2_2"),
    *("conv3_1", "conv3_2", "conv3_3", "conv3_4"),
    *("conv4_1", "conv4_2", "conv4_3", "conv4_4"),
    *("conv5_1", "conv5_2", "conv5_3", "conv5_4"),
)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Features(NamedTuple):
    """What the network knows of one frame, wherever in the triplet it stands.

    Attributes:
        query: the frame as a target of the matching, quarter resolution, before activation.
        key: the frame as a reference of the matching, likewise.
        values: feature maps V_1, V_2, V_3 at full, half and quarter resolution.
    """

    query: Float[Array, "b h4 w4 c3"]
    key: Float[Array, "b h4 w4 c3"]
    values: tuple[Float[Array, "b h w c1"], Float[Array, "b h2 w2 c2"], Float[Array, "b h4 w4 c3"]]


class VGG(nn.Module):
    """VGG19's convolutions up to ``last``, each 3 x 3 and followed by LReLU, pooled between blocks.

    One class serves the frame encoder, the released matching extractors, the released reference
    features and the perceptual loss. Source: Simonyan and Zisserman, 2015.

    Attributes:
        last: name of the last convolution, ``"conv3_1"`` say.
        channels: width of each of the blocks that are used.
        slope: negative slope of the activation; 0 is VGG's own ReLU.
        layers: precision and initialisation.
        convs: names of all convolutions; VGG16 lacks the fourth of the last three blocks.
    """

    last: str = "conv3_1"
    channels: tuple[int, ...] = (64, 128, 256, 512, 512)
    slope: float = LRELU_SLOPE
    layers: Layers = Layers()
    convs: tuple[str, ...] = VGG19_LAYERS

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> dict[str, Float[Array, "..."]]:
        """Returns the map of every convolution *before* its activation, by name."""
        if self.last not in self.convs:
            raise ValueError(f"last must name a convolution {self.convs}, got {self.last!r}")
        maps, block = {}, "1"
        for name in self.convs[: self.convs.index(self.last) + 1]:
            if name[4] != block:
                x, block = nn.max_pool(x, (2, 2), (2, 2)), name[4]
            maps[name] = self.layers.conv(self.channels[int(block) - 1], name=name)(x)
            x = leaky_relu(maps[name], self.slope)
        return maps


class FrameEncoder(nn.Module):
    """Query, key and values of a frame from its real and imaginary channels.

    ``kind="shared"``: one trainable encoder, LReLU(0.2); its conv3_1 map before activation is
    query and key, its activated maps of conv1_1, conv2_1, conv3_1 are the values.
    ``kind="released"``: three networks, as the released code has them: a matching extractor for
    targets, another for references, and VGG19 with plain ReLU for the values.

    Deviation: the paper speaks of one encoder and the released code trains none of its three;
    here the shared one is trained with the rest.

    Attributes:
        kind: ``"shared"`` or ``"released"``.
        channels: C_1, C_2, C_3.
        layers: precision and initialisation.
    """

    kind: str = "shared"
    channels: tuple[int, int, int] = (64, 128, 256)
    layers: Layers = Layers()

    def setup(self):
        def vgg(slope):
            return VGG(channels=self.channels, slope=slope, layers=self.layers)

        if self.kind == "shared":
            self.encoder = vgg(LRELU_SLOPE)
        elif self.kind == "released":
            self.target_extractor = vgg(LRELU_SLOPE)
            self.reference_extractor = vgg(LRELU_SLOPE)
            self.vgg = vgg(0.0)
        else:
            raise ValueError(f"kind must be 'shared' or 'released', got {self.kind!r}")

    def __call__(self, frame: Float[Array, "b h w 2"]) -> Features:
        """Encodes frames whose height and width are multiples of four."""
        if self.kind == "shared":
            maps = self.encoder(frame)
            query = key = maps["conv3_1"]
            slope = LRELU_SLOPE
        else:
            query = self.target_extractor(frame)["conv3_1"]
            key = self.reference_extractor(frame)["conv3_1"]
            maps, slope = self.vgg(frame), 0.0
        v1, v2, v3 = (leaky_relu(maps[f"conv{i}_1"], slope) for i in (1, 2, 3))
        return Features(query, key, (v1, v2, v3))


def imagenet_input(magnitude: Float[Array, "b h w"]) -> Float[Array, "b h w 3"]:
    """A magnitude image as VGG19 expects its input: three equal channels, ImageNet mean and std."""
    shape = (1, 1, 1, 3)
    mean = jnp.asarray(IMAGENET_MEAN, magnitude.dtype).reshape(shape)
    std = jnp.asarray(IMAGENET_STD, magnitude.dtype).reshape(shape)
    return (magnitude[..., None] - mean) / std


def deepest(layers: Sequence[str]) -> str:
    """The convolution before the last of some activations, such as ``"conv5_1"``."""
    return max((name.replace("relu", "conv") for name in layers), key=VGG19_LAYERS.index)


def vgg19_features(
    variables: Mapping, image: ComplexImage, layers: tuple[str, ...] = ("relu5_1",)
) -> dict[str, Float[Array, "..."]]:
    """Feature maps of VGG19, after activation, of the magnitude of images of about unit scale.

    Args:
        variables: of ``VGG`` with three input channels and slope 0 (of VGG16, if some lack).
        image: complex images.
        layers: names such as ``"relu5_1"``.
    """
    names = [layer.replace("relu", "conv") for layer in layers]
    convs = tuple(name for name in VGG19_LAYERS if name in variables["params"])
    vgg = VGG(last=deepest(layers), slope=0.0, convs=convs)
    maps: Any = vgg.apply(variables, imagenet_input(jnp.abs(image)))
    return {layer: nn.relu(maps[name]) for layer, name in zip(layers, names, strict=True)}
