"""Scores while training: by the averaged parameters, over all frames, of each frame's own peak."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from kgmgt_jax.data.transforms import fft2c
from kgmgt_jax.training.validation import make_validator
from kgmgt_jax.types import Reconstruction
from tests.data.draws import random_complex
from tests.training.small import random_batch


class _Scaled(nn.Module):
    """The target times one parameter."""

    @nn.compact
    def __call__(self, target, preceding, succeeding, measurement, *, train=False):
        image = target * self.param("scale", nn.initializers.ones, ())
        return Reconstruction(image, mentor=image)


def _batch(n, seed):
    batch = random_batch(n, 8, seed)
    brightness = np.arange(1, n + 1, dtype=np.float32)[:, None, None]
    return batch | {"reference": batch["reference"] * brightness, "id": np.arange(n)}


def test_score_is_the_mean_over_the_frames_of_all_batches():
    batches = [_batch(1, 0), _batch(3, 1)]
    state = SimpleNamespace(eval_variables={"params": {"scale": jnp.array(0.5)}})
    found = make_validator(_Scaled(), batches)(state)
    scores = []
    for batch in batches:
        for image, reference in zip(0.5 * batch["target"], batch["reference"], strict=True):
            error = np.mean((np.abs(image) - np.abs(reference)) ** 2)
            scores.append(10 * np.log10(np.abs(reference).max() ** 2 / error))
    assert found.metric == "psnr" and found.score == pytest.approx(np.mean(scores), rel=1e-5)
    np.testing.assert_allclose(found.reconstruction, 0.5 * batches[0]["target"], rtol=1e-6)
    np.testing.assert_array_equal(found.zero_filled, batches[0]["target"])
    np.testing.assert_array_equal(found.reference, batches[0]["reference"])


def test_blank_frames_are_not_scored(caplog):
    batch = _batch(3, 0)
    blank = batch | {"reference": batch["reference"] * np.array([1, 0, 1])[:, None, None]}
    state = SimpleNamespace(eval_variables={"params": {"scale": jnp.array(0.5)}})
    found = make_validator(_Scaled(), [blank])(state)
    assert "1 of 3 validation frames are blank" in caplog.text
    both = {name: array[[0, 2]] for name, array in batch.items()}
    assert found.score == pytest.approx(make_validator(_Scaled(), [both])(state).score, rel=1e-5)
    with pytest.raises(ValueError, match="expected frames with a signal"):
        make_validator(_Scaled(), [batch | {"reference": 0 * batch["reference"]}])


@pytest.mark.parametrize("n_coils", [1, 3])
def test_undersampled_scans_are_scored_by_what_was_held_out(caplog, n_coils):
    batch = _batch(3, 0)
    del batch["reference"]
    mask = np.zeros((3, 8, 8), np.float32)
    mask[:, ::2] = 1
    sens = random_complex(3, n_coils, 8, 8) if n_coils > 1 else np.ones((3, 1, 8, 8), np.complex64)
    kspace = fft2c(sens * batch["target"][:, None]) * mask[:, None]
    kspace[1] = 0  # a frame without signal
    batch |= {"sens": sens} if n_coils > 1 else {}
    batch |= {"held_mask": mask, "held_kspace": kspace}
    state = SimpleNamespace(eval_variables={"params": {"scale": jnp.array(0.9)}})
    found = make_validator(_Scaled(), [batch])(state)
    assert found.metric == "held_out" and found.score == pytest.approx(20, abs=1e-3)
    assert found.reference is None and "1 of 3 validation frames are blank" in caplog.text


def test_without_batches_there_is_no_score():
    assert make_validator(_Scaled(), [])(SimpleNamespace(eval_variables={})) is None
