"""Freed arrays are taken again without a page fault."""

import platform
import resource

import numpy as np
import pytest

from kgmgt_jax.data.prepared.memory import keep_freed_memory


def _page_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_arrays_that_were_freed_are_not_mapped_anew():
    """24 MB at a time are 6,144 pages; without this function each round faults on all of them."""
    keep_freed_memory()
    counts = []
    for _ in range(9):
        before = _page_faults()
        arrays = [np.ones(1 << 20, np.complex64) for _ in range(3)]
        counts.append(_page_faults() - before)
        del arrays
    assert sum(counts[1:]) < 6144
