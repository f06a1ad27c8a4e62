"""Cines as small pictures that a browser unpacks to grey levels, without loss.

Three successive frames are the red, green and blue of one picture: what stands still is the same
in all three, which WebP's colour transform takes out. That is smaller than single frames, and
faster to write. Frames of a cine form a grid, since pictures may not be wider than 16383 pixels.
"""

import base64
import io
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

__all__ = ["grey_levels", "pack_frames", "sprite"]

LARGEST_SIDE = 16383  # WebP
CHANNELS = 3


def grey_levels(magnitude: Float[np.ndarray, "t h w"], white: float) -> UInt8[np.ndarray, "t h w"]:
    """Levels 0 .. 255 of magnitudes, 255 at ``white`` and above."""
    return np.round(255 * np.clip(np.asarray(magnitude, np.float32) / white, 0, 1)).astype(np.uint8)


def pack_frames(levels: UInt8[np.ndarray, "t h w"]) -> tuple[UInt8[np.ndarray, "y x 3"], int]:
    """Frame t in channel t mod 3 of cell t div 3; cells in rows. Also the number of columns.

    The last cell repeats the last frame where frames are missing.

    Raises:
        ValueError: if the picture would be larger than WebP allows.
    """
    t, h, w = levels.shape
    n_cells = -(-t // CHANNELS)
    n_columns = max(1, min(n_cells, LARGEST_SIDE // w))
    n_rows = -(-n_cells // n_columns)
    if n_rows * h > LARGEST_SIDE or w > LARGEST_SIDE:
        raise ValueError(
            f"expected a cine that fits a picture of {LARGEST_SIDE} pixels a side, got "
            f"{levels.shape=}; give fewer frames"
        )
    filled = np.concatenate([levels, np.repeat(levels[-1:], n_cells * CHANNELS - t, axis=0)])
    cells = filled.reshape(n_cells, CHANNELS, h, w).transpose(0, 2, 3, 1)
    picture = np.zeros((n_rows * h, n_columns * w, CHANNELS), np.uint8)
    for index, cell in enumerate(cells):
        y, x = index // n_columns * h, index % n_columns * w
        picture[y : y + h, x : x + w] = cell
    return picture, n_columns


def sprite(magnitude: Float[np.ndarray, "t h w"], white: float) -> dict[str, Any]:
    """A cine for the page: ``{"src": data URL, "columns", "t", "h", "w"}``.

    Args:
        magnitude: frames, not negative.
        white: magnitude of level 255.
    """
    picture, n_columns = pack_frames(grey_levels(magnitude, white))
    buffer = io.BytesIO()
    options = {"lossless": True, "method": 1, "quality": 20, "exact": True}
    Image.fromarray(picture).save(buffer, "WEBP", **options)
    source = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    t, h, w = magnitude.shape
    return {"src": source, "columns": n_columns, "t": t, "h": h, "w": w}
