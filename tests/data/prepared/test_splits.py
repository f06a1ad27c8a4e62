"""Splits have the shares asked for, from names, fractions and seed alone."""

from collections import Counter

import pytest

from kgmgt_jax.data.prepared.options import SPLITS
from kgmgt_jax.data.prepared.splits import assign_splits

NAMES = [f"P{i:03d}" for i in range(2000)]


@pytest.mark.parametrize(
    "n, counts",
    [(2000, (1600, 300, 100)), (20, (16, 3, 1)), (10, (8, 1, 1)), (7, (5, 1, 1)), (3, (1, 1, 1))],
)
@pytest.mark.parametrize("seed", range(3))
def test_fractions_come_out_exactly(n, counts, seed):
    found = Counter(assign_splits(NAMES[:n], (0.8, 0.15, 0.05), seed).values())
    assert tuple(found[split] for split in SPLITS) == counts


def test_the_seed_decides_and_order_does_not():
    first = assign_splits(NAMES, (0.5, 0.5), 0)
    assert first == assign_splits(NAMES[::-1], (0.5, 0.5), 0)
    assert first != assign_splits(NAMES, (0.5, 0.5), 1)


@pytest.mark.parametrize("seed", range(20))
def test_no_split_is_left_empty(seed):
    splits = assign_splits(["a", "b", "c", "a"], (0.98, 0.01, 0.01), seed)
    assert set(splits.values()) == {"train", "validation", "test"}


def test_a_fraction_of_nothing_gets_nobody():
    assert set(assign_splits(NAMES, (0.5, 0.0, 0.5), 0).values()) == {"train", "test"}


def test_fewer_subjects_than_splits_are_refused():
    with pytest.raises(ValueError, match="at least 2 subjects to split, got 1: 'a'; --split 1"):
        assign_splits(["a"], (0.9, 0.1), 0)
