"""Checkpoints: what comes back, which stay, and how the last good one survives."""

import contextlib
import functools
import gc
import json
import math
import resource
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.kgmgt import get_config
from kgmgt_jax.training import parallel
from kgmgt_jax.training.checkpoint import Checkpoints
from kgmgt_jax.training.state import NetworkState, TrainState
from kgmgt_jax.training.weights import CheckpointError, load_weights

pytestmark = pytest.mark.filterwarnings("ignore")  # Orbax and TensorStore

CONFIG = get_config("tiny")


def _state(step, *, seed=0, size=8, optimizer=None):
    """A state of random arrays, of which each step's differ."""
    optimizer = optimizer or optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    rng = np.random.default_rng([seed, step])

    def network():
        params = {"a": rng.standard_normal((size, size), np.float32), "b": rng.random(3)}
        params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
        return NetworkState(params, {}, optimizer.init(params))

    return TrainState(
        step=jnp.asarray(step, jnp.int32),
        generator=network(),
        critic=network(),
        ema_params=network().params,
        key=jax.random.key_data(jax.random.key(seed)),
    )


def _save(workdir, *steps, score=None, **options):
    with contextlib.closing(Checkpoints(workdir)) as checkpoints:
        for step in steps:
            state = _state(step, **options)
            checkpoints.save(state, config=CONFIG, data={"position": step}, score=score)


def _restore(workdir, like=None):
    with contextlib.closing(Checkpoints(workdir)) as checkpoints:
        return checkpoints.restore(_state(0) if like is None else like, config=CONFIG)


