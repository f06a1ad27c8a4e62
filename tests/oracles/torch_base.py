"""Independent oracle: this project's own network, ``base``, and its losses in plain PyTorch.

Written from parts II and III of the architecture notes alone, as ``torch_base_layers`` is. A
network is its tree of parameters (``KGMgT.init``'s, with tensors for arrays) and the fields in
which it is not ``BASE``. Feature maps are (b, c, h, w), images complex (b, h, w) with phase
encoding along h; lists of features run from full to quarter resolution.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from torch import Tensor

from tests.oracles.torch_base_layers import (
    Fields,
    Motion,
    Parameters,
    align,
    body,
    conv,
    encode,
    linear,
    match,
)

BASE: dict[str, Any] = {
    "channels": (64, 128, 256),
    "width": 16,
    "n_heads": 4,
    "window": 8,
    "rect_window": ((16, 4), (4, 16), (16, 4)),
    "square_window": True,
    "attention": "window",
    "mlp_ratio": 2,
    "n_groups": 2,
    "n_blocks": 4,
    "drop_path": 0.1,
    "n_offset_groups": 4,
    "encoder": "shared",
    "tie_weights": False,
    "knowledge": True,
    "alignment": True,
    "flow": "argmax",
    "search_radius": 4,
    "warp_flow": "centred",
    "n_iterations": 5,
    "consistency": "hard",
    "solver": "gradient",
    "denoiser_channels": 64,
    "denoiser_norm": "none",
}
STAGES = {"down_large": 0, "down_medium": 1, "up_small": 2, "up_medium": 1, "up_large": 0}  # scales
CG_STEPS = 8  # our choice; they start from the image that is to be made consistent
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# ---------------------------------------------------------------- U-Net


def unet(
    p: Parameters,
    image: Float[Tensor, "b 2 h w"],
    prior: list[Tensor],
    values: list[Tensor],
    motion: list[Motion] | None,
    fields: Fields,
) -> tuple[Float[Tensor, "b 2 h w"], list[Tensor]]:
    """Residual of the image, and the aligned features d1..d5."""
    aligned: list[Tensor] = []

    def stage(name: str, x: Tensor, skip: Tensor | None = None) -> Tensor:
        q, s = p[name], STAGES[name]
        d = align(q["asa"], x, values[s], motion and motion[s], fields["n_offset_groups"])
        a = F.leaky_relu(conv(q["fuse_prior"], torch.cat((x, prior[len(aligned)]), 1)), 0.1)
        a = a if skip is None else a + skip
        aligned.append(d)
        h = F.leaky_relu(conv(q["fuse_reference"], torch.cat((a, d), 1)), 0.1)
        return body(q["body"], h, s, fields) + x

    def up(name: str, x: Tensor) -> Tensor:
        return F.leaky_relu(F.pixel_shuffle(conv(p[name], x), 2), 0.1)

    x0 = conv(p["head"], image)
    x1 = conv(p["down_large_tail"], stage("down_large", x0), 2)
    x2 = conv(p["down_medium_tail"], stage("down_medium", x1), 2)
    x = up("up_small_tail", stage("up_small", x2))
    x = up("up_medium_tail", stage("up_medium", x, x1))
    x = stage("up_large", x, x0)
    y = conv(p["up_large_tail2"], F.leaky_relu(conv(p["up_large_tail1"], x), 0.1))
    return y, aligned


# ---------------------------------------------------------------- denoiser, data consistency


class Measurement(NamedTuple):
    """Centred k-space by coil, where it was measured, and the coils' sensitivities."""

    kspace: Complex[Tensor, "b n h w"]
    mask: Float[Tensor, "b h w"]
    sens: Complex[Tensor, "b n h w"] | None = None


def centred(transform: Callable[..., Tensor], x: Tensor) -> Tensor:
    x = transform(torch.fft.ifftshift(x, dim=(-2, -1)), norm="ortho")
    return torch.fft.fftshift(x, dim=(-2, -1))


