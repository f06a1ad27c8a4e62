"""Scores: python eval.py --checkpoint=WORKDIR --data=DIR --acceleration=4 --out=DIR.

Exit code 0; 1 if a case or a method failed, which the report and the last lines name, or if a
signal ended it with some cases scored; 2 for bad input, with one line that says what was expected.
"""

import functools
import itertools
import sys
from typing import Any

from absl import flags

from kgmgt_jax import cli
from kgmgt_jax.classical import METHODS
from kgmgt_jax.data.mask_sampler import MASK_KINDS
from kgmgt_jax.data.prepared import is_prepared
from kgmgt_jax.data.prepared.options import SPLITS
from kgmgt_jax.data.simulation import Simulation
from kgmgt_jax.evaluation.cases import Condition, EvaluationSet, open_evaluation
from kgmgt_jax.evaluation.classical_methods import classical_methods, parse_weights
from kgmgt_jax.evaluation.evaluate import Options, check_folders, evaluate_set
from kgmgt_jax.evaluation.methods import Method
from kgmgt_jax.evaluation.overlap import n_trained_on
from kgmgt_jax.evaluation.tuning import tune_methods
from kgmgt_jax.metrics import PRESETS

_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "Training workdir (best, else last), one checkpoint, or pretrained."
)
_COMPARE = flags.DEFINE_multi_string(
    "compare", [], "A further checkpoint to score, as NAME=PATH; may be repeated."
)
_CLASSICAL = flags.DEFINE_list(
    "classical", [], f"Methods without learning: all, or some of {', '.join(METHODS)}."
)
_WEIGHTS = flags.DEFINE_multi_string(
    "weights", [], "A weight of one of them, as temporal_tv.weight=0.02; may be repeated."
)
_TUNE = flags.DEFINE_list(
    "tune", [], "Fully sampled training files or folders on which their weights are chosen."
)
_TUNE_SLICES = flags.DEFINE_integer("tune_slices", 4, "Most slices to use of each of these.")
_DATA = flags.DEFINE_string(
    "data", None, "A fully sampled file, a folder of them, or a prepared set.", required=True
)
_SPLIT = flags.DEFINE_enum(
    "split", None, SPLITS, "Which part of a prepared set; if not given, test."
)
_OUT = flags.DEFINE_string("out", None, "Folder for what is written.", required=True)
_ACCELERATION = flags.DEFINE_list("acceleration", ["4"], "Nominal accelerations, such as 4,8.")
_ACS = flags.DEFINE_integer("acs", 8, "Central lines that are always measured.")
_MASK = flags.DEFINE_list(
    "mask_kind", ["uniform"], f"Sampling patterns, of {', '.join(sorted(MASK_KINDS))}."
)
_PRESET = flags.DEFINE_list(
    "preset", ["frame"], f"Definitions of the metrics, of {', '.join(PRESETS)}."
)
_COILS = flags.DEFINE_integer("simulated_coils", 8, "Coils of k-space made of magnitude images.")
_NOISE = flags.DEFINE_float(
    "simulated_noise", 0.005, "Its noise, as a fraction of the images' 99th percentile."
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the masks.", lower_bound=0)
_RANKING = flags.DEFINE_string("ranking", None, "Folder for CMRxRecon's img4ranking files.")
_EFFICIENCY = flags.DEFINE_boolean("efficiency", True, "Measure what each method costs.")
_READERS = flags.DEFINE_boolean("reader_study", False, "Write a blinded reading kit.")
flags.DEFINE_alias("reader-study", "reader_study")
_READER_CASES = flags.DEFINE_integer(
    "reader_cases", 40, "Most slices in the reading kit, spread over all.", lower_bound=1
)
_IMAGES = flags.DEFINE_boolean("save_images", False, "Write the images that were scored.")
_loading = cli.define_loading()


def main(argv: list[str]) -> int:
    """Reconstructs, scores, prints the tables, writes everything else."""
    if _TUNE.value and not _CLASSICAL.value:
        raise ValueError("--tune: expected --classical with the methods to tune, got none")
    networks = _networks()
    sens = networks[0].sens if networks else "espirit"
    circular = networks[0].circular if networks else _loading()["circular"] is not False
    coils = networks[0].virtual_coils if networks else _loading()["virtual_coils"] or 0
    conditions = _conditions()
    simulation = Simulation(n_coils=_COILS.value, noise=_NOISE.value)
    reading = {"sens": sens, "simulation": simulation, "virtual_coils": coils}
    data = open_evaluation(_DATA.value, acs=_ACS.value, split=_SPLIT.value, **reading)
    weights = parse_weights(_WEIGHTS.value)
    names = [method.name for method in classical_methods(_CLASSICAL.value, given=weights)]
    told = _seen(networks, data) | _other_maps(networks, data) | _to_read(data)
    if not is_prepared(_DATA.value):
        told |= _other_coils(networks, coils)
    if data.virtual_coils:
        told["files of more coils"] = f"are compressed to {coils} virtual ones, references too"
    options = Options(
        conditions,
        _PRESET.value,
        seed=_SEED.value,
        ranking=_RANKING.value,
        reader_study=_READERS.value,
        reader_cases=_READER_CASES.value,
        save_images=_IMAGES.value,
        efficiency=_EFFICIENCY.value,
        facts={"command": " ".join(["python", *sys.argv]), "seed": _SEED.value} | told,
    )
    check_folders(data, _OUT.value, options)
    tuned = _tuned(names, conditions, data, circular, reading)  # slow, hence last
    classical = classical_methods(names, tuned, weights, circular=circular)
    methods = [*networks, *classical]
    outcome = evaluate_set(data, methods, _OUT.value, options, title=str(_DATA.value))
    print("\n".join([outcome.text, *map(" ".join, told.items())]))
    return 1 if outcome.failed else 0


def _networks() -> list[Method]:
    load = functools.partial(Method.load, **_loading())
    networks = [load("", _CHECKPOINT.value)] if _CHECKPOINT.value else []
    for item in _COMPARE.value:
        name, _, path = item.partition("=")
        if not path:
            raise ValueError(f"--compare: expected NAME=PATH, got {item!r}")
        networks.append(load(name, path))
    return networks


def _seen(networks: list[Method], data: EvaluationSet) -> dict[str, str]:
    """What the report shall state of networks that are scored on data they were trained with.

    A checkpoint that is the best of its run by the very slices that are scored does well on them.
    """
    counts = {}
    for net in networks:
        counts[f"{net.name} was trained on"] = n_trained_on(net.trained_on, data.slices)
        validated = n_trained_on(net.validated_on, data.slices, "validation")
        counts[f"{net.name} was validated on"] = validated
    n = len(data.slices)
    return {told: f"{k} of the {n} slices scored" for told, k in counts.items() if k}


def _other_maps(networks: list[Method], data: EvaluationSet) -> dict[str, str]:
    """What it shall state of networks that were trained with other coil maps than are used here."""
    return {
        f"{net.name} was trained with": f"coil maps by {net.sens}, and is scored, where files "
        f"bring none, with those by {data.sens}"
        for net in networks
        if net.sens != data.sens
    }


def _other_coils(networks: list[Method], coils: int) -> dict[str, str]:
    """What it shall state of networks that were trained with other virtual coils than are used."""

    def named(number: int) -> str:
        return f"at most {number} virtual coils" if number else "all coils"

    return {
        f"{net.name} was trained with files of": f"{named(net.virtual_coils)}, and is scored with "
        f"those of {named(coils)}"
        for net in networks
        if net.virtual_coils != coils
    }


def _to_read(data: EvaluationSet) -> dict[str, str]:
    """What it shall state of a reading kit with fewer slices than are scored."""
    n, most = len(data.slices), _READER_CASES.value
    if not _READERS.value or n <= most:
        return {}
    return {"the reading kit has": f"at most {most} of the {n} slices, spread over all"}


def _conditions() -> list[Condition]:
    try:
        rates = [float(rate) for rate in _ACCELERATION.value]
    except ValueError as error:
        raise ValueError(f"--acceleration: expected numbers, got {_ACCELERATION.value}") from error
    pairs = itertools.product(_MASK.value, rates)
    return list(dict.fromkeys(Condition(kind, rate, _ACS.value) for kind, rate in pairs))


def _tuned(
    names: list[str],
    conditions: list[Condition],
    data: EvaluationSet,
    circular: bool,
    reading: dict[str, Any],
) -> dict[str, dict[str, float]]:
    """Weights chosen on training files, if there are any."""
    if not _TUNE.value:
        return {}
    found = tune_methods(
        names,
        _TUNE.value,
        conditions,
        test=data.slices,
        n_slices=_TUNE_SLICES.value,
        circular=circular,
        seed=_SEED.value,
        **reading,
    )
    for name, tuning in found.items():
        print(f"{name}: {tuning.weights}, {tuning.score:.2f} dB on the training cases")
    return {name: tuning.weights for name, tuning in found.items()}


if __name__ == "__main__":
    cli.run(main, less_memory=cli.LESS_MEMORY)
