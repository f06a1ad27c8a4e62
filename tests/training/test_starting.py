"""A run begins with the weights of another, and with nothing else of it."""

import jax
import numpy as np
import optax
import pytest
from flax import linen as nn

from kgmgt_jax.interop.state_files import write_state_dict
from kgmgt_jax.models.encoder import FrameEncoder
from kgmgt_jax.models.layers import Layers
from kgmgt_jax.mri.fourier import to_channels
from kgmgt_jax.training.starting import started_from, with_vgg_encoder
from kgmgt_jax.training.state import create_state
from kgmgt_jax.training.weights import FIXED_WEIGHTS, CheckpointError, save_weights
from tests.training.stub import TwoConvolutions

pytestmark = pytest.mark.filterwarnings("ignore")  # Orbax and TensorStore


def _state(seed):
    adam = optax.adam(1e-3)
    return create_state(TwoConvolutions(), None, adam, adam, seed=seed)


def _saved(path, weights):
    return save_weights(path, {"model": {}}, jax.device_get(weights))


def test_weights_are_the_checkpoints_and_the_rest_is_new(tmp_path):
    other, fresh = _state(1), _state(0)
    halves = jax.tree.map(lambda x: x.astype(np.float16), other.eval_variables)
    state = started_from(_saved(tmp_path / "weights", halves), fresh)
    for got in (state.generator.params, state.ema_params):
        jax.tree.map(np.testing.assert_array_equal, got, halves["params"])
        assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(got))
    moments = (state.generator.opt_state, fresh.generator.opt_state)
    jax.tree.map(np.testing.assert_array_equal, *moments)
    assert state.step == 0 and np.array_equal(state.key, fresh.key)
    one, other = (jax.tree.leaves(x)[0] for x in (state.generator.params, state.ema_params))
    assert one.unsafe_buffer_pointer() != other.unsafe_buffer_pointer()  # both are donated


def test_a_run_on_fixed_masks_begins_with_the_weights_for_those(tmp_path):
    weights, others = (jax.device_get(_state(seed).eval_variables) for seed in (1, 2))
    path = save_weights(tmp_path / "two", {"model": {}}, weights, **{FIXED_WEIGHTS: others})
    one = _saved(tmp_path / "one", weights)
    for checkpoint, fixed_masks, wanted in (
        (path, True, others),
        (path, False, weights),
        (one, True, weights),
    ):
        state = started_from(checkpoint, _state(0), fixed_masks=fixed_masks)
        jax.tree.map(np.testing.assert_array_equal, state.generator.params, wanted["params"])


def _vgg(path):
    """VGG weights up to relu3_1."""
    rng, sizes = np.random.default_rng(0), (3, 64, 64, 128, 128, 256)
    names = ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1")
    arrays = {}
    for name, n_in, n_out in zip(names, sizes[:-1], sizes[1:], strict=True):
        arrays[f"{name}.weight"] = rng.standard_normal((n_out, n_in, 3, 3), np.float32)
        arrays[f"{name}.bias"] = rng.standard_normal(n_out, np.float32)
    return write_state_dict(path, arrays), arrays


class _Encoded(nn.Module):
    """A convolution, and a frame encoder of full width beside it."""

    @nn.compact
    def __call__(self, target, *_, train=False):
        FrameEncoder(name="frame_encoder")(to_channels(target))
        return Layers().conv(2, name="tail")(to_channels(target))


def test_the_frame_encoder_can_begin_as_vgg19(tmp_path):
    path, arrays = _vgg(tmp_path / "vgg.npz")
    adam = optax.adam(1e-3)
    before = create_state(_Encoded(), None, adam, adam, seed=0)
    state = with_vgg_encoder(path, before)
    for params, old in (
        (state.generator.params, before.generator.params),
        (state.ema_params, before.ema_params),
    ):
        kernel = params["frame_encoder"]["encoder"]["conv3_1"]["kernel"]
        np.testing.assert_array_equal(kernel, arrays["conv3_1.weight"].transpose(2, 3, 1, 0))
        jax.tree.map(np.testing.assert_array_equal, params["tail"], old["tail"])


def test_vgg_weights_need_an_encoder_of_their_size(tmp_path):
    path, _ = _vgg(tmp_path / "vgg.npz")
    with pytest.raises(ValueError, match=r"vgg.npz: expected the weights of a shared frame enc"):
        with_vgg_encoder(path, _state(0))


def _with_strengths(state, name, strengths):
    """The state with a denoiser that has these strengths of data consistency."""
    part = {"denoiser": {name: jax.numpy.float32(strengths)}}
    params = state.generator.params | {"learner_net": part}
    return state.replace(generator=state.generator.replace(params=params), ema_params=params)


@pytest.mark.parametrize("name", ["log_noise_weight", "step"])
@pytest.mark.parametrize(
    ("there", "wanted"),
    [
        ([1, 3, 2], [1, 2, 3, 2.5, 2]),
        ([1, 3, 2], [1, 3, 2]),
        ([1, 3, 2], [1, 2]),
        ([1, 3, 2], [1]),
        ([4], [4, 4]),
    ],
)
def test_other_iterations_begin_with_strengths_between_those_there_are(
    tmp_path, name, there, wanted
):
    path = _saved(tmp_path / "weights", _with_strengths(_state(1), name, there).eval_variables)
    state = started_from(path, _with_strengths(_state(0), name, [0] * len(wanted)))
    for params in (state.generator.params, state.ema_params):
        got = params["learner_net"]["denoiser"][name]
        np.testing.assert_array_equal(got, wanted)
        assert got.dtype == np.float32


def test_weights_of_another_network_are_refused(tmp_path):
    weights = jax.device_get(_state(1).eval_variables)
    weights["params"]["mentor_net"]["bias"] = np.zeros(3, np.float32)
    path = _saved(tmp_path / "weights", weights)
    message = r"this run's network, got params.mentor_net.bias of shape \(3,\) not \(2,\)"
    with pytest.raises(CheckpointError, match=message):
        started_from(path, _state(0))