def conjugate_gradients(
    apply: Callable[[Tensor], Tensor], b: Complex[Tensor, "b h w"], x: Complex[Tensor, "b h w"]
) -> Complex[Tensor, "b h w"]:
    """``CG_STEPS`` steps from x towards apply(x) = b, each image by itself."""

    def dot(u: Tensor, v: Tensor) -> Tensor:
        return (u.conj() * v).real.sum((-2, -1), keepdim=True)

    r = b - apply(x)
    d, power = r, dot(r, r)
    for _ in range(CG_STEPS):
        y = apply(d)
        step = power / dot(d, y)
        x, r = x + step * d, r - step * y
        power, before = dot(r, r), power
        d = r + power / before * d
    return x


def consistent(
    p: Parameters, z: Complex[Tensor, "b h w"], m: Measurement, i: int, fields: Fields
) -> Complex[Tensor, "b h w"]:
    """z held to what was measured, after iteration ``i``.

    Our choices: several coils and ``"soft"`` take gradient steps of v / (1 + v), which is the
    average of one coil, and CG's lambda is 1 / v, likewise; one coil needs no solver.
    """
    if fields["consistency"] == "none":
        return z
    soft, mask = fields["consistency"] == "soft", m.mask[:, None]
    v = p["log_noise_weight"][i].exp() if soft else None
    if m.sens is None:
        k, k0 = centred(torch.fft.fft2, z), m.kspace[:, 0]
        k0 = (k + v * k0) / (1 + v) if soft else k0
        return centred(torch.fft.ifft2, torch.where(m.mask > 0, k0, k))

    def forward(x: Tensor) -> Tensor:
        return mask * centred(torch.fft.fft2, m.sens * x[:, None])

    def adjoint(y: Tensor) -> Tensor:
        return (m.sens.conj() * centred(torch.fft.ifft2, mask * y)).sum(1)

    if fields["solver"] == "cg":
        b = adjoint(m.kspace) + z / v
        return conjugate_gradients(lambda x: adjoint(forward(x)) + x / v, b, z)
    step = v / (1 + v) if soft else p["step"][i]
    return z - step * adjoint(forward(z) - m.kspace)


def denoise(p: Parameters, x: Float[Tensor, "b 2 h w"]) -> Float[Tensor, "b 2 h w"]:
    for i in range(4):
        x = F.leaky_relu(conv(p[f"conv{i}"], x), 0.2)
    return conv(p["conv4"], x)


# ---------------------------------------------------------------- the network


def to_channels(x: Complex[Tensor, "b h w"]) -> Float[Tensor, "b 2 h w"]:
    return torch.stack((x.real, x.imag), 1)


def to_complex(x: Float[Tensor, "b 2 h w"]) -> Complex[Tensor, "b h w"]:
    return torch.complex(x[:, 0], x[:, 1])


def margin(n: int, multiple: int) -> tuple[int, int]:
    """What a side of n lacks, half before it and, being the larger half, half behind it."""
    return -n % multiple // 2, (-n % multiple + 1) // 2


def pad(x: Float[Tensor, "b 2 h w"], multiple: int) -> Float[Tensor, "b 2 hp wp"]:
    """To a multiple, evenly on both sides (our choice): rows wrap around, columns reflect."""
    h, w = x.shape[2:]
    (top, bottom), (left, right) = margin(h, multiple), margin(w, multiple)
    rows = torch.arange(-top, h + bottom) % h
    columns = torch.arange(-left, w + right) % (2 * w - 2)
    return x[:, :, rows][:, :, :, torch.minimum(columns, 2 * w - 2 - columns)]


def half(
    p: Parameters,
    encoder: Parameters,
    image: Complex[Tensor, "b h w"],
    reference: Complex[Tensor, "b h w"],
    measurement: Measurement,
    prior: list[Tensor] | None,
    fields: Fields,
) -> tuple[Complex[Tensor, "b h w"], list[Tensor]]:
    """Mentor or learner: its image, and d1..d5.

    Without a prior the encoder's features of the reference are it. Sides are padded to multiples
    of four windows, 32 in ``base`` (our choice for other windows).
    """
    (h, w), multiple = image.shape[1:], 4 * fields["window"]
    x = pad(to_channels(image), multiple)
    query, _ = encode(encoder, x)
    key, values = encode(encoder, pad(to_channels(reference), multiple))
    motion = match(p, query, key, fields) if fields["alignment"] else None
    prior = [values[s] for s in STAGES.values()] if prior is None else prior
    y, aligned = unet(p["unet"], x, prior, values, motion, fields)
    (top, _), (left, _) = margin(h, multiple), margin(w, multiple)
    x = (x + y)[:, :, top : top + h, left : left + w]
    p = p["denoiser"]
    for i in range(fields["n_iterations"]):
        x = x + denoise(p["denoiser"], x)
        x = to_channels(consistent(p, to_complex(x), measurement, i, fields))
    return to_complex(x), aligned


