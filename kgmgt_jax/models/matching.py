"""Correlation matching between the dense features of two frames, and the flow it implies.

Patches of 3 x 3 feature pixels are compared by cosine similarity; for each target patch the best
reference patch gives a displacement. The correlation of patches is computed without unfolding
them: pixel correlations first, then their sum over the nine displacements that a patch shares::

    corr(p, q) = sum_o <T(q + o), R(p + o)> = sum_o pixel_corr(p + o, q + o),

nine times fewer multiplications than a product of unfolded patches, and the same number to the
last rounding. No gradient is kept for the search: the similarity of the match that was found is
computed again from the features, differentiably.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kgmgt_jax.models.chunks import chunk_limit, items_at_once
from kgmgt_jax.numerics import square_root

__all__ = [
    "Match",
    "best_match",
    "centred_flow",
    "corner_flow",
    "normalise_features",
    "patch_correlation",
    "similarity_map",
    "soft_match",
]

# Displacements x features at once: on a CPU one displacement, elsewhere what fills the device. (It
# is never in memory: XLA multiplies and adds up what it reads.)
_DEVICE_BLOCK = 2**27
_EPS = 1e-5
_SMALLEST = 1e-12  # norm of a feature that is divided by
_OUTSIDE = -1e4  # correlation with what lies beyond the edge: finite, so that gradients are


class Match(NamedTuple):
    """For each 3 x 3 target patch, where its counterpart lies and how similar it is.

    Attributes:
        flow: displacement (x, y) in feature pixels of each patch, on the grid of patch corners.
        similarity: cosine similarity of the two patches, in [-1, 1].
    """

    flow: Float[Array, "b hp wp 2"]
    similarity: Float[Array, "b hp wp"]


def normalise_features(x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
    """``x / max(||x||, 1e-12)`` over the last axis, with a finite gradient at zero."""
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, _SMALLEST**2))


def _box3(x: Float[Array, "h w"]) -> Float[Array, "hp wp"]:
    """Sum over 3 x 3 windows, no padding."""
    rows = x[:-2] + x[1:-1] + x[2:]
    return rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]


def _patch_norm(x: Float[Array, "h w c"]) -> Float[Array, "hp wp"]:
    """Euclidean norm of each 3 x 3 patch; its gradient is zero where the patch is."""
    return square_root(_box3(jnp.sum(jnp.square(x), axis=-1)))


def patch_correlation(
    target: Float[Array, "h w c"], reference: Float[Array, "h w c"]
) -> Float[Array, "hp wp hp wp"]:
    """Correlation of every target patch with every reference patch (indices ``y, x, v, u``).

    ``corr[y, x, v, u] = <T patch at (y, x), R patch at (v, u)> / (||R patch at (v, u)|| + 1e-5)``.

    Args:
        target: normalised features of the target.
        reference: normalised features of the reference.
    """
    pixel = jnp.einsum("yxc,vuc->yxvu", target, reference, precision="highest")
    rows = pixel[:-2, :, :-2] + pixel[1:-1, :, 1:-1] + pixel[2:, :, 2:]
    total = rows[:, :-2, :, :-2] + rows[:, 1:-1, :, 1:-1] + rows[:, 2:, :, 2:]
    return total / (_patch_norm(reference) + _EPS)[None, None]


def _local_correlation(
    target: Float[Array, "h w c"],
    reference: Float[Array, "h w c"],
    radius: int,
    at_once: int = 1,
) -> Float[Array, "d hp wp"]:
    """As ``patch_correlation``, for displacements of at most ``radius``; hugely negative beyond
    the edge.

    The ``(2 radius + 1)^2`` displacements run row by row, so the first maximum is the first in
    raster order of the reference, as in the exhaustive search; so many ``at_once``.
    """
    h, w = target.shape[:2]
    side = 2 * radius + 1
    border = ((radius, radius), (radius, radius))
    padded = jnp.pad(reference, (*border, (0, 0)))
    inverse_norm = jnp.pad(1 / (_patch_norm(reference) + _EPS), border)

    def one(d: Int[Array, ""]) -> Float[Array, "hp wp"]:
        dy, dx = d // side, d % side
        shifted = jax.lax.dynamic_slice(padded, (dy, dx, 0), target.shape)
        weight = jax.lax.dynamic_slice(inverse_norm, (dy, dx), (h - 2, w - 2))
        score = _box3(jnp.sum(target * shifted, axis=-1)) * weight
        return jnp.where(weight > 0, score, _OUTSIDE)

    return jax.lax.map(one, jnp.arange(side * side), batch_size=at_once if at_once > 1 else None)


def _grid(h: int, w: int) -> tuple[Int[Array, "h 1"], Int[Array, "1 w"]]:
    return jnp.arange(h)[:, None], jnp.arange(w)[None, :]


def _search(
    target: Float[Array, "h w c"], reference: Float[Array, "h w c"], radius: int | None
) -> tuple[Int[Array, "hp wp"], Int[Array, "hp wp"]]:
    """Displacement (dx, dy) of the best reference patch of each target patch; first on ties."""
    h, w = target.shape[0] - 2, target.shape[1] - 2
    if radius is None:
        best = jnp.argmax(patch_correlation(target, reference).reshape(h, w, h * w), axis=-1)
        y, x = _grid(h, w)
        return best % w - x, best // w - y
    side = 2 * radius + 1
    at_once = items_at_once(side * side, target.size, chunk_limit(1, _DEVICE_BLOCK))
    best = jnp.argmax(_local_correlation(target, reference, radius, at_once), axis=0)
    return best % side - radius, best // side - radius


def _similarity_at(
    target: Float[Array, "h w c"],
    reference: Float[Array, "h w c"],
    dx: Int[Array, "hp wp"],
    dy: Int[Array, "hp wp"],
) -> Float[Array, "hp wp"]:
    """Cosine similarity of each target patch and the reference patch displaced by (dx, dy)."""
    h, w, c = target.shape
    y, x = _grid(h - 2, w - 2)
    corner = (y + dy) * w + (x + dx)
    table = reference.reshape(h * w, c)
    total = jnp.zeros((h - 2, w - 2), target.dtype)
    for i in range(3):
        for j in range(3):
            counterpart = table.at[corner + i * w + j].get(mode="promise_in_bounds")
            total += jnp.sum(target[i : i + h - 2, j : j + w - 2] * counterpart, axis=-1)
    reference_norm = _patch_norm(reference)[y + dy, x + dx]
    return total / (reference_norm + _EPS) / (_patch_norm(target) + _EPS)


def best_match(
    query: Float[Array, "b h w c"],
    key: Float[Array, "b h w c"],
    *,
    search_radius: int | None = None,
) -> Match:
    """The best matching reference patch of every target patch (hard matching).

    Args:
        query: dense features of the target, at least 3 x 3 pixels.
        key: dense features of the reference.
        search_radius: largest displacement in feature pixels along either axis; ``None`` searches
            the whole map (h w x h w correlations in memory).

    Returns:
        Integer flow, without gradient, and the similarity of the match, with gradient.

    Source: correlation matching of the released code; the local search is the paper's.
    """

    def one(target: Float[Array, "h w c"], reference: Float[Array, "h w c"]):
        target, reference = normalise_features(target), normalise_features(reference)
        search = jax.lax.stop_gradient((target, reference))
        dx, dy = _search(*search, search_radius)
        flow = jnp.stack([dx, dy], axis=-1).astype(query.dtype)
        return Match(flow, _similarity_at(target, reference, dx, dy))

    return jax.vmap(one)(query, key)


def soft_match(
    query: Float[Array, "b h w c"],
    key: Float[Array, "b h w c"],
    inverse_temperature: Float[Array, ""],
    *,
    search_radius: int,
) -> Match:
    """The expected displacement under a softmax over the local window (differentiable matching).

    ``p(d) = softmax_d(beta corr_d)``, ``flow = sum_d p(d) d``, ``similarity = sum_d p(d) corr_d``
    with cosine similarities ``corr``, and ``beta = inverse_temperature``.

    Args:
        query: dense features of the target.
        key: dense features of the reference.
        inverse_temperature: beta > 0; large values approach the hard match.
        search_radius: largest displacement in feature pixels along either axis.
    """
    side = 2 * search_radius + 1
    d = jnp.arange(side * side)
    shifts = jnp.stack([d % side, d // side], axis=-1).astype(query.dtype) - search_radius  # d 2

    def one(target: Float[Array, "h w c"], reference: Float[Array, "h w c"]):
        target, reference = normalise_features(target), normalise_features(reference)
        corr = _local_correlation(target, reference, search_radius)
        corr = corr / (_patch_norm(target) + _EPS)[None]
        weight = jax.nn.softmax(inverse_temperature * corr, axis=0)
        flow = jnp.einsum("dyx,dk->yxk", weight, shifts, precision="highest")
        return Match(flow, jnp.sum(weight * corr, axis=0))

    return jax.vmap(one)(query, key)


def corner_flow(flow: Float[Array, "b hp wp 2"]) -> Float[Array, "b hp+2 wp+2 2"]:
    """Flow on the pixel grid, each pixel taking the patch of which it is the top left corner."""
    return jnp.pad(flow, ((0, 0), (0, 2), (0, 2), (0, 0)))


def centred_flow(flow: Float[Array, "b hp wp 2"]) -> Float[Array, "b hp+2 wp+2 2"]:
    """Flow on the pixel grid, each pixel taking the patch of which it is the centre."""
    return jnp.pad(flow, ((0, 0), (1, 1), (1, 1), (0, 0)))


def similarity_map(similarity: Float[Array, "b hp wp"]) -> Float[Array, "b hp+2 wp+2 1"]:
    """Similarity on the pixel grid, centred, zero at the border."""
    return jnp.pad(similarity, ((0, 0), (1, 1), (1, 1)))[..., None]
