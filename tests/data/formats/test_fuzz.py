"""Damaged files are read with finite values or refused in one line: no traceback, hang or crash."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
OFFICIAL = [
    "2023/SingleCoil/Cine/TrainingSet/AccFactor10/P001/cine_sax.mat",
    "2025/MultiCoil/Cine/TrainingSet/FullSample/Center001/GE_15T_Signa/P001/cine_sax.mat",
    "2025/MultiCoil/Cine/TrainingSet/FullSample/Center001/GE_15T_Signa/P002/cine_sax.mat",
]


def _fuzz(out: Path, count: int, seed: int, *given: Path) -> list[dict]:
    """Runs the fuzzer in a process without JAX's threads, which a fork would not survive."""
    command = [sys.executable, "-m", "tests.data.formats.fuzz", str(count), str(seed), str(out)]
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *map(str, given)], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())


def _check(reports: list[dict], count: int) -> None:
    wrong = [r for r in reports if r["status"] not in ("read", "refused")]
    assert not wrong, json.dumps(wrong, indent=1)
    whole = [r for r in reports if r["damage"] == "none"]
    assert {r["status"] for r in whole} == {"read"}
    kinds = Counter(r["status"] for r in reports if r["damage"] != "none")
    assert sum(kinds.values()) == count and min(kinds["read"], kinds["refused"]) > count // 20


def test_damaged_files_of_every_format(tmp_path):
    _check(_fuzz(tmp_path / "reports.json", 50, 0), 50)


@pytest.mark.slow
def test_damaged_official_files(tmp_path, data_dir):
    given = [data_dir / "cmrxrecon" / path for path in OFFICIAL]
    _check(_fuzz(tmp_path / "reports.json", 200, 1, *given), 200)


def test_the_fuzzer_sees_a_traceback_a_hang_and_a_crash(tmp_path, monkeypatch):
    code = """
import os, sys, time
from pathlib import Path
from tests.data.formats import fuzz
fuzz.SECONDS = 1
for act in (lambda p: 1 / 0, lambda p: time.sleep(60), lambda p: os.abort()):
    fuzz.read_all = act
    print(fuzz.attempt(Path("x"))["status"])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["traceback", "hang", "crash"], done.stderr
