"""Pictures of alignments. Needs matplotlib: ``pip install torch-dalign[plot]``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from .ddtw import DDTW, Step, _Problem, _problem
from .presets import DDTWPreset

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SERIES = ("#31688e", "#e4572e")  # x, y
FAINT = "#8a8a8a"
BLANK = "\N{GREEK SMALL LETTER EPSILON}"
Cell = tuple[int, int]


def alignment(
    align: Any,
    *,
    path: Any = None,
    ax: Axes | None = None,
    cmap: str = "magma_r",
    colorbar: bool = True,
    **imshow: Any,
) -> Axes:
    """Picture of an alignment: x runs upwards, y to the right, dark is certain.

    Parameters
    ----------
    align : Tensor or array
        (N, M), for instance one item of ``SoftDTW.alignment(x, y)``.
    path : Tensor or array, optional
        (L, 2) index pairs (i, j) to draw on top, for instance a reference.
    ax : Axes, optional
        Where to draw; default: a new figure.
    cmap : str, default "magma_r"
        matplotlib's name of a colour map.
    colorbar : bool, default True
        Whether to draw one.
    **imshow
        Passed on to ``Axes.imshow``.

    Returns
    -------
    Axes
        Where it was drawn.

    Raises
    ------
    ValueError
        Unless ``align`` has two dimensions and ``path`` shape (L, 2).
    ImportError
        When matplotlib is missing.

    Examples
    --------
    >>> import torch, torch_dalign as dalign
    >>> ax = dalign.plot.alignment(torch.eye(5))  # doctest: +SKIP
    """
    return _image(_matrix(align, "align"), "expected alignment", path, ax, colorbar, cmap=cmap, **imshow)


def cost(
    cost: Any,
    *,
    path: Any = None,
    ax: Axes | None = None,
    cmap: str = "viridis",
    colorbar: bool = True,
    **imshow: Any,
) -> Axes:
    """Picture of a cost lattice: x runs upwards, y to the right; blocked cells (+inf) are left blank.

    Parameters
    ----------
    cost : Tensor or array
        (N, M), for instance one item of ``pairwise(x, y)``.
    path, ax, cmap, colorbar, **imshow
        As in `alignment`.

    Returns
    -------
    Axes
        Where it was drawn.

    Raises
    ------
    ValueError, ImportError
        As `alignment`.

    Examples
    --------
    >>> import torch, torch_dalign as dalign
    >>> x = torch.randn(1, 30, 2)
    >>> ax = dalign.plot.cost(dalign.pairwise(x, x)[0])  # doctest: +SKIP
    """
    matrix = _matrix(cost, "cost")
    blank = np.where(np.isfinite(matrix), matrix, np.nan)
    return _image(blank, "cost", path, ax, colorbar, cmap=cmap, **imshow)


def barycenter(series: Sequence[Any], center: Any, *, ax: Axes | None = None, feature: int = 0) -> Axes:
    """Picture of series of any lengths, faint, and their average on top; time runs from 0 to 1.

    Parameters
    ----------
    series : sequence of Tensor or array
        Each (N,) or (N, D).
    center : Tensor or array
        (K,) or (K, D).
    ax : Axes, optional
        Where to draw; default: a new figure.
    feature : int, default 0
        Which of the D features to draw.

    Returns
    -------
    Axes
        Where it was drawn.

    Raises
    ------
    ValueError
        For a series of another shape, or no such feature.
    ImportError
        When matplotlib is missing.

    Examples
    --------
    >>> import torch, torch_dalign as dalign
    >>> ax = dalign.plot.barycenter([torch.randn(20), torch.randn(30)], torch.zeros(25))  # doctest: +SKIP
    """
    ax = _axes(ax, (6, 3))
    for k, item in enumerate(series):
        signal = _signal(item, f"series[{k}]", feature)
        ax.plot(_unit_time(signal), signal, color=FAINT, alpha=0.45, linewidth=0.9, label="series" if k == 0 else None)
    signal = _signal(center, "center", feature)
    ax.plot(_unit_time(signal), signal, color=SERIES[1], linewidth=2.4, label="barycenter")
    ax.set(xlabel="time", xlim=(0, 1))
    ax.legend(frameon=False)
    return _open_frame(ax)


def warp(
    x: Any,
    y: Any,
    align: Any,
    *,
    y_times: Any = None,
    ax: Axes | None = None,
    feature: int = 0,
    lines: int = 40,
) -> Axes:
    """Picture of two signals, one above the other, with lines between the frames that belong together.

    Parameters
    ----------
    x, y : Tensor or array
        (N,) or (N, D), and (M,) or (M, D).
    align : Tensor or array
        An alignment (N, M), where each frame of x is joined to its mean frame in y; a path (L, 2) of index pairs
        (integers); or a warp (N,), the time in y of each frame of x, as `DecDTW` gives it.
    y_times : Tensor or array, optional
        (M,), times of the frames of y, of a warp. Default: uniform on [0, 1], as for `DecDTW`.
    ax : Axes, optional
        Where to draw; default: a new figure.
    feature : int, default 0
        Which of the D features to draw.
    lines : int, default 40
        At most that many lines.

    Returns
    -------
    Axes
        Where it was drawn.

    Raises
    ------
    ValueError
        For other shapes.
    ImportError
        When matplotlib is missing.

    Examples
    --------
    >>> import torch, torch_dalign as dalign
    >>> x, y = torch.sin(torch.linspace(0, 6, 60)), torch.sin(torch.linspace(0, 6, 80))
    >>> align = dalign.SoftDTW(0.01).alignment(x[None, :, None], y[None, :, None])[0]
    >>> ax = dalign.plot.warp(x, y, align)  # doctest: +SKIP
    """
    top, bottom = _signal(x, "x", feature), _signal(y, "y", feature)
    pairs = _pairs(align, len(top), len(bottom), y_times)
    ax = _axes(ax, (7, 3.2))
    offset = 1.25 * (np.nanmax(bottom) - np.nanmin(top)) + 0.25 * (np.ptp(top) + np.ptp(bottom)) / 2
    top = top + max(offset, 1e-9)
    for i, j in pairs[:: max(1, -(-len(pairs) // lines))]:
        height = np.interp(j, np.arange(len(bottom)), bottom)
        ax.plot([i, j], [top[int(i)], height], color=FAINT, alpha=0.55, linewidth=0.7, zorder=1)
    ax.plot(top, color=SERIES[0], linewidth=2, label="x", zorder=2)
    ax.plot(bottom, color=SERIES[1], linewidth=2, label="y", zorder=2)
    ax.set(xlabel="frame", yticks=[])
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return _open_frame(ax, left=False)


def lattice(
    loss: DDTW | DDTWPreset,
    frames: int,
    columns: int | None = None,
    *,
    targets: Any = None,
    labels: Sequence[str] | None = None,
    cells: Cell | Sequence[Cell] | None = None,
    align: Any = None,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Picture of a lattice: its cells, where paths start and end, and the steps into some cells with their weights.

    x runs upwards, y to the right, as in `alignment`. Orange cells are those where paths may start or end, gray ones
    lie on no path. Arrows show the steps into the green cells, with the weight of the cell's cost; dashed ones are
    blocked.

    Parameters
    ----------
    loss : DDTW or preset
        Whose lattice. Of weights or ends that differ between batch items those of the first are drawn.
    frames : int
        N.
    columns : int, optional
        M, of a `DDTW`.
    targets : Tensor or array, optional
        Of a preset: class indices (L,) or multi-hot vectors (L, D), one item.
    labels : sequence of str, optional
        Names of the M columns, or of a preset's L targets. Default: indices, classes; "y1", "y2", ... for vectors.
    cells : pair or sequence of pairs, optional
        Cells (n, m), from 0, whose steps are shown. Default: one for each kind of cell, at most three.
    align : Tensor or array, optional
        (N, M), an alignment to shade the cells with, dark is certain.
    legend : bool, default True
        Whether to say beside it what the colours mean.
    ax : Axes, optional
        Where to draw; default: a new figure.

    Returns
    -------
    Axes
        Where it was drawn.

    Raises
    ------
    TypeError
        When ``loss`` is neither, and for missing or superfluous columns or targets.
    ValueError
        For sizes, cells or shapes out of range.
    ImportError
        When matplotlib is missing.

    References
    ----------
    Zeitler and Müller, "A Unified Perspective on CTC and Soft-DTW Using Differentiable DTW", TASLPRO 2026, Fig. 4.

    Examples
    --------
    >>> import torch_dalign as dalign
    >>> ax = dalign.plot.lattice(dalign.DDTW(steps=[(1, 1), (2, 1), (1, 2)]), 6, 6)  # doctest: +SKIP
    >>> ax = dalign.plot.lattice(dalign.presets.ddtw("CTC-A"), 9, targets=[3, 1, 1])  # doctest: +SKIP
    """
    graph = _graph(_problem_of(loss, frames, columns, targets))
    alive = _on_paths(graph)
    shown = _examples(graph, alive) if cells is None else _cells(cells, alive.shape)
    shade = None if align is None else _shade(align, alive.shape)
    ax = _axes(ax, _size_of_lattice(*alive.shape))
    _draw_cells(ax, graph, alive, shown, shade)
    _draw_steps(ax, graph, shown)
    _name_columns(ax, _column_names(loss, targets, labels, alive.shape[1]), targets is not None)
    if legend:
        _explain(ax, shade is not None)
    return ax


