"""Whole evaluations by methods that cost nothing: what is written, and what failure does."""

import csv
import json
import re
from dataclasses import dataclass

import h5py
import imageio.v3 as iio
import numpy as np
import pytest
import scipy.io

from kgmgt_jax.data.formats import ReadOptions, read_file
from kgmgt_jax.data.matfile import write_mat
from kgmgt_jax.data.phantom import write_cmrxrecon2023
from kgmgt_jax.data.prepared import PrepareOptions
from kgmgt_jax.data.prepared.preparing import prepare
from kgmgt_jax.data.simulation import Simulation
from kgmgt_jax.data.transforms import ifft2c
from kgmgt_jax.evaluation import summary
from kgmgt_jax.evaluation.cases import Condition, open_evaluation
from kgmgt_jax.evaluation.collecting import Findings
from kgmgt_jax.evaluation.evaluate import Options, evaluate_set
from tests.data.formats import writers
from tests.evaluation.small_set import FULL, SHAPE, Scaled, write_phantoms

CONDITIONS = [Condition("uniform", 4.0, 8), Condition("kt_gaussian", 4.0, 8)]
PRESETS = ["frame", "cmrxrecon2023"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A scored subject, one without reference, and a damaged file."""
    root = write_phantoms(tmp_path_factory.mktemp("data"), 3, accelerations=(4,))
    full = root / FULL
    (full / "P002" / "cine_sax.mat").unlink()
    damaged = full / "P003" / "cine_sax.mat"
    damaged.write_bytes(damaged.read_bytes()[:3000])
    return root


@pytest.fixture(scope="module")
def done(tree, tmp_path_factory):
    """Everything an evaluation can write."""
    out = tmp_path_factory.mktemp("out")
    methods = [
        Scaled("kgmgt", 1.1),
        Scaled("broken", fails_on="out of memory"),
        Scaled("nan", np.nan),
    ]
    options = Options(CONDITIONS, PRESETS, ranking=out / "ranking")
    outcome = evaluate_set(open_evaluation(tree, acs=8), methods, out, options)
    return out, outcome, json.loads((out / "metrics.json").read_text())


def test_the_slices_of_a_file_are_one_volume_where_the_preset_says_so(tmp_path):
    root, condition = write_phantoms(tmp_path / "data", 1, n_slices=2), CONDITIONS[0]
    options = Options([condition], ["frame", "fastmri"], efficiency=False)
    evaluate_set(open_evaluation(root, acs=8), [Scaled("half", 0.5)], tmp_path, options)
    cases = list(open_evaluation(root, acs=8).cases([condition]))
    reference = np.concatenate([case.reference for case in cases])
    zero_filled = np.concatenate([np.abs(ifft2c(case.kspace[:, 0])) for case in cases])
    for each in json.loads((tmp_path / "metrics.json").read_text())["sets"]:
        assert each["regions"]["whole frame"]["half"]["psnr"]["n_subjects"] == 1
    with open(tmp_path / "scores_by_frame.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["preset"] == "fastmri"]
    assert [(row["case"], row["region"], row["method"]) for row in rows] == [
        ("P001/cine_sax", "whole frame", method) for method in ("zero_filled", "half")
    ]
    for row, factor in zip(rows, (1.0, 0.5), strict=True):
        error = np.mean((reference - factor * zero_filled) ** 2, dtype=np.float64)
        psnr = 10 * np.log10(reference.max() ** 2 / error)
        nmse = error / np.mean(reference**2, dtype=np.float64)
        assert float(row["psnr"]) == pytest.approx(psnr, abs=1e-3)
        assert float(row["nmse"]) == pytest.approx(nmse, rel=1e-4)


def test_cases_of_several_sizes_have_accelerations_of_their_own_in_tables(tmp_path):
    root, condition = write_phantoms(tmp_path / "data", 1, n_slices=2), CONDITIONS[0]
    options = {"shape": (64, 32), "n_frames": 3, "n_slices": 1, "accelerations": ()}
    write_cmrxrecon2023(root / "large", [1], **options)
    (root / "large" / FULL / "P001").rename(root / "large" / FULL / "P002")
    options = Options([condition], ["frame", "fastmri"], efficiency=False)
    evaluate_set(open_evaluation(root, acs=8), [], tmp_path, options)
    cases = list(open_evaluation(root, acs=8).cases([condition]))
    measured, samples = {}, {}
    for case in cases:
        for name in (case.name, case.name.rpartition("/slice")[0]):
            measured[name] = measured.get(name, 0) + case.mask.sum()
            samples[name] = samples.get(name, 0) + case.mask.size
    tables = {}
    for table in ("by_case", "mean"):
        with open(tmp_path / f"scores_{table}.csv") as file:
            tables[table] = list(csv.DictReader(file))
    own = {row["case"]: float(row["acceleration"]) for row in tables["by_case"]}
    assert len(own) == 4 and len(set(own.values())) == 2  # slices and volume of one size, another
    assert own == pytest.approx({name: samples[name] / measured[name] for name in own})
    together = sum(case.mask.size for case in cases) / sum(case.mask.sum() for case in cases)
    for row in tables["mean"]:
        assert float(row["acceleration"]) == pytest.approx(together)


def test_files_of_one_name_in_folders_called_slice_are_volumes_of_their_own(tmp_path):
    for number in range(2):
        write_phantoms(tmp_path / "data" / f"slice{number}", 1, n_slices=2)
    findings = Findings(CONDITIONS[:1], ["fastmri"])
    for case in open_evaluation(tmp_path / "data", acs=8).cases(CONDITIONS[:1]):
        findings.add(case, {"zero_filled": case.kspace[:, 0]})
    (scores,) = findings.score_sets()
    assert len(scores.scores["whole frame"]) == 2


def test_files_of_one_name_with_more_slices_or_fewer_are_volumes_of_their_own(tmp_path):
    for number in range(2):
        write_phantoms(tmp_path / "data" / f"site{number}", 1, n_slices=2 + number)
    findings = Findings(CONDITIONS[:1], ["fastmri"])
    for case in open_evaluation(tmp_path / "data", acs=8).cases(CONDITIONS[:1]):
        findings.add(case, {"zero_filled": case.kspace[:, 0]})
    assert findings.incomplete == {}
    (scores,) = findings.score_sets()
    assert len(scores.scores["whole frame"]) == 2


def test_a_volume_without_one_of_its_slices_has_no_score(tmp_path):
    root, condition = write_phantoms(tmp_path / "data", 1, n_slices=2), CONDITIONS[0]
    findings = Findings([condition], ["fastmri"])
    case = next(open_evaluation(root, acs=8).cases([condition]))
    findings.add(case, {"zero_filled": case.kspace[:, 0]})
    assert findings.score_sets() == []
    assert findings.incomplete == {"volume P001/cine_sax, uniform 4x": "a slice of it is missing"}


def test_scored_images_can_be_kept(tmp_path):
    root, condition = write_phantoms(tmp_path / "data", 1), CONDITIONS[0]
    options = Options([condition], efficiency=False, save_images=True)
    outcome = evaluate_set(open_evaluation(root, acs=8), [Scaled("half", 0.5)], tmp_path, options)
    case = next(open_evaluation(root, acs=8).cases([condition]))
    place = f"uniform_4x/{FULL}/P001/cine_sax_slice0_magnitude.mat"
    found = {}
    for method in ("reference", "zero_filled", "half"):
        path = tmp_path / "images" / method / place
        assert path in outcome.files
        with h5py.File(path) as file:
            found[method] = file["magnitude"][:, 0]
    np.testing.assert_array_equal(found["reference"], case.reference)
    np.testing.assert_allclose(found["half"], 0.5 * found["zero_filled"], atol=1e-6)


def test_every_sampling_and_preset_has_its_scores(done, tree):
    out, _, metrics = done
    cases = open_evaluation(tree, acs=8).cases(CONDITIONS)
    true = {case.sampling.mask_kind: case.mask.size / case.mask.sum() for case in cases}
    found = [(s["mask"]["kind"], s["preset"]) for s in metrics["sets"]]
    assert found == [(c.mask_kind, p) for c in CONDITIONS for p in PRESETS]
    for each in metrics["sets"]:
        assert set(each["methods"]) == {"zero_filled", "kgmgt"}
        assert each["acceleration"] == pytest.approx(true[each["mask"]["kind"]])
        assert (each["nominal_acceleration"], each["mask"]["acs"]) == (4, 8)
        assert each["simulation"] == "simulated phantom"
        assert set(each["regions"]["heart region"]["kgmgt"]) == {"psnr", "ssim", "nmse", "xt_ssim"}
    first = ("preset", "acceleration", "nominal_acceleration", "methods")
    assert {name: metrics[name] for name in first} == {n: metrics["sets"][0][n] for n in first}
    with open(out / "scores_by_frame.csv") as file:
        assert len(list(csv.DictReader(file))) == 2 * 2 * 2 * 2 * SHAPE[0]  # also by region


@dataclass(frozen=True)
class _StillMasks(Scaled):
    """A method that fails where masks vary in time."""

    def reconstruct(self, kspace, mask, sens, progress=None):
        if (mask != mask[:1]).any():
            raise RuntimeError("moving mask")
        return super().reconstruct(kspace, mask, sens, progress)


def test_main_method_is_the_first_that_every_sampling_has_scores_of(tmp_path):
    data = open_evaluation(write_phantoms(tmp_path / "data", 1), acs=8)
    methods = [_StillMasks("modl"), Scaled("kgmgt", 1.1)]
    evaluate_set(data, methods, tmp_path, Options(CONDITIONS, ["frame"], efficiency=False))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    found = [list(each["methods"]) for each in metrics["sets"]]
    assert found == [["zero_filled", "modl", "kgmgt"], ["zero_filled", "kgmgt"]]
    assert metrics["main"] == "kgmgt"


def test_failures_are_named_and_stop_nothing(done):
    _, outcome, metrics = done
    assert metrics["failed"] == dict(outcome.failed)
    damaged, *others = sorted(outcome.failed, key=lambda what: "P003" not in what)
    assert "P003" in damaged
    reasons = {what.split(", ")[-1]: outcome.failed[what] for what in others}
    assert reasons["broken"] == "RuntimeError: out of memory" and "finite" in reasons["nan"]
    assert f"failed: {damaged}: " in outcome.text


@dataclass(frozen=True)
class _Narrow(Scaled):
    """A method whose images lack a column."""

    def reconstruct(self, kspace, mask, sens, progress=None):
        return super().reconstruct(kspace, mask, sens, progress)[..., 1:]


def test_a_method_of_images_of_another_size_fails_alone(tree, tmp_path):
    methods = [_Narrow("narrow"), Scaled("kgmgt", 1.1)]
    options = Options(CONDITIONS[:1], efficiency=False)
    outcome = evaluate_set(open_evaluation(tree, acs=8), methods, tmp_path, options)
    (scores,) = json.loads((tmp_path / "metrics.json").read_text())["sets"]
    assert scores["methods"].keys() == {"zero_filled", "kgmgt"}
    told = [why for what, why in outcome.failed.items() if what.endswith("narrow")]
    assert len(told) == 3 and all("got (4, 40, 31)" in why for why in told)  # one is scored


def test_case_without_reference_is_listed_and_its_images_are_saved(done, tree):
    out, outcome, metrics = done
    names = sorted(metrics["unscored"])
    assert ["P002" in names[0], "P003" in names[1], len(names)] == [True, True, 2]
    assert outcome.text.count("not scored: ") == 2
    place = "SingleCoil/Cine/TrainingSet/AccFactor04/P002/cine_sax"
    file = read_file(tree / f"{place}.mat")
    saved = out / "unscored" / "zero_filled" / f"{place}_slice0_magnitude.mat"
    with h5py.File(saved) as stored:
        assert stored["magnitude"].shape[0] == file[0].kspace.shape[0] == SHAPE[0]
        assert b"phantom" in stored["magnitude"].attrs["simulation"]
    assert not list((out / "unscored").glob("broken/**/*.mat"))


def test_ranking_files_lie_where_their_data_lie(done):
    out, _, _ = done
    found = {p.relative_to(out / "ranking").as_posix() for p in out.glob("ranking/**/*.mat")}
    scored = f"{FULL}/P001/cine_sax.mat"
    assert f"kgmgt/uniform_4x/{scored}" in found and f"zero_filled/kt_gaussian_4x/{scored}" in found
    assert "kgmgt/SingleCoil/Cine/TrainingSet/AccFactor04/P002/cine_sax.mat" in found
    stored = scipy.io.loadmat(out / "ranking" / "kgmgt" / "uniform_4x" / scored)["img4ranking"]
    assert stored.shape == (11, 20, 1, 3)  # round(32 / 3), 40 / 2, one slice, three frames


def test_files_of_one_name_in_a_prepared_set_have_a_ranking_each(tmp_path):
    for subject in ("sub-01", "sub-02"):
        path = tmp_path / "data" / subject / "cine.npy"
        path.parent.mkdir(parents=True)
        np.save(path, np.random.default_rng(0).random((4, 24, 16), np.float32))
    simulated = ReadOptions(simulation=Simulation(n_coils=1))
    options = PrepareOptions(split=(0.0, 0.0, 1.0), read=simulated)
    prepare(tmp_path / "data", tmp_path / "set", options)
    data, out = open_evaluation(tmp_path / "set", acs=8), tmp_path / "ranking"
    outcome = evaluate_set(data, [], tmp_path / "out", Options(CONDITIONS[:1], ranking=out))
    found = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.mat"))
    assert [name.split("/")[2] for name in found] == ["sub-01", "sub-02"] and not outcome.failed


def test_files_that_differ_in_their_suffix_alone_have_a_ranking_each(tmp_path):
    root = tmp_path / "data"
    kspace = writers.kspace((4, 1, 24, 16))
    write_mat(root / "cine_kspace.mat", "kspace_full", kspace[:, None])
    np.save(root / "cine_kspace.npy", kspace)
    data = open_evaluation(root, acs=8)
    options = Options(CONDITIONS[:1], ranking=tmp_path / "ranking", efficiency=False)
    outcome = evaluate_set(data, [], tmp_path / "out", options)
    names = sorted(path.name for path in (tmp_path / "ranking").rglob("*.mat"))
    assert names == ["cine_kspace.mat.mat", "cine_kspace.npy.mat"] and not outcome.failed


def test_a_file_too_short_to_rank_is_told_with_that_reason_alone(tmp_path):
    root = tmp_path / "data"
    write_mat(root / "cine.mat", "kspace_full", writers.kspace((2, 1, 24, 16))[:, None])
    kspace = np.repeat(writers.kspace((2, 1, 24, 16))[:, None], 2, axis=1)
    write_mat(root / "two_slices.mat", "kspace_full", kspace)
    options = Options(CONDITIONS[:1], ranking=tmp_path / "ranking", efficiency=False)
    data = open_evaluation(root, acs=8)
    outcome = evaluate_set(data, [Scaled("half", 0.5)], tmp_path / "out", options)
    assert len(outcome.failed) == 3  # slices
    assert all("3 frames or more to rank, got 2" in why for why in outcome.failed.values())


@pytest.mark.parametrize("place", ["out", "ranking"])
def test_a_folder_that_cannot_be_written_to_is_told_before_the_work(tmp_path, place):
    data = open_evaluation(write_phantoms(tmp_path / "data", 1), acs=8)
    (tmp_path / "file").touch()
    folders = {"out": tmp_path / "new", "ranking": tmp_path / "ranks"} | {place: tmp_path / "file"}
    options = Options(CONDITIONS[:1], ranking=folders["ranking"], efficiency=False)
    with pytest.raises(ValueError, match="file: expected a folder to write to, got a file"):
        evaluate_set(data, [_Unasked("half")], folders["out"], options)


@dataclass(frozen=True)
class _Unasked(Scaled):
    """A method that no one may ask for images."""

    def reconstruct(self, kspace, mask, sens, progress=None):
        pytest.fail("work was done")


def test_images_of_a_file_with_brackets_in_its_name_are_written(tmp_path):
    kspace = writers.kspace((4, 1, 24, 16))
    kspace[:, :, ::2] = 0
    np.save(tmp_path / "kspace (1).npy", kspace)
    data = open_evaluation(tmp_path, acs=8)
    outcome = evaluate_set(data, [], tmp_path / "out", Options(CONDITIONS))
    assert not outcome.failed
    assert len(list(tmp_path.glob("out/unscored/zero_filled/kspace (1)_slice0_*.mat"))) == 2


def test_report_names_failures_costs_and_simulation(done):
    page = (done[0] / "report.html").read_text()
    for text in ("out of memory", "P003", "Reconstructed, not scored", "simulated phantom"):
        assert text in page
    assert "Peak memory (MiB)" in page and "nominal 4" in page


def test_reading_kit_has_every_method_and_the_reference(tmp_path):
    write_phantoms(tmp_path / "data")
    options = Options(CONDITIONS, reader_study=True, efficiency=False)
    data = open_evaluation(tmp_path / "data", acs=8)
    outcome = evaluate_set(data, [Scaled("kgmgt")], tmp_path / "out", options)
    key = json.loads((tmp_path / "out" / "reading_key.json").read_text())
    pairs = {(item["case"][:4], item["method"]) for item in key["items"].values()}
    methods = ("reference", "zero_filled", "kgmgt")
    assert pairs == {(case, method) for case in ("P001", "P002") for method in methods}
    assert len(key["items"]) == len(pairs) and key["main"] == "kgmgt" and not outcome.failed
    assert "simulated phantom" in (tmp_path / "out" / "reading" / "reading.html").read_text()


def test_a_reading_kit_of_few_cases_is_spread_over_all(tmp_path):
    write_phantoms(tmp_path / "data", 3, n_slices=2)
    options = Options(CONDITIONS[:1], reader_study=True, reader_cases=2, efficiency=False)
    data = open_evaluation(tmp_path / "data", acs=8)
    evaluate_set(data, [Scaled("kgmgt")], tmp_path / "out", options)
    key = json.loads((tmp_path / "out" / "reading_key.json").read_text())
    cases = {item["case"] for item in key["items"].values()}
    assert cases == {"P001/cine_sax/slice0", "P003/cine_sax/slice1"}
    assert len(data.spread(1)) == 1 and len(data.spread(99)) == 6


def test_files_without_any_reference_make_a_report_without_scores(tree, tmp_path):
    data = open_evaluation(tree / "SingleCoil/Cine/TrainingSet/AccFactor04", acs=8)
    options = Options(CONDITIONS, efficiency=False, reader_study=True)
    outcome = evaluate_set(data, [Scaled("kgmgt")], tmp_path, options)
    assert list(outcome.failed) == ["reading kit"] and outcome.text.count("not scored: ") == 3
    assert "nothing is scored" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("names", [("kgmgt", "kgmgt"), ("reference",), ("zero_filled",)])
def test_methods_of_one_name_are_refused(tree, tmp_path, names):
    methods = [Scaled(name) for name in names]
    with pytest.raises(ValueError, match=rf"names of their own.*'{names[0]}'\] twice"):
        evaluate_set(open_evaluation(tree, acs=8), methods, tmp_path, Options(CONDITIONS))


def test_an_unknown_preset_is_refused_before_any_case():
    with pytest.raises(ValueError, match=r"preset to be one of .*frame.*got preset='foo'"):
        Options([Condition("uniform", 4.0, 8)], ["frame", "foo"])


def test_pixels_that_are_not_square_are_shown_as_they_are(tmp_path, monkeypatch):
    nibabel = pytest.importorskip("nibabel")
    images = np.random.default_rng(0).random((20, 24, 1, 3), np.float32)  # x y z t
    (tmp_path / "data").mkdir()
    volume = nibabel.nifti1.Nifti1Image(images, np.diag([1.0, 2.0, 8.0, 1.0]))
    nibabel.save(volume, tmp_path / "data" / "cine.nii.gz")
    data = open_evaluation(tmp_path / "data", acs=8, simulation=Simulation(n_coils=1))
    options = Options(CONDITIONS[:1], reader_study=True, efficiency=False)
    drawn, draw = [], summary.comparison_figure
    monkeypatch.setattr(
        summary, "comparison_figure", lambda *a, **kw: drawn.append(kw["aspect"]) or draw(*a, **kw)
    )
    evaluate_set(data, [], tmp_path, options)
    assert drawn == [2.0]
    for page in ("report.html", "reading/reading.html"):
        shapes = re.findall(r'"aspect": ?([\d.]+)', (tmp_path / page).read_text())
        assert shapes and set(map(float, shapes)) == {2.0}
    height, width = iio.imread(tmp_path / "cine.gif").shape[1:3]
    one = (width - 4) / 2  # of two panels and the gap between
    assert (height - 22) / one == 2 * 24 / 20
