"""A configuration that cannot work is refused in one line, before anything is compiled."""

import functools
import itertools
import math
import operator
from collections.abc import Iterable, Mapping
from inspect import signature
from typing import Any

import numpy as np

from kgmgt_jax.data.augmentation import Augmentation
from kgmgt_jax.data.filling import INPUT_FILLS
from kgmgt_jax.data.simulation import Simulation
from kgmgt_jax.losses import IMAGE_LOSSES, KSPACE_LOSSES
from kgmgt_jax.models.baselines.swinir import SwinIR
from kgmgt_jax.models.block_options import BlockOptions
from kgmgt_jax.models.critic import Critic
from kgmgt_jax.models.encoder import VGG19_LAYERS
from kgmgt_jax.models.enforcement import check_consistency
from kgmgt_jax.models.kgmgt import KGMgT
from kgmgt_jax.models.layers import Layers
from kgmgt_jax.models.registry import DEFAULT, build_model, freeze
from kgmgt_jax.mri.coils import MIN_CALIBRATION_LINES, SENS_OPTIONS
from kgmgt_jax.training.optimizer import SCHEDULES, make_optimizer, make_schedule
from kgmgt_jax.training.parallel import PLATFORMS

__all__ = ["check_config"]

_DTYPES = ("float32", "bfloat16")
_PARTS = ("frame_encoder", "mentor_net", "learner_net")
_COUNTS = {  # fields of networks and critic that count something
    "channels",
    "denoiser_channels",
    "hidden",
    "mlp_ratio",
    "n_blocks",
    "n_cascades",
    "n_cg",
    "n_groups",
    "n_heads",
    "n_iterations",
    "n_offset_groups",
    "width",
    "window",
}

_WHOLE, _NUMBERS, _NAMES = (int,), (int, float), (str,)
_ELEMENTS = {  # of fields that are tuples, in which the command line takes anything
    "model.channels": _WHOLE,
    "model.rect_window": _WHOLE,
    "data.crop": (int, type(None)),
    "data.mask_kinds": _NAMES,
    "data.accelerations": _NUMBERS,
    "data.simulation.n_coils": _WHOLE,
    "optimizer.milestones": _NUMBERS,
    "optimizer.offset_rates": _NUMBERS,
    "critic_optimizer.milestones": _NUMBERS,
}
_WORDS = {_WHOLE: "whole numbers", _NUMBERS: "numbers", _NAMES: "names"}


def check_config(config: Any) -> None:
    """Refuses a configuration whose network, losses, optimisers or steps cannot be built.

    Args:
        config: a whole configuration, as ``configs/kgmgt.py`` makes it.

    Raises:
        ValueError: in one line, which field, what was expected, and what came.
    """
    _check_elements(config)
    model = _check_network(config.model)
    _check_fields("critic", config.critic, Critic.__dataclass_fields__)
    _check_counts("critic", config.critic)
    if config.critic.get("norm", "none") not in ("none", "batch"):
        _refuse("critic.norm", "'none' or 'batch'", config.critic.norm)
    _check_loss(config.loss, config.data.held_out)
    if not isinstance(model, KGMgT):
        _check_unguided(config)
    for name in ("optimizer", "critic_optimizer"):
        _check_optimizer(name, config[name])
    _check_steps(config.train, config.data.batch_size)
    _check_data(config.data)
    parts = _PARTS if isinstance(model, KGMgT) else ()
    if not set(config.train.frozen) <= set(parts):
        _refuse("train.frozen", f"some of {parts}", config.train.frozen)


def _refuse(field: str, expected: str, got: Any) -> None:
    raise ValueError(f"config.{field}: expected {expected}, got {got!r}")


def _check_fields(section: str, fields: Mapping[str, Any], known: Iterable[str]) -> None:
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise ValueError(f"config.{section}: unknown fields {unknown}; known are {sorted(known)}")


def _check_elements(config: Any) -> None:
    for name, kinds in _ELEMENTS.items():
        section, *inner, field = name.split(".")
        fields = functools.reduce(operator.getitem, inner, config[section])
        values = fields.get(field)
        if not isinstance(values, tuple):
            continue
        flat = itertools.chain(*(v if isinstance(v, tuple) else (v,) for v in values))
        if not all(isinstance(v, kinds) and not isinstance(v, bool) for v in flat):
            _refuse(name, _WORDS.get(kinds, "whole numbers or None"), values)


