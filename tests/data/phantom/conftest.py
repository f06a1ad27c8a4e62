"""One cine of each view, shared by the phantom's tests."""

import pytest

from kgmgt_jax.data.phantom import PhantomCine, make_cine


@pytest.fixture(scope="session")
def sax() -> PhantomCine:
    """Short axis near the base."""
    return make_cine(11, shape=(128, 128), n_frames=10, level=0.8)


@pytest.fixture(scope="session")
def lax() -> PhantomCine:
    """Four-chamber view through the axis of the heart."""
    return make_cine(11, shape=(128, 128), n_frames=10, view="lax", level=0.5)
