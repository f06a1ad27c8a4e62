"""Training runs end to end on phantoms: logs, checkpoints, resumption, refusals."""

import itertools
import json
import signal

import jax
import numpy as np
import pytest

from kgmgt_jax.data.phantom import write_cmrxrecon2023
from kgmgt_jax.training.checkpoint import CheckpointError, Checkpoints, load_weights
from kgmgt_jax.training.loop import train
from kgmgt_jax.training.writer import Writer
from tests.training.small import small_config

pytestmark = pytest.mark.filterwarnings("ignore")  # Orbax and TensorStore


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_cmrxrecon2023(
        folder, [0, 1], shape=(32, 32), n_frames=4, n_slices=1, accelerations=(), acs=8
    )
    return folder


def _config(data, n_steps, **model):
    config = small_config(**model)
    config.data.update(train=str(data), validation=str(data), crop=(32, 32), batch_size=4, acs=4)
    config.loss.adversarial = 1e-3
    config.train.update(n_steps=n_steps, log_every=1, eval_every=2)
    return config


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """Keeps the compiled steps, since each run is that of a process of its own."""
    settings = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("xla")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """One run of four steps, and the same stopped by a signal during its second."""
    root = tmp_path_factory.mktemp("runs")
    whole = train(_config(data, 4), root / "whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Writer, "advance", _stop_at(2, Writer.advance))
        with pytest.raises(KeyboardInterrupt):
            train(_config(data, 4), root / "pieces")
    assert Checkpoints(root / "pieces").latest_step() == 2
    pieces = train(_config(data, 4), root / "pieces")
    return root, whole, pieces


def _stop_at(step, advance):
    """``advance`` that at the given step also sends this process the signal of a Ctrl-C."""
    calls = itertools.count(1)

    def stopping(writer):
        if next(calls) == step:
            signal.raise_signal(signal.SIGINT)
        advance(writer)

    return stopping


def test_resuming_after_a_signal_equals_not_stopping(runs):
    _, whole, pieces = runs
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(pieces), strict=True):
        np.testing.assert_array_equal(a, b)


def test_log_has_every_step_and_the_validation(runs):
    lines = [json.loads(row) for row in (runs[0] / "whole" / "metrics.jsonl").open()]
    assert [row["step"] for row in lines if "loss" in row] == [1, 2, 3, 4]
    assert [row["step"] for row in lines if "val_psnr" in row] == [2, 4]
    assert {"l1", "adversarial", "wasserstein", "penalty", "psnr"} <= lines[0].keys()


def test_step_zero_stays_and_the_best_is_loaded(runs):
    folder = runs[0] / "whole" / "checkpoints"
    assert (folder / "0" / "weights").is_dir()
    config, variables = load_weights(runs[0] / "whole")
    assert config.model.channels == (4, 4, 4)
    scores = {
        row["step"]: row["val_psnr"]
        for row in map(json.loads, (runs[0] / "whole" / "metrics.jsonl").open())
        if "val_psnr" in row
    }
    best = max(scores, key=lambda step: scores[step])
    _, direct = load_weights(folder / str(best))
    for a, b in zip(jax.tree.leaves(variables), jax.tree.leaves(direct), strict=True):
        np.testing.assert_array_equal(a, b)


def test_resuming_with_another_model_is_refused(runs, data):
    with pytest.raises(CheckpointError, match="denoiser_channels=4 not 8"):
        train(_config(data, 6, denoiser_channels=8), runs[0] / "whole")


def test_missing_and_damaged_checkpoints_are_refused(runs, tmp_path):
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
