"""The part of a reconstruction that CMRxRecon's organisers score, in the file they expect.

Their validation phase takes coil-combined magnitudes of the two central slices and the first three
frames, cropped to the middle sixth. MATLAB's ``round`` takes halves up, Python's to the even
neighbour: 512 x 204 gives 171 x 102.
"""

from pathlib import Path

import numpy as np
import scipy.io
from jaxtyping import Float32, Num

from kgmgt_jax.data.atomic import write_atomically
from kgmgt_jax.data.transforms import central

__all__ = ["ranking_crop", "write_ranking"]

KEY = "img4ranking"
N_FRAMES, N_SLICES = 3, 2


def ranking_crop(images: Num[np.ndarray, "t z h w"]) -> Float32[np.ndarray, "x y s f"]:
    """Magnitudes of the scored part, axes as MATLAB has them.

    Slices ``round(z/2) - 1 : round(z/2)``, counted from 1, where there are three or more, else
    all; frames 1 to 3; a centred crop to ``[round(w/3), round(h/2)]`` whose pixel
    ``floor(m/2) + 1`` is that of the image.

    Args:
        images: coil-combined images of a file, complex or magnitude: frames, slices, phase
            encoding, readout.

    Returns:
        ``(round(w/3), round(h/2), 2 or 1, 3)``: readout, phase encoding, slice, frame.

    Raises:
        ValueError: if there are fewer than three frames, or the axes are others.

    Source: CmrxRecon/CMRxRecon, ``run4Ranking.m``, and ``crop.m`` of ESPIRiT.
    """
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"expected images of shape (t, z, h, w), got {images.shape=}")
    n_frames, n_slices, h, w = images.shape
    if n_frames < N_FRAMES:
        raise ValueError(f"expected {N_FRAMES} frames or more to rank, got {n_frames=}")
    slices = slice(None)
    if n_slices > N_SLICES:
        last = _round_half_up(n_slices, 2)
        slices = slice(last - N_SLICES, last)
    rows = central(h, _round_half_up(h, 2))
    columns = central(w, _round_half_up(w, 3))
    part = images[:N_FRAMES, slices, rows, columns]
    return np.abs(part).astype(np.float32).transpose(3, 2, 1, 0)


def write_ranking(path: str | Path, images: Num[np.ndarray, "t z h w"]) -> Path:
    """Write `ranking_crop` as ``img4ranking`` in a MAT v5 file, whole or not at all.

    Args:
        path: the file; its folder is made if need be.
        images: see `ranking_crop`.

    Returns:
        ``path`` as a Path.

    Raises:
        ValueError: see `ranking_crop`.
    """
    part = ranking_crop(images)

    def write(file: Path) -> None:
        scipy.io.savemat(file, {KEY: part}, appendmat=False, format="5", do_compression=True)

    return write_atomically(path, write)


def _round_half_up(size: int, divisor: int) -> int:
    """``round(size / divisor)`` of MATLAB for positive integers."""
    return (2 * size + divisor) // (2 * divisor)
