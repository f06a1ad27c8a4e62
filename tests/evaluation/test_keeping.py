"""Which images are kept for the ranking and for readers."""

import dataclasses
import json
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from kgmgt_jax.data.transforms import ifft2c
from kgmgt_jax.evaluation.cases import Condition, EvaluationCase
from kgmgt_jax.evaluation.keeping import REFERENCE, RankingWriter, ReadingCases, write_unscored
from kgmgt_jax.evaluation.ranking import ranking_crop
from kgmgt_jax.evaluation.report import players
from kgmgt_jax.evaluation.report.players import pictures_of
from kgmgt_jax.evaluation.sampling import Sampling
from kgmgt_jax.figures import grey_window
from tests.evaluation.cines import beating_disc

CONDITIONS = [Condition("uniform", 4.0, 8), Condition("kt_gaussian", 4.0, 8)]


def _case(images, condition=CONDITIONS[0], z=0, n_slices=1):
    kspace, mask = images[:, None].astype(np.complex64), np.ones(images.shape, np.float32)
    sampling = Sampling(condition.mask_kind, 2.0, condition.acceleration, condition.acs)
    place = Path("P001/cine_sax")
    told = (f"P001/cine_sax/slice{z}", "P001", kspace, mask, None, images, sampling)
    return EvaluationCase(*told, condition, "", place, z, n_slices)


@pytest.mark.parametrize("n_frames", [3, 5])
def test_the_first_frames_of_all_slices_are_ranked(tmp_path, n_frames):
    slices = [(1 + z) * beating_disc(t=n_frames) for z in range(4)]
    writer = RankingWriter(tmp_path)
    for z, images in enumerate(slices):
        for condition in CONDITIONS:
            writer.add(_case(images, condition, z=z, n_slices=4), {"kgmgt": images})
    assert not writer._slices  # none waits in memory
    folders = [tmp_path / "kgmgt" / name / "P001" for name in ("uniform_4x", "kt_gaussian_4x")]
    assert writer.written == [folder / "cine_sax.mat" for folder in folders]
    expected = ranking_crop(np.stack(slices, axis=1))
    for path in writer.written:
        np.testing.assert_array_equal(scipy.io.loadmat(path)["img4ranking"], expected)


def test_images_of_cases_without_reference_keep_what_was_measured(tmp_path):
    case = _case(beating_disc())
    paths = write_unscored(tmp_path, case, {"nothing": np.zeros(case.mask.shape, np.complex64)})
    (path,) = (path for path in paths if path.name == "cine_sax_slice0_magnitude.mat")
    assert path.parent == tmp_path / "nothing" / "P001"
    with h5py.File(path) as file:
        expected = np.abs(ifft2c(case.kspace[:, 0]))
        np.testing.assert_allclose(file["magnitude"][:, 0], expected, atol=1e-5)


def test_cines_of_the_first_condition_are_read(tmp_path):
    reading, first = ReadingCases(["P001/cine_sax/slice0"]), beating_disc()
    for condition, images in zip(CONDITIONS, (first, 0.1 * first), strict=True):
        reading.add(_case(first, condition), {"kgmgt": images})
    reading.add(_case(first, CONDITIONS[1], z=1), {"kgmgt": first})
    _, key = reading.write(tmp_path, ["kgmgt"], "kgmgt")
    cases = {item["case"] for item in json.loads(key.read_text())["items"].values()}
    assert cases == {"P001/cine_sax/slice0"}
    (pictures,) = reading._cases.values()
    assert pictures["kgmgt"] == pictures[REFERENCE] == pictures_of({"kgmgt": first})["kgmgt"]


def test_cines_wait_for_their_readers_as_pictures(monkeypatch):
    names = [f"P001/cine_sax/slice{z}" for z in range(9)]
    reading, images = ReadingCases(names), beating_disc(12, 200, 200)
    case = _case(images)
    windows = []
    monkeypatch.setattr(players, "grey_window", lambda c: windows.append(1) or grey_window(c))
    reading.add(case, {"kgmgt": images})  # what is imported and cached once
    tracemalloc.start()
    for name in names[1:]:
        reading.add(dataclasses.replace(case, name=name), {"kgmgt": images, "a": images})
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 8 * images.nbytes
    assert len(windows) == 9
