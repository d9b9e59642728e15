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


def test_warp_draws_times_in_y_as_fractional_frames():
    phi = torch.tensor([0.0, 0.25, 1.0])
    ax = dalign.plot.warp(X[:3], Y[:5], phi)
    assert [list(map(float, line.get_xdata())) for line in ax.lines[:-2]] == [[0, 0], [1, 1], [2, 4]]
    height = ax.lines[1].get_ydata()[1]
    assert height == pytest.approx(Y[1].item())
    ax = dalign.plot.warp(X[:3], Y[:3], np.array([1.0, 2.5, 5.0]), y_times=torch.tensor([1.0, 2.0, 5.0]))
    assert [line.get_xdata()[1] for line in ax.lines[:-2]] == pytest.approx([0, 1 + 1 / 6, 2])
    with pytest.raises(ValueError, match=r"y_times must have shape \(3,\), got \(4,\)"):
        dalign.plot.warp(X[:3], Y[:3], phi, y_times=torch.rand(4))


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


# ---------------------------------------------------------------- lattices

TARGETS = [2, 5, 5, 7]
WEIGHTS = torch.rand(7, 6, 3, generator=torch.Generator().manual_seed(0))


def drawn(loss, *sizes, **options):
    """The axes, after drawing them."""
    ax = dalign.plot.lattice(loss, *sizes, **options)
    draw(ax)
    return ax


def names_of(ax) -> list[str]:
    return [tick.get_text() for tick in ax.get_xticklabels()]


def weights_of(ax) -> list[str]:
    return sorted(text.get_text() for text in ax.texts if text.get_text())


def cells_of(ax, kind: str) -> set[tuple[int, int]]:
    """Cells that are filled with the colour of a kind."""
    from matplotlib.colors import to_rgb

    colours = np.asarray(ax.images[0].get_array())
    same = np.isclose(colours, to_rgb(dalign.plot._COLOURS[kind])).all(2)
    return {(int(n), int(m)) for n, m in np.argwhere(same)}


def visited(loss, cost: torch.Tensor, **options) -> set[tuple[int, int]]:
    """Cells that some path visits, from the alignment."""
    return {(int(n), int(m)) for n, m in loss.alignment(cost, **options)[0].nonzero()}


@pytest.mark.parametrize(
    "loss",
    [
        dalign.DDTW(metric="precomputed"),
        dalign.DDTW(steps=[(1, 0), (1, 1)], metric="precomputed"),
        dalign.DDTW(steps=[(1, 1), (2, 1), (1, 2)], metric="precomputed"),
        dalign.DDTW(steps=[(1, 0), (1, 1), (1, 2)], start=(1, 2), end=(1, 2), metric="precomputed"),
        dalign.DDTW(steps=[(1, 1), (3, 1)], start="any_x", end="any_y", metric="precomputed"),
        dalign.DDTW(steps=[(1, 0), (1, 1)], start=torch.eye(7, 6)[None] > 0, metric="precomputed"),
        dalign.DDTW(step_weights=WEIGHTS.masked_fill(WEIGHTS < 0.3, torch.inf), metric="precomputed"),
    ],
    ids=lambda loss: f"{len(loss.steps)} steps",
)
def test_gray_cells_are_those_that_no_path_visits(loss):
    ax = drawn(loss, 7, 6, cells=(3, 3))
    alive = visited(loss, torch.zeros(1, 7, 6))
    everywhere = set(np.ndindex(7, 6))
    assert cells_of(ax, "dead") == everywhere - alive


@pytest.mark.parametrize(
    "name", ["CTC-A", "CTC-B", "CTC-C", "SDTW-D", "SDTW-E-W", "2-1-softDTW", "subsequence-softDTW"]
)
def test_presets_are_drawn_as_they_are(name):
    loss = dalign.presets.ddtw(name)
    columns = 9 if loss.has_blank else 4
    single = not name.endswith("softDTW")
    targets = torch.tensor(TARGETS) if single else torch.eye(4)
    ax = drawn(loss, 7, targets=targets)
    x = torch.zeros(1, 7, 8) if single else torch.zeros(1, 7, 4)
    align = loss.alignment(x, targets[None])[0]
    assert cells_of(ax, "dead") == set(np.ndindex(7, columns)) - {(int(n), int(m)) for n, m in align.nonzero()}
    assert cells_of(ax, "cell")
    shaded = drawn(loss, 7, targets=targets, align=align)
    assert shaded.images[1].get_array().mask.sum() == len(cells_of(ax, "dead"))


