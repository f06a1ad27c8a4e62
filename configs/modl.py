"""MoDL, to compare with. Variants: `base` (default, of the paper's size) and `tiny` (phantoms).

    python train.py --config=configs/modl.py:tiny --workdir=runs/modl \
        --config.data.train=DIR --config.data.validation=DIR

`DIR` as for configs/kgmgt.py, whose data, masks, steps and optimiser these are; the loss is L1.
base: 113,155 parameters, for one GPU. tiny: meant for two CPU cores, 220 steps;
benchmarks/README.md has what 400 of them gain on phantoms.
"""

from ml_collections import ConfigDict

from configs.comparison import with_network


def get_config(variant: str = "base") -> ConfigDict:
    """The configuration of a variant; every field can be overridden on the command line."""
    base = {
        "network": "modl",
        "n_iterations": 10,
        "n_cg": 10,
        "denoiser_channels": 64,
        "dtype": "float32",
        "weight_init": "he",
    }
    return with_network(variant, base, {"n_iterations": 5, "n_cg": 6, "denoiser_channels": 32})
