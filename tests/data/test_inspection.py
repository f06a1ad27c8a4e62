"""`python -m kgmgt_jax.data inspect`: the table tells what is there."""

import os
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

from kgmgt_jax.data.__main__ import main
from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.formats import DataWarning, ReadOptions, read_file
from kgmgt_jax.data.inspection import format_findings, inspect_path, open_case
from kgmgt_jax.data.matfile import write_mat
from kgmgt_jax.data.phantom import write_cmrxrecon2023
from kgmgt_jax.data.pictures import case_figure
from kgmgt_jax.data.prepared import PrepareOptions
from kgmgt_jax.data.prepared.preparing import prepare
from tests.data.formats import writers


def _findings(path):
    return list(inspect_path(path))


def test_a_tree_is_told_file_by_file(tmp_path):
    writers.write_cmrxrecon(tmp_path / "P001")
    writers.write_bart(tmp_path / "bart")
    first, second = _findings(tmp_path)
    assert (first.format, first.shape, len(first.cases)) == ("cmrxrecon2023", (3, 4, 9, 8), 2)
    assert first.true_acceleration == pytest.approx(9 / 5) and first.nominal_acceleration == 4
    assert (second.format, second.acs, len(second.problems)) == ("bart", 4, 2)
    assert all("only 3 lines around the centre" in problem for problem in second.problems)


def test_a_damaged_slice_is_a_problem_and_the_others_count(tmp_path):
    data = writers.kspace()
    data[1, 1, 0, 0, 0] = np.nan
    write_mat(tmp_path / "cine_sax.mat", "kspace_full", data)
    (finding,) = _findings(tmp_path)
    assert len(finding.cases) == 1 and "NaN" in finding.problems[0]


def test_a_file_that_may_not_be_read_is_a_problem_and_the_others_count(tmp_path, monkeypatch):
    writers.write_bart(tmp_path / "a")
    writers.write_cmrxrecon(tmp_path / "b")
    read = Path.read_bytes

    def read_bytes(path):
        if path.suffix == ".hdr":  # BART's; formats of one file are refused as they are found
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    first, second = _findings(tmp_path)
    assert "ksp.cfl: expected a file that can be read, got" in first.problems[0]
    assert "Permission denied" in first.problems[0] and len(second.cases) == 2


def test_a_folder_that_may_not_be_entered_is_named(tmp_path, monkeypatch, capsys):
    closed = tmp_path / "closed"
    writers.write_bart(closed)

    def scandir(path):
        raise PermissionError(13, "Permission denied", str(path))

    def stat(path, *, of=os.stat, **options):
        return scandir(path) if closed in Path(path).parents else of(path, **options)

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(os, "stat", stat)
    assert main(["inspect", str(closed)]) == 1
    told = "closed: expected a folder whose files can be listed, got Permission denied"
    assert told in capsys.readouterr().out


@pytest.mark.parametrize("short", [0, 1])
def test_the_fewest_central_lines_of_any_slice_are_told(tmp_path, short):
    data = writers.kspace() * writers.line_mask().astype(np.float32)
    data[:, short, :, 3] = 0
    np.save(tmp_path / "kspace.npy", data)
    (finding,) = inspect_path(tmp_path, ReadOptions(axes="t,z,coil,ky,kx"))
    assert len(finding.cases) == 2 and finding.acs == 3


def test_lines_of_zeros_in_full_kspace_are_a_problem(tmp_path):
    data = writers.kspace() * writers.line_mask().astype(np.float32)
    write_mat(tmp_path / "cine_sax.mat", "kspace_full", data)
    (finding,) = _findings(tmp_path)
    assert "4 of 9 lines are zero though the mask says measured" in finding.problems[0]


def test_frames_left_out_are_a_problem_not_a_python_warning(tmp_path):
    top = tmp_path / "Cine/TrainingSet"
    (top / "Mask_Task1").mkdir(parents=True)
    shape = (6, 3, 2, 9, 8)
    path = write_mat(top / "FullSample/P109/cine_sax.mat", "kspace_full", writers.kspace(shape))
    (finding,) = _findings(path)
    assert "last 3 frames" in finding.problems[0] and finding.shape[0] == 3
    with pytest.warns(DataWarning):
        read_file(path)


