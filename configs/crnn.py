"""CRNN, to compare with. Variants: `base` (default, of the paper's size) and `tiny` (phantoms).

    python train.py --config=configs/crnn.py:tiny --workdir=runs/crnn \
        --config.data.train=DIR --config.data.validation=DIR

`DIR` as for configs/kgmgt.py, whose data, masks, steps and optimiser these are; the loss is L1.
base: 297,804 parameters, for one GPU. tiny: meant for two CPU cores, 220 steps;
`python benchmarks/comparators.py --networks crnn` prints what it gains on phantoms.
"""

from ml_collections import ConfigDict

from configs.comparison import with_network


def get_config(variant: str = "base") -> ConfigDict:
    """The configuration of a variant; every field can be overridden on the command line."""
    base = {
        "network": "crnn",
        "n_iterations": 10,
        "channels": 64,
        "consistency": "hard",
        "solver": "gradient",
        "dtype": "float32",
        "weight_init": "he",
    }
    return with_network(variant, base, {"n_iterations": 5, "channels": 24})
