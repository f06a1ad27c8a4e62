"""VGG19 weights under either naming, and what is missing named."""

import numpy as np
import pytest

from kgmgt_jax.interop.vgg import load_vgg19, vgg_names


def _weights(rng, names):
    shapes = {0: (64, 3, 3, 3), 2: (64, 64, 3, 3), 5: (128, 64, 3, 3)}
    return {
        f"{name}.{part}": rng.standard_normal(shape if part == "weight" else shape[:1])
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
    assert vgg_names({"classifier.0.weight": np.zeros(1), "features.1.weight": np.zeros(1)}) == {}


def test_missing_convolutions_are_named(tmp_path):
    np.savez(tmp_path / "v.npz", **{"features.0.weight": np.zeros((64, 3, 3, 3))})
    with pytest.raises(ValueError, match="conv1_1, conv1_2"):
        load_vgg19(tmp_path / "v.npz", last="conv1_2")


def test_unreadable_file_is_refused(tmp_path):
    (tmp_path / "v.npz").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"v\.npz: expected an \.npz"):
        load_vgg19(tmp_path / "v.npz")
