"""Splits keep subjects together, whoever comes or goes."""

from collections import Counter

import pytest

from kgmgt_jax.data.prepared.splits import assign_splits

NAMES = [f"P{i:03d}" for i in range(2000)]


def test_fractions_come_out_nearly():
    counts = Counter(assign_splits(NAMES, (0.8, 0.15, 0.05), 0).values())
    assert counts["train"] == pytest.approx(1600, abs=60)
    assert counts["validation"] == pytest.approx(300, abs=60)
    assert counts["test"] == pytest.approx(100, abs=40)


def test_subjects_stay_when_others_come():
    few, many = (assign_splits(names, (0.5, 0.5), 3) for names in (NAMES[::2], NAMES))
    assert all(many[name] == split for name, split in few.items())


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
