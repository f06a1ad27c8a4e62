"""The README's table of deviations: every switch it names exists and changes what its row says."""

import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from configs.kgmgt import get_config
from kgmgt_jax.models.attention import AnchoredAttention
from kgmgt_jax.models.critic import Critic
from kgmgt_jax.models.denoiser import Denoiser, UnrolledDenoiser
from kgmgt_jax.models.encoder import Features
from kgmgt_jax.models.initialisation import initialise
from kgmgt_jax.models.kgmgt import KGMgT
from kgmgt_jax.models.motion import align, warp
from kgmgt_jax.models.registry import build_model
from kgmgt_jax.mri.fourier import fft2c
from kgmgt_jax.training.optimizer import make_optimizer
from kgmgt_jax.types import Measurement

ROOT = Path(__file__).resolve().parents[1]
# what the table's column "released code" says, as fields
RELEASED = {
    "model.consistency": "none",
    "model.tie_weights": True,
    "model.encoder": "released",
    "model.rect_window": ((8, 8), (8, 8), (8, 8)),
    "model.search_radius": None,
    "model.warp_flow": "corner",
    "model.zero_offsets": (True, False, False),
    "model.denoiser_norm": "batch",
    "model.weight_init": "normal",
    "critic.norm": "batch",
    "critic.sigmoid": True,
    "optimizer.learning_rate": 1e-3,
    "optimizer.offset_rates": (1e-3, 1e-5, 1e-6),
    "optimizer.schedule": "multistep",
}


def _rows():
    table = (ROOT / "README.md").read_text().split("## Where we differ from the paper")[1]
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("|")]
    return {row[0].strip(): row[-1] for row in rows[2:]}


def _get(config, name):
    return functools.reduce(lambda part, field: part[field], name.split("."), config)


def test_every_switch_of_the_table_is_a_field():
    rows, base = _rows(), get_config("base")
    assert len(rows) >= 14
    for point, switches in rows.items():
        names = re.findall(r"`(\w+\.\w+)`", switches)
        assert names or point == "image size", point
        for name in names:
            _get(base, name)


def test_released_variant_throws_each_switch():
    base, released = get_config("base"), get_config("released")
    named = set(re.findall(r"`(\w+\.\w+)`", " ".join(_rows().values())))
    for name, value in RELEASED.items():
        assert name in named
        assert _get(released, name) == value != _get(base, name), name


@functools.cache
def _shapes(variant):
    """Variables of a variant, traced and never computed, and the window of each RW-MSA by scale."""
    windows = {}

    def note(call, arguments, options, context):
        if isinstance(context.module, AnchoredAttention):
            scale = re.search(r"large|medium|small", "/".join(context.module.path))[0]
            windows.setdefault(scale, set()).add(context.module.window)
        return call(*arguments, **options)

    frame = jax.ShapeDtypeStruct((1, 32, 32), np.complex64)
    kspace = jax.ShapeDtypeStruct((1, 1, 32, 32), np.complex64)
    measurement = Measurement(kspace, jax.ShapeDtypeStruct((1, 32, 32), np.float32))
    model = build_model(get_config(variant).model.to_dict())
    with nn.intercept_methods(note):
        variables = initialise(model, 0, frame, frame, frame, measurement)
    return variables, windows


def test_mentor_and_learner_are_two_networks_or_one():
    assert {"mentor_net", "learner_net"} <= _shapes("base")[0]["params"].keys()
    assert "learner_net" not in _shapes("released")[0]["params"]


def test_frame_encoder_is_one_network_or_three():
    encoders = [set(_shapes(v)[0]["params"]["frame_encoder"]) for v in ("base", "released")]
    assert encoders == [{"encoder"}, {"target_extractor", "reference_extractor", "vgg"}]


def test_rectangles_alternate_by_scale_or_are_squares():
    wide, tall = {(4, 16)}, {(16, 4)}
    assert _shapes("base")[1] == {"large": tall, "medium": wide, "small": tall}
    assert _shapes("released")[1] == {s: {(8, 8)} for s in ("large", "medium", "small")}


def _offset_kernels(variant):
    unet = _shapes(variant)[0]["params"]["mentor_net"]["unet"]
    stages = ("down_large", "down_medium", "up_small", "up_medium", "up_large")
    return [unet[s]["asa"]["dyn_agg"]["conv_offset_mask"]["kernel"].any() for s in stages]


def test_offset_predictors_start_at_zero_everywhere_or_at_full_resolution():
    assert not any(_offset_kernels("base"))
    assert _offset_kernels("released") == [False, True, True, True, False]


