"""Pictures of alignments. Needs matplotlib: ``pip install torch-dalign[plot]``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SERIES = ("#31688e", "#e4572e")  # x, y
FAINT = "#8a8a8a"


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
    return _lattice(_matrix(align, "align"), "expected alignment", path, ax, colorbar, cmap=cmap, **imshow)


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
    return _lattice(blank, "cost", path, ax, colorbar, cmap=cmap, **imshow)


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


def warp(x: Any, y: Any, align: Any, *, ax: Axes | None = None, feature: int = 0, lines: int = 40) -> Axes:
    """Picture of two signals, one above the other, with lines between the frames that belong together.

    Parameters
    ----------
    x, y : Tensor or array
        (N,) or (N, D), and (M,) or (M, D).
    align : Tensor or array
        An alignment (N, M), where each frame of x is joined to its mean frame in y, or a path (L, 2) of index pairs
        (integers).
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
    pairs = _pairs(align, len(top), len(bottom))
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


def _pairs(align: Any, n: int, m: int) -> np.ndarray:
    """Index pairs (i, j), from a path or, fractional in j, from the rows of an alignment."""
    array = _array(align)
    if array.shape == (n, m) and not _is_path(align):
        mass = array.sum(1)
        rows = np.flatnonzero(mass > 0)
        return np.stack([rows, array[rows] @ np.arange(m) / mass[rows]], 1)
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"align must be an alignment of shape ({n}, {m}) or a path of shape (L, 2), got {array.shape}")
    if (array < 0).any() or (array >= (n, m)).any():
        raise ValueError(f"align is a path that leaves the lattice of shape ({n}, {m})")
    return array


def _is_path(align: Any) -> bool:
    """Whether the entries are integers, which tells a path (L, 2) from an alignment with M = 2."""
    if isinstance(align, torch.Tensor):
        return not align.is_floating_point()
    return bool(np.issubdtype(np.asarray(align).dtype, np.integer))


def _unit_time(signal: np.ndarray) -> np.ndarray:
    return np.linspace(0, 1, len(signal))


def _lattice(matrix: np.ndarray, label: str, path: Any, ax: Axes | None, colorbar: bool, **imshow: Any) -> Axes:
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
