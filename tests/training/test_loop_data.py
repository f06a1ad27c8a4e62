"""What a run makes of its data: examples, coil maps, validation slices, changes it notices."""

import json

import numpy as np
import pytest

from kgmgt_jax.data.augmentation import Augmentation
from kgmgt_jax.data.formats import open_files
from kgmgt_jax.data.mask_sampler import MaskSampler
from kgmgt_jax.data.phantom import write_cmrxrecon2023
from kgmgt_jax.data.pipeline import TripletOptions
from kgmgt_jax.data.prepared import PrepareOptions
from kgmgt_jax.data.prepared.preparing import prepare
from kgmgt_jax.data.sens_cache import central_sens
from kgmgt_jax.training import loop
from kgmgt_jax.training.loop import train
from tests.data.draws import random_complex
from tests.training.stub import compiled_once, data, loop_config, stub

__all__ = ["compiled_once", "data", "stub"]  # fixtures

pytestmark = pytest.mark.filterwarnings("ignore")  # Orbax and TensorStore


def _loader(data, seed=0):
    return loop._loader(loop._sources(data)["train"], data, seed)


def _validation(data):
    return loop._validation(loop._sources(data)["validation"], data)


@pytest.mark.parametrize(("lines", "used"), [(0, 8), (16, 16)])
def test_coil_maps_for_training_come_from_the_lines_asked_for(tmp_path, lines, used):
    sizes = {"shape": (32, 32), "n_frames": 3, "n_slices": 1, "n_coils": 2, "accelerations": ()}
    (path,) = write_cmrxrecon2023(tmp_path, [0], **sizes)
    config = loop_config(tmp_path)
    config.data.update(acs=8, calibration_lines=lines, batch_size=1)
    config.data.augmentation.update(flips=False)
    batch = next(_loader(config.data))
    (file,) = open_files(path)
    expected = central_sens(file[0].kspace.mean(axis=0), acs=used)
    np.testing.assert_array_equal(batch["sens"][0], expected)


def test_a_prepared_set_has_the_maps_that_the_run_says_it_has(tmp_path):
    sizes = {"shape": (32, 32), "n_frames": 3, "n_slices": 1, "n_coils": 2, "accelerations": ()}
    write_cmrxrecon2023(tmp_path / "files", [0], **sizes)
    options = PrepareOptions(sens="adaptive", split=(1.0,))
    prepare(tmp_path / "files", tmp_path / "set", options)
    config = loop_config(tmp_path / "set")
    config.data.validation = ""
    with pytest.raises(ValueError, match=r"data.sens: expected 'adaptive'.* got 'espirit'"):
        loop._sources(config.data)
    config.data.sens = "adaptive"
    assert list(loop._sources(config.data)) == ["train"]


def test_data_that_changed_between_two_runs_are_told(stub, tmp_path, caplog):
    sizes = {"shape": (32, 32), "n_frames": 4, "n_slices": 1, "accelerations": (), "acs": 8}
    config, told = loop_config(tmp_path / "data"), []
    for step, subjects in enumerate(([0], [0], [0, 1]), start=1):
        write_cmrxrecon2023(tmp_path / "data", subjects, **sizes)
        caplog.clear()
        train(config, tmp_path / "run", stop_after=step)
        told.append([r.getMessage() for r in caplog.records if "not what it was" in r.msg])
    assert told[:2] == [[], []]
    for part, line in zip(("train", "validation"), told[2], strict=True):
        assert f"data.{part} is not" in line and "1 slices, " in line and "2 slices, " in line


@pytest.mark.parametrize("fixed", [True, False])
def test_a_scan_s_own_mask_decides_which_weights_a_run_begins_with(tmp_path, fixed):
    mask = np.zeros((4, 32, 32), np.float32)
    for frame in range(4):
        mask[frame, frame * (not fixed) :: 4] = 1
    np.save(tmp_path / "P1_kspace.npy", random_complex(4, 1, 32, 32) * mask[:, None])
    np.save(tmp_path / "P1_mask.npy", mask)
    config = loop_config(tmp_path)
    config.data.update(held_out=0.4, validation="", mask_kinds=("uniform", "variable_density"))
    assert loop._fixed_masks(loop._sources(config.data)["train"], config.data) is fixed


