"""SwinIR, to compare with. Variants: `base` (default, of the paper's size) and `tiny` (phantoms).

    python train.py --config=configs/swinir.py:tiny --workdir=runs/swinir \
        --config.data.train=DIR --config.data.validation=DIR

`DIR` as for configs/kgmgt.py, whose data, masks, steps and optimiser these are; the loss is L1.
base: 11,500,923 parameters, for one GPU or more. tiny: meant for two CPU cores,
220 steps; its windows are large, because aliases lie 20 pixels apart. `python
benchmarks/comparators.py --networks swinir` prints what it gains on phantoms.
"""

from ml_collections import ConfigDict

from configs.comparison import with_network


def get_config(variant: str = "base") -> ConfigDict:
    """The configuration of a variant; every field can be overridden on the command line."""
    base = {
        "network": "swinir",
        "width": 180,
        "n_heads": 6,
        "window": 8,
        "mlp_ratio": 2,
        "n_groups": 6,
        "n_blocks": 6,
        "drop_path": 0.1,
        "consistency": "hard",
        "solver": "gradient",
        "remat": True,
        "dtype": "float32",
        "weight_init": "he",
    }
    tiny = {
        "width": 32,
        "n_heads": 4,
        "window": 16,
        "n_groups": 2,
        "n_blocks": 2,
        "drop_path": 0.0,
        "remat": False,
    }
    return with_network(variant, base, tiny)
