"""The tiny network can learn one triplet by heart; half precision and recomputation cost nothing.

All slow: each compiles whole training steps.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.kgmgt import get_config
from kgmgt_jax.data.mask_sampler import MaskSampler
from kgmgt_jax.data.phantom import make_cine
from kgmgt_jax.data.transforms import triplets
from kgmgt_jax.metrics import psnr
from kgmgt_jax.models.critic import Critic
from kgmgt_jax.models.encoder import VGG, vgg19_features
from kgmgt_jax.models.initialisation import initialise
from kgmgt_jax.models.registry import build_model, freeze
from kgmgt_jax.training.objectives import CriticLoss, GeneratorLoss
from kgmgt_jax.training.optimizer import make_optimizers
from kgmgt_jax.training.state import TrainState, create_state
from kgmgt_jax.training.steps import apply_model, make_critic_step, make_generator_step

pytestmark = pytest.mark.slow
SIZE, N_STEPS = 64, 400


def _frames(seed: int, noise: float, frames: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Frames of a single-coil phantom under a regular mask, nominally 4x."""
    cine = make_cine(seed, shape=(SIZE, SIZE), n_frames=8, noise=noise, field_of_view_mm=400.0)
    mask = MaskSampler(("uniform_aligned",), (4.0,), 8).draw(
        np.random.default_rng(0), (8, SIZE, SIZE)
    )
    kspace = np.asarray(cine.kspace, np.complex64)
    return triplets(kspace.reshape(8, 1, SIZE, SIZE), mask, None, frames)


def _perceptual_features(image: jax.Array) -> dict[str, jax.Array]:
    return vgg19_features(_vgg19(), image)


@functools.cache
def _vgg19() -> Any:
    """VGG19 with random weights: none pretrained can be had here."""
    shape: Any = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), np.float32)
    return initialise(VGG(last="conv5_1", slope=0.0), 0, shape)


def _train(*, all_terms: bool) -> tuple[TrainState, float]:
    """`:tiny` on one noise-free triplet at its own learning rate; the state, and the last PSNR."""
    config = get_config("tiny")
    config.train.n_steps = N_STEPS
    model, optimizers = build_model(config.model), make_optimizers(config)
    critic = Critic(**freeze(config.critic.to_dict())) if all_terms else None
    state = create_state(model, critic, *optimizers, seed=0)
    step = make_generator_step(
        model,
        GeneratorLoss(critic, 1e-4, 1e-6, config.loss.mentor),
        optimizers[0],
        ema_decay=config.train.ema_decay,
    )
    features = _perceptual_features if all_terms else None
    step = jax.jit(functools.partial(step, features=features), donate_argnums=0)
    judge = critic and jax.jit(
        make_critic_step(model, CriticLoss(critic, config.loss.gradient_penalty), optimizers[1])
    )
    batch = {k: jnp.asarray(v) for k, v in _frames(3, 0.0, (2,)).items()}
    for _ in range(N_STEPS):
        if judge is not None:
            state, _ = judge(state, batch)
        state, metrics = step(state, batch)
    return state, float(metrics["psnr"])


@pytest.fixture(scope="module")
def by_l1() -> tuple[TrainState, float]:
    return _train(all_terms=False)


def test_a_triplet_is_learnt_by_heart(by_l1):
    assert by_l1[1] > 40


def test_a_triplet_is_learnt_by_heart_with_critic_and_perceptual_loss():
    assert _train(all_terms=True)[1] > 40


def test_half_precision_costs_no_image_quality(by_l1):
    """On phantoms the network has not seen."""
    state, config = by_l1[0], get_config("tiny")
    batches = [
        {k: jnp.asarray(v) for k, v in _frames(seed, 0.005, tuple(range(8))).items()}
        for seed in (11, 12)
    ]
    scores = {}
    for dtype in ("float32", "bfloat16"):
        config.model.dtype = dtype
        model = build_model(config.model)
        found = []
        for batch in batches:
            image = apply_model(model, state.eval_variables, batch)[0].image
            assert image.dtype == jnp.complex64
            reference = jnp.abs(batch["reference"])
            found.append(psnr(reference, jnp.abs(image), jnp.max(reference, axis=(1, 2))))
        scores[dtype] = np.concatenate(found)
    assert abs(scores["float32"].mean() - scores["bfloat16"].mean()) < 0.05
    assert (scores["float32"] != scores["bfloat16"]).any()


def test_recomputing_blocks_saves_memory_of_a_base_step():
    """Temporary memory of a compiled generator step, 192 x 192, one example."""
    sizes = {}
    for remat in (True, False):
        config = get_config("base")
        config.model.remat = remat
        model, optimizers = build_model(config.model), make_optimizers(config)
        create = functools.partial(create_state, model, None, *optimizers, seed=0)
        step = make_generator_step(model, GeneratorLoss(), optimizers[0], ema_decay=0.999)
        image = jax.ShapeDtypeStruct((1, 192, 192), np.complex64)
        names = ("target", "preceding", "succeeding", "reference")
        batch: dict[str, Any] = dict.fromkeys(names, image)
        batch["kspace"] = jax.ShapeDtypeStruct((1, 1, 192, 192), np.complex64)
        batch["mask"] = jax.ShapeDtypeStruct((1, 192, 192), np.float32)
        compiled = jax.jit(step, donate_argnums=0).lower(jax.eval_shape(create), batch).compile()
        sizes[remat] = compiled.memory_analysis().temp_size_in_bytes / 2**20
    print(f"temporary memory: {sizes[True]:.0f} MiB recomputed, {sizes[False]:.0f} MiB stored")
    assert sizes[True] < 0.6 * sizes[False]
