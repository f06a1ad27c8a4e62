"""Whole cines: equal to frame by frame, each frame encoded once, memory that does not grow."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.evaluation import sequence
from kgmgt_jax.evaluation.cine import CineInput
from kgmgt_jax.evaluation.sequence import OnlineReconstructor, reconstruct_cine
from kgmgt_jax.models.initialisation import initialise
from kgmgt_jax.models.kgmgt import KGMgT
from kgmgt_jax.models.registry import Network, build_model
from kgmgt_jax.types import Measurement
from tests.training.small import random_batch, small_config

SIZE, TOLERANCE = 32, 1e-5


@functools.cache
def _network(alignment: bool = False) -> tuple[KGMgT, dict]:
    model = build_model(small_config(alignment=alignment, search_radius=1).model)
    frame = jnp.zeros((1, SIZE, SIZE), jnp.complex64)
    measurement = Measurement(frame[:, None], jnp.zeros((1, SIZE, SIZE)))
    return model, initialise(model, 0, frame, frame, frame, measurement)


def _cine(n_frames: int, n_coils: int = 1) -> CineInput:
    batch = random_batch(n_frames, SIZE)
    if n_coils == 1:
        return CineInput(batch["target"], batch["kspace"], batch["mask"])
    sens = np.stack([np.full((SIZE, SIZE), v, np.complex64) for v in (0.6, 0.8j)])
    kspace = batch["kspace"] * np.array([0.6, 0.8j], np.complex64)[:, None, None]
    return CineInput(batch["target"], kspace, batch["mask"], sens)


@functools.partial(jax.jit, static_argnums=0)
def _apply(model, variables, *arguments):
    return model.apply(variables, *arguments).image


def frame_by_frame(model: Network, variables: dict, cine: CineInput, circular: bool) -> np.ndarray:
    """Each frame from itself and its neighbours, one after the other."""
    n_frames, images = len(cine.images), []
    for t in range(n_frames):
        before, after = (t - 1, t + 1) if circular else (max(t - 1, 0), min(t + 1, n_frames - 1))
        frames = (cine.images[i % n_frames][None] for i in (t, before, after))
        sens = None if cine.sens is None else cine.sens[None]
        measurement = Measurement(cine.kspace[t][None], cine.mask[t][None], sens)
        images.append(_apply(model, variables, *frames, measurement)[0])
    return np.stack(images)


def _check(n_frames: int, frames_at_once: int, circular: bool, alignment: bool = False) -> None:
    cine = _cine(n_frames)
    options = {"circular": circular, "frames_at_once": frames_at_once}
    found = reconstruct_cine(*_network(alignment), cine, **options)
    expected = frame_by_frame(*_network(alignment), cine, circular)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE * np.abs(expected).max())


@pytest.mark.parametrize(("n_frames", "frames_at_once"), [(1, 1), (5, 1), (7, 3)])
def test_a_cine_is_its_frames(n_frames, frames_at_once):
    _check(n_frames, frames_at_once, circular=True)


def test_a_real_time_cine_is_its_frames():
    _check(5, 2, circular=False)


@pytest.mark.slow  # compiles a program each
@pytest.mark.parametrize("circular", [True, False])
@pytest.mark.parametrize(
    ("n_frames", "frames_at_once"), [(1, 4), (2, 1), (2, 4), (3, 1), (6, 6), (6, 5), (8, 4)]
)
def test_a_cine_of_any_length_is_its_frames(n_frames, frames_at_once, circular):
    _check(n_frames, frames_at_once, circular, alignment=True)


def test_several_coils_share_their_maps():
    cine = _cine(3, n_coils=2)
    expected = frame_by_frame(*_network(), cine, True)
    found = reconstruct_cine(*_network(), cine, frames_at_once=2)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE * np.abs(expected).max())


def test_progress_is_told_of_every_frame_and_changes_nothing():
    cine, done = _cine(7), []
    found = reconstruct_cine(*_network(), cine, frames_at_once=3, progress=done.append)
    assert done == [3, 3, 1]
    whole = reconstruct_cine(*_network(), cine, frames_at_once=3)
    np.testing.assert_allclose(found, whole, atol=TOLERANCE * np.abs(whole).max())


def test_online_is_one_frame_late_and_equal():
    cine, online = _cine(4), OnlineReconstructor(*_network())
    expected = frame_by_frame(*_network(), cine, circular=False)
    for _ in range(2):  # a second scan starts anew
        pushed = [online.push(CineInput(*(x[t : t + 1] for x in cine[:3]))) for t in range(4)]
        assert pushed[0] is None
        found = np.stack([*pushed[1:], online.finish()])
        np.testing.assert_allclose(found, expected, atol=TOLERANCE * np.abs(expected).max())
    assert online.finish() is None


@pytest.mark.parametrize("online", [False, True])
def test_arrays_are_moved_when_they_come_and_go_and_not_in_between(online):
    model, variables = _network()
    variables, cine = jax.device_put(variables), _cine(1)
    scan = OnlineReconstructor(model, variables)

    def run():
        if not online:
            return reconstruct_cine(model, variables, cine)
        scan.push(cine), scan.push(cine)
        return scan.finish()

    run()  # what is compiled may have constants
    with jax.transfer_guard("disallow"):
        run()


@pytest.mark.slow  # compiles everything anew
@pytest.mark.parametrize(("n_frames", "frames_at_once"), [(5, 1), (7, 3), (2, 1)])
@pytest.mark.parametrize("circular", [True, False])
def test_every_input_frame_is_encoded_once(monkeypatch, n_frames, frames_at_once, circular):
    """Counts the frames that pass through the encoder while the program runs."""
    encoded = []

    def count(frames):
        encoded.append(len(frames))

    encode = KGMgT.encode

    def counted(self, frame):
        if frame.shape[0] and not _in_learner[0]:
            jax.debug.callback(count, frame)
        return encode(self, frame)

    _in_learner, learner = [False], KGMgT.learner

    def marked(self, *arguments, **options):
        _in_learner[0] = True  # the mentor's output is encoded there, once for each frame
        try:
            return learner(self, *arguments, **options)
        finally:
            _in_learner[0] = False

    jax.clear_caches()
    monkeypatch.setattr(KGMgT, "encode", counted)
    monkeypatch.setattr(KGMgT, "learner", marked)
    options = {"circular": circular, "frames_at_once": frames_at_once}
    jax.block_until_ready(reconstruct_cine(*_network(), _cine(n_frames), **options))
    jax.effects_barrier()
    jax.clear_caches()
    assert sum(encoded) == n_frames


@pytest.mark.slow
def test_memory_does_not_grow_with_the_cine():
    model, variables = _network()

    def temporary(n_frames: int) -> int:
        cine = jax.tree.map(jnp.asarray, _cine(n_frames))
        lowered = sequence._reconstruct_whole.lower(model, variables, cine, True, 1)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    short, long = temporary(4), temporary(32)
    frame = SIZE * SIZE * 8
    assert long - short <= 2 * 28 * frame  # copies of inputs and outputs, no features


def test_bad_groups_and_frames_are_refused():
    with pytest.raises(ValueError, match="frames_at_once=0"):
        reconstruct_cine(*_network(), _cine(2), frames_at_once=0)
    with pytest.raises(ValueError, match="one frame at a time"):
        OnlineReconstructor(*_network()).push(_cine(2))


@pytest.mark.parametrize(
    "change",
    [
        lambda cine: cine._replace(mask=cine.mask[0]),
        lambda cine: cine._replace(mask=np.repeat(cine.mask, 2, 0)),
        lambda cine: cine._replace(kspace=cine.kspace[:, 0]),
        lambda cine: cine._replace(images=cine.images[..., :-2]),
    ],
)
def test_arrays_that_do_not_fit_are_refused_and_do_no_harm(change):
    wrong = change(_cine(1))
    with pytest.raises(ValueError, match="expected"):
        reconstruct_cine(*_network(), wrong)
    online = OnlineReconstructor(*_network())
    with pytest.raises(ValueError, match="expected"):
        online.push(wrong)
    assert online.push(_cine(1)) is None
    assert online.finish() is not None


def test_a_frame_of_another_size_is_refused_until_the_scan_is_ended():
    cine, online = _cine(2), OnlineReconstructor(*_network())
    first, second = (CineInput(*(part[t : t + 1] for part in cine[:3])) for t in range(2))
    smaller = CineInput(*(part[..., :-8, :] for part in second[:3]))
    online.push(first)
    with pytest.raises(ValueError, match=r"shape \(1, 32, 32\), as the one before"):
        online.push(smaller)
    assert online.push(second) is not None
    online.finish()
    assert online.push(smaller) is None
