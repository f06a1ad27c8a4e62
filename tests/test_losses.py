"""Losses against numbers worked out by hand and the reference network's stored ones."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.interop.torch_names import from_state_dict, vgg_entries
from kgmgt_jax.losses import (
    IMAGE_LOSSES,
    KSPACE_LOSSES,
    adversarial_loss,
    critic_loss,
    dssim_loss,
    gradient_penalty,
    l1_loss,
    l2_loss,
    perceptual_loss,
    relative_l1_loss,
    relative_l2_loss,
)
from kgmgt_jax.metrics import evaluate
from kgmgt_jax.models.encoder import VGG, VGG19_LAYERS
from tests.models.fixtures import Fixture, nchw, nhwc, relative_error
from tests.models.released import state_dict


def test_l1_averages_both_parts():
    prediction = jnp.array([[[1 + 2j, 0j]]])
    assert float(l1_loss(prediction, jnp.zeros_like(prediction))) == pytest.approx(0.75)


def test_l2_averages_squares_of_both_parts():
    prediction = jnp.array([[[1 + 2j, 0j]]])
    assert float(l2_loss(prediction, jnp.zeros_like(prediction))) == pytest.approx(1.25)


def _pair_of_images() -> tuple[jax.Array, jax.Array]:
    parts = np.random.default_rng(0).normal(size=(4, 3, 12, 9)).astype(np.float32)
    return jax.lax.complex(parts[0], parts[1]), jax.lax.complex(parts[2], parts[3])


def test_dssim_is_half_of_what_the_magnitudes_score_is_below_one():
    prediction, reference = _pair_of_images()
    turned = prediction * jnp.exp(1j * jnp.float32(0.7))
    scores = evaluate(jnp.abs(reference), jnp.abs(prediction), "frame")["ssim"]
    expected = (1 - float(scores.mean())) / 2
    assert float(dssim_loss(turned, reference)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", IMAGE_LOSSES)
def test_losses_of_images_are_least_with_finite_gradients_at_the_reference(name):
    loss, (other, reference) = IMAGE_LOSSES[name], _pair_of_images()
    reference = reference.at[0].set(0).at[1, :5].set(0)  # background, and a frame of nothing else
    value, gradient = jax.value_and_grad(loss)(reference, reference)
    assert abs(float(value)) < 1e-6 and np.isfinite(gradient).all()
    assert float(loss(other, reference)) > 0.1


def test_relative_losses_are_means_of_each_example_s_own_ratio():
    measured = jnp.array([[[3.0, 0.0], [0.0, 4.0j]], [[0.0, 0.0], [1.0, 1.0]]])[:, None]
    error = jnp.array([[[3.0j, 4.0], [0.0, 0.0]], [[2.0, 2.0], [2.0, 2.0j]]])[:, None]
    l1, l2 = (f(measured + error, measured) for f in (relative_l1_loss, relative_l2_loss))
    assert float(l1) == pytest.approx((7 / 7 + 8 / 2) / 2, rel=1e-6)
    assert float(l2) == pytest.approx((5 / 5 + 4 / 2**0.5) / 2, rel=1e-6)


@pytest.mark.parametrize("name", KSPACE_LOSSES)
def test_losses_of_kspace_are_least_with_finite_gradients_at_what_was_measured(name):
    loss, (other, measured) = KSPACE_LOSSES[name], (x[:, None] for x in _pair_of_images())
    measured = measured.at[0].set(0).at[1, :, :5].set(0)  # an empty example, and lines left out
    value, gradient = jax.value_and_grad(loss)(measured, measured)
    assert float(value) == 0 and np.isfinite(gradient).all()
    assert float(loss(other, measured)) > 0.1
    assert np.isfinite(jax.grad(loss)(other, measured)).all()


@pytest.mark.parametrize("name", KSPACE_LOSSES)
def test_kspace_of_other_shapes_is_refused(name):
    kspace = jnp.zeros((2, 1, 8, 8), jnp.complex64)
    with pytest.raises(ValueError, match="arrays of one shape"):
        inspect.unwrap(KSPACE_LOSSES[name])(kspace, kspace[:1])  # without the type checks of tests


@pytest.mark.parametrize("name", IMAGE_LOSSES)
def test_images_of_other_shapes_are_refused(name):
    image = jnp.zeros((2, 8, 8), jnp.complex64)
    with pytest.raises(ValueError, match="arrays of one shape"):
        inspect.unwrap(IMAGE_LOSSES[name])(image, image[:1])  # without the type checks of tests


def test_features_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match="arrays of one shape"):
        perceptual_loss({"relu1_1": jnp.ones((2, 3))}, {"relu1_1": jnp.ones((1, 3))})


def test_l1_equals_reference(fixtures_dir):
    fixture = Fixture(fixtures_dir, "k_losses")
    x, gt = (jax.lax.complex(a[:, 0], a[:, 1]) for a in (fixture["in/x"], fixture["in/gt"]))
    loss, gradient = jax.value_and_grad(l1_loss)(x, gt)
    assert float(loss) == pytest.approx(float(fixture["out/l_pix"]), rel=2e-6)  # a long sum
    gradient = np.stack([gradient.real, -gradient.imag], axis=1)  # JAX conjugates
    assert relative_error(gradient, fixture["out/g_pix"]) < 1e-6


@pytest.mark.parametrize("layers", [("one",), ("one", "two", "three"), ()])
def test_perceptual_loss_of_other_layers_is_refused(layers):
    maps = {"one": jnp.ones((2, 3)), "two": jnp.ones((2, 3))} if layers else {}
    with pytest.raises(ValueError, match=r"of the same layers, one at least, got \["):
        perceptual_loss(maps, {name: jnp.ones((2, 3)) for name in layers})


def test_perceptual_loss_equals_reference(fixtures_dir):
    fixture = Fixture(fixtures_dir, "k_losses")
    names = VGG19_LAYERS[: VGG19_LAYERS.index("conv5_1") + 1]
    entries = list(vgg_entries("vgg.vgg_net.", ("params",), names))
    variables = from_state_dict(entries, state_dict(fixtures_dir, "perceptual"))

    def features(image):
        maps = VGG(last="conv5_1", slope=0.0).apply(variables, image)
        return {"relu5_1": jax.nn.relu(maps["conv5_1"])}

    def loss(x, gt):
        maps = features(x), features(gt)
        return 1e-4 * perceptual_loss(*maps, per_image=False), maps

    x, gt = nhwc(fixture["in/x"]), nhwc(fixture["in/gt"])
    (value, maps), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(x, gt)
    for got, name in zip(maps, ("x", "gt"), strict=True):
        assert relative_error(nchw(got["relu5_1"]), fixture[f"out/relu5_1_{name}"]) < 1e-5
    assert relative_error(value, fixture["out/l_percep"]) < 1e-5
    assert relative_error(nchw(gradient), fixture["out/g_percep"]) < 1e-4


def test_perceptual_norm_is_taken_per_image():
    a = {"one": jnp.array([[3.0, 4.0], [0.0, 2.0]])}
    b = {"one": jnp.zeros((2, 2))}
    assert float(perceptual_loss(a, b)) == pytest.approx((5 + 2) / 2)
    assert float(perceptual_loss(a, b, per_image=False)) == pytest.approx(np.sqrt(29))


def test_perceptual_loss_is_the_mean_over_layers():
    a = {"one": jnp.array([[3.0, 4.0]]), "two": jnp.array([[[1.0]]])}
    b = {"two": jnp.zeros((1, 1, 1)), "one": jnp.zeros((1, 2))}
    assert float(perceptual_loss(a, b)) == pytest.approx((5 + 1) / 2)


def test_perceptual_loss_does_not_grow_with_the_batch():
    one = {"one": jnp.ones((1, 4))}
    four = {"one": jnp.ones((4, 4))}
    zeros = lambda x: jax.tree.map(jnp.zeros_like, x)  # noqa: E731
    assert float(perceptual_loss(one, zeros(one))) == float(perceptual_loss(four, zeros(four)))


def test_perceptual_gradient_is_finite_where_images_agree():
    gradient = jax.grad(lambda x: perceptual_loss({"one": x}, {"one": jnp.ones((1, 3))}))
    np.testing.assert_array_equal(gradient(jnp.ones((1, 3))), np.zeros((1, 3)))


def test_gradient_penalty_of_a_linear_critic():
    slope = jnp.full((4, 4, 2), 0.5)  # norm 0.5 * sqrt(32)
    score = lambda z: jnp.einsum("bhwc,hwc->b", z, slope)  # noqa: E731
    real, fake = jnp.ones((3, 4, 4, 2)), jnp.zeros((3, 4, 4, 2))
    got = gradient_penalty(score, real, fake, jnp.array([0.0, 0.5, 1.0]))
    assert float(got) == pytest.approx((0.5 * np.sqrt(32) - 1) ** 2, rel=1e-6)


def test_penalty_looks_between_the_pairs():
    score = lambda z: jnp.sum(z**3, axis=(1, 2, 3)) / 3  # gradient z^2  # noqa: E731
    real, fake = jnp.full((1, 1, 1, 2), 3.0), jnp.full((1, 1, 1, 2), 1.0)
    got = gradient_penalty(score, real, fake, jnp.array([0.25]))
    assert float(got) == pytest.approx((np.sqrt(2) * 1.5**2 - 1) ** 2, rel=1e-5)


def test_wasserstein_losses():
    real, fake = jnp.array([1.0, 3.0]), jnp.array([0.0, -1.0])
    assert float(critic_loss(real, fake)) == -2.5
    assert float(adversarial_loss(fake)) == 0.5


def test_layouts_of_the_fixture_are_understood(fixtures_dir):
    x = Fixture(fixtures_dir, "k_losses")["in/x"]
    assert nhwc(x).shape == (2, 64, 64, 2)
