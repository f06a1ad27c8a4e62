"""The frame encoder and VGG19's features, by the maps that they are made of."""

import jax
import jax.numpy as jnp
import numpy as np

from kgmgt_jax.models.encoder import VGG, FrameEncoder, vgg19_features
from kgmgt_jax.models.initialisation import initialise
from kgmgt_jax.models.layers import leaky_relu

CHANNELS = (3, 4, 5)


def test_shared_encoder_matches_before_and_gives_values_after_the_activation():
    x = jax.random.normal(jax.random.key(0), (1, 8, 12, 2))
    encoder = FrameEncoder(channels=CHANNELS)
    variables = initialise(encoder, 0, x)
    found = encoder.apply(variables, x)
    own = {"params": variables["params"]["encoder"]}
    maps = VGG(channels=CHANNELS, slope=0.2).apply(own, x)
    for dense in (found.query, found.key):
        np.testing.assert_array_equal(dense, maps["conv3_1"])
    for i, value in enumerate(found.values, start=1):
        np.testing.assert_array_equal(value, leaky_relu(maps[f"conv{i}_1"], 0.2))
    assert all(bool(jnp.any(map < 0)) for map in maps.values())


def test_vgg19_sees_the_normalised_magnitude_in_three_channels_and_answers_after_relu():
    kernel = np.zeros((3, 3, 3, 64), np.float32)
    kernel[1, 1, range(3), range(3)] = 1  # each channel as it is
    variables = {"params": {"conv1_1": {"kernel": kernel, "bias": np.zeros(64, np.float32)}}}
    image = jnp.array([[[0.3 + 0.4j, 0.4]]])
    found = vgg19_features(variables, image, ("relu1_1",))["relu1_1"]
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(found[0, 0, 0, :3], (0.5 - mean) / std, rtol=1e-5)
    np.testing.assert_array_equal(found[0, 0, 1, :3], 0)  # 0.4 is darker than all means
