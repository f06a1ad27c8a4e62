"""ImageNet VGG19 (or VGG16) weights from a file the user has.

They serve the perceptual loss, which shows VGG three equal channels, and may initialise our own
encoder, whose first convolution has two input channels, real and imaginary part::

    real = red + blue / 2,    imaginary = green + blue / 2

so that an image with equal parts is answered as the grey image of that intensity would be, and the
two parts still have filters of their own (two equal filters would see their sum alone).
"""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from kgmgt_jax.interop.state_files import read_state_dict
from kgmgt_jax.interop.torch_names import from_state_dict, vgg_entries
from kgmgt_jax.models.encoder import VGG19_LAYERS

__all__ = ["load_encoder", "load_vgg19", "two_channel_kernel", "vgg_names"]

_VGG16_LAYERS = tuple(n for n in VGG19_LAYERS if not re.fullmatch("conv[345]_4", n))
# Index of each convolution among torchvision's ``features``: activations and pooling count too.
_VGG19_INDICES = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)
_VGG16_INDICES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
_VGG19: dict[int, str] = dict(zip(_VGG19_INDICES, VGG19_LAYERS, strict=True))
_VGG16: dict[int, str] = dict(zip(_VGG16_INDICES, _VGG16_LAYERS, strict=True))
_CHANNELS = {"1": 64, "2": 128, "3": 256, "4": 512, "5": 512}
_ENCODER = ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1")


def _torchvision_names(state_dict: Mapping[str, np.ndarray]) -> dict[int, str]:
    """VGG16 has a convolution at index 17 of ``features``, where VGG19 has an activation."""
    return _VGG16 if any(re.search(r"(?:^|\.)features\.17\.", k) for k in state_dict) else _VGG19


def vgg_names(path: str | Path, state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames ``features.5.weight`` or ``any.prefix.conv2_1.weight`` to ``conv2_1.weight``.

    Raises:
        ValueError: if two arrays would have one name, as those of two networks do.
    """
    found, names = {}, _torchvision_names(state_dict)
    for key in state_dict:
        torchvision = re.search(r"(?:^|\.)features\.(\d+)\.(weight|bias)$", key)
        named = re.search(r"(?:^|\.)(conv\d_\d)\.(weight|bias)$", key)
        if torchvision and int(torchvision[1]) in names:
            name = f"{names[int(torchvision[1])]}.{torchvision[2]}"
        elif named:
            name = f"{named[1]}.{named[2]}"
        else:
            continue
        if name in found:
            got = f"{found[name]} and {key}"
            raise ValueError(f"{path}: expected one VGG, got more, with {got}; keep one of them")
        found[name] = key
    return {name: state_dict[key] for name, key in found.items()}


def two_channel_kernel(kernel: np.ndarray) -> np.ndarray:
    """A first convolution of (out, red green blue, kh, kw) for real and imaginary part.

    ``real = red + blue / 2``, ``imaginary = green + blue / 2``.
    """
    return kernel[:, :2] + kernel[:, 2:] / 2


def load_vgg19(path: str | Path, *, last: str = "conv5_1") -> dict:
    """Parameters of ``VGG`` up to ``last``, for images of three channels.

    Args:
        path: ``.npz``, ``.safetensors`` or ``.pth`` with arrays named as torchvision names them
            (``features.0.weight``; VGG16 or VGG19) or by convolution (``conv1_1.weight``, with any
            prefix).
        last: the last convolution needed.

    Raises:
        ValueError: if the file cannot be read, is of more than one VGG, lacks a convolution or has
            one of another shape.
    """
    found = vgg_names(path, read_state_dict(path))
    convs = VGG19_LAYERS if "conv3_4.weight" in found else _VGG16_LAYERS
    return _parameters(path, found, _up_to(path, convs, last))


def load_encoder(path: str | Path) -> dict:
    """Parameters of the shared frame encoder (full width) from VGG weights.

    They go to ``params["frame_encoder"]["encoder"]`` of a network with ``encoder="shared"``. A
    first convolution of three input channels becomes one of two by ``two_channel_kernel``; the
    ImageNet mean and standard deviation are not applied, nor are they to the encoder's input.

    Args:
        path: as for ``load_vgg19``; a first convolution of two channels is taken as it is.

    Raises:
        ValueError: as for ``load_vgg19``.
    """
    found = vgg_names(path, read_state_dict(path))
    first = found.get("conv1_1.weight")
    if first is not None and first.shape == (64, 3, 3, 3):
        _check(path, "conv1_1.weight", first, first.shape)
        found["conv1_1.weight"] = two_channel_kernel(first.astype(np.float32))
    return _parameters(path, found, _ENCODER, n_inputs=2)["params"]


def _up_to(path: str | Path, convs: tuple[str, ...], last: str) -> tuple[str, ...]:
    if last not in convs:
        raise ValueError(f"{path}: expected VGG19 up to {last}, got no {last} (is it VGG16?)")
    return convs[: convs.index(last) + 1]


def _parameters(
    path: str | Path,
    found: Mapping[str, np.ndarray],
    names: tuple[str, ...],
    *,
    n_inputs: int = 3,
) -> dict:
    """The named convolutions as variables of ``VGG``, each array checked."""
    missing = [n for n in names if f"{n}.weight" not in found or f"{n}.bias" not in found]
    if missing:
        raise ValueError(f"{path}: expected VGG19 up to {names[-1]}, got no {', '.join(missing)}")
    for name in names:
        n_out = _CHANNELS[name[4]]
        for part, shape in {"weight": (n_out, n_inputs, 3, 3), "bias": (n_out,)}.items():
            _check(path, f"{name}.{part}", found[f"{name}.{part}"], shape)
        n_inputs = n_out
    used = [f"{name}.{part}" for name in names for part in ("weight", "bias")]
    single = {key: np.asarray(found[key], np.float32) for key in used}
    return from_state_dict(list(vgg_entries("", ("params",), names)), single)


def _check(path: str | Path, name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    """Refuses an array that would make every feature meaningless."""
    if array.shape != shape:
        raise ValueError(f"{path}: expected {name} of shape {shape}, got {array.shape}")
    floating = array.dtype.kind == "f"
    if not floating or not np.isfinite(array).all():
        got = "NaN or infinite values" if floating else str(array.dtype)
        raise ValueError(f"{path}: expected finite floating-point numbers in {name}, got {got}")
