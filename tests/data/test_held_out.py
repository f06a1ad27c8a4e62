"""What is held out of a measurement, and what an undersampled scan may be made into."""

import dataclasses

import numpy as np
import pytest

from kgmgt_jax.data.augmentation import Augmentation, Moves
from kgmgt_jax.data.file_slices import FileSlices
from kgmgt_jax.data.held_out import (
    check_undersampled,
    draw_held_out,
    held_out_cases,
    moved_mask,
)
from kgmgt_jax.data.slices import SliceInfo
from kgmgt_jax.data.transforms import fft2c, ifft2c
from tests.data.draws import random_complex


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _lines(t: int = 4, h: int = 24, w: int = 6, columns: slice = slice(None)) -> np.ndarray:
    """Every third line, others in each frame, and the central four."""
    mask = np.zeros((t, h, w), np.float32)
    for frame in range(t):
        mask[frame, frame % 3 :: 3, columns] = 1
    mask[:, h // 2 - 2 : h // 2 + 2, columns] = 1
    return mask


def _radial(t: int = 2, size: int = 24) -> np.ndarray:
    """Samples that are no lines, and the central 4 x 4."""
    mask = (_rng().random((t, size, size)) < 0.2).astype(np.float32)
    mask[:, 10:14, 10:14] = 1
    return mask


@pytest.mark.parametrize("mask", [_lines(), _lines(columns=slice(2, None)), _radial()])
def test_what_is_held_out_was_measured_outside_the_centre(mask):
    held = draw_held_out(mask, 0.5, 4, _rng())
    assert held.dtype == np.float32 and held.any(axis=(1, 2)).all()
    assert set(np.unique(held)) == {0, 1} and np.all(held <= mask)
    centre = held[:, 10:14, 10:14] if mask.shape[2] == 24 else held[:, 10:14]
    assert not centre.any()


@pytest.mark.parametrize("columns", [slice(None), slice(2, None)])
def test_lines_are_held_out_whole(columns):
    mask = _lines(columns=columns)
    held = draw_held_out(mask, 0.5, 4, _rng())
    lines = held.any(axis=2, keepdims=True)
    np.testing.assert_array_equal(held, mask * lines)


def test_a_share_of_each_frame_s_lines_is_held_out():
    mask = _lines(t=3)
    outside = mask[:, :, 0].sum(axis=1) - 4
    held = draw_held_out(mask, 0.4, 4, _rng())[:, :, 0].sum(axis=1)
    np.testing.assert_array_equal(held, np.round(0.4 * outside))


def test_one_line_at_least_is_held_out():
    assert draw_held_out(_lines(), 0.01, 4, _rng())[:, :, 0].sum() == 4


def test_every_line_outside_the_centre_has_its_turn():
    mask = _lines()
    held = np.max([draw_held_out(mask, 0.3, 4, _rng(seed)) for seed in range(40)], axis=0)
    mask[:, 10:14] = 0
    np.testing.assert_array_equal(held, mask)


def test_no_other_frame_tells_what_is_held_out_of_a_fixed_mask():
    fixed = np.repeat(_lines(t=1), 4, axis=0)
    held = draw_held_out(fixed, 0.5, 4, _rng())
    assert (held == held[:1]).all()
    moving = draw_held_out(_lines(), 0.5, 4, _rng())
    assert not (moving == moving[:1]).all()


def test_a_few_lines_that_a_frame_lacks_do_not_make_a_fixed_mask_a_moving_one():
    mask = np.repeat(_lines(t=1), 4, axis=0)
    mask[2, 3] = 0
    held = draw_held_out(mask, 0.5, 4, _rng())
    np.testing.assert_array_equal(held, held.any(axis=0) * mask)


def test_nothing_to_hold_out_is_an_error():
    with pytest.raises(ValueError, match=r"outside the acs=4 central lines, got 48 samples in 2 f"):
        draw_held_out(_lines(t=2)[:, 10:14], 0.5, 4, _rng())


@pytest.mark.parametrize("size", [(16, 12), (15, 9)])
@pytest.mark.parametrize("flips", [(), (-2,), (-2, -1)])
def test_a_scan_cut_along_the_readout_and_mirrored_was_measured_so(size, flips):
    h, w = size
    mask = np.repeat((_rng(1).random((3, h, 1)) < 0.4).astype(np.float32), w, axis=2)
    images = ifft2c(random_complex(3, 2, h, w) * mask[:, None])
    moves = Moves(0.0, (slice(None), slice(1, 7)), 0, flips, 1.0)
    kspace = fft2c(moves.of_case(images, None)[0])
    measured = np.abs(kspace).max(axis=1) > 1e-4
    np.testing.assert_array_equal(measured, moved_mask(mask, moves, 6) > 0)


def test_a_scan_without_whole_lines_keeps_its_columns():
    moves = Moves(0.0, (slice(None), slice(None)), 0, (-2,), 1.0)
    assert moved_mask(_radial(), moves, 24).sum() == _radial().sum()
    with pytest.raises(ValueError, match=r"expected 24 columns, .*, got 16; let config.data.crop"):
        moved_mask(_radial(), moves, 16)


def _source(root, n_slices: int = 1) -> FileSlices:
    """Slices that measured what `_lines` has."""
    for i in range(n_slices):
        np.save(root / f"P{i}_kspace.npy", random_complex(4, 1, 24, 6) * _lines()[:, None])
        np.save(root / f"P{i}_mask.npy", _lines())
    paths = sorted(root.glob("*_kspace.npy"))
    return FileSlices(paths, acs=4, undersampled=True)


def test_a_case_gives_the_network_what_is_not_held_out(tmp_path):
    (case,) = held_out_cases(_source(tmp_path), 0.5, acs=4)
    batch = case.frames(3)
    np.testing.assert_array_equal(batch["mask"] + batch["held_mask"], _lines()[:3])
    scale = batch["scale"][:, None, None, None]
    expected = np.load(tmp_path / "P0_kspace.npy")[:3] / scale
    np.testing.assert_allclose(batch["kspace"] + batch["held_kspace"], expected, atol=1e-5)
    np.testing.assert_allclose(fft2c(batch["target"]), batch["kspace"][:, 0], atol=1e-5)
    assert not np.any(batch["kspace"][:, 0] * batch["held_mask"]) and "reference" not in batch


def test_what_is_held_out_to_validate_on_is_always_the_same(tmp_path):
    source = _source(tmp_path, 3)
    first, again = (list(held_out_cases(source, 0.5, acs=4)) for _ in range(2))
    assert all(np.array_equal(a.held, b.held) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0].held, first[1].held)
    (middle,) = held_out_cases(source, 0.5, acs=4, n_slices=1)
    assert any(np.array_equal(middle.held, case.held) for case in first)
    (alone,) = held_out_cases(
        FileSlices([tmp_path / "P1_kspace.npy"], acs=4, undersampled=True), 0.5, acs=4
    )
    np.testing.assert_array_equal(alone.held, first[1].held)  # whatever else there is


