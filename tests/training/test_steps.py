"""One update of generator and critic: what it changes, and by how much."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from jax.tree_util import Partial

from kgmgt_jax.losses import critic_loss, gradient_penalty, points_between
from kgmgt_jax.models.initialisation import constant
from kgmgt_jax.mri.fourier import to_channels
from kgmgt_jax.training import parallel
from kgmgt_jax.training.accumulation import gradient_by_parts, map_by_parts
from kgmgt_jax.training.objectives import CriticLoss, GeneratorLoss
from kgmgt_jax.training.state import create_state
from kgmgt_jax.training.steps import apply_model, make_critic_step, make_generator_step
from kgmgt_jax.training.update import make_joint, make_steps
from kgmgt_jax.types import Reconstruction
from tests.training.small import random_batch
from tests.training.toy import TOY, Convolution, Score, ffts_of, last_gradient, sgd, toy_config

BATCH = random_batch(4)


def _state(model, optimizer=None):
    optimizers = (optimizer or sgd(),) * 2
    return create_state(model, Score(), *optimizers, seed=0)


@functools.cache
def _run(network="generator", *, norm=False, dtype=None, **train):
    """State before and after a step, and its metrics."""
    model, config = Convolution(norm, dtype), toy_config(**train)
    state = _state(model)
    steps = make_steps(config, model, Score(), (sgd(), sgd()))
    after, metrics = jax.jit(steps[network == "critic"])(state, BATCH)
    return state, after, metrics


def _norm(leaves):
    return np.sqrt(sum(np.sum(np.square(leaf)) for leaf in leaves))


def _distance(one, other):
    return _norm([a - b for a, b in zip(one, other, strict=True)]) / _norm(one)


def test_generator_step_adds_its_terms():
    _, _, metrics = _run()
    total = metrics["l1"] + 0.5 * metrics["mentor"] + 1e-2 * metrics["adversarial"]
    assert float(metrics["loss"]) == pytest.approx(float(total), rel=1e-5)


def test_reported_norm_is_the_gradient_s():
    _, after, metrics = _run()
    assert float(metrics["gradient_norm"]) == pytest.approx(
        _norm(last_gradient(after.generator)), rel=1e-5
    )


def test_step_moves_its_own_network_only():
    for network, other in (("generator", "critic"), ("critic", "generator")):
        before, after, _ = _run(network)
        jax.tree.map(np.testing.assert_array_equal, getattr(before, other), getattr(after, other))
        moved = [jax.tree.leaves(getattr(s, network).params) for s in (before, after)]
        assert _distance(*moved) > 0
    assert int(_run("generator")[1].step) == 1 and int(_run("critic")[1].step) == 0


def test_critic_step_adds_its_terms():
    _, _, metrics = _run("critic")
    total = -metrics["wasserstein"] + 10.0 * metrics["penalty"]
    assert float(metrics["critic"]) == pytest.approx(float(total), rel=1e-5)


def test_psnr_is_the_mean_over_images_of_their_own_peaks():
    model, config = Convolution(), toy_config()
    batch = dict(BATCH) | {"reference": BATCH["reference"] * np.arange(1, 5)[:, None, None]}
    state = _state(model)
    step, _ = make_steps(config, model, Score(), (sgd(), sgd()))
    _, metrics = jax.jit(step)(state, batch)
    output, _ = apply_model(model, state.generator.variables, batch)
    reference, image = np.abs(batch["reference"]), np.abs(output.image)
    scores = [
        10 * np.log10(r.max() ** 2 / np.mean((r - x) ** 2))
        for r, x in zip(reference, image, strict=True)
    ]
    assert float(metrics["psnr"]) == pytest.approx(np.mean(scores), rel=1e-4)


def test_fakes_are_those_of_the_parameters_in_training_and_images_those_of_their_mean():
    before, _, metrics = _run("critic")
    other = before.replace(ema_params=jax.tree.map(jnp.zeros_like, before.ema_params))
    step = make_steps(toy_config(), *TOY, (sgd(), sgd()))[1]
    assert float(jax.jit(step)(other, BATCH)[1]["critic"]) == float(metrics["critic"])
    assert other.eval_variables["params"] is other.ema_params


def test_every_step_and_purpose_has_random_numbers_of_its_own():
    states = [_run()[0], _run()[1]]
    keys = {jax.random.key_data(s.step_key(i)).tobytes() for s in states for i in range(3)}
    assert len(keys) == 6


def test_every_part_of_a_batch_has_random_numbers_of_its_own():
    def loss(params, model_state, key, batch):
        return params * jax.random.uniform(key) * jnp.mean(batch["x"]), ({}, model_state)

    key, batch = jax.random.key(0), {"x": jnp.ones(4)}
    drawn = np.array([jax.random.uniform(jax.random.fold_in(key, part)) for part in range(2)])
    gradient, _, _ = gradient_by_parts(loss, 2)(jnp.ones(()), {}, key, batch)
    assert float(gradient) == pytest.approx(drawn.mean(), rel=1e-5)
    values = map_by_parts(lambda key, batch: jax.random.uniform(key) * batch["x"], 2)(key, batch)
    np.testing.assert_allclose(values, drawn[[0, 1, 0, 1]], rtol=1e-5)


def test_seeds_start_both_networks_from_other_parameters():
    states = [create_state(*TOY, sgd(), sgd(), seed=seed) for seed in (0, 1)]
    for network in ("generator", "critic"):
        one, other = (jax.tree.leaves(getattr(state, network).params) for state in states)
        assert _distance(one, other) > 0.1


@pytest.mark.parametrize(("most", "decay"), [(0.999, 0.1), (0.05, 0.05)])
def test_average_of_parameters_warms_up(most, decay):
    """To ``most``, from (1 + 0) / (10 + 0)."""
    before, after, _ = _run(ema_decay=most)
    for start, end, mean in zip(
        jax.tree.leaves(before.generator.params),
        jax.tree.leaves(after.generator.params),
        jax.tree.leaves(after.ema_params),
        strict=True,
    ):
        np.testing.assert_allclose(mean, decay * start + (1 - decay) * end, rtol=1e-5, atol=1e-7)


def test_a_batch_that_does_not_divide_into_its_parts_is_refused():
    with pytest.raises(ValueError, match=r"n_parts=3, got x\.shape=\(4,\)"):
        map_by_parts(lambda key, batch: batch["x"], 3)(jax.random.key(0), {"x": jnp.ones(4)})


@pytest.mark.parametrize("network", ["generator", "critic"])
def test_parts_of_a_batch_add_up_to_its_gradient(network):
    _, whole, metrics = _run(network)
    _, parts, same = _run(network, accumulation=2)
    got, want = (last_gradient(getattr(state, network)) for state in (parts, whole))
    assert _distance(want, got) < 1e-5
    for name, value in metrics.items():
        assert float(same[name]) == pytest.approx(float(value), rel=1e-5), name


def test_batch_norm_sees_each_part():
    """Running mean after two parts of two: 0.9 (0.9 m + 0.1 m1) + 0.1 m2 with m = 0."""
    before, after, _ = _run(norm=True, accumulation=2)
    model = Convolution(norm=True)
    means = []
    for part in ([0, 2], [1, 3]):
        examples = {name: array[part] for name, array in BATCH.items()}
        _, state = apply_model(model, before.generator.variables, examples, key=jax.random.key(0))
        means.append(state["batch_stats"]["norm"]["mean"])
    got = after.generator.model_state["batch_stats"]["norm"]["mean"]
    np.testing.assert_allclose(got, 0.9 * means[0] + means[1], rtol=1e-4)


def test_batch_norm_of_the_critic_sees_every_pass_of_both_steps():
    """In the order of the released code: real, fake and between; fake for the generator."""
    model, critic, config = Convolution(), Score(norm=True), toy_config()
    before = create_state(model, critic, sgd(), sgd(), seed=0)
    generator_step, critic_step = make_steps(config, model, critic, (sgd(), sgd()))

    def passes(state, images):
        variables, scores = state.critic.variables, []
        for image in images:
            score, changed = critic.apply(variables, image, train=True, mutable=["batch_stats"])
            variables, scores = variables | changed, [*scores, score]
        return scores, variables["batch_stats"]["norm"]

    output, _ = apply_model(model, before.generator.variables, BATCH)
    real, fake = to_channels(BATCH["reference"]), to_channels(output.image)
    key = jax.random.split(before.step_key(1), 1)[0]
    between = points_between(real, fake, jax.random.uniform(key, (4,), jnp.float32))
    for step, images in ((critic_step, [real, fake, between]), (generator_step, [fake])):
        after, metrics = jax.jit(step)(before, BATCH)
        scores, expected = passes(before, images)
        got = after.critic.model_state["batch_stats"]["norm"]
        for name in ("mean", "var"):
            np.testing.assert_allclose(got[name], expected[name], rtol=1e-4, atol=1e-6)
    assert float(metrics["adversarial"]) == pytest.approx(-float(scores[0].mean()), rel=1e-4)


def test_several_critic_updates_are_updates_on_one_batch():
    """Against three gradient steps written out."""
    before, after, metrics = _run("critic", n_critic=3)
    output, _ = apply_model(Convolution(), before.generator.variables, BATCH)
    real, fake = to_channels(BATCH["reference"]), to_channels(output.image)

    @jax.jit
    def update(params, key):
        def loss(params):
            score = lambda x: Score().apply({"params": params}, x)  # noqa: E731
            alpha = jax.random.uniform(key, (4,), jnp.float32)
            penalty = gradient_penalty(score, real, fake, alpha)
            return critic_loss(score(real), score(fake)) + 10.0 * penalty

        total, gradient = jax.value_and_grad(loss)(params)
        return jax.tree.map(lambda p, g: p - 1e-2 * g, params, gradient), total

    params, totals = before.critic.params, []
    for key in jax.random.split(before.step_key(1), 3):
        params, total = update(params, key)
        totals.append(float(total))
    moved = _norm(jax.tree.leaves(jax.tree.map(jnp.subtract, params, before.critic.params)))
    error = _norm(jax.tree.leaves(jax.tree.map(jnp.subtract, params, after.critic.params)))
    assert error < 1e-4 * moved
    assert float(metrics["critic"]) == pytest.approx(totals[-1], rel=1e-4)
    assert totals[0] > totals[-1]


def _both(joint, state, batch, features=None, *, norm=False, jit=jax.jit, **train):
    """State and metrics after a step of the critic and one of the generator."""
    networks, config = (Convolution(norm), Score(norm)), toy_config(**train)
    config.loss.perceptual = 0.3
    if joint:
        return jit(make_joint(config, *networks, (sgd(), sgd())))(state, batch, features)
    generator_step, critic_step = make_steps(config, *networks, (sgd(), sgd()))
    state, critic_metrics = jit(critic_step)(state, batch)
    state, metrics = jit(generator_step)(state, batch, features)
    return state, metrics | critic_metrics


@pytest.mark.parametrize(
    "options", [{}, {"norm": True}, {"n_critic": 3}, {"frozen": ("frame_encoder",)}], ids=str
)
def test_both_steps_in_one_are_one_after_the_other(options):
    norm = options.get("norm", False)
    state = create_state(Convolution(norm), Score(norm), sgd(), sgd(), seed=0)
    features = Partial(lambda image: {"square": jnp.square(jnp.abs(image))})
    alike = {"xla_cpu_use_fusion_emitters": True}  # without them the two may round differently
    options = options | {"jit": functools.partial(jax.jit, compiler_options=alike)}
    (one, metrics), (two, expected) = (_both(j, state, BATCH, features, **options) for j in (1, 0))
    for network in ("generator", "critic"):
        got, want = (last_gradient(getattr(s, network)) for s in (one, two))
        assert _distance(want, got) < 1e-5
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
    jax.tree.map(close, one, two)
    assert metrics.keys() == expected.keys()
    jax.tree.map(close, metrics, expected)


def test_both_steps_in_one_reconstruct_once():
    state, found = _state(Convolution()), {}
    for joint in (True, False):
        step = functools.partial(_both, joint, state)
        found[joint] = len(list(ffts_of(jax.make_jaxpr(step)(BATCH).jaxpr)))
    assert found[True] == 4 and found[False] == 6  # two more to reconstruct without a gradient


def test_frozen_parts_stay_and_do_not_count():
    before, after, metrics = _run(frozen=("frame_encoder",))
    frozen = [s.generator.params["frame_encoder"] for s in (before, after)]
    jax.tree.map(np.testing.assert_array_equal, *frozen)
    _, free, all_metrics = _run()
    assert 0 < metrics["gradient_norm"] < all_metrics["gradient_norm"]
    rest = [s.generator.params["down_medium_offset"]["kernel"] for s in (after, free)]
    np.testing.assert_allclose(*rest, rtol=1e-6)


def test_frozen_parts_stay_whatever_moments_the_optimiser_has():
    model, config = Convolution(), toy_config(frozen=("frame_encoder",))
    optimizers = (optax.adam(1e-2), sgd())
    free, frozen = (make_steps(c, model, Score(), optimizers)[0] for c in (toy_config(), config))
    before, _ = jax.jit(free)(_state(model, optax.adam(1e-2)), BATCH)
    after, _ = jax.jit(frozen)(before, BATCH)
    held = [s.generator.params["frame_encoder"] for s in (before, after)]
    jax.tree.map(np.testing.assert_array_equal, *held)
    moved = [s.generator.params["down_medium_offset"]["kernel"] for s in (before, after)]
    assert np.abs(moved[0] - moved[1]).min() > 0


def test_frozen_parts_keep_their_running_statistics():
    for frozen in ((), ("norm",)):
        before, after, _ = _run(norm=True, frozen=frozen)
        means = [s.generator.model_state["batch_stats"]["norm"]["mean"] for s in (before, after)]
        assert np.array_equal(*means) == bool(frozen)


def test_unknown_frozen_part_is_refused():
    with pytest.raises(ValueError, match=r"got \['encoder'\]"):
        _run(frozen=("encoder",))


def test_perceptual_features_see_both_images_at_once():
    model, calls = Convolution(), []

    def features(image):
        calls.append(image.shape)
        return {"square": jnp.square(jnp.abs(image))}

    state = _state(model)
    step = make_generator_step(model, GeneratorLoss(perceptual=2.0), sgd(), ema_decay=0.0)
    _, metrics = jax.jit(step)(state.replace(critic=None), BATCH, Partial(features))
    assert calls == [(8, 32, 32)]
    output, _ = apply_model(model, state.generator.variables, BATCH)
    difference = jnp.square(jnp.abs(output.image)) - jnp.square(jnp.abs(BATCH["reference"]))
    want = np.mean([np.linalg.norm(d) for d in difference])
    assert float(metrics["perceptual"]) == pytest.approx(want, rel=1e-5)
    assert float(metrics["loss"]) == pytest.approx(
        float(metrics["l1"] + 2 * metrics["perceptual"]), rel=1e-5
    )


def test_critic_step_without_a_critic_is_refused():
    state = _state(Convolution())
    joint = make_joint(toy_config(), *TOY, (sgd(), sgd()))
    for step in (make_critic_step(Convolution(), CriticLoss(Score(), 10.0), sgd()), joint):
        with pytest.raises(ValueError, match="no critic"):
            step(state.replace(critic=None), BATCH)


def test_state_is_donated_and_its_source_is_not():
    state, mesh = _state(Convolution()), parallel.make_mesh(1)
    step, _ = make_steps(toy_config(), *TOY, (sgd(), sgd()))
    placed = parallel.replicate(state, mesh)
    parallel.jit_step(step, mesh, state)(placed, parallel.put_batch(BATCH, mesh))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(placed.generator.params))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(state))


class _Echo(nn.Module):
    """The frames as they came, and noise on the image of a size that is a parameter."""

    @nn.compact
    def __call__(self, target, preceding, succeeding, measurement, *, train=False):
        size = self.param("size", constant(1.0), ())
        noise = jax.random.normal(self.make_rng("dropout")) if train else 0.0
        return Reconstruction(target + 2 * preceding + 3 * succeeding + size * noise, preceding)


def test_model_is_given_the_frames_in_their_order():
    output, _ = apply_model(_Echo(), {"params": {"size": jnp.zeros(())}}, BATCH)
    expected = BATCH["target"] + 2 * BATCH["preceding"] + 3 * BATCH["succeeding"]
    np.testing.assert_allclose(output.image, expected, rtol=1e-5)


@pytest.mark.parametrize("joint", [False, True])
def test_stochastic_depth_of_the_generator_is_drawn_anew_in_every_step(joint):
    config, still = toy_config(), optax.set_to_zero()
    networks = _Echo(), Score()
    state = create_state(*networks, still, still, seed=0)
    if joint:
        step = make_joint(config, *networks, (still, still))
    else:
        step = make_steps(config, *networks, (still, still))[0]
    losses = []
    for _ in range(3):
        state, metrics = jax.jit(step)(state, BATCH)
        losses.append(float(metrics["l1"]))
    assert len(set(losses)) == 3


def test_a_step_draws_the_same_whatever_generator_jax_prefers():
    network, still = _Echo(), optax.set_to_zero()
    step = make_steps(toy_config(), network, Score(), (still, still))[0]
    losses = []
    for generator in ("threefry2x32", "rbg"):
        with jax.default_prng_impl(generator):
            state = create_state(network, Score(), still, still, seed=0)
            losses.append(float(jax.jit(step)(state, BATCH)[1]["l1"]))
    assert losses[0] == losses[1]
