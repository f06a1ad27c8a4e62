"""PyTorch weights to a checkpoint and back; what does not fit is named, and nothing is executed."""

import jax
import numpy as np
import pytest

from configs.kgmgt import get_config
from kgmgt_jax.interop import released, torch_weights
from kgmgt_jax.interop.released import PARTS, RELEASED
from kgmgt_jax.interop.state_files import read_state_dict
from kgmgt_jax.interop.vgg import two_channel_kernel
from kgmgt_jax.models.kgmgt import KGMgT
from kgmgt_jax.models.registry import build_model
from kgmgt_jax.training.weights import load_weights
from tests.models.released import shapes, state_dict

pytestmark = pytest.mark.filterwarnings("ignore")  # Orbax and TensorStore
NETS = {"generator": "net_g", "extractor": "net_extractor", "vgg19": "net_map", "critic": "net_d"}
FIRST = "vgg.vgg_net.conv1_1.weight"


@pytest.fixture(scope="module")
def whole(fixtures_dir):
    """Every array of the release's state dicts by part; counters and masks unlike our defaults."""
    dicts = {}
    for part, net in NETS.items():
        arrays = state_dict(fixtures_dir, net)
        for key, shape in shapes(fixtures_dir, net).items():
            if key.endswith("num_batches_tracked"):
                arrays[key] = np.array(500_000, np.int64)
            elif key not in arrays:
                arrays[key] = released.default_buffer(key)
                assert arrays[key].shape == shape
            if key.endswith("attn_mask"):
                arrays[key] = arrays[key][:25]  # of another training size
        dicts[part] = arrays
    return dicts


@pytest.fixture(scope="module")
def files(whole, tmp_path_factory):
    """The parts as files, the generator with ``module.`` before each name."""
    folder = tmp_path_factory.mktemp("weights")
    paths = {part: folder / f"{part}.npz" for part in whole}
    for part, path in paths.items():
        prefix = "module." if part == "generator" else ""
        np.savez(path, **{prefix + key: value for key, value in whole[part].items()})
    return paths


def _options(files, *parts):
    return [word for part in parts for word in (f"--{part}", str(files[part]))]


