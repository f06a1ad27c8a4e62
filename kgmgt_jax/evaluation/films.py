"""All slices of a cine side by side as a film: GIF, or MP4 for slides and phones."""

import importlib
import math
import subprocess
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from kgmgt_jax.data.atomic import write_atomically
from kgmgt_jax.evaluation.gif import FPS, write_gif
from kgmgt_jax.figures import grey_window

__all__ = ["find_ffmpeg", "slice_mosaic", "write_film"]

GAP = 4  # pixels
MIN_HEIGHT, MAX_SIDE = 256, 1920  # of a film
MIN_SECONDS = 5.0
QUALITY = "16"  # constant rate factor of H.264: 18 looks lossless, less is better


def slice_mosaic(
    magnitude: Float32[np.ndarray, "t z h w"], *, aspect: float = 1.0
) -> UInt8[np.ndarray, "t y x"]:
    """Frames with all slices side by side, in rows that make the picture about square.

    All share one grey window, black at 0 and white at the 99.5th percentile of the whole. Small
    pictures are magnified, by a whole factor unless they are very wide, large ones reduced.

    Args:
        magnitude: images, not negative.
        aspect: height / width of a pixel; rows are magnified that much more.

    Raises:
        ValueError: if images are not ``(t, z, h, w)``, or the aspect is not positive.
    """
    if magnitude.ndim != 4 or 0 in magnitude.shape:
        raise ValueError(f"expected images of shape (t, z, h, w), got {magnitude.shape=}")
    if not aspect > 0:
        raise ValueError(f"expected a positive aspect, got {aspect=}")
    t, z, h, w = magnitude.shape
    n_columns = min(z, math.ceil(math.sqrt(z * aspect * h / w)))
    n_rows = math.ceil(z / n_columns)
    white = grey_window(magnitude.reshape(t * z, h, w))
    levels = np.round(255 * (magnitude / white).clip(0, 1)).astype(np.uint8)
    mosaic = np.zeros((t, n_rows * (h + GAP) - GAP, n_columns * (w + GAP) - GAP), np.uint8)
    for index in range(z):
        y, x = index // n_columns * (h + GAP), index % n_columns * (w + GAP)
        mosaic[:, y : y + h, x : x + w] = levels[:, index]
    height, width = aspect * mosaic.shape[1], mosaic.shape[2]
    scale = min(math.ceil(MIN_HEIGHT / height), MAX_SIDE / max(height, width))
    if scale == aspect == 1:
        return mosaic
    size = (round(width * scale), round(height * scale))
    return np.stack(
        [np.asarray(Image.fromarray(f).resize(size, Image.Resampling.BICUBIC)) for f in mosaic]
    )


def write_film(
    path: str | Path, magnitude: Float32[np.ndarray, "t z h w"], *, aspect: float = 1.0
) -> Path:
    """Write `slice_mosaic` as a GIF that loops, or as MP4 (H.264), whole or not at all.

    Players do not loop MP4, so the cine is repeated until the film takes 5 s.

    Args:
        path: file to write, ``.gif`` or ``.mp4``; its folder is made if need be.
        magnitude: images, not negative.
        aspect: height / width of a pixel.

    Returns:
        ``path`` as a Path.

    Raises:
        ValueError: if the name ends otherwise, or as `find_ffmpeg` does.
    """
    path = Path(path)
    if path.suffix not in (".gif", ".mp4"):
        raise ValueError(f"expected a file name that ends in .gif or .mp4, got {str(path)!r}")
    frames = slice_mosaic(magnitude, aspect=aspect)
    return _write_mp4(path, frames) if path.suffix == ".mp4" else write_gif(path, frames)


def find_ffmpeg() -> str:
    """The program that writes MP4.

    Raises:
        ValueError: without the package imageio-ffmpeg, or where that has no program and finds none.
    """
    try:
        return importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise ValueError(
            f"expected ffmpeg of the package 'imageio_ffmpeg' to write 'mp4', got {error}; "
            "pip install 'kgmgt-jax[video]'"
        ) from error


def _write_mp4(path: Path, frames: UInt8[np.ndarray, "t y x"]) -> Path:
    program = find_ffmpeg()
    odd = [(0, size % 2) for size in frames.shape[1:]]  # H.264 halves the colour planes
    frames = np.pad(frames, [(0, 0), *odd])
    beats = np.tile(frames, (max(1, math.ceil(MIN_SECONDS * FPS / len(frames))), 1, 1))
    size = f"{frames.shape[2]}x{frames.shape[1]}"
    raw = ["-f", "rawvideo", "-pix_fmt", "gray", "-s", size, "-r", str(FPS), "-i", "-"]
    coded = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", QUALITY, "-movflags", "+faststart"]

    def write(file: Path) -> None:
        command = [program, "-v", "error", "-y", *raw, *coded, "-f", "mp4", file]
        done = subprocess.run(command, input=beats.tobytes(), capture_output=True)
        if done.returncode:
            reason = done.stderr.decode(errors="replace").strip()
            raise OSError(f"{path}: expected ffmpeg to write the film, got {reason!r}")

    return write_atomically(path, write)
