"""Training runs end to end on phantoms: logs, checkpoints, resumption, refusals.

Network and critic are stubs of two convolutions; the run of the true ones is slow.
"""

import itertools
import json
import logging
import signal
import sys
from types import SimpleNamespace

import imageio.v3 as iio
import jax
import numpy as np
import pytest

from kgmgt_jax.models.critic import Critic
from kgmgt_jax.models.registry import build_model
from kgmgt_jax.training import loop
from kgmgt_jax.training.checkpoint import Checkpoints
from kgmgt_jax.training.loop import train
from kgmgt_jax.training.watch import load_batch
from kgmgt_jax.training.weights import FIXED_WEIGHTS, CheckpointError, load_weights, save_weights
from kgmgt_jax.training.writer import Writer
from tests.training.stub import compiled_once, data, loop_config, stub

__all__ = ["compiled_once", "data", "stub"]  # fixtures

pytestmark = pytest.mark.filterwarnings("ignore")  # Orbax and TensorStore


@pytest.fixture(scope="module")
def runs(data, stub, tmp_path_factory):
    """One run of four steps, and the same stopped by a signal during its second."""
    return whole_and_pieces(data, tmp_path_factory.mktemp("runs"))


def whole_and_pieces(data, root):
    whole = train(loop_config(data), root / "whole", stop_after=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Writer, "advance", _stop_at(2, Writer.advance))
        with pytest.raises(KeyboardInterrupt):
            train(loop_config(data), root / "pieces")
    assert Checkpoints(root / "pieces").latest_step() == 2
    pieces = train(loop_config(data), root / "pieces", stop_after=4)
    return SimpleNamespace(root=root, folder=root / "whole", whole=whole, pieces=pieces)


def _stop_at(step, advance):
    """``advance`` that at the given step also sends this process the signal of a Ctrl-C."""
    calls = itertools.count(1)

    def stopping(writer):
        if next(calls) == step:
            signal.raise_signal(signal.SIGINT)
        advance(writer)

    return stopping


def _log(folder):
    return [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]


def _scores(folder):
    return {row["step"]: row["val_psnr"] for row in _log(folder) if "val_psnr" in row}


def equal(a, b):
    return all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


@pytest.mark.parametrize(
    ("mask_kinds", "fixed"),
    [
        (("variable_density",), False),
        (("uniform", "variable_density"), False),
        (("uniform", "variable_density_fixed"), True),
    ],
)
def test_a_run_on_fixed_masks_starts_from_the_weights_for_those(
    data, runs, tmp_path, mask_kinds, fixed
):
    config = loop_config(data)
    config.data.mask_kinds = mask_kinds
    config.train.start_from = str(tmp_path / "weights")
    weights = jax.device_get(runs.whole.eval_variables)
    others = jax.tree.map(lambda array: array + 1, weights)
    save_weights(config.train.start_from, {"model": {}}, weights, **{FIXED_WEIGHTS: others})
    assert train(config, tmp_path / "run", stop_after=0).step == 0
    started = load_weights(tmp_path / "run" / "checkpoints" / "0")[1]
    jax.tree.map(np.testing.assert_array_equal, started, others if fixed else weights)


def test_a_run_starts_from_the_weights_of_another(data, runs, tmp_path):
    config = loop_config(data)
    whole = str(tmp_path / "weights")
    save_weights(whole, {"model": {}}, jax.device_get(runs.whole.eval_variables))
    config.train.start_from = whole
    state = train(config, tmp_path / "run", stop_after=1)
    started = load_weights(tmp_path / "run" / "checkpoints" / "0")[1]["params"]
    jax.tree.map(np.testing.assert_array_equal, started, jax.device_get(runs.whole.ema_params))
    assert state.step == 1
    train(config, tmp_path / "run", stop_after=2)  # goes on where it was, and does not start anew
    again = load_weights(tmp_path / "run" / "checkpoints" / "0")[1]["params"]
    jax.tree.map(np.testing.assert_array_equal, again, started)


def test_a_run_without_training_data_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"config\.data\.train: expected a file or folder"):
        train(loop_config(""), tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())  # an empty folder of checkpoints, for one


def test_resuming_after_a_signal_equals_not_stopping(runs):
    assert int(runs.whole.step) == 4
    assert equal(runs.whole, runs.pieces)


