"""Triplets and small networks for the tests of the comparators."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from kgmgt_jax.data.mask_sampler import MaskSampler
from kgmgt_jax.data.phantom import make_cine
from kgmgt_jax.data.transforms import triplets
from kgmgt_jax.models.initialisation import initialise
from kgmgt_jax.models.registry import build_model
from kgmgt_jax.mri.fourier import fft2c
from kgmgt_jax.training.state import example_inputs
from kgmgt_jax.training.steps import apply_model

SIZE = 32


def n_parameters(config: Any) -> int:
    """Parameters of a configuration's network, traced and never computed."""
    model = build_model(config.model)
    shapes = jax.eval_shape(model.init, jax.random.key(0), *example_inputs())
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))


@functools.cache
def phantom() -> dict[str, jax.Array]:
    """One noise-free single-coil triplet under a regular mask, nominally 4x."""
    cine = make_cine(3, shape=(SIZE, SIZE), n_frames=8, noise=0.0, field_of_view_mm=400.0)
    mask = MaskSampler(("uniform_aligned",), (4.0,), 4).draw(
        np.random.default_rng(0), (8, SIZE, SIZE)
    )
    kspace = np.asarray(cine.kspace, np.complex64).reshape(8, 1, SIZE, SIZE)
    return {name: jnp.asarray(x) for name, x in triplets(kspace, mask, None, (2,)).items()}


def start(model: Any) -> dict:
    """First variables of a network."""
    return jax.tree.map(jnp.asarray, initialise(model, 0, *example_inputs()))


def losses_by_heart(model: Any, n_steps: int, rate: float) -> tuple[float, float]:
    """L1 loss of the zero-filled triplet, and of the network after so many steps on it."""
    batch, optimizer = phantom(), optax.adam(rate)

    def loss(params):
        image = apply_model(model, {"params": params}, batch)[0].image
        return jnp.mean(jnp.abs(image - batch["reference"]))

    @jax.jit
    def step(params, state):
        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, value

    params = start(model)["params"]
    state, value = optimizer.init(params), jnp.inf
    for _ in range(n_steps):
        params, state, value = step(params, state)
    before = jnp.mean(jnp.abs(batch["target"] - batch["reference"]))
    return float(before), float(value)


def lost_measurement(model: Any) -> float:
    """How far the measured samples of a reconstruction are from the measurement, relatively."""
    batch = phantom()
    output, _ = jax.jit(lambda v: apply_model(model, v, batch))(start(model))
    kept = batch["mask"] * fft2c(output.image)
    kspace = batch["kspace"][:, 0]
    return float(jnp.linalg.norm(kept - kspace) / jnp.linalg.norm(kspace))


def influences(model: Any) -> list[float]:
    """Largest gradient of the reconstruction by target, preceding and succeeding frame."""
    batch = phantom()
    variables = start(model)
    frames = tuple(batch[name] for name in ("target", "preceding", "succeeding"))

    @jax.jit
    def gradients(frames):
        def energy(frames):
            named = dict(zip(("target", "preceding", "succeeding"), frames, strict=True))
            return jnp.sum(jnp.abs(apply_model(model, variables, batch | named)[0].image) ** 2)

        return jax.grad(energy)(frames)

    return [float(jnp.max(jnp.abs(gradient))) for gradient in gradients(frames)]
