"""What a person sees: log lines, pictures, TensorBoard's files, the table of parameters."""

import json
import time
from pathlib import Path

import imageio.v3 as iio
import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.training import writer as writer_module
from kgmgt_jax.training.state import NetworkState, TrainState
from kgmgt_jax.training.summary import parameter_list, parameter_table
from kgmgt_jax.training.validation import Validation
from kgmgt_jax.training.writer import Writer


def _rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def _validation(n_frames=3, size=16):
    rng = np.random.default_rng(0)
    return Validation("psnr", 20.0, *rng.random((3, n_frames, size, size)).astype(np.complex64))


def test_numbers_are_one_object_a_line(tmp_path):
    writer = Writer(tmp_path, n_steps=2, tensorboard=False)
    writer.scalars(1, loss=jnp.asarray(0.5))
    writer.close()
    (row,) = _rows(tmp_path)
    assert row["step"] == 1 and row["loss"] == 0.5 and abs(row["time"] - time.time()) < 60


def test_a_log_of_infinite_numbers_is_json(tmp_path):
    writer = Writer(tmp_path, n_steps=2, tensorboard=False)
    writer.scalars(1, loss=0.5, psnr=jnp.inf)  # of an exact image
    writer.close()
    assert "Infinity" not in (tmp_path / "metrics.jsonl").read_text()
    (row,) = _rows(tmp_path)
    assert (row["loss"], row["psnr"]) == (0.5, None)


def test_bar_shows_loss_psnr_and_speed(tmp_path, capsys, monkeypatch):
    now = iter([1.0, 3.0, 3.0])
    monkeypatch.setattr(writer_module.time, "perf_counter", lambda: next(now))
    writer = Writer(tmp_path, n_steps=10, batch_size=4, tensorboard=False)
    writer.advance()  # at 1.0: what came before was compilation
    writer.advance()
    writer.metrics(2, {"loss": 0.25, "psnr": 21.0, "l1": 0.1})  # at 3.0
    writer._bar.refresh()
    writer.close()
    shown = capsys.readouterr().err
    assert "loss=0.25, psnr=21, examples/s=2" in shown and "l1" not in shown
    assert _rows(tmp_path)[0]["examples_per_second"] == 2.0


def test_lines_of_steps_to_be_run_again_are_dropped(tmp_path):
    rows = [{"step": step, "loss": 1.0} for step in (1, 2, 3)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "metrics.jsonl").write_text(text + '{"step": 1, "lo')
    writer = Writer(tmp_path, n_steps=5, first_step=2, tensorboard=False)
    writer.scalars(3, loss=2.0)
    writer.close()
    assert [(row["step"], row["loss"]) for row in _rows(tmp_path)] == [(1, 1), (2, 1), (3, 2)]


def test_validation_is_logged_and_drawn(tmp_path):
    writer = Writer(tmp_path, n_steps=5, tensorboard=False)
    writer.validation(4, _validation())
    writer.validation(5, None)
    writer.close()
    assert [(row["step"], row["val_psnr"]) for row in _rows(tmp_path)] == [(4, 20.0)]
    (picture,) = (tmp_path / "images").iterdir()
    assert picture.name == "validation_00000004.png" and iio.imread(picture).shape[2] in (3, 4)


def test_frames_too_small_for_a_picture_do_not_stop_a_run(tmp_path, capsys):
    writer = Writer(tmp_path, n_steps=5, tensorboard=False)
    writer.validation(4, _validation(size=4))
    writer.close()
    assert _rows(tmp_path) and "no picture of step 4" in capsys.readouterr().err


def test_silent_writer_leaves_nothing(tmp_path, capsys):
    writer = Writer(tmp_path, n_steps=5, silent=True)
    writer.advance()
    writer.scalars(1, loss=1.0)
    writer.validation(1, _validation())
    writer.text("stopped after step 1")
    writer.close()
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore")  # protobuf's and tensorboardX's
def test_tensorboard_gets_scalars_and_images(tmp_path):
    pytest.importorskip("tensorboardX", reason="needs the extra tensorboard")
    from tensorboardX.proto.event_pb2 import Event

    writer = Writer(tmp_path, n_steps=5, first_step=3)
    writer.scalars(4, loss=0.5)
    writer.validation(4, _validation())
    writer.close()
    (file,) = (tmp_path / "tensorboard").iterdir()
    data, events = file.read_bytes(), []
    while data:  # length (8 bytes), its check sum (4), the event, its check sum (4)
        n = int.from_bytes(data[:8], "little")
        events.append(Event.FromString(data[12 : 12 + n]))
        data = data[16 + n :]
    values = {v.tag: (e.step, v) for e in events for v in e.summary.value}
    assert values["loss"][0] == 4 and values["loss"][1].simple_value == 0.5
    assert values["val_psnr"][1].simple_value == 20.0
    assert values["validation"][1].image.width > 100


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a system without /dev/full")
def test_full_disk_under_the_log_is_an_error_that_names_it(tmp_path):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    writer = Writer(tmp_path, n_steps=3, tensorboard=False)
    for work in (lambda: writer.scalars(1, loss=2.0), writer.close):
        with pytest.raises(OSError, match=r"No space left on device: '.*metrics\.jsonl'"):
            work()


@pytest.mark.filterwarnings("ignore")
def test_full_disk_under_tensorboards_file_is_an_error_at_once(tmp_path, monkeypatch):
    record_writer = pytest.importorskip("tensorboardX.record_writer")
    writer = Writer(tmp_path, n_steps=5)

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(record_writer.RecordWriter, "flush", refuse)
    with pytest.raises(OSError, match="No space left"):
        writer.scalars(1, loss=0.5)
    monkeypatch.undo()
    writer.close()


def _state():
    params = {
        "encoder": {"conv": {"kernel": jnp.zeros((3, 3, 2, 4)), "bias": jnp.zeros(4)}},
        "mentor": {"scale": jnp.zeros(5), "head": {"kernel": jnp.zeros((4, 2))}},
    }
    generator = NetworkState(params, {}, None)
    critic = NetworkState({"score": {"kernel": jnp.zeros((1000, 3))}}, {}, None)
    return TrainState(jnp.zeros(()), generator, critic, params, jnp.zeros(2, jnp.uint32))


def test_table_adds_up():
    rows = [line.split() for line in parameter_table(_state()).splitlines()]
    assert rows == [
        ["module", "arrays", "parameters", "MiB"],
        ["encoder", "2", "76", "0.00"],
        ["conv", "2", "76", "0.00"],
        ["mentor", "2", "13", "0.00"],
        ["head", "1", "8", "0.00"],
        ["generator", "4", "89", "0.00"],
        ["critic", "1", "3,000", "0.01"],
    ]


def test_table_has_parameters_of_the_network_itself():
    state = _state()
    params = {"log_weight": np.zeros(()), **state.generator.params}
    table = parameter_table(state.replace(generator=state.generator.replace(params=params)))
    assert table.splitlines()[1].split() == ["log_weight", "1", "1", "0.00"]


def test_list_has_every_shape():
    lines = parameter_list(_state()).splitlines()
    assert "generator/encoder/conv/kernel (3, 3, 2, 4) float32" in lines
    assert "critic/score/kernel (1000, 3) float32" in lines and len(lines) == 5
