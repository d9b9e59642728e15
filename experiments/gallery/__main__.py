"""Draws the gallery: ``python -m experiments.gallery --out docs/images``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

import torch_dalign as dalign

matplotlib.use("Agg")
from matplotlib import pyplot

Series = list[Tensor]
STYLE = {
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 110,
}
GAMMAS = (1.0, 0.1, 0.01)


# ---------------------------------------------------------------- series


def bumps(centres: ArrayLike, widths: ArrayLike, heights: ArrayLike, length: int) -> Tensor:
    """A sum of Gaussian bumps at shares of the length."""
    t = np.linspace(0, 1, length)[:, None]
    at, width, height = (np.asarray(numbers, dtype=np.float64) for numbers in (centres, widths, heights))
    return torch.from_numpy((height * np.exp(-(((t - at) / width) ** 2))).sum(1))


def performances(shape: int, count: int, rng: np.random.Generator) -> Series:
    """The same gesture at other times, of other lengths, with noise."""
    centres = ((0.25, 0.45, 0.75), (0.3, 0.7), (0.2, 0.5, 0.8))[shape]
    heights = ((1.0, -0.8, 0.6), (1.0, 1.0), (-0.7, 1.0, -0.7))[shape]
    result = []
    for _ in range(count):
        length = int(rng.integers(70, 131))
        shifted = np.sort(np.clip(rng.normal(centres, 0.05), 0.08, 0.92))
        series = bumps(shifted, rng.uniform(0.04, 0.08, len(centres)), heights, length)
        result.append(series + 0.04 * torch.from_numpy(rng.standard_normal(length)))
    return result


# ---------------------------------------------------------------- pictures


def averages(rng: np.random.Generator) -> pyplot.Figure:
    """One class of series and its averages: frame by frame, DBA, soft-DTW at some gammas."""
    series = performances(0, 12, rng)
    stretched = torch.stack([_resample(one, 100) for one in series])
    kinds = [("mean of the stretched series", stretched.mean(0)), ("DBA (gamma 0)", _barycenter(series, 0.0))]
    kinds += [(f"soft-DTW, gamma {gamma:g}", _barycenter(series, gamma)) for gamma in GAMMAS]
    figure, panels = pyplot.subplots(1, len(kinds), figsize=(12.5, 2.7), sharey=True, layout="constrained")
    for panel, (name, center) in zip(panels, kinds, strict=True):
        dalign.plot.barycenter(series, center, ax=panel)
        panel.set_title(name)
    return figure


def interpolation(rng: np.random.Generator) -> pyplot.Figure:
    """From one series to another by weights: Euclidean averages fade, soft-DTW averages move."""
    first = bumps((0.25, 0.5), (0.05, 0.08), (1.0, -0.6), 100)
    second = bumps((0.5, 0.8), (0.08, 0.05), (0.5, -1.0), 100)
    shares = np.linspace(0, 1, 7)
    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.2), sharey=True, layout="constrained")
    colours = matplotlib.colormaps["viridis"](0.9 * shares)
    for share, colour in zip(shares, colours, strict=True):
        panels[0].plot((1 - share) * first + share * second, color=colour)
        center = _between(first, second, share)
        panels[1].plot(center, color=colour, label=f"{share:.2f}")
    panels[0].set_title("weighted mean, frame by frame")
    panels[1].set_title("weighted average under soft-DTW, gamma 0.1")
    figure.legend(
        title="weight of\nthe second", frameon=False, fontsize=8, title_fontsize=8, loc="outside right center"
    )
    for panel in panels:
        panel.set_xlabel("frame")
    return figure


def clusters(rng: np.random.Generator) -> pyplot.Figure:
    """Three groups found among series of any lengths."""
    series = [one for shape in range(3) for one in performances(shape, 14, rng)]
    order = rng.permutation(len(series))
    mixed = [series[k] for k in order]
    kmeans = dalign.SoftDTWKMeans(3, gamma=0.05, length=100, n_init=3, random_state=0).fit(mixed)
    figure, panels = pyplot.subplots(1, 3, figsize=(9, 2.7), sharey=True, layout="constrained")
    for cluster, panel in enumerate(panels):
        members = [one for one, label in zip(mixed, kmeans.labels_.tolist(), strict=True) if label == cluster]
        dalign.plot.barycenter(members, kmeans.cluster_centers_[cluster], ax=panel)
        panel.set_title(f"cluster {cluster + 1}: {len(members)} series")
    return figure


def paths(rng: np.random.Generator) -> pyplot.Figure:
    """Costs of a pair with its best path: free, in a band or parallelogram, with other steps, inside a longer one."""
    x, y = (one[None, :, None] for one in performances(0, 2, rng))
    part = y[:, 15:70]
    kinds: list[tuple[str, Tensor, Tensor, dict[str, Any]]] = [
        ("no limits", x, y, {}),
        ("band = 10", x, y, {"band": 10}),
        ("itakura = 1.5", x, y, {"itakura": 1.5}),
        ('steps = "2-1"', x, y, {"steps": "2-1"}),
        ("subsequence = True", part, y, {"subsequence": True}),
    ]
    figure, panels = pyplot.subplots(1, len(kinds), figsize=(13, 2.9), layout="constrained")
    for panel, (name, a, b, options) in zip(panels, kinds, strict=True):
        path = dalign.dtw_path(a, b, **options)[0]
        lattice = _allowed(dalign.pairwise(a, b)[0], **options)
        dalign.plot.cost(lattice, path=path, ax=panel, colorbar=False)
        panel.set_title(f"{name}: {dalign.dtw(a, b, **options).item():.2f}")
    return figure


def lattices(rng: np.random.Generator) -> pyplot.Figure:
    """Four settings of the general lattice for the labels D F F G, nine frames."""
    names = ("CTC-A", "CTC-C", "SDTW-D", "SDTW-E")
    ratios = [9, 9, 4, 4]  # columns
    figure, panels = pyplot.subplots(1, 4, figsize=(12.2, 4), width_ratios=ratios, sharey=True, layout="constrained")
    for panel, name in zip(panels, names, strict=True):
        look: dict[str, Any] = {"labels": ("D", "F", "F", "G"), "legend": name == names[-1], "ax": panel}
        dalign.plot.lattice(dalign.presets.ddtw(name), 9, targets=[2, 5, 5, 7], **look)
        panel.set_title(f'"{name}"')
        panel.set_ylabel("frame of x" if name == names[0] else "")
    return figure


def warps(rng: np.random.Generator) -> pyplot.Figure:
    """Costs of a pair with its best warp in continuous time under some weights and bounds, and the path of DTW."""
    x, y = (one[None, :, None] for one in performances(0, 2, rng))
    part = x[:, 20:80]
    kinds: list[tuple[str, Tensor, dict[str, Any]]] = [
        ("reg_weight = 0.001", x, {"reg_weight": 1e-3}),
        ("reg_weight = 0.1", x, {"reg_weight": 0.1}),
        ("slope_bounds = (0.5, 2)", x, {"reg_weight": 1e-3, "slope_bounds": (0.5, 2.0)}),
        ("band = 0.04", x, {"reg_weight": 1e-3, "band": 0.04}),
        ("subsequence = True", part, {"reg_weight": 1e-3, "subsequence": True}),
    ]
    figure, panels = pyplot.subplots(1, len(kinds), figsize=(13, 2.9), layout="constrained")
    for panel, (name, a, options) in zip(panels, kinds, strict=True):
        phi = dalign.DecDTW(**options)(a, y)[0] * (y.shape[1] - 1)
        path = dalign.dtw_path(a, y, subsequence=options.get("subsequence", False))[0]
        dalign.plot.cost(dalign.pairwise(a, y)[0], ax=panel, colorbar=False)
        panel.plot(path[:, 1], path[:, 0], color="white", linewidth=0.9, linestyle=":", label="DTW")
        panel.plot(phi, np.arange(len(phi)), color="#E69F00", linewidth=1.8, label="warp")
        panel.set_title(name)
    panels[0].legend(loc="upper left", fontsize=7, framealpha=0.4, labelcolor="white", facecolor="black")
    return figure


def _barycenter(series: Series, gamma: float) -> Tensor:
    return dalign.SoftDTWBarycenter(gamma=gamma, length=100, max_iter=200).fit(series).barycenter_


def _between(first: Tensor, second: Tensor, share: float) -> Tensor:
    """The weighted average, started from the one that weighs more: the mean of both is a bad start."""
    start = first if share < 0.5 else second
    search = dalign.SoftDTWBarycenter(gamma=0.1, init=start, max_iter=500, tol=1e-9)
    return search.fit([first, second], sample_weight=[1 - share, share]).barycenter_


def _resample(series: Tensor, length: int) -> Tensor:
    return torch.nn.functional.interpolate(series[None, None], length, mode="linear", align_corners=True)[0, 0]


def _allowed(cost: Tensor, band: float | None = None, itakura: float | None = None, **_: object) -> Tensor:
    """The cost with +inf where band and parallelogram (formulas of `dtw`) let no path go."""
    n, m = cost.shape
    u, v = torch.arange(n)[:, None] * (m - 1), torch.arange(m) * (n - 1)
    rest_u, rest_v = (n - 1) * (m - 1) - u, (n - 1) * (m - 1) - v
    allowed = torch.ones(n, m, dtype=torch.bool)
    if band is not None:
        allowed &= (u - v).abs() <= band * (max(n, m) - 1)
    if itakura is not None:
        allowed &= (u <= itakura * v) & (v <= itakura * u)
        allowed &= (rest_u <= itakura * rest_v) & (rest_v <= itakura * rest_u)
    return cost.masked_fill(~allowed, torch.inf)


PICTURES = {
    "averages": averages,
    "interpolation": interpolation,
    "clusters": clusters,
    "paths": paths,
    "lattices": lattices,
    "warps": warps,
}


def draw(out: Path, names: Sequence[str] = tuple(PICTURES), seed: int = 0) -> list[Path]:
    """Draw the named pictures as gallery_NAME.png into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name in names:
        with matplotlib.rc_context(STYLE):
            figure = PICTURES[name](np.random.default_rng(seed))
            written.append(out / f"gallery_{name}.png")
            figure.savefig(written[-1])
            pyplot.close(figure)
    return written


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.gallery", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="folder of the pictures")
    parser.add_argument("--only", nargs="+", choices=tuple(PICTURES), default=tuple(PICTURES), metavar="NAME")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    for path in draw(asked.out, asked.only, asked.seed):
        print(f"written: {path}")


if __name__ == "__main__":
    main()
