"""SwinIR: its size, any image size, and what it can learn."""

import jax
import jax.numpy as jnp
import pytest

from configs.swinir import get_config
from kgmgt_jax.models.baselines.swinir import SwinIR
from tests.models.baselines.fixtures import (
    influences,
    losses_by_heart,
    lost_measurement,
    n_parameters,
    start,
)

SMALL = SwinIR(width=16, n_heads=2, window=8, n_groups=1, n_blocks=2, drop_path=0.0, remat=False)


def test_parameters_of_the_paper_s_layers_and_a_step():
    width, hidden = 180, 360
    attention = width * 3 * width + 3 * width + 15**2 * 6 + width * width + width
    mlp = 2 * width * hidden + hidden + width
    block = attention + mlp + 2 * 2 * width  # two layer norms
    conv = 9 * width * width + width
    ends = 9 * 2 * width + width + 9 * width * 2 + 2
    count = 36 * block + 7 * conv + 2 * 2 * width + ends
    assert n_parameters(get_config()) == count + 1 == 11_500_923


def test_hard_consistency_keeps_the_measurement():
    assert lost_measurement(SMALL) < 1e-5


def test_sees_the_target_alone():
    target, preceding, succeeding = influences(SMALL)
    assert target > 0 and preceding == succeeding == 0


def test_any_size_is_reconstructed_at_its_size():
    frame = jax.ShapeDtypeStruct((1, 33, 21), jnp.complex64)
    model = SMALL.clone(consistency="none")
    output = jax.eval_shape(model.apply, start(model), frame, frame, frame)
    assert output.image.shape == (1, 33, 21)


def test_shallow_features_pass_the_body_by():
    model, frame = SMALL.clone(consistency="none"), jnp.ones((1, 16, 16), jnp.complex64)
    variables = start(model)
    after = variables["params"]["after_body"]
    after.update(jax.tree.map(jnp.zeros_like, after))
    image = model.apply(variables, frame, frame, frame).image
    assert float(jnp.max(jnp.abs(image - frame))) > 1e-3


def test_impossible_blocks_are_refused():
    with pytest.raises(ValueError, match=r"2 \* n_heads must divide width"):
        SwinIR(width=20, n_heads=6).options()


def test_learns_a_triplet_by_heart():
    before, after = losses_by_heart(SMALL, 150, 5e-3)
    assert after < 0.35 * before
