"""Parts of the PyTorch oracle against the arrays stored from the authors' network (a to f).

Tolerances are relative to each array's maximum (``fixtures/README.md``); indices and flows are
exact.
"""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.models.fixtures import Fixture, relative_error  # noqa: E402
from tests.oracles import torch_layers as layers  # noqa: E402


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Thousands of small operations: waiting for a busy second core costs more than it gives."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tensor(x, grad=False):
    x = torch.from_numpy(np.array(x))
    return x.requires_grad_() if grad else x


def close(got, want, tolerance):
    assert tuple(got.shape) == want.shape
    assert relative_error(got.detach().numpy(), want) < tolerance


@pytest.mark.parametrize("gpu", [False, True])
def test_sampling_in_strips_and_with_weights_in_full(gpu, monkeypatch):
    torch.manual_seed(0)
    x, offset, mask = torch.randn(1, 16, 64, 64), torch.randn(1, 64, 64, 4, 9, 2), torch.rand(1)
    inputs = x, offset, mask.expand(1, 64, 64, 4, 9), torch.randn(8, 16, 3, 3), torch.randn(8)
    want = layers.modulated_deform_conv(*inputs)
    monkeypatch.setattr(torch.Tensor, "is_cuda", gpu)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        got = layers.modulated_deform_conv(x.bfloat16(), *inputs[1:])
    assert relative_error(got.float(), want.numpy()) < 0.02


def test_aggregation_samples_parts_of_pixels_in_half_precision():
    torch.manual_seed(0)
    size = (16, 256)
    net, x, feat = layers.DynAgg(16), torch.randn(1, 16, *size), torch.randn(1, 16, *size)
    inputs = x, feat, torch.zeros(1, 9, *size, 2), torch.rand(1, 1, *size)
    with torch.inference_mode():
        want = net(*inputs)
        with torch.autocast("cpu", torch.bfloat16):
            got = net(*(each.bfloat16() for each in inputs))
    assert (got.float() - want).norm() < 0.05 * want.norm()


def by_group(x, groups, *tail):
    """(b, g*9*..., h, w) to (b, h, w, g, 9, ...), differentiable."""
    return x.permute(0, 2, 3, 1).unflatten(-1, (groups, 9, *tail))


@pytest.mark.parametrize("case", ["frac", "far"])
def test_deformable_convolution_and_gradients(case, fixtures_dir):
    f = Fixture(fixtures_dir, "a_mdconv")
    names = ("x", "offset", "mask", "weight", "bias")
    x, offset, mask, weight, bias = leaves = [tensor(f[f"in/{case}/{n}"], True) for n in names]
    groups = int(f[f"in/{case}/groups"])
    y = layers.modulated_deform_conv(
        x, by_group(offset, groups, 2), by_group(mask, groups), weight, bias
    )
    close(y, f[f"out/{case}/y"], 5e-6)
    grads = torch.autograd.grad(y, leaves, tensor(f[f"in/{case}/ct"]))
    for name, grad in zip(names, grads, strict=True):
        close(grad, f[f"out/{case}/g_{name}"], 5e-6)


@pytest.mark.parametrize("shift", [0, 4])
@pytest.mark.parametrize("size", [(16, 16), (24, 16)])
def test_square_window_attention(size, shift, fixtures_dir):
    f = Fixture(fixtures_dir, "b_window_attention")
    case = "{}x{}_shift{}".format(*size, shift)
    block = layers.Block(shift, 0.0, 16)
    block.attn.load_state_dict(
        {k.removeprefix("attn."): tensor(v) for k, v in f.weights().items()}, strict=False
    )
    assert block.attn.relative_position_index.tolist() == f.meta["relative_position_index"]
    mask = layers.shift_mask(*size) if shift else None
    if shift:
        assert np.array_equal(mask, f[f"out/{case}/mask"])
    close(block.square(tensor(f[f"in/{case}/x"]), mask), f[f"out/{case}/y"], 5e-6)


@pytest.mark.parametrize("size", [(8, 8), (16, 8), (24, 16)])
@pytest.mark.parametrize("gpu", [False, True])
def test_cut_windows_attended_apart_from_the_whole_ones(size, gpu, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "is_cuda", gpu)
    torch.manual_seed(0)
    attention, mask = layers.WindowAttention(), layers.shift_mask(*size)
    bias = attention.relative_position_bias_table[attention.relative_position_index]
    x = torch.randn(2 * len(mask), 64, 16)  # two images
    want = attention.attend(x, bias.permute(2, 0, 1) + mask.repeat(2, 1, 1)[:, None])
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            torch.testing.assert_close(attention(x, mask), want, rtol=0, atol=1e-6)


