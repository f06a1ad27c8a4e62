"""What kernels are not given: what Triton cannot hold, and cards that it does not know."""

import types

import jax
import pytest

from kgmgt_jax.models.triton_arrays import triton_holds


@pytest.mark.parametrize(("sides", "holds"), [((16, 64), True), ((1,), True), ((16, 48), False)])
def test_sides_are_powers_of_two(sides, holds):
    assert triton_holds(*sides) == holds


@pytest.mark.parametrize(
    ("capability", "holds"),
    [("7.0", False), ("7.5", False), ("8.0", True), ("12.0", True), ("gfx90a", True)],
)
def test_cards_older_than_ampere_are_left_to_xla(capability, holds, monkeypatch):
    card = types.SimpleNamespace(compute_capability=capability)
    monkeypatch.setattr(jax, "local_devices", lambda: [card])
    assert triton_holds(16, 64) == holds
