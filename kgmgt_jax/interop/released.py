"""What the released network consists of: its fields, its parts, its buffers, its first values."""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from kgmgt_jax.interop.torch_names import (
    Entry,
    critic_entries,
    extractor_entries,
    generator_entries,
)
from kgmgt_jax.models.attention import MASKED
from kgmgt_jax.models.critic import Critic
from kgmgt_jax.models.encoder import IMAGENET_MEAN, IMAGENET_STD
from kgmgt_jax.models.initialisation import initialise
from kgmgt_jax.models.kgmgt import KGMgT
from kgmgt_jax.models.windows import relative_position_index, shift_mask

__all__ = ["PARTS", "RELEASED", "Part", "default_buffer", "template"]

_WINDOW, _SHIFT = 8, 4
_TRAIN_SIZE = {"large": 160, "medium": 80, "small": 40}
_IMAGENET = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}

# The model section of ``configs/kgmgt.py:released``.
RELEASED: dict[str, Any] = {
    **{f.name: f.default for f in dataclasses.fields(KGMgT) if f.name not in ("parent", "name")},
    "rect_window": ((8, 8), (8, 8), (8, 8)),
    "zero_offsets": (True, False, False),
    "encoder": "released",
    "tie_weights": True,
    "search_radius": None,
    "warp_flow": "corner",
    "consistency": "none",
    "denoiser_norm": "batch",
    "dtype": "float32",
    "weight_init": "normal",
}


@dataclasses.dataclass(frozen=True)
class Part:
    """One state dict of the release.

    Attributes:
        entries: its parameters and running statistics, and where they live here.
        constants: names of buffers that ``entries`` do not imply.
    """

    entries: tuple[Entry, ...]
    constants: tuple[str, ...] = ()

    @property
    def keys(self) -> set[str]:
        """Names of the entries."""
        return {entry.key for entry in self.entries}

    @property
    def buffers(self) -> tuple[str, ...]:
        """Names of arrays that hold no weights: counters, indices, masks, constants."""
        implied = []
        for key in (entry.key for entry in self.entries):
            if key.endswith(".running_var"):
                implied.append(key.replace("running_var", "num_batches_tracked"))
            elif key.endswith(".relative_position_bias_table"):
                implied.append(key.replace("bias_table", "index"))
                block = key.removesuffix("attn.relative_position_bias_table")
                if int(block.split(".")[-2]) % 2:
                    implied.append(f"{block}attn_mask")
        return (*implied, *self.constants)


def _constants(*prefixes: str) -> tuple[str, ...]:
    return tuple(f"{prefix}.{name}" for prefix in prefixes for name in _IMAGENET)


def _starting(prefix: str) -> tuple[Entry, ...]:
    return tuple(entry for entry in extractor_entries() if entry.key.startswith(prefix))


def _critic() -> Iterable[Entry]:
    """The critic's entries, below ``critic``."""
    for entry in critic_entries():
        collection, *path = entry.path
        yield dataclasses.replace(entry, path=(collection, "critic", *path))


PARTS: dict[str, Part] = {
    "generator": Part(tuple(generator_entries())),
    "extractor": Part(
        _starting("feature_extraction"),
        _constants("feature_extraction_image1", "feature_extraction_image2_1"),
    ),
    "vgg19": Part(_starting("vgg."), _constants("vgg")),
    "critic": Part(tuple(_critic())),
}


def default_buffer(key: str) -> np.ndarray:
    """The buffer of that name as PyTorch makes it, for a checkpoint that came from elsewhere."""
    *_, name = key.split(".")
    if name == "num_batches_tracked":
        return np.zeros((), np.int64)
    if name == "relative_position_index":
        return relative_position_index((_WINDOW, _WINDOW), (_WINDOW, _WINDOW)).astype(np.int64)
    if name == "attn_mask":
        size = next(n for scale, n in _TRAIN_SIZE.items() if f"_body_{scale}." in key)
        mask = shift_mask(size, size, _WINDOW, _SHIFT)
        return np.where(mask, np.float32(MASKED), np.float32(0))
    return np.asarray(_IMAGENET[name], np.float32).reshape(1, 3, 1, 1)


@functools.cache
def template() -> dict:
    """Initial variables of the released network, with those of its critic below ``critic``."""
    frame: Any = jax.ShapeDtypeStruct((1, 32, 32), np.complex64)
    network = initialise(KGMgT(**RELEASED), 0, frame, frame, frame)
    image: Any = jax.ShapeDtypeStruct((1, 32, 32, 2), np.float32)
    critic = initialise(Critic(norm="batch", sigmoid=True), 1, image)
    return {name: {**network[name], "critic": critic[name]} for name in network}
