"""Scores: python eval.py --checkpoint=WORKDIR --data=DIR --acceleration=4 --out=DIR."""

from absl import flags

from kgmgt_jax import cli
from kgmgt_jax.data.mask_sampler import MASK_KINDS
from kgmgt_jax.evaluation.evaluate import Method, evaluate_files
from kgmgt_jax.metrics import PRESETS

_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "Training workdir (best, else last) or one checkpoint.", required=True
)
_COMPARE = flags.DEFINE_multi_string(
    "compare", [], "A further checkpoint to score, as NAME=PATH; may be repeated."
)
_DATA = flags.DEFINE_string("data", None, "Fully sampled files.", required=True)
_OUT = flags.DEFINE_string("out", None, "Folder for metrics.json and pictures.", required=True)
_ACCELERATION = flags.DEFINE_float("acceleration", 4.0, "Nominal acceleration.")
_ACS = flags.DEFINE_integer("acs", 8, "Central lines that are always measured.")
_MASK = flags.DEFINE_enum("mask_kind", "uniform", sorted(MASK_KINDS), "Sampling pattern.")
_PRESET = flags.DEFINE_enum("preset", "frame", sorted(PRESETS), "Definition of the metrics.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the masks.")


def main(argv: list[str]) -> None:
    """Reconstructs, scores, prints the table, writes metrics and pictures."""
    methods = [Method.load("kgmgt", _CHECKPOINT.value)]
    for item in _COMPARE.value:
        name, _, path = item.partition("=")
        if not path:
            raise ValueError(f"--compare: expected NAME=PATH, got {item!r}")
        methods.append(Method.load(name, path))
    report = evaluate_files(
        _DATA.value,
        methods,
        _OUT.value,
        mask_kind=_MASK.value,
        acceleration=_ACCELERATION.value,
        acs=_ACS.value,
        preset=_PRESET.value,
        seed=_SEED.value,
    )
    print(report)


if __name__ == "__main__":
    cli.run(main)
