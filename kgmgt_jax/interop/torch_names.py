"""Where each array of the released PyTorch state dicts lives among our parameters.

The correspondence is a list of ``Entry``; both directions read the same list. A transformer body
is a list of modules there; here groups, and the blocks of each, are stacked on leading axes, so an
entry may name one slice of a stacked array.
"""

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
from flax import traverse_util

__all__ = [
    "Entry",
    "block_entries",
    "body_entries",
    "critic_entries",
    "extractor_entries",
    "from_state_dict",
    "generator_entries",
    "group_entries",
    "to_state_dict",
    "vgg_entries",
]

_N_GROUPS, _N_BLOCKS = 2, 4
_STAGES = ("down_large", "down_medium", "up_small", "up_medium", "up_large")

# How an array is laid out there, and here.
_TO_FLAX = {
    "conv": lambda a: a.transpose(2, 3, 1, 0),  # (out, in, kh, kw) to (kh, kw, in, out)
    "pointwise": lambda a: a[:, :, 0, 0].T,  # a 1 x 1 convolution that is a linear layer here
    "linear": lambda a: a.T,
    "same": lambda a: a,
    "scale": lambda a: a[:, 0, 0],  # (heads, 1, 1) to (heads,)
}
_TO_TORCH = {
    "conv": lambda a: a.transpose(3, 2, 0, 1),
    "pointwise": lambda a: a.T[:, :, None, None],
    "linear": lambda a: a.T,
    "same": lambda a: a,
    "scale": lambda a: a[:, None, None],
}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One array of a state dict.

    Attributes:
        key: its name there.
        path: collection and parameter path here.
        layout: ``"conv"``, ``"pointwise"``, ``"linear"``, ``"scale"`` or ``"same"``.
        index: position on the leading, stacked axes here.
    """

    key: str
    path: tuple[str, ...]
    layout: str = "same"
    index: tuple[int, ...] = ()


def _layer(
    key: str, path: tuple[str, ...], layout: str, index: tuple[int, ...] = (), bias: bool = True
) -> Iterator[Entry]:
    """Weight and bias of a convolution, a linear layer or (layout "same") a normalisation."""
    weight = "scale" if layout == "same" else "kernel"
    yield Entry(f"{key}.weight", (*path, weight), layout, index)
    if bias:
        yield Entry(f"{key}.bias", (*path, "bias"), "same", index)


def _batch_norm(key: str, path: tuple[str, ...]) -> Iterator[Entry]:
    yield from _layer(key, ("params", *path), "same")
    yield Entry(f"{key}.running_mean", ("batch_stats", *path, "mean"))
    yield Entry(f"{key}.running_var", ("batch_stats", *path, "var"))


def block_entries(key: str, path: tuple[str, ...], index: tuple[int, ...] = ()) -> Iterator[Entry]:
    """One MGwinT block; ``key`` is a prefix that ends in a dot, or empty."""
    for norm in ("norm1", "norm2"):
        yield from _layer(key + norm, (*path, norm), "same", index)
    table = (*path, "square", "bias_table")
    yield Entry(key + "attn.relative_position_bias_table", table, "same", index)
    mixed = key + "mixed_attn."
    for ours, theirs in (
        (("square", "qkv"), key + "attn.qkv"),
        (("square", "out"), key + "attn.proj"),
        (("rect", "qkv"), mixed + "qkv.body"),
        (("rect", "out"), mixed + "final"),
        (("mlp1",), key + "mlp.fc1"),
        (("mlp2",), key + "mlp.fc2"),
    ):
        yield from _layer(theirs, (*path, *ours), "linear", index)
    rect = (*path, "rect")
    yield from _layer(mixed + "anchor.body.0.0", (*rect, "anchor_depth"), "conv", index)
    yield from _layer(mixed + "anchor.body.0.1", (*rect, "anchor_point"), "pointwise", index)
    for ours, theirs in (("gather", "attn_transform1"), ("spread", "attn_transform2")):
        step = f"{mixed}stripe_attn.{theirs}."
        yield Entry(step + "logit_scale", (*rect, ours, "logit_scale"), "scale", index)
        yield from _layer(step + "cpb_mlp.0", (*rect, ours, "hidden"), "linear", index)
        yield from _layer(step + "cpb_mlp.2", (*rect, ours, "bias"), "linear", index, bias=False)


def group_entries(key: str, path: tuple[str, ...], index: tuple[int, ...] = ()) -> Iterator[Entry]:
    """One residual group of blocks; ``key`` is a prefix that ends in a dot, or empty."""
    for block in range(_N_BLOCKS):
        there = f"{key}residual_group.blocks.{block}."
        yield from block_entries(there, (*path, "blocks"), (*index, block))
    yield from _layer(f"{key}conv", (*path, "conv"), "conv", index)


def body_entries(key: str, path: tuple[str, ...]) -> Iterator[Entry]:
    """A transformer body; ``key`` is a prefix that ends in a dot, or empty."""
    yield from _layer(f"{key}patch_embed.norm", (*path, "norm_in"), "same")
    yield from _layer(f"{key}norm", (*path, "norm_out"), "same")
    for g in range(_N_GROUPS):
        yield from group_entries(f"{key}layers.{g}.", (*path, "groups"), (g,))


def _stage_entries(number: int, stage: str) -> Iterator[Entry]:
    direction, size = stage.split("_")
    root, path = "dyn_agg_restore.", ("params", "mentor_net", "unet", stage)
    asa = (*path, "asa")
    for conv in ("offset_conv1", "offset_conv2"):
        yield from _layer(f"{root}{stage}_{conv}", (*asa, conv), "conv")
    dyn_agg = f"{root}{stage}_dyn_agg"
    yield Entry(f"{dyn_agg}.weight", (*asa, "dyn_agg", "kernel"), "conv")
    yield Entry(f"{dyn_agg}.bias", (*asa, "dyn_agg", "bias"))
    offsets = (*asa, "dyn_agg", "conv_offset_mask")
    yield from _layer(f"{dyn_agg}.conv_offset_mask", offsets, "conv")
    yield from _layer(f"{root}x_agg_{number}.0", (*path, "fuse_prior"), "conv")
    yield from _layer(f"{root}{direction}_head_{size}.0", (*path, "fuse_reference"), "conv")
    body = f"{root}{direction}_body_{size}."
    yield from body_entries(body, (*path, "body"))


def generator_entries() -> Iterator[Entry]:
    """The released ``net_g``: the one network that is mentor and learner."""
    root, path = "dyn_agg_restore.", ("params", "mentor_net", "unet")
    yield from _layer(f"{root}unet_head", (*path, "head"), "conv")
    for number, stage in enumerate(_STAGES, start=1):
        yield from _stage_entries(number, stage)
    for ours, theirs in (
        ("down_large_tail", "down_tail_large"),
        ("down_medium_tail", "down_tail_medium"),
        ("up_small_tail", "up_tail_small.0"),
        ("up_medium_tail", "up_tail_medium.0"),
        ("up_large_tail1", "up_tail_large.0"),
        ("up_large_tail2", "up_tail_large.2"),
    ):
        yield from _layer(root + theirs, (*path, ours), "conv")
    denoiser = ("mentor_net", "denoiser", "denoiser")
    for i in range(5):
        yield from _layer(f"dw.nw.{3 * i}", ("params", *denoiser, f"conv{i}"), "conv")
        yield from _batch_norm(f"dw.nw.{3 * i + 1}", (*denoiser, f"norm{i}"))


def vgg_entries(key: str, path: tuple[str, ...], names: tuple[str, ...]) -> Iterator[Entry]:
    """Convolutions of a VGG by name; ``key`` is a prefix that ends in a dot, or empty."""
    for name in names:
        yield from _layer(key + name, (*path, name), "conv")


def extractor_entries() -> Iterator[Entry]:
    """The released matching extractors (``net_extractor``) and reference features (``net_map``)."""
    names = ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1")
    root = ("params", "frame_encoder")
    for ours, theirs in (
        ("target_extractor", "feature_extraction_image1.model."),
        ("reference_extractor", "feature_extraction_image2_1.model."),
        ("vgg", "vgg.vgg_net."),
    ):
        yield from vgg_entries(theirs, (*root, ours), names)


def critic_entries() -> Iterator[Entry]:
    """The released critic, ``net_d``."""
    for block in range(1, 6):
        for conv, at in ((1, 0), (2, 3)):
            key = f"conv_block{block}."
            yield from _layer(f"{key}{at}", ("params", f"block{block}_conv{conv}"), "conv")
            yield from _batch_norm(f"{key}{at + 1}", (f"block{block}_norm{conv}",))
    yield from _layer("out_block.1", ("params", "hidden"), "pointwise")
    yield from _layer("out_block.3", ("params", "score"), "pointwise")


def from_state_dict(entries: list[Entry], state_dict: Mapping[str, np.ndarray]) -> dict:
    """Nested variables from the arrays that ``entries`` name.

    Raises:
        KeyError: if a named array is absent.
    """
    slices: dict[tuple[str, ...], dict[tuple[int, ...], np.ndarray]] = {}
    for entry in entries:
        value = _TO_FLAX[entry.layout](np.asarray(state_dict[entry.key]))
        slices.setdefault(entry.path, {})[entry.index] = value
    flat = {}
    for path, parts in slices.items():
        stacked = tuple(n + 1 for n in max(parts))
        first = parts[(0,) * len(stacked)]
        array = np.empty(stacked + first.shape, first.dtype)
        for index, value in parts.items():
            array[index] = value
        flat[path] = array
    return traverse_util.unflatten_dict(flat)


def to_state_dict(entries: list[Entry], variables: Mapping) -> dict[str, np.ndarray]:
    """Arrays by released name: inverse of ``from_state_dict``."""
    flat = traverse_util.flatten_dict(variables)
    return {
        entry.key: np.ascontiguousarray(
            _TO_TORCH[entry.layout](np.asarray(flat[entry.path])[entry.index])
        )
        for entry in entries
    }
