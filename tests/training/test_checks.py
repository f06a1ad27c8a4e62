"""Configurations that cannot work, and the one line that says so."""

import pytest

from configs.kgmgt import get_config
from kgmgt_jax.training.checks import check_config
from kgmgt_jax.training.weights import build_model


@pytest.mark.parametrize("variant", ["base", "released", "tiny"])
def test_variants_pass(variant):
    check_config(get_config(variant))


@pytest.mark.parametrize(
    ("section", "fields", "message"),
    [
        ("model", {"n_heads": 3}, "n_heads.*must divide.*'n_heads': 3, 'width': 16"),
        ("model", {"n_blocks": 3}, "n_blocks: expected an even number.* got 3"),
        ("model", {"n_offset_groups": 3}, "'n_offset_groups': 3"),
        ("model", {"dtype": "float16"}, "one of.*bfloat16.*got 'float16'"),
        ("model", {"window": 5}, "window must be even, got 5"),
        ("model", {"rect_window": ((8, 8),)}, "three scales"),
        ("model", {"attention": "none"}, "attention must be.*got 'none'"),
        ("loss", {"adversarial": -1.0}, "loss.adversarial: expected a weight"),
        ("loss", {"perceptual_layers": ("relu6_1",)}, "perceptual_layers.*relu6_1"),
        ("optimizer", {"schedule": "step"}, "one of.*'multistep'.*, got 'step'"),
        ("critic_optimizer", {"schedule": "step"}, "critic_optimizer.schedule.*got 'step'"),
        ("optimizer", {"learning_rate": 0.0}, "positive learning_rate"),
        ("optimizer", {"milestones": (400_000.0,)}, "shares of n_steps between 0 and 1"),
        ("optimizer", {"offset_rates": (1e-3,)}, "three learning rates"),
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


@pytest.mark.parametrize("section", ["model", "critic", "optimizer", "critic_optimizer"])
def test_unknown_fields_are_named(section):
    config = get_config("base")
    with config[section].unlocked():
        config[section].typo = 1
    with pytest.raises(ValueError, match=r"unknown fields.*\['typo'\]"):
        check_config(config)


def test_a_window_switched_off_on_the_command_line_is_off():
    config = get_config("tiny")
    config.model.rect_window = (None,)  # what ml_collections makes of =None
    check_config(config)
    assert build_model(config.model).rect_window is None
