"""Whole runs in several processes: how they begin, are stopped, go on in others, and end."""

import json
import shutil

import jax
import numpy as np
import pytest

from kgmgt_jax.training.checkpoint import Checkpoints
from kgmgt_jax.training.loop import build, open_devices
from kgmgt_jax.training.replay import replay
from kgmgt_jax.training.weights import load_weights, save_weights
from tests.training.processes import run_processes
from tests.training.stub import TwoConvolutions, compiled_once, data, loop_config, stub

__all__ = ["compiled_once", "data", "stub"]  # fixtures
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Orbax and TensorStore
EVERY = {"train": {"eval_every": 1}}  # a validation is due whenever a signal comes


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """Trains in processes that keep what they compile; returns the working directory."""
    root = tmp_path_factory.mktemp("runs")
    kept = {"JAX_COMPILATION_CACHE_DIR": str(root / "xla")}

    def run(name, options, **processes):
        arguments = [str(root / name), str(data), json.dumps(options)]
        run_processes("tests.training.run_worker", arguments, **processes, **kept)
        return root / name

    return run


@pytest.fixture(scope="module")
def whole(run):
    """A run of two processes that nothing disturbs."""
    return run("whole", EVERY)


@pytest.fixture(scope="module")
def stopped(run):
    """The same, of which one process got a signal."""
    folder = run("stopped", EVERY | {"signal_at": 3}, code=130)
    scores, last = _scores(folder), Checkpoints(folder, read_only=True).latest_step()
    assert 3 <= last < 8 and list(scores) == list(range(1, last))  # one is missing
    return folder


def _scores(folder):
    rows = [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows if "val_psnr" in row]
    assert len(set(steps)) == len(steps)
    return {row["step"]: row["val_psnr"] for row in rows if "val_psnr" in row}


def _end(folder, data):
    """The last state in a working directory, and the position in the data."""
    config = loop_config(data)
    checkpoints = Checkpoints(folder, read_only=True)
    _, state, _ = build(config, open_devices(config))
    state, position = checkpoints.restore(state, config=config)
    checkpoints.close()
    return jax.device_get(state), position


@pytest.mark.parametrize(("count", "tolerance"), [(2, 0.0), (1, 1e-4)])
def test_a_stopped_run_goes_on_in_any_number_of_processes(
    run, whole, stopped, data, stub, count, tolerance
):
    folder = shutil.copytree(stopped, stopped.with_name(f"on_in_{count}"))
    run(folder.name, EVERY, count=count)
    (got, position), (want, undisturbed) = _end(folder, data), _end(whole, data)
    assert position == undisturbed and got.step == 8
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.abs(other).max())
    scores = _scores(folder)
    assert list(scores) == list(range(1, 9))  # that which the signal prevented is made up for
    np.testing.assert_allclose([*scores.values()], [*_scores(whole).values()], rtol=tolerance)
    stored = json.loads((folder / "checkpoints/8/metrics/metrics").read_text())
    assert stored == {"psnr": scores[8]}


@pytest.fixture(scope="module")
def spoilt(run, tmp_path_factory):
    """Weights to start from, and a run of two processes from them that a NaN ended at step 1."""
    one = jax.ShapeDtypeStruct((1, 32, 32), np.complex64)
    variables = jax.eval_shape(TwoConvolutions().init, jax.random.key(0), one, one, one)
    rng = np.random.default_rng(0)
    weights = jax.tree.map(lambda x: rng.random(x.shape, np.float32), variables)
    path = save_weights(tmp_path_factory.mktemp("start") / "weights", {"model": {}}, weights)
    options = {"train": {"start_from": str(path)}, "nan_at": 1}
    return weights, run("spoilt", options, code=2)


def test_processes_start_from_the_weights_of_another_run(spoilt):
    weights, folder = spoilt
    started = load_weights(folder / "checkpoints" / "0")[1]
    jax.tree.map(np.testing.assert_array_equal, started, weights)


@pytest.mark.parametrize("process", [0, 1])
def test_replay_looks_at_the_batch_of_all_processes(spoilt, data, stub, process):
    _, folder = spoilt
    text = replay(
        loop_config(data), folder, folder / f"not_finite/step_1_process_{process}_of_2.npz"
    )
    assert "reference: example 3, id" in text and "has 3 values that are not finite" in text
    assert "all terms are finite" not in text
