"""Filling where the network runs: what `fill_gaps` does on the host, in JAX."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from kgmgt_jax.classical.local_low_rank import minimise_locally_low_rank
from kgmgt_jax.classical.low_rank import minimise_low_rank_plus_sparse
from kgmgt_jax.classical.measurement import (
    ScaledData,
    average_filled,
    temporal_mean,
    with_frames,
)
from kgmgt_jax.classical.proximal import soft_threshold
from kgmgt_jax.classical.total_variation import minimise_temporal_variation
from kgmgt_jax.data.filling import local_low_rank, low_rank, sparse, variation
from kgmgt_jax.data.filling.averages import frame_distances
from kgmgt_jax.data.filling.ways import check_fill
from kgmgt_jax.mri.consistency import adjoint, forward
from kgmgt_jax.mri.fourier import fft2c, ifft2c

__all__ = ["fill_on_device"]

Kspace = Complex[Array, "t n h w"]
Mask = Float[Array, "t h w"]


@functools.partial(jax.jit, static_argnames=("input_fill", "circular"))
def fill_on_device(
    kspace: Kspace,
    mask: Mask,
    input_fill: str,
    *,
    sens: Complex[Array, "*t n h w"] | None = None,
    circular: bool = True,
) -> Kspace:
    """Fills what a frame did not measure from the other frames of the cine.

    Args:
        kspace: centred k-space of which only what was measured is looked at.
        mask: 1 where measured.
        input_fill: see the table of this package.
        sens: sensitivities of unit sum of squares, one set or one a frame, which ``low_rank`` and
            those below it in that table use; ``None`` fills each coil by itself, as all others do.
        circular: whether the last frame precedes the first.

    Raises:
        ValueError: if ``input_fill`` is unknown.
    """
    check_fill(input_fill)
    measured = jnp.where(mask[:, None] > 0, kspace, 0)
    if input_fill == "zero":
        return measured
    if input_fill == "neighbours":
        estimate = _nearest_in_time(measured, mask, circular)
    elif input_fill == "average":
        estimate = temporal_mean(measured, mask)[None]
    elif input_fill == "sparse":
        estimate = _sparse_in_time(measured, mask)
    elif sens is None:
        alone = functools.partial(_of_one_coil, mask, input_fill, circular)
        estimate = jax.vmap(alone, in_axes=1, out_axes=1)(measured)
    else:
        data = ScaledData(measured, mask, with_frames(sens), jnp.ones(()))
        estimate = _of_all_coils(data, input_fill, circular)
    return jnp.where(mask[:, None] > 0, measured, estimate)


def _nearest_in_time(kspace: Kspace, mask: Mask, circular: bool) -> Kspace:
    """As `averages.nearest_in_time`."""
    n_frames = len(kspace)
    never = jnp.where(mask > 0, 0, n_frames)

    def fill(distances: Array) -> Array:
        far = distances[:, None, None] + never  # s h w
        last = n_frames - 1 - jnp.argmin(far[::-1], axis=0)
        one, other = (
            jnp.take_along_axis(kspace, index[None, None], axis=0)[0]
            for index in (jnp.argmin(far, axis=0), last)
        )
        return (one + other) / 2

    return jax.lax.map(fill, jnp.asarray(frame_distances(n_frames, circular)))


def _sparse_in_time(kspace: Kspace, mask: Mask) -> Kspace:
    """As `sparse.sparse_in_time`."""
    sampled = mask[:, None] > 0
    filled = jnp.where(sampled, kspace, temporal_mean(kspace, mask)[None])
    old = image = ifft2c(filled)
    scale = jnp.percentile(jnp.abs(jnp.mean(image, axis=0)), 99.0)
    for share, momentum in zip(sparse.SHARES, sparse.momenta(), strict=True):
        spectrum = jnp.fft.fft(image, axis=0, norm="ortho")
        moving = soft_threshold(spectrum[1:], float(share) * scale)
        image = jnp.fft.ifft(jnp.concatenate([spectrum[:1], moving]), axis=0, norm="ortho")
        filled = jnp.where(sampled, kspace, fft2c(image))
        new = ifft2c(filled)
        image, old = new + momentum * (new - old), new
    return jnp.where(_same_in_all_frames(mask), kspace, filled)


def _same_in_all_frames(mask: Mask) -> Array:
    return jnp.all(mask == mask[:1])


def _of_one_coil(
    mask: Mask, input_fill: str, circular: bool, kspace: Complex[Array, "t h w"]
) -> Complex[Array, "t h w"]:
    data = ScaledData(kspace[:, None], mask, None, jnp.ones(()))
    return _of_all_coils(data, input_fill, circular)[:, 0]


def _of_all_coils(data: ScaledData, input_fill: str, circular: bool) -> Kspace:
    """All of k-space, as ``low_rank`` or a way below it guesses it."""
    all_samples = jnp.ones_like(data.mask)
    image = minimise_low_rank_plus_sparse(
        data,
        (low_rank.LOW_RANK_WEIGHT, low_rank.SPARSE_WEIGHT),
        tolerance=0.0,
        max_iterations=low_rank.N_DIRECTIONS,
        cg=(0.0, low_rank.N_CG_STEPS),
    )
    estimate = forward(image, all_samples, data.sens)
    if input_fill == "low_rank":
        return estimate

    def of_time() -> Array:
        other = forward(_little_variation(data, circular), all_samples, data.sens)
        count = jnp.sum(data.mask, axis=0)[None, None]
        blended = estimate + count / (1 + count) * (other - estimate)
        if input_fill == "blended":
            return blended
        image = _towards_local_low_rank(data, adjoint(blended, all_samples, data.sens))
        return forward(image, all_samples, data.sens)

    return jax.lax.cond(_same_in_all_frames(data.mask), lambda: estimate, of_time)


def _bright_pixel(data: ScaledData) -> Float[Array, ""]:
    mean = jnp.mean(average_filled(data.kspace, data.mask, data.sens), axis=0)
    scale = jnp.percentile(jnp.abs(mean), 99.0)
    return jnp.where(scale > 0, scale, 1.0)


def _little_variation(data: ScaledData, circular: bool) -> Complex[Array, "t h w"]:
    """As `variation.little_variation`."""
    scale = _bright_pixel(data)
    image = minimise_temporal_variation(
        data._replace(kspace=data.kspace / scale),
        variation.WEIGHT,
        circular=circular,
        tolerance=0.0,
        max_iterations=variation.N_DIRECTIONS,
        cg=(0.0, variation.N_CG_STEPS),
    )
    return scale * image


def _towards_local_low_rank(
    data: ScaledData, estimate: Complex[Array, "t h w"]
) -> Complex[Array, "t h w"]:
    """As `local_low_rank.towards_local_low_rank`."""
    scale = _bright_pixel(data)
    image = minimise_locally_low_rank(
        data._replace(kspace=data.kspace / scale),
        local_low_rank.WEIGHT,
        estimate / scale,
        block=local_low_rank.BLOCK,
        tolerance=0.0,
        max_iterations=local_low_rank.N_STEPS,
    )
    return scale * image
