"""Maps in blocks of whole rows, for what must not be in memory, or in the cache, all at once."""

import jax

__all__ = ["block_limit", "rows_at_once"]


def rows_at_once(h: int, row_size: int, limit: int) -> int:
    """Largest divisor of ``h`` whose rows hold at most ``limit`` numbers, or 1.

    Args:
        h: rows of the map.
        row_size: numbers in a row.
        limit: numbers in a block.
    """
    most = max(1, limit // row_size)
    return max(rows for rows in range(1, h + 1) if h % rows == 0 and rows <= most)


def block_limit(cpu: int, device: int) -> int:
    """Numbers in a block: ``cpu`` fit its cache, ``device`` fill any other backend."""
    return cpu if jax.default_backend() == "cpu" else device
