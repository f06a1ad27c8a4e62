"""Cines as GIFs that loop, and methods side by side in one."""

import math
from collections.abc import Mapping
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from kgmgt_jax.data.atomic import write_atomically
from kgmgt_jax.figures import (
    FONT,
    Cine,
    check_suffix,
    cine_magnitudes,
    grey_window,
)

__all__ = ["FPS", "cine_gif", "write_gif"]

MIN_HEIGHT, GAP, LABEL = 192, 4, 22  # pixels
FPS = 12  # frames a second, of films too


def cine_gif(path: str | Path, panels: Mapping[str, Cine], *, aspect: float = 1.0) -> Path:
    """Write cines side by side as a GIF that loops, each with its label above.

    All share one grey window, black at 0 and white at the 99.5th percentile of the first cine's
    magnitude. Columns are magnified, bicubic, by the least whole factor that gives 192 or more
    rows.

    Args:
        path: GIF file to write, whole or not at all; its folder is made if need be.
        panels: ``{label: frames}``, complex or real, of one shape and scale.
        aspect: > 0, height / width of a pixel; rows are magnified that much more.

    Returns:
        ``path`` as a Path.

    Raises:
        ValueError: if there are no panels, shapes differ or are not ``(t, h, w)``, a value is not
            finite, the file is no GIF, or the aspect is not positive.
    """
    cines = cine_magnitudes(panels)
    check_suffix(path, ".gif")
    first = next(iter(cines.values()))
    if not aspect > 0:
        raise ValueError(f"expected a positive aspect, got {aspect=}")
    scale = math.ceil(MIN_HEIGHT / (aspect * first.shape[1]))
    window = grey_window(first)
    columns = [
        _gif_column(label, cine / window, (aspect * scale, scale)) for label, cine in cines.items()
    ]
    gap = np.zeros((*columns[0].shape[:2], GAP), np.uint8)
    movie = np.concatenate([part for column in columns for part in (column, gap)][:-1], axis=-1)
    return write_gif(path, movie)


def write_gif(path: str | Path, frames: UInt8[np.ndarray, "t h w"]) -> Path:
    """Writes grey levels as a GIF that loops, whole or not at all."""
    form = {"plugin": "pillow", "extension": ".gif", "is_batch": True, "mode": "L", "loop": 0}
    milliseconds = 10 * round(100 / FPS)  # GIF counts time in 1/100 s
    # to a file on a full disk imageio would print a traceback of its own as well
    data = iio.imwrite("<bytes>", frames, duration=milliseconds, **form)
    return write_atomically(path, lambda file: file.write_bytes(data))


def _gif_column(
    label: str, frames: Float[np.ndarray, "t h w"], scales: tuple[float, float]
) -> UInt8[np.ndarray, "t h2 w2"]:
    """Frames in grey levels, where 1 is white, rows and columns magnified, below a label."""
    height, width = (round(s * n) for s, n in zip(scales, frames.shape[1:], strict=True))
    size = (max(width, 1), max(height, 1))
    grown = [Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC) for frame in frames]
    levels = np.stack([np.asarray(frame) for frame in grown]).clip(0, 1)
    strip = np.broadcast_to(_label_strip(label, size[0]), (len(frames), LABEL, size[0]))
    return np.concatenate([strip, np.round(255 * levels).astype(np.uint8)], axis=1)


def _label_strip(label: str, width: int) -> UInt8[np.ndarray, "h w"]:
    """The label, centred, in the largest type from 13 down to 7 pixels that fits the width."""
    strip = Image.new("L", (width, LABEL))
    pen, file = ImageDraw.Draw(strip), font_manager.findfont(FONT)
    fonts = [ImageFont.truetype(file, size) for size in range(13, 6, -1)]
    font = next((f for f in fonts if pen.textlength(label, font=f) <= width - 4), fonts[-1])
    pen.text((width / 2, LABEL / 2), label, fill=230, font=font, anchor="mm")
    return np.asarray(strip)
