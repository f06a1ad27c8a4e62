"""ImageNet VGG19 weights from a file the user has."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from kgmgt_jax.interop.torch_names import from_state_dict, vgg_entries
from kgmgt_jax.models.encoder import VGG19_LAYERS

__all__ = ["load_vgg19", "vgg_names"]

# Index of each convolution among torchvision's ``features``: activations and pooling count too.
_TORCHVISION: dict[int, str] = dict(
    zip((0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34), VGG19_LAYERS, strict=True)
)


def vgg_names(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames ``features.5.weight`` or ``any.prefix.conv2_1.weight`` to ``conv2_1.weight``."""
    renamed = {}
    for key, value in state_dict.items():
        torchvision = re.search(r"(?:^|\.)features\.(\d+)\.(weight|bias)$", key)
        named = re.search(r"(?:^|\.)(conv\d_\d)\.(weight|bias)$", key)
        if torchvision and int(torchvision[1]) in _TORCHVISION:
            renamed[f"{_TORCHVISION[int(torchvision[1])]}.{torchvision[2]}"] = value
        elif named:
            renamed[f"{named[1]}.{named[2]}"] = value
    return renamed


def load_vgg19(path: str | Path, *, last: str = "conv5_1") -> dict:
    """Parameters of ``VGG`` up to ``last`` from an ``.npz`` of PyTorch-layout arrays.

    Args:
        path: arrays named as torchvision names them (``features.0.weight``) or by convolution
            (``conv1_1.weight``, with any prefix).
        last: the last convolution needed.

    Raises:
        ValueError: if the file cannot be read or lacks a convolution.
    """
    try:
        with np.load(path) as file:
            found = vgg_names({key: file[key] for key in file.files})
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: expected an .npz of VGG19 weights, got {error}") from error
    names = VGG19_LAYERS[: VGG19_LAYERS.index(last) + 1]
    missing = [n for n in names if f"{n}.weight" not in found or f"{n}.bias" not in found]
    if missing:
        raise ValueError(f"{path}: expected VGG19 up to {last}, got no {', '.join(missing)}")
    return from_state_dict(list(vgg_entries("", ("params",), names)), found)
