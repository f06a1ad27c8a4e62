"""Configurations that cannot work, and the one line that says so."""

import math
import sys
from pathlib import Path

import pytest
from absl import flags
from ml_collections import config_flags

from configs import self_supervised, swinir, varnet
from configs.kgmgt import get_config
from kgmgt_jax.training.checks import check_config


@pytest.mark.parametrize("variant", ["base", "released", "tiny"])
def test_variants_pass(variant):
    check_config(get_config(variant))


@pytest.mark.parametrize("variant", ["base", "released", "tiny", "pretrained"])
def test_variants_without_references_pass(variant):
    check_config(self_supervised.get_config(variant))


def test_other_variants_without_references_are_refused():
    with pytest.raises(ValueError, match=r"variants are base, .* pretrained, got 'kt_first'"):
        self_supervised.get_config("kt_first")


@pytest.mark.parametrize(
    ("section", "fields", "message"),
    [
        (
            "train",
            {"start_from": "pretrained", "vgg_encoder": "vgg.npz"},
            "vgg_encoder: expected '' beside train.start_from, got 'vgg.npz'",
        ),
        ("model", {"n_heads": 3}, "n_heads.*must divide.*'n_heads': 3, 'width': 16"),
        ("model", {"n_blocks": 3}, "n_blocks: expected an even number.* got 3"),
        ("model", {"n_offset_groups": 3}, "'n_offset_groups': 3"),
        ("model", {"dtype": "float16"}, "one of.*bfloat16.*got 'float16'"),
        ("model", {"window": 5}, "window must be even, got 5"),
        ("model", {"rect_window": ((8, 8),)}, "three scales"),
        ("model", {"attention": "none"}, "attention must be.*got 'none'"),
        ("model", {"channels": (64, 128)}, r"channels: expected one for each.*\(64, 128\)"),
        ("model", {"channels": ()}, r"channels: expected one for each of three scales, got \(\)"),
        ("model", {"channels": (64, 128, 0)}, "channels: expected 1 or more"),
        ("model", {"zero_offsets": (True,)}, r"zero_offsets: expected one for each.*\(True,\)"),
        ("model", {"n_heads": 0}, "n_heads: expected 1 or more, got 0"),
        ("model", {"n_offset_groups": 0}, "n_offset_groups: expected 1 or more, got 0"),
        ("model", {"n_iterations": 0}, "n_iterations: expected 1 or more, got 0"),
        ("model", {"window": -4}, "window: expected 1 or more, got -4"),
        ("model", {"rect_window": (16, 4, 8)}, r"three scales.*got \(16, 4, 8\)"),
        ("model", {"rect_window": ((0, 4),) * 3}, r"even sides above 0, got \(0, 4\)"),
        ("model", {"search_radius": -1}, "radius: expected 0 or more quarter-res.*None.*got -1"),
        ("model", {"search_radius": "all"}, "search_radius: expected 0 or more.*got 'all'"),
        ("model", {"drop_path": 1.0}, "drop_path: expected a rate from 0 to below 1, got 1.0"),
        ("model", {"solver": "cg"}, "solver='cg'.*needs consistency='soft', got 'hard'"),
        ("model", {"channels": ("a", 8, 8)}, r"channels: expected whole numbers, got \('a', 8"),
        ("model", {"rect_window": ((8, 4.0),) * 3}, "rect_window: expected whole numbers, got"),
        ("data", {"crop": ()}, r"data.crop: expected rows and columns.*got \(\)"),
        ("data", {"calibration_lines": 2}, "calibration_lines: expected 4 or more, or 0"),
        ("data", {"virtual_coils": 1}, "virtual_coils: expected 2 or more, or 0 for all coils"),
        ("data", {"crop": (32, "a")}, r"crop: expected whole numbers or None, got \(32, 'a'\)"),
        ("data", {"accelerations": ("a",)}, r"accelerations: expected numbers, got \('a',\)"),
        ("data", {"mask_kinds": (4,)}, r"mask_kinds: expected names, got \(4,\)"),
        ("data", {"simulation": {"n_coils": (1.5, 4)}}, r"n_coils: expected whole numbers, got"),
        ("data", {"simulation": {"single_coil_share": 2.0}}, r"data\.simulation: .*got 2\.0"),
        ("data", {"augmentation": {"max_angle": 200.0}}, r"data\.augmentation: .*max_angle=200"),
        ("critic", {"norm": "layer"}, "critic.norm: expected 'none' or 'batch', got 'layer'"),
        ("optimizer", {"decay": math.inf}, "optimizer.decay: expected a positive factor, got inf"),
        ("optimizer", {"milestones": ("a",)}, "optimizer.milestones: expected numbers, got"),
        ("optimizer", {"learning_rate": math.nan}, "a positive learning_rate.*nan"),
        ("loss", {"gradient_penalty": math.inf}, "gradient_penalty: expected a weight.*got inf"),
        ("loss", {"image": {"l2": -1.0}}, "loss.image.l2: expected a weight of 0 or more, got -1"),
        (
            "loss",
            {"image": {"l1": 0.0}},
            "loss.image: expected a weight above 0 with data",
        ),
        (
            "loss",
            {"kspace": {"l2": -1.0}},
            "kspace.l2: expected a weight of 0 or more, got -1",
        ),
        (
            "loss",
            {"kspace": {"l1": 1.0}},
            "kspace: expected weights of 0 with data.held_out=0",
        ),
        ("data", {"held_out": 1.0}, "data.held_out: expected a share from 0 to below 1, got 1.0"),
        (
            "data",
            {"held_out": 0.4},
            "kspace: expected a weight above 0 with data.held_out",
        ),
        ("loss", {"mentor": math.nan}, "loss.mentor: expected a weight.*got nan"),
        ("train", {"ema_decay": -1.0}, "ema_decay: expected a share from 0 to 1, got -1.0"),
        ("train", {"seed": 2**32}, r"train.seed: expected less than 2\^32, got 4294967296"),
        ("train", {"seed": -1}, "train.seed: expected 0 or more, got -1"),
        ("critic", {"width": 0}, "critic.width: expected 1 or more, got 0"),
        ("loss", {"adversarial": -1.0}, "loss.adversarial: expected a weight"),
        ("loss", {"perceptual_layers": ()}, r"perceptual_layers: expected some of.*got \(\)"),
        ("loss", {"perceptual_layers": ("relu6_1",)}, "perceptual_layers.*relu6_1"),
        ("optimizer", {"schedule": "step"}, "one of.*'multistep'.*, got 'step'"),
        ("critic_optimizer", {"schedule": "step"}, "critic_optimizer.schedule.*got 'step'"),
        ("optimizer", {"learning_rate": 0.0}, "positive learning_rate"),
        ("optimizer", {"milestones": (400_000.0,)}, "shares of n_steps between 0 and 1"),
        ("optimizer", {"offset_rates": (1e-3,)}, "three learning rates"),
        ("optimizer", {"offset_rates": 1e-3}, "three learning rates.*got 0.001"),
        ("optimizer", {"clip_norm": 0}, "clip_norm: expected a positive norm, or None.*got 0"),
        ("optimizer", {"clip_norm": -1.0}, "clip_norm: expected a positive norm"),
        ("data", {"validation_frames": 0}, "validation_frames: expected 1 or more, or None"),
        ("data", {"validation_slices": 0}, "validation_slices: expected 1 or more, or None"),
        ("train", {"eval_every": 0}, "train.eval_every: expected 1 or more, got 0"),
        ("train", {"log_every": 0}, "train.log_every: expected 1 or more, got 0"),
        ("train", {"checkpoint_every": 0}, "train.checkpoint_every: expected 1 or more, got 0"),
        ("train", {"n_critic": 0}, "train.n_critic: expected 1 or more, got 0"),
        ("train", {"accumulation": 3}, "'accumulation': 3, 'batch_size': 4"),
        ("train", {"platform": "cuda12"}, "one of.*'gpu'.*got 'cuda12'"),
        ("train", {"frozen": ("encoder",)}, "'frame_encoder'.*got.*'encoder'"),
    ],
)
def test_impossible_values_are_refused_in_one_line(section, fields, message):
    config = get_config("base")
    config[section].update(fields)
    with pytest.raises(ValueError, match=message) as caught:
        check_config(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("image", "loss.image: expected weights of 0 with data.held_out=0.4, which does not use"),
        ("perceptual", "loss.perceptual: expected 0 with data.held_out: there is no reference"),
        ("adversarial", "loss.adversarial: expected 0 with data.held_out: there is no reference"),
    ],
)
def test_without_references_no_loss_needs_one(name, message):
    config = self_supervised.get_config("tiny")
    check_config(config)
    config.loss[name] = {"l1": 1.0} if name == "image" else 0.1
    with pytest.raises(ValueError, match=message):
        check_config(config)