@pytest.fixture(scope="module")
def imported(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("imported") / "released"
    parts = _options(files, "extractor", "vgg19", "critic")
    assert torch_weights.main([str(files["generator"]), *parts, "--out", str(out)]) == 0
    return out


def _refused(capsys, arguments, out, *words):
    """Exit code 2 after one line that has these words, and nothing written."""
    before = set(out.parent.iterdir())
    assert torch_weights.main([*map(str, arguments), "--out", str(out)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    for word in words:
        assert str(word) in captured.err, captured.err
    assert set(out.parent.iterdir()) == before


def test_checkpoint_is_of_the_released_variant():
    assert get_config("released").model.to_dict() == RELEASED


def test_export_checks_every_file_before_it_writes_one(imported, tmp_path, capsys):
    arguments = ["--to-torch", imported, "--critic", tmp_path / "d.h5"]
    _refused(capsys, arguments, tmp_path / "g.npz", "d.h5: expected one of .pth")


def test_export_of_two_parts_to_one_file_is_refused(imported, tmp_path, capsys):
    out = tmp_path / "g.npz"
    arguments = ["--to-torch", imported, "--extractor", out]
    _refused(capsys, arguments, out, f"{out}, {out}: expected a file of its own for each part")


def test_export_of_a_critic_that_was_not_imported_is_refused(
    imported, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(torch_weights, "load_item", lambda *_: None)
    arguments = ["--to-torch", imported, "--critic", tmp_path / "d.npz"]
    _refused(capsys, arguments, tmp_path / "g.npz", "imported with a critic, got one without")


def test_every_name_of_the_release_has_a_place(fixtures_dir):
    for part, net in NETS.items():
        names = [*PARTS[part].keys, *PARTS[part].buffers]
        assert sorted(names) == sorted(shapes(fixtures_dir, net))


@pytest.mark.parametrize("suffix", ["npz", "safetensors", "pth"])
def test_there_and_back_is_bit_identical(whole, imported, tmp_path, suffix):
    if suffix == "pth":
        pytest.importorskip("torch")
    back = {part: tmp_path / f"{part}.{suffix}" for part in whole}
    arguments = ["--to-torch", str(imported), "--out", str(back["generator"])]
    others = _options(back, "extractor", "vgg19", "critic")
    assert torch_weights.main([*arguments, *others]) == 0
    for part, arrays in whole.items():
        read = read_state_dict(back[part])
        assert read.keys() == arrays.keys()
        for key, want in arrays.items():
            assert (read[key].dtype, read[key].shape) == (want.dtype, want.shape), key
            assert read[key].tobytes() == want.tobytes(), key


def test_checkpoint_fits_the_network_it_names(imported):
    config, variables = load_weights(imported)
    assert build_model(config.model) == KGMgT(**RELEASED)
    expected = {name: dict(tree) for name, tree in released.template().items()}
    for tree in expected.values():
        del tree["critic"]
    assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, expected)


def test_buffers_of_a_checkpoint_from_elsewhere_are_pytorch_s():
    pytest.importorskip("torch")
    from tests.oracles import torch_kgmgt as twin

    for part, net in NETS.items():
        state = twin.to_numpy_state_dict(twin.NETS[net]())
        assert PARTS[part].buffers
        for key in PARTS[part].buffers:
            value = released.default_buffer(key)
            assert value.dtype == state[key].dtype, key
            np.testing.assert_array_equal(value, state[key], err_msg=key)


def test_incomplete_release_is_refused_by_name(files, tmp_path, capsys):
    words = (
        "missing: the whole extractor (feature_extraction_image1.model.conv1_1.weight .. ",
        "the whole vgg19 (vgg.vgg_net.conv1_1.weight .. vgg.vgg_net.conv3_1.bias)",
        "--extractor and --vgg19",
    )
    _refused(capsys, [files["generator"]], tmp_path / "out", *words)


@pytest.fixture(scope="module")
def spoiled(whole, files, tmp_path_factory):
    """Files with one unknown, one missing, and five misshapen arrays."""
    arrays = dict(whole["generator"])
    arrays["extra.weight"] = np.zeros(2, np.float32)
    del arrays["dw.nw.0.bias"]
    arrays["dw.nw.1.weight"] = np.zeros(63, np.float32)
    arrays["dw.nw.1.bias"] = np.zeros(64, np.int64)
    arrays["dw.nw.3.bias"] = np.full(64, np.nan, np.float32)
    index = next(k for k in arrays if k.endswith("relative_position_index"))
    arrays[index] = arrays[index] + 1
    vgg = dict(whole["vgg19"])
    vgg[FIRST] = np.random.default_rng(0).standard_normal((64, 3, 3, 3)).astype(np.float32)
    folder = tmp_path_factory.mktemp("spoiled")
    paths = files | {"generator": folder / "g.npz", "vgg19": folder / "v.npz"}
    np.savez(paths["generator"], **arrays)
    np.savez(paths["vgg19"], **vgg)
    return paths, index, vgg


def test_what_does_not_fit_is_named(spoiled, tmp_path, capsys):
    paths, index, _ = spoiled
    _refused(
        capsys,
        [paths["generator"], *_options(paths, "extractor", "vgg19")],
        tmp_path / "out",
        paths["generator"],
        "unknown: extra.weight; missing: dw.nw.0.bias; misshapen: ",
        "dw.nw.1.weight (63,) not (64,)",
        "dw.nw.1.bias int64 not float32",
        "dw.nw.3.bias not finite",
        f"{index} of another window",
        f"{FIRST} (64, 3, 3, 3) not (64, 2, 3, 3)",
    )


def test_partial_import_fills_from_the_initialisation(spoiled, whole, tmp_path, capsys):
    paths, _, vgg = spoiled
    arguments = [str(paths["generator"]), *_options(paths, "extractor", "vgg19")]
    out = tmp_path / "out"
    assert torch_weights.main([*arguments, "--out", str(out), "--allow-partial"]) == 0
    assert "partial, missing: dw.nw.0.bias" in capsys.readouterr().out
    config, variables = load_weights(out)
    assert any("dw.nw.0.bias" in line for line in config.imported_with)
    denoiser = variables["params"]["mentor_net"]["denoiser"]["denoiser"]
    start = released.template()["params"]["mentor_net"]["denoiser"]["denoiser"]
    np.testing.assert_array_equal(denoiser["conv0"]["bias"], start["conv0"]["bias"])
    np.testing.assert_array_equal(denoiser["norm0"]["scale"], start["norm0"]["scale"])
    kept = whole["generator"]["dw.nw.0.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(denoiser["conv0"]["kernel"], kept)
    first = variables["params"]["frame_encoder"]["vgg"]["conv1_1"]["kernel"]
    np.testing.assert_array_equal(first, two_channel_kernel(vgg[FIRST]).transpose(2, 3, 1, 0))


def test_partial_import_keeps_no_first_layer_that_is_not_finite(spoiled, tmp_path):
    paths, _, vgg = spoiled
    paths = paths | {"vgg19": tmp_path / "v.npz"}
    np.savez(paths["vgg19"], **{**vgg, FIRST: np.full((64, 3, 3, 3), np.nan, np.float32)})
    arguments = [str(paths["generator"]), *_options(paths, "extractor", "vgg19")]
    out = tmp_path / "out"
    assert torch_weights.main([*arguments, "--out", str(out), "--allow-partial"]) == 0
    _, variables = load_weights(out)
    own, start = (v["params"]["frame_encoder"]["vgg"] for v in (variables, released.template()))
    np.testing.assert_array_equal(own["conv1_1"]["kernel"], start["conv1_1"]["kernel"])


def test_torchvision_vgg19_is_refused_for_its_first_layer_alone(whole, files, tmp_path, capsys):
    indices = {"conv1_1": 0, "conv1_2": 2, "conv2_1": 5, "conv2_2": 7, "conv3_1": 10}
    arrays = {"classifier.0.weight": np.zeros((1, 1)), "features.12.bias": np.zeros(256)}
    for key, value in whole["vgg19"].items():
        if "conv" in key:
            name, part = key.split(".")[-2:]
            arrays[f"features.{indices[name]}.{part}"] = value
    arrays["features.0.weight"] = np.zeros((64, 3, 3, 3), np.float32)
    np.savez(tmp_path / "v.npz", **arrays)
    paths = files | {"vgg19": tmp_path / "v.npz"}
    arguments = [files["generator"], *_options(paths, "extractor", "vgg19")]
    line = f"got misshapen: {FIRST} (64, 3, 3, 3) not (64, 2, 3, 3) ("
    _refused(capsys, arguments, tmp_path / "out", line)


def test_another_project_s_weights_are_refused_even_in_part(tmp_path, capsys):
    np.savez(tmp_path / "resnet.npz", **{"layer1.0.conv1.weight": np.zeros((64, 64, 3, 3))})
    arguments = [tmp_path / "resnet.npz", "--allow-partial"]
    words = ("expected a state dict of KGMgT", "layer1.0.conv1.weight")
    _refused(capsys, arguments, tmp_path / "out", *words)


def test_same_name_in_two_files_is_refused(files, tmp_path, capsys):
    paths = files | {"extractor": files["vgg19"]}
    arguments = [files["generator"], *_options(paths, "vgg19", "extractor")]
    _refused(capsys, arguments, tmp_path / "out", "expected names of its own", "vgg.vgg_net")


def test_the_extractors_are_no_vgg19(files, tmp_path, capsys):
    paths = files | {"vgg19": files["extractor"]}
    arguments = [files["generator"], *_options(paths, "vgg19", "extractor")]
    words = (f"{files['extractor']}: expected one VGG, got more, with ", "keep one of them")
    _refused(capsys, arguments, tmp_path / "out", *words)


def test_existing_folder_is_kept(imported, files, capsys):
    arguments = [files["generator"], *_options(files, "extractor", "vgg19")]
    _refused(capsys, arguments, imported, imported, "yet to be made")


def test_checkpoint_of_another_network_is_not_exported(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch_weights, "load_weights", lambda _: ({}, {"params": {"a": {}}}))
    monkeypatch.setattr(torch_weights, "load_item", lambda *_: None)
    arguments = ["--to-torch", tmp_path]
    words = ("kgmgt.py:released, got 'kgmgt' that differs in", "arrays of the generator, such as")
    _refused(capsys, arguments, tmp_path / "g.npz", *words)
