"""Whole cines by a network that keeps nothing between frames: equal to frame by frame."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.evaluation import triplets
from kgmgt_jax.evaluation.cine import CineInput
from kgmgt_jax.evaluation.sequence import OnlineReconstructor, reconstruct_cine
from kgmgt_jax.models.baselines.kigan import KIGAN
from kgmgt_jax.models.initialisation import initialise
from kgmgt_jax.training.state import example_inputs
from tests.evaluation.test_sequence import frame_by_frame
from tests.training.small import random_batch

MODEL, SIZE = KIGAN(n_cascades=1, channels=2, n_blocks=1), 16


@functools.cache
def _variables() -> dict:
    return initialise(MODEL, 0, *example_inputs())


def _cine(n_frames: int) -> CineInput:
    batch = random_batch(n_frames, SIZE)
    return CineInput(batch["target"], batch["kspace"], batch["mask"])


@pytest.mark.parametrize("circular", [True, False])
@pytest.mark.parametrize(("n_frames", "frames_at_once"), [(1, 1), (5, 2)])
def test_a_cine_is_its_frames(n_frames, frames_at_once, circular):
    cine, done = _cine(n_frames), []
    expected = frame_by_frame(MODEL, _variables(), cine, circular)
    options = {"circular": circular, "frames_at_once": frames_at_once}
    whole = reconstruct_cine(MODEL, _variables(), cine, **options)
    np.testing.assert_allclose(whole, expected, atol=1e-5)
    told = reconstruct_cine(MODEL, _variables(), cine, **options, progress=done.append)
    np.testing.assert_allclose(told, expected, atol=1e-5)
    assert sum(done) == n_frames and max(done) <= frames_at_once


def test_one_program_serves_cines_of_any_length_where_progress_is_told():
    triplets._refine.clear_cache()
    for n_frames in (3, 4, 5):
        options = {"frames_at_once": 2, "progress": lambda _: None}
        reconstruct_cine(MODEL, _variables(), _cine(n_frames), **options)
    assert triplets._refine._cache_size() == 1


def test_arrays_are_moved_when_they_come_and_go_and_not_in_between():
    variables = jax.device_put(_variables())
    reconstruct_cine(MODEL, variables, _cine(3), frames_at_once=2)
    with jax.transfer_guard("disallow"):
        reconstruct_cine(MODEL, variables, _cine(3), frames_at_once=2)


def test_memory_does_not_grow_with_the_cine():
    def temporary(n_frames: int) -> int:
        cine = jax.tree.map(jnp.asarray, _cine(n_frames))
        lowered = triplets._all_groups.lower(MODEL, _variables(), cine, True, 1)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    frame = SIZE * SIZE * 8
    assert temporary(32) - temporary(4) <= 2 * 28 * frame  # copies of inputs and outputs


def test_online_reconstruction_is_refused():
    with pytest.raises(TypeError, match=r"expected a KGMgT.*got KIGAN"):
        OnlineReconstructor(MODEL, _variables())
