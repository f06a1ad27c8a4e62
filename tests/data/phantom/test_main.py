"""The command line."""

import subprocess
import sys
from pathlib import Path

import pytest

from kgmgt_jax.data.phantom import __main__ as phantom_main
from kgmgt_jax.data.phantom import make_cine
from tests.scripts_environment import scripts_environment

ROOT = Path(__file__).resolve().parents[3]


def test_command_line_prints_what_it_wrote(tmp_path, capsys):
    arguments = "--n_subjects 1 --shape 32,36 --n_frames 2 --n_slices 1 --accelerations 4,8"
    phantom_main.main(["--out", str(tmp_path), *arguments.split()])
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 5
    assert sorted(printed) == sorted(str(p) for p in tmp_path.rglob("*.mat"))


@pytest.mark.parametrize(
    "command",
    [
        "kgmgt_jax.data.phantom --n_subjects 1 --shape 32,36 --n_frames 2 --out again",
        "kgmgt_jax.data inspect --figure figure.png .",
    ],
)
def test_commands_of_the_data_leave_accelerators_alone(tmp_path, command):
    phantom_main.main(["--out", str(tmp_path), "--shape", "32,36", "--n_coils", "2"])
    environment = scripts_environment(JAX_PLATFORMS="tpu", PYTHONPATH=str(ROOT))  # there is none
    line = [sys.executable, "-m", *command.split()]
    done = subprocess.run(line, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("wrong", ["--shape 64", "--n_coils 0", "--n_subjects 0"])
def test_impossible_phantoms_are_refused_in_one_line(tmp_path, capsys, wrong):
    assert phantom_main.main(["--out", str(tmp_path / "out"), *wrong.split()]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not list(tmp_path.rglob("*.mat"))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("--shape 64x64", "--shape: expected whole numbers such as 4,8, got '64x64'"),
        ("--field_of_view_mm 340,", "expected a number such as 340, or two with a comma"),
    ],
)
def test_text_that_is_no_numbers_is_told_what_to_be(tmp_path, capsys, wrong, told):
    with pytest.raises(SystemExit, match="2"):
        phantom_main.main(["--out", str(tmp_path), *wrong.split()])
    assert told in capsys.readouterr().err


def test_subjects_begin_with_the_one_that_is_asked_for(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(phantom_main, "write_cmrxrecon2023", lambda *a, **_: asked.append(a) or [])
    phantom_main.main(["--out", str(tmp_path), "--seed", "5", "--n_subjects", "2"])
    assert asked == [(tmp_path, range(5, 7))]


@pytest.mark.parametrize(("text", "pixel_mm"), [("320", (10.0, 10.0)), ("320,240", (10.0, 7.5))])
def test_field_of_view_is_one_number_or_two(tmp_path, monkeypatch, text, pixel_mm):
    asked = {}
    monkeypatch.setattr(phantom_main, "write_cmrxrecon2023", lambda *_, **o: asked.update(o) or [])
    phantom_main.main(["--out", str(tmp_path), "--shape", "32,32", "--field_of_view_mm", text])
    cine = make_cine(
        0, shape=asked["shape"], n_frames=1, field_of_view_mm=asked["field_of_view_mm"]
    )
    assert tuple(mm / 32 for mm in cine.field_of_view_mm) == pixel_mm
