"""The package keeps its shape: imports go one way, and only models know Flax modules."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "kgmgt_jax"
RANK = {
    "types": 0,
    "commands": 0,
    "mri": 1,
    "classical": 2,
    "models": 2,
    "losses": 2,
    "metrics": 2,
    "data": 3,
    "training": 4,
    "evaluation": 4,
    "interop": 4,
    "cli": 5,
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
    own = RANK[path.relative_to(PACKAGE).with_suffix("").parts[0]]
    for name in _imports(path):
        parts = name.split(".")
        if parts[0] == "kgmgt_jax" and len(parts) > 1 and parts[1] in RANK:
            assert RANK[parts[1]] <= own, f"{path.name} imports {name}"


@pytest.mark.parametrize("folder", ["mri", "data"])
def test_physics_and_data_know_no_flax(folder):
    for path in (PACKAGE / folder).rglob("*.py"):
        assert not any(name.split(".")[0] == "flax" for name in _imports(path)), path


def test_package_code_has_no_assert():
    for path in MODULES:
        nodes = ast.walk(ast.parse(path.read_text()))
        assert not any(isinstance(node, ast.Assert) for node in nodes), path
