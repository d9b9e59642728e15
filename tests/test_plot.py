"""Pictures are drawn from every kind of input, on the axes that were given; without matplotlib they say what to do."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

import torch_dalign as dalign

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
pyplot = pytest.importorskip("matplotlib.pyplot")

X = torch.sin(torch.linspace(0, 6, 30))
Y = torch.sin(torch.linspace(0, 6, 40) + 0.4)


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    pyplot.close("all")


def aligned() -> torch.Tensor:
    return dalign.SoftDTW(0.01).alignment(X[None, :, None], Y[None, :, None])[0].requires_grad_()


def draw(ax) -> None:
    ax.figure.canvas.draw()


def test_alignment_shows_the_matrix_and_the_path():
    align = aligned()
    ax = dalign.plot.alignment(align, path=[(0, 0), (29, 39)])
    draw(ax)
    np.testing.assert_allclose(ax.images[0].get_array(), align.detach())
    assert ax.images[0].origin == "lower"
    assert [line.get_xydata().tolist() for line in ax.lines] == [[[0, 0], [39, 29]]]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("frame of y", "frame of x")


def test_cost_leaves_blocked_cells_blank():
    cost = dalign.pairwise(X[None, :, None], Y[None, :, None])[0]
    cost[3, 4] = torch.inf
    ax = dalign.plot.cost(cost, colorbar=False)
    draw(ax)
    shown = np.ma.filled(ax.images[0].get_array(), np.nan)
    assert np.argwhere(np.isnan(shown)).tolist() == [[3, 4]]
    assert len(ax.figure.axes) == 1


def test_given_axes_are_used():
    given = pyplot.subplots()[1]
    assert dalign.plot.alignment(aligned(), ax=given) is given
    assert dalign.plot.warp(X, Y, aligned(), ax=given) is given
    assert dalign.plot.barycenter([X], Y, ax=given) is given


def test_barycenter_draws_every_series_and_the_center_on_unit_time():
    ax = dalign.plot.barycenter([X, Y.numpy(), torch.stack([Y, Y], 1)], torch.stack([X, 2 * X], 1), feature=0)
    draw(ax)
    assert [len(line.get_xdata()) for line in ax.lines] == [30, 40, 40, 30]
    assert all(line.get_xdata()[0] == 0 and line.get_xdata()[-1] == 1 for line in ax.lines)


def test_warp_joins_frames_of_an_alignment_or_a_path():
    diagonal = dalign.plot.warp(X[:3], X[:3], torch.eye(3))
    draw(diagonal)
    joined = [line.get_xdata() for line in diagonal.lines[:-2]]
    assert [list(map(float, ends)) for ends in joined] == [[0, 0], [1, 1], [2, 2]]
    path = dalign.plot.warp(X, Y, torch.tensor([[0, 0], [10, 14], [29, 39]]))
    assert [list(map(float, line.get_xdata())) for line in path.lines[:-2]] == [[0, 0], [10, 14], [29, 39]]


def test_warp_keeps_the_signals_apart_and_limits_the_lines():
    ax = dalign.plot.warp(X, Y, aligned(), lines=10)
    top, bottom = (line.get_ydata() for line in ax.lines[-2:])
    assert min(top) > max(bottom)
    assert len(ax.lines) - 2 <= 10


@pytest.mark.parametrize("name", ["alignment", "cost", "barycenter", "warp"])
def test_without_matplotlib_the_error_tells_how_to_get_it(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    args = {"alignment": (aligned(),), "cost": (aligned(),), "barycenter": ([X], Y), "warp": (X, Y, aligned())}
    with pytest.raises(ImportError, match=r"pip install torch-dalign\[plot\]"):
        getattr(dalign.plot, name)(*args[name])