def reconstruct(
    params: Parameters,
    target: Complex[Tensor, "b h w"],
    preceding: Complex[Tensor, "b h w"],
    succeeding: Complex[Tensor, "b h w"],
    measurement: Measurement,
    **fields: Any,
) -> tuple[Complex[Tensor, "b h w"], Complex[Tensor, "b h w"]]:
    """Images of mentor and learner, as in evaluation; ``fields`` are those that are not ``BASE``.

    Our choice: ``knowledge=False`` gives the learner a prior of zeros.
    """
    fields = BASE | fields
    encoder, mentor = params["frame_encoder"]["encoder"], params["mentor_net"]
    learner = mentor if fields["tie_weights"] else params["learner_net"]
    image, prior = half(mentor, encoder, target, preceding, measurement, None, fields)
    if not fields["knowledge"]:
        prior = [torch.zeros_like(d) for d in prior]
    return image, half(learner, encoder, image, succeeding, measurement, prior, fields)[0]


# ---------------------------------------------------------------- losses


def critic(p: Parameters, x: Float[Tensor, "b 2 h w"]) -> Float[Tensor, " b"]:
    """Five blocks of a plain and a strided convolution, global average, two linear layers."""
    for i in range(1, 6):
        for j in (1, 2):
            x = F.leaky_relu(conv(p[f"block{i}_conv{j}"], x, stride=j), 0.2)
    return linear(p["score"], F.leaky_relu(linear(p["hidden"], x.mean((2, 3))), 0.2))[:, 0]


def critic_loss(p: Parameters, real: Tensor, fake: Tensor, alpha: Float[Tensor, " b"]) -> Tensor:
    """mean D(fake) - mean D(real) + 10 mean (||grad_z D(z)|| - 1)^2, z between real and fake."""
    alpha = alpha[:, None, None, None]
    z = (alpha * real + (1 - alpha) * fake).detach().requires_grad_()
    (slope,) = torch.autograd.grad(critic(p, z).sum(), z, create_graph=True)
    penalty = (slope.square().sum((1, 2, 3)).sqrt() - 1).square().mean()
    return critic(p, fake).mean() - critic(p, real).mean() + 10 * penalty


def vgg19(p: Parameters, image: Complex[Tensor, "b h w"], layers: tuple[str, ...]) -> list[Tensor]:
    """Activations, ``relu5_1`` say, of the magnitude as three equal channels."""
    constants = (IMAGENET_MEAN, IMAGENET_STD)
    mean, std = (torch.tensor(x, dtype=image.real.dtype).view(3, 1, 1) for x in constants)
    x = (image.abs()[:, None] - mean) / std
    found = {}
    for level, n in enumerate((2, 2, 4, 4, 1), 1):
        x = x if level == 1 else F.max_pool2d(x, 2)
        for i in range(1, n + 1):
            x = F.relu(conv(p[f"conv{level}_{i}"], x))
            found[f"relu{level}_{i}"] = x
    return [found[name] for name in layers]


def perceptual_loss(
    p: Parameters, image: Tensor, reference: Tensor, layers: tuple[str, ...]
) -> Float[Tensor, ""]:
    """||phi(image) - phi(reference)||_F, mean over images and layers."""
    pairs = zip(vgg19(p, image, layers), vgg19(p, reference, layers), strict=True)
    return torch.stack([(a - b).flatten(1).norm(dim=1).mean() for a, b in pairs]).mean()


def generator_loss(
    vgg: Parameters, judge: Parameters, image: Tensor, reference: Tensor, layers: tuple[str, ...]
) -> Float[Tensor, ""]:
    """L1 of real and imaginary parts + 1e-4 perceptual - 1e-6 mean D."""
    x = to_channels(image)
    distance = (x - to_channels(reference)).abs().mean()
    seen = perceptual_loss(vgg, image, reference, layers)
    return distance + 1e-4 * seen - 1e-6 * critic(judge, x).mean()
