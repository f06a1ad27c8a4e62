"""The feed hands out every batch once, in order, and knows which were consumed."""

import grain
import numpy as np
import pytest

from kgmgt_jax.training.feeding import DeviceFeed


def _loader():
    return iter(grain.MapDataset.range(10).to_iter_dataset())


def _put(log):
    def put(batch):
        log.append(batch)
        return np.asarray(batch) * 10

    return put


def test_every_batch_comes_once_and_in_order():
    assert list(DeviceFeed(_loader(), _put([]))) == [10 * i for i in range(10)]


def test_batches_are_put_ahead():
    log: list = []
    next(DeviceFeed(_loader(), _put(log)))
    assert log == [0, 1]


@pytest.mark.parametrize("consumed", [0, 1, 4, 9])
def test_the_position_is_that_of_the_consumed_batch(consumed):
    feed = DeviceFeed(_loader(), _put([]))
    for _ in range(consumed):
        next(feed)
    other = DeviceFeed(_loader(), _put([]))
    next(other)  # what it fetched ahead is forgotten
    other.set_state(feed.get_state())
    assert list(other) == [10 * i for i in range(consumed, 10)]


def test_a_position_of_another_version_of_grain_is_refused():
    """As Grain 0.2.15 had it of two workers; 0.2.16 and later ended in a KeyError."""
    workers = {"0": {"next_index": 0}, "1": {"next_index": 0}}
    skipped = {"iterations_to_skip": {"0": 2, "1": 1}, "last_worker_index": 0}
    with pytest.raises(ValueError, match=r"as Grain 0\.\d.*, got another \(KeyError"):
        DeviceFeed(_loader(), _put([])).set_state({"workers_state": workers} | skipped)
