"""Files appear whole or not at all."""

import pytest

from kgmgt_jax.data.atomic import write_atomically


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "m.json"
    path.write_text("old")

    def fail(file):
        file.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]
