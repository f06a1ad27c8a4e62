"""``base`` against its PyTorch oracle, in float64, with every parameter drawn at random.

Tolerances are relative to each array's largest magnitude. Float64 leaves 1e-15 of it, except behind
RW-MSA: heads of two channels are normalised, which near zero is ill-conditioned, and their cosines
are multiplied by up to 100 (7e-7 seen). The smallest mistake tried in a network changed its image
by 2e-3.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from configs.kgmgt import get_config  # noqa: E402
from kgmgt_jax.models.critic import Critic  # noqa: E402
from kgmgt_jax.models.encoder import VGG, FrameEncoder, vgg19_features  # noqa: E402
from kgmgt_jax.models.enforcement import enforce  # noqa: E402
from kgmgt_jax.models.kgmgt import KGMgT  # noqa: E402
from kgmgt_jax.models.matching import best_match  # noqa: E402
from kgmgt_jax.models.motion import align  # noqa: E402
from kgmgt_jax.training.objectives import CriticLoss, GeneratorLoss  # noqa: E402
from kgmgt_jax.types import Measurement, Reconstruction  # noqa: E402
from tests.models.fixtures import nchw, relative_error  # noqa: E402
from tests.oracles import torch_base as twin  # noqa: E402
from tests.oracles import torch_base_layers as layers  # noqa: E402

SMALL = {
    "channels": (8, 16, 32),
    "width": 8,
    "n_heads": 2,
    "n_groups": 1,
    "n_blocks": 2,
    "n_offset_groups": 2,
    "denoiser_channels": 8,
    "n_iterations": 2,
}
CASES = {  # fields, height and width, coils
    "base": ({}, (33, 45), 0),
    "soft_flow": (
        {"flow": "soft", "rect_window": None, "window": 4, "n_groups": 2}
        | {"consistency": "soft", "solver": "cg"},
        (40, 24),
        2,
    ),
    "global": ({"attention": "global", "alignment": False, "tie_weights": True}, (24, 40), 3),
    "rectangles": (
        {"square_window": False, "rect_window": ((12, 4), (4, 20), (8, 2))}
        | {"alignment": False, "knowledge": False, "consistency": "soft"},
        (30, 32),
        0,
    ),
}
PERCEPTUAL_LAYERS = ("relu2_2", "relu5_1")


@pytest.fixture(autouse=True, scope="module")
def float64_on_one_thread():
    """Double precision; a busy second core costs torch more than it gives."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with jax.enable_x64(True):
        yield
    torch.set_num_threads(before)


def tensors(tree):
    return jax.tree.map(lambda x: torch.from_numpy(np.array(x)), tree)


def arrays(tree):
    return jax.tree.map(jnp.asarray, tree)


def complex_normal(rng, *shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def drawn(shapes, seed=0):
    """Parameters none of which hides another: layers keep the scale of what passes them."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        names = [key.key for key in path]
        x = rng.standard_normal(leaf.shape)
        if names[-1] == "kernel":
            stacked = ("blocks" in names) + ("groups" in names)  # axes before those of the kernel
            x = x / np.sqrt(np.prod(leaf.shape[stacked:-1]))
            return 0.3 * x if "conv_offset_mask" in names else x  # offsets of 3 pixels, not of 10
        ranges = {"logit_scale": np.log((5, 150)), "step": (0.3, 1.5)}
        ranges["log_inverse_temperature"] = np.log((15, 25))
        if names[-1] in ranges:
            return rng.uniform(*ranges[names[-1]], leaf.shape)
        return {"scale": 1 + 0.3 * x, "bias": 0.2 * x}.get(names[-1], x)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def frames_and_measurement(size, coils, batch=1):
    """A target, neighbours that are partly the target moved, and unrelated k-space."""
    rng = np.random.default_rng(1)
    target, *others = (complex_normal(rng, batch, *size) for _ in range(3))
    moved = [np.roll(target, move, (1, 2)) for move in ((3, -1), (-4, 6))]
    neighbours = [0.8 * m + 0.5 * other for m, other in zip(moved, others, strict=True)]
    mask = (rng.uniform(size=(batch, *size)) < 0.4).astype(float)
    mask[:, size[0] // 2, size[1] // 2] = 0  # or nothing would be seen of the denoiser's last bias
    kspace = mask[:, None] * complex_normal(rng, batch, max(coils, 1), *size)
    if not coils:
        return [target, *neighbours], (kspace, mask, None)
    sens = complex_normal(rng, batch, coils, *size)
    sens /= np.linalg.norm(sens, axis=1, keepdims=True)
    return [target, *neighbours], (kspace, mask, sens)


@functools.cache
def network(name):
    """A case's fields and parameters, the compiled network, and its inputs."""
    fields, size, coils = CASES[name]
    fields = SMALL | fields
    frames, measurement = frames_and_measurement(size, coils)
    model = KGMgT(**fields, remat=False)
    inputs = (*frames, Measurement(*measurement))
    shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)
    return fields, drawn(shapes), jax.jit(model.apply), frames, measurement