def _check_counts(section: str, fields: Any) -> None:
    for name in sorted(_COUNTS & set(fields)):
        counts = fields[name] if isinstance(fields[name], tuple) else (fields[name],)
        if min(counts) < 1:
            _refuse(f"{section}.{name}", "1 or more", fields[name])


def _check_network(fields: Any) -> Any:
    """The network, if it can be built."""
    if fields.get("network", DEFAULT) == DEFAULT:
        _check_scales(fields)
    _check_counts("model", fields)
    if not 0 <= fields.get("n_pools", 0) <= 10:
        _refuse("model.n_pools", "0 to 10", fields.n_pools)
    model = build_model(fields.to_dict())
    if fields.get("dtype") not in (None, *_DTYPES):
        _refuse("model.dtype", f"one of {_DTYPES}", fields.dtype)
    if isinstance(model, KGMgT):
        _check_kgmgt(model)
    if isinstance(model, KGMgT | SwinIR):
        if model.n_blocks % 2:
            _refuse("model.n_blocks", "an even number (shifts alternate)", model.n_blocks)
        if not 0 <= model.drop_path < 1:
            _refuse("model.drop_path", "a rate from 0 to below 1", model.drop_path)
    try:
        if "weight_init" in fields:
            Layers(weight_init=fields.weight_init)
        if "consistency" in fields:
            check_consistency(model.consistency, model.solver)
        if isinstance(model, SwinIR):
            model.options()
        if isinstance(model, KGMgT):
            _check_blocks(model)
    except ValueError as error:
        raise ValueError(f"config.model: {error}") from error
    return model


def _check_scales(fields: Any) -> None:
    """What the command line may give another shape than KGMgT needs."""
    for name in sorted({"channels", "zero_offsets"} & set(fields)):
        if isinstance(fields[name], tuple) and len(fields[name]) != 3:
            _refuse(f"model.{name}", "one for each of three scales", fields[name])
    windows = fields.get("rect_window")
    by_scale = isinstance(windows, tuple) and [np.shape(w) for w in windows] == [(2,)] * 3
    if windows is not None and not by_scale:
        _refuse("model.rect_window", "a (height, width) for each of three scales, or None", windows)
    radius = fields.get("search_radius")
    if radius is not None and not (isinstance(radius, int) and radius >= 0):
        expected = "0 or more quarter-resolution pixels, or None for the whole image"
        _refuse("model.search_radius", expected, radius)


def _check_kgmgt(model: KGMgT) -> None:
    if any(c % model.n_offset_groups for c in model.channels):
        got = {"channels": model.channels, "n_offset_groups": model.n_offset_groups}
        _refuse("model.n_offset_groups", "a divisor of all channels", got)


def _check_blocks(model: KGMgT) -> None:
    for window in model.rect_window or (None,):
        BlockOptions(
            width=model.width,
            n_heads=model.n_heads,
            window=model.window,
            rect_window=window,
            square_window=model.square_window,
            attention=model.attention,
            mlp_ratio=model.mlp_ratio,
        )


def _check_unguided(config: Any) -> None:
    """What only KGMgT has: a mentor, and layers that predict offsets."""
    if config.loss.mentor:
        _refuse("loss.mentor", "0 for a network without a mentor", config.loss.mentor)
    rates = config.optimizer.offset_rates
    if rates is not None:
        _refuse("optimizer.offset_rates", "None for a network without offset layers", rates)


def _check_loss(loss: Any, held_out: float) -> None:
    _check_fields("loss.image", loss.image, IMAGE_LOSSES)
    _check_fields("loss.kspace", loss.kspace, KSPACE_LOSSES)
    others = ("perceptual", "adversarial", "gradient_penalty", "mentor")
    weights = {name: loss[name] for name in others}
    for section in ("image", "kspace"):
        weights |= {f"{section}.{name}": weight for name, weight in loss[section].items()}
    for name, weight in weights.items():
        if not 0 <= weight < math.inf:
            _refuse(f"loss.{name}", "a weight of 0 or more", weight)
    if not 0 <= held_out < 1:
        _refuse("data.held_out", "a share from 0 to below 1", held_out)
    used, unused = ("kspace", "image") if held_out else ("image", "kspace")
    if not any(loss[used].values()):
        _refuse(f"loss.{used}", f"a weight above 0 with data.{held_out=}", loss[used].to_dict())
    if any(loss[unused].values()):
        expected = f"weights of 0 with data.{held_out=}, which does not use them"
        _refuse(f"loss.{unused}", expected, loss[unused].to_dict())
    for name in ("perceptual", "adversarial"):
        if held_out and loss[name]:
            _refuse(f"loss.{name}", "0 with data.held_out: there is no reference", loss[name])
    known = [name.replace("conv", "relu") for name in VGG19_LAYERS]
    layers = set(loss.perceptual_layers)
    if loss.perceptual and not (layers and layers <= set(known)):
        _refuse("loss.perceptual_layers", f"some of {known}", loss.perceptual_layers)