def test_inspect_prints_table_problems_and_sums(tmp_path, capsys):
    writers.write_stacks(tmp_path)
    (tmp_path / "broken.mat").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50))
    assert main(["inspect", str(tmp_path), "--coils", "2"]) == 0
    told = capsys.readouterr().out
    assert "images, simulated" in told and "3 x 9 x 8" in told
    assert "broken.mat: expected a complete HDF5 file" in told
    assert told.strip().endswith("3 files, 2 cases (2 simulated), 1 problems")


def test_inspect_lists_the_measured_frame_as_a_problem_and_reads_it_when_told(data_dir, capsys):
    path = str(data_dir / "real")
    assert main(["inspect", path]) == 1
    assert "pass --key underkspace and --axes" in capsys.readouterr().out
    assert main(["inspect", path, "--key", "underkspace", "--axes", "kx,ky,coil"]) == 0
    told = capsys.readouterr().out
    assert "1 x 162 x 448" in told and "5.06" in told and "0 problems" in told


@pytest.mark.parametrize("what", ["nowhere", "empty"])
def test_a_path_with_nothing_to_read_ends_with_one_line(tmp_path, capsys, what):
    (tmp_path / "empty").mkdir()
    assert main(["inspect", str(tmp_path / what)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and what in error and error.count("\n") == 1


def test_a_prepared_set_is_not_inspected_file_by_file(tmp_path):
    write_mat(tmp_path / "data" / "P001" / "cine_sax.mat", "kspace_full", writers.kspace())
    prepare(tmp_path / "data", tmp_path / "set", PrepareOptions(split=(1.0,)))
    with pytest.raises(DataError, match="got a prepared set"):
        _findings(tmp_path / "set")


def test_bytes_of_no_format_are_named(tmp_path):
    (tmp_path / "notes.bin").write_text("hello world")
    (finding,) = _findings(tmp_path / "notes.bin")
    assert "got bytes that begin with b'hello wo'" in finding.problems[0]
    assert "0 cases" in format_findings([finding], tmp_path)


def test_the_figure_is_drawn_of_every_kind_of_case(tmp_path):
    options = {"shape": (33, 26), "n_frames": 2, "n_slices": 1, "accelerations": ()}
    write_cmrxrecon2023(tmp_path, [0], n_coils=6, **options)
    write_cmrxrecon2023(tmp_path, [0], n_coils=1, **options)
    sizes = set()
    for number, finding in enumerate(_findings(tmp_path)):
        out = case_figure(tmp_path / f"{number}.png", open_case(finding))
        picture = iio.imread(out)
        assert np.ptp(picture[..., :3]) == 255
        sizes.add(picture.shape[0])
    assert number == 1 and len(sizes) == 2  # two rows of coils, or none


def test_inspect_writes_the_figure_it_is_asked_for(tmp_path, capsys):
    writers.write_npy(tmp_path)
    out = tmp_path / "figure.png"
    assert main(["inspect", str(tmp_path), "--figure", str(out)]) == 0
    assert out.stat().st_size > 0 and str(out) in capsys.readouterr().out


def test_the_figure_of_a_file_with_dollar_signs_in_its_name_is_drawn(tmp_path):
    writers.write_image_npy(tmp_path).rename(tmp_path / "cine $^$.npy")
    (finding,) = _findings(tmp_path)
    assert case_figure(tmp_path / "figure.png", open_case(finding)).stat().st_size > 0


def test_no_figure_is_written_where_nothing_can_be_read(tmp_path, capsys):
    (tmp_path / "cine_sax.mat").write_text("nothing")
    out = tmp_path / "figure.png"
    assert main(["inspect", str(tmp_path), "--figure", str(out)]) == 1
    assert not out.exists() and "not written" in capsys.readouterr().out