@pytest.mark.parametrize(
    ("validation", "metric"), [("full", "val_psnr"), ("data", "val_held_out"), ("", None)]
)
def test_a_run_without_references_learns_from_undersampled_files(
    stub, tmp_path, validation, metric
):
    sizes = {"shape": (32, 32), "n_frames": 4, "n_slices": 1, "n_coils": 2, "acs": 8}
    write_cmrxrecon2023(tmp_path / "data", [0], accelerations=(4,), **sizes)
    (full,) = tmp_path.glob("data/**/FullSample")
    full.rename(tmp_path / "full")
    config = loop_config(tmp_path / "data")
    config.loss.update(adversarial=0.0, image={"l1": 0.0}, kspace={"l1": 0.5, "l2": 0.5})
    config.data.update(crop=(None, 24), held_out=0.4)
    config.data.validation = str(tmp_path / validation) if validation else ""
    state = train(config, tmp_path / "run")
    assert int(state.step) == 8
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").open()]
    losses = [line["kspace_l1"] for line in lines if "kspace_l1" in line]
    assert len(losses) == 8 and np.isfinite(losses).all()
    assert not any("psnr" in line for line in lines)
    scores = {name for line in lines for name in line if name.startswith("val_")}
    assert scores == ({metric} if metric else set())


def test_validation_sees_several_slices(data):
    settings = loop_config(data).data
    settings.update(validation_slices=2, validation_frames=3)
    one, other = _validation(settings)
    assert len(one["target"]) == len(other["target"]) == 3
    assert not np.allclose(one["reference"], other["reference"], atol=0.1)


def test_validation_is_sampled_by_the_first_kind_and_acceleration(data):
    settings = loop_config(data).data
    settings.update(mask_kinds=("uniform_aligned", "kt_gaussian"), accelerations=(2, 8), acs=4)
    settings.update(validation_frames=2, circular=False)
    batch = _validation(settings)[0]
    lines = np.flatnonzero(batch["mask"][0, :, 0])
    assert lines.tolist() == sorted({*range(0, 32, 2), *range(14, 18)})
    np.testing.assert_array_equal(batch["preceding"][0], batch["target"][0])  # of real time


def test_training_examples_are_made_as_configured(data, monkeypatch):
    def make(source, options, **more):
        return {"options": options} | more

    opened = {}
    source = lambda *args, **more: opened.update({more["split"]: more})  # noqa: E731
    monkeypatch.setattr(loop, "make_training_loader", make)
    monkeypatch.setattr(loop, "open_slices", source)
    settings = loop_config(data).data
    settings.update(mask_kinds=("kt_uniform",), accelerations=(3, 5), acs=6, crop=(24, 16))
    settings.update(circular=False, input_fill="average", batch_size=2, n_buckets=3)
    settings.update(calibration_lines=10, virtual_coils=4)
    made = _loader(settings, 7)
    assert made["options"] == TripletOptions(
        MaskSampler(("kt_uniform",), (3, 5), 6),
        Augmentation(crop=(24, 16), **settings.augmentation),
        input_fill="average",
        circular=False,
    )
    expected = {"batch_size": 2, "n_buckets": 3, "seed": 7, "process": (0, 1)}
    assert {name: made[name] for name in expected} == expected
    assert (opened["train"]["crop_rows"], opened["train"]["acs"]) == (24, 10)
    assert "crop_rows" not in opened["validation"]
    assert opened["train"]["virtual_coils"] == opened["validation"]["virtual_coils"] == 4
    settings.calibration_lines = 0
    _loader(settings, 7)
    assert opened["train"]["acs"] == opened["validation"]["acs"] == 6
