"""The transformer blocks against the reference network's stored arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.interop.torch_names import (
    block_entries,
    body_entries,
    from_state_dict,
    group_entries,
)
from kgmgt_jax.models.block_options import BlockOptions
from kgmgt_jax.models.initialisation import initialise
from kgmgt_jax.models.layers import drop_path
from kgmgt_jax.models.transformer import (
    MGwinTBlock,
    ResidualGroup,
    TransformerBody,
)
from tests.models.fixtures import Fixture, nhwc, relative_error

RELEASED = BlockOptions(rect_window=(8, 8))
SIZES = [(32, 32), (24, 40)]


def _tokens(fixture, size):
    return jnp.asarray(fixture[f"in/x/{size[0]}x{size[1]}"]).reshape(1, *size, 16)


def _params(entries, weights):
    return {"params": from_state_dict([e for e in entries if e.key in weights], weights)}


@pytest.mark.parametrize("shift", [0, 4])
@pytest.mark.parametrize("size", SIZES)
def test_block_equals_reference(fixtures_dir, size, shift):
    fixture = Fixture(fixtures_dir, "d_blocks")
    variables = _params(block_entries("", ()), fixture.weights("w/block/"))
    y = jax.jit(MGwinTBlock(RELEASED).apply)(variables, _tokens(fixture, size), shift > 0)
    want = fixture[f"out/block_shift{shift}_{size[0]}x{size[1]}"]
    assert relative_error(y.reshape(1, -1, 16), want) < 1e-5


@pytest.mark.parametrize("size", SIZES)
def test_group_equals_reference(fixtures_dir, size):
    fixture = Fixture(fixtures_dir, "d_blocks")
    variables = _params(group_entries("", ()), fixture.weights("w/rstb/"))
    module = ResidualGroup(RELEASED)
    y = jax.jit(lambda v, x: module.apply(v, x, None))(variables, _tokens(fixture, size))
    assert relative_error(y.reshape(1, -1, 16), fixture[f"out/rstb_{size[0]}x{size[1]}"]) < 1e-5


@pytest.mark.parametrize("size", SIZES)
def test_body_equals_reference(fixtures_dir, size):
    fixture = Fixture(fixtures_dir, "d_blocks")
    variables = _params(body_entries("", ()), fixture.weights("w/swin/"))
    body = TransformerBody(RELEASED)
    y = jax.jit(lambda v, x: body.apply(v, x, train=False))(variables, _tokens(fixture, size))
    assert relative_error(y, nhwc(fixture[f"out/swin_{size[0]}x{size[1]}"])) < 1e-5


@pytest.mark.parametrize(
    ("fields", "attentions"),
    [
        ({}, {"square", "rect"}),
        ({"square_window": False}, {"rect"}),
        ({"rect_window": None}, {"square"}),
        ({"attention": "global"}, {"attention"}),
    ],
)
def test_a_block_has_the_attentions_that_are_asked_for(fields, attentions):
    block = MGwinTBlock(BlockOptions(**fields))
    x = jax.ShapeDtypeStruct((1, 16, 16, 16), jnp.float32)
    y, variables = jax.eval_shape(block.init_with_output, jax.random.key(0), x)
    assert variables["params"].keys() - {"norm1", "norm2", "mlp1", "mlp2"} == attentions
    assert y.shape == x.shape


def _small_body(*, n_groups=2, n_blocks=2, **fields):
    options = BlockOptions(width=8, n_heads=2)
    return TransformerBody(options, n_groups=n_groups, n_blocks=n_blocks, **fields)


def test_unrolled_blocks_are_no_loop_and_give_the_same():
    x = jax.random.normal(jax.random.key(0), (1, 32, 32, 8))
    variables = initialise(_small_body(), 1, x, train=False)

    def compiled(unroll):
        body = _small_body(unroll=unroll)
        return jax.jit(lambda v, x: body.apply(v, x, train=False)).lower(variables, x).compile()

    loop, unrolled = compiled(False), compiled(True)
    assert " while(" in loop.as_text() and " while(" not in unrolled.as_text()
    assert relative_error(unrolled(variables, x), loop(variables, x)) < 1e-6


def test_remat_changes_memory_and_not_the_gradient():
    x = jax.random.normal(jax.random.key(0), (1, 32, 32, 8))
    deep = {"n_groups": 1, "n_blocks": 8}  # the saving is that of all blocks but one
    variables = initialise(_small_body(**deep), 1, x, train=False)

    def compiled(remat):
        body = _small_body(remat=remat, **deep)
        grad = jax.grad(lambda v: jnp.sum(body.apply(v, x, train=False) ** 2))
        return jax.jit(grad).lower(variables).compile()

    with_remat, without = compiled(True), compiled(False)
    temporary = [c.memory_analysis().temp_size_in_bytes for c in (with_remat, without)]
    assert temporary[0] < temporary[1] / 2
    for a, b in zip(
        jax.tree.leaves(with_remat(variables)), jax.tree.leaves(without(variables)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4)


def test_stochastic_depth_grows_over_the_blocks_and_draws_for_each_branch(monkeypatch):
    seen = []

    def record(x, rate, key):
        note = lambda rate, key: seen.append((float(rate), np.asarray(key).tobytes()))  # noqa: E731
        jax.debug.callback(note, rate, jax.random.key_data(key), ordered=True)
        return x

    monkeypatch.setattr("kgmgt_jax.models.transformer.drop_path", record)
    x = jnp.ones((1, 16, 16, 8))
    body = _small_body(drop_path=0.3, remat=False)
    variables = initialise(body, 1, x, train=False)
    body.apply(variables, x, train=True, rngs={"dropout": jax.random.key(0)})
    jax.effects_barrier()
    rates, keys = zip(*seen, strict=True)
    assert rates == pytest.approx([0, 0, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3])
    assert len(set(keys)) == 8


def test_stochastic_depth_drops_whole_samples_and_keeps_the_mean():
    dropped = np.asarray(drop_path(jnp.ones((4000, 2, 3)), jnp.float32(0.25), jax.random.key(0)))
    assert (dropped == dropped[:, :1, :1]).all()
    assert set(np.unique(dropped).round(4)) == {0, np.float32(1.3333)}
    assert np.mean(dropped) == pytest.approx(1, abs=0.04)


def test_stochastic_depth_acts_in_training_alone():
    x = jax.random.normal(jax.random.key(0), (2, 16, 16, 8))
    body = _small_body(n_groups=1, drop_path=0.5)
    variables = initialise(body, 1, x, train=False)
    apply = jax.jit(
        lambda key, train: body.apply(variables, x, train=train, rngs={"dropout": key}),
        static_argnums=1,
    )
    a, b = apply(jax.random.key(2), True), apply(jax.random.key(3), True)
    assert float(jnp.max(jnp.abs(a - b))) > 1e-3
    np.testing.assert_array_equal(apply(jax.random.key(2), False), apply(jax.random.key(3), False))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 12, "n_heads": 4}, "must divide width"),
        ({"window": 7}, "window must be even"),
        ({"rect_window": (3, 8)}, "even sides"),
        ({"rect_window": None, "square_window": False}, "leaves no attention"),
        ({"attention": "linear"}, "'linear'"),
    ],
)
def test_impossible_blocks_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        BlockOptions(**fields)
