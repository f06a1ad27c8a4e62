"""The released critic against the oracle's arrays (fixture h): scores, losses, gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.interop.torch_names import critic_entries, from_state_dict, to_state_dict
from kgmgt_jax.losses import adversarial_loss, critic_loss, gradient_penalty
from kgmgt_jax.models.critic import Critic
from kgmgt_jax.models.initialisation import initialise
from tests.models.fixtures import Fixture, nchw, nhwc, relative_error
from tests.models.released import state_dict

ENTRIES = list(critic_entries())
FORWARD, GRADIENT = 1e-5, 4e-4
WIDTH = {"small": 4, "full": 32}
BEFORE_NORM = (".0.bias", ".3.bias")  # batch norm removes these biases: no gradient in training
ADVERSARIAL, PENALTY = 1e-6, 10.0  # weights of the stored losses


@functools.cache
def _compiled(width: int, train: bool):
    """The stored calls in their order: D(real), D(fake), penalty, D(fake) for the generator."""
    critic = Critic(width=width, norm="batch", sigmoid=True)

    def score(params, stats, image):
        variables = {"params": params, "batch_stats": stats}
        y, changed = critic.apply(variables, image, train=train, mutable=["batch_stats"])
        return y, changed["batch_stats"]

    def critic_losses(params, stats, real, fake, alpha):
        d_real, stats = score(params, stats, real)
        d_fake, stats = score(params, stats, fake)
        penalty = gradient_penalty(lambda z: score(params, stats, z)[0], real, fake, alpha)
        _, stats = score(params, stats, alpha.reshape(-1, 1, 1, 1) * (real - fake) + fake)
        out = {"d_real": d_real, "d_fake": d_fake, "grad_penalty": PENALTY * penalty}
        out |= {"l_d_real": -jnp.mean(d_real), "l_d_fake": jnp.mean(d_fake)}
        out["l_d_total"] = critic_loss(d_real, d_fake) + out["grad_penalty"]
        return out["l_d_total"], (out, stats)

    def generator_loss(fake, params, stats):
        y, stats = score(params, stats, fake)
        return ADVERSARIAL * adversarial_loss(y), stats

    @jax.jit
    def calls(params, stats, real, fake, alpha):
        (_, (out, stats)), grads = jax.value_and_grad(critic_losses, has_aux=True)(
            params, stats, real, fake, alpha
        )
        (out["l_g_gan"], stats), out["g_fake"] = jax.value_and_grad(generator_loss, has_aux=True)(
            fake, params, stats
        )
        return out, grads, stats

    return calls


CASES = [
    pytest.param((size, mode), id=f"{size}-{mode}", marks=[pytest.mark.slow] * (size == "full"))
    for size in WIDTH
    for mode in ("eval", "train")
]


@pytest.fixture(scope="module", params=CASES)
def case(request, fixtures_dir):
    """Fixture, its section, and our values, parameter gradients and running statistics."""
    size, mode = request.param
    fixture = Fixture(fixtures_dir, f"h_discriminator_{size}")
    weights = fixture.weights() if size == "small" else state_dict(fixtures_dir, "net_d")
    variables = from_state_dict(ENTRIES, weights)
    real, fake = nhwc(fixture["in/real"]), nhwc(fixture["in/fake"])
    alpha = fixture["in/alpha"].reshape(-1)
    calls = _compiled(WIDTH[size], mode == "train")
    arguments = (variables["params"], variables["batch_stats"], real, fake, alpha)
    return fixture, size, mode, jax.device_get(calls(*arguments))


def test_scores_and_losses_equal_reference(case):
    fixture, _, mode, (out, _, _) = case
    for name in ("d_real", "d_fake"):
        assert relative_error(out[name], fixture[f"out/{mode}/{name}"].reshape(-1)) < FORWARD
    names = ["l_d_real", "l_d_fake", "l_d_total", "l_g_gan", "grad_penalty"]
    for name in names:
        assert relative_error(out[name], fixture[f"out/{mode}/{name}"]) < FORWARD, name
    assert relative_error(nchw(out["g_fake"]), fixture[f"out/{mode}/g_fake"]) < GRADIENT


def test_gradients_equal_reference(case):
    fixture, size, mode, (_, grads, _) = case
    params = [e for e in ENTRIES if e.path[0] == "params"]
    grads = to_state_dict(params, {"params": grads})
    largest = max(np.linalg.norm(g) for g in grads.values())
    for name, got in grads.items():
        kind = "grads" if size == "small" else "grad_norm"
        got = got if size == "small" else np.linalg.norm(got)
        want = fixture[f"out/{mode}/{kind}/{name}"]
        gone = mode == "train" and name.startswith("conv_block") and name.endswith(BEFORE_NORM)
        atol = 1e-5 * largest if gone else GRADIENT * np.max(np.abs(want))
        np.testing.assert_allclose(got, want, rtol=0, atol=atol, err_msg=name)


def test_running_statistics_equal_reference(case):
    fixture, _, mode, (_, _, stats) = case
    kept = [e for e in ENTRIES if e.path[0] == "batch_stats"]
    stats = to_state_dict(kept, {"batch_stats": stats})
    if mode == "eval":
        stored = fixture.weights() or None
        for name in stats if stored else ():
            np.testing.assert_array_equal(stats[name], stored[name])
        return
    stored = fixture.weights("out/train/stats_after/")
    names = [name for name in stored if not name.endswith("num_batches_tracked")]
    assert names
    for name in names:
        assert relative_error(stats[name], stored[name]) < FORWARD, name


def test_every_layer_starts_as_convolutions_do():
    """He with the gain of LReLU(0.2): variance 2 / (1.04 fan_in), also of the 1 x 1 layers."""
    params = initialise(Critic(), 0, jnp.zeros((1, 32, 32, 2)))["params"]
    for name, layer in params.items():
        fan_in = np.prod(layer["kernel"].shape[:-1])
        expected = np.sqrt(2 / 1.04 / fan_in)
        assert np.sqrt(np.mean(layer["kernel"] ** 2)) == pytest.approx(expected, rel=0.2), name
