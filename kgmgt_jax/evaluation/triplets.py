"""Whole cines by networks that see three frames at a time and keep nothing in between."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from kgmgt_jax.evaluation.cine import CineInput
from kgmgt_jax.models.registry import Network
from kgmgt_jax.types import Array, Complex, Int

__all__ = ["reconstruct_triplets"]


def reconstruct_triplets(
    model: Network,
    variables: Any,
    cine: CineInput,
    circular: bool,
    group: int,
    progress: Callable[[int], None] | None = None,
) -> Complex[Array, "t h w"]:
    """Reconstructs every frame from itself and its neighbours; memory is that of one group.

    Args:
        model: a network of KGMgT's call signature.
        variables: its variables.
        cine: what was measured, on the device.
        circular: whether the last frame precedes the first; otherwise an end frame stands in for
            its missing neighbour.
        group: targets at once, no more than there are frames.
        progress: called with the number of frames done after each group.
    """
    n_frames, h, w = cine.images.shape
    starts = range(0, n_frames, group)
    if progress is None:
        groups = jnp.asarray(starts)
        return _all_groups(model, variables, cine, groups, circular, group).reshape(-1, h, w)[
            :n_frames
        ]
    images = []
    for start in starts:
        image = _group(model, variables, cine, jnp.asarray(start), circular, group)
        done = min(group, n_frames - start)
        images.append(jax.block_until_ready(image)[:done])
        progress(done)
    return jnp.concatenate(images)


@functools.partial(jax.jit, static_argnames=("model", "circular", "group"))
def _all_groups(
    model: Network,
    variables: Any,
    cine: CineInput,
    starts: Int[Array, "groups"],
    circular: bool,
    group: int,
) -> Complex[Array, "groups group h w"]:
    return jax.lax.map(lambda s: _group(model, variables, cine, s, circular, group), starts)


@functools.partial(jax.jit, static_argnames=("model", "circular", "group"))
def _group(
    model: Network,
    variables: Any,
    cine: CineInput,
    start: Int[Array, ""],
    circular: bool,
    group: int,
) -> Complex[Array, "group h w"]:
    """Images of the frames from ``start`` on; beyond the last frame that one again."""
    last = cine.images.shape[0] - 1
    targets = jnp.minimum(start + jnp.arange(group), last)
    before, after = targets - 1, targets + 1
    if circular:
        before, after = before % (last + 1), after % (last + 1)
    else:
        before, after = jnp.maximum(before, 0), jnp.minimum(after, last)
    frames = (cine.images[index] for index in (targets, before, after))
    output: Any = model.apply(variables, *frames, cine.measurement(targets))
    return output.image
