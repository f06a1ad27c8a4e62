"""KIGAN, to compare with. Variants: `base` (default) and `tiny` (phantoms).

    python train.py --config=configs/kigan.py:tiny --workdir=runs/kigan \
        --config.data.train=DIR --config.data.validation=DIR

`DIR` as for configs/kgmgt.py, whose data, masks, steps, optimiser and critic these are; the loss is
L1 and, as for KGMgT, a Wasserstein critic's. base: for one GPU. tiny: meant for two CPU cores,
220 steps; `python benchmarks/comparators.py --networks kigan` prints what it gains on phantoms.
"""

from typing import Any

from ml_collections import ConfigDict

from configs.comparison import with_network


def get_config(variant: str = "base") -> ConfigDict:
    """The configuration of a variant; every field can be overridden on the command line."""
    base = {
        "network": "kigan",
        "n_cascades": 4,
        "channels": 48,
        "n_blocks": 3,
        "consistency": "hard",
        "solver": "gradient",
        "dtype": "float32",
        "weight_init": "he",
    }
    config: Any = with_network(variant, base, {"n_cascades": 3, "channels": 24, "n_blocks": 2})
    config.loss.adversarial = 1e-6
    return config
