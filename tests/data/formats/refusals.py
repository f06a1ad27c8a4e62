"""How a reader refuses a file."""

import pytest

from kgmgt_jax.data.case import DataError


def refused(message: str):
    """Expects a `DataError` of one line that matches ``message``."""
    return pytest.raises(DataError, match=rf"^[^\n]*{message}[^\n]*$")
