"""Whether arrays can be as large as a file says, before memory is asked for them."""

import os
from pathlib import Path

from kgmgt_jax.data.case import DataError

__all__ = ["check_size"]

_DENSEST = 1100  # deflate, the densest compression in use, shrinks at most 1032-fold
_SLACK = 1 << 16


def check_size(path: str | Path, n_bytes: int, stored: int) -> None:
    """Refuses an array that its file cannot hold or this machine's memory cannot.

    Args:
        path: The file.
        n_bytes: Size of the array in memory.
        stored: Bytes on disk that it is to come from.

    Raises:
        DataError: If the bytes on disk, even compressed, cannot expand to ``n_bytes``.
    """
    if n_bytes > _DENSEST * stored + _SLACK:
        got = f"a header that claims {n_bytes:.3g} bytes"
        raise DataError(path, f"at most what {stored} stored bytes hold", got, "copy it again")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if n_bytes > memory:
        raise DataError(path, f"less than {memory:.3g} bytes of memory", f"{n_bytes:.3g} bytes")
