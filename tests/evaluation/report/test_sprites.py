"""Pictures hold every frame without loss, as a browser will unpack them."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from kgmgt_jax.evaluation.report.sprites import grey_levels, pack_frames, sprite


def _unpack(picture: np.ndarray, columns: int, t: int, h: int, w: int) -> np.ndarray:
    """As the page's script does it."""
    frames = []
    for frame in range(t):
        cell, channel = divmod(frame, 3)
        y, x = cell // columns * h, cell % columns * w
        frames.append(picture[y : y + h, x : x + w, channel])
    return np.stack(frames)


@pytest.mark.parametrize("t", [1, 2, 3, 4, 12, 25])
def test_frames_come_back_exactly(t):
    cine = np.random.default_rng(0).random((t, 11, 7)).astype(np.float32)
    made = sprite(cine, white=0.8)
    head, _, body = made["src"].partition(",")
    assert head == "data:image/webp;base64"
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(body))).convert("RGB"))
    frames = _unpack(picture, made["columns"], made["t"], made["h"], made["w"])
    np.testing.assert_array_equal(frames, grey_levels(cine, 0.8))


def test_wide_cines_continue_in_another_row():
    levels = np.random.default_rng(0).integers(0, 256, (90, 3, 600), np.uint8)
    picture, columns = pack_frames(levels)
    assert columns == 27 and picture.shape == (2 * 3, 27 * 600, 3)
    np.testing.assert_array_equal(_unpack(picture, columns, 90, 3, 600), levels)


def test_missing_frames_repeat_the_last_which_costs_nothing():
    levels = np.random.default_rng(0).integers(0, 256, (4, 3, 5), np.uint8)
    picture, _ = pack_frames(levels)
    np.testing.assert_array_equal(picture[:, 5:], np.repeat(levels[3][..., None], 3, axis=-1))


def test_cine_larger_than_a_picture_is_refused():
    with pytest.raises(ValueError, match="fewer frames"):
        pack_frames(np.broadcast_to(np.uint8(0), (30, 2000, 9000)))


def test_levels_end_at_white():
    levels = grey_levels(np.array([[[0, 0.5, 1, 2]]], np.float32), white=1.0)
    assert levels.tolist() == [[[0, 128, 255, 255]]]


def test_noisy_cine_stays_small():
    """Bytes of base64 a pixel of a still image with 2 % noise, which six methods must afford."""
    rng = np.random.default_rng(0)
    still = np.abs(np.fft.ifft2(np.fft.fft2(rng.random((64, 64))) * (np.mgrid[:64, :64][0] < 6)))
    cine = (still + 0.02 * rng.standard_normal((12, 64, 64))).clip(0).astype(np.float32)
    assert len(sprite(cine, 1.25)["src"]) / cine.size < 0.9
