"""Stand-ins for the network that compile in seconds, with its calling convention."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import Mesh

from configs.kgmgt import get_config
from kgmgt_jax.models.aggregation import ReferenceAggregation, TdFA
from kgmgt_jax.models.block_options import BlockOptions
from kgmgt_jax.models.critic import Critic
from kgmgt_jax.models.denoiser import UnrolledDenoiser
from kgmgt_jax.models.encoder import FrameEncoder
from kgmgt_jax.models.kgmgt import KGMgT
from kgmgt_jax.models.layers import BatchNorm, Layers
from kgmgt_jax.models.matching import best_match
from kgmgt_jax.models.motion import align
from kgmgt_jax.models.registry import build_model
from kgmgt_jax.models.transformer import TransformerBody
from kgmgt_jax.mri.consistency import hard_consistency
from kgmgt_jax.mri.fourier import to_channels, to_complex
from kgmgt_jax.training import parallel
from kgmgt_jax.training.state import NetworkState, create_state
from kgmgt_jax.training.update import make_update
from kgmgt_jax.types import Reconstruction
from tests.training.small import small_config


class Convolution(nn.Module):
    """One convolution (and batch norm, if asked for) between the frame and data consistency."""

    norm: bool = False
    dtype: str | None = None

    @nn.compact
    def __call__(self, target, preceding, succeeding, measurement, *, train=False):
        frames = jnp.concatenate([to_channels(f) for f in (target, preceding, succeeding)], -1)
        y = Layers(self.dtype).conv(2, name="frame_encoder")(frames)
        y = Layers(self.dtype).conv(2, name="down_medium_offset")(y)
        if self.norm:
            y = BatchNorm(name="norm")(y, train=train)
        first = target + to_complex(y)
        return Reconstruction(
            hard_consistency(first, measurement.kspace, measurement.mask), mentor=first
        )


class Score(nn.Module):
    """A critic of two convolutions (and batch norm, if asked for)."""

    norm: bool = False

    @nn.compact
    def __call__(self, image, *, train=False):
        y = Layers().conv(4, stride=4, name="first")(image)
        if self.norm:
            y = BatchNorm(name="norm")(y, train=train)
        y = nn.tanh(y)
        return jnp.mean(Layers().conv(1, name="second")(y), axis=(1, 2, 3))


class OneStage(nn.Module):
    """Everything that KGMgT does to its arrays, once: match, warp, aggregate, attend, transform."""

    remat: bool = True

    @nn.compact
    def __call__(self, target, preceding, succeeding, measurement, *, train=False):
        options = BlockOptions(width=4, n_heads=2, window=4, rect_window=(8, 2))
        encoder = FrameEncoder(channels=(4, 4, 4), name="frame_encoder")
        before, now = encoder(to_channels(preceding)), encoder(to_channels(target))
        large, _, _ = align(best_match(now.query, before.key, search_radius=2), before.values)
        x = options.layers.conv(4, name="head")(to_channels(target))
        stage = TdFA(
            ReferenceAggregation(channels=4, n_offset_groups=1, parent=None),
            TransformerBody(options, 1, 2, drop_path=0.1, remat=self.remat, parent=None),
            name="down_large",
        )
        h, _ = stage(x, before.values[0], large, train=train)
        first = target + to_complex(options.layers.conv(2, name="tail")(h))
        denoiser = UnrolledDenoiser(n_iterations=1, channels=4, name="denoiser")
        return Reconstruction(denoiser(first, measurement, train=train), mentor=first)


TOY = (Convolution(), Score())


def toy_config(**train) -> Any:
    """A configuration with all losses that need no files; ``train`` sets fields of that section."""
    config: Any = get_config("tiny")
    config.loss.update(adversarial=1e-2, mentor=0.5)
    config.train.update(**train)
    return config


def small_kgmgt() -> tuple[tuple[KGMgT, Critic], Any]:
    """A small KGMgT with alignment and rectangular windows, its critic, and the configuration."""
    config = small_config(alignment=True, rect_window=((8, 2), (4, 2), (4, 2)))
    config.loss.update(adversarial=1e-2, mentor=0.5)
    return (build_model(config.model.to_dict()), Critic(**config.critic)), config


def sgd() -> optax.GradientTransformation:
    """Plain gradient descent that keeps its last gradient in its state."""
    return optax.chain(optax.trace(decay=0.0), optax.scale(-1e-2))


def last_gradient(network: NetworkState) -> list[np.ndarray]:
    """The gradient that ``sgd`` took last, as leaves."""
    return [np.asarray(leaf) for leaf in jax.tree.leaves(network.opt_state[0].trace)]


def three_steps(
    networks: tuple[nn.Module, nn.Module], config: Any, mesh: Mesh, batch: dict
) -> dict[str, Any]:
    """Critic and generator steps on one batch, three times.

    Args:
        networks: generator and critic.
        config: with its sections ``loss`` and ``train``.
        mesh: the devices.
        batch: of all processes together.

    Returns:
        The first gradients of both networks, flat, and the metrics after the third step.
    """
    optimizers = (sgd(), sgd())
    state = parallel.replicate(create_state(*networks, *optimizers, seed=0), mesh)
    update = make_update(config, *networks, optimizers, state, mesh)
    index, count = parallel.data_share(mesh)
    n = len(batch["target"]) // count
    mine = {name: array[index * n : (index + 1) * n] for name, array in batch.items()}
    first, metrics = {}, {}
    for step in range(3):
        state, metrics = update(state, parallel.put_batch(mine, mesh))
        if step == 0:
            for name in ("generator", "critic"):
                leaves = last_gradient(getattr(state, name))
                first[name] = np.concatenate([leaf.ravel() for leaf in leaves])
    return first | {f"metrics/{name}": np.asarray(value) for name, value in metrics.items()}


def check_alike(got: dict[str, Any], want: dict[str, Any]) -> None:
    """Gradients to 1e-4 in relative L2, metrics to 1e-4."""
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert np.linalg.norm(value) > 0, name
        error = np.linalg.norm(got[name] - value) / np.linalg.norm(value)
        assert error < 1e-4, f"{name}: {error}"


def ffts_of(jaxpr):
    """Input types of every Fourier transform of a jaxpr and of those inside it."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "fft":
            yield eqn.invars[0].aval.dtype
        for value in jax.tree.leaves(eqn.params, is_leaf=lambda p: hasattr(p, "jaxpr")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from ffts_of(inner)
