"""Which samples a scanner took, in few enough words for ``metadata.json``.

Of a fully sampled slice, rows and columns ``(start, stop)`` of a partial scan; of an undersampled
one, the lines of each frame, as bits in hexadecimal digits, and the columns.
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from kgmgt_jax.data.case import DataError

__all__ = ["acquired_mask", "bounds", "measured_lines"]


def bounds(
    taken: Bool[np.ndarray, "h w"], width: int
) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Rows and columns that the scanner took, if not all, after a cut to ``width`` columns.

    A cut of the image spaces the columns of its k-space more widely over the same extent. Where
    they went to its edge, they still do.
    """
    if taken.all() or not taken.any():
        return None
    rows, columns = (np.flatnonzero(taken.any(axis=axis)) for axis in (1, 0))
    w = taken.shape[1]
    first, last = (columns[[0, -1]] - w // 2) * width / w + width // 2
    start = 0 if taken[:, 0].any() else math.ceil(first)
    stop = width if taken[:, -1].any() else math.floor(last) + 1
    return (int(rows[0]), int(rows[-1]) + 1), (start, stop)


def measured_lines(mask: Float32[np.ndarray, "t h w"], width: int, where: str) -> dict[str, Any]:
    """Lines that each frame measured, and their columns, after a cut to ``width`` columns.

    Args:
        mask: Of an undersampled slice.
        width: Columns that are kept.
        where: File and slice, for messages.

    Raises:
        DataError: If lines were not measured whole, or from the same first to the same last
            column, which then must all be kept.
    """
    taken = mask > 0
    lines, columns = np.any(taken, axis=2), np.flatnonzero(np.any(taken, axis=(0, 1)))
    start, stop = int(columns[0]), int(columns[-1]) + 1
    box = np.zeros_like(taken)
    box[:, :, start:stop] = lines[..., None]
    if not np.array_equal(box, taken):
        fix = "--skip-bad leaves it out, training takes the file itself"
        raise DataError(where, "a mask of lines to prepare", "one of single samples", fix)
    w = mask.shape[2]
    if stop - start == w:
        stop = width
    elif width < w:
        wanted, fix = f"lines of all {w} columns to cut them to {width}", "leave out --readout"
        raise DataError(where, wanted, f"{stop - start} columns", fix)
    packed = [np.packbits(frame).tobytes().hex() for frame in lines]
    return {"lines": packed, "columns": (start, stop)}


def acquired_mask(stored: Any, shape: tuple[int, int, int]) -> Float32[np.ndarray, "t h w"] | None:
    """The mask, of what `bounds` or `measured_lines` gave; ``None`` for all samples.

    Args:
        stored: As JSON has it.
        shape: Frames, rows and columns.
    """
    if stored is None:
        return None
    mask = np.zeros(shape, np.float32)
    if isinstance(stored, dict):
        packed = [np.frombuffer(bytes.fromhex(frame), np.uint8) for frame in stored["lines"]]
        lines = np.unpackbits(np.stack(packed), axis=1, count=shape[1])
        mask[:, :, slice(*stored["columns"])] = lines[..., None]
    else:
        rows, columns = (slice(*part) for part in stored)
        mask[:, rows, columns] = 1
    return mask
