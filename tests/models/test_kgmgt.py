"""The whole network: sizes, parameter counts, what each stage may see, and its switches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.kgmgt import get_config
from kgmgt_jax.models.critic import Critic
from kgmgt_jax.models.encoder import VGG
from kgmgt_jax.models.initialisation import initialise
from kgmgt_jax.models.kgmgt import KGMgT
from kgmgt_jax.models.layers import Layers
from kgmgt_jax.models.padding import crop_frame, pad_frame
from kgmgt_jax.models.registry import build_model
from kgmgt_jax.mri.fourier import fft2c
from kgmgt_jax.types import Measurement

SMALL = dict(
    channels=(8, 8, 8),
    width=8,
    n_heads=2,
    n_groups=1,
    n_blocks=2,
    n_offset_groups=2,
    denoiser_channels=8,
    n_iterations=2,
    remat=False,
)


def _inputs(h, w, *, coils=0, seed=0):
    keys = jax.random.split(jax.random.key(seed), 5)
    frames = [jax.lax.complex(*jax.random.normal(k, (2, 1, h, w))) for k in keys[:3]]
    mask = (jax.random.uniform(keys[3], (1, h, w)) < 0.4).astype(jnp.float32)
    sens = None
    if coils:
        sens = jax.lax.complex(*jax.random.normal(keys[4], (2, 1, coils, h, w)))
        sens = sens / jnp.sqrt(jnp.sum(jnp.abs(sens) ** 2, axis=1, keepdims=True))
    coil_images = frames[0][:, None] if sens is None else sens * frames[0][:, None]
    return frames, Measurement(mask[:, None] * fft2c(coil_images), mask, sens)


@functools.cache
def _variables(model: KGMgT):
    frames, measurement = _inputs(32, 32)
    return jax.tree.map(jnp.asarray, initialise(model, 0, *frames, measurement))


def _shapes(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.fixture(scope="module")
def counts():
    """Parameters by part of the full-size variants, through ``eval_shape`` alone."""
    frame = jax.ShapeDtypeStruct((1, 256, 256), np.complex64)
    kspace = jax.ShapeDtypeStruct((1, 1, 256, 256), np.complex64)
    mask = jax.ShapeDtypeStruct((1, 256, 256), np.float32)

    def count(variant):
        model = build_model(get_config(variant).model.to_dict())
        shapes = jax.eval_shape(
            model.init, jax.random.key(0), frame, frame, frame, Measurement(kspace, mask)
        )
        return shapes["params"]

    return {variant: count(variant) for variant in ("base", "released", "tiny")}


@pytest.mark.parametrize(
    ("variant", "part", "expected"),
    [
        ("base", "frame_encoder", 554_752),
        ("base", "mentor_net", 5_397_165),
        ("base", "learner_net", 5_397_165),
        ("released", "frame_encoder", 1_109_504 + 554_752),
        ("released", "mentor_net", 5_397_676),
        ("tiny", "frame_encoder", 35_008),
        ("tiny", "mentor_net", 527_956),
        ("tiny", "learner_net", 527_956),
    ],
)
def test_parameter_counts(counts, variant, part, expected):
    assert _shapes(counts[variant][part]) == expected


def test_released_parameter_counts_by_kind(counts):
    net = counts["released"]["mentor_net"]
    stages = [stage for name, stage in net["unet"].items() if "body" in stage]
    assert "learner_net" not in counts["released"]
    convs = [s["asa"][name] for s in stages for name in ("offset_conv1", "offset_conv2")]
    assert _shapes(convs) == 2_968_832
    assert sum(_shapes(s["asa"]["dyn_agg"]) for s in stages) == 1_581_724
    assert sum(_shapes(s["body"]) for s in stages) == 501_120
    assert sum(_shapes(s["fuse_prior"]) for s in stages) == 103_760
    assert sum(_shapes(s["fuse_reference"]) for s in stages) == 103_760
    assert _shapes(net["denoiser"]) == 113_670
    assert _shapes(net["unet"]["head"]) == 304


def test_released_critic_and_vgg_parameter_counts():
    image = jnp.zeros((1, 64, 64, 2))
    critic = Critic(norm="batch", sigmoid=True)
    params = jax.eval_shape(critic.init, jax.random.key(0), image)["params"]
    assert _shapes(params) == 5_242_241
    vgg = jax.eval_shape(VGG(last="conv5_1").init, jax.random.key(0), image)["params"]
    assert _shapes(vgg) == 12_944_384


@functools.cache
def _outputs(h, w):
    """Measurement and reconstruction at a size, compiled once for the tests that look at them."""
    frames, measurement = _inputs(h, w)
    return measurement, _apply(KGMgT(**SMALL))(*frames, measurement)


@functools.cache
def _apply(model):
    return functools.partial(jax.jit(model.apply), _variables(model))


SIZE = (45, 37)  # of the tests below that need no other, which share a program
SIZES = [SIZE, *(pytest.param(s, marks=pytest.mark.slow) for s in ((1, 1), (7, 9), (64, 20)))]


@pytest.mark.parametrize("size", SIZES)
def test_any_size_is_reconstructed_at_its_size(size):
    _, out = _outputs(*size)
    assert out.image.shape == out.mentor.shape == (1, *size)
    assert bool(jnp.all(jnp.isfinite(out.image)))


@pytest.mark.parametrize("size", SIZES)
def test_hard_consistency_keeps_the_measurement(size):
    measurement, out = _outputs(*size)
    for image in out:
        kept = measurement.mask * fft2c(image)
        error = jnp.linalg.norm(kept - measurement.kspace[:, 0])
        assert float(error / jnp.linalg.norm(measurement.kspace)) < 1e-5


def test_padding_wraps_phase_encoding_and_reflects_readout():
    frame = jnp.arange(30.0).reshape(1, 6, 5) + 0j
    padded = pad_frame(frame, 8)[0]
    np.testing.assert_array_equal(padded[1:7, 1:6], frame[0])
    np.testing.assert_array_equal(padded[0, 1:6], frame[0, -1])  # the last row, from around
    np.testing.assert_array_equal(padded[1:7, 0], frame[0, :, 1])  # the second column, mirrored


@pytest.mark.parametrize("size", [(5, 1), (8, 6), (13, 11)])
def test_cropping_undoes_padding(size):
    frame = jnp.arange(float(np.prod(size))).reshape(1, *size) + 0j
    padded = pad_frame(frame, 8)
    assert all(n % 8 == 0 for n in padded.shape[1:])
    np.testing.assert_array_equal(crop_frame(padded.real[..., None], *size)[..., 0], frame.real)


def _with_another(changed):
    """Both images where one of the frames, by its place, is another one."""
    frames, measurement = _inputs(*SIZE)
    others, _ = _inputs(*SIZE, seed=1)
    if changed is not None:
        frames[changed] = others[changed]
    return _apply(KGMgT(**SMALL))(*frames, measurement)


@pytest.mark.parametrize(("changed", "mentor_sees"), [(0, True), (1, True), (2, False)])
def test_mentor_sees_target_and_preceding_frame_alone_and_the_learner_all(changed, mentor_sees):
    usual, other = _with_another(None), _with_another(changed)
    assert bool(jnp.any(usual.mentor != other.mentor)) == mentor_sees
    assert float(jnp.max(jnp.abs(usual.image - other.image))) > 1e-6


def test_without_knowledge_the_preceding_frame_reaches_the_learner_by_the_image_alone():
    frames, _ = _inputs(32, 32)
    model = KGMgT(**SMALL, consistency="none", knowledge=False)
    variables = _variables(model)
    after = jax.jit(functools.partial(model.apply, method="encode"))(variables, frames[2])
    learner = jax.jit(functools.partial(model.apply, method="learner"))
    v1, v2, v3 = after.values
    images = [
        learner(variables, frames[0], tuple(scale * v for v in (v1, v2, v3, v2, v1)), after, None)
        for scale in (1.0, 2.0)
    ]
    np.testing.assert_array_equal(*images)


def test_multi_coil_with_unit_sensitivity_equals_single_coil():
    apply = _apply(KGMgT(**SMALL))
    frames, measurement = _inputs(*SIZE)
    single = apply(*frames, measurement).image
    ones = jnp.ones((1, 1, *SIZE), jnp.complex64)
    multi = apply(*frames, measurement._replace(sens=ones)).image
    np.testing.assert_allclose(single, multi, atol=1e-5)


SWITCHES = {
    "knowledge": dict(knowledge=False),
    "square": dict(square_window=False),
    "rect": dict(rect_window=None),
    "global": dict(attention="global"),
    "consistency": dict(consistency="none"),
    "soft": dict(consistency="soft"),
    "cg": dict(consistency="soft", solver="cg"),
    "alignment": dict(alignment=False),
    "soft flow": dict(flow="soft"),
    "search radius": dict(search_radius=1),
    "corner warp": dict(warp_flow="corner"),
    "tied": dict(tie_weights=True),
    "released encoder": dict(encoder="released"),
    "batch norm": dict(denoiser_norm="batch"),
    "bfloat16": dict(dtype="bfloat16"),
}


# Predicted offsets that start at zero would hide what moves the features they are predicted from.
MOVED = SMALL | dict(zero_offsets=(False, False, False))


@pytest.fixture(scope="module")
def reference_output():
    frames, measurement = _inputs(32, 32, coils=2)
    return frames, measurement, _apply(KGMgT(**MOVED))(*frames, measurement).image


@pytest.mark.slow
@pytest.mark.parametrize("name", SWITCHES)
def test_switches_run_and_change_the_output(name, reference_output):
    frames, measurement, usual = reference_output
    image = _apply(KGMgT(**MOVED | SWITCHES[name]))(*frames, measurement).image
    assert bool(jnp.all(jnp.isfinite(image)))
    assert float(jnp.max(jnp.abs(image - usual))) > 1e-6


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(consistency="firm"), "'firm'"),
        (dict(solver="cg"), "needs consistency='soft'"),
        (dict(flow="hard"), "'hard'"),
        (dict(flow="soft", search_radius=None), "needs a search_radius"),
        (dict(encoder="resnet"), "'resnet'"),
        (dict(warp_flow="edge"), "'edge'"),
        (dict(weight_init="ones"), "'ones'"),
    ],
)
def test_impossible_settings_are_refused(fields, message):
    frames, measurement = _inputs(32, 32)
    with pytest.raises(ValueError, match=message):
        initialise(KGMgT(**SMALL | fields), 0, *frames, measurement)


def test_all_parts_have_the_layers_that_the_network_asks_for():
    asked = {"dtype": "bfloat16", "weight_init": "normal", "pallas": True}
    model = KGMgT(**SMALL, **asked).bind({})
    parts = [model.frame_encoder]
    for network in (model.mentor_net, model.learner_net):
        parts += [network.unet, network.denoiser]
    assert {part.layers for part in parts} == {Layers(**asked)}


def test_missing_measurement_is_refused():
    frames, _ = _inputs(32, 32)
    with pytest.raises(ValueError, match="needs the measured k-space"):
        initialise(KGMgT(**SMALL), 0, *frames)


def test_unknown_model_field_is_refused():
    with pytest.raises(ValueError, match=r"\['widht'\]"):
        build_model({"widht": 16})
