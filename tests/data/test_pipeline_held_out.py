"""Batches to train on without a reference: what is given, what is held out, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from kgmgt_jax.data.augmentation import Augmentation
from kgmgt_jax.data.file_slices import FileSlices
from kgmgt_jax.data.mask_sampler import MaskSampler
from kgmgt_jax.data.pipeline import TripletOptions, make_training_loader
from kgmgt_jax.data.transforms import fft2c
from tests.data.draws import random_complex
from tests.data.small_files import take


def _options(crop=(12, 10), augmentation=None, **more) -> TripletOptions:
    kinds, accelerations = ("variable_density", "kt_uniform"), (2.0, 3.0)
    augmentation = augmentation or Augmentation(crop=crop)
    return TripletOptions(MaskSampler(kinds, accelerations, 4), augmentation, **more)


def _undersampled(root: Path, shape=(4, 1, 16, 12), name: str = "P1") -> Path:
    """A file of which each frame measured every second line and the central four."""
    mask = np.zeros((shape[0], *shape[2:]), np.float32)
    for frame in range(shape[0]):
        mask[frame, frame % 2 :: 2] = 1
    mask[:, shape[2] // 2 - 2 : shape[2] // 2 + 2] = 1
    np.save(root / f"{name}_kspace.npy", random_complex(*shape) * mask[:, None])
    np.save(root / f"{name}_mask.npy", mask)
    return root / f"{name}_kspace.npy"


def _held_out_loader(*paths: Path, crop=(None, None), **settings):
    still = Augmentation(crop=crop, flips=False, phase=False)
    options = _options(augmentation=still, held_out=0.5)
    source = FileSlices(paths, acs=4, undersampled=True)
    return make_training_loader(source, options, **{"batch_size": 4, "seed": 7} | settings)


@pytest.mark.parametrize("n_coils", [1, 3])
def test_what_is_given_and_what_is_held_out_make_up_the_scan(tmp_path, n_coils):
    path = _undersampled(tmp_path, (4, n_coils, 16, 12))
    batch = next(_held_out_loader(path))
    kspace = np.load(path)[batch["id"]] / batch["scale"][:, None, None, None]
    mask = np.load(tmp_path / "P1_mask.npy")[batch["id"]]
    np.testing.assert_array_equal(batch["mask"] + batch["held_mask"], mask)
    np.testing.assert_allclose(batch["kspace"] + batch["held_kspace"], kspace, atol=1e-4)
    np.testing.assert_array_equal(batch["kspace"][:, 0] != 0, batch["mask"] == 1)
    np.testing.assert_array_equal(batch["held_kspace"][:, 0] != 0, batch["held_mask"] == 1)
    assert "reference" not in batch


def test_the_inputs_do_not_have_what_is_held_out(tmp_path):
    batch = next(_held_out_loader(_undersampled(tmp_path)))
    for name in ("target", "preceding", "succeeding"):
        measured = np.abs(fft2c(batch[name]))[..., 0] > 1e-4  # b h
        assert (measured.sum(axis=1) == batch["mask"][..., 0].sum(axis=1)).all()
    np.testing.assert_allclose(fft2c(batch["target"]), batch["kspace"][:, 0], atol=1e-4)


def test_what_neighbours_measured_too_is_held_out_of_them(tmp_path):
    mask = np.zeros((12, 16, 12), np.float32)  # it changes once, out of sight of most frames
    mask[:6, ::2] = mask[6:, 1::2] = 1
    np.save(tmp_path / "P1_kspace.npy", random_complex(12, 1, 16, 12) * mask[:, None])
    np.save(tmp_path / "P1_mask.npy", mask)
    batch = next(_held_out_loader(tmp_path / "P1_kspace.npy", batch_size=12))
    for name in ("preceding", "succeeding"):
        alike = [t not in (0, 5, 6, 11) for t in batch["id"]]
        told = np.abs(fft2c(batch[name])) * batch["held_mask"]
        assert np.max(told[alike]) < 1e-4


def test_fully_sampled_slices_are_undersampled_and_keep_their_reference(files):
    batch = next(_held_out_loader(*files))
    assert batch["held_mask"].any(axis=(1, 2)).all()
    held = fft2c(batch["reference"])[:, None] * batch["held_mask"][:, None]
    np.testing.assert_allclose(batch["held_kspace"], held, atol=1e-4)
    assert (1 / (batch["mask"] + batch["held_mask"]).mean(axis=(1, 2)) > 1.5).all()


def test_a_batch_of_both_has_no_reference(tmp_path, files):
    loader = _held_out_loader(_undersampled(tmp_path), files[0])
    batches = take(loader, 3)
    assert {frame < 4 for batch in batches for frame in batch["id"]} == {True, False}
    assert not any("reference" in batch for batch in batches)


def test_undersampled_slices_share_batches_by_their_rows(tmp_path):
    shapes = [(4, 1, 16, 12), (4, 2, 16, 10), (4, 1, 18, 12)]
    paths = [_undersampled(tmp_path, shape, f"P{i}") for i, shape in enumerate(shapes)]
    batches = take(_held_out_loader(*paths, n_buckets=1, batch_size=2), 12)
    found = {batch["held_kspace"].shape for batch in batches}
    assert found == {(2, 2, 16, 12), (2, 1, 18, 12)}
    for batch in batches:
        lines = batch["mask"] + batch["held_mask"]
        assert (lines == lines[..., :1]).all()


def test_undersampled_slices_are_cut_along_the_readout(tmp_path):
    batch = next(_held_out_loader(_undersampled(tmp_path), crop=(None, 8)))
    assert batch["held_mask"].shape == batch["mask"].shape == (4, 16, 8)
    np.testing.assert_array_equal(batch["held_kspace"][:, 0] != 0, batch["held_mask"] == 1)


def test_undersampled_slices_are_no_references(tmp_path):
    source = FileSlices([_undersampled(tmp_path)], acs=4, undersampled=True)
    with pytest.raises(ValueError, match="expected fully sampled slices unless held_out > 0"):
        make_training_loader(source, _options(crop=(None, None)), batch_size=2)


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        ((slice(6, 10), slice(None)), "acs=4 central lines, .*; let config.data.acs be smaller"),
        ((slice(None), slice(3, None)), "expected 12 columns, .*, got 8; let config.data.crop"),
    ],
)
def test_a_scan_that_cannot_be_trained_on_is_named(tmp_path, measured, message):
    path, mask = _undersampled(tmp_path), np.zeros((4, 16, 12), np.float32)
    mask[:, *measured] = 1
    np.save(tmp_path / "P1_mask.npy", mask)
    np.save(path, random_complex(4, 1, 16, 12) * mask[:, None])
    with pytest.raises(ValueError, match=rf"P1_kspace\.npy \[P1_kspace/slice0\]: .*{message}"):
        next(_held_out_loader(path, crop=(None, 8)))


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(ValueError, match="expected held_out from 0 to below 1, got"):
        _options(held_out=share)
