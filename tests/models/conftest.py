"""What the tests of several networks share."""

import jax
import pytest


@pytest.fixture
def interpreted(monkeypatch):
    """Has kernels run on this machine, as ordinary JAX, and counts their calls."""
    calls, real = [], jax.lax.platform_dependent

    def choose(*args, **choices):
        if "cuda" not in choices:
            return real(*args, **choices)
        calls.append(choices["cuda"])
        return choices["cuda"](*args, interpret=True)

    monkeypatch.setattr(jax.lax, "platform_dependent", choose)
    return calls
