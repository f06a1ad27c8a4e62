"""What the generator is trained for: which losses of images, of which image, by which weights."""

import jax
import jax.numpy as jnp
import pytest

from kgmgt_jax.losses import IMAGE_LOSSES
from kgmgt_jax.training.checks import check_config
from kgmgt_jax.training.objectives import GeneratorLoss
from kgmgt_jax.training.state import create_state
from kgmgt_jax.training.update import make_steps
from kgmgt_jax.types import Reconstruction
from tests.training.small import random_batch
from tests.training.toy import TOY, sgd, toy_config


def test_mentor_s_loss_is_of_the_mentor_s_image():
    reference = jnp.zeros((1, 4, 4), jnp.complex64)
    output = Reconstruction(reference + 1, reference + 6j)
    total, (terms, _) = GeneratorLoss(mentor=0.5)(output, reference, (None, {}), None)
    assert (float(terms["l1"]), float(terms["mentor"]), float(total)) == (0.5, 3.0, 2.0)


def test_losses_of_images_are_added_up_by_their_weights():
    reference = jnp.ones((1, 8, 8), jnp.complex64)
    output = Reconstruction(reference + 1, reference + 3)
    loss = GeneratorLoss(mentor=0.5, image={"l1": 2.0, "l2": 3.0, "dssim": 0.0})
    total, (terms, _) = loss(output, reference, (None, {}), None)
    assert (float(terms["l1"]), float(terms["l2"])) == (0.5, 0.5) and "dssim" not in terms
    assert float(terms["mentor"]) == 2 * 1.5 + 3 * 4.5
    assert float(total) == 2.5 + 0.5 * 16.5


def test_frames_without_any_signal_have_no_part_in_the_psnr():
    reference = jnp.ones((2, 4, 4), jnp.complex64).at[1].set(0)
    output = Reconstruction(reference + 0.1, reference)
    _, (metrics, _) = GeneratorLoss()(output, reference, (None, {}), None)
    assert float(metrics["psnr"]) == pytest.approx(20.0, abs=1e-3)


def test_a_loss_of_one_s_own_is_weighed_by_the_config(monkeypatch):
    config = toy_config()
    config.loss.image.update(l1=0.0)
    with config.unlocked():
        config.loss.image["own"] = 2.0
    monkeypatch.setitem(IMAGE_LOSSES, "own", lambda a, b: jnp.mean(jnp.abs(a - b) ** 4))
    check_config(config)
    state = create_state(*TOY, sgd(), sgd(), seed=0)
    step, _ = make_steps(config, *TOY, (sgd(), sgd()))
    _, metrics = jax.jit(step)(state, random_batch(4))
    rest = config.loss.adversarial * metrics["adversarial"]
    rest += config.loss.mentor * metrics["mentor"]
    assert float(metrics["loss"]) == pytest.approx(float(2 * metrics["own"] + rest), rel=1e-5)
