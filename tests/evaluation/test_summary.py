"""What an evaluation prints, however many cases there are."""

from kgmgt_jax.evaluation.cases import Condition, open_evaluation
from kgmgt_jax.evaluation.evaluate import Options, evaluate_set
from tests.evaluation.small_set import Scaled, write_phantoms


def test_what_is_printed_of_many_cases_fits_on_a_screen(tmp_path):
    root, out = write_phantoms(tmp_path / "data", 1, n_slices=20), tmp_path / "out"
    methods = [Scaled("half", 0.5), Scaled("broken", fails_on="no memory")]
    options = Options(
        [Condition("uniform", 4.0, 8)],
        ranking=out / "ranking",
        efficiency=False,
        save_images=True,
    )
    outcome = evaluate_set(open_evaluation(root, acs=8), methods, out, options)
    assert len(list((out / "images").rglob("*.mat"))) == 120 and len(outcome.failed) == 20
    lines = outcome.text.splitlines()
    assert len(lines) < 40
    assert f"{out / 'images'}: 120 files" in lines
    assert "failed: 8 more, see report.html" in lines
    for path in (out / "ranking").rglob("*.mat"):
        assert str(path) in lines
