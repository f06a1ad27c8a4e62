"""Files that several tests of the data path read."""

from pathlib import Path

import pytest

from tests.data.small_files import write_file


@pytest.fixture
def files(tmp_path) -> list[Path]:
    """Two subjects of two slices of four frames."""
    return [write_file(tmp_path, subject) for subject in ("P001", "P002")]
