"""The heart is found where a cine moves."""

import numpy as np

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