# ---------------------------------------------------------------- lattices


class _Graph(NamedTuple):
    """Cells and steps: weights (N, M, S), inf where a step is blocked, and where paths may start and end (N, M)."""

    steps: list[Step]
    weights: np.ndarray
    start: np.ndarray
    end: np.ndarray

    def origins(self, n: int, m: int) -> Iterator[tuple[Cell, float]]:
        """The cells that steps into a cell come from, with the weights."""
        for (i, j), weight in zip(self.steps, self.weights[n, m], strict=True):
            if n >= i and m >= j:
                yield (n - i, m - j), float(weight)


def _problem_of(loss: Any, frames: int, columns: int | None, targets: Any) -> _Problem:
    """The problem of one item with any costs."""
    if not isinstance(loss, DDTW | DDTWPreset):
        raise TypeError(f"loss must be a DDTW or a preset made by presets.ddtw, got {type(loss).__name__}")
    if (columns is None) == isinstance(loss, DDTW) or (targets is None) == isinstance(loss, DDTWPreset):
        raise TypeError(
            f"a {type(loss).__name__} needs {'columns' if isinstance(loss, DDTW) else 'targets'}, and alone"
        )
    for name, size in (("frames", frames), ("columns", columns)):
        if size is not None and size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")
    with torch.no_grad():
        if isinstance(loss, DDTWPreset):
            return loss._problem(*_any_input(loss, frames, torch.as_tensor(targets)), None, None)
        cost = torch.zeros(1, frames, int(columns or 0))
        start, end = (side[:1] if isinstance(side, torch.Tensor) else side for side in (loss.start, loss.end))
        weights = loss.step_weights
        if isinstance(weights, torch.Tensor) and weights.dim() == 4:
            weights = weights[:1]
        options = (loss.gamma, loss.steps, weights, start, end, loss.smoothing, None, None)
        return _problem(cost, None, "precomputed", *options)