def test_initial_scales():
    he = np.sqrt(2 / 1.04)
    for variant, encoder, denoiser, tail in (
        ("base", he / np.sqrt(9 * 64), 0.1 * he / np.sqrt(9 * 64), 0.01 * he / np.sqrt(72)),
        ("released", 0.02, 0.02, 0.02),
    ):
        params = _shapes(variant)[0]["params"]
        first = next(iter(params["frame_encoder"].values()))
        assert first["conv1_2"]["kernel"].std() == pytest.approx(encoder, rel=0.03)
        net = params["mentor_net"]
        last = net["denoiser"]["denoiser"]["conv4"]["kernel"]
        assert last.std() == pytest.approx(denoiser, rel=0.1)
        assert net["unet"]["up_large_tail2"]["kernel"].std() == pytest.approx(tail, rel=0.2)


def _aligned(**fields):
    """Match between random features, through the network's own fields."""
    sizes = dict(channels=(4, 4, 4), width=8, n_heads=2, n_groups=1, n_blocks=2, n_offset_groups=2)
    model = KGMgT(**sizes, **fields)
    query, key = jax.random.normal(jax.random.key(0), (2, 1, 16, 16, 4))
    values = tuple(jnp.zeros((1, 16 * f, 16 * f, 4)) for f in (4, 2))
    target = Features(query, query, (*values, key))
    reference = Features(key, key, (*values, key))
    align = lambda bound: bound.mentor_net._align(target, reference)  # noqa: E731
    return jax.jit(lambda: model.apply({"params": {}}, method=align))()[2], key


def test_matching_reaches_four_cells_or_everywhere():
    local, everywhere = _aligned()[0], _aligned(search_radius=None)[0]
    assert float(jnp.max(jnp.abs(local.tap_flow))) == 4
    assert float(jnp.max(jnp.abs(everywhere.tap_flow))) > 4


def test_flow_is_whole_or_expected_under_a_learned_temperature():
    assert bool(jnp.all((flow := _aligned()[0].tap_flow) == jnp.round(flow)))
    sizes = dict(channels=(4, 4, 4), width=4, n_heads=2, n_groups=1, n_blocks=2, n_offset_groups=1)
    model = KGMgT(**sizes, rect_window=None, flow="soft", consistency="none")
    frame = jax.ShapeDtypeStruct((1, 32, 32), np.complex64)
    params = initialise(model, 0, frame, frame, frame)["params"]
    for net in ("mentor_net", "learner_net"):
        assert params[net]["log_inverse_temperature"].shape == ()
        assert "log_inverse_temperature" not in _shapes("base")[0]["params"][net]


@pytest.mark.parametrize(("warp_flow", "moved"), [("centred", 1), ("corner", 0)])
def test_warp_takes_the_flow_of_the_patch_s_centre_or_corner(warp_flow, moved):
    aligned, value = _aligned(warp_flow=warp_flow)
    flow = jnp.roll(aligned.tap_flow[:, :, :, 0], (moved, moved), (1, 2))  # tap 0 is the corner's
    np.testing.assert_array_equal(aligned.warped, warp(value, flow))


@pytest.mark.parametrize("flow", ["argmax", "soft"])
def test_alignment_has_the_fields_of_the_network_and_single_precision(flow, monkeypatch):
    seen = []

    def record(match, values, *, warp_flow, smooth=False):
        seen.append((warp_flow, smooth, match.flow.dtype, match.similarity.dtype))
        return align(match, values, warp_flow=warp_flow, smooth=smooth)

    monkeypatch.setattr("kgmgt_jax.models.kgmgt.align", record)
    sizes = dict(channels=(4, 4, 4), width=4, n_heads=2, n_groups=1, n_blocks=2, n_offset_groups=1)
    fields = dict(flow=flow, warp_flow="corner", dtype="bfloat16", consistency="none")
    model = KGMgT(**sizes, **fields, rect_window=None)
    frame = jax.ShapeDtypeStruct((1, 32, 32), np.complex64)
    jax.eval_shape(model.init, jax.random.key(0), frame, frame, frame)
    assert seen == 2 * [("corner", flow == "soft", jnp.float32, jnp.float32)]


@pytest.mark.parametrize(
    ("fields", "kept"),
    [({"consistency": "hard"}, 1.0), ({"consistency": "soft"}, 10 / 11), ({}, 0.0)],
)
def test_measured_samples_are_kept_averaged_or_ignored(fields, kept):
    """The share of the measurement in the measured samples, after one iteration that adds 0."""
    module = UnrolledDenoiser(n_iterations=1, channels=2, **({"consistency": "none"} | fields))
    frame = jax.random.normal(jax.random.key(0), (1, 8, 8)) + 0j
    measurement = Measurement(jnp.ones((1, 1, 8, 8), frame.dtype), jnp.ones((1, 8, 8)))
    variables = module.init(jax.random.key(1), frame, measurement, train=False)
    last = variables["params"]["denoiser"]["conv4"]
    last.update(jax.tree.map(jnp.zeros_like, last))
    image = module.apply(variables, frame, measurement, train=False)
    want = kept * measurement.kspace[:, 0] + (1 - kept) * fft2c(frame)
    np.testing.assert_allclose(fft2c(image), want, atol=1e-5)