def both(name, change=lambda params, frames: (params, frames)):
    """Mentor and learner images of the package, and of the oracle."""
    fields, variables, apply, frames, measurement = network(name)
    params, frames = change(variables["params"], frames)
    got = apply({"params": params}, *frames, Measurement(*measurement))
    measured = twin.Measurement(*tensors(measurement))
    with torch.no_grad():
        want = twin.reconstruct(tensors(params), *tensors(frames), measured, **fields)
    return (got.mentor, got.image), [x.numpy() for x in want]


def close(got, want, tolerance=1e-5):
    assert got.dtype == want.dtype
    assert relative_error(got, want) < tolerance


# ---------------------------------------------------------------- the network


def test_fields_of_base_are_the_configuration_s():
    model = get_config("base").model
    assert {name: model[name] for name in twin.BASE} == twin.BASE


@pytest.mark.parametrize("name", CASES)
def test_mentor_and_learner(name):
    (mentor, learner), want = both(name)
    close(mentor, want[0])
    close(learner, want[1])


def test_of_equal_matches_the_first_is_taken():
    """Queries of a black target are zero, and so are all its similarities."""

    def black(params, frames):
        encoder = jax.tree_util.tree_map_with_path(
            lambda path, x: np.zeros_like(x) if path[-1].key == "bias" else x,
            params["frame_encoder"],
        )
        return {**params, "frame_encoder": encoder}, [np.zeros_like(frames[0]), *frames[1:]]

    (mentor, _), want = both("base", black)
    close(mentor, want[0])


@pytest.mark.parametrize("name", ["rectangles", "soft_flow"])
def test_every_parameter_matters(name):
    """Else a mistake behind one that is zero, or far too small, would pass."""
    fields, variables, _, frames, measurement = network(name)
    params = tensors(variables["params"])
    leaves = jax.tree.leaves_with_path(params)
    for _, leaf in leaves:
        leaf.requires_grad_()
    measured = twin.Measurement(*tensors(measurement))
    _, learner = twin.reconstruct(params, *tensors(frames), measured, **fields)
    learner.abs().square().mean().backward()
    for path, leaf in leaves:
        change = leaf.grad.norm() * leaf.detach().norm()  # of the loss, if the leaf doubles
        assert change > 1e-5, jax.tree_util.keystr(path)


def test_frame_encoder():
    image = jnp.asarray(np.random.default_rng(0).standard_normal((2, 16, 24, 2)))
    encoder = FrameEncoder(channels=SMALL["channels"])
    variables = drawn(jax.eval_shape(encoder.init, jax.random.key(0), image))
    got = encoder.apply(variables, image)
    query, values = layers.encode(tensors(variables["params"]["encoder"]), tensors(nchw(image)))
    for ours, theirs in zip(
        (got.query, got.key, *got.values), (query, query, *values), strict=True
    ):
        close(nchw(ours), theirs.numpy(), 1e-12)


@pytest.mark.parametrize(
    ("radius", "warp_flow"), [(None, "centred"), (1, "corner"), (4, "centred")]
)
def test_alignment(radius, warp_flow):
    rng = np.random.default_rng(0)
    h, w = 6, 9
    query, key = rng.standard_normal((2, 2, h, w, 5))
    values = [rng.standard_normal((2, f * h, f * w, 3)) for f in (4, 2, 1)]

    @jax.jit
    def ours(query, key, values):
        match = best_match(query, key, search_radius=radius)
        return align(match, tuple(values), warp_flow=warp_flow)

    fields = {"flow": "argmax", "search_radius": radius, "warp_flow": warp_flow}
    wanted = layers.match({}, *tensors([nchw(query), nchw(key)]), fields)
    for got, want, value in zip(ours(query, key, values), wanted, values, strict=True):
        warped = layers.warp(tensors(nchw(value)), want.warp)
        close(nchw(got.warped), warped.numpy(), 1e-12)
        close(jnp.moveaxis(got.tap_flow, 3, 1), want.taps.numpy(), 1e-12)
        close(nchw(got.similarity), want.similarity.numpy(), 1e-12)


