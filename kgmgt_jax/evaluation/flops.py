"""Arithmetic of a function as XLA counts it, loops taken as often as they run.

XLA's cost analysis counts the body of a loop once. Here every ``scan`` is found in the function's
jaxpr, its body counted by itself, and the missing rounds added::

    total(f) = xla(f) + further(f)
    further(f) = Σ_scans ((length - 1) · xla(body) + length · further(body))

Operations are those of the program as it is written, before XLA rewrites it: multiplications,
additions and the like, transcendental functions left out. They are counted for the CPU, wherever
the function runs: for a GPU or a TPU JAX knows none before it has compiled.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core

__all__ = ["count_flops"]

_counted: dict[str, float] = {}  # XLA's counts of programs by their text: parts are often alike


def count_flops(function: Callable[..., Any], *arguments: Any) -> float | None:
    """Floating-point operations of one call; nothing is run or compiled.

    Args:
        function: a pure function of arrays.
        arguments: trees of arrays or of ``jax.ShapeDtypeStruct``.

    Returns:
        The count; ``None`` where it depends on the data (a loop runs until something holds), and
        where ``JAX_PLATFORMS`` leaves out the CPU.
    """
    program = jax.make_jaxpr(function)(*arguments)
    try:
        cpu = jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None
    try:
        with jax.default_device(cpu):
            return _further_rounds(program.jaxpr) + _xla(program)
    except _OpenEndedLoop:
        return None


class _OpenEndedLoop(Exception):
    """A loop whose rounds are not known before it runs."""


def _xla(program: core.ClosedJaxpr) -> float:
    """XLA's count, of each loop's body once."""
    text = str(program)
    if text not in _counted:
        shapes = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in program.in_avals]
        lowered = jax.jit(core.jaxpr_as_fun(program)).lower(*shapes)
        _counted[text] = float((lowered.cost_analysis() or {}).get("flops", 0.0))
    return _counted[text]


def _further_rounds(program: core.Jaxpr) -> float:
    """What the loops of a program do beyond one round each."""
    flops = 0.0
    for equation in program.eqns:
        inner = list(_programs(equation.params))
        if equation.primitive.name == "while":
            raise _OpenEndedLoop
        if equation.primitive.name == "scan":
            (body,) = inner
            n_rounds = equation.params["length"]
            flops += (n_rounds - 1) * _xla(body)
            flops += n_rounds * _further_rounds(body.jaxpr)
        elif equation.primitive.name == "cond":  # of which XLA counts the dearest branch
            platforms = equation.params.get("branches_platforms") or [None] * len(inner)
            of_cpu = [names is None or "cpu" in names for names in platforms]
            branches = itertools.compress(inner, of_cpu)
            flops += max(_further_rounds(branch.jaxpr) for branch in branches)
        else:
            flops += sum(_further_rounds(each.jaxpr) for each in inner)
    return flops


def _programs(parameters: dict[str, Any]) -> Iterator[core.ClosedJaxpr]:
    """The programs inside an equation."""
    for value in parameters.values():
        for each in value if isinstance(value, list | tuple) else (value,):
            if isinstance(each, core.ClosedJaxpr):
                yield each
            elif isinstance(each, core.Jaxpr):
                yield core.ClosedJaxpr(each, ())
