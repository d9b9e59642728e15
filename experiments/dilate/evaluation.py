"""Forecasts judged as in the DILATE paper, and a forecast that needs no learning."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from experiments.dilate.data import Part
from torch_dalign import metrics

MEASURES = ("mse", "dtw", "tdi")


def judge(forecast: Tensor, future: Tensor) -> dict[str, float]:
    r"""Means over the series (n, M, 1).

    "mse": of all values. "dtw": :math:`\sqrt{\min_\pi \sum_\pi (x_i - y_j)^2}`. "tdi": the sum of :math:`(i - j)^2`
    along that path, over :math:`M^2`.
    """
    forecast, future = forecast.double(), future.double()
    found = {
        "mse": (forecast - future).square().mean(),
        "dtw": metrics.dtw(forecast, future),
        "tdi": metrics.tdi(forecast, future),
    }
    return {name: value.item() for name, value in found.items()}


@torch.no_grad()
def predict(network: nn.Module, part: Part) -> Tensor:
    """Forecasts (n, M, 1)."""
    return network.eval()(part.seen)


def last_value(part: Part) -> Tensor:
    """The last value seen, for ever: what every other forecast has to beat."""
    return part.seen[:, -1:].expand_as(part.future)


def shown(part: Part) -> int:
    """Index of the series for the picture: a quarter of the futures have a larger range."""
    ranges = part.future.amax(dim=(1, 2)) - part.future.amin(dim=(1, 2))
    return int(ranges.argsort(stable=True)[round(0.75 * (len(ranges) - 1))])
