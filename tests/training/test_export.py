"""Weights alone: what is in the export, how small it is, and that it reads as a checkpoint."""

import json
import shutil

import jax
import numpy as np
import pytest
import tensorstore

from configs.kgmgt import get_config
from kgmgt_jax.training.export import export_weights, main
from kgmgt_jax.training.weights import (
    FIXED_WEIGHTS,
    CheckpointError,
    load_item,
    load_weights,
    save_weights,
)

pytestmark = pytest.mark.filterwarnings("ignore")  # Orbax and TensorStore


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "checkpoint"
    config = get_config("tiny").to_dict()
    config["data"]["train"] = "/home/someone/private"
    kernel = np.random.default_rng(0).standard_normal((300, 300), np.float32)
    save_weights(path, config, {"params": {"kernel": kernel}, "batch_stats": {"n": np.arange(3)}})
    return path


def _size(path):
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def test_export_is_the_weights_and_the_network(checkpoint, tmp_path):
    out = export_weights(checkpoint, tmp_path / "out")
    config, weights = load_weights(out)
    assert config.model.to_dict() == get_config("tiny").model.to_dict()
    own = get_config("tiny").data
    kept = ("circular", "input_fill", "sens", "virtual_coils")
    assert config.data.to_dict() == {name: own[name] for name in kept}
    jax.tree.map(np.testing.assert_array_equal, weights, load_weights(checkpoint)[1])


def test_the_number_of_virtual_coils_goes_along_and_may_be_another_in_a_mean(checkpoint, tmp_path):
    config, weights = load_weights(checkpoint)
    few, earlier = config.to_dict(), config.to_dict()
    few["data"]["virtual_coils"] = 10
    del earlier["data"]["virtual_coils"]  # runs of earlier versions have none
    save_weights(tmp_path / "few", few, weights)
    save_weights(tmp_path / "earlier", earlier, weights)
    out = export_weights(tmp_path / "few", tmp_path / "out", average=tmp_path / "earlier")
    assert load_weights(out)[0].data.virtual_coils == 10


@pytest.mark.parametrize("dtype, digits", [("bfloat16", 2**-8), ("float16", 2**-11)])
def test_smaller_types_halve_the_size_and_read_as_float32(checkpoint, tmp_path, dtype, digits):
    out = export_weights(checkpoint, tmp_path / "out", dtype=dtype)
    assert _size(out) < 0.6 * _size(checkpoint)
    weights, wanted = (load_weights(path)[1] for path in (out, checkpoint))
    kernel = weights["params"]["kernel"]
    assert kernel.dtype == np.float32 and weights["batch_stats"]["n"].dtype == np.arange(3).dtype
    assert not np.array_equal(kernel, wanted["params"]["kernel"])
    np.testing.assert_allclose(kernel, wanted["params"]["kernel"], rtol=digits, atol=1e-7)


def test_weights_for_fixed_masks_go_beside_the_others(checkpoint, tmp_path):
    config, weights = load_weights(checkpoint)
    negative = {
        "params": {"kernel": -weights["params"]["kernel"]},
        "batch_stats": {"n": np.ones(3)},
    }
    save_weights(tmp_path / "fixed", config.to_dict(), negative)
    both = export_weights(checkpoint, tmp_path / "both", fixed=tmp_path / "fixed")
    again = export_weights(both, tmp_path / "again", dtype="float16")
    taken = export_weights(checkpoint, tmp_path / "taken", fixed=both)
    assert load_item(checkpoint, FIXED_WEIGHTS) is None
    for out, digits in ((both, 0), (again, 2**-11), (taken, 0)):
        kernel = load_weights(out)[1]["params"]["kernel"]
        np.testing.assert_allclose(kernel, weights["params"]["kernel"], rtol=digits, atol=1e-7)
        np.testing.assert_array_equal(
            load_item(out, FIXED_WEIGHTS)["params"]["kernel"], -kernel, strict=True
        )


def test_weights_for_fixed_masks_are_of_the_same_network(checkpoint, tmp_path):
    config, _ = load_weights(checkpoint)
    save_weights(tmp_path / "fixed", config.to_dict(), {"params": {"kernel": np.ones(3)}})
    with pytest.raises(CheckpointError, match=r"fixed: expected the network of .*kernel of shape"):
        export_weights(checkpoint, tmp_path / "both", fixed=tmp_path / "fixed")


