"""Keeping freed memory, for a loader that frees and takes megabytes thousands of times."""

import ctypes
import functools

__all__ = ["keep_freed_memory"]

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # names of mallopt's parameters in <malloc.h>
_LARGEST, _KEPT = 32 << 20, 64 << 20


@functools.cache
def keep_freed_memory() -> None:
    """Asks glibc not to hand every freed array back to the system, once in a process.

    By default it does so with arrays of megabytes, and each page of the next one is then mapped and
    cleared anew: of three frames of 10 coils, 256 x 256, reading took 5 ms, that 10 more. At most
    64 MiB stay with the process. Other C libraries are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_MMAP_THRESHOLD, _LARGEST)
    mallopt(_TRIM_THRESHOLD, _KEPT)
