"""The package keeps its shape: imports go one way, and only models know Flax modules."""

import ast
from collections.abc import Sequence
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "kgmgt_jax"
RANK = {
    "types": 0,
    "commands": 0,
    "numerics": 0,
    "mri": 1,
    "classical": 2,
    "models": 2,
    "heart": 2,
    "losses": 2,
    "metrics": 2,
    "data": 3,
    "figures": 4,
    "interop": 4,
    "training": 5,
    "evaluation": 6,
    "interop.export": 7,  # commands
    "interop.torch_weights": 7,
    "cli": 7,
}


def _imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    own = _rank(path.relative_to(PACKAGE).with_suffix("").parts)
    for name in _imports(path):
        package, *parts = name.split(".")
        if package == "kgmgt_jax" and parts and parts[0] in RANK:
            assert _rank(parts) <= own, f"{path.name} imports {name}"


def _rank(parts: Sequence[str]) -> int:
    return RANK.get(".".join(parts[:2]), RANK[parts[0]])


@pytest.mark.parametrize("folder", ["mri", "data"])
def test_physics_and_data_know_no_flax(folder):
    for path in (PACKAGE / folder).rglob("*.py"):
        assert not any(name.split(".")[0] == "flax" for name in _imports(path)), path


def test_package_code_has_no_assert():
    for path in MODULES:
        nodes = ast.walk(ast.parse(path.read_text()))
        assert not any(isinstance(node, ast.Assert) for node in nodes), path
