"""A small report with everything in it."""

import numpy as np

from kgmgt_jax.evaluation.regions import score_regions
from kgmgt_jax.evaluation.report import CineExample, Efficiency, ReportData, ScoreSet
from kgmgt_jax.evaluation.sampling import Sampling
from tests.evaluation.cines import beating_disc, reconstructions

SIMULATED = "simulated from images: 1 coil, noise 0"
CASES = {"P001/sax": (26, 16), "P002/<i>lax": (20, 22), "P003/sax": (24, 20)}
NOMINAL = (4.0, 8.0)


def small_report(presets: tuple[str, ...] = ("frame",), nominal: tuple[float, ...] = NOMINAL):
    """Three cases, three methods, two accelerations; the second case is measured."""
    mask = np.zeros((6, 48, 40), np.float32)
    mask[:, ::3] = 1
    score_sets, examples = [], []
    for number, rate in enumerate(nominal):
        sampling = Sampling("uniform", 0.75 * rate, rate, 8)
        cines = {name: beating_disc(centre=centre) for name, centre in CASES.items()}
        images = {name: reconstructions(cine, seed=number) for name, cine in cines.items()}
        for preset in presets:
            scores: dict = {}
            for name, cine in cines.items():
                for region, methods in score_regions(cine, images[name], preset).items():
                    scores.setdefault(region, {})[name] = methods
            score_sets.append(ScoreSet(sampling, preset, scores))
        simulation = {name: "" if "P002" in name else SIMULATED for name in CASES}
        examples += [
            CineExample(name, sampling, images[name], cine, mask, simulation[name])
            for name, cine in cines.items()
        ]
    return ReportData(
        title="KGMgT & <others>",
        main="kgmgt",
        score_sets=score_sets,
        examples=examples,
        efficiency={
            "zero_filled": Efficiency(latency_ms=0.41, device="2 CPU cores"),
            "modl": Efficiency(113_666, 48.25, 130.4, 410.2, "2 CPU cores"),
            "kgmgt": Efficiency(11_349_000, 562.4, 2140.0, 1830.0, "2 CPU cores", (12, 8, 256, 96)),
        },
        labels={"kgmgt": "KGMgT", "modl": "MoDL", "zero_filled": "zero-filled"},
        simulation={name: how for name, how in simulation.items() if how},
        unscored={"P009": "no reference"},
        failed={"P010": "expected finite k-space, got NaN <in> frames [1]"},
        facts={"Command": "python eval.py --out=DIR"},
    )
