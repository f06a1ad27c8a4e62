"""VarNet, to compare with. Variants: `base` (default, of fastMRI's size) and `tiny` (phantoms).

    python train.py --config=configs/varnet.py:tiny --workdir=runs/varnet \
        --config.data.train=DIR --config.data.validation=DIR

`DIR` as for configs/kgmgt.py, whose data, masks, steps and optimiser these are; the loss is L1.
base: 29,452,068 parameters, for one GPU. tiny: meant for two CPU cores, 220 steps;
`python benchmarks/comparators.py --networks varnet` prints what it gains on phantoms. With
`--config.model.neighbours=True` the U-Nets see the frames before and after, too.
"""

from ml_collections import ConfigDict

from configs.comparison import with_network


def get_config(variant: str = "base") -> ConfigDict:
    """The configuration of a variant; every field can be overridden on the command line."""
    base = {
        "network": "varnet",
        "n_cascades": 12,
        "channels": 18,
        "n_pools": 4,
        "neighbours": False,
        "remat": True,
        "dtype": "float32",
        "weight_init": "he",
    }
    tiny = {"n_cascades": 8, "channels": 12, "n_pools": 3, "remat": False}
    return with_network(variant, base, tiny)
