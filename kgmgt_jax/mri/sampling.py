"""Cartesian undersampling patterns of cardiac cine as pure functions of a random key.

Every generator has the form ``f(key, shape, acceleration, *, acs, ...) -> SamplingMask`` with
``shape = (t, ny, nx)``: frames, phase encodes (``ky``), readout samples (``kx``). A line is one
``ky`` with all its readout samples. The ``acs`` lines at the centre of k-space are measured in
every frame.

=================== =========================== ======================== ======================
kind                lines of a frame            over time                ACS counted in R
=================== =========================== ======================== ======================
uniform             every R-th                  the same                 no
kt_uniform          every R-th                  shifted by one a frame   no
kt_gaussian         ny / R, Gaussian density    drawn anew               no
variable_density    ny / R, polynomial density  drawn anew, or the same  yes: R is the true one
kt_radial           ny / R golden-angle spokes  angles go on             no
=================== =========================== ======================== ======================

Where ACS lines are not counted (the convention of CMRxRecon), nominal and true acceleration differ;
`SamplingMask` carries both. Under ``jax.jit`` everything but the key must be static. A key
draws the same mask with ``jax_enable_x64`` as without.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from kgmgt_jax.types import Key

__all__ = [
    "MASKS",
    "SamplingMask",
    "centre_rank",
    "kt_gaussian",
    "kt_radial",
    "kt_uniform",
    "make_mask",
    "true_acceleration",
    "uniform",
    "variable_density",
]

Shape = tuple[int, int, int]
Number = float | int

GOLDEN_ANGLE = math.pi * (math.sqrt(5.0) - 1.0) / 2.0
GAUSSIAN_FLOOR = 0.1  # of the density's peak, so that the outermost lines are visited too
_FIRST = np.finfo(np.float32).max  # a score above all others, and yet finite
_REAL, _WHOLE = jnp.float32, jnp.int32  # of draws: x64 would draw other masks from the same key


class SamplingMask(NamedTuple):
    """A sampling pattern and how much it accelerates.

    Attributes:
        mask: 1 where a sample is measured, 0 elsewhere.
        nominal_acceleration: the R that was asked for.
        true_acceleration: all samples / measured samples, over all frames.
    """

    mask: Float[Array, "t h w"]
    nominal_acceleration: float
    true_acceleration: Float[Array, ""]


def true_acceleration(mask: Float[Array, "*b h w"]) -> Float[Array, ""]:
    """All samples / measured samples; infinite for a mask that measures nothing."""
    return mask.size / jnp.count_nonzero(mask)


def centre_rank(size: int) -> Int[np.ndarray, " size"]:
    """Rank of each index by its distance from the centre: ``size // 2`` has rank 0.

    The ranks 0, 1, 2, 3, ... lie at ``c, c-1, c+1, c-2, ...`` with ``c = size // 2``, so
    ``centre_rank(ny) < n`` is the block of ``n`` central lines, ``c - n // 2`` to
    ``c - n // 2 + n - 1``, for odd and even ``ny`` and ``n``.

    Args:
        size: number of indices.

    Returns:
        A permutation of ``0 .. size - 1``.
    """
    distance = np.arange(size) - size // 2
    return np.where(distance < 0, -2 * distance - 1, 2 * distance)


def uniform(
    key: Key, shape: Shape, acceleration: Number, *, acs: int = 24, offset: int | None = None
) -> SamplingMask:
    """Every R-th line and the central ones, the same in all frames.

    Args:
        key: draws the first line of the comb, unless ``offset`` gives it.
        shape: ``(t, ny, nx)``.
        acceleration: spacing R of the comb, a whole number in ``1 .. ny``.
        acs: number of central lines added, ``0 .. ny``.
        offset: first line of the comb, ``0 .. R - 1``.

    Raises:
        ValueError: if a size, the acceleration, ``acs`` or ``offset`` is out of range.

    Source: CMRxRecon 2023 (24 ACS lines), the ``Uniform`` masks of 2024 (16).
    """
    return _comb(key, shape, acceleration, acs, offset, shear=0)


def kt_uniform(
    key: Key, shape: Shape, acceleration: Number, *, acs: int = 16, offset: int | None = None
) -> SamplingMask:
    """Every R-th line, shifted by one line a frame, and the central ones.

    R consecutive frames measure each line at least once. Arguments, errors as `uniform`.

    Source: the ``ktUniform`` masks of CMRxRecon 2024.
    """
    return _comb(key, shape, acceleration, acs, offset, shear=1)


def kt_gaussian(key: Key, shape: Shape, acceleration: Number, *, acs: int = 16) -> SamplingMask:
    """Lines drawn from a Gaussian density, anew in each frame, and the central ones.

    Each of the ``round(ny / R)`` lines of a frame is drawn from the density
    ``exp(-(y - ny // 2)^2 / (2 σ^2)) + floor``, σ = ny / 5; one that is already taken moves to the
    nearest line that is free. R is any number in ``[1, ny]``; else as `uniform`.

    Source: ``ktGaussian`` of CMRxRecon 2024, whose own generator has a narrower peak over a higher
    floor, ``exp(-(y - ny // 2)^2 / σ^2) + 0.4``.
    """
    _check(shape, acceleration, acs)
    n_frames, n_lines, _ = shape
    n_drawn = _round_half_up(n_lines / acceleration)
    distance = np.arange(n_lines) - n_lines // 2
    density = np.exp(-0.5 * (distance / (n_lines / 5.0)) ** 2) + GAUSSIAN_FLOOR
    line_key, jitter_key = jax.random.split(key)
    weights = jnp.asarray(density / density.sum(), _REAL)
    drawn = jax.random.choice(line_key, n_lines, (n_frames, n_drawn), p=weights)
    # Half a line of jitter decides to which side a line that is taken gives way.
    jitter = jax.random.uniform(jitter_key, drawn.shape, _REAL, minval=-0.5, maxval=0.5)
    lines = _occupy_nearest(drawn + jitter, n_lines)
    return _from_lines(lines, shape, acceleration, acs)


def variable_density(
    key: Key,
    shape: Shape,
    acceleration: Number,
    *,
    acs: int = 8,
    power: float = 2.0,
    fixed: bool = False,
) -> SamplingMask:
    """Exactly ``round(ny / R)`` lines a frame, the central ones included: R is the true one.

    The others are drawn without replacement with weights
    ``(1 - |y - ny // 2| / (ny // 2 + 1))^power`` (Gumbel top-k: the largest ``log weight + g``).

    Args:
        key: draws the lines.
        shape: ``(t, ny, nx)``.
        acceleration: R in ``[1, ny]``.
        acs: number of central lines always measured, at most ``round(ny / R)``.
        power: how fast the density falls from the centre, >= 0; 0 is a flat density.
        fixed: the same lines in all frames instead of new ones in each.

    Raises:
        ValueError: if a size, the acceleration or ``power`` is out of range, or if the ACS alone
            exceeds the lines of a frame.

    Source: Lustig et al., Magn Reson Med 58:1182 (2007), for the polynomial density.
    """
    _check(shape, acceleration, acs)
    n_frames, n_lines, _ = shape
    n_measured = _round_half_up(n_lines / acceleration)
    if acs > n_measured:
        raise ValueError(
            f"expected acs <= round(ny / acceleration) = {n_measured}, got {acs=} with "
            f"{acceleration=} and ny={n_lines}; lower acs or the acceleration"
        )
    if not power >= 0:
        raise ValueError(f"expected power >= 0, got {power=}; 0 is a flat density")
    distance = np.abs(np.arange(n_lines) - n_lines // 2)
    log_weight = power * np.log1p(-distance / (n_lines // 2 + 1))
    score = np.where(centre_rank(n_lines) < acs, _FIRST, log_weight).astype(np.float32)
    noise = jax.random.gumbel(key, (1 if fixed else n_frames, n_lines), _REAL)
    order = jnp.argsort(-(jnp.asarray(score)[None] + noise), axis=-1)
    lines = jnp.argsort(order, axis=-1) < n_measured
    return _from_lines(lines, shape, acceleration, acs)


def kt_radial(key: Key, shape: Shape, acceleration: Number, *, acs: int = 16) -> SamplingMask:
    """Golden-angle spokes drawn on the Cartesian grid, and a central square.

    Each frame has ``round(ny / R)`` spokes through the centre. Successive spokes, also from one
    frame to the next, are 111.25 degrees apart. Angles are those of a grid scaled to a square, so
    each spoke runs from border to border, with one sample a step along its longer direction.
    Spokes share the centre, and steep ones are shorter where nx > ny, so the true acceleration
    can exceed R. ``acs`` is the side of the square, at most nx; else as `kt_gaussian`.

    Source: Winkelmann et al., IEEE TMI 26:68 (2007), for ``ktRadial`` of CMRxRecon 2024, whose own
    generator has ``floor(300 / R)`` spokes at equal angles, turned by 137.5 degrees a frame.
    """
    _check(shape, acceleration, acs)
    n_frames, ny, nx = shape
    if acs > nx:
        raise ValueError(f"expected acs <= nx for the central square, got {acs=} with {nx=}")
    n_spokes = _round_half_up(ny / acceleration)
    spoke = np.arange(n_frames * n_spokes)
    first = jax.random.uniform(key, (), _REAL, maxval=math.pi)
    angle = first + jnp.asarray(np.mod(spoke * GOLDEN_ANGLE, math.pi), _REAL)
    direction = jnp.stack([ny * jnp.sin(angle), nx * jnp.cos(angle)], axis=-1)  # spoke 2
    direction = direction / jnp.max(jnp.abs(direction), axis=-1, keepdims=True)
    step = jnp.arange(max(ny, nx)) - max(ny, nx) // 2
    offset = jnp.round(step[None, :, None] * direction[:, None, :]).astype(int)  # spoke step 2
    y, x = offset[..., 0] + ny // 2, offset[..., 1] + nx // 2
    inside = (y >= 0) & (y < ny) & (x >= 0) & (x < nx)
    frame = jnp.broadcast_to((spoke // n_spokes)[:, None], y.shape)
    frame = jnp.where(inside, frame, n_frames)  # an index that "drop" ignores
    square = (centre_rank(ny) < acs)[:, None] & (centre_rank(nx) < acs)[None, :]
    mask = jnp.broadcast_to(jnp.asarray(square, jnp.float32)[None], shape)
    mask = mask.at[frame, y, x].set(1.0, mode="drop")
    return SamplingMask(mask, float(acceleration), true_acceleration(mask))


MASKS: dict[str, Callable[..., SamplingMask]] = {
    "uniform": uniform,
    "kt_uniform": kt_uniform,
    "kt_gaussian": kt_gaussian,
    "variable_density": variable_density,
    "kt_radial": kt_radial,
}
"""By kind; called with a key, a shape, an acceleration, and what else each of them takes."""


def make_mask(kind: str, key: Key, shape: Shape, acceleration: Number, **options) -> SamplingMask:
    """Draws a mask of the named kind.

    Args:
        kind: a key of `MASKS`.
        key: random key of the generator.
        shape: ``(t, ny, nx)``.
        acceleration: R, nominal or true as the kind defines it.
        **options: further arguments of that generator, such as ``acs``; its defaults otherwise.

    Raises:
        ValueError: if ``kind`` is unknown, or by the generator.
        TypeError: if the generator has no such option.
    """
    if kind not in MASKS:
        raise ValueError(f"expected kind to be one of {', '.join(MASKS)}, got {kind=}")
    return MASKS[kind](key, shape, acceleration, **options)


def _comb(
    key: Key, shape: Shape, acceleration: Number, acs: int, offset: int | None, shear: int
) -> SamplingMask:
    """Lines with ``(y - offset - shear * frame) mod R == 0``, and the ACS."""
    _check(shape, acceleration, acs)
    spacing = int(acceleration)
    if spacing != acceleration:
        raise ValueError(f"expected a whole number as the comb's spacing, got {acceleration=}")
    if offset is not None and not (0 <= offset < spacing and offset == int(offset)):
        raise ValueError(
            f"expected a whole number 0 <= offset < acceleration, got {offset=}, {acceleration=}"
        )
    first = jax.random.randint(key, (), 0, spacing, _WHOLE) if offset is None else offset
    frame, line = jnp.arange(shape[0])[:, None], jnp.arange(shape[1])[None, :]
    return _from_lines((line - first - shear * frame) % spacing == 0, shape, acceleration, acs)


@partial(jax.jit, static_argnames="n_lines")
def _occupy_nearest(positions: Float[Array, "t drawn"], n_lines: int) -> Bool[Array, "t h"]:
    """Takes, for one position after the other, the nearest line of the frame still free."""
    line = jnp.arange(n_lines, dtype=positions.dtype)[None]

    def occupy(taken: Array, position: Array) -> tuple[Array, None]:
        distance = jnp.where(taken, jnp.inf, jnp.abs(line - position[:, None]))
        return taken | jax.nn.one_hot(jnp.argmin(distance, axis=-1), n_lines, dtype=bool), None

    taken = jnp.zeros((positions.shape[0], n_lines), bool)
    return jax.lax.scan(occupy, taken, positions.T)[0]


def _from_lines(
    lines: Bool[Array, "#t h"], shape: Shape, acceleration: Number, acs: int
) -> SamplingMask:
    """Adds the ACS and extends lines along the readout (and over the frames, if one is given)."""
    lines = lines | jnp.asarray(centre_rank(shape[1]) < acs)[None]
    mask = jnp.broadcast_to(lines[:, :, None], shape).astype(jnp.float32)
    return SamplingMask(mask, float(acceleration), true_acceleration(mask))


def _round_half_up(value: float) -> int:
    return math.floor(value + 0.5)


def _check(shape: Shape, acceleration: Number, acs: int) -> None:
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"expected shape (t, ny, nx) of positive sizes, got {shape=}")
    if not 1 <= acceleration <= shape[1]:
        raise ValueError(f"expected 1 <= acceleration <= ny, got {acceleration=} with {shape=}")
    if not 0 <= acs <= shape[1] or acs != int(acs):
        raise ValueError(f"expected a whole number 0 <= acs <= ny, got {acs=} with {shape=}")
