"""KIGAN: its size, the exchange between its branches, and what it can learn."""

import jax
import jax.numpy as jnp
import pytest

from configs.kigan import get_config
from kgmgt_jax.models.baselines.kigan import KIGAN, _Branch
from kgmgt_jax.models.layers import Layers
from kgmgt_jax.types import Measurement
from tests.models.baselines.fixtures import (
    influences,
    losses_by_heart,
    lost_measurement,
    n_parameters,
    phantom,
    start,
)

SMALL = KIGAN(n_cascades=2, channels=8, n_blocks=1)


def test_parameters():
    branch = 9 * 8 * 48 + 48 + 6 * (9 * 48 * 48 + 48) + 9 * 48 * 2 + 2
    gate, steps = 9 * 4 + 1, 2 * 4 + 1
    assert n_parameters(get_config()) == 8 * branch + gate + steps == 1_032_638


def test_hard_consistency_keeps_the_measurement():
    assert lost_measurement(SMALL) < 1e-5


def test_sees_both_neighbours():
    assert all(influence > 0 for influence in influences(SMALL))


@pytest.mark.parametrize(
    ("told", "by", "knows"),
    [
        ("image1", "kspace0", True),
        ("kspace1", "image0", True),
        ("kspace0", "image0", False),
        ("image0", "kspace0", False),
    ],
)
def test_each_branch_is_told_of_the_other_s_last_estimate(told, by, knows):
    """What a branch makes of a cascade changes with the other's before, and not with its own."""
    variables, batch = start(SMALL), phantom()

    @jax.jit
    def estimate(scale):
        params = variables["params"]
        kernel = scale * params[by]["tail"]["kernel"]
        tail = params[by]["tail"] | {"kernel": kernel}
        changed = {"params": params | {by: params[by] | {"tail": tail}}}
        _, seen = SMALL.apply(
            changed,
            *(batch[name] for name in ("target", "preceding", "succeeding")),
            Measurement(batch["kspace"], batch["mask"]),
            capture_intermediates=True,
            mutable=["intermediates"],
        )
        return seen["intermediates"][told]["__call__"][0]

    assert (float(jnp.max(jnp.abs(estimate(1.0) - estimate(0.0)))) > 1e-7) == knows


def test_blocks_add_to_what_they_are_given():
    x, layers = jnp.ones((1, 3, 3, 6)), Layers()
    shapes = jax.eval_shape(_Branch(2, 1, layers).init, jax.random.key(0), x)["params"]
    params = jax.tree.map(lambda shape: jnp.ones(shape.shape), shapes)
    params["block0_conv1"] = jax.tree.map(jnp.zeros_like, params["block0_conv1"])

    @jax.jit
    def outputs(params):
        return [_Branch(2, n, layers).apply({"params": params}, x) for n in (0, 1)]

    without, given = outputs(params)
    assert bool(jnp.all(without > 1)) and bool(jnp.all(given == without))


def test_learns_a_triplet_by_heart():
    before, after = losses_by_heart(SMALL, 120, 3e-3)
    assert after < 0.35 * before
