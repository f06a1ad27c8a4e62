"""The command line prepares, says what it left out, and ends bad input with one line and 2."""

import json

import numpy as np
import pytest

from kgmgt_jax import commands
from kgmgt_jax.data.__main__ import main
from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.formats import DataWarning
from kgmgt_jax.data.matfile import write_mat
from kgmgt_jax.data.prepared import PreparedSet, verify_checksums
from kgmgt_jax.data.sources import open_slices
from tests.data.formats import writers


def _error(capsys, *arguments) -> str:
    assert main([str(each) for each in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


def test_options_reach_the_set_and_what_is_left_out_is_listed(source, tmp_path, capsys):
    out = tmp_path / "set"
    options = "--views sax --readout 12 --split 0.5,0.5 --seed 3 --acs 8 --sens adaptive"
    assert main(["prepare", str(source), "--out", str(out), *options.split()]) == 0
    told = capsys.readouterr().out
    assert "AccFactor02/P001/cine_sax.mat: undersampled 'kspace_single_sub02'" in told
    assert "cine_kspace.npy: view '', not one of sax" in told
    assert f"{out}: 8 slices, 8 of them made now" in told
    settings = json.loads((out / "cine_frames/1.0.0/metadata.json").read_text())["settings"]
    assert settings["views"] == ["sax"] and settings["readout"] == 12 and settings["seed"] == 3
    assert settings["acs"] == 8 and settings["sens"] == "adaptive"
    assert settings["split"] == [0.5, 0.5]
    n_slices = [len(PreparedSet(out, split=split).slices) for split in ("train", "validation")]
    assert sum(n_slices) == 8 and all(n_slices)


def test_blanks_after_commas_change_nothing(source, tmp_path):
    options = ["--views", "lax, sax", "--split", "0.5, 0.5"]
    assert main(["prepare", str(source), "--out", str(tmp_path / "set"), *options]) == 0
    sizes = [len(PreparedSet(tmp_path / "set", split=s).slices) for s in ("train", "validation")]
    assert sum(sizes) == 8


def test_skipped_files_are_listed_with_their_reason(tmp_path, capsys):
    for patient in ("P001", "P002"):
        write_mat(tmp_path / f"in/{patient}/cine_sax.mat", "kspace_single_full", _single())
    (tmp_path / "in/P002/cine_sax.mat").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50))
    arguments = ["prepare", tmp_path / "in", "--out", tmp_path / "set", "--split", "1"]
    assert "P002/cine_sax.mat: expected a complete HDF5 file" in _error(capsys, *arguments)
    assert main([str(each) for each in (*arguments, "--skip-bad")]) == 0
    told = capsys.readouterr().out
    assert f"skipped: {tmp_path}/in/P002/cine_sax.mat: " in told
    assert told.endswith(f"1 skipped, see {tmp_path}/set/skipped.json\n")


def test_images_are_simulated_as_asked(tmp_path, capsys):
    path = writers.write_image_npy(tmp_path)
    options = ["--coils", "1", "--noise", "0", "--split", "1"]
    assert main(["prepare", str(path), "--out", str(tmp_path / "set"), *options]) == 0
    info = PreparedSet(tmp_path / "set").slices[0]
    assert info.simulated and info.shape == (3, 1, 9, 8)


def test_a_set_has_as_many_virtual_coils_as_asked_for(source, tmp_path):
    options = ["--out", str(tmp_path / "set"), "--virtual-coils", "2", "--split", "1"]
    assert main(["prepare", str(source / "patient7"), *options]) == 0
    opened = PreparedSet(tmp_path / "set")
    assert [info.shape[1] for info in opened.slices] == [2]
    np.testing.assert_allclose(np.linalg.norm(opened.sens(0), axis=-3), 1, atol=1e-3)


def test_undersampled_scans_are_a_set_to_train_on_without_references(source, tmp_path, capsys):
    out = tmp_path / "set"
    options = ["--out", str(out), "--undersampled", "--split", "1"]
    assert main(["prepare", str(source), *options]) == 0
    printed = capsys.readouterr().out
    assert "left out: " in printed and "fully sampled 'kspace_single_full'" in printed
    opened = open_slices(out, split="train", acs=4, undersampled=True)
    with pytest.warns(DataWarning, match="left out 5 fully sampled files"):
        files = open_slices(source, split="train", acs=4, undersampled=True)
    assert len(opened.slices) == 8 and all(info.undersampled for info in opened.slices)
    for number, info in enumerate(opened.slices):
        assert info.name == files.slices[number].name
        np.testing.assert_array_equal(opened.acquired(number), files.acquired(number))
        images = opened.images(number, [1]) * info.scale
        np.testing.assert_allclose(images, files.images(number, [1]), rtol=1e-4, atol=1e-6)
    with pytest.raises(DataError, match="expected a prepared set of fully sampled slices, got und"):
        open_slices(out, split="train", acs=4)


def _single():
    return writers.kspace((2, 1, 9, 8))


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["--split", "a,b"], "--split must be fractions such as 0.8,0.1,0.1, got 'a,b'"),
        (["--split", "0.5"], "split must be 1 to 3 fractions"),
        (["--readout", "wide"], "--readout must be a number of columns or auto, got 'wide'"),
        (["--subject", "Q("], "subject must be a regular expression"),
        (["--subject", r"Q\d"], "expected a subject that"),
        (["--views", "3d"], "expected at least one fully sampled cine, got none in 9 files"),
        (["--key", "kspace", "--axes", "ky,kx"], "expected"),
        (["--acs", "2"], "acs must be at least 4"),
        (["--virtual-coils", "1"], "expected a number of virtual coils, 2 or more, or 0"),
    ],
)
def test_bad_options_end_with_one_line(source, tmp_path, capsys, arguments, told):
    assert told in _error(capsys, "prepare", source, "--out", tmp_path / "set", *arguments)


def test_bad_paths_end_with_one_line(source, prepared, tmp_path, capsys):
    out = tmp_path / "set"
    assert "nothing at that path" in _error(capsys, "prepare", tmp_path / "no", "--out", out)
    assert "an empty or a new folder" in _error(capsys, "prepare", source, "--out", source)
    assert "as asked for, got a set with" in _error(capsys, "prepare", source, "--out", prepared)
    assert "expected a prepared set, got none" in _error(capsys, "verify", tmp_path)


def test_a_damaged_staging_ends_with_one_line(source, tmp_path, capsys):
    staging = tmp_path / "set/.preparing"
    staging.mkdir(parents=True)
    (staging / "settings.json").write_text("{")
    assert "settings.json" in _error(capsys, "prepare", source, "--out", tmp_path / "set")


def test_a_terminal_is_told_how_far_each_command_is(source, tmp_path, monkeypatch):
    told = []

    def bar(items, *, desc, **_):
        for item in items:
            told.append(desc)
            yield item

    monkeypatch.setattr(commands, "tqdm", bar)
    out = str(tmp_path / "set")
    assert main(["inspect", str(source)]) == 0
    n_files, n_units = told.count("look through"), told.count("inspect")
    assert n_files > n_units > 8
    assert main(["prepare", str(source), "--out", out, "--split", "1"]) == 0
    assert told.count("look through") == 2 * n_files and told.count("open") == n_units
    told.clear()
    assert main(["verify", out]) == 0
    assert told == ["checksums"] * verify_checksums(out).n_files
