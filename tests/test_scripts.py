"""The scripts on real and on broken files: what they write, and one line and exit code 2."""

import json
import subprocess
import sys
from pathlib import Path

import h5py
import jax
import numpy as np
import pytest

from kgmgt_jax.data.phantom import write_cmrxrecon2023
from kgmgt_jax.training.loop import train
from kgmgt_jax.training.weights import load_weights, save_weights
from tests.scripts_environment import scripts_environment
from tests.training.small import small_config

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.filterwarnings("ignore")  # Orbax and TensorStore


@pytest.fixture(scope="module", autouse=True)
def programs(tmp_path_factory):
    """Keeps what a script compiles for the next one, apart from what users have."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("xla")))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        yield


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Phantoms, and a checkpoint of an untrained network."""
    folder = tmp_path_factory.mktemp("scripts")
    options = {"shape": (33, 26), "n_frames": 3, "n_slices": 1, "acs": 8}
    write_cmrxrecon2023(folder / "data", [0], accelerations=(4,), **options)
    config = small_config()
    config.data.update(train=str(folder / "data"), crop=(32, 24), acs=4, batch_size=4)
    config.train.n_steps = 0
    train(config, folder / "run")
    return folder


@pytest.fixture(scope="module")
def files(work):
    base = work / "data" / "SingleCoil" / "Cine" / "TrainingSet"
    return {
        "under": base / "AccFactor04" / "P001" / "cine_sax.mat",
        "mask": base / "AccFactor04" / "P001" / "cine_sax_mask.mat",
        "full": base / "FullSample" / "P001" / "cine_sax.mat",
    }


def _script(name, *arguments):
    return subprocess.run(
        [sys.executable, name, *map(str, arguments)],
        cwd=ROOT,
        env=scripts_environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )


def _reconstruct(work, file, out, *more):
    return _script("reconstruct.py", file, f"--checkpoint={work / 'run'}", f"--out={out}", *more)


def _complex(path, key):
    with h5py.File(path) as file:
        return file[key]["real"] + 1j * file[key]["imag"]


def test_reconstruct_writes_images_that_keep_the_measurement(work, files, tmp_path):
    more = (f"--reference={files['full']}", "--formats=mat,nii")
    done = _reconstruct(work, files["under"], tmp_path, *more)
    assert done.returncode == 0, done.stderr
    image = _complex(tmp_path / "cine_sax_recon.mat", "reconstruction")
    measured = _complex(files["under"], "kspace_single_sub04")
    assert image.shape == measured.shape
    axes = (-2, -1)
    kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image, axes), norm="ortho"), axes)
    with h5py.File(files["mask"]) as file:
        mask = file["mask04"][:] > 0
    error = np.linalg.norm((kspace - measured)[..., mask]) / np.linalg.norm(measured)
    assert error < 1e-5
    assert "zero_filled" in done.stdout and "PSNR" in done.stdout
    for name in ("cine_sax.png", "cine_sax.gif", "cine_sax_metrics.json", "cine_sax_recon.nii.gz"):
        assert (tmp_path / name).stat().st_size > 0


def test_another_run_leaves_no_scores_of_an_earlier_one(work, files, tmp_path):
    stale = tmp_path / "cine_sax_metrics.json"
    stale.write_text("{}")
    done = _reconstruct(work, files["under"], tmp_path, "--formats=h5,dicom")
    assert done.returncode == 0, done.stderr
    assert not stale.exists() and "made up" in done.stdout
    with h5py.File(tmp_path / "cine_sax_recon.h5") as file:
        assert file.attrs["source"] == str(files["under"])
        assert file.attrs["mask"] == str(files["mask"])


