"""Alignment against the reference network's stored arrays, and its properties."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.interop.torch_names import Entry, from_state_dict
from kgmgt_jax.models import deformable, matching, motion
from kgmgt_jax.models.deformable import deformable_conv
from kgmgt_jax.models.matching import (
    Match,
    centred_flow,
    corner_flow,
    normalise_features,
    patch_correlation,
    similarity_map,
)
from kgmgt_jax.models.motion import Alignment, DeformableAggregation
from tests.models.fixtures import Fixture, nchw, nhwc, relative_error

# One program each, in place of one an operation, takes a fraction of the time to compile.
best_match = jax.jit(matching.best_match, static_argnames="search_radius")
soft_match = jax.jit(matching.soft_match, static_argnames="search_radius")
align = jax.jit(motion.align, static_argnames=("warp_flow", "smooth"))
upscale_flow = jax.jit(motion.upscale_flow, static_argnames=("factor", "smooth"))
warp = jax.jit(motion.warp, static_argnames="integer")


@partial(jax.jit, static_argnums=0)
def _with_gradients(function, cotangent, *inputs):
    """What a function gives, and the gradients of its inputs."""
    output, pullback = jax.vjp(function, *inputs)
    return output, pullback(cotangent)


def _deformable_inputs(fixture, case):
    get = lambda name: fixture[f"in/{case}/{name}"]  # noqa: E731
    groups = int(get("groups"))
    x, offset, mask = nhwc(get("x")), nhwc(get("offset")), nhwc(get("mask"))
    offset = offset.reshape(*offset.shape[:3], groups, 9, 2)
    mask = mask.reshape(*mask.shape[:3], groups, 9)
    arrays = x, offset, mask, get("weight").transpose(2, 3, 1, 0), get("bias")
    return tuple(map(jnp.asarray, arrays))


@pytest.mark.parametrize("block", [8192, 30])
@pytest.mark.parametrize("case", ["frac", "far"])
def test_deformable_conv_equals_reference(fixtures_dir, case, block, monkeypatch):
    monkeypatch.setattr(deformable, "_BLOCK", block)
    fixture = Fixture(fixtures_dir, "a_mdconv")
    inputs = _deformable_inputs(fixture, case)
    cotangent = nhwc(fixture[f"in/{case}/ct"])
    y, gradients = _with_gradients(lambda *a: deformable_conv(*a), cotangent, *inputs)
    g_x, g_offset, g_mask, g_kernel, g_bias = gradients
    assert relative_error(nchw(y), fixture[f"out/{case}/y"]) < 5e-6
    flat = lambda g: nchw(g.reshape(*g.shape[:3], -1))  # noqa: E731
    for got, name in (
        (nchw(g_x), "g_x"),
        (flat(g_offset), "g_offset"),
        (flat(g_mask), "g_mask"),
        (g_kernel.transpose(3, 2, 0, 1), "g_weight"),
        (g_bias, "g_bias"),
    ):
        assert relative_error(got, fixture[f"out/{case}/{name}"]) < 5e-6, name


def test_deformable_conv_without_offsets_is_a_convolution():
    keys = jax.random.split(jax.random.key(0), 3)
    x, kernel = jax.random.normal(keys[0], (1, 6, 5, 4)), jax.random.normal(keys[1], (3, 3, 4, 2))
    got = deformable_conv(
        x, jnp.zeros((1, 6, 5, 2, 9, 2)), jnp.ones((1, 6, 5, 2, 9)), kernel, jnp.zeros(2)
    )
    want = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_deformable_conv_refuses_indivisible_channels():
    with pytest.raises(ValueError, match="c=6 groups=4"):
        deformable_conv(
            jnp.zeros((1, 4, 4, 6)),
            jnp.zeros((1, 4, 4, 4, 9, 2)),
            jnp.zeros((1, 4, 4, 4, 9)),
            jnp.zeros((3, 3, 6, 6)),
            jnp.zeros(6),
        )


def test_matching_equals_reference(fixtures_dir):
    fixture = Fixture(fixtures_dir, "e_correspondence")
    query, key = (jnp.asarray(nhwc(fixture[f"in/feat_{name}"])) for name in ("in", "ref"))
    match = best_match(query, key)
    h, w = match.flow.shape[1:3]
    y, x = np.mgrid[:h, :w]
    index = (match.flow[..., 1] + y[None]) * w + (match.flow[..., 0] + x[None])
    np.testing.assert_array_equal(index, fixture["out/max_idx"])
    assert relative_error(match.similarity, fixture["out/max_val"]) < 5e-6

    values = tuple(jnp.zeros((2, 12 * f, 16 * f, 4)) for f in (4, 2, 1))
    for aligned, name in zip(align(match, values, warp_flow="corner"), (1, 2, 3), strict=True):
        taps = np.moveaxis(np.asarray(aligned.tap_flow), 3, 1)
        np.testing.assert_array_equal(taps, fixture[f"out/pre_offset/relu{name}_1"])
        similarity = fixture[f"out/pre_similarity/relu{name}_1"]
        assert relative_error(nchw(aligned.similarity), similarity) < 5e-6
    np.testing.assert_array_equal(corner_flow(match.flow), fixture["out/pre_flow/relu3_1"])
    for factor, name in ((2, 2), (4, 1)):
        flow = upscale_flow(corner_flow(match.flow), factor)
        np.testing.assert_array_equal(flow, fixture[f"out/pre_flow/relu{name}_1"])


def _unfold(x):
    """(h, w, c) to unit 3 x 3 patches (h - 2, w - 2, 9 c), by brute force, in float64."""
    h, w, _ = x.shape
    patches = [x[i : i + h - 2, j : j + w - 2] for i in range(3) for j in range(3)]
    return np.concatenate(patches, axis=-1)


@pytest.mark.parametrize("case", ["fixture", "random"])
def test_fast_correlation_equals_unfolding(fixtures_dir, case):
    if case == "fixture":
        fixture = Fixture(fixtures_dir, "e_correspondence")
        t, r = nhwc(fixture["in/feat_in"])[0], nhwc(fixture["in/feat_ref"])[0]
    else:
        t, r = np.random.default_rng(0).standard_normal((2, 9, 7, 5)).astype(np.float32)
    t, r = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (t, r))
    patches_t, patches_r = _unfold(t.astype(float)), _unfold(r.astype(float))
    patches_r /= np.linalg.norm(patches_r, axis=-1, keepdims=True) + 1e-5
    want = np.einsum("yxc,vuc->yxvu", patches_t, patches_r)
    got = np.asarray(patch_correlation(jnp.asarray(t), jnp.asarray(r)))
    assert np.max(np.abs(got - want)) < 1e-5
    n = want.shape[0] * want.shape[1]
    np.testing.assert_array_equal(got.reshape(n, n).argmax(1), want.reshape(n, n).argmax(1))


def test_features_are_normalised_however_small():
    x = jnp.array([[3e-8, 4e-8], [0.0, 0.0], [0.6, 0.8]])
    found = normalise_features(x)
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, 0], [0.6, 0.8]], rtol=1e-5)
    assert bool(jnp.all(jnp.isfinite(jax.grad(lambda x: jnp.sum(normalise_features(x)))(x))))


def test_local_search_with_full_reach_is_the_global_search():
    query, key = jax.random.normal(jax.random.key(1), (2, 2, 9, 7, 5))
    near, everywhere = best_match(query, key, search_radius=8), best_match(query, key)
    np.testing.assert_array_equal(near.flow, everywhere.flow)
    np.testing.assert_allclose(near.similarity, everywhere.similarity, rtol=1e-6)


def test_local_search_stays_within_its_radius_and_finds_a_shift():
    reference = jax.random.normal(jax.random.key(2), (1, 16, 16, 8))
    target = jnp.roll(reference, (-2, 1), axis=(1, 2))  # target(p) = reference(p + (2, -1))
    match = best_match(target, reference, search_radius=3)
    assert float(jnp.max(jnp.abs(match.flow))) <= 3
    inner = match.flow[:, 2:-4, 2:-2]
    np.testing.assert_array_equal(inner, jnp.broadcast_to(jnp.array([-1.0, 2.0]), inner.shape))


def test_local_search_stays_inside_whatever_it_finds_there():
    """Even where all patches are opposite: they are more alike than what lies outside."""
    query, key = -jnp.ones((1, 6, 5, 2)), jnp.ones((1, 6, 5, 2))
    flow = np.asarray(best_match(query, key, search_radius=2).flow[0])
    y, x = np.mgrid[:4, :3]
    assert (y + flow[..., 1] >= 0).all() and (y + flow[..., 1] < 4).all()
    assert (x + flow[..., 0] >= 0).all() and (x + flow[..., 0] < 3).all()
    soft = soft_match(query, key, jnp.float32(1.0), search_radius=2)
    np.testing.assert_allclose(soft.flow[0, :, 0, 0], 1, atol=1e-4)  # mean of 0, 1 and 2
    np.testing.assert_allclose(soft.similarity, -1, rtol=1e-4)


def test_similarity_carries_the_gradient_of_the_matched_patch():
    query, key = jax.random.normal(jax.random.key(3), (2, 1, 6, 6, 4))

    def slow(query):
        t, r = (x[0] / jnp.linalg.norm(x[0], axis=-1, keepdims=True) for x in (query, key))
        corr = patch_correlation(t, r).reshape(4, 4, 16)
        norm = jnp.sqrt(9.0)
        return jnp.sum(jnp.max(corr, axis=-1) / (norm + 1e-5) * jnp.arange(16.0).reshape(4, 4))

    def fast(query):
        weights = jnp.arange(16.0).reshape(1, 4, 4)
        return jnp.sum(best_match(query, key).similarity * weights)

    got, want = (jax.jit(jax.grad(f))(query) for f in (fast, slow))
    assert relative_error(got, np.asarray(want)) < 1e-5


def test_soft_match_approaches_the_hard_one():
    query, key = jax.random.normal(jax.random.key(4), (2, 1, 8, 8, 16), jnp.float32)
    hard = best_match(query, key, search_radius=2)
    soft = soft_match(query, key, jnp.float32(1e4), search_radius=2)
    np.testing.assert_allclose(soft.flow, hard.flow, atol=1e-3)
    np.testing.assert_allclose(soft.similarity, hard.similarity, rtol=1e-4)


def test_soft_match_gives_query_and_key_a_gradient():
    query, key = jax.random.normal(jax.random.key(5), (2, 1, 8, 8, 16))

    def flow(query, key):
        return jnp.sum(soft_match(query, key, jnp.float32(5.0), search_radius=2).flow ** 2)

    for gradient in jax.jit(jax.grad(flow, (0, 1)))(query, key):
        assert bool(jnp.all(jnp.isfinite(gradient))) and float(jnp.max(jnp.abs(gradient))) > 0


def test_integer_warp_equals_bilinear_and_moves_by_the_flow():
    image = jax.random.normal(jax.random.key(6), (1, 7, 9, 3))
    flow = jnp.broadcast_to(jnp.array([2.0, -1.0]), (1, 7, 9, 2))
    got = warp(image, flow)
    np.testing.assert_array_equal(got, warp(image, flow, integer=True))
    np.testing.assert_array_equal(got[:, 1:, :-2], image[:, :-1, 2:])
    assert not np.any(got[:, 0]) and not np.any(got[:, :, -2:])


def test_half_pixel_warp_averages_neighbours():
    image = jnp.arange(5.0).reshape(1, 1, 5, 1)
    flow = jnp.broadcast_to(jnp.array([0.5, 0.0]), (1, 1, 5, 2))
    np.testing.assert_allclose(warp(image, flow)[0, 0, :, 0], [0.5, 1.5, 2.5, 3.5, 2.0])


@pytest.mark.parametrize("smooth", [False, True])
def test_flow_of_a_finer_grid_is_in_its_pixels(smooth):
    flow = jnp.broadcast_to(jnp.array([0.5, -1.0]), (1, 3, 4, 2))
    finer = upscale_flow(flow, 4, smooth=smooth)
    np.testing.assert_allclose(finer, jnp.broadcast_to(4 * flow[0, 0, 0], (1, 12, 16, 2)))


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("warp_flow", ["centred", "corner"])
def test_reference_is_warped_by_one_flow_and_its_taps_are_moved_by_the_corners(warp_flow, smooth):
    flow = jax.random.normal(jax.random.key(8), (1, 4, 5, 2))
    match = Match(flow if smooth else jnp.round(flow), jnp.ones((1, 4, 5)))
    keys = zip(jax.random.split(jax.random.key(9), 3), (4, 2, 1), strict=True)
    values = [jax.random.normal(key, (1, 6 * n, 7 * n, 2)) for key, n in keys]
    corner = corner_flow(match.flow)
    plain = corner if warp_flow == "corner" else centred_flow(match.flow)
    scales = align(match, tuple(values), warp_flow=warp_flow, smooth=smooth)
    for scale, factor in zip(scales, (4, 2, 1), strict=True):
        moved = warp(scale.reference, upscale_flow(plain, factor, smooth=smooth))
        np.testing.assert_allclose(scale.warped, moved, atol=1e-5)
        taps = upscale_flow(corner, factor, smooth=smooth)
        np.testing.assert_array_equal(scale.tap_flow[..., 0, :], _moved(taps, 0, 0))
        np.testing.assert_array_equal(scale.tap_flow[..., 5, :], _moved(taps, factor, 2 * factor))


def _moved(flow, rows, columns):
    """A flow moved down and to the right, zeros behind it."""
    padded = jnp.pad(flow, ((0, 0), (rows, 0), (columns, 0), (0, 0)))
    return padded[:, : flow.shape[1], : flow.shape[2]]


def test_centred_flow_agrees_with_the_similarity():
    match = Match(jnp.ones((1, 4, 4, 2)), jnp.ones((1, 4, 4)))
    value = jax.random.normal(jax.random.key(7), (1, 6, 6, 1))
    values = (jnp.zeros((1, 24, 24, 1)), jnp.zeros((1, 12, 12, 1)), value)
    moved = align(match, values)[2].warped != value
    np.testing.assert_array_equal(moved, similarity_map(match.similarity) > 0)


def test_dynamic_aggregation_equals_reference(fixtures_dir):
    fixture = Fixture(fixtures_dir, "f_dynagg")
    entries = [
        Entry("weight", ("params", "kernel"), "conv"),
        Entry("bias", ("params", "bias")),
        Entry("conv_offset_mask.weight", ("params", "conv_offset_mask", "kernel"), "conv"),
        Entry("conv_offset_mask.bias", ("params", "conv_offset_mask", "bias")),
    ]
    variables = from_state_dict(entries, fixture.weights())
    taps = jnp.asarray(np.moveaxis(fixture["in/pre_offset"], 1, 3))

    def apply(variables, x, features, similarity):
        alignment = Alignment(x, x, taps, similarity)
        return DeformableAggregation(4).apply(variables, features, alignment)

    inputs = (nhwc(fixture["in/x"]), nhwc(fixture["in/feat"]), nhwc(fixture["in/sim"]))
    y, gradients = _with_gradients(apply, nhwc(fixture["in/ct"]), variables, *inputs)
    g_weights, *g_inputs = gradients
    assert relative_error(nchw(y), fixture["out/y"]) < 2e-5
    for got, name in zip(g_inputs, ("g_x", "g_feat", "g_sim"), strict=True):
        assert relative_error(nchw(got), fixture[f"out/{name}"]) < 2e-5, name
    g_weights = g_weights["params"]
    for got, name in (
        (g_weights["kernel"].transpose(3, 2, 0, 1), "weight"),
        (g_weights["bias"], "bias"),
        (g_weights["conv_offset_mask"]["kernel"].transpose(3, 2, 0, 1), "conv_offset_mask.weight"),
        (g_weights["conv_offset_mask"]["bias"], "conv_offset_mask.bias"),
    ):
        assert relative_error(got, fixture[f"out/gw_{name}"]) < 2e-5, name


def test_smooth_flow_of_a_finer_grid_lies_between_its_neighbours():
    flow = jnp.broadcast_to(jnp.arange(4.0)[:, None], (1, 2, 4, 2))
    finer = upscale_flow(flow, 2, smooth=True)
    between = np.clip((np.arange(8) + 0.5) / 2 - 0.5, 0, 3)
    np.testing.assert_allclose(finer[0, 0, :, 0], 2 * between, rtol=1e-6)


def test_soft_match_is_the_mean_under_the_softmax_of_the_similarities():
    """Of the one patch whose window of displacements lies inside, by the formula."""
    query, key = jax.random.normal(jax.random.key(10), (2, 1, 5, 5, 4))
    match = soft_match(query, key, jnp.float32(3.0), search_radius=1)
    t, r = (x[0] / jnp.linalg.norm(x[0], axis=-1, keepdims=True) for x in (query, key))
    corr = patch_correlation(t, r)[1, 1].ravel() / (3 + 1e-5)
    weight = jax.nn.softmax(3.0 * corr)
    dy, dx = np.divmod(np.arange(9), 3) - np.array([[1], [1]])
    np.testing.assert_allclose(match.similarity[0, 1, 1], jnp.sum(weight * corr), rtol=1e-5)
    expected = [jnp.sum(weight * dx), jnp.sum(weight * dy)]
    np.testing.assert_allclose(match.flow[0, 1, 1], expected, rtol=1e-4, atol=1e-6)


def _places(query, key, radius):
    """What the flow to the best match is, hard and soft, and what lies there."""
    hard = best_match(query, key, search_radius=radius)
    soft = soft_match(query, key, jnp.float32(5.0), search_radius=2)
    moved = [warp(key, jnp.pad(m.flow, ((0, 0), (1, 1), (1, 1), (0, 0)))) for m in (hard, soft)]
    return sum(jnp.sum(x) for x in (*hard, *soft, *moved))


@pytest.mark.parametrize("radius", [None, 2])
def test_accelerators_are_asked_for_exact_flow(radius):
    """Of their own accord they keep 8 or 11 bits of the factors of a product of matrices."""
    frames = jnp.ones((1, 6, 5, 2)), jnp.ones((1, 6, 5, 2))
    jaxpr = jax.make_jaxpr(jax.value_and_grad(_places, (0, 1)), static_argnums=2)(*frames, radius)
    text = str(jaxpr)
    n_products = text.count("dot_general[")
    assert n_products > 0
    assert text.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == n_products
