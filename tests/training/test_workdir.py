"""Which folders a run may live in."""

import fcntl

import pytest

from kgmgt_jax.training.workdir import claimed, open_workdir


def test_new_folder_is_made(tmp_path):
    assert open_workdir(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert not list((tmp_path / "a" / "b").iterdir())


def test_folder_of_a_run_may_hold_more(tmp_path):
    (tmp_path / "checkpoints" / "10" / "state").mkdir(parents=True)
    (tmp_path / "evaluation").mkdir()
    open_workdir(tmp_path)


def test_logs_and_a_first_save_that_was_broken_off_do_not_matter(tmp_path):
    for name in ("slurm-17.out", ".gitignore", "metrics.jsonl"):
        (tmp_path / name).write_text("")
    (tmp_path / "checkpoints" / "0.orbax-checkpoint-tmp-3").mkdir(parents=True)
    open_workdir(tmp_path)


@pytest.mark.parametrize("name", ["scan.dcm", "weights/file", "checkpoints/epoch_3.pth"])
def test_folder_of_something_else_is_refused(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("")
    first = name if name.startswith("checkpoints") else name.split("/")[0]
    with pytest.raises(ValueError, match=f"got one with {first}; choose another"):
        open_workdir(tmp_path)


def test_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match="expected a writable folder, got"):
            open_workdir(path)


def test_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    def refuse(*, dir):
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(ValueError, match=r"expected a writable folder, got .*Permission denied"):
        open_workdir(tmp_path)


def test_one_run_at_a_time(tmp_path):
    refused = pytest.raises(ValueError, match="no run is at work in")
    with claimed(tmp_path), refused, claimed(tmp_path):
        pass
    with claimed(tmp_path):
        open_workdir(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_lock_that_someone_removed_is_no_error(tmp_path):
    with claimed(tmp_path):
        (tmp_path / ".lock").unlink()


@pytest.mark.parametrize("third", [False, True])
def test_a_lock_of_a_run_that_has_just_ended_is_none(tmp_path, monkeypatch, third):
    """It ends while this one waits for its lock, and a third run may begin at that moment."""
    lock = fcntl.flock

    def late(*arguments):
        (tmp_path / ".lock").unlink()
        if third:
            (tmp_path / ".lock").touch()
        lock(*arguments)

    monkeypatch.setattr("fcntl.flock", late)
    with pytest.raises(ValueError, match="no run is at work in"), claimed(tmp_path):
        pass
    assert (tmp_path / ".lock").exists() == third


def test_file_system_without_locks_is_no_reason_to_refuse(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with claimed(tmp_path):
        pass
