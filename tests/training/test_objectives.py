"""What the generator is trained for: which losses of images, of which image, by which weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.losses import IMAGE_LOSSES, KSPACE_LOSSES
from kgmgt_jax.mri.consistency import adjoint, forward
from kgmgt_jax.mri.fourier import fft2c
from kgmgt_jax.training.checks import check_config
from kgmgt_jax.training.objectives import GeneratorLoss, HeldOutLoss
from kgmgt_jax.training.state import create_state
from kgmgt_jax.training.update import make_steps
from kgmgt_jax.types import Reconstruction
from tests.training.small import random_batch
from tests.training.toy import TOY, sgd, toy_config


def test_mentor_s_loss_is_of_the_mentor_s_image():
    reference = jnp.zeros((1, 4, 4), jnp.complex64)
    output = Reconstruction(reference + 1, reference + 6j)
    total, (terms, _) = GeneratorLoss(mentor=0.5)(
        output, {"reference": reference}, (None, {}), None
    )
    assert (float(terms["l1"]), float(terms["mentor"]), float(total)) == (0.5, 3.0, 2.0)


def test_losses_of_images_are_added_up_by_their_weights():
    reference = jnp.ones((1, 8, 8), jnp.complex64)
    output = Reconstruction(reference + 1, reference + 3)
    loss = GeneratorLoss(mentor=0.5, image={"l1": 2.0, "l2": 3.0, "dssim": 0.0})
    total, (terms, _) = loss(output, {"reference": reference}, (None, {}), None)
    assert (float(terms["l1"]), float(terms["l2"])) == (0.5, 0.5) and "dssim" not in terms
    assert float(terms["mentor"]) == 2 * 1.5 + 3 * 4.5
    assert float(total) == 2.5 + 0.5 * 16.5


def test_frames_without_any_signal_have_no_part_in_the_psnr():
    reference = jnp.ones((2, 4, 4), jnp.complex64).at[1].set(0)
    output = Reconstruction(reference + 0.1, reference)
    _, (metrics, _) = GeneratorLoss()(output, {"reference": reference}, (None, {}), None)
    assert float(metrics["psnr"]) == pytest.approx(20.0, abs=1e-3)


def _scan(n_coils: int = 2) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Images, and the batch of a scan of them whose every third line is held out."""
    parts = jax.random.normal(jax.random.key(0), (2, 2, n_coils + 1, 9, 8))
    drawn = parts[0] + 1j * parts[1]
    image, sens = drawn[:, 0], drawn[:, 1:]
    mask = jnp.zeros((2, 9, 8)).at[:, ::3].set(1)
    held = {"held_mask": mask, "held_kspace": forward(image, mask, sens), "sens": sens}
    return image, held


def test_what_was_measured_and_held_out_is_no_error():
    image, batch = _scan()
    loss = HeldOutLoss({"l1": 0.5, "l2": 0.5}, mentor=1.0)
    total, (terms, judge) = loss(Reconstruction(image, image), batch, (None, "state"), None)
    assert float(total) < 1e-5 and judge == "state"
    assert set(terms) == {"loss", "kspace_l1", "kspace_l2", "mentor"}


def test_nothing_but_what_was_held_out_counts():
    image, batch = _scan()
    loss = HeldOutLoss({"l2": 1.0})

    def total(image, batch):
        return loss(Reconstruction(image, image), batch, (None, {}), None)[0]

    mask = batch["held_mask"]
    single = {"held_mask": mask, "held_kspace": forward(image, mask)}
    elsewhere = image + adjoint(fft2c(3j * image)[:, None], 1 - mask)
    assert float(total(elsewhere, single)) == pytest.approx(0, abs=1e-5)
    slope = jax.grad(total)(1.5 * image, single)
    with_reference = jax.grad(total)(1.5 * image, single | {"reference": 2 * image})
    assert abs(slope).max() > 0
    np.testing.assert_array_equal(slope, with_reference)


def test_losses_of_kspace_are_added_up_by_their_weights():
    image, batch = _scan()
    output = Reconstruction(1.5 * image, 3 * image)  # errors of 0.5 and 2 times what was measured
    loss = HeldOutLoss({"l1": 2.0, "l2": 3.0}, mentor=0.5)
    total, (terms, _) = loss(output, batch | {"reference": image}, (None, {}), None)
    assert float(terms["kspace_l1"]) == pytest.approx(0.5, rel=1e-5)
    assert float(terms["kspace_l2"]) == pytest.approx(0.5, rel=1e-5)
    assert float(terms["mentor"]) == pytest.approx(10, rel=1e-5)
    assert float(total) == pytest.approx(2.5 + 5, rel=1e-5)
    peak, error = jnp.abs(image).max((1, 2)), 0.5 * jnp.abs(image)
    expected = jnp.mean(10 * jnp.log10(peak**2 / jnp.mean(error**2, (1, 2))))
    assert float(terms["psnr"]) == pytest.approx(float(expected), rel=1e-4)


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


def test_a_loss_of_kspace_of_one_s_own_is_weighed_by_the_config(monkeypatch):
    config = toy_config()
    config.loss.update(adversarial=0.0, image={"l1": 0.0}, kspace={"l2": 1.0})
    config.data.held_out = 0.4
    with config.unlocked():
        config.loss.kspace["own"] = 2.0
    monkeypatch.setitem(KSPACE_LOSSES, "own", lambda a, b: jnp.mean(jnp.abs(a - b)))
    check_config(config)
    batch = random_batch(4)
    held = {"held_mask": 1 - batch["mask"]}
    held["held_kspace"] = np.asarray(
        fft2c(batch["reference"])[:, None] * held["held_mask"][:, None]
    )
    state = create_state(TOY[0], None, sgd(), sgd(), seed=0)
    step, critic_step = make_steps(config, TOY[0], None, (sgd(), sgd()))
    _, metrics = jax.jit(step)(state, batch | held)
    rest = metrics["kspace_l2"] + config.loss.mentor * metrics["mentor"]
    assert float(metrics["loss"]) == pytest.approx(
        float(2 * metrics["kspace_own"] + rest), rel=1e-5
    )
    assert critic_step is None and "l1" not in metrics
