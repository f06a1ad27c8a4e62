"""The batch that ended a run, looked at again."""

import numpy as np
import pytest

from kgmgt_jax.training import loop
from kgmgt_jax.training.replay import replay
from kgmgt_jax.training.watch import Watch, load_batch, split_ids
from tests.training.stub import compiled_once, loop_config, stub

__all__ = ["compiled_once", "stub"]  # fixtures
pytestmark = pytest.mark.filterwarnings("ignore")  # Orbax and TensorStore


def _batch(n=4):
    rng = np.random.default_rng(0)
    names = ("target", "preceding", "succeeding", "reference")
    return {name: rng.random((n, 32, 32)).astype(np.complex64) for name in names} | {
        "kspace": np.zeros((n, 1, 32, 32), np.complex64),
        "mask": np.ones((n, 32, 32), np.float32),
    }


def _watch(tmp_path):
    return Watch(tmp_path, lambda: "that of step 2")


def test_finite_metrics_are_given_back_as_numbers(tmp_path):
    watch = _watch(tmp_path)
    assert watch.check() == {}
    watch.add(1, None, _batch(), {"loss": np.float32(0.5)})
    assert watch.check() == {"loss": 0.5}
    assert not list(tmp_path.iterdir())


def test_infinite_psnr_is_no_reason_to_stop(tmp_path):
    watch = _watch(tmp_path)
    watch.add(1, None, _batch(), {"loss": 0.0, "psnr": np.inf})
    assert watch.check() == {"loss": 0.0, "psnr": np.inf}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_next_step_finds_the_one_before_not_finite(tmp_path, value):
    watch, batch = _watch(tmp_path), _batch()
    watch.add(7, np.array([3, 1, 4, 1]), batch, {"l1": value, "loss": value, "mentor": 1.0})
    message = rf"step 7: not finite: l1 is {value}, loss is {value}; the batch of ids 3, 1, 4, 1 "
    with pytest.raises(FloatingPointError, match=message):
        watch.add(8, None, _batch(), {"l1": 1.0})
    saved = load_batch(tmp_path / "not_finite" / "step_7.npz")
    assert saved.step == 7 and saved.metrics["mentor"] == 1.0 and list(saved.ids) == [3, 1, 4, 1]
    assert saved.arrays.keys() == batch.keys()
    for name, array in batch.items():
        np.testing.assert_array_equal(saved.arrays[name], array)


def test_ids_stay_off_the_device():
    ids, batch = split_ids({"target": np.zeros(2), "id": np.array([5, 6])})
    assert list(ids) == [5, 6] and batch.keys() == {"target"}
    assert split_ids({"target": np.zeros(2)})[0] is None


def test_file_of_another_kind_is_refused(tmp_path):
    np.savez(tmp_path / "other.npz", a=1)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "other.npz").read_bytes()[:-50])
    np.save(tmp_path / "array.npy", np.ones(3))
    for name in ("other.npz", "cut.npz", "array.npy"):
        with pytest.raises(ValueError, match=rf"{name}: expected a batch that a run kept, got"):
            load_batch(tmp_path / name)


def _save_part(folder, process, first):
    values = {"batch/mask": np.full((2, 4), process), "metric/l1": np.nan, "id": [first, first + 1]}
    path = folder / f"step_3_process_{process}_of_3.npz"
    np.savez(path, step=3, first=first, **values)
    return path


def test_parts_of_all_processes_are_one_batch_again(tmp_path):
    paths = [_save_part(tmp_path, process, first) for process, first in enumerate((2, 0, 0))]
    for path in paths:  # the last two share a network, and have the same examples
        saved = load_batch(path)
        assert saved.step == 3 and list(saved.ids) == [0, 1, 2, 3]
        assert saved.arrays["mask"].shape == (4, 4) and (saved.arrays["mask"][2:] == 0).all()
    paths[1].unlink()
    with pytest.raises(ValueError, match=r"process_1_of_3\.npz: expected a batch that a run kept"):
        load_batch(paths[0])


@pytest.fixture(scope="module")
def run(stub, tmp_path_factory):
    """A run that stands at step 0 and has kept a batch with NaN and a good one of step 3."""
    folder = tmp_path_factory.mktemp("replay")
    config = loop_config()
    _save_start(folder, config)
    for step, spoil in ((4, True), (3, False)):
        batch = _batch()
        if spoil:
            batch["reference"][2, 5, 5:8] = np.nan
        watch = _watch(folder)
        watch.add(step, np.array([3, 1, 7, 5]), batch, {"l1": np.nan, "loss": np.nan})
        with pytest.raises(FloatingPointError):
            watch.check()
    return folder, config


def _save_start(folder, config):
    checkpoints = loop.Checkpoints(folder)
    _, state, _ = loop.build(config, loop.parallel.make_mesh())
    checkpoints.save(state, config=config, data={})
    checkpoints.close()


def _rows(text):
    return {line.split()[0]: line.split()[1:] for line in text.splitlines()}


def test_replay_names_the_values_and_terms_that_are_not_finite(run):
    folder, config = run
    text = replay(config, folder, folder / "not_finite" / "step_4.npz")
    assert "reference: example 2, id 7, has 3 values that are not finite" in text
    rows = _rows(text)
    assert rows["l1"] == ["nan", "nan", "not", "finite"]
    assert rows["wasserstein"][-2:] == ["not", "finite"]


def test_replay_of_a_good_batch_gives_the_terms_of_that_step(run):
    folder, config = run
    text = replay(config, folder)  # the newest
    assert "step 3" in text and "all values of the batch are finite" in text
    rows = _rows(text)
    mesh = loop.parallel.make_mesh()
    _, state, update = loop.build(config, mesh)
    state = loop.parallel.replicate(state.replace(step=np.int32(2)), mesh)
    _, metrics = update(state, loop.parallel.put_batch(_batch(), mesh))
    assert rows["l1"] == ["nan", f"{float(metrics['l1']):.6g}"]
    assert rows["penalty"][1] == f"{float(metrics['penalty']):.6g}"  # drawn with the step's key
    assert len(rows) == len(metrics) + 3


def test_psnr_of_frames_without_signal_is_no_term_to_look_for(run):
    folder, config = run
    batch = _batch()
    batch["reference"][:] = 0
    watch = _watch(folder)
    watch.add(2, None, batch, {"loss": np.nan})
    with pytest.raises(FloatingPointError):
        watch.check()
    text = replay(config, folder, folder / "not_finite" / "step_2.npz")
    assert _rows(text)["psnr"] == ["nan", "nan"] and "all terms are finite" in text


def test_replay_without_a_batch_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a batch in not_finite/, got none"):
        replay(loop_config(), tmp_path)
