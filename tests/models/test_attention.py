"""Window attention against the reference network's stored arrays, and its locality by gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.interop.torch_names import block_entries, body_entries, from_state_dict
from kgmgt_jax.models import attention
from kgmgt_jax.models.attention import (
    AnchoredAttention,
    AnchorStep,
    GlobalAttention,
    SquareAttention,
    anchored_attention,
)
from kgmgt_jax.models.layers import Layers
from tests.models.fixtures import Fixture, relative_error


def _submodule(prefix, names, weights):
    """Parameters of one attention branch, from the state dict of the block around it."""
    known = {prefix + k: v for k, v in weights.items()}
    entries = [e for e in block_entries("", ()) if e.key in known]
    return {"params": from_state_dict(entries, known)[names]}


@pytest.mark.parametrize("shift", [0, 4])
@pytest.mark.parametrize("size", ["16x16", "24x16"])
def test_square_attention_equals_reference(fixtures_dir, size, shift):
    fixture = Fixture(fixtures_dir, "b_window_attention")
    variables = _submodule("", "square", fixture.weights())
    case = f"{size}_shift{shift}"
    x = jnp.asarray(fixture[f"in/{case}/x"])
    y = jax.jit(lambda v, x: SquareAttention(16, 4, 8).apply(v, x, bool(shift)))(variables, x)
    assert relative_error(y, fixture[f"out/{case}/y"]) < 5e-6


def test_anchored_attention_equals_reference(fixtures_dir):
    fixture = Fixture(fixtures_dir, "c_mixed_attention")
    variables = _submodule("mixed_attn.", "rect", fixture.weights())
    x = jnp.asarray(fixture["in/x"]).reshape(2, 16, 24, 16)
    y = jax.jit(AnchoredAttention(16, 4, (8, 8)).apply)(variables, x)
    assert relative_error(y.reshape(2, -1, 16), fixture["out/y"]) < 5e-5


def test_anchor_bias_equals_reference(fixtures_dir):
    fixture = Fixture(fixtures_dir, "c_mixed_attention")
    params = _submodule("mixed_attn.", "rect", fixture.weights())["params"]
    window, anchors = (8, 8), (4, 4)
    for name, query, key, bias in (
        ("gather", anchors, window, "bias1"),
        ("spread", window, anchors, "bias2"),
    ):
        scale, got = AnchorStep(4).apply({"params": params[name]}, query, key)
        assert relative_error(got, fixture[f"out/{bias}"]) < 5e-5
        assert float(jnp.max(scale)) <= 100.001


def _influence(apply, shape, row, column):
    """Which input pixels have a gradient into one output pixel."""
    x = jax.random.normal(jax.random.key(0), shape, jnp.float32)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(apply(x)[0, row, column])))(x)
    return np.asarray(jnp.any(gradient[0] != 0, axis=-1))


@pytest.mark.parametrize("at", [(9, 9), (1, 1), (14, 13), (5, 12)])
def test_shifted_windows_do_not_leak_across_the_mask(at):
    module = SquareAttention(8, 2, 8)
    variables = module.init(jax.random.key(1), jnp.zeros((1, 16, 16, 8)))
    seen = _influence(lambda x: module.apply(variables, x, True), (1, 16, 16, 8), *at)
    part = lambda i: 0 if i < 4 else (1 if i < 12 else 2)  # noqa: E731
    rows = np.array([part(i) == part(at[0]) for i in range(16)])
    columns = np.array([part(i) == part(at[1]) for i in range(16)])
    np.testing.assert_array_equal(seen, rows[:, None] & columns[None, :])


def test_mask_is_what_stops_the_leak(monkeypatch):
    monkeypatch.setattr("kgmgt_jax.models.attention.MASKED", 0.0)
    module = SquareAttention(8, 2, 8)
    variables = module.init(jax.random.key(1), jnp.zeros((1, 16, 16, 8)))
    seen = _influence(lambda x: module.apply(variables, x, True), (1, 16, 16, 8), 1, 1)
    assert seen[15, 15]


@pytest.mark.parametrize(
    ("window", "at"), [((16, 4), (3, 5)), ((4, 16), (6, 20)), ((8, 8), (9, 9))]
)
def test_rectangular_windows_see_their_rectangle(window, at):
    module = AnchoredAttention(8, 2, window)
    shape = (1, 32, 32, 8)
    variables = module.init(jax.random.key(1), jnp.zeros(shape))
    seen = _influence(lambda x: module.apply(variables, x), shape, *at)
    top, left = (at[0] // window[0]) * window[0], (at[1] // window[1]) * window[1]
    inside = np.zeros((32, 32), bool)
    inside[top : top + window[0], left : left + window[1]] = True
    assert seen[inside].all()
    border = np.zeros((32, 32), bool)  # anchors are convolutions: one pixel further
    border[max(top - 1, 0) : top + window[0] + 1, max(left - 1, 0) : left + window[1] + 1] = True
    assert not seen[~border].any()


def test_windows_need_not_divide_the_map():
    module = AnchoredAttention(8, 2, (16, 4))
    x = jax.random.normal(jax.random.key(2), (1, 24, 10, 8))
    variables = module.init(jax.random.key(1), x)
    y = jax.jit(module.apply)(variables, x)
    assert y.shape == x.shape and bool(jnp.all(jnp.isfinite(y)))
    whole = jax.jit(module.apply)(variables, x[:, :16, :8])
    np.testing.assert_allclose(y[:, :15, :7], whole[:, :15, :7], atol=2e-6)


def test_padding_of_a_window_takes_no_part():
    """A map of 6 x 3 in a window of 8 x 4, its anchors of 3 x 2 in 4 x 2, by the formula."""
    rng, heads, d = np.random.default_rng(0), 2, 3
    draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    q, k, v = (draw(6, 3, heads, d) for _ in range(3))
    anchor, scales = draw(3, 2, heads, d), ([5.0, 2.0], [3.0, 4.0])
    biases = draw(heads, 8, 32), draw(heads, 32, 8)
    flat = lambda a: jnp.asarray(a.reshape(1, *a.shape[:2], -1))  # noqa: E731
    arrays = (*map(flat, (q, k, v, anchor)), tuple(map(jnp.asarray, scales)))
    found = anchored_attention(*arrays, tuple(map(jnp.asarray, biases)), window=(8, 4))

    tokens = (4 * np.arange(6)[:, None] + np.arange(3)).ravel()
    anchors = np.arange(6)  # of 4 x 2 the first three rows
    unit = lambda a: a / np.linalg.norm(a, axis=-1, keepdims=True)  # noqa: E731
    rows = lambda a: a.reshape(-1, heads, d)  # noqa: E731
    cosine = np.einsum("ahd,thd->hat", rows(unit(anchor)), rows(unit(k)))
    scale1, scale2 = (np.array(scale)[:, None, None] for scale in scales)
    weights = jax.nn.softmax(scale1 * cosine + biases[0][:, anchors][:, :, tokens])
    summary = np.einsum("hat,thd->ahd", weights, rows(v))
    cosine = np.einsum("thd,ahd->hta", rows(unit(q)), rows(unit(anchor)))
    weights = jax.nn.softmax(scale2 * cosine + biases[1][:, tokens][:, :, anchors])
    expected = np.einsum("hta,ahd->thd", weights, summary)
    np.testing.assert_allclose(found[0].reshape(18, heads, d), expected, atol=1e-5)


def test_temperature_starts_at_a_tenth_and_ends_at_a_hundredth():
    step = AnchorStep(2)
    variables = step.init(jax.random.key(0), (2, 2), (4, 4))
    np.testing.assert_allclose(step.apply(variables, (2, 2), (4, 4))[0], [10, 10], rtol=1e-5)
    variables["params"]["logit_scale"] = jnp.log(jnp.array([50.0, 1000.0]))
    np.testing.assert_allclose(step.apply(variables, (2, 2), (4, 4))[0], [50, 100], rtol=1e-5)


@pytest.mark.parametrize("pallas", [False, True])
@pytest.mark.parametrize(
    ("module", "n"), [(SquareAttention(16, 4, 8), 1), (AnchoredAttention(16, 4, (8, 8)), 2)]
)
def test_attention_in_windows_is_all_by_the_kernel_or_none(monkeypatch, module, n, pallas):
    asked = []
    monkeypatch.setattr(
        attention, "attend", lambda q, *_, pallas: asked.append(pallas) or jnp.zeros_like(q)
    )
    module, x = module.clone(layers=Layers(pallas=pallas)), jnp.ones((1, 8, 8, 16))
    jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x)[0], x)
    assert asked == [pallas] * n


def test_global_attention_takes_any_number_of_pixels(monkeypatch):
    x = jax.random.normal(jax.random.key(0), (1, 34, 33, 4))  # 1122, no multiple of the chunk
    module = GlobalAttention(4, 2)
    variables = module.init(jax.random.key(1), x)
    found = module.apply(variables, x)
    monkeypatch.setattr("kgmgt_jax.models.attention._QUERY_CHUNK", 1122)
    np.testing.assert_allclose(found, module.apply(variables, x), atol=1e-6)


def test_global_attention_sees_everything():
    module = GlobalAttention(8, 2)
    variables = module.init(jax.random.key(1), jnp.zeros((1, 6, 10, 8)))
    assert _influence(lambda x: module.apply(variables, x), (1, 6, 10, 8), 0, 0).all()


def test_body_entries_cover_a_whole_state_dict(fixtures_dir):
    fixture = Fixture(fixtures_dir, "d_blocks")
    assert set(fixture.weights("w/swin/")) == {e.key for e in body_entries("", ())}


def test_bias_of_a_rectangle_follows_from_each_displacement():
    """Of 3 x 2 queries and 6 x 4 keys, pair by pair."""
    query, key = (3, 2), (6, 4)
    step = AnchorStep(2)
    variables = jax.tree.map(lambda a: 10 * a, step.init(jax.random.key(0), query, key))
    _, found = step.apply(variables, query, key)

    def seen(query, key):
        half = (query + key - 2) / 2
        c = 8 * (np.arange(query)[:, None] - np.arange(key)[None] + key - 1 - half) / half
        return np.sign(c) * np.log2(np.abs(c) + 1) / 3

    y, x = (seen(*sides) for sides in zip(query, key, strict=True))
    y, x = np.broadcast_arrays(y[:, None, :, None], x[None, :, None, :])
    pairs = np.stack([y, x], axis=-1).reshape(6, 24, 2)
    params = jax.device_get(variables["params"])
    hidden = np.maximum(pairs @ params["hidden"]["kernel"] + params["hidden"]["bias"], 0)
    expected = 16 / (1 + np.exp(-hidden @ params["bias"]["kernel"]))
    np.testing.assert_allclose(found, np.moveaxis(expected, -1, 0), rtol=1e-4)


def test_global_attention_is_softmax_over_all_pixels():
    x = jax.random.normal(jax.random.key(0), (2, 3, 5, 8))
    module = GlobalAttention(8, 2)
    variables = jax.tree.map(lambda a: 10 * a, module.init(jax.random.key(1), x))
    found = module.apply(variables, x)
    layer = lambda name, a: a @ variables["params"][name]["kernel"]  # biases are 0  # noqa: E731
    heads = jnp.split(layer("qkv", x.reshape(2, 15, 8)), 3, axis=-1)
    q, k, v = (a.reshape(2, 15, 2, 4) for a in heads)
    weights = jax.nn.softmax(jnp.einsum("bqkd,bskd->bkqs", q, k) / np.sqrt(4))
    expected = layer("out", jnp.einsum("bkqs,bskd->bqkd", weights, v).reshape(2, 15, 8))
    np.testing.assert_allclose(found.reshape(2, 15, 8), expected, rtol=1e-4, atol=1e-6)