@pytest.mark.parametrize("option", ["fixed", "average"])
@pytest.mark.parametrize(
    ("section", "field", "value"), [("model", "n_iterations", 9), ("data", "sens", "adaptive")]
)
def test_weights_of_a_network_used_otherwise_are_refused(
    checkpoint, tmp_path, option, section, field, value
):
    config, weights = load_weights(checkpoint)
    fields = config.to_dict()
    fields[section][field] = value
    other = save_weights(tmp_path / "other", fields, weights)
    with pytest.raises(
        CheckpointError, match=f"other: expected the network of .*{field}={value!r}"
    ):
        export_weights(checkpoint, tmp_path / "out", **{option: other})


def test_values_out_of_range_are_refused(tmp_path):
    config = get_config("tiny").to_dict()
    save_weights(tmp_path / "large", config, {"params": {"a": np.array([1e6], np.float32)}})
    with pytest.raises(ValueError, match="expected values within float16"):
        export_weights(tmp_path / "large", tmp_path / "out", dtype="float16")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("item", ["weights", FIXED_WEIGHTS])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, item):
    trees = {name: {"params": {"a": {"bias": np.zeros(3)}}} for name in ("weights", FIXED_WEIGHTS)}
    trees[item]["params"]["a"]["bias"][1] = np.nan
    path = save_weights(tmp_path / "c", {"model": {}, "data": {}}, **trees)
    with pytest.raises(CheckpointError, match=r"c: expected finite weights, got .* params/a/bias"):
        load_weights(path)
        load_item(path, FIXED_WEIGHTS)


def test_command_line_prints_the_size_or_one_line(checkpoint, tmp_path, capsys):
    assert main([str(checkpoint), "--out", str(tmp_path / "out")]) == 0
    assert f"{tmp_path / 'out'}: 0.3 MiB" in capsys.readouterr().out
    assert main([str(checkpoint), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1


def test_the_mean_of_two_sets_of_weights(checkpoint, tmp_path):
    config, weights = load_weights(checkpoint)
    other = {"params": {"kernel": 3 * weights["params"]["kernel"]}}
    save_weights(tmp_path / "other", config.to_dict(), {**other, "batch_stats": {"n": np.ones(3)}})
    out = tmp_path / "mean"
    assert main([str(checkpoint), "--out", str(out), "--average", str(tmp_path / "other")]) == 0
    found = load_weights(out)[1]
    np.testing.assert_allclose(found["params"]["kernel"], 2 * weights["params"]["kernel"])
    np.testing.assert_array_equal(found["batch_stats"]["n"], np.arange(3))


def test_a_mean_is_of_one_network(checkpoint, tmp_path):
    config, _ = load_weights(checkpoint)
    save_weights(tmp_path / "other", config.to_dict(), {"params": {"kernel": np.ones(3)}})
    with pytest.raises(CheckpointError, match=r"other: expected the network of"):
        export_weights(checkpoint, tmp_path / "mean", average=tmp_path / "other")


def test_a_configuration_is_saved_as_it_is_made_and_as_it_is_loaded(checkpoint, tmp_path):
    _, weights = load_weights(checkpoint)
    first = save_weights(tmp_path / "first", get_config("tiny"), weights)
    second = save_weights(tmp_path / "second", *load_weights(first))
    assert load_weights(second)[0].to_dict() == get_config("tiny").to_dict()


def test_weights_do_not_tell_where_they_were_written(checkpoint, tmp_path):
    out = export_weights(checkpoint, tmp_path / "out")
    assert not [p for p in out.rglob("*") if p.is_file() and bytes(tmp_path) in p.read_bytes()]


def test_weights_larger_than_the_memory_are_refused_before_they_are_read(tmp_path):
    """Of an array whose place in a checkpoint claims 10 TB, for which nothing is stored."""
    path = save_weights(tmp_path / "huge", {}, {"params": {"a": np.ones((4, 4), np.float32)}})
    place = f"file://{path / 'weights'}/"
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": place}).result()
    about = json.loads(store.read(b"params.a/.zarray").result().value)
    store.write(
        b"params.a/.zarray", json.dumps(about | {"shape": [10**7, 250_000]}).encode()
    ).result()
    told = f"^{path}/weights: expected less than .* bytes of memory, got 1e\\+13 bytes$"
    with pytest.raises(CheckpointError, match=told):
        load_weights(path)


def test_a_full_disk_is_refused_before_anything_is_written(checkpoint, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=300_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(CheckpointError, match="a disk with 360024 bytes free, got 300000"):
        export_weights(checkpoint, tmp_path / "new" / "out")
    assert not list(tmp_path.iterdir())
    assert export_weights(checkpoint, tmp_path / "out", dtype="bfloat16").is_dir()
