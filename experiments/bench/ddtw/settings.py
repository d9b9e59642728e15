"""Settings of the general lattice that are measured: Table I of the dDTW paper, steps of slope 1/2 to 2, operators."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

INF = math.inf
CTC_STEPS = ((1, 0), (1, 1), (1, 2))
THREE_STEPS = ((1, 0), (0, 1), (1, 1))


@dataclass(frozen=True)
class Setting:
    """A lattice.

    Attributes
    ----------
    name : str
        As in tables.
    steps : tuple of pairs
        How far each step goes along x and y.
    label : tuple of float
        Weight of each step into a label.
    blank : tuple of float or None
        Weight of each step into a blank; None: the columns are labels alone.
    smoothing : str
        The operator.
    """

    name: str
    steps: tuple[tuple[int, int], ...]
    label: tuple[float, ...]
    blank: tuple[float, ...] | None = None
    smoothing: str = "softmin"

    @property
    def sides(self) -> int:
        """Columns in which paths may start, in the first row, and as many in which they may end, in the last one."""
        return 1 if self.blank is None else 2

    def columns(self, labels: int) -> int:
        """Columns of the lattice of so many labels."""
        return labels if self.blank is None else 2 * labels + 1

    def weights(self, labels: Tensor) -> Tensor | None:
        """Weights (B, columns, S) for labels (B, L), inf blocks; or (1, 1, S) without blanks; None for ones."""
        own = torch.tensor(self.label)
        if self.blank is None:
            return None if bool((own == 1).all()) else own[None, None]
        weights = torch.tensor(self.blank).repeat(labels.shape[0], self.columns(labels.shape[1]), 1)
        weights[:, 1::2] = own
        repeated = labels[:, 1:] == labels[:, :-1]
        weights[:, 3::2, 2] = weights[:, 3::2, 2].masked_fill(repeated, INF)  # the blank between must be passed
        return weights


CTC_A = Setting("CTC-A", CTC_STEPS, (1.0, 1.0, 1.0), (1.0, 1.0, INF))
SDTW_E = Setting("SDTW-E", THREE_STEPS, (1.0, 1.0, 1.0))

SETTINGS = {
    setting.name: setting
    for setting in (
        CTC_A,
        Setting("CTC-A-W", CTC_STEPS, (0.1, 1.0, 1.0), (1.0, 1.0, INF)),
        Setting("SDTW-D", ((1, 0), (1, 1)), (1.0, 1.0)),
        SDTW_E,
        Setting("SDTW-E-W", THREE_STEPS, (0.1, 1.0, 1.0)),
        Setting("2-1 steps", ((1, 1), (2, 1), (1, 2)), (1.0, 1.0, 1.0)),
        *(
            Setting(f"SDTW-E, {smoothing}", THREE_STEPS, (1.0, 1.0, 1.0), smoothing=smoothing)
            for smoothing in ("sparsemin", "smoothmin", "hardmin")
        ),
    )
}
