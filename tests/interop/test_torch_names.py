"""Every array of the released state dicts has a place here, and goes there and back unchanged."""

import importlib.util
import json

import jax
import numpy as np
import pytest

from configs.kgmgt import get_config
from kgmgt_jax.interop.torch_names import (
    critic_entries,
    extractor_entries,
    from_state_dict,
    generator_entries,
    to_state_dict,
    vgg_entries,
)
from kgmgt_jax.models.critic import Critic
from kgmgt_jax.models.encoder import VGG19_LAYERS
from kgmgt_jax.models.registry import build_model

ENTRIES = {
    "net_g": list(generator_entries()),
    "net_d": list(critic_entries()),
    "net_extractor": [e for e in extractor_entries() if e.key.startswith("feature")],
    "net_map": [e for e in extractor_entries() if e.key.startswith("vgg")],
    "perceptual": list(vgg_entries("vgg.vgg_net.", ("params",), VGG19_LAYERS[:13])),
}
COUNTERS = ("num_batches_tracked", "relative_position_index", "attn_mask", "mean", "std")


@pytest.fixture(scope="module")
def shapes(fixtures_dir):
    stored = json.loads((fixtures_dir / "state_dict_keys.json").read_text())
    return {
        net: {k: tuple(v["shape"]) for k, v in keys.items() if k.split(".")[-1] not in COUNTERS}
        for net, keys in stored.items()
    }


@pytest.fixture(scope="module")
def recipe(fixtures_dir):
    spec = importlib.util.spec_from_file_location("recipe", fixtures_dir / "recipe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("net", ENTRIES)
def test_every_array_is_named_once(shapes, net):
    keys = [entry.key for entry in ENTRIES[net]]
    assert len(keys) == len(set(keys))
    assert set(keys) == set(shapes[net])


@pytest.mark.parametrize("net", ENTRIES)
def test_there_and_back_is_bit_identical(shapes, recipe, net):
    weights = recipe.weights(shapes[net], 7)
    back = to_state_dict(ENTRIES[net], from_state_dict(ENTRIES[net], weights))
    assert back.keys() == weights.keys()
    for key, value in weights.items():
        np.testing.assert_array_equal(back[key], value, err_msg=key)


def test_weights_fit_the_released_network(shapes, recipe):
    weights = recipe.weights(shapes["net_g"] | shapes["net_extractor"] | shapes["net_map"], 1)
    entries = list(generator_entries()) + list(extractor_entries())
    ours = from_state_dict(entries, weights)
    model = build_model(get_config("released").model.to_dict())
    frame = jax.ShapeDtypeStruct((1, 64, 64), np.complex64)
    expected = jax.eval_shape(model.init, jax.random.key(0), frame, frame, frame)
    assert jax.tree.map(np.shape, ours) == jax.tree.map(np.shape, expected)


def test_weights_fit_the_released_critic(shapes, recipe):
    ours = from_state_dict(ENTRIES["net_d"], recipe.weights(shapes["net_d"], 1))
    critic = Critic(norm="batch", sigmoid=True)
    image = jax.ShapeDtypeStruct((1, 64, 64, 2), np.float32)
    expected = jax.eval_shape(critic.init, jax.random.key(0), image)
    assert jax.tree.map(np.shape, ours) == jax.tree.map(np.shape, expected)
