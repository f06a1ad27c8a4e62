"""KGMgT. Variants: `base` (default), `released` (the authors' network), `tiny` (demo and tests).

    python train.py --config=configs/kgmgt.py:tiny --workdir=runs/tiny \
        --config.data.train=DIR --config.data.validation=DIR

`DIR` holds fully sampled CMRxRecon files; k-space is undersampled on the fly.

tiny: two CPU cores, a minute and a half for its 220 steps after as long for compiling them;
`make demo` runs it and the README has the scores it prints. base: meant for one GPU or more,
10.8 M trained parameters plus the encoder.
"""

from typing import Any

from ml_collections import ConfigDict, FieldReference


def get_config(variant: str = "base") -> ConfigDict:
    """The configuration of a variant; every field can be overridden on the command line."""
    config: Any = _base()
    if variant == "tiny":
        _tiny(config)
    elif variant == "released":
        _released(config)
    elif variant not in ("", "base"):
        raise ValueError(f"variants are base, released and tiny, got {variant!r}")
    return config.lock()


def _base() -> ConfigDict:
    config: Any = ConfigDict()
    config.model = ConfigDict(
        {
            "channels": (64, 128, 256),
            "width": 16,
            "n_heads": 4,
            "window": 8,
            "rect_window": _or_none(((16, 4), (4, 16), (16, 4))),  # by scale; None: no RW-MSA
            "square_window": True,  # False: no SW-MSA
            "attention": "window",  # "global" replaces both
            "mlp_ratio": 2,
            "n_groups": 2,
            "n_blocks": 4,
            "drop_path": 0.1,
            "n_offset_groups": 4,
            "zero_offsets": (True, True, True),
            "encoder": "shared",
            "tie_weights": False,
            "knowledge": True,
            "alignment": True,
            "flow": "argmax",
            "search_radius": _or_none(4),  # None: global matching
            "warp_flow": "centred",
            "n_iterations": 5,
            "consistency": "hard",
            "solver": "gradient",
            "denoiser_channels": 64,
            "denoiser_norm": "none",
            "remat": True,
            "unroll": False,  # True: compiles three times as long, for fewer kernels on a GPU
            "dtype": "float32",
            "weight_init": "he",
            "pallas": False,  # True: kernels of the package's own on NVIDIA GPUs; not timed yet
        }
    )
    config.critic = ConfigDict({"width": 32, "hidden": 1024, "norm": "none", "sigmoid": False})
    config.loss = ConfigDict(
        {
            "image": {"l1": 1.0, "l2": 0.0, "dssim": 0.0},  # weights
            "kspace": {"l1": 0.0, "l2": 0.0},  # likewise, of what data.held_out holds out
            "perceptual": 1e-4,
            "perceptual_layers": ("relu5_1",),
            "vgg19": "",  # path of VGG19 weights; without one the perceptual term is off
            "adversarial": 1e-6,
            "gradient_penalty": 10.0,
            "mentor": 0.0,  # times the loss of images or k-space, of the mentor's image
        }
    )
    config.data = ConfigDict(
        {
            "train": "",  # a prepared set, or files and folders separated by commas
            "validation": "",
            "batch_size": 4,
            "crop": (128, 128),  # phase encoding, readout
            "augmentation": {
                "flips": True,
                "quarter_turns": False,
                "max_angle": 0.0,  # degrees
                "phase": True,
                "intensity": 0.0,  # relative
            },
            "mask_kinds": ("variable_density", "uniform"),
            "accelerations": (6.0, 10.0),
            "acs": 8,
            # central lines that coil maps for training come from, if files have none; 0: acs. Masks
            # that change from frame to frame measure more of them than their acs
            "calibration_lines": 0,
            "simulation": {  # of k-space from magnitude images
                "n_coils": (8, 8),  # least and most, drawn for each cine
                "noise": 0.005,  # of the 99th percentile
                "seed": 0,
                "single_coil_share": 0.0,  # of cines that have one coil instead
            },
            "virtual_coils": 0,  # most coils of files, compressed if they have more; 0: all
            # coil maps of files without, or what those of a prepared set are; or "adaptive"
            "sens": "espirit",
            "sens_cache": "",  # folder that keeps those maps for the next run
            "input_fill": "zero",  # or another of data/filling
            # share of what was measured that the network is not given but trained to predict, with
            # no reference; takes undersampled files, too
            "held_out": 0.0,
            "circular": True,  # False: real-time cines, whose ends are not neighbours
            # most shapes of batches, each of which is compiled; more where undersampled scans have
            # different rows
            "n_buckets": 4,
            "worker_count": 0,  # a run keeps its number
            "validation_frames": _or_none(4),  # the first ones of each of these slices; None: all
            "validation_slices": _or_none(8),
        }
    )
    config.optimizer = ConfigDict(
        {
            "learning_rate": 1e-4,
            "schedule": "cosine",  # or "constant", "multistep"
            "warmup": 500,
            "milestones": (0.8,),  # of "multistep", as shares of n_steps
            "decay": 0.1,  # of the rate at each milestone
            "clip_norm": _or_none(1.0),  # None: no limit
            # of layers that predict offsets, at full, half and quarter resolution
            "offset_rates": _or_none(None),
        }
    )
    config.critic_optimizer = ConfigDict(
        {
            "learning_rate": 1e-4,
            "schedule": "cosine",
            "warmup": 0,
            "milestones": (0.8,),
            "decay": 0.1,
        }
    )
    config.train = ConfigDict(
        {
            "n_steps": 200_000,
            # checkpoint whose weights a new run begins with, or "pretrained"; its weights for
            # fixed masks, where it has some and masks are the same in all frames
            "start_from": "",
            "vgg_encoder": "",  # VGG19 weights that the frame encoder of a new run begins with
            "log_every": 50,
            "checkpoint_every": 500,
            "eval_every": 2000,
            "ema_decay": 0.999,
            "n_critic": 1,  # updates of the critic a step
            "accumulation": 1,  # parts of a batch whose gradients are added up
            "frozen": (),  # parts of the network not trained: "frame_encoder"
            "platform": "",  # "cpu", "gpu" or "tpu"; "": whatever there is
            "model_parallel": 1,  # devices that share a copy of a wide network
            "seed": 0,
            "tensorboard": True,  # if tensorboardX is installed
        }
    )
    config.profile = False  # True: jax.profiler's trace of a few steps, in WORKDIR/profile
    return config