def _check_data(data: Any) -> None:
    """What would only be found with the first batch, or with the first validation."""
    for name, known in (("sens", tuple(SENS_OPTIONS)), ("input_fill", INPUT_FILLS)):
        if data[name] not in known:
            _refuse(f"data.{name}", f"one of {known}", data[name])
    if np.shape(data.crop) != (2,):
        _refuse("data.crop", "rows and columns, or None for all of them", data.crop)
    if data.calibration_lines and data.calibration_lines < MIN_CALIBRATION_LINES:
        expected = f"{MIN_CALIBRATION_LINES} or more, or 0 for those of acs"
        _refuse("data.calibration_lines", expected, data.calibration_lines)
    if data.virtual_coils < 0 or data.virtual_coils == 1:
        _refuse("data.virtual_coils", "2 or more, or 0 for all coils", data.virtual_coils)
    for name, make in (("simulation", Simulation), ("augmentation", Augmentation)):
        try:
            make(**freeze(data[name]))
        except ValueError as error:
            raise ValueError(f"config.data.{name}: {error}") from error
    for name in ("validation_frames", "validation_slices"):
        if data[name] is not None and not (isinstance(data[name], int) and data[name] >= 1):
            _refuse(f"data.{name}", "1 or more, or None for all", data[name])


def _check_optimizer(section: str, fields: Any) -> None:
    known = {*signature(make_schedule).parameters, *signature(make_optimizer).parameters}
    _check_fields(section, fields, known - {"n_steps"})
    if fields.schedule not in SCHEDULES:
        _refuse(f"{section}.schedule", f"one of {SCHEDULES}", fields.schedule)
    if not 0 < fields.learning_rate < math.inf or fields.warmup < 0:
        got = {"learning_rate": fields.learning_rate, "warmup": fields.warmup}
        _refuse(section, "a positive learning_rate and a warmup of 0 or more steps", got)
    shares = tuple(fields.milestones)
    if sorted(shares) != list(shares) or any(not 0 < share < 1 for share in shares):
        _refuse(f"{section}.milestones", "rising shares of n_steps between 0 and 1", shares)
    if not 0 < fields.get("decay", 1) < math.inf:
        _refuse(f"{section}.decay", "a positive factor", fields.decay)
    norm = fields.get("clip_norm")
    if norm is not None and not (isinstance(norm, int | float) and norm > 0):
        _refuse(f"{section}.clip_norm", "a positive norm, or None for no limit", norm)
    rates = fields.get("offset_rates")
    if rates is not None and (np.shape(rates) != (3,) or min(rates) < 0):
        _refuse(f"{section}.offset_rates", "three learning rates (full, half, quarter)", rates)


def _check_steps(train: Any, batch_size: int) -> None:
    least = {"seed": 0, "n_steps": 0, "n_critic": 1, "accumulation": 1, "model_parallel": 1}
    least |= {"log_every": 1, "eval_every": 1, "checkpoint_every": 1}
    for name, bound in least.items():
        if train[name] < bound:
            _refuse(f"train.{name}", f"{bound} or more", train[name])
    if train.seed >= 2**32:
        _refuse("train.seed", "less than 2^32", train.seed)
    if not 0 <= train.ema_decay <= 1:
        _refuse("train.ema_decay", "a share from 0 to 1", train.ema_decay)
    if batch_size % train.accumulation:
        got = {"accumulation": train.accumulation, "batch_size": batch_size}
        _refuse("train.accumulation", "a divisor of config.data.batch_size", got)
    if train.start_from and train.vgg_encoder:
        _refuse("train.vgg_encoder", "'' beside train.start_from", train.vgg_encoder)
    if train.platform not in ("", *PLATFORMS):
        _refuse("train.platform", f"one of {PLATFORMS}, or '' for any", train.platform)
