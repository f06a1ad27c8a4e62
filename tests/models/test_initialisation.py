"""Initial values: the same distributions by either road, and the same whatever the road's order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from kgmgt_jax.models.initialisation import Initialiser, constant, initialise
from kgmgt_jax.models.layers import Layers


@pytest.mark.parametrize("kind", ["normal", "truncated_normal", "uniform"])
def test_both_ways_of_drawing_agree(kind):
    initialiser = Initialiser(kind, 3.0, mean=1.0, per_fan_in=True)
    shape = (3, 3, 16, 200)
    ours = initialiser.draw(np.random.default_rng(0), (5, *shape), shape)
    jaxs = np.asarray(initialiser(jax.random.key(0), shape))
    assert ours.std() == pytest.approx(jaxs.std(), rel=0.02)
    assert ours.mean() == pytest.approx(1.0, abs=0.01) == pytest.approx(jaxs.mean(), abs=0.01)
    assert np.abs(ours - 1).max() == pytest.approx(np.abs(jaxs - 1).max(), rel=0.2)


@pytest.mark.parametrize("make", [Layers().conv, Layers().pointwise])
def test_he_scale_keeps_the_variance_of_a_signal(make):
    x = jax.random.normal(jax.random.key(0), (1, 64, 64, 32))
    conv = make(256)
    y = nn.leaky_relu(conv.apply(initialise(conv, 0, x), x), 0.2)
    assert float(jnp.mean(y[:, 2:-2, 2:-2] ** 2)) == pytest.approx(1.0, rel=0.15)


class _Twice(nn.Module):
    @nn.compact
    def __call__(self, x):
        return Layers().dense(4, name="b")(Layers().dense(4, name="a")(x))


def test_parameters_differ_by_path_and_seed_and_repeat():
    x = jnp.zeros((1, 4))
    one, again, other = (initialise(_Twice(), seed, x)["params"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one["a"]["kernel"], again["a"]["kernel"])
    assert not np.array_equal(one["a"]["kernel"], one["b"]["kernel"])
    assert not np.array_equal(one["a"]["kernel"], other["a"]["kernel"])


def test_same_structure_as_flax_init():
    x = jnp.zeros((1, 4))
    ours, flaxs = initialise(_Twice(), 0, x), _Twice().init(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, ours) == jax.tree.map(jnp.shape, flaxs)


def test_foreign_initialisers_are_refused():
    with pytest.raises(TypeError, match="kernel"):
        initialise(nn.Dense(3, bias_init=constant(0.0)), 0, jnp.zeros((1, 2)))
    with pytest.raises(ValueError, match="'cauchy'"):
        Initialiser("cauchy")