def _assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def _steps(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


def test_whole_state_and_position_come_back(tmp_path):
    _save(tmp_path, 3)
    state, position = _restore(tmp_path)
    _assert_equal(state, _state(3))
    assert position == {"position": 3}


@pytest.mark.parametrize("before, after", [(1, 4), (4, 1)])
def test_restores_bit_for_bit_on_another_number_of_devices(tmp_path, before, after):
    there, here = (parallel.make_mesh(n) for n in (before, after))
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(parallel.replicate(_state(3), there), config=CONFIG, data={})
    state, _ = _restore(tmp_path, parallel.replicate(_state(0), here))
    _assert_equal(state, _state(3))
    assert all(len(leaf.sharding.device_set) == after for leaf in jax.tree.leaves(state))


def test_what_is_saved_is_the_state_of_that_moment(tmp_path):
    @functools.partial(jax.jit, donate_argnums=0)
    def advance(state):
        return jax.tree.map(lambda x: x + x.dtype.type(1), state)  # overwrites the old one

    state, wanted = _state(1, size=1000), _state(1, size=1000)
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(state, config=CONFIG, data={})
        for _ in range(5):
            state = advance(state)
        checkpoints.wait()
        restored, _ = checkpoints.restore(state, config=CONFIG)
    _assert_equal(restored, wanted)


def test_first_best_and_last_two_stay_over_restarts(tmp_path):
    for step, psnr in enumerate([1.0, 2.0, 9.0, 3.0, None, 4.0, None]):
        _save(tmp_path, step, score=psnr)
    assert _steps(tmp_path) == [0, 2, 5, 6]


def test_best_is_loaded_to_reconstruct_with(tmp_path):
    for step, psnr in ((1, 5.0), (2, 9.0), (3, 7.0), (4, None)):
        _save(tmp_path, step, score=psnr)
    config, variables = load_weights(tmp_path)
    _assert_equal(variables["params"], jax.device_get(_state(2).ema_params))
    assert config.model.channels == CONFIG.model.channels


def test_last_is_loaded_where_none_was_scored(tmp_path):
    _save(tmp_path, 9, 10)
    _assert_equal(load_weights(tmp_path)[1]["params"], jax.device_get(_state(10).ema_params))


def test_what_is_scored_after_it_was_saved_stays_as_the_best(tmp_path):
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        for step in range(1, 6):
            checkpoints.save(_state(step), config=CONFIG, data={})
            if step < 3:
                checkpoints.wait()
                checkpoints.score_last(10.0 * step)
                assert checkpoints.last_is_scored()
    assert _steps(tmp_path) == [2, 4, 5]


@pytest.mark.parametrize("order", [(math.nan, 9.0, 7.0, 6.0), (9.0, math.nan, 7.0, 6.0)])
def test_a_validation_that_was_not_a_number_is_never_the_best(tmp_path, order):
    for step, psnr in enumerate(order, 1):
        _save(tmp_path, step, score=psnr)
    best = order.index(9.0) + 1
    assert _steps(tmp_path) == sorted({best, 3, 4})
    _assert_equal(load_weights(tmp_path)[1]["params"], jax.device_get(_state(best).ema_params))


@contextlib.contextmanager
def _no_file_beyond(n_bytes):
    """The operating system refuses to write more into any file, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_failing_disk_leaves_the_last_good_checkpoint(tmp_path):
    _save(tmp_path, 0, 1, 2, size=300)
    message = r"could not be written.*that of step 2; mend"
    with pytest.raises(CheckpointError, match=message), _no_file_beyond(50_000):
        _save(tmp_path, 3, size=300)
    gc.collect()  # Orbax leaves coroutines behind; their warnings belong to this test
    state, position = _restore(tmp_path, _state(0, size=300))
    _assert_equal(state, _state(2, size=300))
    assert position == {"position": 2}
    _save(tmp_path, 3, size=300)  # and with room again, the run goes on
    assert _steps(tmp_path) == [0, 2, 3]


def test_a_save_that_failed_behind_is_told_to_whoever_waits(tmp_path, monkeypatch):
    wait = mock.Mock(side_effect=ValueError("no room"))
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints, monkeypatch.context() as patch:
        patch.setattr(checkpoints._manager, "wait_until_finished", wait)
        with pytest.raises(CheckpointError, match=r"could not be written, got .*no room"):
            checkpoints.wait()


def test_save_that_was_broken_off_is_no_checkpoint(tmp_path):
    _save(tmp_path, 0, 1)
    unfinished = tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp-17"
    (unfinished / "weights").mkdir(parents=True)
    assert _restore(tmp_path)[1] == {"position": 1}
    _assert_equal(load_weights(tmp_path)[1]["params"], jax.device_get(_state(1).ema_params))
    _save(tmp_path, 2)
    assert not unfinished.exists()
    assert _restore(tmp_path)[1] == {"position": 2}


def test_damaged_checkpoint_is_named_and_the_one_before_serves(tmp_path):
    _save(tmp_path, 1, 2)
    last = tmp_path / "checkpoints" / "2"
    for file in (last / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    with pytest.raises(CheckpointError, match=f"{last}: expected a readable.*remove it"):
        _restore(tmp_path)
    last.rename(tmp_path / "away")
    assert _restore(tmp_path)[1] == {"position": 1}


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf])
@pytest.mark.parametrize("part", ["generator", "critic", "averaged parameters"])
def test_state_that_is_not_finite_is_not_saved(tmp_path, part, value):
    _save(tmp_path, 1)
    state = _state(2)
    if part == "averaged parameters":
        state.ema_params["a"] = state.ema_params["a"].at[0, 0].set(value)
    else:
        params = getattr(state, part).params
        params["a"] = params["a"].at[0, 0].set(value)
    message = f"step 2: not saved.*: {part}; .* of step 1"
    with (
        contextlib.closing(Checkpoints(tmp_path)) as checkpoints,
        pytest.raises(FloatingPointError, match=message),
    ):
        checkpoints.save(state, config=CONFIG, data={})
    assert _steps(tmp_path) == [1]


def test_another_optimiser_is_refused_in_one_line(tmp_path):
    _save(tmp_path, 1)
    with pytest.raises(CheckpointError, match=r"got critic\.opt_state.* more; go") as caught:
        _restore(tmp_path, _state(0, optimizer=optax.sgd(0.1)))
    assert "\n" not in str(caught.value)


def test_another_size_is_refused(tmp_path):
    _save(tmp_path, 1)
    with pytest.raises(CheckpointError, match=r"of shape \(8, 8\) not \(4, 4\), and"):
        _restore(tmp_path, _state(0, size=4))


def test_another_network_is_refused_but_not_another_way_to_compute_it(tmp_path):
    _save(tmp_path, 1)
    config = get_config("tiny")
    config.model.update(dtype="bfloat16", pallas=True, unroll=True)
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.check(config)
        config.model.n_blocks = 6
        with pytest.raises(CheckpointError, match="this model, got one with n_blocks=2 not 6"):
            checkpoints.check(config)
        config.model = {"network": "modl", "n_iterations": 5}
        with pytest.raises(CheckpointError, match=r"got one with network 'kgmgt', not 'modl'$"):
            checkpoints.check(config)


def test_a_folder_closed_unused_goes_without_a_word(tmp_path, caplog):
    for number in range(50):  # Orbax works in threads: most times nothing is said anyway
        Checkpoints(tmp_path / str(number)).close()
        assert not (tmp_path / str(number) / "checkpoints").exists()
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


def test_what_else_has_changed_is_told(tmp_path, caplog):
    _save(tmp_path, 1)
    config = get_config("tiny")
    config.optimizer.learning_rate, config.data.acs = 0.5, 12
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.restore(_state(0), config=config)
    told = [record.getMessage() for record in caplog.records if record.name.startswith("kgmgt")]
    assert ["data: acs=12 not 8" in line for line in told] == [True, False]
    assert "another optimizer: learning_rate=0.5 not " in told[1]


@pytest.mark.parametrize("fields", [{"acs": 9}, {"validation": "other"}, {"held_out": 0.4}, {}])
def test_it_is_told_when_scores_no_longer_compare(tmp_path, caplog, fields):
    config = get_config("tiny")
    config.data.validation = "some"
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(_state(1), config=config, data={})
        config.data.update(fields)
        checkpoints.restore(_state(0), config=config)
    assert ("do not tell which checkpoint is best" in caplog.text) == bool(fields)


def test_another_number_of_workers_is_refused(tmp_path):
    _save(tmp_path, 1)
    config = get_config("tiny")
    config.data.worker_count = 2
    refused = pytest.raises(CheckpointError, match=r"expected data.worker_count=0.*, got 2")
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints, refused:
        checkpoints.check(config)


_DEEP = 100_000 * "[" + 100_000 * "]"


@pytest.mark.parametrize("text", ['{"psnr":\n', _DEEP], ids=["cut", "deep"])
def test_damaged_metrics_are_named(tmp_path, text):
    _save(tmp_path, 1)
    (tmp_path / "checkpoints/1/metrics/metrics").write_text(text)
    with pytest.raises(CheckpointError, match="metrics: expected a PSNR in JSON"):
        load_weights(tmp_path)
    with pytest.raises(CheckpointError, match=r"checkpoints: expected .* readable metrics"):
        Checkpoints(tmp_path)


@pytest.mark.parametrize("text", ['{"psnr": "x"}', '{"psnr": null}', "[1]"])
def test_metrics_that_are_no_number_are_named(tmp_path, text):
    _save(tmp_path, 1, 2)
    (tmp_path / "checkpoints/2/metrics/metrics").write_text(text)
    with pytest.raises(CheckpointError, match="metrics: expected a PSNR in JSON"):
        load_weights(tmp_path)


def test_a_run_goes_on_however_its_beginning_is_spelt(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, later = get_config("tiny"), get_config("tiny")
    first.train.start_from = "runs/a/"
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(_state(0), config=first, data={})
        checkpoints.save(_state(1), config=later, data={})  # gone on with without it
        checkpoints.check(later)
        monkeypatch.chdir(tmp_path.parent)
        later.train.start_from = f"{tmp_path.name}/runs/a"
        checkpoints.check(later)


def test_checkpoints_know_their_data_in_any_folder(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    config = get_config("tiny")
    config.data.train, config.data.validation = "pretrained,two/", "one, two"
    (tmp_path / "one, two").mkdir()
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(_state(1), config=config, data={})
        monkeypatch.chdir(tmp_path.parent)
        config.data.train = f"{tmp_path}/pretrained,{tmp_path.name}/two"
        config.data.validation = str(tmp_path / "one, two")
        checkpoints.restore(_state(0), config=config)
    assert not [record for record in caplog.records if record.name.startswith("kgmgt")]
    stored = load_weights(tmp_path)[0].data
    assert stored.train == f"{tmp_path}/pretrained,{tmp_path}/two"
    assert stored.validation == f"{tmp_path}/one, two"


@pytest.mark.parametrize("field", ["start_from", "vgg_encoder"])
def test_a_run_does_not_begin_anew_from_other_weights(tmp_path, field):
    _save(tmp_path, 1)
    config = get_config("tiny")
    config.train[field] = "elsewhere"
    refused = pytest.raises(CheckpointError, match="elsewhere', got one with ''")
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints, refused:
        checkpoints.check(config)


def test_checkpoints_of_earlier_versions_had_the_position_alone(tmp_path):
    _save(tmp_path, 1)
    path = tmp_path / "checkpoints" / "1" / "data" / "metadata"
    assert json.loads(path.read_text()) == {"position": {"position": 1}, "slices": {}}
    path.write_text('{"next_index": 7}')
    assert _restore(tmp_path)[1] == {"next_index": 7}


def test_runs_of_earlier_versions_had_an_l1_loss(tmp_path, caplog):
    _save(tmp_path, 1)
    path = tmp_path / "checkpoints" / "1" / "config" / "metadata"
    stored = json.loads(path.read_text())
    del stored["loss"]["image"]
    path.write_text(json.dumps(stored))
    config = get_config("tiny")
    for weight in (0.0, 0.5):
        config.loss.image.l2 = weight
        with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
            checkpoints.restore(_state(0), config=config)
        told = [record.getMessage() for record in caplog.records]
        assert any("another loss: image=" in line for line in told) == bool(weight)


def test_runs_of_earlier_versions_held_nothing_out_and_had_all_coils(tmp_path, caplog):
    _save(tmp_path, 1)
    path = tmp_path / "checkpoints" / "1" / "config" / "metadata"
    stored = json.loads(path.read_text())
    del stored["loss"]["kspace"], stored["data"]["held_out"], stored["data"]["virtual_coils"]
    config = get_config("tiny")
    config.data.validation = stored["data"]["validation"] = str(tmp_path / "scans")
    path.write_text(json.dumps(stored))
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.restore(_state(0), config=config)
    assert not [record for record in caplog.records if record.name.startswith("kgmgt")]


def test_reader_leaves_a_save_in_progress_alone(tmp_path):
    _save(tmp_path, 1)
    unfinished = tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp-17"
    unfinished.mkdir()
    with contextlib.closing(Checkpoints(tmp_path, read_only=True)) as checkpoints:
        assert checkpoints.restore(_state(0), config=CONFIG)[1] == {"position": 1}
    assert unfinished.exists()


def test_missing_and_damaged_weights_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="got no folder"):
        load_weights(tmp_path / "none")
    with pytest.raises(CheckpointError, match="got neither"):
        load_weights(tmp_path)
    broken = tmp_path / "0"
    (broken / "weights").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="readable checkpoint"):
        load_weights(broken)


def test_unwritable_workdir_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="writable folder"):
        Checkpoints(tmp_path / "file")