@pytest.mark.parametrize("coils", [0, 1, 3])
@pytest.mark.parametrize(
    ("consistency", "solver"),
    [("none", "gradient"), ("hard", "gradient"), ("soft", "gradient"), ("soft", "cg")],
)
def test_data_consistency(consistency, solver, coils):
    (image, *_), measurement = frames_and_measurement((9, 12), coils, batch=2)
    strength, fields = np.array([0.7]), {"consistency": consistency, "solver": solver}
    given = arrays((image, Measurement(*measurement), strength[0]))
    got = enforce(*given, **fields)
    p = dict.fromkeys(("step", "log_noise_weight"), torch.from_numpy(strength))
    measured = twin.Measurement(*tensors(measurement))
    close(got, twin.consistent(p, tensors(image), measured, 0, fields).numpy(), 1e-12)


@pytest.mark.slow
def test_base_at_its_full_width():
    frames, measurement = frames_and_measurement((64, 64), 0)
    inputs = (*frames, Measurement(*measurement))
    model = KGMgT(**{name: get_config("base").model[name] for name in twin.BASE})
    variables = drawn(jax.eval_shape(model.init, jax.random.key(0), *inputs))
    got = jax.jit(model.apply)(variables, *inputs)
    measured = twin.Measurement(*tensors(measurement))
    with torch.no_grad():
        mentor, learner = twin.reconstruct(tensors(variables["params"]), *tensors(frames), measured)
    close(got.mentor, mentor.numpy())
    close(got.image, learner.numpy())


# ---------------------------------------------------------------- losses


@pytest.fixture(scope="module")
def images():
    """Reference and reconstruction, whose last sample is by far the worst."""
    rng = np.random.default_rng(2)
    reference = complex_normal(rng, 3, 16, 24)
    error = np.array([0.1, 0.3, 3])[:, None, None]
    return reference, reference + error * complex_normal(rng, 3, 16, 24)


@pytest.fixture(scope="module")
def critic():
    model = Critic(width=4, hidden=16)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 16, 24, 2)))
    return model, drawn(shapes)["params"]


def test_critic_s_loss_and_its_gradient(images, critic):
    model, params = critic
    real, fake = (np.stack((x.real, x.imag), -1) for x in images)
    alpha = np.array([0.2, 0.5, 0.9])
    batch = {"real": real, "fake": fake, "alpha": alpha}
    loss = CriticLoss(model, get_config("base").loss.gradient_penalty)
    evaluate = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (got, _), slopes = evaluate(params, {}, jax.random.key(0), arrays(batch))
    theirs = jax.tree.map(lambda x: x.requires_grad_(), tensors(params))
    want = twin.critic_loss(theirs, *tensors([nchw(real), nchw(fake), alpha]))
    want.backward()
    assert float(got) == pytest.approx(want.item(), rel=1e-10)
    ours, wanted = jax.tree.leaves(slopes), jax.tree.leaves(theirs)
    wanted = np.concatenate([leaf.grad.numpy().ravel() for leaf in wanted])
    close(jnp.concatenate([leaf.ravel() for leaf in ours]), wanted, 1e-10)


def test_generator_s_loss(images, critic):
    model, params = critic
    reference, image = arrays(images)
    vgg = VGG(last="conv5_1", slope=0.0)
    variables = drawn(jax.eval_shape(vgg.init, jax.random.key(0), jnp.zeros((1, 16, 24, 3))))
    weights = get_config("base").loss
    loss = GeneratorLoss(model, weights.perceptual, weights.adversarial)

    @jax.jit
    def ours(image, variables):
        features = functools.partial(vgg19_features, variables, layers=PERCEPTUAL_LAYERS)
        batch, output = {"reference": reference}, Reconstruction(image, image)
        return loss(output, batch, (arrays(params), {}), features)[0]

    trees = (tensors(variables["params"]), tensors(params))
    want = twin.generator_loss(*trees, *tensors((image, reference)), PERCEPTUAL_LAYERS)
    assert float(ours(image, variables)) == pytest.approx(want.item(), rel=1e-10)
