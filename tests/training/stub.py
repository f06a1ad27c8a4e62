"""Two convolutions in place of KGMgT, two of its critic, and data: for tests of what surrounds."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from kgmgt_jax.data.phantom import write_cmrxrecon2023
from kgmgt_jax.models.critic import Critic
from kgmgt_jax.models.layers import Layers
from kgmgt_jax.mri.fourier import to_channels, to_complex
from kgmgt_jax.training import loop
from kgmgt_jax.types import Reconstruction
from tests.training.small import small_config
from tests.training.toy import Score


class TwoConvolutions(nn.Module):
    """Called as KGMgT is, and as differentiable; compiles in a second instead of a minute."""

    @nn.compact
    def __call__(self, target, preceding, succeeding, measurement=None, *, train=False):
        before = to_channels(jnp.stack([target, preceding]).mean(axis=0))
        mentor = to_channels(target) + Layers().conv(2, scale=0.1, name="mentor_net")(before)
        both = jnp.concatenate([mentor, to_channels(succeeding)], axis=-1)
        image = mentor + Layers().conv(2, scale=0.1, name="learner_net")(both)
        return Reconstruction(to_complex(image), to_complex(mentor))


def _critic(**fields):
    """A stub, whatever the fields of a critic are."""
    Critic(**fields)  # which they have to be
    return Score()


STUBS = {"build_model": lambda _: TwoConvolutions(), "Critic": _critic}  # by name in ``loop``


@pytest.fixture(scope="module")
def stub():
    """Stubs in the place of both networks, for the rest of the module."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in STUBS.items():
            patch.setattr(loop, name, value)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of two small phantoms."""
    folder = tmp_path_factory.mktemp("data")
    write_cmrxrecon2023(
        folder, [0, 1], shape=(32, 32), n_frames=4, n_slices=1, accelerations=(), acs=8
    )
    return folder


def loop_config(data="", **model):
    """A run of eight steps with a critic, checkpointed after each.

    Tests that need fewer steps stop it, and share its compiled step.
    """
    config = small_config(**model)
    config.data.update(crop=(32, 32), batch_size=4, acs=4)
    config.data.update(train=str(data), validation=str(data))
    config.loss.adversarial = 1e-3
    config.train.update(n_steps=8, log_every=1, eval_every=2, checkpoint_every=1)
    config.train.tensorboard = False
    return config


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """Keeps the compiled steps, since each run is that of a process of its own."""
    settings = {
        "jax_compilation_cache_dir": str(tmp_path_factory.getbasetemp() / "xla"),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
