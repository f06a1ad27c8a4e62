"""VGG weights under either naming, for the loss and for the encoder; what is missing is named."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.kgmgt import get_config
from kgmgt_jax.interop.state_files import write_state_dict
from kgmgt_jax.interop.vgg import load_encoder, load_vgg19, two_channel_kernel, vgg_names
from kgmgt_jax.models.encoder import VGG19_LAYERS, vgg19_features
from kgmgt_jax.models.registry import build_model


def _weights(rng, names):
    shapes = {0: (64, 3, 3, 3), 2: (64, 64, 3, 3), 5: (128, 64, 3, 3)}
    return {
        f"{name}.{part}": rng.standard_normal(shape if part == "weight" else shape[:1], np.float32)
        for name, shape in zip(names, shapes.values(), strict=True)
        for part in ("weight", "bias")
    }


def test_both_namings_give_the_same_parameters(tmp_path):
    names = ("features.0", "features.2", "features.5")
    first = _weights(np.random.default_rng(0), names)
    ours = ("vgg.conv1_1", "vgg.conv1_2", "vgg.conv2_1")
    second = _weights(np.random.default_rng(0), ours)
    np.savez(tmp_path / "a.npz", **first)
    np.savez(tmp_path / "b.npz", **second)
    a, b = (load_vgg19(tmp_path / f"{n}.npz", last="conv2_1")["params"] for n in "ab")
    assert a.keys() == b.keys() == {"conv1_1", "conv1_2", "conv2_1"}
    for name in a:
        np.testing.assert_array_equal(a[name]["kernel"], b[name]["kernel"])
    np.testing.assert_array_equal(
        a["conv2_1"]["kernel"][1, 2, 3, 4], first["features.5.weight"][4, 3, 1, 2]
    )


def test_classifier_and_unknown_keys_are_ignored():
    arrays = {"classifier.0.weight": np.zeros(1), "features.1.weight": np.zeros(1)}
    assert vgg_names("v.npz", arrays) == {}


def test_a_file_of_two_networks_is_refused(tmp_path):
    arrays = _torchvision(19)[0]
    arrays["target.conv2_1.bias"] = arrays["features.5.bias"]
    file = write_state_dict(tmp_path / "two.npz", arrays)
    for load in (load_vgg19, load_encoder):
        message = r"two.npz: .* one VGG, .* features.5.bias and target.conv2_1.bias; keep one"
        with pytest.raises(ValueError, match=message):
            load(file)


def test_missing_convolutions_are_named(tmp_path):
    np.savez(tmp_path / "v.npz", **{"features.0.weight": np.zeros((64, 3, 3, 3))})
    with pytest.raises(ValueError, match="conv1_1, conv1_2"):
        load_vgg19(tmp_path / "v.npz", last="conv1_2")


def test_unreadable_file_is_refused(tmp_path):
    (tmp_path / "v.npz").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"v\.npz: expected a file of arrays"):
        load_vgg19(tmp_path / "v.npz")


# torchvision's own layer lists: channels of convolutions (each with an activation), M for pooling
CONFIGURATIONS = {
    16: (64, 64, "M", 128, 128, "M", *[256] * 3, "M", *[512] * 3, "M", *[512] * 3, "M"),
    19: (64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4, "M"),
}


def _torchvision(depth):
    """Random weights as torchvision names them, and the name by block of each convolution."""
    rng, arrays, names = np.random.default_rng(0), {}, {}
    index, n_in, block, number = 0, 3, 1, 1
    for entry in CONFIGURATIONS[depth]:
        if entry == "M":
            index, block, number = index + 1, block + 1, 1
            continue
        kernel = rng.standard_normal((entry, n_in, 3, 3), np.float32) / math.sqrt(9 * n_in)
        arrays[f"features.{index}.weight"] = kernel
        arrays[f"features.{index}.bias"] = rng.standard_normal(entry, np.float32)
        names[f"conv{block}_{number}"] = index
        index, n_in, number = index + 2, entry, number + 1
    return arrays, names


@pytest.mark.parametrize("depth", [16, 19])
@pytest.mark.parametrize("suffix", ["npz", "safetensors", "pth"])
def test_torchvision_layout_of_both_depths(tmp_path, depth, suffix):
    if suffix == "pth":
        pytest.importorskip("torch")
    arrays, names = _torchvision(depth)
    file = write_state_dict(tmp_path / f"vgg.{suffix}", arrays)
    params = load_vgg19(file)["params"]
    expected = {n for n in VGG19_LAYERS[: VGG19_LAYERS.index("conv5_1") + 1] if n in names}
    assert params.keys() == expected
    for name in expected:
        want = arrays[f"features.{names[name]}.weight"].transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(params[name]["kernel"], want, err_msg=name)


def test_vgg16_gives_features_without_the_convolutions_it_lacks(tmp_path):
    file = write_state_dict(tmp_path / "vgg.npz", _torchvision(16)[0])
    params = load_vgg19(file, last="conv4_1")
    assert "conv3_4" not in params["params"]
    image = jax.random.normal(jax.random.key(0), (1, 32, 32)) + 0j
    layers = ("relu4_1", "relu1_1")  # in any order
    maps = jax.jit(lambda image: vgg19_features(params, image, layers))(image)
    assert maps["relu4_1"].shape == (1, 4, 4, 512) and maps["relu1_1"].shape == (1, 32, 32, 64)


def test_vgg16_has_no_fourth_convolution(tmp_path):
    file = write_state_dict(tmp_path / "vgg.npz", _torchvision(16)[0])
    with pytest.raises(ValueError, match="got no conv4_4"):
        load_vgg19(file, last="conv4_4")


def test_misshapen_convolution_is_named(tmp_path):
    arrays = _torchvision(19)[0]
    arrays["features.5.weight"] = arrays["features.5.weight"][:, :32]
    file = write_state_dict(tmp_path / "vgg.npz", arrays)
    with pytest.raises(ValueError, match=r"conv2_1.weight of shape \(128, 64, 3, 3\)"):
        load_vgg19(file)


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("features.5.weight", lambda a: a * np.nan, "numbers in conv2_1.weight, got NaN or"),
        ("features.5.bias", lambda a: np.full_like(a, np.inf), "in conv2_1.bias, got NaN or inf"),
        ("features.0.weight", lambda a: a.astype(np.complex64), "conv1_1.weight, got complex64"),
        ("features.0.bias", lambda a: a.astype(str), r"conv1_1.bias, got <U\d+"),
        ("features.5.bias", lambda a: a[:3], r"conv2_1.bias of shape \(128,\), got \(3,\)"),
    ],
)
def test_arrays_that_are_no_weights_are_named(tmp_path, key, change, message):
    arrays = _torchvision(19)[0]
    arrays[key] = change(arrays[key])
    file = write_state_dict(tmp_path / "vgg.npz", arrays)
    with pytest.raises(ValueError, match=rf"vgg.npz: expected .*{message}"):
        load_vgg19(file, last="conv2_1")


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16, np.float64])
def test_weights_of_any_floating_type_are_read(tmp_path, dtype):
    arrays = _torchvision(19)[0]
    other = {name: array.astype(dtype) for name, array in arrays.items()}
    file = write_state_dict(tmp_path / "vgg.safetensors", other)
    for array in jax.tree.leaves(load_vgg19(file, last="conv2_1")):
        assert array.dtype == np.float32 and np.isfinite(array).all()


def test_arrays_that_are_not_used_may_be_anything(tmp_path):
    arrays = _torchvision(19)[0]
    arrays["features.34.bias"] *= np.nan
    file = write_state_dict(tmp_path / "vgg.npz", arrays)
    assert "conv2_1" in load_vgg19(file, last="conv2_1")["params"]


def test_equal_parts_are_answered_as_a_grey_image():
    kernel = np.random.default_rng(0).standard_normal((8, 3, 3, 3), np.float32)
    two = two_channel_kernel(kernel)
    assert two.shape == (8, 2, 3, 3)
    np.testing.assert_allclose(two.sum(1), kernel.sum(1), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(two[:, 0], kernel[:, 0] + kernel[:, 2] / 2)
    assert np.abs(two[:, 0] - two[:, 1]).max() > 0.1


@pytest.mark.parametrize("depth", [16, 19])
def test_encoder_of_the_base_network_takes_vgg_weights(tmp_path, depth):
    arrays, _ = _torchvision(depth)
    encoder = load_encoder(write_state_dict(tmp_path / "vgg.npz", arrays))
    model = build_model(get_config("base").model.to_dict())
    frame = jax.ShapeDtypeStruct((1, 32, 32), np.complex64)
    own = jax.eval_shape(lambda f: model.init(jax.random.key(0), f, method="encode"), frame)
    assert jax.tree.map(np.shape, encoder) == jax.tree.map(
        np.shape, own["params"]["frame_encoder"]["encoder"]
    )
    bias = arrays["features.10.bias"]
    np.testing.assert_array_equal(encoder["conv3_1"]["bias"], bias)


def test_a_first_convolution_of_half_precision_is_mixed_in_single(tmp_path):
    arrays = {name: array.astype(np.float16) for name, array in _torchvision(19)[0].items()}
    encoder = load_encoder(write_state_dict(tmp_path / "vgg.npz", arrays))
    want = two_channel_kernel(arrays["features.0.weight"].astype(np.float32))
    np.testing.assert_array_equal(encoder["conv1_1"]["kernel"], want.transpose(2, 3, 1, 0))
    arrays["features.0.weight"] = np.ones((64, 3, 3, 3), np.int64)
    with pytest.raises(ValueError, match=r"numbers in conv1_1\.weight, got int64"):
        load_encoder(write_state_dict(tmp_path / "vgg.npz", arrays))


def test_encoder_keeps_a_first_convolution_of_two_channels(tmp_path):
    arrays, _ = _torchvision(19)
    arrays["features.0.weight"] = first = arrays["features.0.weight"][:, :2]
    encoder = load_encoder(write_state_dict(tmp_path / "vgg.npz", arrays))
    np.testing.assert_array_equal(encoder["conv1_1"]["kernel"], first.transpose(2, 3, 1, 0))
