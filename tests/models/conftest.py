"""What the tests of several networks share."""

import jax
import pytest


@pytest.fixture
def interpreted(monkeypatch):
    """Has the kernel run on this machine, as ordinary JAX, and counts its calls."""
    calls = []

    def choose(*args, cuda, default):
        del default
        calls.append(cuda)
        return cuda(*args, interpret=True)

    monkeypatch.setattr(jax.lax, "platform_dependent", choose)
    return calls
