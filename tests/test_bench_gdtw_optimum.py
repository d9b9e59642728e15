"""The study of GDTW's search: its program builds and solves, and its table says what was found."""

import numpy as np
import pytest

from experiments.bench.gdtw import optimum


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return optimum.build(tmp_path_factory.mktemp("optimum"), "generic", ["-O1", "-Werror"])


def test_objectives_of_every_search(program):
    outcome = optimum.solve(program, optimum.Problems(0, 8, 12, 16))
    assert tuple(outcome.objectives) == optimum.SCHEDULES
    assert all(np.all(outcome.excess(name) >= 0) for name in optimum.SCHEDULES)
    assert np.all(outcome.excess("finest") < 1e-6)
    assert len(optimum.table(outcome)) == 2 + len(optimum.SCHEDULES)


def test_grids_of_the_paper_are_near_but_never_below_the_best(program):
    outcome = optimum.solve(program, optimum.Problems(0, 6, 12, 20, grids=True))
    assert np.all(outcome.objectives["grids"] > outcome.objectives["thorough"])
    assert np.all(outcome.excess("grids") < 1e-2)
    assert "thorough in 0" in optimum.against_grids(outcome)


def test_misses_are_counted():
    objectives = {"fast": np.array([1.0, 2.1]), "finest": np.array([1.00001, 2.0])}
    times = {"fast": np.array([1.0, 3.0]), "finest": np.array([5.0, 5.0])}
    lines = optimum.table(optimum.Outcome(objectives, times))
    assert lines[2].startswith("| fast | 1 (50.00 %) | 2.5e-02 | 5.0e-02 | 2 |")
    assert lines[3].startswith("| finest | 0 (0.00 %)")
