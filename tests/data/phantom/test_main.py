"""The command line."""

from kgmgt_jax.data.phantom.__main__ import main


def test_command_line_prints_what_it_wrote(tmp_path, capsys):
    arguments = "--n_subjects 1 --shape 32,36 --n_frames 2 --n_slices 1 --accelerations 4,8"
    main(["--out", str(tmp_path), *arguments.split()])
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 5
    assert sorted(printed) == sorted(str(p) for p in tmp_path.rglob("*.mat"))
