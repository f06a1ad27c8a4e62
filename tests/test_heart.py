"""The heart is found where a cine moves."""

import numpy as np
import pytest

from kgmgt_jax.heart import heart_line, heart_region
from tests.evaluation.cines import beating_disc


def test_region_covers_what_moves_and_little_else():
    reference = beating_disc(centre=(26, 16))
    region = heart_region(reference)
    spread = reference.std(axis=0)
    moving = spread > 0.5 * spread.max()
    assert region[moving].all()
    y, x = np.mgrid[:48, :40]
    assert not region[np.hypot(y - 26, x - 16) > 9 + 4].any()
    assert region[26, 16]  # the still middle of the disc is filled


def test_region_is_one_part_the_one_with_the_most_motion():
    reference = beating_disc(centre=(30, 12))
    reference[::2, 3:6, 32:36] += 1.5  # a vessel far away
    region = heart_region(reference)
    assert region[30, 12] and not region[:8, 30:].any()


def _moving(*blocks, level=0.0):
    """96 x 96 pixels that alternate by a block's strength: a Gaussian of 2, gaps of up to 2 x 4."""
    strength = np.full((96, 96), level)
    for rows, columns, value in blocks:
        strength[rows, columns] = value
    return 1 + np.stack([strength, -strength] * 2)


def test_region_begins_at_half_of_the_strongest_motion():
    """Beside a large block, one of a little less and one of a little more than half of it."""
    block = slice(40, 70), slice(20, 60), 1.0
    weak, strong = (slice(50, 60), slice(60, 80), 0.45), (slice(70, 90), slice(30, 40), 0.65)
    region = heart_region(_moving(block, weak, strong))
    assert region[80, 35] and not region[55, 70]


def test_region_is_smoothed_by_a_48th_of_the_side():
    """Of a strip of 2 or 3 pixels erf(1 / 2^(3/2)) = 0.38 or 0.55 of the motion is left."""
    block = slice(40, 70), slice(20, 60), 1.0
    thin, thick = (slice(45, 47), slice(60, 90), 1.0), (slice(60, 63), slice(60, 90), 1.0)
    region = heart_region(_moving(block, thin, thick))
    assert region[61, 75] and not region[42:50, 75].any()


@pytest.mark.parametrize(("gap", "closed"), [(6, True), (12, False)])
def test_region_has_no_gaps_up_to_a_12th_of_the_side(gap, closed):
    """But what lies outside of the image does not move, so that gaps open towards the border."""
    columns = slice(10, 40), slice(40 + gap, 80)
    region = heart_region(_moving(*((slice(0, 50), each, 1.0) for each in columns)))
    middle = region[:, 40 + gap // 2]
    assert middle[25] == closed and not middle[0]


def test_most_motion_is_neither_most_pixels_nor_all_that_hardly_moves():
    small = slice(20, 40), slice(20, 40), 1.0  # 400
    large = slice(60, 85), slice(60, 85), 0.6  # 375 in 625 pixels
    region = heart_region(_moving(small, large, level=0.2))
    assert region[30, 30] and not region[70, 70] and not region[5, 5]


def test_region_at_the_border_stays_inside():
    assert heart_region(beating_disc(centre=(1, 38))).any()


def test_still_cine_has_no_region():
    assert not heart_region(np.repeat(beating_disc(t=1), 4, axis=0)).any()
    assert not heart_region(beating_disc(t=1)).any()


def test_line_passes_through_what_moves():
    column, start, stop = heart_line(beating_disc(centre=(25, 10)))
    assert column == 10
    assert start <= 25 - 7 and stop > 25 + 7


def test_line_stays_inside_the_image():
    assert heart_line(beating_disc(centre=(1, 30)))[1] == 0
    assert heart_line(beating_disc(centre=(46, 30)))[2] == 48


def test_line_of_a_still_cine_is_the_middle_column():
    assert heart_line(np.repeat(beating_disc(t=1), 3, axis=0)) == (20, 0, 48)


@pytest.mark.parametrize("find", [heart_region, heart_line])
def test_a_frame_alone_is_refused(find):
    with pytest.raises(ValueError, match=r"got magnitude\.shape=\(9, 9\)"):
        find(np.ones((9, 9)))