def test_a_scan_that_cannot_be_validated_on_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"P0_kspace\.npy \[P0_kspace/slice0\]: expected measured"):
        list(held_out_cases(_source(tmp_path), 0.5, acs=24))


def test_fully_sampled_slices_are_not_validated_with_undersampled_ones(tmp_path):
    np.save(tmp_path / "Q_kspace.npy", random_complex(4, 1, 24, 6))
    np.save(tmp_path / "Q_mask.npy", np.ones((4, 24, 6), np.float32))
    with pytest.raises(ValueError, match=r"undersampled slices alone, got .*Q_kspace\.npy"):
        list(held_out_cases(_source(tmp_path), 0.5, acs=4))


_SLICE = SliceInfo("a", "P1", "sax", (4, 1, 16, 12), "", "scan.mat", 0, undersampled=True)


@pytest.mark.parametrize(
    ("moves", "got"),
    [
        ({"crop": (15, 8)}, r"crop=\(15, 8\), quarter_turns=False and max_angle=0"),
        ({"crop": (None, 8), "quarter_turns": True}, "quarter_turns=True and max_angle=0"),
        ({"crop": (None, 8), "max_angle": 5.0}, "quarter_turns=False and max_angle=5"),
    ],
)
def test_an_undersampled_scan_is_not_cut_along_the_phase_encoding_nor_turned(moves, got):
    lower = dataclasses.replace(_SLICE, shape=(4, 1, 14, 12), source="lower.mat")
    expected = r"scan\.mat: expected crop=\(None, 8\), quarter_turns=False and max_angle=0 for "
    with pytest.raises(ValueError, match=rf"{expected}undersampled 16 rows, got .*{got}$"):
        check_undersampled([lower, _SLICE], Augmentation(**moves), 0.4)


@pytest.mark.parametrize("crop", [(None, 8), (16, None), (20, 8)])
def test_an_undersampled_scan_may_be_cut_along_the_readout(crop):
    full = dataclasses.replace(_SLICE, shape=(4, 1, 64, 12), undersampled=False)
    check_undersampled([_SLICE, full], Augmentation(crop=crop), 0.4)


def test_an_undersampled_scan_is_no_reference():
    with pytest.raises(ValueError, match=r"scan\.mat: expected fully sampled slices unless"):
        check_undersampled([_SLICE], Augmentation(), 0.0)
