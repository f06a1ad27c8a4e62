"""Work in chunks, for what must not be in memory, or in the cache, all at once."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import jax

__all__ = ["chunk_limit", "chunks_for", "items_at_once"]

_on_cpu: ContextVar[bool | None] = ContextVar("_on_cpu", default=None)


def items_at_once(n: int, size: int, limit: int) -> int:
    """Largest divisor of ``n`` so many items of which hold at most ``limit`` numbers, or 1.

    Args:
        n: items, such as rows of a map, or windows.
        size: numbers in an item.
        limit: numbers in a chunk.
    """
    most = max(1, limit // size)
    return max(items for items in range(1, n + 1) if n % items == 0 and items <= most)


def chunk_limit(cpu: int, device: int) -> int:
    """Numbers in a chunk: ``cpu`` fit its cache, ``device`` fill any other backend."""
    chosen = _on_cpu.get()
    return cpu if (_here() if chosen is None else chosen) else device


@contextlib.contextmanager
def chunks_for(*, cpu: bool) -> Iterator[None]:
    """What is traced inside is cut for a CPU, or for other devices, wherever it is traced.

    Where that is not what this backend would have, JAX forgets what it has traced and compiled,
    before and after: it would take pieces with other chunks from its caches.
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