@pytest.mark.parametrize("n_pools", [-1, 40])
def test_numbers_of_scales_that_no_image_has_are_refused(n_pools):
    config = varnet.get_config("tiny")
    config.model.n_pools = n_pools
    with pytest.raises(
        ValueError, match=rf"config\.model\.n_pools: expected 0 to 10, got {n_pools}"
    ):
        check_config(config)


def test_stochastic_depth_of_comparators_is_a_rate():
    config = swinir.get_config("tiny")
    config.model.drop_path = 1.0
    with pytest.raises(ValueError, match="drop_path: expected a rate from 0 to below 1"):
        check_config(config)


@pytest.mark.parametrize("section", ["model", "critic", "optimizer", "critic_optimizer"])
def test_unknown_fields_are_named(section):
    config = get_config("base")
    with config[section].unlocked():
        config[section].typo = 1
    with pytest.raises(ValueError, match=r"unknown fields.*\['typo'\]"):
        check_config(config)


@pytest.mark.parametrize(
    ("variant", "field", "text", "value"),
    [
        ("tiny", "model.rect_window", "None", None),
        ("tiny", "model.search_radius", "None", None),
        ("released", "model.search_radius", "4", 4),
        ("released", "optimizer.clip_norm", "1.0", 1.0),
        ("base", "optimizer.clip_norm", "None", None),
        ("base", "optimizer.offset_rates", "(1e-3,1e-5,1e-6)", (1e-3, 1e-5, 1e-6)),
        ("base", "data.validation_slices", "None", None),
        ("base", "data.calibration_lines", "4", 4),
    ],
)
def test_the_command_line_sets_none_and_from_none(variant, field, text, value):
    values = flags.FlagValues()
    default = f"configs/kgmgt.py:{variant}"
    path = Path(__file__).parents[2] / default
    argv = ["train.py", f"--config={path}", f"--config.{field}={text}"]
    with pytest.MonkeyPatch.context() as patch:  # ml_collections reads it as it defines the flag
        patch.setattr(sys, "argv", argv)
        config_flags.DEFINE_config_file("config", flag_values=values)
        values(argv)
    section, name = field.split(".")
    assert values.config[section][name] == value
    check_config(values.config)
