"""Independent oracle: the released KGMgT network in plain PyTorch.

Written from the description of the released network (``released`` in the architecture notes) alone;
it shares no code with the package and none with the authors' release. Module names, layouts and
buffers equal the release's state dicts, so its checkpoints load as they are. The network is both
the reference that the package is checked against and its opponent in the benchmarks.

Axes are (b, c, h, w); images have two channels (real, imaginary), h and w multiples of 32. Feature
lists run from full to quarter resolution (64, 128, 256 channels).
"""

from collections import OrderedDict
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.oracles.torch_layers import CHANNELS, Body, DynAgg, Motion, conv, match, warp

ITERATIONS = 5
STAGES = {"down_large": 64, "down_medium": 128, "up_small": 256, "up_medium": 128, "up_large": 64}
CONSTANTS = ("num_batches_tracked", "relative_position_index", "attn_mask", "mean", "std")
VGG_CONVS = {"1": (64, 2), "2": (128, 2), "3": (256, 4), "4": (512, 4), "5": (512, 1)}

# ---------------------------------------------------------------- feature networks


def vgg_layers(last: str, slope: float) -> nn.Sequential:
    """VGG19 on two-channel images up to the layer named ``last``; slope 0 is a plain ReLU."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    n_in = 2
    for block, (n_out, n_convs) in VGG_CONVS.items():
        for i in range(1, n_convs + 1):
            layers[f"conv{block}_{i}"] = conv(n_in, n_out)
            layers[f"relu{block}_{i}"] = nn.LeakyReLU(slope)
            n_in = n_out
        layers[f"pool{block}"] = nn.MaxPool2d(2)
    names = list(layers)
    return nn.Sequential(OrderedDict((k, layers[k]) for k in names[: names.index(last) + 1]))


class FeatureNet(nn.Module):
    """Frozen convolutional features; ``mean`` and ``std`` are stored by the release, not used."""

    def __init__(self, name: str, last: str, slope: float):
        super().__init__()
        self.name = name
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        self.add_module(name, vgg_layers(last, slope))
        self.requires_grad_(False)

    def forward(self, x: Tensor, taps: tuple[str, ...]) -> list[Tensor]:
        found = []
        for name, layer in self.get_submodule(self.name).named_children():
            x = layer(x)
            if name in taps:
                found.append(x)
        return found


class Extractor(nn.Module):
    """Dense features of target and reference, (b, 256, h/4, w/4), from two unshared branches."""

    def __init__(self):
        super().__init__()
        self.feature_extraction_image1 = FeatureNet("model", "conv3_1", 0.2)
        self.feature_extraction_image2_1 = FeatureNet("model", "conv3_1", 0.2)

    def forward(self, target: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        (f,) = self.feature_extraction_image1(target, ("conv3_1",))
        (r,) = self.feature_extraction_image2_1(reference, ("conv3_1",))
        return f, r


class ReferenceVGG(nn.Module):
    """relu1_1 (64), relu2_1 (128, half) and relu3_1 (256, quarter) of the reference."""

    def __init__(self):
        super().__init__()
        self.vgg = FeatureNet("vgg_net", "relu3_1", 0.0)

    def forward(self, x: Float[Tensor, "b 2 h w"]) -> list[Tensor]:
        return self.vgg(x, ("relu1_1", "relu2_1", "relu3_1"))


class Perceptual(nn.Module):
    """1e-4 ||phi(x) - phi(gt)||_F at VGG19 relu5_1, with one norm over the whole batch."""

    def __init__(self):
        super().__init__()
        self.vgg = FeatureNet("vgg_net", "relu5_1", 0.0)

    def features(self, x: Float[Tensor, "b 2 h w"]) -> Float[Tensor, "b 512 h/16 w/16"]:
        return self.vgg(x, ("relu5_1",))[0]

    def forward(self, x: Tensor, gt: Tensor) -> Float[Tensor, ""]:
        return 1e-4 * (self.features(x) - self.features(gt)).norm()


# ---------------------------------------------------------------- generator


class Reference(NamedTuple):
    """Reference features at one scale, as they are and warped, and the motion there."""

    feature: Tensor
    warped: Tensor
    motion: Motion


def fusion(channels: int) -> nn.Sequential:
    """Concatenated token map and ``channels`` features to 16 channels (AG and HD)."""
    return nn.Sequential(conv(CHANNELS + channels, CHANNELS), nn.LeakyReLU(0.1))


def upsample() -> nn.Sequential:
    return nn.Sequential(conv(CHANNELS, 4 * CHANNELS), nn.PixelShuffle(2), nn.LeakyReLU(0.1))


class UNet(nn.Module):
    """Five stages of alignment, fusion and transformer; input -> residual image and d1..d5."""

    def __init__(self, train_size: int, drop_path: float, checkpoint_bodies: bool):
        super().__init__()
        self.checkpoint_bodies = checkpoint_bodies
        self.unet_head = conv(2, CHANNELS)
        tails = [conv(CHANNELS, CHANNELS, 2), conv(CHANNELS, CHANNELS, 2), upsample(), upsample()]
        tails.append(nn.Sequential(conv(CHANNELS, 8), nn.LeakyReLU(0.1), conv(8, 2)))
        for (stage, c), tail in zip(STAGES.items(), tails, strict=True):
            side, size = stage.split("_")
            self.add_module(f"{stage}_offset_conv1", conv(CHANNELS + 2 * c, c))
            self.add_module(f"{stage}_offset_conv2", conv(c, c))
            self.add_module(f"{stage}_dyn_agg", DynAgg(c))
            self.add_module(f"{side}_head_{size}", fusion(c))
            self.add_module(f"{side}_body_{size}", Body(train_size * 64 // c, drop_path))
            self.add_module(f"{side}_tail_{size}", tail)
        for i, c in enumerate(STAGES.values(), 1):
            self.add_module(f"x_agg_{i}", fusion(c))

    def align(self, stage: str, z: Tensor, ref: Reference) -> Tensor:
        """D(z): reference features aggregated along the motion, offsets seen from z."""
        part = self.get_submodule
        feat = torch.cat((z, ref.warped, ref.feature), 1)
        for i in (1, 2):
            feat = F.leaky_relu(part(f"{stage}_offset_conv{i}")(feat), 0.2)
        _, copies, similarity = ref.motion
        return F.leaky_relu(part(f"{stage}_dyn_agg")(ref.feature, feat, copies, similarity), 0.2)

    def body(self, name: str, x: Tensor) -> Tensor:
        body = self.get_submodule(name)
        if self.checkpoint_bodies and self.training:
            return checkpoint(body, x, use_reentrant=False)
        return body(x)

    def stage(
        self, name: str, x: Tensor, prior: Tensor, ref: Reference, skip: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """h = BODY(HD(AG(x, kd) + skip, d)) + x, and d = D(x), then the tail of the stage."""
        part = self.get_submodule
        side, size = name.split("_")
        d = self.align(name, x, ref)
        a = part(f"x_agg_{list(STAGES).index(name) + 1}")(torch.cat((x, prior), 1))
        a = a if skip is None else a + skip
        h = self.body(f"{side}_body_{size}", part(f"{side}_head_{size}")(torch.cat((a, d), 1))) + x
        return part(f"{side}_tail_{size}")(h), d

    def forward(
        self,
        image: Float[Tensor, "b 2 h w"],
        prior: list[Tensor],
        motion: tuple[Motion, Motion, Motion],
        features: list[Tensor],
    ) -> tuple[Float[Tensor, "b 2 h w"], list[Tensor]]:
        full, half, quarter = (
            Reference(v, warp(v, m.flow), m) for v, m in zip(features, motion, strict=True)
        )
        x0 = self.unet_head(image)
        x1, d1 = self.stage("down_large", x0, prior[0], full)
        x2, d2 = self.stage("down_medium", x1, prior[1], half)
        x, d3 = self.stage("up_small", x2, prior[2], quarter)
        x, d4 = self.stage("up_medium", x, prior[3], half, skip=x1)
        y, d5 = self.stage("up_large", x, prior[4], full, skip=x0)
        return y, [d1, d2, d3, d4, d5]


class Denoiser(nn.Module):
    """NW: five 3x3 convolutions with BN and LReLU(.2), channels 2-64-64-64-64-2."""

    def __init__(self):
        super().__init__()
        sizes = (2, 64, 64, 64, 64, 2)
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(sizes):
            layers += [conv(n_in, n_out), nn.BatchNorm2d(n_out), nn.LeakyReLU(0.2)]
        self.nw = nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "b 2 h w"]) -> Float[Tensor, "b 2 h w"]:
        return self.nw(x)


def data_consistency(
    x: Float[Tensor, "b 2 h w"],
    measured: Float[Tensor, "b 2 h w"],
    mask: Float[Tensor, "b 1 h w"],
    noise_weight: float | None = None,
) -> Float[Tensor, "b 2 h w"]:
    """Put the samples of ``measured`` (an image) where ``mask`` is 1, in centred k-space.

    With a noise weight v they are averaged instead, (k + v k0) / (1 + v). The release has this
    operator but does not call it.
    """

    def kspace(image: Tensor) -> Tensor:
        spectrum = torch.fft.fft2(torch.complex(image[:, 0], image[:, 1]))
        return torch.fft.fftshift(spectrum, dim=(-2, -1))

    k, k0, on = kspace(x), kspace(measured), mask[:, 0]
    mixed = k0 if noise_weight is None else (k + noise_weight * k0) / (1 + noise_weight)
    k = torch.where(on.bool(), mixed, k)
    out = torch.fft.ifft2(torch.fft.ifftshift(k, dim=(-2, -1)))
    return torch.stack((out.real, out.imag), 1)


class ReleasedGenerator(nn.Module):
    """G: U-Net residual plus the input, then five denoiser iterations with shared weights.

    Args:
        train_size: side of the square training crops; only shapes the stored ``attn_mask``.
        drop_path: largest DropPath rate; 0 switches it off in training.
        checkpoint_bodies: recompute the transformer bodies in the backward pass.
    """

    def __init__(
        self, train_size: int = 160, drop_path: float = 0.1, checkpoint_bodies: bool = False
    ):
        super().__init__()
        self.dyn_agg_restore = UNet(train_size, drop_path, checkpoint_bodies)
        self.dw = Denoiser()

    def forward(
        self,
        image: Float[Tensor, "b 2 h w"],
        prior: list[Tensor],
        motion: tuple[Motion, Motion, Motion],
        features: list[Tensor],
    ) -> tuple[Float[Tensor, "b 2 h w"], list[Tensor]]:
        y, d = self.dyn_agg_restore(image, prior, motion, features)
        x = y + image
        for _ in range(ITERATIONS):
            x = self.dw(x) + x
        return x, d


def two_pass(
    net_g: ReleasedGenerator,
    extractor: Extractor,
    vgg: ReferenceVGG,
    lq: Float[Tensor, "b 2 h w"],
    ref1: Float[Tensor, "b 2 h w"],
    ref2: Float[Tensor, "b 2 h w"],
) -> tuple[Float[Tensor, "b 2 h w"], Float[Tensor, "b 2 h w"], dict]:
    """Mentor pass on (lq, previous frame), learner pass on (its output, next frame).

    Returns:
        Mentor image, learner image, and of both passes ``dense``, ``motion``, ``features``, ``d``.

    Raises:
        ValueError: if a side of the image is no multiple of 32.
    """
    if lq.shape[-2] % 32 or lq.shape[-1] % 32:
        raise ValueError(f"image sides must be multiples of 32, got {tuple(lq.shape)}; pad first")
    aux: dict[str, list] = {"dense": [], "motion": [], "features": [], "d": []}
    image, prior = lq, None
    outputs = []
    for ref in (ref1, ref2):
        dense, features = extractor(image, ref), vgg(ref)
        motion = match(*dense)
        v1, v2, v3 = features
        image, prior = net_g(image, prior or [v1, v2, v3, v2, v1], motion, features)
        outputs.append(image)
        for name, value in zip(aux, (dense, motion, features, prior), strict=True):
            aux[name].append(value)
    return *outputs, aux


# ---------------------------------------------------------------- critic


class Critic(nn.Module):
    """Five blocks of a plain and a strided convolution, global average, two 1x1, sigmoid."""

    def __init__(self, width: int = 32):
        super().__init__()
        n_in = 2
        for i in range(5):
            n_out = width * 2**i
            layers: list[nn.Module] = []
            for n, stride in ((n_in, 1), (n_out, 2)):
                layers += [conv(n, n_out, stride), nn.BatchNorm2d(n_out), nn.LeakyReLU(0.2)]
            self.add_module(f"conv_block{i + 1}", nn.Sequential(*layers))
            n_in = n_out
        pool, last = nn.AdaptiveAvgPool2d(1), nn.Conv2d(1024, 1, 1)
        self.out_block = nn.Sequential(pool, nn.Conv2d(n_in, 1024, 1), nn.LeakyReLU(0.2), last)

    def forward(self, x: Float[Tensor, "b 2 h w"]) -> Float[Tensor, "b 1 1 1"]:
        for block in self.children():
            x = block(x)
        return x.sigmoid()


def gradient_penalty(critic: Critic, real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    """10 mean (||grad_z D(z)|| - 1)^2 at z = alpha real + (1 - alpha) fake, a norm a sample."""
    z = (alpha * real + (1 - alpha) * fake).detach().requires_grad_()
    (grad,) = torch.autograd.grad(critic(z).sum(), z, create_graph=True)
    return 10 * (grad.flatten(1).norm(dim=1) - 1).square().mean()


# ---------------------------------------------------------------- weights

NETS = {
    "net_g": ReleasedGenerator,
    "net_d": Critic,
    "net_extractor": Extractor,
    "net_map": ReferenceVGG,
    "perceptual": Perceptual,
}


def load(name: str, weights: dict[str, np.ndarray], **options) -> nn.Module:
    """Network ``name`` of the release with the given weights, in evaluation mode.

    Args:
        name: ``net_g``, ``net_d``, ``net_extractor``, ``net_map`` or ``perceptual``.
        weights: arrays by state-dict key; counters, indices and stored masks may be left out.
        **options: passed to the network's constructor.

    Raises:
        ValueError: for an unknown name, an unknown key, or a missing parameter.
    """
    if name not in NETS:
        raise ValueError(f"expected one of {sorted(NETS)}, got {name=}")
    net = NETS[name](**options)
    state = {k: torch.from_numpy(np.array(v)) for k, v in weights.items()}
    missing, unexpected = net.load_state_dict(state, strict=False)
    missing = [k for k in missing if k.split(".")[-1] not in CONSTANTS]
    if missing or unexpected:
        raise ValueError(f"weights do not fit {name}: {missing=}, {unexpected=}")
    return net.eval()


def to_numpy_state_dict(module: nn.Module) -> dict[str, np.ndarray]:
    """All parameters and buffers of a network by state-dict key."""
    return {k: v.detach().cpu().numpy() for k, v in module.state_dict().items()}
