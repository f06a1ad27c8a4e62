"""Networks from checkpoints, what they are given, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from kgmgt_jax.data.filling import fill_gaps
from kgmgt_jax.data.transforms import ifft2c
from kgmgt_jax.evaluation.cine import CineInput
from kgmgt_jax.evaluation.classical_methods import ClassicalMethod
from kgmgt_jax.evaluation.methods import Method
from kgmgt_jax.evaluation.symmetries import SYMMETRIES
from kgmgt_jax.models.baselines.kigan import KIGAN
from kgmgt_jax.models.initialisation import initialise
from kgmgt_jax.training.state import example_inputs
from kgmgt_jax.training.weights import CheckpointError, save_weights
from tests.training.small import random_batch


def test_frames_at_once_change_nothing_but_the_steps():
    model, batch = KIGAN(n_cascades=1, channels=2, n_blocks=1), random_batch(5, 16)
    variables, images = initialise(model, 0, *example_inputs()), []
    for frames_at_once, steps in ((1, [1] * 5), (2, [2, 2, 1])):
        method = Method("kigan", "made up", model, variables, frames_at_once=frames_at_once)
        done: list[int] = []
        images.append(method.reconstruct(batch["kspace"], batch["mask"], None, done.append))
        assert done == steps
        assert method.program(batch["kspace"], batch["mask"], None).n_frames == frames_at_once
    np.testing.assert_allclose(*images, atol=1e-5)


@pytest.mark.parametrize("n_copies", [2, 5])
def test_self_ensemble_is_the_mean_over_symmetric_cines(n_copies):
    model, batch = KIGAN(n_cascades=1, channels=2, n_blocks=1), random_batch(3, 16)
    variables = initialise(model, 0, *example_inputs())
    alone, ensemble = (
        Method("kigan", "made up", model, variables, self_ensemble=n) for n in (1, n_copies)
    )
    expected = np.zeros((3, 16, 16), np.complex64)
    for symmetry in SYMMETRIES[:n_copies]:
        kspace, mask = (jnp.asarray(batch[name]) for name in ("kspace", "mask"))
        other = symmetry.of_cine(CineInput(kspace[:, 0], kspace, mask))
        image = alone.reconstruct(np.asarray(other.kspace), np.asarray(other.mask), None)
        expected += np.asarray(symmetry.undone(jnp.asarray(image))) / n_copies
    done: list[int] = []
    image = ensemble.reconstruct(batch["kspace"], batch["mask"], None, done.append)
    np.testing.assert_allclose(image, expected, atol=1e-5 * np.abs(expected).max())
    one = alone.reconstruct(batch["kspace"], batch["mask"], None)
    assert np.abs(image - one).max() > 1e-3 * np.abs(one).max()
    assert sum(done) == 3 and min(done) >= 0 and len(done) == 3 * n_copies
    assert ensemble.program(batch["kspace"], batch["mask"], None).n_times == n_copies


@pytest.mark.parametrize("n_copies", [0, 9])
def test_impossible_self_ensembles_are_refused(n_copies):
    with pytest.raises(ValueError, match=f"self_ensemble from 1 to 8, got {n_copies}"):
        Method("any", "made up", None, {}, self_ensemble=n_copies)


def test_ends_of_a_cine_that_does_not_wrap_around_are_no_neighbours():
    model, batch = KIGAN(n_cascades=1, channels=2, n_blocks=1), random_batch(5, 16)
    variables = initialise(model, 0, *example_inputs())
    around, with_ends = (
        Method("kigan", "made up", model, variables, circular).reconstruct(
            batch["kspace"], batch["mask"], None
        )
        for circular in (True, False)
    )
    changed = np.abs(around - with_ends).max(axis=(1, 2)) > 1e-3
    assert changed.tolist() == [True, False, False, False, True]


def test_masks_that_stay_the_same_have_weights_of_their_own():
    method = Method.load("", "pretrained")
    still, moving = np.ones((2, 3, 3), np.float32), np.stack([np.ones((3, 3)), np.eye(3)])
    assert method.variables_for(moving) is method.variables
    leaves = map(jax.tree.leaves, (method.variables_for(still), method.variables))
    assert any(not np.array_equal(a, b) for a, b in zip(*leaves, strict=True))


@pytest.mark.parametrize("input_fill", ["zero", "average", "blended"])
@pytest.mark.parametrize("maps_of_frames", [None, False, True])
def test_inputs_are_the_same_where_an_accelerator_makes_them(
    input_fill, maps_of_frames, monkeypatch
):
    batch = random_batch(4, 16)
    kspace, mask, sens = batch["kspace"], batch["mask"], None
    if maps_of_frames is not None:
        sens = np.full((4, 2, 16, 16), np.sqrt(0.5), np.complex64)
        sens[:, 1] *= np.exp(1j * np.arange(4))[:, None, None]
        kspace = np.concatenate([kspace, 2 * kspace], axis=1)
        sens = sens if maps_of_frames else sens[0]
    method = Method("", "", None, {}, input_fill=input_fill)
    here, scale = method._input(kspace, mask, sens)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with jax.transfer_guard("disallow"):  # arrays are sent once, not by each who takes them
        there, other = method._input(kspace, mask, sens)
    assert other == pytest.approx(scale, rel=1e-5)
    for expected, got in zip(here, there, strict=True):
        if expected is None:
            assert got is None
        else:
            assert isinstance(got, np.ndarray)
            np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("input_fill", ["zero", "average"])
def test_inputs_are_filled_as_in_training(input_fill):
    batch, model = random_batch(5, 16), KIGAN(n_cascades=1, channels=2, n_blocks=1)
    arrays = batch["kspace"], batch["mask"]
    method = Method("", "", model, {}, input_fill=input_fill, frames_at_once=5)
    cine = method.program(*arrays, None)[1][1]
    expected = ifft2c(fill_gaps(*arrays, input_fill))[:, 0]
    expected /= np.percentile(np.abs(expected), 99)
    np.testing.assert_allclose(cine.images, expected, atol=1e-5)


def test_costs_are_those_of_as_many_frames_with_the_maps_they_have():
    maps = np.ones((5, 1, 16, 16), np.complex64) * np.exp(1j * np.arange(5))[:, None, None, None]
    batch, method = random_batch(5, 16), Method("", "", None, {}, frames_at_once=2)
    cine = method.program(batch["kspace"], batch["mask"], maps)[1][1]
    np.testing.assert_allclose(cine.sens, maps[:2], atol=1e-6)


@pytest.mark.parametrize("types", [(">c8", ">f4"), ("c16", "bool"), ("c16", ">i2")])
def test_arrays_come_in_any_precision_and_byte_order(types):
    batch, model = random_batch(5, 16), KIGAN(n_cascades=1, channels=2, n_blocks=1)
    network = Method("", "", model, initialise(model, 0, *example_inputs()))
    kspace, sens = batch["kspace"], np.ones((1, 16, 16), np.complex64)
    other = kspace.astype(types[0]), batch["mask"].astype(types[1]), sens.astype(types[0])
    for method in (network, ClassicalMethod("zero_filled")):
        image = method.reconstruct(*other)
        np.testing.assert_array_equal(image, method.reconstruct(kspace, batch["mask"], sens))


def test_samples_outside_the_mask_are_not_looked_at():
    model, batch = KIGAN(n_cascades=1, channels=2, n_blocks=1), random_batch(3, 16)
    method = Method("kigan", "made up", model, initialise(model, 0, *example_inputs()))
    polluted = np.where(batch["mask"][:, None] > 0, batch["kspace"], np.complex64(np.nan))
    images = (method.reconstruct(k, batch["mask"], None) for k in (batch["kspace"], polluted))
    np.testing.assert_array_equal(*images)
    run, arguments, *_ = method.program(polluted, batch["mask"], None)
    assert np.isfinite(run(*arguments)).all()


@pytest.mark.parametrize(
    ("n_coils", "value", "message"),
    [(1, np.nan, "expected finite kspace"), (2, 1.0, "n = 1 coils without sens")],
)
def test_arrays_that_are_no_cine_are_refused(n_coils, value, message):
    kspace = np.full((3, n_coils, 16, 16), value, np.complex64)
    method = Method("any", "made up", None, {})
    with pytest.raises(ValueError, match=message):
        method.reconstruct(kspace, np.ones((3, 16, 16), np.float32), None)


@pytest.mark.parametrize(("asked", "expected"), [(None, True), (False, False), (True, True)])
def test_cines_wrap_around_as_in_training_unless_told_otherwise(asked, expected):
    assert Method.load("", "pretrained", circular=asked).circular == expected


def test_how_a_network_is_computed_can_be_chosen_where_it_has_the_choice(tmp_path, monkeypatch):
    computing = {"dtype": "bfloat16", "pallas": True}
    network = Method.load("", "pretrained", computing=computing).model
    assert (network.dtype, network.pallas) == ("bfloat16", True)
    assert not Method.load("", "pretrained").model.pallas
    assert Method.load("", "pretrained", frames_at_once=4).frames_at_once == 4
    config = ConfigDict({"model": {"network": "modl"}, "data": {"circular": True}})
    monkeypatch.setattr("kgmgt_jax.evaluation.methods.load_weights", lambda path: (config, {}))
    monkeypatch.setattr("kgmgt_jax.evaluation.methods.load_item", lambda *args: None)
    assert Method.load("", tmp_path, computing=computing).model.dtype == "bfloat16"


@pytest.mark.parametrize(("asked", "expected"), [(None, 12), (0, 0), (6, 6)])
def test_files_have_as_many_virtual_coils_as_in_training_unless_told_otherwise(
    tmp_path, monkeypatch, asked, expected
):
    config = ConfigDict({"model": {"network": "modl"}, "data": {"virtual_coils": 12}})
    monkeypatch.setattr("kgmgt_jax.evaluation.methods.load_weights", lambda path: (config, {}))
    monkeypatch.setattr("kgmgt_jax.evaluation.methods.load_item", lambda *args: None)
    assert Method.load("", tmp_path, virtual_coils=asked).virtual_coils == expected


def test_a_network_is_printed_without_its_weights():
    model = KIGAN(n_cascades=1, channels=2, n_blocks=1)
    method = Method("kigan", "made up", model, initialise(model, 0, *example_inputs()))
    assert "array" not in repr(method) and "made up" in repr(method)
    assert method == method and method != Method.load("", "pretrained")


def test_variables_without_their_collections_are_refused():
    model, batch = KIGAN(n_cascades=1, channels=2, n_blocks=1), random_batch(1, 16)
    params = initialise(model, 0, *example_inputs())["params"]
    with pytest.raises(CheckpointError, match="made up: expected weights of the model"):
        Method("kigan", "made up", model, params).reconstruct(batch["kspace"], batch["mask"], None)


def test_a_checkpoint_that_says_nothing_of_its_inputs_has_the_usual_ones(tmp_path):
    model = KIGAN(n_cascades=1, channels=2, n_blocks=1)
    fields = {"network": "kigan", "n_cascades": 1, "channels": 2, "n_blocks": 1}
    variables = initialise(model, 0, *example_inputs())
    method = Method.load("", save_weights(tmp_path / "one", {"model": fields}, variables))
    assert (method.circular, method.input_fill, method.sens) == (True, "zero", "espirit")


@pytest.mark.parametrize(
    "method", [Method("any", "made up", None, {}), ClassicalMethod("temporal_average")]
)
@pytest.mark.parametrize(
    ("mask", "sens", "message"),
    [
        (255, 1.0, "zeros and ones, got values from 255"),
        (1, 0.5, "got sums from 0.25 to 0.25;"),
        (1, np.nan, "got sums from nan"),
    ],
)
def test_masks_and_maps_of_another_scale_are_refused(method, mask, sens, message):
    kspace, maps = np.ones((2, 1, 8, 8), np.complex64), np.full((1, 8, 8), sens, np.complex64)
    with pytest.raises(ValueError, match=message):
        method.reconstruct(kspace, jnp.full((2, 8, 8), mask, jnp.uint8), maps)


def test_an_accelerator_that_is_named_and_missing_is_refused(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with pytest.raises(ValueError, match="expected a device of JAX_PLATFORMS=cuda, got a cpu"):
        Method.load("", "pretrained")
