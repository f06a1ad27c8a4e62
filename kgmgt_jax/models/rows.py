"""Maps in blocks of whole rows, for what must not be in memory, or in the cache, all at once."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import jax

__all__ = ["block_limit", "blocks_for", "rows_at_once"]

_on_cpu: ContextVar[bool | None] = ContextVar("_on_cpu", default=None)


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
    chosen = _on_cpu.get()
    return cpu if (_here() if chosen is None else chosen) else device


@contextlib.contextmanager
def blocks_for(*, cpu: bool) -> Iterator[None]:
    """What is traced inside is cut for a CPU, or for other devices, wherever it is traced.

    Where that is not what this backend would have, JAX forgets what it has traced and compiled,
    before and after: it would take pieces with other blocks from its caches.
    """
    forget = jax.clear_caches if cpu != _here() else lambda: None
    forget()
    token = _on_cpu.set(cpu)
    try:
        yield
    finally:
        _on_cpu.reset(token)
        forget()


def _here() -> bool:
    return jax.default_backend() == "cpu"
