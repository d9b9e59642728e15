"""The two networks of the DILATE paper, Section 4.1: from what was seen (B, N, 1) to the forecast (B, M, 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

DECODED = 16  # features between the decoder's state and a value, as in the authors' program


class MLP(nn.Module):
    """One hidden layer; all values of the forecast at once."""

    def __init__(self, n_seen: int, n_future: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(n_seen, hidden), nn.ReLU(), nn.Linear(hidden, n_future))

    def forward(self, seen: Tensor) -> Tensor:
        """Forecast."""
        return self.layers(seen.flatten(1))[..., None]


class Seq2Seq(nn.Module):
    """A GRU reads what was seen; another one goes on from its state, fed with its own last value."""

    def __init__(self, n_seen: int, n_future: int, hidden: int) -> None:
        super().__init__()
        self.n_future = n_future
        self.encoder = nn.GRU(1, hidden, batch_first=True)
        self.decoder = nn.GRUCell(1, hidden)
        self.output = nn.Sequential(nn.Linear(hidden, DECODED), nn.ReLU(), nn.Linear(DECODED, 1))

    def forward(self, seen: Tensor) -> Tensor:
        """Forecast."""
        state = self.encoder(seen)[1][0]
        value, values = seen[:, -1], []
        for _ in range(self.n_future):
            state = self.decoder(value, state)
            value = self.output(state)
            values.append(value)
        return torch.stack(values, dim=1)


NETWORKS: dict[str, type[MLP] | type[Seq2Seq]] = {"mlp": MLP, "gru": Seq2Seq}
"""By name, networks that are made with (N, M, hidden)."""
