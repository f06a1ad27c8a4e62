"""The exported program gives what the package gives, and says what it takes."""

from pathlib import Path

import jax
import numpy as np
import pytest

import kgmgt_jax
from kgmgt_jax.data.transforms import fft2c
from kgmgt_jax.evaluation.methods import Method
from kgmgt_jax.interop.export import export_reconstruction, main, reconstruction_function
from kgmgt_jax.models import deformable
from kgmgt_jax.models.chunks import chunk_limit
from kgmgt_jax.models.initialisation import initialise
from kgmgt_jax.models.registry import build_model
from kgmgt_jax.training.state import example_inputs
from kgmgt_jax.training.weights import FIXED_WEIGHTS, save_weights
from tests.training.small import small_config

pytestmark = pytest.mark.filterwarnings("ignore")  # Orbax and TensorStore

T, H, W = 3, 32, 34


# Compiles in a second, for what is the same around all networks.
KIGAN = {"network": "kigan", "n_cascades": 1, "channels": 2, "n_blocks": 1}


def _checkpoint(path, model, input_fill="zero", fixed_seed=None):
    config = small_config().to_dict() | {"model": model}
    config["data"]["input_fill"] = input_fill
    network = build_model(model)

    def weights(seed):
        return jax.device_get(initialise(network, seed, *example_inputs()))

    others = {} if fixed_seed is None else {FIXED_WEIGHTS: weights(fixed_seed)}
    save_weights(path, config, weights(0), **others)
    return path


def _kgmgt(**fields):
    return small_config(**fields).model.to_dict()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return _checkpoint(tmp_path_factory.mktemp("export") / "zero", _kgmgt())


