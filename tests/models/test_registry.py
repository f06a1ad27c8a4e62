"""Every network by its name: one call signature, fields that are the configuration's keys."""

import dataclasses
import importlib
import json

import jax
import pytest
from flax import linen as nn

from configs import ablations
from configs.comparison import with_network
from kgmgt_jax.models.registry import NETWORKS, build_model, freeze
from kgmgt_jax.training.checks import check_config
from kgmgt_jax.training.state import example_inputs
from kgmgt_jax.types import Reconstruction

COMPARATORS = [name for name in NETWORKS if name != "kgmgt"]


def _config(name, variant="base"):
    return importlib.import_module(f"configs.{name}").get_config(variant)


@pytest.mark.parametrize("name", NETWORKS)
def test_keys_of_the_configuration_are_the_fields(name):
    fields = {field.name for field in dataclasses.fields(NETWORKS[name])} - {"parent", "name"}
    assert set(_config(name).model) - {"network"} == fields


@pytest.mark.parametrize("name", COMPARATORS)
def test_a_configuration_names_its_network(name):
    for variant in ("base", "tiny"):
        config = _config(name, variant)
        check_config(config)
        assert type(build_model(config.model)) is NETWORKS[name]


def test_a_configuration_without_a_name_means_kgmgt():
    assert "network" not in _config("kgmgt").model
    assert type(build_model({})) is NETWORKS["kgmgt"]


def test_a_configuration_that_json_had_is_the_same_network():
    model = _config("kgmgt").model
    assert hash(build_model(json.loads(model.to_json()))) == hash(build_model(model))
    assert freeze({"a": [[1, [2]], 3], "b": {"c": [4]}}) == {"a": ((1, (2,)), 3), "b": {"c": (4,)}}


class _Own(nn.Module):
    """A network with fields of its own and none of the package's."""

    dilation: int = 0

    def __call__(self, target, preceding, succeeding, measurement, *, train=False):
        return Reconstruction(target, target)


def test_an_own_network_needs_no_field_of_the_others(monkeypatch):
    monkeypatch.setitem(NETWORKS, "own", _Own)
    config = with_network("tiny", {"network": "own", "dilation": 0}, {})
    check_config(config)
    assert build_model(config.model).dilation == 0


@pytest.mark.parametrize("name", COMPARATORS)
def test_a_network_without_a_mentor_gives_its_image_twice(name):
    model = build_model(_config(name, "tiny").model)
    frame, *rest = example_inputs()
    output, _ = jax.eval_shape(
        lambda *x: model.init_with_output(jax.random.key(0), *x, train=False), frame, *rest
    )
    assert output.image.shape == output.mentor.shape == frame.shape
    assert output.image.dtype == frame.dtype


def test_unknown_networks_and_fields_of_others_are_refused():
    with pytest.raises(ValueError, match=r"expected one of.*'modl'.*got 'modle'"):
        build_model({"network": "modle"})
    with pytest.raises(ValueError, match=r"\['window'\]; those of modl are"):
        build_model({"network": "modl", "window": 8})


@pytest.mark.parametrize(
    ("name", "section", "fields", "message"),
    [
        ("modl", "model", {"n_iterations": 0}, "n_iterations: expected 1 or more, got 0"),
        ("modl", "model", {"dtype": "float16"}, "one of.*bfloat16.*got 'float16'"),
        ("crnn", "model", {"consistency": "firm"}, "consistency must be.*got 'firm'"),
        ("kigan", "model", {"weight_init": "ones"}, "weight_init must be.*got 'ones'"),
        ("swinir", "model", {"n_heads": 7}, "must divide width.*'n_heads': 7"),
        ("swinir", "model", {"n_blocks": 3}, "n_blocks: expected an even number.* got 3"),
        ("modl", "loss", {"mentor": 0.5}, "loss.mentor: expected 0 for a network without a mentor"),
        ("modl", "train", {"frozen": ("frame_encoder",)}, "train.frozen: expected some of"),
    ],
)
def test_impossible_values_are_refused_in_one_line(name, section, fields, message):
    config = _config(name)
    config[section].update(fields)
    with pytest.raises(ValueError, match=message) as caught:
        check_config(config)
    assert "\n" not in str(caught.value)


def test_offset_rates_are_refused_without_offset_layers():
    config = _config("modl")
    config.optimizer.offset_rates = (1e-3, 1e-5, 1e-6)
    with pytest.raises(ValueError, match=r"offset_rates: expected None"):
        check_config(config)


def test_unknown_variants_are_refused():
    for name in COMPARATORS:
        with pytest.raises(ValueError, match="variants are base and tiny, got 'large'"):
            _config(name, "large")
    with pytest.raises(ValueError, match=r"variants are full, no_knowledge.*got 'no_heart'"):
        ablations.get_config("no_heart")


@pytest.mark.parametrize("row", ablations.ROWS)
@pytest.mark.parametrize("size", ["", ":tiny", ":fixed_first"])
def test_an_ablation_differs_in_its_fields_and_can_be_built(row, size):
    config, full = ablations.get_config(row + size), ablations.get_config("full" + size)
    check_config(config)
    differing = {k: v for k, v in config.model.items() if v != full.model[k]}
    given = ablations.ROWS[row]
    assert differing.items() <= given.items() and bool(differing) == bool(given)
    assert all(config.model[name] == value for name, value in given.items())
    config.model = full.model
    assert config.to_dict() == full.to_dict()
