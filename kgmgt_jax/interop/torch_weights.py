"""Weights of the PyTorch release to a checkpoint, and back::

    python -m kgmgt_jax.interop.torch_weights net_g_500000.pth --extractor F.pth --vgg19 V.pth \
        --out CKPT
    python -m kgmgt_jax.interop.torch_weights --to-torch CKPT --out net_g.pth [--extractor F.pth] ..

The checkpoint serves ``eval.py`` and ``reconstruct.py``; its network is the variant ``released``.
That network is whole with its two matching extractors and with its VGG19, whose first convolution
has two channels, is random, and is in no VGG19 file: without one of these files, or with a VGG19
of three input channels, nothing is written. ``--allow-partial`` writes all the same: arrays that
are missing or of another shape start as in training, but for a first convolution of three
channels, which becomes one of two (``vgg.two_channel_kernel``).
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util

from kgmgt_jax.commands import guarded
from kgmgt_jax.interop.released import PARTS, RELEASED, default_buffer, template
from kgmgt_jax.interop.state_files import check_suffix, read_state_dict, write_state_dict
from kgmgt_jax.interop.torch_names import Entry, from_state_dict, to_state_dict
from kgmgt_jax.interop.vgg import two_channel_kernel, vgg_names
from kgmgt_jax.models.registry import DEFAULT
from kgmgt_jax.training.weights import CheckpointError, load_item, load_weights, save_weights

__all__ = ["from_torch", "main", "to_torch"]

_SHOWN = 12  # names of a kind in an error message
_VGG_PREFIX = "vgg.vgg_net."
_FIRST = f"{_VGG_PREFIX}conv1_1.weight"


def _read_part(name: str, path: str | Path) -> dict[str, np.ndarray]:
    """A file's arrays by released name; of a VGG19 the convolutions that the network uses."""
    arrays = read_state_dict(path)
    if name != "vgg19":
        return arrays
    used = PARTS[name].keys
    renamed = {_VGG_PREFIX + key: value for key, value in vgg_names(path, arrays).items()}
    other = {k: v for k, v in arrays.items() if "classifier." not in k}
    rest = {k: v for k, v in other.items() if not vgg_names(path, {k: v})}
    return {k: v for k, v in renamed.items() if k in used} | rest


def _problem(value: np.ndarray, want: tuple[int, ...]) -> str | None:
    """What keeps an array from being a parameter of shape ``want``, in a word or two."""
    if value.shape != want:
        return f"{value.shape} not {want}"
    if value.dtype.kind != "f":
        return f"{value.dtype} not float32"
    return None if np.all(np.isfinite(value)) else "not finite"


def _listed(kind: str, names: Sequence[str]) -> list[str]:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return [f"{kind}: {', '.join(names[:_SHOWN])}{more}"] if names else []


def _sort(
    arrays: Mapping[str, np.ndarray], start: Mapping[str, np.ndarray], parts: Sequence[str]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], list[str]]:
    """Parameters that fit, buffers, and lines on what is unknown, missing or misshapen."""
    fit, buffers, unknown, misshapen = {}, {}, [], []
    buffer_names = {key for name in parts for key in PARTS[name].buffers}
    for key, value in arrays.items():
        if key in buffer_names:
            buffers[key] = value
            if key.endswith("_index") and not np.array_equal(value, default_buffer(key)):
                misshapen.append(f"{key} of another window")
        elif key not in start:
            unknown.append(key)
        elif (problem := _problem(value, start[key].shape)) is None:
            fit[key] = np.asarray(value, np.float32)
        else:
            misshapen.append(f"{key} {problem}")
    missing = []
    for name in parts:
        absent = [entry.key for entry in PARTS[name].entries if entry.key not in arrays]
        whole = len(absent) == len(PARTS[name].entries)
        missing += [f"the whole {name} ({absent[0]} .. {absent[-1]})"] if whole else absent
    lines = [
        *_listed("unknown", unknown),
        *_listed("missing", missing),
        *_listed("misshapen", misshapen),
    ]
    return fit, buffers, lines


def from_torch(
    files: Mapping[str, str | Path], out: str | Path, *, allow_partial: bool = False
) -> list[str]:
    """Writes a checkpoint of the released network from its PyTorch files.

    Args:
        files: by part of the network (``generator``, ``extractor``, ``vgg19``, ``critic``) its file
            (see ``state_files.read_state_dict``). Without a critic the checkpoint has none.
        out: folder to be made.
        allow_partial: write although arrays are unknown (left out), missing or misshapen (they
            start as in training).

    Returns:
        Lines on what did not fit; empty unless ``allow_partial``.

    Raises:
        ValueError: if a file cannot be read, or the arrays do not fit.
    """
    where = ", ".join(map(str, files.values()))
    if Path(out).exists():
        raise CheckpointError(f"{out}: expected a folder yet to be made, got one that is there")
    parts = [name for name in PARTS if name != "critic" or "critic" in files]
    arrays = {}
    for name, path in files.items():
        found = _read_part(name, path)
        if twice := sorted(arrays.keys() & found.keys()):
            raise ValueError(
                f"{path}: expected names of its own, got some of another file: {twice[:_SHOWN]}"
            )
        arrays |= found
    entries = [entry for name in parts for entry in PARTS[name].entries]
    start = to_state_dict(entries, template())
    fit, buffers, lines = _sort(arrays, start, parts)
    if not fit:
        raise ValueError(f"{where}: expected a state dict of KGMgT, got {list(arrays)[:_SHOWN]}")
    if lines and not allow_partial:
        hint = (
            "--extractor and --vgg19 name the files of these parts; --allow-partial writes anyway"
        )
        raise ValueError(f"{where}: expected the released network, got {'; '.join(lines)} ({hint})")
    if _FIRST in arrays and _problem(arrays[_FIRST], (64, 3, 3, 3)) is None:
        fit[_FIRST] = two_channel_kernel(arrays[_FIRST].astype(np.float32))
    _save(out, entries, start | fit, buffers, lines)
    return lines


