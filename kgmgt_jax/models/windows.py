"""Maps cut into windows: their tokens, which of them may see each other, and how they are padded.

Maps have the shape (b, h, w, c). The batch axis is kept apart from the windows, so that a batch
sharded over devices stays sharded.
"""

import einops
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

__all__ = [
    "merge_windows",
    "pad_to_windows",
    "padding_logits",
    "partition_windows",
    "relative_position_index",
    "shift_mask",
]

_PADDED = -1e4  # cosines times their largest scale are up to 100


def partition_windows(x: Float[Array, "b h w c"], window: tuple[int, int], heads: int) -> Array:
    """Windows as tokens by head: ``(b, n_windows, heads, tokens, c / heads)``, heads major in c."""
    return einops.rearrange(
        x, "b (nh wh) (nw ww) (k d) -> b (nh nw) k (wh ww) d", wh=window[0], ww=window[1], k=heads
    )


def merge_windows(x: Array, window: tuple[int, int], h: int) -> Float[Array, "b h w c"]:
    """Inverse of ``partition_windows`` for a map of height ``h``."""
    return einops.rearrange(
        x,
        "b (nh nw) k (wh ww) d -> b (nh wh) (nw ww) (k d)",
        nh=h // window[0],
        wh=window[0],
        ww=window[1],
    )


def shift_mask(h: int, w: int, window: int, shift: int) -> Bool[np.ndarray, "windows q k"]:
    """Pairs of tokens that share a window of the rolled map but are no neighbours in the image.

    Rolling by ``(-shift, -shift)`` brings the first rows and columns to the far end; the map is cut
    at ``h - window``, ``h - shift`` (and likewise in w) and tokens of different parts are masked.
    """

    def part(n: int) -> Int[np.ndarray, "n"]:
        index = np.arange(n)
        return (index >= n - window).astype(int) + (index >= n - shift)

    region = 3 * part(h)[:, None] + part(w)[None, :]
    tokens = einops.rearrange(region, "(nh a) (nw b) -> (nh nw) (a b)", a=window, b=window)
    return tokens[:, :, None] != tokens[:, None, :]


def relative_position_index(query: tuple[int, int], key: tuple[int, int]) -> Int[np.ndarray, "q k"]:
    """Index into a bias table by the displacement query minus key, rows slow.

    The table of two grids ``(qh, qw)`` and ``(kh, kw)`` has ``(qh + kh - 1) x (qw + kw - 1)``
    entries; coordinates of both grids count their own tokens from 0.
    """
    dy = np.arange(query[0])[:, None] - np.arange(key[0])[None, :] + key[0] - 1
    dx = np.arange(query[1])[:, None] - np.arange(key[1])[None, :] + key[1] - 1
    index = dy[:, None, :, None] * (query[1] + key[1] - 1) + dx[None, :, None, :]
    return index.reshape(query[0] * query[1], key[0] * key[1])


def pad_to_windows(
    x: Float[Array, "b h w c"], window: tuple[int, int]
) -> Float[Array, "b hp wp c"]:
    """Zeros appended to rows and columns, up to whole windows."""
    pad_h, pad_w = -x.shape[1] % window[0], -x.shape[2] % window[1]
    return jnp.pad(x, ((0, 0), (0, pad_h), (0, pad_w), (0, 0))) if pad_h or pad_w else x


def padding_logits(h: int, w: int, window: tuple[int, int]) -> Float[Array, "windows 1 k"] | None:
    """What hides the tokens that padding to whole windows appends, 0 for those of the map."""
    hp, wp = h + -h % window[0], w + -w % window[1]
    if (hp, wp) == (h, w):
        return None
    outside = np.ones((hp, wp))
    outside[:h, :w] = 0
    tokens = einops.rearrange(outside, "(nh a) (nw b) -> (nh nw) (a b)", a=window[0], b=window[1])
    return jnp.asarray(_PADDED * tokens[:, None], jnp.float32)