def test_solver_differs_for_several_coils():
    keys = jax.random.split(jax.random.key(0), 3)
    frame = jax.random.normal(keys[0], (1, 8, 8)) + 0j
    sens = jax.random.normal(keys[1], (1, 2, 8, 8)) + 0j
    mask = (jax.random.uniform(keys[2], (1, 8, 8)) < 0.5).astype(jnp.float32)
    measurement = Measurement(mask[:, None] * fft2c(sens), mask, sens)
    images = []
    for solver in ("gradient", "cg"):
        fields = {"n_iterations": 1, "channels": 2, "consistency": "soft", "solver": solver}
        module = UnrolledDenoiser(**fields)
        variables = module.init(jax.random.key(1), frame, measurement, train=False)
        images.append(module.apply(variables, frame, measurement, train=False))
    assert float(jnp.max(jnp.abs(images[0] - images[1]))) > 1e-3


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_denoiser_ends_linear_or_in_batch_norm_and_lrelu(norm):
    module, x = Denoiser(4, norm), jax.random.normal(jax.random.key(0), (2, 8, 8, 2))
    variables = initialise(module, 0, x, train=False)
    assert ("batch_stats" in variables) == (norm == "batch")
    y = module.apply(variables, x, train=False)
    kernel = variables["params"]["conv4"]["kernel"]
    variables["params"]["conv4"]["kernel"] = -kernel
    negated = module.apply(variables, x, train=False)
    assert np.allclose(negated, -y, atol=1e-7) == (norm == "none")


def _score(image, **fields):
    module = Critic(2, 4, **fields)
    variables = initialise(module, 0, image)
    return module.apply(variables, image, train=True, mutable=["batch_stats"])[0]


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_critic_judges_samples_alone_or_together(norm):
    image = jax.random.normal(jax.random.key(0), (2, 32, 32, 2))
    gradient = jax.jit(jax.grad(lambda x: _score(x, norm=norm)[0]))(image)
    assert bool(jnp.any(gradient[1] != 0)) == (norm == "batch")
    assert bool(jnp.any(gradient[0] != 0))


def test_critic_s_score_is_free_or_a_probability():
    image = 1e4 * jax.random.normal(jax.random.key(0), (1, 32, 32, 2))
    free, probability = _score(image), _score(image, sigmoid=True)
    np.testing.assert_allclose(probability, jax.nn.sigmoid(free), rtol=1e-5)
    assert float(jnp.abs(free[0])) > 1


def test_weights_of_the_losses_are_the_table_s():
    config = get_config("base")
    assert config.loss.gradient_penalty == get_config("released").loss.gradient_penalty == 10.0
    assert config.loss.perceptual == 1e-4 and config.loss.vgg19 == ""


def test_learning_rate_warms_up_and_decays_to_a_hundredth():
    config = get_config("base").optimizer
    assert config.learning_rate == 1e-4
    optimizer = make_optimizer(config.learning_rate, n_steps=20, warmup=2)
    state, sizes = optimizer.init(jnp.ones(())), []
    for _ in range(21):
        update, state = optimizer.update(jnp.ones(()), state)
        sizes.append(-float(update))
    assert max(sizes) == pytest.approx(1e-4, rel=1e-3) and sizes[0] == 0
    assert sizes[-1] == pytest.approx(1e-6, rel=1e-2)


def test_soft_flow_has_the_exponential_of_its_parameter(monkeypatch):
    sizes = dict(channels=(4, 4, 4), width=4, n_heads=2, n_groups=1, n_blocks=2, n_offset_groups=1)
    model = KGMgT(**sizes, rect_window=None, flow="soft", consistency="none")
    frame = jnp.zeros((1, 32, 32), jnp.complex64)
    variables = jax.tree.map(jnp.asarray, initialise(model, 0, frame, frame, frame))
    variables["params"]["mentor_net"]["log_inverse_temperature"] = jnp.log(7.0)

    def stop(query, key, inverse_temperature, **_):
        raise StopIteration(float(inverse_temperature))

    monkeypatch.setattr("kgmgt_jax.models.kgmgt.soft_match", stop)
    with pytest.raises(StopIteration) as stopped:
        model.apply(variables, frame, frame, frame)
    assert stopped.value.value == pytest.approx(7)
