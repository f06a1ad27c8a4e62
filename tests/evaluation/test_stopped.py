"""Evaluations that a signal ends: what was scored until then is written."""

import csv
import json
import signal

import pytest

from kgmgt_jax.evaluation.cases import Condition, open_evaluation
from kgmgt_jax.evaluation.evaluate import Options, evaluate_set
from tests.evaluation.small_set import SHAPE, Scaled, write_phantoms

CONDITION = Condition("uniform", 4.0, 8)


class Signalled(Scaled):
    """Gets signals as it reconstructs its third case, or another."""

    def __init__(self, numbers, nth=3, tells=True):
        super().__init__("half", 0.5)
        self.__dict__.update(numbers=numbers, nth=nth, tells=tells, n_seen=0)

    def reconstruct(self, kspace, mask, sens, progress=None):
        self.__dict__["n_seen"] += 1
        if self.n_seen == self.nth:
            for number in self.numbers:
                signal.raise_signal(number)
        return super().reconstruct(kspace, mask, sens, progress if self.tells else None)


def evaluate(root, out, *methods, **options):
    """Four cases."""
    data = open_evaluation(write_phantoms(root / "data", 4), acs=8)
    return evaluate_set(data, methods, out, Options([CONDITION], **options))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_was_scored_before_a_signal_is_written(tmp_path, number):
    before = signal.getsignal(number)
    outcome = evaluate(tmp_path, tmp_path / "out", Signalled([number]), reader_study=True)
    n_frames = SHAPE[0]
    told = f"stopped after {2 * n_frames} of {4 * n_frames} frames; the rest has no scores"
    assert outcome.failed == {"evaluation": told}
    assert f"failed: evaluation: {told}" in outcome.text
    details = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert details["failed"] == outcome.failed and details["efficiency"] == {}
    with (tmp_path / "out" / "scores_by_case.csv").open() as file:
        assert len({row["case"] for row in csv.DictReader(file)}) == 2
    assert told in (tmp_path / "out" / "report.html").read_text()
    assert (tmp_path / "out" / "reading_key.json").exists()
    assert signal.getsignal(number) is before


def test_a_method_that_tells_no_progress_is_stopped_after_its_case(tmp_path):
    method = Signalled([signal.SIGTERM], tells=False)
    outcome = evaluate(tmp_path, tmp_path / "out", method)
    assert method.n_seen == 3 and "evaluation" in outcome.failed
    with (tmp_path / "out" / "scores_by_case.csv").open() as file:
        assert len({row["case"] for row in csv.DictReader(file)}) == 3


class SignalledAtTheEnd(Scaled):
    """Gets one as its costs are measured."""

    def program(self, kspace, mask, sens):
        signal.raise_signal(signal.SIGTERM)
        return super().program(kspace, mask, sens)


def test_scores_are_kept_where_costs_are_not_measured_to_the_end(tmp_path):
    methods = SignalledAtTheEnd("half", 0.5), Scaled("third", 0.3)
    outcome = evaluate(tmp_path, tmp_path / "out", *methods)
    assert outcome.failed == {"efficiency of third": "stopped"}
    details = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert list(details["efficiency"]) == ["zero_filled", "half"]
    assert list(details["methods"]) == ["zero_filled", "half", "third"]


class SignalledWhenDone(Scaled):
    """Gets one between its last frame and the scores of it."""

    def reconstruct(self, kspace, mask, sens, progress=None):
        image = super().reconstruct(kspace, mask, sens, progress)
        signal.raise_signal(signal.SIGTERM)
        return image


def test_costs_that_a_signal_left_out_are_named(tmp_path):
    data = open_evaluation(write_phantoms(tmp_path / "data", 1), acs=8)
    method = SignalledWhenDone("half", 0.5)
    outcome = evaluate_set(data, [method], tmp_path / "out", Options([CONDITION]))
    stopped = {f"efficiency of {name}": "stopped" for name in ("zero_filled", "half")}
    assert outcome.failed == stopped
    assert (tmp_path / "out" / "scores_by_case.csv").exists()


def test_the_same_cases_can_be_evaluated_once_more(tmp_path):
    data = open_evaluation(write_phantoms(tmp_path / "data", 2), acs=8)
    options = Options([CONDITION], efficiency=False)
    failing = [Signalled([signal.SIGTERM], nth=2), Scaled("third", fails_on="out of memory")]
    first = evaluate_set(data, failing, tmp_path / "first", options)
    second = evaluate_set(data, [Scaled("half", 0.5)], tmp_path / "second", options)
    assert len(first.failed) == 2 and not second.failed and not data.failed


@pytest.mark.parametrize(
    ("numbers", "nth"), [([signal.SIGTERM], 1), ([signal.SIGINT, signal.SIGINT], 3)]
)
def test_a_signal_before_the_first_score_or_two_interruptions_leave_nothing(tmp_path, numbers, nth):
    before = [signal.getsignal(number) for number in numbers]
    method = Signalled(numbers, nth)
    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path, tmp_path / "out", method)
    assert method.n_seen == nth
    assert not (tmp_path / "out" / "metrics.json").exists()
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_volume_of_which_slices_were_not_reached_has_no_score(tmp_path):
    root = write_phantoms(tmp_path / "data", 2, n_slices=2)
    options = Options([CONDITION], ["fastmri"])
    method = Signalled([signal.SIGTERM], nth=4)
    outcome = evaluate_set(open_evaluation(root, acs=8), [method], tmp_path / "out", options)
    missing = {k: why for k, why in outcome.failed.items() if k.startswith("volume")}
    assert missing == {"volume P002/cine_sax, uniform 4x": "a slice of it is missing"}