def test_eval_scores_and_compares(work, tmp_path):
    config, variables = load_weights(work / "run")
    changed = jax.tree.map(lambda x: 1.5 * x, variables)
    fields = config.to_dict()
    fields["data"] |= {"sens": "adaptive", "train": "", "validation": str(work / "data")}
    other = save_weights(tmp_path / "other", fields, changed)
    fields = config.to_dict()
    fields["data"]["virtual_coils"] = 2
    few = save_weights(tmp_path / "few", fields, variables)
    done = _script(
        "eval.py",
        f"--checkpoint={few}",
        f"--compare=other={other}",
        f"--compare=same={work / 'run' / 'checkpoints' / '0'}",
        f"--data={work / 'data'}",
        f"--out={tmp_path}",
        "--acceleration=4,4.0",
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    (scores,) = metrics["sets"]
    assert scores["methods"] == metrics["methods"] and metrics["preset"] == "frame"
    assert set(scores["methods"]) == {"zero_filled", "kgmgt", "other", "same"}
    assert scores["preset"] == "frame" and 2 < scores["acceleration"] < 4
    ours = scores["methods"]["kgmgt"]
    assert ours == scores["methods"]["same"]
    assert abs(ours["psnr"]["mean"] - scores["methods"]["other"]["psnr"]["mean"]) > 0.01
    assert {"mean", "std"} == ours["ssim"].keys()
    assert metrics["efficiency"]["kgmgt"]["gflops"] > 0
    for name in ("figure.png", "cine.gif", "report.html", "scores_mean.csv"):
        assert (tmp_path / name).stat().st_size > 0
    assert "kgmgt was trained on 1 of the 1 slices scored" in done.stdout
    assert metrics["facts"]["same was trained on"] == "1 of the 1 slices scored"
    assert "other was validated on 1 of the 1 slices scored" in done.stdout
    assert metrics["facts"].keys() & {"other was trained on", "kgmgt was validated on"} == set()
    assert "other was trained with coil maps by adaptive" in done.stdout
    assert "same was trained with" not in metrics["facts"]
    assert "files of more coils are compressed to 2 virtual ones" in done.stdout
    all_coils = "all coils, and is scored with those of at most 2 virtual coils"
    assert f"same was trained with files of {all_coils}" in done.stdout
    assert "kgmgt was trained with files of" not in metrics["facts"]


def test_weights_to_choose_without_methods_are_refused(work, tmp_path):
    out, data = tmp_path / "out", work / "data"
    done = _script("eval.py", f"--tune={data}", f"--data={data}", f"--out={out}")
    _refused(done, out, "--tune: expected --classical")


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ("--preset=foo", "got preset='foo'"),
        ("--weights=wavelet.mass=1", "got ['mass']"),
        ("--acceleration=", "expected a sampling and a preset"),
        ("--ranking=/dev/null", "expected a folder to write to, got a file"),
    ],
)
def test_options_are_refused_before_weights_are_chosen(work, tmp_path, wrong, word):
    options = {"shape": (33, 26), "n_frames": 3, "n_slices": 1, "acs": 8}
    write_cmrxrecon2023(tmp_path / "train", [1], accelerations=(), **options)
    places = f"--tune={tmp_path / 'train'}", f"--data={work / 'data'}", f"--out={tmp_path / 'out'}"
    done = _script("eval.py", "--classical=wavelet", *places, wrong)
    _refused(done, tmp_path / "out", word)
    assert "on the training cases" not in done.stdout


def test_a_seed_that_is_none_is_refused(work, tmp_path):
    out = tmp_path / "out"
    done = _script("eval.py", "--seed=-1", f"--data={work / 'data'}", f"--out={out}")
    _refused(done, out, "--seed=-1")


def test_an_empty_path_is_not_the_current_folder(work, tmp_path):
    done = _script(
        "reconstruct.py", "", f"--checkpoint={work / 'run'}", f"--out={tmp_path / 'out'}"
    )
    _refused(done, tmp_path / "out", "expected one FILE.mat, got ['']")


def _copy(path, target, change):
    """A copy of an HDF5 file with each dataset passed through ``change``."""
    with h5py.File(path) as source, h5py.File(target, "w") as file:
        for name, data in source.items():
            for key, value in change(name, data[:]).items():
                file[key] = value
    return target


def _refused(done, out, *words):
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and "Traceback" not in done.stderr
    for word in words:
        assert str(word) in last, last
    assert not out.exists() or not any(out.iterdir())


def test_missing_key_is_refused(work, files, tmp_path):
    bad = _copy(files["under"], tmp_path / "bad.mat", lambda name, x: {"other": x})
    out = tmp_path / "out"
    _refused(_reconstruct(work, bad, out, f"--mask={files['mask']}"), out, bad, "other")


def test_mask_of_another_size_is_refused(work, files, tmp_path):
    bad = _copy(files["mask"], tmp_path / "mask.mat", lambda name, x: {name: x[:-1]})
    out = tmp_path / "out"
    done = _reconstruct(work, files["under"], out, f"--mask={bad}")
    _refused(done, out, bad, "(32, 26)", "(33, 26)")