def test_anchored_attention(fixtures_dir):
    f = Fixture(fixtures_dir, "c_mixed_attention")
    attention = layers.MixedAttention()
    attention.load_state_dict({k: tensor(v) for k, v in f.weights().items()})
    for i, pair in ((1, "a2w"), (2, "w2a")):
        step = attention.stripe_attn[f"attn_transform{i}"]
        assert np.array_equal(step.index, f[f"out/index_{pair}"])
        close(step.bias(), f[f"out/bias{i}"], 5e-5)
    x = tensor(f["in/x"]).view(2, 16, 24, 16)
    close(attention(x).flatten(1, 2), f["out/y"], 5e-5)


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
@pytest.mark.parametrize("part", ["block_shift0", "block_shift4", "rstb", "swin"])
def test_transformer_parts(part, size, fixtures_dir):
    f = Fixture(fixtures_dir, "d_blocks")
    name = "{}x{}".format(*size)
    build = {
        "block_shift0": lambda: layers.Block(0, 0.0, 32),
        "block_shift4": lambda: layers.Block(4, 0.0, 32),
        "rstb": lambda: layers.ResidualGroup([0.0] * 4, 32),
        "swin": lambda: layers.Body(32, 0.0),
    }
    net = build[part]()
    loaded = {k: tensor(v) for k, v in f.weights(f"w/{part.split('_')[0]}/").items()}
    assert not net.load_state_dict(loaded, strict=False).unexpected_keys
    x = tensor(f[f"in/x/{name}"]).view(1, *size, 16)
    if part == "swin":
        y = net(x.permute(0, 3, 1, 2))
    else:
        y = net(x, layers.shift_mask(*size)).flatten(1, 2)
    close(y, f[f"out/{part}_{name}"], 1e-5)


def test_matching(fixtures_dir):
    f = Fixture(fixtures_dir, "e_correspondence")
    target, reference = tensor(f["in/feat_in"]), tensor(f["in/feat_ref"])
    index, value = layers.correspondence(target, reference)
    assert np.array_equal(index, f["out/max_idx"])
    close(value, f["out/max_val"], 5e-6)
    for scale, motion in zip(
        ("relu1_1", "relu2_1", "relu3_1"), layers.match(target, reference), strict=True
    ):
        assert np.array_equal(motion.flow, f[f"out/pre_flow/{scale}"])
        assert np.array_equal(motion.copies, f[f"out/pre_offset/{scale}"])
        close(motion.similarity, f[f"out/pre_similarity/{scale}"], 5e-6)


def test_matching_gradient_is_the_unfolded_one_s():
    torch.manual_seed(0)
    target, reference = (torch.randn(1, 5, 7, 6, dtype=torch.float64) for _ in range(2))
    leaves = [x.requires_grad_() for x in (target, reference)]
    index, value = layers.correspondence(*leaves)
    t, r = (
        torch.nn.functional.unfold(torch.nn.functional.normalize(x, dim=1), 3)[0] for x in leaves
    )
    corr = (r / (r.norm(dim=0) + 1e-5)).T @ t
    best, expected_index = corr.max(0)
    assert torch.equal(index.flatten(), expected_index)
    expected = best / (t.norm(dim=0) + 1e-5)
    ct = torch.randn(len(expected), dtype=torch.float64)
    got = torch.autograd.grad(value.flatten(), leaves, ct)
    for g, e in zip(got, torch.autograd.grad(expected, leaves, ct), strict=True):
        torch.testing.assert_close(g, e, rtol=1e-10, atol=1e-12)


def test_deformable_aggregation_and_gradients(fixtures_dir):
    f = Fixture(fixtures_dir, "f_dynagg")
    net = layers.DynAgg(16)
    net.load_state_dict({k: tensor(v) for k, v in f.weights().items()})
    x, feat, sim = (tensor(f[f"in/{n}"], True) for n in ("x", "feat", "sim"))
    copies = tensor(f["in/pre_offset"])
    offset, mask = net.sampling(feat, copies, sim)
    close(offset.flatten(3).permute(0, 3, 1, 2), f["out/offset"], 2e-5)
    close(mask.flatten(3).permute(0, 3, 1, 2), f["out/mask"], 2e-5)
    y = net(x, feat, copies, sim)
    close(y, f["out/y"], 2e-5)
    y.backward(tensor(f["in/ct"]))
    grads = {"g_x": x, "g_feat": feat, "g_sim": sim}
    grads |= {f"gw_{k}": p for k, p in net.named_parameters()}
    for name, leaf in grads.items():
        close(leaf.grad, f[f"out/{name}"], 2e-5)


def test_drop_path_is_on_in_training_only():
    torch.manual_seed(0)
    body = layers.Body(16, drop_path=0.9)
    x = torch.randn(2, 16, 16, 16)
    assert not torch.equal(body(x), body(x))
    body.eval()
    assert torch.equal(body(x), body(x))


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    block = layers.Block(0, 0.25, 16)
    dropped = block.drop(torch.ones(4000, 2, 2, 3))
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert torch.equal(dropped, dropped[:, :1, :1, :1].expand_as(dropped))
    assert float(dropped.mean()) == pytest.approx(1, abs=0.04)
