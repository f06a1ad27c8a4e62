"""Sizes that cannot be are refused before memory is asked for."""

import pytest

from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.sizes import check_size


def test_arrays_larger_than_the_memory_are_refused():
    with pytest.raises(DataError, match="bytes of memory"):
        check_size("file", 1 << 60, 1 << 55)