def test_nan_is_refused(work, files, tmp_path):
    def spoil(name, x):
        x["real"][1, 0, 16, 13] = np.nan
        return {name: x}

    bad = _copy(files["under"], tmp_path / "nan.mat", spoil)
    out = tmp_path / "out"
    done = _reconstruct(work, bad, out, f"--mask={files['mask']}")
    _refused(done, out, bad, "NaN", "frames [1]")


def test_truncated_file_is_refused(work, files, tmp_path):
    bad, out = tmp_path / "short.mat", tmp_path / "out"
    whole = files["under"].read_bytes()
    bad.write_bytes(whole[: len(whole) // 2])
    _refused(_reconstruct(work, bad, out, f"--mask={files['mask']}"), out, bad)


def test_checkpoint_of_another_model_is_refused(work, files, tmp_path):
    copy = tmp_path / "0"
    subprocess.run(["cp", "-r", work / "run" / "checkpoints" / "0", copy], check=True)
    stored = next(p for p in (copy / "config").rglob("*") if p.is_file() and "metadata" in p.name)
    config = json.loads(stored.read_text())
    config["model"]["width"] = 8
    stored.write_text(json.dumps(config))
    out = tmp_path / "out"
    done = _script("reconstruct.py", files["under"], f"--checkpoint={copy}", f"--out={out}")
    _refused(done, out, copy, "expected weights of the model in its config")


def test_empty_directories_are_refused(work, files, tmp_path):
    out, empty = tmp_path / "out", tmp_path / "empty"
    empty.mkdir()
    done = _script("reconstruct.py", files["under"], f"--checkpoint={empty}", f"--out={out}")
    _refused(done, out, empty)
    done = _script("eval.py", f"--checkpoint={work / 'run'}", f"--data={empty}", f"--out={out}")
    _refused(done, out, empty)


def test_one_frame_is_its_own_reference(work, files, tmp_path):
    bad = _copy(files["under"], tmp_path / "one.mat", lambda name, x: {name: x[:1]})
    done = _reconstruct(work, bad, tmp_path / "out", f"--mask={files['mask']}")
    assert done.returncode == 0, done.stderr
    assert _complex(tmp_path / "out" / "one_recon.mat", "reconstruction").shape == (1, 1, 33, 26)


def test_key_and_axes_of_another_layout_can_be_named(work, files, tmp_path):
    other = _copy(files["under"], tmp_path / "other.mat", lambda name, x: {"other": x})
    more = (f"--mask={files['mask']}", "--key=other", "--axes=t,z,ky,kx")
    done = _reconstruct(work, other, tmp_path / "out", *more)
    assert done.returncode == 0, done.stderr
    assert _complex(tmp_path / "out" / "other_recon.mat", "reconstruction").shape == (3, 1, 33, 26)


def test_several_coils_and_the_input_units(work, tmp_path):
    options = {"shape": (34, 30), "n_frames": 2, "n_slices": 1, "acs": 8, "n_coils": 3}
    write_cmrxrecon2023(tmp_path / "data", [5], accelerations=(2,), **options)
    case = tmp_path / "data" / "MultiCoil" / "Cine" / "TrainingSet"
    full = case / "FullSample" / "P001" / "cine_sax.mat"
    kspace, axes = _complex(full, "kspace_full"), (-2, -1)
    coils = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, axes), norm="ortho"), axes)
    rss = np.sqrt(np.sum(np.abs(coils) ** 2, axis=2))

    def error(file, out):
        done = _reconstruct(work, file, tmp_path / out, f"--reference={full}")
        assert done.returncode == 0, done.stderr
        image = np.abs(_complex(tmp_path / out / "cine_sax_recon.mat", "reconstruction"))
        assert image.shape == rss.shape
        return np.linalg.norm(image - rss) / np.linalg.norm(rss)

    assert error(case / "AccFactor02" / "P001" / "cine_sax.mat", "under") < 0.35
    # All samples measured: what differs is the coil maps' error, 3.3 % on so coarse a grid.
    assert error(full, "full") < 0.05


def test_unknown_config_field_is_refused(work, tmp_path):
    done = _script("train.py", f"--workdir={tmp_path / 'w'}", "--config.model.widht=8")
    assert done.returncode != 0 and "widht" in done.stderr
