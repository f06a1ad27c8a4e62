"""The benchmark of killed runs, in small."""

import pytest

from benchmarks import kill_resume


@pytest.mark.slow
def test_killed_runs_end_where_an_undisturbed_one_does(capfd):
    assert kill_resume.main(["--kills", "3"]) == 0
    assert "3 of 3 identical" in capfd.readouterr().out


def test_one_different_bit_is_reported(capsys):
    kills = [kill_resume.Kill("1 ms after step 9", "none", 5, []) for _ in range(2)]
    assert kill_resume._report(kills, 1.0) == 0
    kills[1] = kills[1]._replace(differing=["['state']['key']"])
    assert kill_resume._report(kills, 1.0) == 1
    assert "NO: 1 arrays, ['state']['key']" in capsys.readouterr().out