def _save(
    out: str | Path,
    entries: Sequence[Entry],
    arrays: Mapping[str, np.ndarray],
    buffers: Mapping[str, np.ndarray],
    notes: Sequence[str],
) -> None:
    variables = from_state_dict(list(entries), arrays)
    critic = {c: tree.pop("critic") for c, tree in variables.items() if "critic" in tree}
    items = {"critic": critic} if critic else {}
    if buffers:
        flat = {tuple(key.split(".")): value for key, value in buffers.items()}
        items["torch_buffers"] = traverse_util.unflatten_dict(flat)
    config = {"model": RELEASED, "data": {"circular": True}, "imported_with": list(notes)}
    save_weights(out, config, variables, **items)


def _shapes(tree: Mapping) -> dict[tuple[str, ...], tuple[int, ...]]:
    leaves: Any = traverse_util.flatten_dict(tree)
    return {path: np.shape(leaf) for path, leaf in leaves.items()}


def to_torch(checkpoint: str | Path, files: Mapping[str, str | Path]) -> None:
    """Writes PyTorch state dicts from a checkpoint of the released network.

    Buffers that came with an import go back as they came; others are computed, ``attn_mask`` for
    the release's training size of 160.

    Args:
        checkpoint: a training workdir or one checkpoint.
        files: by part (``generator``, ``extractor``, ``vgg19``, ``critic``) the file to write.

    Raises:
        ValueError: if the checkpoint is unreadable, of another network or without the critic that
            is asked for, for a suffix that is no format, or for one file for two parts.
    """
    for path in files.values():
        check_suffix(path)
    if len({Path(path).absolute() for path in files.values()}) < len(files):
        where = ", ".join(map(str, files.values()))
        raise ValueError(f"{where}: expected a file of its own for each part, got one twice")
    config, variables = load_weights(checkpoint)
    network = config.get("model", {}).get("network", DEFAULT)
    critic = load_item(checkpoint, "critic") if "critic" in files else None
    if "critic" in files and critic is None:  # a training's own has no such item
        raise CheckpointError(
            f"{checkpoint}: expected a checkpoint that was imported with a critic, got one "
            "without; leave out --critic"
        )
    tree = {c: {**variables[c], **({"critic": critic[c]} if critic else {})} for c in variables}
    buffers = load_item(checkpoint, "torch_buffers") or {}
    kept = {".".join(k): np.asarray(v) for k, v in traverse_util.flatten_dict(buffers).items()}
    have, want = _shapes(tree), _shapes(template())
    whole = {}
    for name, path in files.items():
        entries = list(PARTS[name].entries)
        wrong = [".".join(e.path) for e in entries if have.get(e.path) != want[e.path]]
        if wrong:
            raise CheckpointError(
                f"{checkpoint}: expected the network of configs/kgmgt.py:released, got {network!r} "
                f"that differs in {len(wrong)} of {len(entries)} arrays of the {name}, such as "
                f"{wrong[0]}"
            )
        names = PARTS[name].buffers
        constants = {k: kept[k] if k in kept else default_buffer(k) for k in names}
        whole[path] = to_state_dict(entries, tree) | constants
    for path, arrays in whole.items():
        write_state_dict(path, arrays)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m kgmgt_jax.interop.torch_weights",
        description="Weights of the PyTorch release to a checkpoint, and back.",
    )
    parser.add_argument("source", help="net_g's file; with --to-torch a checkpoint")
    parser.add_argument("--out", required=True, help="checkpoint; with --to-torch net_g's file")
    parser.add_argument("--extractor", help="file of the matching extractors")
    parser.add_argument("--vgg19", help="file of the reference VGG19, also as torchvision names it")
    parser.add_argument("--critic", help="file of the critic, net_d")
    parser.add_argument("--to-torch", action="store_true", help="from a checkpoint to these files")
    parser.add_argument(
        "--allow-partial", action="store_true", help="write although arrays do not fit"
    )
    return parser


def _run(options: argparse.Namespace) -> None:
    others = {name: getattr(options, name) for name in PARTS if name != "generator"}
    others = {name: path for name, path in others.items() if path}
    if options.to_torch:
        files = {"generator": options.out, **others}
        to_torch(options.source, files)
        print("\n".join(files.values()))
        return
    files = {"generator": options.source, **others}
    for line in from_torch(files, options.out, allow_partial=options.allow_partial):
        print(f"partial, {line}")
    print(options.out)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; ends as ``commands.guarded`` says."""
    options = _parser().parse_args(arguments)
    return guarded(lambda: _run(options))


if __name__ == "__main__":
    sys.exit(main())