def test_a_validation_that_a_signal_prevented_is_made_up_for(runs):
    pieces = runs.root / "pieces"
    assert _scores(pieces) == _scores(runs.folder)  # the signal came at step 2, where one is due
    assert equal(load_weights(pieces)[1], load_weights(runs.folder)[1])
    stored = [json.loads((pieces / f"checkpoints/{n}/metrics/metrics").read_text()) for n in (2, 4)]
    assert [each["psnr"] for each in stored] == list(_scores(pieces).values())


def test_a_validation_after_the_last_step_is_made_up_for(data, stub, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Writer, "advance", _stop_at(2, Writer.advance))
        with pytest.raises(KeyboardInterrupt):
            train(loop_config(data), tmp_path, stop_after=2)
    assert _scores(tmp_path) == {}
    for _ in range(2):  # the second time nothing is to do
        assert train(loop_config(data), tmp_path, stop_after=2).step == 2
        assert len([row for row in _log(tmp_path) if "val_psnr" in row]) == 1
    stored = json.loads((tmp_path / "checkpoints/2/metrics/metrics").read_text())
    assert stored == {"psnr": _scores(tmp_path)[2]}


@pytest.mark.slow
def test_whole_network_resumes_as_if_not_stopped(data, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "build_model", build_model)  # the stubs are still there,
    monkeypatch.setattr(loop, "Critic", Critic)  # if other tests of the module ran before
    runs = whole_and_pieces(data, tmp_path)
    assert "unet" in runs.whole.generator.params["mentor_net"]
    assert equal(runs.whole, runs.pieces)


def test_log_has_every_step_and_the_validation(runs):
    rows = _log(runs.folder)
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]
    assert [row["step"] for row in rows if "val_psnr" in row] == [2, 4]
    assert {"l1", "adversarial", "wasserstein", "penalty", "psnr"} <= rows[0].keys()


def test_log_has_the_speed_but_for_the_first_step(runs):
    training = [row for row in _log(runs.folder) if "loss" in row]
    assert "examples_per_second" not in training[0]  # compilation
    assert all(row["examples_per_second"] > 0 for row in training[1:])


def test_pictures_and_parameters_are_kept(runs):
    names = sorted(path.name for path in (runs.folder / "images").iterdir())
    assert names == ["validation_00000002.png", "validation_00000004.png"]
    assert iio.imread(runs.folder / "images" / names[0]).std() > 10
    lines = (runs.folder / "parameters.txt").read_text().splitlines()
    assert "generator/mentor_net/kernel (3, 3, 2, 2) float32" in lines


def test_step_zero_stays_and_the_best_is_loaded(runs):
    folder = runs.folder / "checkpoints"
    assert (folder / "0" / "weights").is_dir()
    config, variables = load_weights(runs.folder)
    assert config.model.channels == (4, 4, 4)
    scores = _scores(runs.folder)
    best = max(scores, key=lambda step: scores[step])
    assert equal(variables, load_weights(folder / str(best))[1])


def test_checkpoints_are_as_frequent_as_configured(data, stub, tmp_path):
    config = loop_config(data)
    config.train.update(eval_every=100, checkpoint_every=2)
    with pytest.MonkeyPatch.context() as patch:
        saved = []
        save = Checkpoints.save
        patch.setattr(
            Checkpoints, "save", lambda s, t, **k: saved.append(int(t.step)) or save(s, t, **k)
        )
        train(config, tmp_path, stop_after=5)
    assert saved == [0, 2, 4, 5]


def test_position_saved_is_that_of_the_batch_consumed(runs, data):
    config = loop_config(data)
    checkpoint = Checkpoints(runs.folder, read_only=True)
    state = loop.build(config, loop.parallel.make_mesh())[1]
    _, position = checkpoint.restore(state, config=config)
    checkpoint.close()
    source = loop._sources(config.data)["train"]
    fresh, resumed = (loop._loader(source, config.data, config.train.seed) for _ in range(2))
    for _ in range(4):
        next(fresh)
    resumed.set_state(position)
    assert equal(next(fresh), next(resumed))
    fresh.close()
    resumed.close()


def _spoil(monkeypatch, at, change):
    """Gives the loader's batches ids, and changes that of one step."""
    real = loop._loader

    class Spoilt:
        def __init__(self, *arguments):
            self._loader, self._count = real(*arguments), itertools.count(1)

        def __getattr__(self, name):
            return getattr(self._loader, name)

        def __next__(self):
            batch = {**next(self._loader), "id": np.arange(4)}
            return change(batch) if next(self._count) == at else batch

    monkeypatch.setattr(loop, "_loader", Spoilt)


