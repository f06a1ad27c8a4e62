"""Impossible options are refused before anything is read."""

import json

import pytest

from kgmgt_jax.data.formats import ReadOptions
from kgmgt_jax.data.prepared import PrepareOptions
from kgmgt_jax.data.simulation import Simulation


@pytest.mark.parametrize(
    "options, told",
    [
        ({"readout": 0}, "readout must be at least 1"),
        ({"sens": "bart"}, "sens must be one of"),
        ({"acs": 3}, "acs must be at least 4, got 3"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"split": (0.5, 0.4)}, r"sum to 1, such as 0.8,0.1,0.1, got \(0.5, 0.4\)"),
        ({"split": (0.25,) * 4}, "1 to 3 fractions"),
        ({"split": (1.5, -0.5)}, "fractions, at least 0"),
        ({"split": ()}, "fractions"),
        ({"subject": "(P"}, "regular expression"),
    ],
)
def test_impossible_values_are_named(options, told):
    with pytest.raises(ValueError, match=told):
        PrepareOptions(**options)


def test_sets_of_all_coils_have_the_settings_that_they_had_before_there_were_virtual_ones():
    few = PrepareOptions(read=ReadOptions(virtual_coils=8)).settings()
    assert few == PrepareOptions().settings() | {"virtual_coils": 8}


@pytest.mark.parametrize("n_coils", [1, (1, 8)])
def test_settings_survive_json(n_coils):
    read = ReadOptions(simulation=Simulation(n_coils))
    settings = PrepareOptions(views=("sax",), split=(1.0,), read=read).settings()
    assert json.loads(json.dumps(settings)) == settings