def _or_none(value: Any) -> FieldReference:
    """A field that the command line can set to ``None``, or from ``None`` to something."""
    return FieldReference(value, field_type=object)


def _released(config: Any) -> None:
    config.model.update(
        rect_window=((8, 8), (8, 8), (8, 8)),
        zero_offsets=(True, False, False),
        encoder="released",
        tie_weights=True,
        search_radius=None,
        warp_flow="corner",
        consistency="none",
        denoiser_norm="batch",
        weight_init="normal",
    )
    config.critic.update(norm="batch", sigmoid=True)
    config.optimizer.update(
        learning_rate=1e-3,
        schedule="multistep",
        warmup=0,
        clip_norm=None,
        offset_rates=(1e-3, 1e-5, 1e-6),
    )
    config.critic_optimizer.update(schedule="multistep")
    config.train.update(n_steps=500_000, frozen=("frame_encoder",))


def _tiny(config: Any) -> None:
    config.model.update(
        channels=(16, 32, 64),
        n_heads=2,
        n_groups=1,
        n_blocks=2,
        drop_path=0.0,
        window=4,
        rect_window=((80, 2), (40, 4), (20, 4)),  # as tall as the image: aliases lie far apart
        n_offset_groups=1,
        denoiser_channels=32,
        consistency="soft",  # with "cg", of several coils: see benchmarks/README.md
        solver="cg",
        remat=False,
    )
    config.critic.update(width=8, hidden=64)
    config.loss.update(perceptual=0.0, adversarial=0.0, mentor=0.5)
    config.data.update(
        batch_size=1,
        crop=(80, 32),
        mask_kinds=("uniform_aligned",),
        accelerations=(4.0,),
        validation_frames=4,
        validation_slices=2,
    )
    config.optimizer.update(learning_rate=2e-3, warmup=20)
    config.train.update(
        n_steps=220, log_every=10, checkpoint_every=110, eval_every=220, ema_decay=0.99
    )