def _with_nan(batch):
    reference = np.array(batch["reference"])
    reference[2, 5, 5] = np.nan
    return {**batch, "reference": reference}


@pytest.mark.parametrize("log_every", [1, 100])
def test_loss_that_is_not_finite_ends_the_run_at_its_step(
    data, stub, tmp_path, monkeypatch, log_every
):
    config = loop_config(data)
    config.train.update(log_every=log_every, eval_every=100, checkpoint_every=2)
    _spoil(monkeypatch, 3, _with_nan)
    message = r"step 3: not finite: .*l1 is nan.*of ids 0, 1, 2, 3 .*that of step 2"
    with pytest.raises(FloatingPointError, match=message):
        train(config, tmp_path)
    saved = load_batch(tmp_path / "not_finite" / "step_3.npz")
    assert saved.step == 3 and list(saved.ids) == [0, 1, 2, 3]
    assert np.isnan(saved.arrays["reference"]).sum() == 1
    assert np.isnan(saved.metrics["l1"])
    assert Checkpoints(tmp_path).latest_step() == 2


def test_steps_after_the_last_checkpoint_are_logged_once(data, stub, tmp_path, monkeypatch):
    config = loop_config(data)
    config.train.update(eval_every=100, checkpoint_every=2)
    _spoil(monkeypatch, 4, _with_nan)  # step 3 is logged, and lost
    with pytest.raises(FloatingPointError):
        train(config, tmp_path)
    assert [row["step"] for row in _log(tmp_path)] == [1, 2, 3]
    monkeypatch.undo()
    train(config, tmp_path, stop_after=4)
    assert [row["step"] for row in _log(tmp_path) if "loss" in row] == [1, 2, 3, 4]


def test_profile_is_written(data, stub, tmp_path, monkeypatch):
    started, stopped = [], []
    monkeypatch.setattr(jax.profiler, "start_trace", started.append)
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: stopped.append(True))
    config = loop_config(data)
    config.train.update(eval_every=100, checkpoint_every=100)
    config.profile = True
    train(config, tmp_path)
    assert started == [tmp_path / "profile"] and stopped == [True]


def test_a_run_that_is_at_its_last_step_says_that_nothing_is_to_do(runs, data, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("kgmgt_jax"), "propagate", True)
    config = loop_config(data)
    config.train.n_steps = 3
    with caplog.at_level("INFO", "kgmgt_jax"):
        train(config, runs.folder)
    assert "is already at step 4 of 3, nothing is to do" in caplog.records[-1].message


def test_run_without_tensorboardx_says_so_once(data, stub, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    monkeypatch.setattr(logging.getLogger("kgmgt_jax"), "propagate", True)
    config = loop_config(data)
    config.train.tensorboard = True
    with caplog.at_level("INFO", "kgmgt_jax"):
        train(config, tmp_path, stop_after=1)
    assert sum("tensorboardX" in record.message for record in caplog.records) == 1


def _refused_without_compiling(config, workdir, match):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "build", None)  # not even reached
        with pytest.raises(ValueError, match=match):
            train(config, workdir)


def test_resuming_with_another_model_is_refused(runs, data):
    config = loop_config(data, denoiser_channels=8)
    _refused_without_compiling(config, runs.folder, "denoiser_channels=4 not 8")


def test_kernels_of_one_device_are_refused_on_several(data, tmp_path):
    config = loop_config(data, pallas=True)
    _refused_without_compiling(config, tmp_path, "pallas: expected False or one device, got 4")


def test_folder_of_something_else_is_refused(data, tmp_path):
    (tmp_path / "net_g.pth").write_text("")
    _refused_without_compiling(loop_config(data), tmp_path, "got one with net_g.pth")


def test_resuming_with_another_loss_is_refused(runs, data):
    config = loop_config(data)
    config.loss.adversarial = 0.0
    with pytest.raises(CheckpointError, match=r"critic.* of shape .* not none"):
        train(config, runs.folder)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"offset_rates": (1e-3, 1e-4, 1e-5)}, r"opt_state\.2 of shape none not empty; go back"),
        ({"clip_norm": None}, r"opt_state\.1\.0\.count of shape \(\) not none"),
    ],
)
def test_resuming_with_another_optimiser_is_refused(runs, data, fields, match):
    config = loop_config(data)
    config.optimizer.update(**fields)
    with pytest.raises(CheckpointError, match=f"of these networks and optimisers, got .*{match}"):
        train(config, runs.folder)
