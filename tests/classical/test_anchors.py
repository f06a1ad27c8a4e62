"""Real cines (simulated from magnitude images): within 0.3 dB of the public references."""

import importlib.util
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "classical.py"


@pytest.mark.slow
def test_every_reference_is_reached(data_dir):
    spec = importlib.util.spec_from_file_location("benchmark_classical", BENCHMARK)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    rows = list(benchmark.rows(data_dir / "anchor_cases.h5", repeats=0, bart=None))
    assert len(rows) == 32
    short = [str(row) for row in rows if row.psnr < row.reference_psnr - 0.3]
    assert not short, "\n".join(short)
