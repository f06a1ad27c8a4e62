"""The PyTorch oracle against the arrays stored from the authors' network, at the stated tolerances.

Tolerances are relative to each array's maximum (``fixtures/README.md``); indices and flows are
exact. Everything runs in float32, except where float64 is the subject.
"""

import importlib.util
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.models.fixtures import Fixture, relative_error  # noqa: E402
from tests.oracles import torch_kgmgt as twin  # noqa: E402
from tests.oracles import torch_layers as layers  # noqa: E402

SEEDS = {"net_g": 101, "net_extractor": 102, "net_map": 103, "net_d": 104, "perceptual": 105}
DIRECTIONS_SEED = 999
AGGREGATED = ("down_1", "down_2", "swapped_3", "swapped_2", "swapped_1")
SCALES = ("relu1_1", "relu2_1", "relu3_1")
NULL_BIASES = (".0.bias", ".3.bias")  # before BN, which removes them: their gradient is rounding


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Thousands of small operations: waiting for a busy second core costs more than it gives."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def recipe(fixtures_dir):
    spec = importlib.util.spec_from_file_location("fixture_recipe", fixtures_dir / "recipe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def keys(fixtures_dir):
    return json.loads((fixtures_dir / "state_dict_keys.json").read_text())


@pytest.fixture(scope="module")
def weights(recipe, keys):
    """Recipe weights of a named network."""

    def make(name):
        shapes = {k: v["shape"] for k, v in keys[name].items()}
        drawn = recipe.weights(shapes, SEEDS[name])
        return recipe.tie_extractor(drawn) if name == "net_extractor" else drawn

    return make


@pytest.fixture(scope="module")
def frozen(weights):
    """The two feature networks of the two-pass forward."""
    return [twin.load(name, weights(name)) for name in ("net_extractor", "net_map")]


@pytest.fixture(scope="module")
def generator(weights):
    return twin.load("net_g", weights("net_g"))


def tensor(x, grad=False):
    x = torch.from_numpy(np.array(x))
    return x.requires_grad_() if grad else x


def array(x):
    return x.detach().numpy()


def close(got, want, tolerance):
    assert tuple(got.shape) == want.shape
    assert relative_error(array(got), want) < tolerance


# ---------------------------------------------------------------- state dicts


@pytest.mark.parametrize("name", SEEDS)
def test_state_dict_is_the_release_s(name, keys):
    net = twin.NETS[name]()
    parameters = dict(net.named_parameters())
    got = {
        k: {
            "shape": list(v.shape),
            "dtype": str(v.dtype).removeprefix("torch."),
            "kind": "parameter" if k in parameters else "buffer",
        }
        for k, v in net.state_dict().items()
    }
    assert list(got.items()) == list(keys[name].items())


def test_recipe_weights_have_the_stated_sum(weights):
    drawn = weights("net_g")
    assert len(drawn) == 1304
    total = sum(float(w.astype(np.float64).sum()) for w in drawn.values())
    assert total == pytest.approx(8090.450282, abs=1e-6)


def test_weights_survive_a_round_trip(weights):
    drawn = weights("net_d")
    stored = twin.to_numpy_state_dict(twin.load("net_d", drawn))
    assert all(np.array_equal(stored[k], v) for k, v in drawn.items())


def test_load_names_what_is_missing(weights):
    drawn = weights("net_map")
    del drawn["vgg.vgg_net.conv2_1.bias"]
    with pytest.raises(ValueError, match=r"missing=\['vgg.vgg_net.conv2_1.bias'\]"):
        twin.load("net_map", drawn)


def test_load_names_the_networks_it_knows():
    with pytest.raises(ValueError, match=r"net_extractor.*got name='net_x'"):
        twin.load("net_x", {})


# ---------------------------------------------------------------- critic and losses (g, h, k)


@pytest.mark.parametrize("noise", [None, 0.05])
@pytest.mark.parametrize("case", ["1x16x24", "3x16x16", "1x15x17"])
def test_data_consistency(case, noise, fixtures_dir):
    f = Fixture(fixtures_dir, "g_data_consistency")
    k0, mask = (tensor(f[f"in/{case}/{n}"]).permute(0, 3, 1, 2) for n in ("k0_img", "mask"))
    got = twin.data_consistency(tensor(f[f"in/{case}/x"]), k0, mask, noise)
    close(got, f[f"out/{case}_noise{noise}"], 2e-6)


def critic_pass(critic, f):
    """Losses and gradients in the order of the stored calls."""
    real, fake, alpha = (tensor(f[f"in/{n}"]) for n in ("real", "fake", "alpha"))
    d_real, d_fake = critic(real), critic(fake)
    out = {"d_real": d_real, "d_fake": d_fake}
    out |= {"l_d_real": -d_real.mean(), "l_d_fake": d_fake.mean()}
    out["grad_penalty"] = twin.gradient_penalty(critic, real, fake, alpha)
    out["l_d_total"] = out["l_d_real"] + out["l_d_fake"] + out["grad_penalty"]
    grads = torch.autograd.grad(out["l_d_total"], list(critic.parameters()))
    fake = fake.requires_grad_()
    out["l_g_gan"] = -1e-6 * critic(fake).mean()
    (out["g_fake"],) = torch.autograd.grad(out["l_g_gan"], fake)
    names = [k for k, _ in critic.named_parameters()]
    return out, dict(zip(names, grads, strict=True))


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("size", ["small", "full"])
def test_critic_losses_penalty_and_gradients(size, mode, fixtures_dir, weights):
    f = Fixture(fixtures_dir, f"h_discriminator_{size}")
    drawn, width = (f.weights(), 4) if size == "small" else (weights("net_d"), 32)
    critic = twin.load("net_d", drawn, width=width).train(mode == "train")
    out, grads = critic_pass(critic, f)
    for name, value in out.items():
        close(value, f[f"out/{mode}/{name}"], 4e-4 if name == "g_fake" else 1e-5)
    largest = max(float(g.norm()) for g in grads.values())
    for name, grad in grads.items():
        kind, got = ("grads", grad) if size == "small" else ("grad_norm", grad.norm())
        want = f[f"out/{mode}/{kind}/{name}"]
        null = mode == "train" and name.startswith("conv_block") and name.endswith(NULL_BIASES)
        atol = 1e-5 * largest if null else 4e-4 * np.max(np.abs(want))
        np.testing.assert_allclose(array(got), want, rtol=0, atol=atol, err_msg=name)
    if mode == "train":
        state = twin.to_numpy_state_dict(critic)
        for name, want in f.weights("out/train/stats_after/").items():
            np.testing.assert_allclose(state[name], want, rtol=1e-5, atol=1e-6)


def test_pixel_and_perceptual_losses(fixtures_dir, weights):
    f = Fixture(fixtures_dir, "k_losses")
    net = twin.load("perceptual", weights("perceptual"))
    x, gt = tensor(f["in/x"], True), tensor(f["in/gt"])
    for name, image in (("x", x), ("gt", gt)):
        close(net.features(image), f[f"out/relu5_1_{name}"], 1e-5)
    for name, loss in (("pix", (x - gt).abs().mean()), ("percep", net(x, gt))):
        close(loss, f[f"out/l_{name}"], 1e-5)
        close(torch.autograd.grad(loss, x)[0], f[f"out/g_{name}"], 1e-4)


# ---------------------------------------------------------------- generator (i, j, l)


def check_features(f, prefix, suffix, maps, names, tolerance):
    """Every 16th channel, and the mean and standard deviation of each channel."""
    for name, x in zip(names, maps, strict=True):
        close(x[:, ::16], f[f"{prefix}{suffix}/{name}"], tolerance)
        close(x.mean((2, 3)), f[f"{prefix}stat{suffix}/{name}_mean"], tolerance)
        close(x.std((2, 3), correction=0), f[f"{prefix}stat{suffix}/{name}_std"], tolerance)


@pytest.mark.parametrize("kind", ["kd3", "kd5"])
def test_generator(kind, fixtures_dir, recipe, generator):
    f = Fixture(fixtures_dir, "i_generator_64")
    z = {k: tensor(v) for k, v in recipe.inputs(f.meta["spec"], f.meta["seed_inputs"]).items()}
    motion = layers.match(z["fin"], z["fref"] + z["fin"].roll((1, -2), (2, 3)))
    assert np.array_equal(motion[2].flow, f["in/pre_flow_relu3"])
    maps = (*SCALES, SCALES[1], SCALES[0]) if kind == "kd3" else AGGREGATED
    prior = [z[f"kd_{n}"] for n in maps]
    features = [z[n] for n in SCALES]
    with torch.no_grad():
        y, d = generator.dyn_agg_restore(z["base"], prior, motion, features)
        close(y, f[f"out/{kind}/agg_out"], 1e-4)
        out, _ = generator(z["base"], prior, motion, features)
    close(out, f[f"out/{kind}/net_out"], 1e-4)
    check_features(f, f"out/{kind}/kd", "", d, AGGREGATED, 1e-4)


def test_one_denoiser_iteration(fixtures_dir, generator):
    f = Fixture(fixtures_dir, "i_generator_64")
    base = tensor(f["in/base"])
    close(generator.dw(base) + base, f["out/denoiser_1"], 1e-4)


def test_two_passes(fixtures_dir, generator, frozen):
    f = Fixture(fixtures_dir, "j_two_pass_64")
    frames = [tensor(f[f"in/{n}"]) for n in ("lq", "ref1", "ref2")]
    with torch.no_grad():
        out1, out, aux = twin.two_pass(generator, *frozen, *frames)
    for i in (0, 1):
        motion = aux["motion"][i][2]
        assert np.array_equal(motion.flow, f[f"out/flow_relu3_{i + 1}"])
        close(motion.similarity, f[f"out/sim_relu3_{i + 1}"], 1e-4)
        for k, dense in enumerate(aux["dense"][i], 1):
            close(dense[:, ::32], f[f"out/dense{k}_{i + 1}"], 1e-4)
        check_features(f, "out/vgg", f"_{i + 1}", aux["features"][i], SCALES, 1e-4)
    check_features(f, "out/kd", "_1", aux["d"][0], AGGREGATED, 1e-4)
    close(out1, f["out/out1"], 1e-4)
    close(out, f["out/out"], 1e-4)


def test_two_passes_in_float64_agree_with_float32(fixtures_dir, weights):
    f = Fixture(fixtures_dir, "j_two_pass_64")
    nets = [twin.load(n, weights(n)).double() for n in ("net_g", "net_extractor", "net_map")]
    frames = [tensor(f[f"in/{n}"][:1]).double() for n in ("lq", "ref1", "ref2")]
    with torch.no_grad():
        out = twin.two_pass(*nets, *frames)[1]
    assert out.dtype == torch.float64
    assert relative_error(array(out), f["out/out"][:1]) < 2e-6


def test_two_passes_refuse_a_size_that_needs_padding(generator, frozen):
    x = torch.zeros(1, 2, 64, 48)
    with pytest.raises(ValueError, match=r"multiples of 32, got \(1, 2, 64, 48\)"):
        twin.two_pass(generator, *frozen, x, x, x)


def training_step(f, weights, frozen, **options):
    """Train-mode network, both images and the L1 loss after its backward pass."""
    net = twin.load("net_g", weights("net_g"), **options).train()
    lq, ref1, ref2, gt = (tensor(f[f"in/{n}"]) for n in ("lq", "ref1", "ref2", "gt"))
    out1, out, _ = twin.two_pass(net, *frozen, lq, ref1, ref2)
    loss = (out - gt).abs().mean()
    loss.backward()
    return net, out1, out, loss


@pytest.mark.parametrize("checkpoint_bodies", [False, True])
def test_training_step(checkpoint_bodies, fixtures_dir, recipe, weights, frozen):
    f = Fixture(fixtures_dir, "l_train_step_64")
    options = {"drop_path": 0.0, "checkpoint_bodies": checkpoint_bodies}
    net, out1, out, loss = training_step(f, weights, frozen, **options)
    for name, value in (("loss", loss), ("out1", out1), ("out", out)):
        close(value, f[f"out/{name}"], 1e-5)
    grads = {k: array(p.grad).astype(np.float64) for k, p in net.named_parameters()}
    assert sorted(grads) == f.meta["keys"]
    directions = recipe.directions(
        {k: g.shape for k, g in twin.to_numpy_state_dict(net).items()}, DIRECTIONS_SEED
    )
    for i, name in enumerate(f.meta["keys"]):
        grad, norm = grads[name], f["out/g_norm64"][i]
        scale = 1e-2 if norm < 1e-12 else norm  # a bias before BN: only rounding is left of it
        head = np.pad(grad.ravel()[:8], (0, max(0, 8 - grad.size)))
        projection = np.sum(grad * directions[name])
        assert abs(np.linalg.norm(grad) - norm) < 5e-3 * scale, name
        assert abs(projection - f["out/g_proj64"][i]) < 2e-2 * scale, name
        assert np.max(np.abs(head - f["out/g_head"][i])) < 5e-3 * scale, name
    state = twin.to_numpy_state_dict(net)
    for name, want in f.weights("out/bn_after/").items():
        np.testing.assert_allclose(state[name], want, rtol=1e-5, atol=1e-6)


def test_checkpointed_bodies_run_again_in_the_backward_pass():
    calls = {}
    for checkpointed in (False, True):
        net = twin.UNet(32, 0.0, checkpointed).train()
        net.down_body_large.register_forward_pre_hook(
            lambda *_, key=checkpointed: calls.update({key: calls.get(key, 0) + 1})
        )
        net.body("down_body_large", torch.randn(1, 16, 8, 8, requires_grad=True)).sum().backward()
    assert calls == {False: 1, True: 2}


@pytest.mark.parametrize("name", ["net_extractor", "net_map", "perceptual"])
def test_feature_networks_are_frozen_but_pass_gradients(name):
    net = twin.NETS[name]()
    assert not any(p.requires_grad for p in net.parameters())
    x = torch.randn(1, 2, 32, 32, requires_grad=True)
    y = net(x) if name == "net_map" else net(x, torch.zeros_like(x))
    (y if name == "perceptual" else y[0].sum()).backward()
    assert x.grad.abs().max() > 0
