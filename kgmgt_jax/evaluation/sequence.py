"""Reconstructing whole cines: each frame is encoded once, and memory does not grow with the cine.

Frames go through in groups. What is carried from group to group are the features of the last two
frames; those of the frames of a group serve there as succeeding, target and preceding::

    carried   t-2  t-1
    group               t   t+1  t+2
    targets        t-1  t   t+1

so the targets of a group are one frame behind the frames that are encoded for it. In a cine that
wraps around, the features of the first and the last frame are kept for the two ends.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Complex64

from kgmgt_jax.evaluation.cine import CineInput
from kgmgt_jax.evaluation.triplets import reconstruct_triplets
from kgmgt_jax.models.encoder import Features
from kgmgt_jax.models.kgmgt import KGMgT
from kgmgt_jax.models.registry import Network
from kgmgt_jax.types import Measurement

__all__ = ["OnlineReconstructor", "reconstruct_cine"]


class _Carry(NamedTuple):
    """Features of the two frames before those of the next group, each a batch of one."""

    before: Features
    current: Features


class _Ends(NamedTuple):
    """Features of the first and of the last frame of a cine."""

    first: Features
    last: Features


def reconstruct_cine(
    model: Network,
    variables: Any,
    cine: CineInput,
    *,
    circular: bool = True,
    frames_at_once: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Complex[Array, "t h w"]:
    """Reconstructs every frame of a cine.

    Args:
        model: the network; one without an encoder is given triplets, as in training.
        variables: its variables.
        cine: what was measured.
        circular: whether the last frame precedes the first; otherwise an end frame stands in for
            its missing neighbour, as it does in a cine of one frame.
        frames_at_once: size of a group: 1 needs least memory, more fill an accelerator.
        progress: called with the number of frames done after each group. Without it the cine is
            one compiled call, for cines of this length; with it each group is one, of a program
            that serves cines of any length.

    Raises:
        ValueError: if ``frames_at_once`` is below 1, or the arrays are not those of one cine.
    """
    if frames_at_once < 1:
        raise ValueError(f"expected frames_at_once >= 1, got {frames_at_once=}")
    cine.check()
    n_frames = cine.images.shape[0]
    group = min(frames_at_once, n_frames)
    cine = cine.on_device()
    if not isinstance(model, KGMgT):
        return reconstruct_triplets(model, variables, cine, circular, group, progress)
    if progress is None:
        return _reconstruct_whole(model, variables, cine, circular, group)
    ends, images = _encode_ends(model, variables, cine), []
    carry = _start(ends, circular)
    for first in range(0, n_frames, group):
        targets = np.minimum(np.arange(first, first + group), n_frames - 1)
        following = cine.images[np.minimum(targets + 1, n_frames - 1)]
        plan = _plan(first, group, n_frames)
        fresh = _encode(model, variables, following) if plan.n_fresh else None
        new = _followers(plan, fresh, ends, circular)
        carry, features = _line_up(carry, new)
        measurement = cine.measurement(targets)
        image = _refine(model, variables, cine.images[targets], features, measurement)
        done = min(group, n_frames - first)
        images.append(jax.block_until_ready(image)[:done])
        progress(done)
    return jnp.concatenate(images)


@functools.partial(jax.jit, static_argnames=("model", "circular", "group"))
def _reconstruct_whole(
    model: KGMgT, variables: Any, cine: CineInput, circular: bool, group: int
) -> Complex[Array, "t h w"]:
    """The cine as a scan over its groups; the last of them have branches of their own."""
    n_frames, h, w = cine.images.shape
    ends = _encode_ends(model, variables, cine)
    starts = range(0, n_frames, group)
    plans = sorted({_plan(start, group, n_frames) for start in starts}, reverse=True)
    branch_of = [plans.index(_plan(start, group, n_frames)) for start in starts]

    def body(carry: _Carry, group_of: tuple) -> tuple[_Carry, Complex[Array, "group h w"]]:
        start, branch = group_of
        targets = jnp.minimum(start + jnp.arange(group), n_frames - 1)
        following = jnp.minimum(targets + 1, n_frames - 1)

        def encode(plan: _Plan) -> Features:
            frames = cine.images[following[: plan.n_fresh]]
            fresh = _encode(model, variables, frames) if plan.n_fresh else None
            return _followers(plan, fresh, ends, circular)

        new = jax.lax.switch(branch, [functools.partial(encode, plan) for plan in plans])
        carry, features = _line_up(carry, new)
        measurement = cine.measurement(targets)
        return carry, _refine(model, variables, cine.images[targets], features, measurement)

    groups = (jnp.asarray(starts), jnp.asarray(branch_of))
    _, images = jax.lax.scan(body, _start(ends, circular), groups)
    return images.reshape(-1, h, w)[:n_frames]


@functools.partial(jax.jit, static_argnames="model")
def _encode(model: KGMgT, variables: Any, frames: Complex[Array, "b h w"]) -> Features:
    features: Any = model.apply(variables, frames, method="encode")
    return features


@functools.partial(jax.jit, static_argnames="model")
def _refine(
    model: KGMgT,
    variables: Any,
    images: Complex[Array, "b h w"],
    features: tuple[Features, Features, Features],
    measurement: Measurement,
) -> Complex[Array, "b h w"]:
    """Images from the features of targets, preceding and succeeding frames."""
    output: Any = model.apply(variables, images, *features, measurement, method="from_features")
    return output.image


@functools.partial(jax.jit, static_argnames="model")
def _refine_one(
    model: KGMgT, variables: Any, frame: CineInput, features: tuple[Features, Features, Features]
) -> Complex[Array, "h w"]:
    """The image of a cine of one frame."""
    measurement = frame.measurement(np.zeros(1, int))
    return _refine(model, variables, frame.images, features, measurement)[0]


def _encode_ends(model: KGMgT, variables: Any, cine: CineInput) -> _Ends:
    first = _encode(model, variables, cine.images[:1])
    alone = cine.images.shape[0] == 1
    return _Ends(first, first if alone else _encode(model, variables, cine.images[-1:]))


def _start(ends: _Ends, circular: bool) -> _Carry:
    """The frame before the first, and the first."""
    return _Carry(ends.last if circular else ends.first, ends.first)


class _Plan(NamedTuple):
    """What follows the targets of a group: so many fresh frames, the last frame, what follows it.

    A plan without fresh frames may begin behind the last frame.
    """

    n_fresh: int
    n_last: int
    n_behind: int


def _plan(start: int, group: int, n_frames: int) -> _Plan:
    """Target i is followed by frame i + 1; the last frame is known, and so is what follows it."""
    fresh = min(max(n_frames - 2 - start, 0), group)
    last = int(start + fresh + 1 < n_frames and fresh < group)
    return _Plan(fresh, last, group - fresh - last)


def _followers(plan: _Plan, fresh: Features | None, ends: _Ends, circular: bool) -> Features:
    """Features of the frames that follow the targets of a group."""
    parts = [] if fresh is None else [_part(fresh, 0, plan.n_fresh)]
    behind = ends.first if circular else ends.last
    return _join(*parts, *[ends.last] * plan.n_last, *[behind] * plan.n_behind)


def _line_up(carry: _Carry, new: Features) -> tuple[_Carry, tuple[Features, Features, Features]]:
    """The next carry; and the target, preceding and succeeding features of a group."""
    group = new.query.shape[0]
    known = _join(carry.before, carry.current, new)
    preceding, target = _part(known, 0, group), _part(known, 1, group + 1)
    carry = _Carry(_part(known, group, group + 1), _part(known, group + 1, group + 2))
    return carry, (target, preceding, new)


def _join(*parts: Features) -> Features:
    return jax.tree.map(lambda *x: jnp.concatenate(x), *parts)


def _part(features: Features, start: int, stop: int) -> Features:
    return jax.tree.map(lambda x: x[start:stop], features)


class OnlineReconstructor:
    """Reconstructs a running scan: each new frame gives the image of the one before it.

    The latency is one frame, since the network looks at the frame that follows. Frames must come
    at about unit intensity, scaled alike.

    Args:
        model: the network.
        variables: its variables.

    Raises:
        TypeError: for another network than KGMgT.
    """

    def __init__(self, model: Network, variables: Any) -> None:
        if not isinstance(model, KGMgT):
            raise TypeError(f"expected a KGMgT to reconstruct online, got {type(model).__name__}")
        self._model, self._variables = model, jax.device_put(variables)
        self._carry: _Carry | None = None
        self._waiting: CineInput | None = None

    def push(self, frame: CineInput) -> Complex64[np.ndarray, "h w"] | None:
        """Takes the next frame.

        Args:
            frame: a cine of this one frame.

        Returns:
            The reconstruction of the frame pushed before; ``None`` for the first.

        Raises:
            ValueError: if there is not exactly one frame, of the size of those before it, or its
                arrays do not fit each other.
        """
        if frame.images.shape[0] != 1:
            raise ValueError(f"expected one frame at a time, got {frame.images.shape=}")
        frame.check()
        waiting = self._waiting
        if waiting is not None and waiting.images.shape != frame.images.shape:
            raise ValueError(
                f"expected a frame of shape {waiting.images.shape}, as the one before it, got "
                f"{frame.images.shape=}; end a scan by finish()"
            )
        frame = frame.on_device()
        new = _encode(self._model, self._variables, frame.images)
        image = self._reconstruct(new)
        before = new if self._carry is None else self._carry.current
        self._carry, self._waiting = _Carry(before, new), frame
        return image

    def finish(self) -> Complex64[np.ndarray, "h w"] | None:
        """The reconstruction of the last frame, which stands in for the one that never came.

        The next ``push`` begins a new scan.
        """
        try:
            return None if self._carry is None else self._reconstruct(self._carry.current)
        finally:
            self._carry = self._waiting = None

    def _reconstruct(self, new: Features) -> Complex64[np.ndarray, "h w"] | None:
        if self._carry is None or self._waiting is None:
            return None
        features = (self._carry.current, self._carry.before, new)
        return jax.device_get(_refine_one(self._model, self._variables, self._waiting, features))