def _cine(n_coils):
    """Measured k-space in units of its own, masks and, for several coils, maps."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        return (rng.standard_normal((*shape, 2), np.float32) @ [1, 1j]).astype(np.complex64)

    sens = draw(n_coils, H, W)
    sens /= np.sqrt(np.sum(np.abs(sens) ** 2, axis=0))
    images = draw(T, H, W)
    mask = np.ascontiguousarray(np.broadcast_to(rng.random((T, H, 1)) < 0.5, (T, H, W)), np.float32)
    single = n_coils == 1
    kspace = fft2c(images[:, None] if single else sens * images[:, None])
    return 37 * kspace * mask[:, None], mask, None if single else sens


@pytest.mark.parametrize("n_coils", [1, 3])
def test_exported_program_is_the_reconstruction(checkpoint, tmp_path, capsys, n_coils):
    out = tmp_path / "program"
    arguments = [str(checkpoint), "--out", str(out), "--shape", f"{T},{n_coils},{H},{W}"]
    assert main(arguments) == 0
    assert f"kspace ({T}, {n_coils}, {H}, {W})" in capsys.readouterr().out
    kspace, mask, sens = _cine(n_coils)
    maps = {} if sens is None else {"sens": sens}
    full = kspace + 5 * (1 - mask[:, None])  # what lies outside the mask is not looked at
    got = jax.export.deserialize(out.read_bytes()).call(kspace=full, mask=mask, **maps)
    want = Method.load("", checkpoint).reconstruct(kspace, mask, sens)
    assert np.abs(want).max() > 10
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_a_program_does_not_tell_where_it_was_made(checkpoint):
    before = jax.config.jax_hlo_source_file_canonicalization_regex
    program = export_reconstruction(checkpoint, (1, 1, H, W)).mlir_module_serialized
    assert b"export.py" in program and bytes(Path(kgmgt_jax.__file__).parents[1]) not in program
    assert jax.config.jax_hlo_source_file_canonicalization_regex == before


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize("n_coils", [1, 3])
def test_the_program_fills_gaps(tmp_path, n_coils, fixed):
    checkpoint = _checkpoint(tmp_path / "blended", KIGAN, "blended")
    exported = export_reconstruction(checkpoint, (T, n_coils, H, W))
    kspace, mask, sens = _cine(n_coils)
    if fixed:
        mask[:] = mask[:1]
        kspace *= mask[:, None]
    got = exported.call(kspace=kspace, mask=mask, **({} if sens is None else {"sens": sens}))
    want = Method.load("", checkpoint).reconstruct(kspace, mask, sens)
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-5 * np.abs(want).max())


def test_the_function_averages_over_as_many_copies_as_the_method(tmp_path):
    method = Method.load("", _checkpoint(tmp_path / "kigan", KIGAN), self_ensemble=3)
    kspace, mask, sens = _cine(3)
    got = jax.jit(reconstruction_function(method))(kspace, mask, sens)
    want = method.reconstruct(kspace, mask, sens)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("fixed", [True, False])
def test_weights_are_those_for_the_kind_of_mask(tmp_path, fixed):
    """Where a checkpoint has others for masks that are the same in all frames, both ways."""
    one = _checkpoint(tmp_path / "one", KIGAN)
    both = _checkpoint(tmp_path / "both", KIGAN, fixed_seed=1)
    kspace, mask, _ = _cine(1)
    if fixed:
        mask[:] = mask[:1]
        kspace *= mask[:, None]
    images = [Method.load("", path).reconstruct(kspace, mask, None) for path in (both, one)]
    differ = np.abs(images[0] - images[1]).max() / np.abs(images[1]).max()
    assert (differ > 1e-3) == fixed, differ
    got = export_reconstruction(both, (T, 1, H, W)).call(kspace=kspace, mask=mask)
    np.testing.assert_allclose(got, images[0], rtol=0, atol=1e-5 * np.abs(images[0]).max())


def test_a_cine_without_signal_stays_finite(checkpoint):
    exported = export_reconstruction(checkpoint, (1, 1, H, W))
    kspace = np.zeros((1, 1, H, W), np.complex64)
    assert np.isfinite(exported.call(kspace=kspace, mask=np.ones((1, H, W), np.float32))).all()


def test_programs_for_accelerators_are_made_on_a_cpu(tmp_path):
    """Of a network that would use the Pallas kernel, too: JAX refuses to export that."""
    fields = {"channels": (16, 16, 16), "alignment": True, "pallas": True}
    checkpoint = _checkpoint(tmp_path / "pallas", _kgmgt(**fields))
    exported = export_reconstruction(checkpoint, (1, 1, H, W), platforms=("cuda", "tpu"))
    assert exported.platforms == ("cuda", "tpu")
    assert exported.mlir_module_serialized


@pytest.mark.parametrize(
    ("platforms", "limit"),
    [
        (None, deformable._BLOCK),
        (("cpu", "cuda"), deformable._BLOCK),
        (("cuda", "tpu"), deformable._DEVICE_BLOCK),
    ],
)
def test_programs_are_cut_for_where_they_shall_run(tmp_path, monkeypatch, platforms, limit):
    checkpoint = _checkpoint(tmp_path / "aligned", _kgmgt(alignment=True))
    jax.clear_caches()  # of other tests
    limits = set()

    def spy(*choices):
        limits.add(chunk_limit(*choices))
        return chunk_limit(*choices)

    monkeypatch.setattr(deformable, "chunk_limit", spy)
    export_reconstruction(checkpoint, (1, 1, H, W), platforms=platforms)
    assert limits == {limit}


@pytest.mark.parametrize(
    "extra, message",
    [
        (("--shape", "12,256,256"), "expected --shape frames,coils,height,width"),
        (("--shape", "0,1,32,32"), "all positive, got shape=(0, 1, 32, 32)"),
        (("--shape", "1,1,32,32", "--platforms", "gpu"), "expected platforms among cpu, cuda"),
    ],
)
def test_bad_input_is_one_line(checkpoint, tmp_path, capsys, extra, message):
    assert main([str(checkpoint), "--out", str(tmp_path / "program"), *extra]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert not (tmp_path / "program").exists()


def test_a_folder_is_no_file_to_write(checkpoint, tmp_path, capsys):
    assert main([str(checkpoint), "--out", str(tmp_path), "--shape", "1,1,32,32"]) == 2
    assert f"expected a file to write, got the folder {tmp_path}" in capsys.readouterr().err
