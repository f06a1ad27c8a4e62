"""The released network against an independent PyTorch twin: outputs and every gradient.

Training mode without stochastic depth, 96 x 64, two samples, random weights that go to either side
through the state dict. The last convolution and the denoiser's last batch norm are drawn small, so
that the mentor's image keeps the target's features and the second matching is as clear as the
first: each match beats the second best by more than ``MARGIN``, and no rounding decides one.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from kgmgt_jax.interop.torch_names import from_state_dict, to_state_dict  # noqa: E402
from tests.models.fixtures import relative_error  # noqa: E402
from tests.models.released import (  # noqa: E402
    ENTRIES,
    Compiled,
    Released,
    cast,
    from_image,
    state_dict,
    to_image,
)
from tests.oracles import torch_kgmgt as twin  # noqa: E402

SHAPE, MARGIN = (2, 2, 96, 64), 4e-5
NETS = ("net_g", "net_extractor", "net_map")
OPTIONS = {"drop_path": 0.0, "checkpoint_bodies": True}  # less memory
DAMPED = ("dyn_agg_restore.up_tail_large.2.weight", "dw.nw.13.weight", "dw.nw.13.bias")
NULL = tuple(f"dw.nw.{i}.bias" for i in (0, 3, 6, 9, 12))  # batch norm removes these biases
PARAMETERS = [entry for entry in ENTRIES if entry.path[0] == "params"]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Thousands of small operations: waiting for a busy second core costs more than it gives."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@functools.cache
def _case(folder, seed):
    """Weights by network, three frames, and a cotangent for each of the two images.

    The frames show a random scene that moves by one cell of the matching. The cotangents are
    smooth and of one sign: under noise, gradients of shared parameters nearly cancel, and their
    float32 values tell of little but rounding.
    """
    weights = {net: state_dict(folder, net, offset=1000 * (seed + 1)) for net in NETS}
    for key in DAMPED:
        weights["net_g"][key] = 0.02 * weights["net_g"][key]
    rng = np.random.default_rng(seed)
    b, c, h, w = SHAPE
    scene = rng.standard_normal((b, c, h + 4, w + 4))
    frames = [
        0.5 * scene[:, :, y : y + h, x : x + w] + noise * rng.standard_normal(SHAPE)
        for y, x, noise in ((4, 4, 0.0), (0, 4, 0.05), (4, 0, 0.05))
    ]
    phase = 2 * np.pi * rng.random((2, 2, b, c, 1, 1))
    y, x = np.arange(h)[:, None] / 9, np.arange(w) / 7
    ct = 1 + 0.5 * np.cos(y + phase[0]) * np.sin(x + phase[1])
    return weights, [frame.astype(np.float32) for frame in frames], list(ct)


def _margin(target, reference):
    """Smallest lead of the best match over the second best, of all patches."""
    unit = [torch.nn.functional.normalize(x, dim=1, eps=1e-12) for x in (target, reference)]
    t, r = (torch.nn.functional.unfold(x, 3) for x in unit)
    r = r / (r.norm(dim=1, keepdim=True) + 1e-5)
    corr = t.transpose(1, 2) @ r / (t.norm(dim=1)[..., None] + 1e-5)
    best = corr.topk(2, dim=2).values
    return float((best[..., 0] - best[..., 1]).min())


def _torch_side(folder, seed, dtype):
    """Both images and the gradients by name of the twin, and its margin."""
    weights, frames, ct = _case(folder, seed)
    nets = [
        twin.load(net, weights[net], **(OPTIONS if net == "net_g" else {})).to(dtype)
        for net in NETS
    ]
    nets[0].train()
    for net in nets:
        net.requires_grad_(True)
    frames = [torch.from_numpy(x).to(dtype) for x in frames]
    frames = [x.requires_grad_() for x in frames]
    out1, out, aux = twin.two_pass(*nets, *frames)
    cotangents = [torch.from_numpy(x).to(dtype) for x in ct]
    sum((x * c).sum() for x, c in zip((out1, out), cotangents, strict=True)).backward()
    grads = {k: p.grad for net in nets for k, p in net.named_parameters()}
    grads |= {name: x.grad for name, x in zip(("lq", "ref1", "ref2"), frames, strict=True)}
    margin = min(_margin(*(x.detach() for x in dense)) for dense in aux["dense"])
    images = [x.detach().numpy() for x in (out1, out)]
    return images, {k: g.numpy() for k, g in grads.items()}, margin


@functools.cache
def _parts():
    return Compiled(train=True)


def _jax_side(folder, seed, dtype):
    weights, frames, ct = _case(folder, seed)
    arrays = {k: v for net in NETS for k, v in weights[net].items()}
    variables = cast(from_state_dict(ENTRIES, arrays), dtype)
    frames = [to_image(x.astype(dtype)) for x in frames]
    # d/dRe + i d/dIm is the conjugate of JAX's gradient of a complex input
    ct = [jnp.asarray(to_image(x.astype(dtype))) for x in ct]

    def loss(params, *frames):
        output = Released({**variables, "params": params}, _parts())(*frames, train=True)
        images = (output.mentor, output.image)
        return sum(jnp.sum((jnp.conj(c) * x).real) for x, c in zip(images, ct, strict=True)), images

    argnums = (0, 1, 2, 3)
    (_, images), grads = jax.value_and_grad(loss, argnums, has_aux=True)(
        variables["params"], *frames
    )
    params, *inputs = jax.device_get(grads)
    named = to_state_dict(PARAMETERS, {"params": params})
    named |= {n: from_image(g.conj()) for n, g in zip(("lq", "ref1", "ref2"), inputs, strict=True)}
    return [from_image(x) for x in images], named


@functools.cache
def _oracle(folder, seed):
    """The twin in float64; each match must be clear."""
    images, grads, margin = _torch_side(folder, seed, torch.float64)
    assert margin > MARGIN
    return images, grads


def _l2(got, want):
    return np.linalg.norm(got - want) / np.linalg.norm(want)


def _check_null(grads, want, tolerance):
    """Gradients that should vanish do, against the largest."""
    largest = max(np.linalg.norm(g) for g in want.values())
    for name in NULL:
        assert np.max(np.abs(grads[name])) < tolerance * largest, name


SEEDS = (20, 23, 68)
pytestmark = pytest.mark.slow  # minutes a seed, and several GiB


@pytest.mark.parametrize("seed", SEEDS)
def test_float64_outputs_and_gradients_equal_the_twin_s(fixtures_dir, seed):
    with jax.enable_x64(True):
        images, grads = _jax_side(fixtures_dir, seed, np.float64)
    want_images, want = _oracle(fixtures_dir, seed)
    for got, image in zip(images, want_images, strict=True):
        assert got.dtype == np.float64 and _l2(got, image) < 1e-8
    assert grads.keys() == want.keys()
    for name in want.keys() - set(NULL):
        assert grads[name].shape == want[name].shape
        assert _l2(grads[name], want[name]) < 1e-6, name
    _check_null(grads, want, 1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_float32_outputs_and_gradients_equal_the_twin_s(fixtures_dir, seed):
    """Norms to 5e-3 and projections to 2e-2 of the norm, as for the stored training step."""
    images, grads = _jax_side(fixtures_dir, seed, np.float32)
    want_images, want = _oracle(fixtures_dir, seed)
    for got, image in zip(images, want_images, strict=True):
        assert got.dtype == np.float32 and relative_error(got, image) < 1e-4
    draw = np.random.default_rng(0).standard_normal
    for name in sorted(want.keys() - set(NULL)):
        got, norm = grads[name].astype(np.float64), np.linalg.norm(want[name])
        assert abs(np.linalg.norm(got) - norm) < 5e-3 * norm, name
        projection = np.sum((got - want[name]) * draw(got.shape))
        assert abs(projection) < 2e-2 * norm, name
    _check_null(grads, want, 1e-5)