def test_ctc_has_blanks_blocked_steps_and_two_ends():
    ax = drawn(dalign.presets.ddtw("CTC-A"), 9, targets=TARGETS, labels="DFFG")
    assert names_of(ax) == ["\u03b5", "D", "\u03b5", "F", "\u03b5", "F", "\u03b5", "G", "\u03b5"]
    assert {(0, 0), (0, 1), (8, 7), (8, 8)} == cells_of(ax, "ends")
    assert weights_of(ax) == ["1"] * 5 + ["\u221e"]


def test_steps_into_a_chosen_cell():
    loss = dalign.DDTW(step_weights=(0.1, 1.5, float("inf")))
    ax = drawn(loss, 4, 5, cells=(2, 3))
    assert weights_of(ax) == ["0.1", "1.5", "\u221e"]
    assert cells_of(ax, "cell") == {(2, 3)}
    assert cells_of(ax, "origin") == {(1, 3), (2, 2)}
    edge = drawn(loss, 4, 5, cells=[(0, 0), (0, 2)])
    assert weights_of(edge) == ["1.5"]
    assert cells_of(edge, "cell") == {(0, 0), (0, 2)}


def test_ends_that_no_path_reaches_are_framed():
    ax = drawn(dalign.presets.ddtw("CTC-C"), 6, targets=[1, 2])
    assert (5, 4) in cells_of(ax, "dead")
    assert [patch.get_xy() for patch in ax.patches] == [(3.55, 4.55)]


def test_stretched_and_multi_hot_targets_have_names():
    assert names_of(drawn(dalign.presets.ddtw("EM"), 6, targets=[1, 2])) == ["1", "1", "1", "2", "2", "2"]
    multi = torch.tensor([[1, 0, 1], [0, 1, 1]])
    assert names_of(drawn(dalign.presets.ddtw("CTC-A"), 6, targets=multi))[1::2] == ["y1", "y2"]
    assert names_of(drawn(dalign.DDTW(), 3, 2, labels=["a", "b"])) == ["a", "b"]


def test_learned_lattices_and_given_axes():
    weights = torch.nn.Parameter(torch.rand(2, 4, 4, 3))
    loss = dalign.DDTW(step_weights=weights, start=torch.rand(2, 4, 4), gamma=0.5)
    given = pyplot.subplots()[1]
    ax = drawn(loss, 4, 4, ax=given, legend=False)
    assert ax is given
    assert ax.get_legend() is None
    first = dalign.DDTW(step_weights=weights[:1], start=loss.start[:1], gamma=0.5)
    assert weights_of(ax) == weights_of(drawn(first, 4, 4))


@pytest.mark.parametrize(
    ("error", "arguments", "options", "says"),
    [
        (TypeError, (dalign.SoftDTW(), 4, 4), {}, "DDTW or a preset"),
        (TypeError, (dalign.DDTW(), 4), {}, "needs columns"),
        (TypeError, (dalign.DDTW(), 4, 4), {"targets": [1]}, "needs columns, and alone"),
        (TypeError, (dalign.presets.ddtw("CTC-A"), 4), {}, "needs targets"),
        (ValueError, (dalign.DDTW(), 0, 4), {}, "frames must be at least 1"),
        (ValueError, (dalign.DDTW(), 4, 4), {"cells": (4, 0)}, "outside the lattice"),
        (ValueError, (dalign.DDTW(), 4, 4), {"cells": (0.5, 0)}, "pairs of integers"),
        (ValueError, (dalign.DDTW(), 4, 4), {"align": torch.zeros(4, 5)}, "lattice's shape"),
        (ValueError, (dalign.DDTW(), 4, 4), {"labels": "abc"}, "4 columns, got 3"),
        (ValueError, (dalign.presets.ddtw("CTC-A"), 4), {"targets": [[[1]]]}, "one item"),
        (ValueError, (dalign.presets.ddtw("CTC-A"), 4), {"targets": [1, 2], "labels": "abc"}, "2 targets, got 3"),
    ],
)
def test_lattice_misuse_is_named(error, arguments, options, says):
    with pytest.raises(error, match=says):
        dalign.plot.lattice(*arguments, **options)