def _any_input(preset: DDTWPreset, frames: int, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions (1, N, C) that fit, and targets (1, L) or (1, L, D)."""
    if targets.dim() not in (1, 2) or not targets.numel():
        raise ValueError(f"targets must have shape (L,) or (L, D), one item, got {tuple(targets.shape)}")
    single = targets.dim() == 1
    classes = max(int(targets.max()), preset.blank) + 1 if single else targets.shape[1] + preset.has_blank
    return torch.full((1, frames, classes), 0.5), targets[None]


def _graph(problem: _Problem) -> _Graph:
    _, _, steps, start, end, _ = problem.options
    shape = tuple(problem.lattice.cost.shape[1:])
    pairs = list(zip(steps[::2], steps[1::2], strict=True))
    weights = np.ones(len(pairs)) if problem.lattice[2] is None else _array(problem.lattice[2])[0]
    first, last = (
        _side(cells, shape) if costs is None else np.isfinite(_array(costs)[0])
        for cells, costs in ((start, problem.lattice[3]), (end, problem.lattice[4]))
    )
    flip = slice(None, None, -1 if problem.lattice[4] is None else 1)  # ends are counted from the other corner
    return _Graph(pairs, np.broadcast_to(weights, (*shape, len(pairs))), first, last[flip, flip])


def _side(cells: Sequence[int], shape: tuple[int, ...]) -> np.ndarray:
    """So many cells of the first column, and of the first row."""
    side = np.zeros(shape, bool)
    side[: cells[0], 0] = side[0, : cells[1]] = True
    return side


def _on_paths(graph: _Graph) -> np.ndarray:
    """Whether a path visits the cell (N, M): it is reached from a start, and an end from it."""
    reached, leads = graph.start.copy(), graph.end.copy()
    open_steps = [
        (cell, [origin for origin, weight in graph.origins(*cell) if weight < math.inf])
        for cell in np.ndindex(*reached.shape)
    ]
    for cell, origins in open_steps:
        reached[cell] |= any(reached[origin] for origin in origins)
    for cell, origins in reversed(open_steps):
        for origin in origins:
            leads[origin] |= leads[cell]
    return reached & leads


def _examples(graph: _Graph, alive: np.ndarray) -> list[Cell]:
    """Cells on paths near the middle, one for each set of weights, whose steps do not overlap."""
    reach = np.max(graph.steps, axis=0)
    middle = (np.array(alive.shape) - 1 + reach) / 2
    cells = sorted(map(tuple, np.argwhere(alive)), key=lambda cell: np.abs(cell - middle).sum())
    found: dict[tuple[float, ...], Cell] = {}
    for cell in cells:
        weights = tuple(graph.weights[cell])
        whole = len(list(graph.origins(*cell))) == len(graph.steps)
        apart = all((np.abs(np.subtract(cell, other)) > reach).any() for other in found.values())
        if whole and apart and weights not in found:
            found[weights] = (int(cell[0]), int(cell[1]))
    return list(found.values())[:3]


def _cells(cells: Any, shape: tuple[int, ...]) -> list[Cell]:
    array = np.atleast_2d(np.asarray(cells))
    if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in "iu":
        raise ValueError(f"cells must be pairs of integers (n, m), got {cells!r}")
    if (array < 0).any() or (array >= shape).any():
        raise ValueError(f"cells lie outside the lattice of shape {tuple(shape)}: {cells!r}")
    return [(int(n), int(m)) for n, m in array]


def _shade(align: Any, shape: tuple[int, ...]) -> np.ndarray:
    matrix = _matrix(align, "align")
    if matrix.shape != shape:
        raise ValueError(f"align must have the lattice's shape {tuple(shape)}, got {matrix.shape}")
    return matrix


_COLOURS = {"free": "#efedf5", "dead": "#c4c4c4", "ends": "#fdae6b", "origin": "#9ecae1", "cell": "#74c476"}
_CELL_INCHES = 0.55


def _size_of_lattice(n: int, m: int) -> tuple[float, float]:
    return min(12.0, 1.3 + _CELL_INCHES * max(m, 6)), min(12.0, 1.2 + _CELL_INCHES * max(n, 3))


def _draw_cells(ax: Axes, graph: _Graph, alive: np.ndarray, shown: list[Cell], shade: np.ndarray | None) -> None:
    """Fill the cells; those over a shading, and ends on no path, have a frame in place of a filling."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle

    ends = graph.start | graph.end
    kinds = _kinds(graph, alive, shown)
    filled = {cell: kind for cell, kind in kinds.items() if shade is None and alive[cell]}
    colours = np.where(alive[..., None], to_rgb(_COLOURS["free"]), to_rgb(_COLOURS["dead"]))
    for cell, kind in filled.items():
        colours[cell] = to_rgb(_COLOURS[kind])
    ax.imshow(colours, origin="lower")
    if shade is not None:
        inside = np.ma.masked_where(~alive, shade)
        ax.imshow(inside, cmap="Purples", vmin=0, vmax=max(1.0, float(shade.max())), origin="lower")
    for (n, m), kind in kinds.items():
        if (n, m) not in filled and (kind == "cell" or ends[n, m]):
            ax.add_patch(Rectangle((m - 0.45, n - 0.45), 0.9, 0.9, fill=False, edgecolor=_COLOURS[kind], linewidth=2.2))
    for ticks, size in ((ax.set_yticks, alive.shape[0]), (ax.set_xticks, alive.shape[1])):
        ticks(np.arange(size + 1) - 0.5, minor=True)
    ax.set_yticks(range(0, alive.shape[0], 1 + alive.shape[0] // 20))
    ax.grid(which="minor", color="white", linewidth=1.2)
    ax.tick_params(which="both", length=0)
    ax.spines[:].set_visible(False)


def _kinds(graph: _Graph, alive: np.ndarray, shown: list[Cell]) -> dict[Cell, str]:
    """What is to be said of a cell; of a cell that is several things, the last in this order."""
    origins = [origin for cell in shown for origin, weight in graph.origins(*cell) if weight < math.inf]
    kinds = {origin: "origin" for origin in origins if alive[origin]}
    kinds.update({(int(n), int(m)): "ends" for n, m in np.argwhere(graph.start | graph.end)})
    kinds.update(dict.fromkeys(shown, "cell"))
    return kinds


def _draw_steps(ax: Axes, graph: _Graph, shown: list[Cell]) -> None:
    """An arrow for each step into the cells, with its weight near where it comes from."""
    for n, m in shown:
        for (i, j), weight in graph.origins(n, m):
            is_open = weight < math.inf
            colour, line = ("#1a1a1a", "-") if is_open else ("#b2182b", "--")
            look = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.2, "linestyle": line, "mutation_scale": 10}
            ax.annotate("", (m, n), (j, i), arrowprops={**look, "shrinkA": 2, "shrinkB": 5})
            text = f"{weight:.3g}" if is_open else "\N{INFINITY}"
            box = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
            at = (j + 0.36 * (m - j), i + 0.36 * (n - i))
            ax.text(*at, text, color=colour, fontsize=8, ha="center", va="center", bbox=box)


def _column_names(loss: Any, targets: Any, labels: Sequence[str] | None, columns: int) -> list[str]:
    """One for each column: blanks and labels, or labels alone."""
    if targets is None:
        names = [str(m) for m in range(columns)] if labels is None else list(labels)
    else:
        given = torch.as_tensor(targets)
        single = [str(int(label)) for label in given] if given.dim() == 1 else []
        names = single or [f"y{k + 1}" for k in range(len(given))]
        if labels is not None and len(labels) != len(names):
            raise ValueError(f"labels must name the {len(names)} targets, got {len(labels)}")
        names = names if labels is None else list(labels)
        if loss.has_blank:
            names = [BLANK, *(part for name in names for part in (name, BLANK))]
        elif len(names) != columns:  # targets stretched to the length of x
            names = [names[m * len(names) // columns] for m in range(columns)]
    if len(names) != columns:
        raise ValueError(f"labels must name the {columns} columns, got {len(names)}")
    return names


def _name_columns(ax: Axes, names: list[str], of_targets: bool) -> None:
    ax.set_xticks(range(len(names)), names)
    blank = f" ({BLANK}: blank)" if BLANK in names else ""
    ax.set(xlabel=f"target{blank}" if of_targets else "frame of y", ylabel="frame of x")


def _explain(ax: Axes, shaded: bool) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    kinds = {"ends": "start or end", "cell": "a cell", "origin": "before it", "dead": "on no path"}
    if shaded:
        del kinds["origin"]
    filled = {kind: not shaded or kind == "dead" for kind in kinds}
    look: list[Any] = [
        Patch(fill=filled[kind], facecolor=_COLOURS[kind], edgecolor=_COLOURS[kind], linewidth=2) for kind in kinds
    ]
    look += [Line2D([], [], color="#1a1a1a"), Line2D([], [], color="#b2182b", linestyle="--")]
    names = [*kinds.values(), "step, weight", "blocked"]
    options = {"frameon": False, "fontsize": 8, "handlelength": 1.4}
    ax.legend(look, names, loc="upper left", bbox_to_anchor=(1.0, 1.0), **options)


# ---------------------------------------------------------------- shared


def _axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    if ax is not None:
        return ax
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError("torch_dalign.plot needs matplotlib: pip install torch-dalign[plot]") from error
    return pyplot.subplots(figsize=size, layout="constrained")[1]


def _array(value: Any) -> np.ndarray:
    return value.detach().cpu().double().numpy() if isinstance(value, torch.Tensor) else np.asarray(value, float)


def _matrix(value: Any, name: str) -> np.ndarray:
    array = _array(value)
    if array.ndim != 2:
        raise ValueError(f"{name} must have shape (N, M), one item of a batch, got {array.shape}")
    return array


def _signal(value: Any, name: str, feature: int) -> np.ndarray:
    array = _array(value)
    if array.ndim not in (1, 2) or not len(array):
        raise ValueError(f"{name} must have shape (N,) or (N, D) with N >= 1, got {array.shape}")
    if array.ndim == 1:
        return array
    if not 0 <= feature < array.shape[1]:
        raise ValueError(f"feature {feature} is outside [0, {array.shape[1]}) of {name} with shape {array.shape}")
    return array[:, feature]


def _path(value: Any) -> np.ndarray:
    array = _array(value)
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"path must have shape (L, 2), got {array.shape}")
    return array


def _pairs(align: Any, n: int, m: int, y_times: Any) -> np.ndarray:
    """Index pairs (i, j), from a path or, fractional in j, from a warp or the rows of an alignment."""
    array = _array(align)
    if array.shape == (n,) and not _is_path(align):
        return np.stack([np.arange(n), _frames_at(array, m, y_times)], 1)
    if array.shape == (n, m) and not _is_path(align):
        mass = array.sum(1)
        rows = np.flatnonzero(mass > 0)
        return np.stack([rows, array[rows] @ np.arange(m) / mass[rows]], 1)
    if array.ndim != 2 or array.shape[1] != 2:
        expected = f"an alignment of shape ({n}, {m}), a path of shape (L, 2) or a warp of shape ({n},)"
        raise ValueError(f"align must be {expected}, got {array.shape}")
    if (array < 0).any() or (array >= (n, m)).any():
        raise ValueError(f"align is a path that leaves the lattice of shape ({n}, {m})")
    return array


def _frames_at(phi: np.ndarray, m: int, y_times: Any) -> np.ndarray:
    """Fractional frames of y at times of y."""
    times = np.linspace(0, 1, m) if y_times is None else _array(y_times)
    if times.shape != (m,):
        raise ValueError(f"y_times must have shape ({m},), got {times.shape}")
    return np.interp(phi, times, np.arange(m))


def _is_path(align: Any) -> bool:
    """Whether the entries are integers, which tells a path (L, 2) from an alignment with M = 2."""
    if isinstance(align, torch.Tensor):
        return not align.is_floating_point()
    return bool(np.issubdtype(np.asarray(align).dtype, np.integer))


def _unit_time(signal: np.ndarray) -> np.ndarray:
    return np.linspace(0, 1, len(signal))


def _image(matrix: np.ndarray, label: str, path: Any, ax: Axes | None, colorbar: bool, **imshow: Any) -> Axes:
    pairs = None if path is None else _path(path)
    n, m = matrix.shape
    ax = _axes(ax, (5.6, max(2.2, min(5.6, 5.6 * n / m))))
    image = ax.imshow(matrix, **{"origin": "lower", "aspect": "auto", "interpolation": "nearest", **imshow})
    if pairs is not None:
        ax.plot(pairs[:, 1], pairs[:, 0], color="#17becf", linewidth=1.4, label="path")
        ax.legend(frameon=False, loc="lower right")
    if colorbar:
        ax.figure.colorbar(image, ax=ax, label=label, fraction=0.046, pad=0.02)
    ax.set(xlabel="frame of y", ylabel="frame of x")
    return ax


def _open_frame(ax: Axes, left: bool = True) -> Axes:
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines["left"].set_visible(left)
    return ax
