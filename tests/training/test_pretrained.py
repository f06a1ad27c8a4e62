"""The weights in the package: whole, small, of their configuration, better than zero-filling."""

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.pretrained import get_config
from kgmgt_jax.data.phantom import make_cine
from kgmgt_jax.data.transforms import fft2c
from kgmgt_jax.evaluation.methods import Method
from kgmgt_jax.metrics import evaluate
from kgmgt_jax.models.registry import build_model
from kgmgt_jax.mri.sampling import make_mask
from kgmgt_jax.training import weights
from kgmgt_jax.training.checks import check_config
from kgmgt_jax.training.weights import FIXED_WEIGHTS, CheckpointError, load_item, load_weights
from kgmgt_jax.types import Measurement

pytestmark = pytest.mark.filterwarnings("ignore")  # Orbax and TensorStore

SHIPPED = Path(weights.__file__).parents[1] / "pretrained"
MIB = 2**20


@pytest.mark.parametrize("kind", ["kt", "fixed"])
def test_they_are_of_the_network_that_their_configuration_makes(kind):
    config, variables = load_weights("pretrained")
    wanted = get_config(kind)
    model = build_model(config.model)
    assert model == build_model(wanted.model)
    assert config.data.input_fill == wanted.data.input_fill
    if kind == "fixed":
        variables = load_item("pretrained", FIXED_WEIGHTS)
    frame = jnp.zeros((1, 32, 32), jnp.complex64)
    measurement = Measurement(frame[:, None], jnp.ones((1, 32, 32)), None)
    initial = jax.eval_shape(model.init, jax.random.key(0), frame, frame, frame, measurement)
    shapes = (jax.tree.map(lambda a: a.shape, tree) for tree in (variables, dict(initial)))
    assert next(shapes) == next(shapes)


@pytest.mark.parametrize("kind", ["kt", "fixed"])
def test_what_comes_before_and_beside_them_can_be_built(kind):
    final, first, modl, varnet = (
        get_config(kind + part) for part in ("", "_first", "_modl", "_varnet")
    )
    for config in (final, first, modl, varnet):
        check_config(config)
        assert config.data.to_dict() == final.data.to_dict()
    assert (modl.model.network, varnet.model.network) == ("modl", "varnet")
    assert modl.train.n_steps == first.train.n_steps + final.train.n_steps


def test_unknown_variants_are_refused():
    with pytest.raises(ValueError, match=r"variants are kt and fixed.*'kt_second'"):
        get_config("kt_second")


def test_they_are_small():
    sizes = [file.stat().st_size for file in SHIPPED.rglob("*") if file.is_file()]
    assert max(sizes) <= 16 * MIB and sum(sizes) <= 4 * MIB


def test_the_sums_list_every_file():
    listed = {line.split("  ", 1)[1] for line in (SHIPPED / "SHA256SUMS").read_text().splitlines()}
    files = {path.relative_to(SHIPPED) for path in SHIPPED.rglob("*") if path.is_file()}
    assert listed == {str(path) for path in files if path.name != "SHA256SUMS"}


@pytest.fixture
def copy(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "pretrained"
    shutil.copytree(SHIPPED, folder)
    monkeypatch.setattr(weights, "_SHIPPED", folder)
    return folder


def test_damage_is_named_in_one_line(copy):
    largest = max((p for p in copy.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    with pytest.raises(
        CheckpointError, match="another content; install the package again"
    ) as error:
        load_weights("pretrained")
    assert str(largest) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["SHA256SUMS", "weights"])
def test_what_is_missing_is_named_in_one_line(copy, name):
    path = copy / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(CheckpointError, match=r"pretrained weights, got 'No such file.*again$"):
        load_weights("pretrained")


@pytest.mark.slow
@pytest.mark.parametrize("fixed, least", [(True, 1.0), (False, 2.0)])
def test_they_improve_on_zero_filling(fixed, least):
    """By ``least`` dB on a phantom, a kind of image they were not trained on (fixed: 1.23)."""
    cine = make_cine(0, shape=(64, 64), n_frames=6)
    reference = np.abs(cine.image)
    kspace = fft2c(cine.image[:, None].astype(np.complex64))
    sampling = make_mask(
        "variable_density", jax.random.key(0), reference.shape, 4.0, acs=8, fixed=fixed
    )
    mask = np.asarray(sampling.mask)
    image = Method.load("kgmgt", "pretrained").reconstruct(kspace, mask, None)
    zero_filled = np.fft.ifft2(np.fft.ifftshift(kspace * mask[:, None], (-2, -1)), norm="ortho")
    zero_filled = np.fft.fftshift(zero_filled, (-2, -1))[:, 0]
    scores = [evaluate(reference, np.abs(x))["psnr"].mean() for x in (image, zero_filled)]
    assert scores[0] > scores[1] + least
